"""Editing of recordings: what is kept stays what it was, what is made fits its length, and no seam is louder."""

import math
from functools import wraps
from pathlib import Path

import pytest
import torch
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.app import cli
from minigen.audio import load_audio, save_audio
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.generators.editing import FADE, cross_fade, frames_of_hole, join
from minigen.generators.masked import MaskedGenerator

RATE, HOP, K, V = 16000, 320, 2, 16
FADED = round(FADE * RATE)


def noise(samples: int, seed: int = 0, clips: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(clips, 1, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tta() -> TextToAudio:
    """A pipeline around a tiny masked model that knows nothing."""
    torch.manual_seed(0)
    sizes = DenoiserConfig(num_codebooks=K, codebook_size=V, width=16, layers=1, heads=2, ffn=16, memory_width=8)
    return TextToAudio(tiny_codec(), WordEncoder(), MaskedGenerator(Denoiser(sizes)))


@pytest.fixture(scope="module")
def lm_tta() -> TextToAudio:
    return TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))


# codes


def test_cells_outside_the_hole_stay_as_they_were_and_those_inside_are_made(tta):
    codes = torch.randint(0, V, (3, K, 40), generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(40, dtype=torch.bool)
    hole[10:25] = True
    made = tta.inpaint_codes(codes, ["rain", "a dog", "wind"], hole, seed=1, steps=4)
    assert torch.equal(made[..., ~hole], codes[..., ~hole]) and made.max() < V
    assert not torch.equal(made[..., hole], codes[..., hole])
    assert torch.equal(made, tta.inpaint_codes(codes, ["rain", "a dog", "wind"], hole, seed=1, steps=4))
    assert not torch.equal(made, tta.inpaint_codes(codes, ["rain", "a dog", "wind"], hole, seed=2, steps=4))


def test_a_hole_in_a_long_recording_is_filled_with_what_stands_around_it(tta):
    codes = torch.randint(0, V, (1, K, 900), generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(900, dtype=torch.bool)
    hole[500:520] = True
    made = tta.inpaint_codes(codes, "rain", hole, seed=1, steps=4)
    alone = tta.inpaint_codes(codes[..., 450:650], "rain", hole[450:650], seed=1, steps=4)
    assert torch.equal(made[..., 450:650], alone) and torch.equal(made[..., ~hole], codes[..., ~hole])


# waveforms


def test_inpainting_returns_the_recording_outside_the_hole_and_its_fades(tta):
    wav = noise(2 * RATE + 100, clips=2)
    made = tta.inpaint(wav, ["rain", "a dog"], start=0.81, end=1.19, seed=1, steps=4)  # frames 40 to 59
    begin, end = 40 * HOP, 60 * HOP
    assert made.shape == wav.shape and made.abs().max() <= 1
    for kept in (slice(0, begin - FADED), slice(end + FADED, None)):
        assert torch.equal(made[..., kept], wav[..., kept])
    assert not torch.equal(made[..., begin:end], wav[..., begin:end])
    codes = tta.codec.encode(wav)
    hole = (torch.arange(codes.shape[-1]) >= 40) & (torch.arange(codes.shape[-1]) < 60)
    inside = tta.codec.decode(tta.inpaint_codes(codes, ["rain", "a dog"], hole, seed=1, steps=4))
    assert torch.equal(made[..., begin:end], inside[..., begin:end])


def test_a_hole_at_an_end_or_as_long_as_the_sound_needs_no_second_fade(tta):
    wav = noise(RATE)
    first, last = tta.inpaint(wav, "rain", 0, 0.5, seed=1), tta.inpaint(wav, "rain", 0.5, 1, seed=1)
    assert torch.equal(first[..., RATE // 2 + FADED :], wav[..., RATE // 2 + FADED :])
    assert torch.equal(last[..., : RATE // 2 - FADED], wav[..., : RATE // 2 - FADED])
    whole = tta.inpaint(wav, "rain", 0, 1, seed=1)
    assert torch.equal(whole, tta.generate("rain", 1.0, seed=1, noise=4.5))  # nothing is given


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (1.2, 1.9, (60, 95)),
        (1.21, 1.89, (60, 95)),
        (0.58, 0.6, (29, 30)),
        (0.0, 0.001, (0, 1)),
        (1.999, 2.0, (99, 100)),
    ],
)
def test_a_hole_is_rounded_outwards_to_frames(start, end, frames):
    assert frames_of_hole(start, end, 2 * RATE, RATE, HOP) == frames


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_a_fade_keeps_the_power_of_sounds_whatever_their_correlation(correlation):
    one, other = noise(100_000, 1), noise(100_000, 2)
    new = correlation * one + math.sqrt(1 - correlation**2) * other
    faded = cross_fade(one, new)
    power = faded.square().unflatten(-1, (10, -1)).mean(-1)
    assert torch.allclose(power, one.square().mean().expand_as(power), rtol=0.05)
    assert torch.allclose(faded[..., :10], one[..., :10], atol=1e-3)
    assert torch.allclose(faded[..., -10:], new[..., -10:], atol=1e-3)


def test_a_part_that_is_shorter_than_its_fades_is_faded_as_far_as_it_goes():
    made, recording = torch.zeros(1, 1, 10_000), torch.ones(1, 1, 10_000)
    joined = join(made, recording, [(0, 400), (9000, 10_000)], RATE)
    assert (joined[..., 400:9000] == 0).all() and joined[0, 0, 0] > 0.99 and joined[0, 0, -1] > 0.99
    assert torch.equal(join(made, recording, [(0, 10_000)], RATE), recording)


def test_a_recording_goes_on_forwards_and_backwards(tta):
    wav = noise(RATE + 100)
    after = tta.extend(wav, "rain", after=0.5, seed=1, steps=4)
    assert after.shape == (1, 1, RATE + RATE // 2)  # the last 100 samples fill no frame
    assert torch.equal(after[..., : RATE - FADED], wav[..., : RATE - FADED])
    before = tta.extend(wav, "rain", before=0.5, seed=1, steps=4)
    assert before.shape == (1, 1, RATE + 100 + RATE // 2)
    assert torch.equal(before[..., RATE // 2 + FADED :], wav[..., FADED:])
    both = tta.extend(wav, "rain", before=0.5, after=0.5, seed=1, steps=4)
    assert both.shape == (1, 1, 2 * RATE)
    kept = slice(RATE // 2 + FADED, RATE // 2 + RATE - FADED)
    assert torch.equal(both[..., kept], wav[..., FADED : RATE - FADED])


@pytest.fixture
def filled(tta, monkeypatch) -> list[torch.Tensor]:
    """Codes with missing cells that the generator was given, one for each call."""
    given, fill = [], tta.generator.fill

    @wraps(fill)
    def watched(text, known, *rest, **options):
        given.append(known)
        return fill(text, known, *rest, **options)

    monkeypatch.setattr(tta.generator, "fill", watched)
    return given


def test_a_variation_keeps_its_share_of_the_cells(tta, filled):
    wav = noise(RATE)
    codes = tta.codec.encode(wav)
    for share in (0.0, 0.3, 1.0):
        made = tta.vary(wav, "rain", share, seed=1, steps=4)
        kept = filled[-1] != V
        assert kept.sum() == round(share * 100) and torch.equal(filled[-1][kept], codes[kept])
        assert made.shape == wav.shape and torch.equal(made, tta.vary(wav, "rain", share, seed=1, steps=4))
    assert torch.equal(made, tta.codec.decode(codes))  # all cells are kept: the codec's version


def test_the_outline_is_kept_and_the_details_are_made(tta, filled):
    wav = noise(RATE)
    assert tta.refine(wav, "rain", codebooks=1, seed=1).shape == wav.shape
    assert torch.equal(filled[0][:, 0], tta.codec.encode(wav)[:, 0]) and (filled[0][:, 1] == V).all()


# refusals


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 0.5), "begins at 0.5 s and ends at 0.5 s"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.7, 0.5), "Give an end after the start"),
        (lambda tta, wav: tta.inpaint(wav, "rain", -0.1, 0.5), "start is -0.1"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 1.1), "hole ends at 1.1 s, the sound at 1 s"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, math.nan), "end is nan"),
        (lambda tta, wav: tta.inpaint(wav, " ", 0.5, 0.6), "captions are"),
        (lambda tta, wav: tta.inpaint(wav, ["rain", "wind"], 0.5, 0.6), "2 captions for 1 sounds"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 0.6, steps=0), "steps is 0"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 0.6, steps=11), "11 steps for 10 cells"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 0.6, top_k=3), "no option 'top_k'. Its options: steps"),
        (lambda tta, wav: tta.inpaint(wav, "rain", 0.5, 0.6, prompt=wav), "no option 'prompt'"),
        (lambda tta, wav: tta.inpaint(wav[..., :300], "rain", 0, 0.01), "300 samples, a frame 320"),
        (lambda tta, wav: tta.inpaint(wav[0], "rain", 0, 0.01), "waveform is"),
        (lambda tta, wav: tta.inpaint([0.0], "rain", 0, 0.01), "the sound is a list"),
        (lambda tta, wav: tta.vary(wav.repeat(1, 1, 31), "rain", 0.5), "lasts 31.00 s at 16000 Hz. Give at most 30"),
        (lambda tta, wav: tta.vary(wav, "rain", 1.5), "share is 1.5"),
        (lambda tta, wav: tta.vary(wav, "rain", 0.99), "16 steps for 1 cells"),
        (lambda tta, wav: tta.extend(wav, "rain"), "before is 0 s and after 0 s"),
        (lambda tta, wav: tta.extend(wav, "rain", after=-1), "after is -1"),
        (lambda tta, wav: tta.extend(wav, "rain", after=29.5), "Make at most 30 s"),
        (lambda tta, wav: tta.refine(wav, "rain", 2), "2 of 2 codebooks"),
        (lambda tta, wav: tta.refine(wav, "rain", 0), "codebooks is 0"),
        (lambda tta, wav: tta.inpaint_codes(tta.codec.encode(wav), "rain", torch.zeros(50, dtype=torch.bool)), "empty"),
        (lambda tta, wav: tta.inpaint_codes(tta.codec.encode(wav), "rain", torch.ones(50)), "hole torch.float32"),
        (lambda tta, wav: tta.inpaint_codes(torch.full((1, K, 9), 99), "rain", torch.ones(9) > 0), None),
    ],
)  # fmt: skip
def test_impossible_edits_are_one_clear_error(tta, edit, says):
    if says is None:  # every cell is made: what stood there does not matter
        assert edit(tta, noise(RATE)).shape[0] == 1
        return
    with pytest.raises(MinigenError) as error:
        edit(tta, noise(RATE))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_language_model_says_that_it_cannot_edit(lm_tta):
    wav = noise(RATE)
    for edit in (lambda: lm_tta.inpaint(wav, "rain", 0.5, 0.6), lambda: lm_tta.vary(wav, "rain"),
                 lambda: lm_tta.extend(wav, "rain", after=1), lambda: lm_tta.refine(wav, "rain")):  # fmt: skip
        with pytest.raises(MinigenError, match="language_model generator cannot make a part.*mini-masked"):
            edit()


# the commands


@pytest.fixture
def place(tmp_path, monkeypatch, tta) -> Path:
    """A folder with a recording of one second; every model name stands for the tiny pipeline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TextToAudio, "from_pretrained", lambda name: tta)
    save_audio("clip.wav", noise(RATE)[0], RATE)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "edit"),
    [
        (
            "inpaint clip.wav rain --start 0.2 --end 1",
            lambda tta, wav, how: tta.inpaint(wav, "rain", 0.2, 1, **how),
        ),
        ("extend clip.wav rain --after 0.5", lambda tta, wav, how: tta.extend(wav, "rain", after=0.5, **how)),
        ("extend clip.wav rain --before 0.5", lambda tta, wav, how: tta.extend(wav, "rain", before=0.5, **how)),
        ("vary clip.wav rain --share 0.3", lambda tta, wav, how: tta.vary(wav, "rain", 0.3, **how)),
        ("refine clip.wav rain --codebooks 1", lambda tta, wav, how: tta.refine(wav, "rain", 1, **how)),
    ],
)
def test_a_command_writes_what_the_library_makes(line, edit, place, tta, capsys):
    assert cli.main([*line.split(), "--steps", "4", "--seed", "3", "--guidance", "2", "-o", "out.wav"]) == 0
    expected = edit(tta, load_audio("clip.wav"), {"steps": 4, "seed": 3, "guidance": 2.0})
    torch.testing.assert_close(load_audio("out.wav"), expected, atol=1e-4, rtol=0)
    assert "s of sound, made in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inpaint clip.wav rain --start 0.5", "--end"),
        ("inpaint clip.wav rain --start 0.5 --end 0.5", "Give a hole with a length"),
        ("inpaint clip.wav rain --start 0.5 --end 1.5", "clip.wav lasts 1.00 s, the hole ends at 1.5 s"),
        ("inpaint none.wav rain --start 0.5 --end 1.5", "none.wav"),
        ("inpaint clip.wav rain --start 0.5 --end 0.6 --steps 0", "--steps"),
        ("inpaint clip.wav rain --start 0.5 --end 0.6 --steps 11", "11 steps for 10 cells"),
        ("vary clip.wav rain --share 1.5", "--share"),
        ("extend clip.wav rain", "Give --before or --after"),
        ("extend clip.wav rain --after 30", "Make at most 30 s in all"),
        ("refine clip.wav rain --codebooks 2", "2 of 2 codebooks"),
        ("vary clip.wav rain -o clip.mp3", "does not end in .wav or .flac"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(line, says, place, capsys):
    assert cli.main(line.split()) == 2
    err = capsys.readouterr().err
    assert says in err and err.startswith("minigen: ") and err.count("\n") == 1
    assert [path.name for path in place.iterdir()] == ["clip.wav"]
