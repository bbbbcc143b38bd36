"""Broken inputs go through every command: skipped and reported, or one clear line; and nothing outside the output."""

import json
from pathlib import Path

import broken
import numpy as np
import pytest
import standins
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigen import codec, generate, lm
from minigen.app import cli
from minigen.app.demo import run
from minigen.audio import AudioError
from minigen.corpus import TokenSet, read_corpus
from minigen.engine.errors import MinigenError
from minigen.evaluation import clap
from minigen.recipes.codec import train as codec_recipe


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Every broken and unusual sound in one corpus; beside it a file that a path in its tables asks for."""
    top = tmp_path_factory.mktemp("broken")
    (top / "secret.wav").write_bytes(broken.sound())
    return broken.write_mixed(top / "corpora" / "mixed")


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    """A folder of its own for every test, and tiny models in the place of the shipped ones."""
    monkeypatch.chdir(tmp_path)
    parts = standins.tiny_parts()
    tta = generate.TextToAudio(parts.codec, parts.encoder, standins.tiny_lm(1))
    monkeypatch.setattr(codec, "load_codec", lambda name: parts.codec)
    monkeypatch.setattr(generate.TextToAudio, "from_pretrained", lambda name, adapter=None: tta)
    monkeypatch.setattr(lm, "find_generator_folder", lambda name: None)
    monkeypatch.setattr(clap, "load_judge", lambda name: parts.judge)
    monkeypatch.setattr(clap, "load_tagger", lambda name: parts.tagger)
    monkeypatch.setattr(run.Parts, "shipped", lambda: parts)
    monkeypatch.setattr(run, "DemoConfig", lambda: standins.TINY)
    monkeypatch.setattr(codec_recipe, "train_codec", lambda *asked, **options: None)


def outcome(capsys, *argv) -> tuple[int, str]:
    """Run a command: done, or refused with one line; never a traceback. Returns the status and all it said."""
    status = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if line.startswith("minigen: ")]
    assert len(told) == (status != 0) and status in (0, 2), (argv, status, err[-500:])
    assert "Traceback" not in err + out
    return status, out + err


def everything(*folders: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


COMMANDS = {
    "tokenize": "tokenize {corpus} --out out/tokens --seconds 0.4 --mix 0",
    "evaluate": "evaluate --data {corpus} --clips 4 --seconds 0.4 --csv out/table.csv",
    "compare": "compare one two --data {corpus} --clips 4 --seconds 0.4 --guidance 1 --csv out/table.csv",
    "demo": "demo --data {corpus} --minutes 0.002 --out out",
    "train-codec": "train-codec --data {corpus} --out out",
}


def test_there_are_more_than_forty_of_them():
    assert len(broken.SOUNDS) + len(broken.TABLES) >= 60


@pytest.mark.parametrize("command", COMMANDS)
def test_a_corpus_full_of_broken_sounds_goes_through(command, mixed, capsys, tmp_path):
    """What can be used is used, what cannot is passed over, and only the output folder changes."""
    before = everything(mixed.parent.parent)
    status, said = outcome(capsys, *COMMANDS[command].format(corpus=mixed).split())
    assert status == 0, said[-500:]
    assert everything(mixed.parent.parent) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_what_was_skipped_is_listed_with_its_reason(mixed, capsys):
    outcome(capsys, *COMMANDS["tokenize"].format(corpus=mixed).split())
    listed = Path("out/tokens-skipped.csv").read_text() + Path("out/tokens/skipped.jsonl").read_text()
    assert all(name in listed for name in broken.NOT_USABLE), listed
    heard = {Path(row[0]).name for row in TokenSet.open("out/tokens").sources if len(row) == 1}
    assert heard == set(broken.USABLE)


@pytest.mark.parametrize("name", broken.REFUSED_TABLES)
def test_a_table_without_one_usable_row_is_refused_by_every_command(name, capsys, tmp_path):
    corpus = broken.write_tables(tmp_path / "corpus", broken.REFUSED_TABLES[name])
    before = everything(corpus)
    for command in COMMANDS.values():
        status, said = outcome(capsys, *command.format(corpus=corpus).split())
        assert status == 2 and len(said) < 2000
    assert everything(corpus) == before and not any(Path("out").rglob("*.npy"))


@pytest.mark.parametrize("name", broken.USABLE_TABLES)
def test_an_unusual_table_gives_its_usable_rows_to_the_whole_chain(name, capsys, tmp_path):
    corpus = broken.write_tables(tmp_path / "corpus", broken.USABLE_TABLES[name])
    status, said = outcome(capsys, *COMMANDS["tokenize"].format(corpus=corpus).split())
    assert status == 0, said
    tokens = TokenSet.open("out/tokens")
    assert len(tokens) >= 1 and all(0 < len(c) <= 2100 and c.isprintable() for c in tokens.captions)
    assert not list(tmp_path.rglob("pwned"))


def test_latin_1_and_quoted_newlines_are_read_as_they_were_meant(tmp_path):
    captions = {}
    for name in ("Latin-1", "quoted newlines"):
        captions[name] = read_corpus(broken.write_tables(tmp_path / name, broken.USABLE_TABLES[name])).captions
    assert captions["Latin-1"][-1] == "Un chien aboie à côté"
    assert captions["quoted newlines"][-1] == 'A dog barks "twice"'


def test_an_endless_caption_costs_its_row_and_no_other(tmp_path):
    for name, reason in (("a caption of 10 MB", "no caption"), ("a caption of 100 kB", "caption too long")):
        corpus = read_corpus(broken.write_tables(tmp_path / name, broken.USABLE_TABLES[name]))
        assert corpus.captions == ["A dog barks", "Rain falls"] and corpus.report.by_reason == {reason: 1}


def test_events_without_a_place_in_time_are_skipped(tmp_path):
    corpus = read_corpus(broken.write_tables(tmp_path / "c", broken.USABLE_TABLES["events out of time"]))
    assert corpus.captions == ["A"] and corpus.report.by_reason == {"bad events": 6}


@pytest.mark.parametrize("name", broken.SOUNDS)
def test_a_prompt_is_read_or_refused(name, mixed, capsys, tmp_path):
    prompt = mixed / "audio" / name
    status, _ = outcome(capsys, "generate", "rain", "-o", "out/rain.wav", "--seconds", "1", "--prompt", prompt)
    assert status == (0 if name in broken.USABLE and name != "two hours.wav" or name in ("dc.wav", "silent.wav") else 2)
    assert [path.name for path in tmp_path.rglob("*.wav")] == ["rain.wav"] * (status == 0)


@pytest.mark.parametrize("name", broken.SOUNDS)
def test_the_same_sounds_in_class_folders(name, tmp_path):
    """Each among good ones: read, or skipped with a reason; a link or a pipe is no recording."""
    folder = broken.write_sounds(tmp_path / "recordings" / "dog", {f"{n}.wav": broken.sound() for n in range(9)})
    broken.write_sounds(folder, {name: broken.SOUNDS[name]})
    skipped = []
    for split in ("train", "validation", "test"):
        try:
            corpus = read_corpus(folder.parent, split, seconds=0.4)
        except MinigenError as error:  # the broken one is alone in this split
            assert "1 files looked at, 0 readable" in str(error)
            skipped.append(str(error))
            continue
        skipped += corpus.report.by_reason
        for index in range(len(corpus)):
            try:
                assert torch.isfinite(corpus.load(index)).all()
            except AudioError as error:
                skipped.append(error.reason)
    assert len(skipped) == (name in broken.NOT_USABLE), skipped


# token caches


def write_tokens(folder: Path) -> Path:
    folder.mkdir()
    np.save(folder / "codes.npy", np.zeros((2, 4, 8), np.int16))
    row = {"caption": "Rain", "events": [], "source": ["a.wav"]}
    (folder / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    (folder / "skipped.jsonl").write_text("")
    state = {"jobs": 2, "next": 2, "rows": 2, "skipped": 0, "done": True,
             "codec": {"frame_rate": 50.0, "codebook_size": 1024}}  # fmt: skip
    (folder / "tokens.json").write_text(json.dumps(state))
    return folder


def pickled(folder: Path) -> None:
    """An array of objects: numpy reads it by running a pickle, which here would leave a file behind."""

    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "pwned"), "w"))

    np.save(folder / "codes.npy", np.array([[[Trap()]]], dtype=object), allow_pickle=True)


SPOILED = {
    "pickled codes": pickled,
    "codes of another kind": lambda folder: np.save(folder / "codes.npy", np.zeros((2, 4, 8))),
    "codes of another shape": lambda folder: np.save(folder / "codes.npy", np.zeros((2, 4), np.int16)),
    "fewer codes than rows": lambda folder: np.save(folder / "codes.npy", np.zeros((1, 4, 8), np.int16)),
    "cut codes": lambda folder: (folder / "codes.npy").write_bytes((folder / "codes.npy").read_bytes()[:100]),
    "no codes": lambda folder: (folder / "codes.npy").unlink(),
    "a state without counts": lambda folder: (folder / "tokens.json").write_text('{"done": true}'),
    "a state that is a list": lambda folder: (folder / "tokens.json").write_text("[1]"),
    "a state of text": lambda folder: (folder / "tokens.json").write_text('{"done": true, "rows": "2"}'),
    "half a state": lambda folder: (folder / "tokens.json").write_text('{"done": tr'),
    "rows without captions": lambda folder: (folder / "rows.jsonl").write_text('{"events": [], "source": []}\n' * 2),
    "rows that are numbers": lambda folder: (folder / "rows.jsonl").write_text("1\n2\n"),
    "captions that are numbers": lambda folder: (folder / "rows.jsonl").write_text(
        '{"caption": 1, "events": [], "source": []}\n' * 2
    ),
    "events of another kind": lambda folder: (folder / "rows.jsonl").write_text(
        '{"caption": "a", "events": [{"x": 1}], "source": []}\n' * 2
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_token_cache_is_refused_and_nothing_in_it_is_run(name, capsys, tmp_path):
    TokenSet.open(write_tokens(tmp_path / "whole"))
    SPOILED[name](write_tokens(tmp_path / "tokens"))
    status, said = outcome(capsys, *"train tokens --valid tokens --out out --steps 1".split())
    assert status == 2 and "damaged" in said
    assert not list(tmp_path.rglob("pwned")) and not Path("out").exists()


# properties


CELL = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=300), st.lists(st.lists(CELL, max_size=6), max_size=6)), head=st.booleans())
def test_any_table_gives_clips_or_one_clear_error(tmp_path, content, head):
    """Arbitrary bytes, or arbitrary cells below a good header: never anything but clips and a MinigenError."""
    if isinstance(content, list):
        content = "\n".join(",".join(cells) for cells in content).encode()
    folder = tmp_path / "c"
    if not folder.exists():
        broken.write_sounds(folder, {"a.wav": broken.sound()})
    (folder / "train.csv").write_bytes(b"file,caption,kinds,counts,onsets,offsets\na.wav,Fine\n" * head + content)
    try:
        corpus = read_corpus(folder)
    except MinigenError as error:
        assert len(str(error)) < 1000
    else:
        assert len(corpus) == corpus.report.readable >= 1
        assert all(clip.file == str(folder / "a.wav") and clip.caption.isprintable() for clip in corpus.clips)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 60), new=st.binary(max_size=60), cut=st.integers(0, 16_100))
def test_any_damage_to_a_sound_gives_a_clip_or_a_reason(tmp_path, start, new, cut):
    """A wav whose header was overwritten anywhere with anything, and which was cut anywhere."""
    folder = tmp_path / "c"
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text("file,caption\na.wav,A sound\n")
    (folder / "a.wav").write_bytes(broken.patched(start, new)[: 16_044 - cut])
    try:
        wav = read_corpus(folder, seconds=0.25).load(0)
    except MinigenError:
        return
    assert wav.shape == (1, 1, 4000) and torch.isfinite(wav).all() and wav.abs().max() <= 1
