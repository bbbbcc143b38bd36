"""Mixing clips, and the token cache."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
import soundfile
import torch
from standins import HashCodec, tiny_codec

from minigen.corpus import Clip, Event, LatentSet, TokenSet, read_corpus, tokenize
from minigen.corpus.mixing import may_mix, mix_events, random_mixture
from minigen.corpus.subsets import load_some
from minigen.corpus.synthesis.scenes import has_held_out, held_out_pairs
from minigen.corpus.tokens import mix_captions, mix_clips, tokens_requirements
from minigen.engine.errors import MinigenError

KINDS = ("rain", "dog_bark", "siren", "clock_tick", "frog_croak", "church_bell")


@pytest.fixture
def corpus(tmp_path):
    """Twelve clips of 0.2 s, two of each of six kinds; the fourth is silent."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,caption,kinds,counts,onsets,offsets"]
    for number in range(12):
        level = 0 if number == 3 else 0.5
        soundfile.write(folder / f"{number}.wav", level * rng.uniform(-1, 1, 3200), 16000)
        lines.append(f"{number}.wav,A {KINDS[number % 6]} {number},{KINDS[number % 6]},1,0.0,0.2")
    (folder / "train.csv").write_text("\n".join(lines))
    return read_corpus(folder, seconds=0.2)


def rms(wav):
    return float(wav.square().mean().sqrt())


# mixing


def test_a_mixture_is_the_first_clip_plus_the_second_later_at_a_level_within_5_db():
    rng = np.random.default_rng(1)
    delays, levels = [], []
    for _ in range(60):
        first, second = 0.1 * torch.randn(1, 1, 4000), 0.03 * torch.randn(1, 1, 4000)
        rest = (mix_clips(first, second, rng) - first).flatten()
        delay = int(rest.abs().gt(1e-6).nonzero()[0])
        gain = rest[delay:] / second.flatten()[: 4000 - delay]
        assert gain.std() < 1e-3 * gain.mean()
        delays.append(delay)
        levels.append(20 * np.log10(rms(first) / (float(gain.mean()) * rms(second))))
    assert -5.01 < min(levels) < -3.5 and 3.5 < max(levels) < 5.01
    assert min(delays) < 300 and 1700 < max(delays) <= 2050


def test_a_late_sound_is_never_pushed_out_of_its_mixture():
    second = torch.zeros(1, 1, 4000)
    second[..., 3600:3900] = 0.5
    rng = np.random.default_rng(2)
    for _ in range(50):
        rest = mix_clips(torch.full((1, 1, 4000), 1e-3), second, rng) - 1e-3
        assert rest.gt(1e-6).sum() >= 150


def test_a_mixture_that_would_clip_is_scaled_back():
    square = torch.ones(1, 1, 1000)
    assert mix_clips(square, square, np.random.default_rng(0)).abs().max() == pytest.approx(1.0)


def test_mixing_with_silence_is_finite():
    silence, noise = torch.zeros(1, 1, 100), torch.randn(1, 1, 100)
    for first, second in ((silence, noise), (noise, silence), (silence, silence)):
        assert torch.isfinite(mix_clips(first, second, np.random.default_rng(0))).all()


def test_captions_join_into_one_sentence_either_way():
    joined = {mix_captions("A dog barks.", "Rain falls!", np.random.default_rng(seed)) for seed in range(20)}
    assert joined == {"A dog barks and rain falls", "A dog barks while rain falls"}
    assert mix_captions("Rain", "TV chatter", np.random.default_rng(0)).endswith("TV chatter")
    assert mix_captions("Rain", "A cow moos", np.random.default_rng(0)).endswith(" a cow moos")


def test_events_of_a_mixture_are_moved_by_the_delay_and_those_past_the_end_are_gone():
    def clip(*events):
        return Clip("", "", 0.0, "", "", events)

    first = clip(Event("rain", 1, 0.5, 4.0))
    second = clip(Event("siren", 1, 0.0, 3.5), Event("dog_bark", 2, 3.5, 3.9))
    assert mix_events(first, second, 1.0, 4.0) == (Event("rain", 1, 0.5, 4.0), Event("siren", 1, 1.0, 4.0))
    assert mix_events(first, clip(), 1.0, 4.0) == ()


def test_clips_that_share_a_kind_make_a_held_back_pair_or_have_more_than_three_kinds_never_meet():
    def clip(caption, *kinds):
        return Clip("", "", 0.0, caption, "", tuple(Event(kind, 1, 0.0, 1.0) for kind in kinds))

    one, other = sorted(next(iter(held_out_pairs())))
    assert not may_mix(clip("a", one), clip("b", other))
    assert not may_mix(clip("a", one, "wind"), clip("b", "wind"))
    assert not may_mix(clip("a"), clip("a"))
    assert may_mix(clip("a"), clip("b")) and may_mix(clip("a", one), clip("b"))
    fine = next(kinds for kinds in combinations(KINDS, 4) if not has_held_out(kinds))
    assert may_mix(clip("a", fine[0]), clip("b", *fine[1:3]))
    assert not may_mix(clip("a", *fine[:2]), clip("b", *fine[2:]))


def test_a_mixture_draws_again_when_a_clip_cannot_be_loaded(corpus):
    for seed in range(30):
        _, caption, events, files = random_mixture(corpus, np.random.default_rng(seed))
        assert len(files) == len(events) == 2 and not any(file.endswith("/3.wav") for file in files)
        assert caption.startswith("A ")


def test_clips_that_may_not_meet_give_no_mixture(tmp_path):
    for number in range(8):
        (tmp_path / "rain").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "rain" / f"{number}.wav", np.resize([0.5, -0.5], 800), 16000)
    rain = read_corpus(tmp_path, seconds=0.1)
    assert random_mixture(rain, np.random.default_rng(0)) is None
    assert len(tokenize(rain, HashCodec(), tmp_path / "tokens", mix=1.0, progress=False)) == len(rain)


# the token cache


def test_tokens_are_the_codes_of_the_clips_one_at_a_time(corpus, tmp_path):
    tokens = tokenize(corpus, HashCodec(), tmp_path / "tokens", batch_size=5, progress=False)
    readable = [index for index in range(12) if index != 3]
    assert len(tokens) == 11 and tokens.codes.shape == (11, 4, 10) and tokens.codes.dtype == np.int16
    assert tokens.captions == [corpus.captions[index] for index in readable]
    assert tokens.events == [corpus.clips[index].events for index in readable]
    assert (tokens.frame_rate, tokens.codebook_size) == (50.0, 1024)
    codes, captions = tokens.batch([10, 0])
    assert codes.dtype == torch.int64 and captions == [tokens.captions[10], tokens.captions[0]]
    assert torch.equal(codes[0], HashCodec().encode(corpus.load(11))[0])
    assert torch.equal(codes[1], HashCodec().encode(corpus.load(0))[0])
    assert torch.equal(tokens.batch(torch.tensor([10, 0]))[0], codes)


def test_a_silent_clip_is_skipped_and_reported_once(corpus, tmp_path):
    for _ in range(2):
        tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    assert [(os.path.basename(file), reason) for file, reason in corpus.report.skipped] == [("3.wav", "silent")]


def test_mixtures_follow_the_clips_and_say_what_they_are_made_of(corpus, tmp_path):
    tokens = tokenize(corpus, HashCodec(), tmp_path / "tokens", mix=0.5, seed=3, progress=False)
    assert len(tokens) == 11 + 6
    for row in range(11, 17):
        assert len(tokens.sources[row]) == len(tokens.events[row]) == 2
        assert " and " in tokens.captions[row] or " while " in tokens.captions[row]
    wav, caption, events, files = random_mixture(corpus, np.random.default_rng([3, 12]))
    assert (tokens.captions[11], tokens.events[11], tokens.sources[11]) == (caption, events, files)
    assert torch.equal(tokens.batch([11])[0], HashCodec().encode(wav))


def test_another_seed_gives_other_mixtures_of_the_same_clips(corpus, tmp_path):
    one, other = (tokenize(corpus, HashCodec(), tmp_path / f"{s}", 0.5, s, progress=False) for s in (0, 1))
    assert np.array_equal(one.codes[:11], other.codes[:11]) and one.sources[11:] != other.sources[11:]


def test_a_finished_cache_is_opened_without_encoding_anything(corpus, tmp_path):
    tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    codec = HashCodec()
    again = tokenize(corpus, codec, tmp_path / "tokens", progress=False)
    assert codec.clips == 0 and len(again) == len(TokenSet.open(tmp_path / "tokens")) == 11


@pytest.mark.parametrize("junk", [True, False])
def test_a_run_that_broke_off_goes_on_and_gives_the_same_tokens(corpus, tmp_path, junk):
    whole = tokenize(corpus, HashCodec(), tmp_path / "whole", mix=1.0, batch_size=4, progress=False)

    class Breaking(HashCodec):
        def encode(self, wav):
            if self.clips > 12:
                raise KeyboardInterrupt
            return super().encode(wav)

    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, Breaking(), tmp_path / "parts", mix=1.0, batch_size=4, progress=False)
    with pytest.raises(MinigenError, match=r"unfinished tokens \(16 of 24 clips\)"):
        TokenSet.open(tmp_path / "parts")
    if junk:  # rows that were written, but not yet counted, when it broke off
        with open(tmp_path / "parts" / "rows.jsonl", "a") as file:
            file.write('{"caption": "half a li')
    codec = HashCodec()
    parts = tokenize(corpus, codec, tmp_path / "parts", mix=1.0, batch_size=4, progress=False)
    assert codec.clips <= 8
    assert np.array_equal(parts.codes, whole.codes)
    assert (parts.captions, parts.events, parts.sources) == (whole.captions, whole.events, whole.sources)


def test_tokens_made_with_other_settings_are_not_taken_for_these(corpus, tmp_path):
    tokenize(corpus, HashCodec(), tmp_path / "tokens", mix=0.5, progress=False)
    other = read_corpus(corpus.clips[0].file.replace("0.wav", "train.csv"), seconds=0.1)
    for changed, named in (
        ((corpus, HashCodec(), 0.0, 0), "mix"),
        ((corpus, HashCodec(), 0.5, 1), "seed"),
        ((corpus, HashCodec(version=1), 0.5, 0), "codec"),
        ((other, HashCodec(), 0.5, 0), "corpus"),
    ):
        with pytest.raises(MinigenError, match=rf"other settings \({named} differ\)"):
            tokenize(changed[0], changed[1], tmp_path / "tokens", changed[2], changed[3], progress=False)


def test_a_recording_that_was_replaced_is_not_taken_for_the_old_one(corpus, tmp_path):
    tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    soundfile.write(corpus.clips[5].file, 0.5 * np.random.default_rng(1).uniform(-1, 1, 3200), 16000)
    with pytest.raises(MinigenError, match=r"other settings \(corpus differ\)"):
        tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)


def test_a_finished_cache_is_opened_where_nothing_may_be_written(corpus, tmp_path, monkeypatch):
    made = tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)

    def refuse(path):
        raise MinigenError(f"cannot write {path}")

    monkeypatch.setattr("minigen.corpus.tokens.exclusive", refuse)
    assert np.array_equal(tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False).codes, made.codes)
    with pytest.raises(MinigenError, match="cannot write"):
        tokenize(corpus, HashCodec(), tmp_path / "others", progress=False)


def test_two_programs_with_one_folder_wait_for_each_other(corpus, tmp_path):
    codecs = HashCodec(), HashCodec()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(tokenize, corpus, codec, tmp_path / "tokens", 0.5, 0, 1, False) for codec in codecs]
        one, two = (job.result() for job in jobs)
    assert np.array_equal(one.codes, two.codes) and len(one) == 17
    assert min(codec.clips for codec in codecs) == 0  # the second one found the work done


def test_a_batch_without_a_clip_is_refused(corpus, tmp_path):
    with pytest.raises(MinigenError, match="batch_size is 0"):
        tokenize(corpus, HashCodec(), tmp_path / "tokens", batch_size=0, progress=False)


def test_settings_that_cannot_be_met_are_one_clear_error(corpus, tmp_path):
    (tmp_path / "file").write_text("in the way")
    music, vast = HashCodec(), HashCodec()
    music.sample_rate, vast.codebook_size = 32000, 2**16
    for codec, folder, mix, match in (
        (music, "a", 0.0, "needs 32000 Hz"),
        (vast, "a", 0.0, "16 bits"),
        (HashCodec(), "a", -1.0, "no share"),
        (HashCodec(), "a", float("nan"), "no share"),
        (HashCodec(), "file/a", 0.0, "cannot write"),
    ):
        with pytest.raises(MinigenError, match=match):
            tokenize(corpus, codec, tmp_path / folder, mix, progress=False)
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_seen_before_it_is_written_to(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(MinigenError, match="Make room"):
        tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)


def test_a_corpus_without_one_usable_clip_is_one_clear_error(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 16000)
    (tmp_path / "train.csv").write_text("file,caption\na.wav,Nothing\n")
    with pytest.raises(MinigenError, match=r"1 rows looked at, 0 readable \(1 silent\)"):
        tokenize(read_corpus(tmp_path), HashCodec(), tmp_path / "tokens", progress=False)


def test_what_is_no_token_cache_is_not_opened(corpus, tmp_path):
    with pytest.raises(MinigenError, match="no tokens in"):
        TokenSet.open(tmp_path)
    tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    rows = (tmp_path / "tokens" / "rows.jsonl").read_text()
    for cut in (rows[:-20], rows[: rows[:-1].rindex("\n") + 1]):
        (tmp_path / "tokens" / "rows.jsonl").write_text(cut)
        with pytest.raises(MinigenError, match="missing or damaged"):
            TokenSet.open(tmp_path / "tokens")
    (tmp_path / "tokens" / "rows.jsonl").write_text(rows)
    (tmp_path / "tokens" / "codes.npy").write_bytes(b"junk")
    with pytest.raises(MinigenError, match="missing or damaged"):
        TokenSet.open(tmp_path / "tokens")
    (tmp_path / "tokens" / "tokens.json").write_text("{")
    with pytest.raises(MinigenError, match="missing or damaged"):
        TokenSet.open(tmp_path / "tokens")


def test_the_cache_is_plain_files_anyone_can_read(corpus, tmp_path):
    tokens = tokenize(corpus, HashCodec(), tmp_path / "tokens", progress=False)
    assert np.array_equal(np.load(tmp_path / "tokens" / "codes.npy")[: len(tokens)], tokens.codes)
    row = json.loads((tmp_path / "tokens" / "rows.jsonl").read_text().splitlines()[1])
    assert row["caption"] == "A dog_bark 1" and row["events"][0]["kind"] == "dog_bark"
    assert isinstance(tokens.codes, np.memmap)


def test_real_recordings_go_from_class_folders_to_tokens(esc10, tmp_path):
    test = read_corpus(esc10, "test", seconds=1.0)
    tokens = tokenize(test, HashCodec(), tmp_path / "tokens", mix=0.2, progress=False)
    assert tokens.codes.shape[1:] == (4, 50) and len(tokens) + len(test.report.skipped) == round(1.2 * len(test))
    assert 0 <= tokens.codes.min() and tokens.codes.max() < 1024


def test_two_captions_of_one_recording_are_never_mixed_and_one_is_measured(tmp_path):
    for number in range(6):
        soundfile.write(tmp_path / f"v{number}.wav", np.random.default_rng(number).uniform(-0.5, 0.5, 3200), 16000)
    rows = [f"v{number},caption {k} of {number}" for number in range(6) for k in range(5)]
    (tmp_path / "test.csv").write_text("\n".join(["youtube_id,caption", *rows]))
    corpus = read_corpus(tmp_path, "test", seconds=0.2)
    assert len(corpus) == 30 and not may_mix(*corpus.clips[:2]) and may_mix(corpus.clips[0], corpus.clips[5])
    for seed in range(30):
        assert len(set(random_mixture(corpus, np.random.default_rng(seed))[3])) == 2
    clips, wavs = load_some(corpus, 48)
    assert len(wavs) == 6 and len({clip.recording for clip in clips}) == 6


# latents


@pytest.fixture
def with_latents(corpus, tmp_path):
    return tokenize(corpus, tiny_codec(), tmp_path / "both", mix=0.5, batch_size=5, progress=False, latents=True)


def test_latents_are_stored_beside_the_same_codes(corpus, with_latents, tmp_path):
    codec, plain = tiny_codec(), tokenize(corpus, tiny_codec(), tmp_path / "plain", mix=0.5, progress=False)
    assert isinstance(with_latents, LatentSet) and with_latents.captions == plain.captions
    assert np.array_equal(with_latents.codes, plain.codes)
    assert with_latents.latents.dtype == np.float16 and with_latents.latents.shape == (len(plain), 10, 8)
    latents, captions = with_latents.batch([10, 0])
    assert latents.dtype == torch.float32 and captions == [plain.captions[10], plain.captions[0]]
    expected = torch.cat([codec.latents(corpus.load(11)), codec.latents(corpus.load(0))])
    torch.testing.assert_close(latents, expected, rtol=1e-3, atol=1e-3)


def test_tokens_with_latents_serve_as_tokens_but_not_the_other_way_round(corpus, with_latents, tmp_path):
    assert np.array_equal(tokenize(corpus, tiny_codec(), tmp_path / "both", mix=0.5).codes, with_latents.codes)
    tokenize(corpus, tiny_codec(), tmp_path / "plain", mix=0.5, progress=False)
    with pytest.raises(MinigenError, match="other settings .latents differ"):
        tokenize(corpus, tiny_codec(), tmp_path / "plain", mix=0.5, progress=False, latents=True)
    with pytest.raises(MinigenError, match="have no latents. Make them with `minigen tokenize --latents`"):
        LatentSet.open(tmp_path / "plain")


def test_a_codec_without_latents_and_damaged_latents_are_refused(corpus, with_latents, tmp_path):
    with pytest.raises(MinigenError, match="HashCodec has no latents"):
        tokenize(corpus, HashCodec(), tmp_path / "hash", latents=True)
    (tmp_path / "both" / "latents.npy").write_bytes(b"no array")
    with pytest.raises(MinigenError, match="latents.npy is missing or damaged"):
        LatentSet.open(tmp_path / "both")


def test_a_stopped_tokenising_with_latents_goes_on(corpus, with_latents, tmp_path, monkeypatch):
    from minigen.corpus import tokens as module

    gather, calls = module._gather, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return gather(*arguments)

    settings = {"mix": 0.5, "batch_size": 5, "progress": False, "latents": True}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_gather", stop)
        tokenize(corpus, tiny_codec(), tmp_path / "stopped", **settings)
    again = tokenize(corpus, tiny_codec(), tmp_path / "stopped", **settings)
    assert np.array_equal(again.latents, with_latents.latents) and again.captions == with_latents.captions


def test_the_room_for_latents_is_told_first(corpus, tmp_path):
    codec = tiny_codec()
    plain, both = (tokens_requirements(corpus, codec, tmp_path / "x", latents=kind).disk for kind in (False, True))
    assert both - plain == 2 * 64 * 10 * len(corpus)
