"""The classifier of real recordings, and the card of the corpus that reports it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from minigen.audio import save_audio
from minigen.corpus.clip import KINDS
from minigen.engine.errors import MinigenError
from minigen.recipes.corpus import card as corpus_card
from minigen.recipes.corpus.real_listener import (
    FRAMES,
    Listener,
    Recordings,
    alone,
    confusion,
    fold_accuracies,
    kernel,
    picture,
    read_recordings,
    statistics,
    train_listener,
    vary,
)

README = """- **[1-0-A.ogg](u):  clip derived from [a song](u) by *someone* ([CC0](u))
- **[1-0-A.wav](u)**:  clip derived from [a dog (loud)](u) by *A. Name* ([CC-BY](u))
"""


def stood_in(kinds: tuple[str, ...], folds: int = 2, each: int = 3) -> Recordings:
    """Synthesised clips instead of recordings."""
    places = [(place, fold, i) for place in range(len(kinds)) for fold in range(1, folds + 1) for i in range(each)]
    wavs = [torch.from_numpy(alone(kinds[place], 10 * fold + i, 99)[1]) for place, fold, i in places]
    labels, folds, _ = (torch.tensor(values) for values in zip(*places, strict=True))
    return Recordings(torch.cat(list(map(picture, wavs))), labels, folds, kinds, (Path(),) * len(wavs))


@pytest.fixture(scope="module")
def three() -> Recordings:
    return stood_in(("church_bell", "crickets", "rain"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of two folds of short noises, and a class of no known kind."""
    (tmp_path / "README.md").write_text(README)
    for name in ("001 - Dog bark", "002 - Rain", "003 - Unknown thing"):
        for fold in (1, 2):
            save_audio(tmp_path / name / f"{fold}-0-A.wav", 0.1 * torch.randn(1, 1, 16000 + 800 * fold))
    return tmp_path


def test_kinds_come_from_folders_and_folds_from_file_names(folder):
    found = read_recordings(folder)
    assert found.kinds == ("dog_bark", "rain") and found.labels.tolist() == [0, 0, 1, 1]
    assert found.folds.tolist() == [1, 2, 1, 2] and found.pictures.shape == (4, 251, 64)
    assert [path.name for path in found.rows(found.folds == 2).paths] == ["2-0-A.wav"] * 2


def test_recordings_that_cannot_serve_are_named(folder, tmp_path):
    with pytest.raises(MinigenError, match="named after a kind"):
        read_recordings(folder / "002 - Rain")
    found = read_recordings(folder)
    with pytest.raises(MinigenError, match="of fold 1"):
        fold_accuracies(found.rows(found.folds == 1))
    (folder / "002 - Rain/1-0-A.wav").rename(folder / "002 - Rain/rain.wav")
    with pytest.raises(MinigenError, match="rain.wav does not begin"):
        read_recordings(folder)


def test_the_statistics_do_not_depend_on_level_or_company():
    wavs = [torch.from_numpy(alone(kind, 0)[1]) for kind in ("church_bell", "rain")]
    together = statistics(torch.cat([picture(wav) for wav in wavs]))
    assert together.shape == (2, 607) and together.isfinite().all()
    torch.testing.assert_close(statistics(picture(0.1 * wavs[1])), together[1:], atol=1e-4, rtol=0)
    assert statistics(picture(torch.zeros(64000))).isfinite().all()


def test_modulation_is_found_at_its_speed():
    time = torch.arange(16000 * 4) / 16000
    noise = torch.randn(64000)
    means = []
    for hertz in (0.5, 4.5, 15.0):  # the first, fourth and sixth range of speeds
        levels = statistics(picture(noise * 10 ** torch.sin(2 * torch.pi * hertz * time)))[0, 384:496].view(7, 16)
        means.append(int(levels.mean(1).argmax()))
    assert means == [0, 3, 5]


def test_variations_have_the_seed_s_luck_and_stay_pictures(three):
    one, same, other = (vary(three.pictures[:4], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (4, FRAMES, 64) and one.isfinite().all() and one.min() >= -5


def test_kernel_ridge_solves_its_equation(three):
    listener = train_listener(three, copies=1, ridge=0.1)
    gram = [[float(torch.exp(-0.2 * ((x - y) ** 2).mean())) for y in listener.points] for x in listener.points]
    torch.testing.assert_close(kernel(listener.points, listener.points, 0.2), torch.tensor(gram), atol=1e-4, rtol=0)
    wanted = torch.nn.functional.one_hot(three.labels, 3).float()
    left = (torch.tensor(gram) + 0.1 * torch.eye(len(gram))) @ listener.weights
    torch.testing.assert_close(left, wanted, atol=1e-3, rtol=0)


def test_without_a_ridge_what_was_heard_is_known_by_heart(three):
    scores = train_listener(three, copies=1, ridge=1e-5).scores(three.pictures)
    assert (scores - torch.nn.functional.one_hot(three.labels, 3)).abs().max() < 0.01


def test_a_fold_is_named_by_a_listener_who_did_not_hear_it(three, monkeypatch):
    from minigen.recipes.corpus import real_listener as listener

    heard = []
    monkeypatch.setattr(listener, "train_listener", lambda known, **_: heard.append(known) or train_listener(known, 2))
    found = fold_accuracies(three)
    assert [known.folds.unique().tolist() for known in heard] == [[2], [1]]
    assert found.keys() == {1, 2} and min(found.values()) > 0.8


def test_a_clip_alone_is_a_single_scene_of_its_kind_from_its_seed():
    for kind in ("sneeze", "wind"):
        scene, sound = alone(kind, 3, 5)
        assert scene.relation == "single" and [event.kind for event in scene.events] == [kind]
        assert sound.shape == (64000,) and np.array_equal(sound, alone(kind, 3, 5)[1])
        assert not np.array_equal(sound, alone(kind, 4, 5)[1])


def test_the_confusion_counts_every_clip_in_the_row_of_its_true_kind(three):
    table = confusion(train_listener(three, copies=1), clips=4)
    assert table.sum(1).tolist() == [4, 4, 4] and table.diagonal().sum() >= 10
    nothing = Listener(
        three.kinds, torch.zeros(1, 607), torch.tensor([[0.0, 1.0, 0.0]]), torch.zeros(607), torch.ones(607), 0
    )
    assert confusion(nothing, clips=2)[:, 1].tolist() == [2, 2, 2]


def test_one_who_knows_only_real_recordings_names_synthesised_clips(esc10):
    """The figures asked of the corpus: 92 % of all clips, 75 % of each kind; drawn from no seed used in making it."""
    recordings = read_recordings(esc10)
    assert np.mean(list(fold_accuracies(recordings).values())) >= 0.85
    table = confusion(train_listener(recordings), clips=40, seed=2024)
    share = table.diagonal() / table.sum(1)
    assert share.mean() >= 0.92 and share.min() >= 0.75, dict(zip(recordings.kinds, share.tolist(), strict=True))


# The card


def test_the_card_shows_every_kind_and_names_the_authors(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_card, "KINDS", ("dog_bark", "siren"))
    figures = corpus_card.make_card(tmp_path / "card", folder, clips=1, progress=False)
    card = (tmp_path / "card/card.md").read_text()
    assert re.findall(r"!\[(\w+)\]\(\1\.png\)", card) == ["dog_bark", "siren"]
    assert '1-0-A.wav from "a dog (loud)" by A. Name (CC-BY)' in card and "CC BY 3.0" in card
    assert f"| accuracy on synthesised clips | {figures['accuracy on synthesised clips']:.4f} |" in card
    assert {path.name for path in (tmp_path / "card").iterdir()} == {"card.md", "dog_bark.png", "siren.png"}


def test_a_card_without_recordings_claims_nothing_about_them(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_card, "KINDS", ("siren",))
    assert corpus_card.make_card(tmp_path, progress=False) == {}
    card = (tmp_path / "card.md").read_text()
    assert "ESC-10" not in card and "listener" not in card


def test_words_that_audiocaps_never_uses_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_card, "KINDS", ("siren",))
    (tmp_path / "train.csv").write_text(
        "audiocap_id,youtube_id,start_time,caption\n1,x,0,A dog barks while rain falls\n"
    )
    figures = corpus_card.make_card(tmp_path / "card", audiocaps=tmp_path, progress=False)
    told = (tmp_path / "card/card.md").read_text().split("Words that do not: ")[1].split(".\n")[0].split(", ")
    assert 0.05 < figures["words of captions that AudioCaps uses"] < 0.6
    assert "siren" in told and "dog" not in told


def test_the_shipped_card_shows_every_kind():
    shipped = Path(__file__).resolve().parents[3] / "data/corpus"
    assert {path.stem for path in shipped.glob("*.png")} == set(KINDS)
    assert re.findall(r"!\[(\w+)\]", (shipped / "card.md").read_text()) == list(KINDS)
