"""The synthesised voices: animals, people and applause."""

import numpy as np
import pytest

from minigen.corpus.synthesis.dsp import RATE, buzz, moving_formants, noise, resonate
from minigen.corpus.synthesis.sounds.voices import SOUNDS

SEPARATE = ("dog_bark", "cough", "sneeze", "rooster", "cat_meow", "cow_moo", "frog_croak")


def sound(kind: str, seed: int = 0, seconds: float = 4.0, count: int = 2, pitch: float = 0.0) -> np.ndarray:
    return SOUNDS[kind](np.random.default_rng(seed), int(seconds * RATE), count, pitch)


def bursts(x: np.ndarray) -> int:
    """Pieces above a tenth of the loudest in the envelope; pauses under 0.14 s, as inside a crow, do not part."""
    envelope = np.sqrt(np.convolve(np.square(x, dtype=float), np.hanning(400) / 200, "same"))
    loud = np.flatnonzero(envelope > 0.1 * envelope.max())
    return 1 + int(np.sum(np.diff(loud) > 0.14 * RATE))


def centroid(x: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(x)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(x), 1 / RATE)) / np.sum(power))


def test_there_are_eleven_voices():
    assert sorted(SOUNDS) == sorted(
        "dog_bark cat_meow rooster bird_chirp crickets frog_croak cow_moo baby_cry sneeze cough applause".split()
    )


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize("seconds", [0.1, 0.5, 4.0])
def test_a_voice_has_the_length_asked_for_and_a_sane_level(kind, seconds):
    for seed in range(3):
        x = sound(kind, seed, seconds, count=1 + seed, pitch=seed - 1.0)
        assert x.dtype == np.float32 and x.shape == (int(seconds * RATE),)
        assert np.isfinite(x).all() and 0.05 < np.abs(x).max() <= 1


@pytest.mark.parametrize("kind", SOUNDS)
def test_the_seed_decides_every_sample(kind):
    first, again, other = sound(kind, 5), sound(kind, 5), sound(kind, 6)
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.05


@pytest.mark.parametrize("kind", SEPARATE)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_counted_voice_sounds_as_often_as_asked(kind, count):
    seconds = 7.5 if kind in ("rooster", "cow_moo") else 4.0
    assert [bursts(sound(kind, seed, seconds, count)) for seed in range(6)] == [count] * 6


def test_where_there_is_little_room_barks_get_shorter_but_not_fewer():
    x = np.abs(sound("dog_bark", 1, seconds=0.9, count=6))
    assert all(x[i * 2400 : (i + 1) * 2400].max() > 0.3 for i in range(6))


@pytest.mark.parametrize("kind", SOUNDS)
def test_higher_pitch_moves_the_spectrum_up(kind):
    low, high = (np.median([centroid(sound(kind, seed, 2.0, 1, pitch)) for seed in range(8)]) for pitch in (-1.0, 1.0))
    assert high > 1.15 * low


def test_buzz_is_the_sum_of_all_partials_below_seven_and_a_half_kilohertz():
    frequency = np.linspace(200, 900, 4000)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    room_for = 7500 / frequency
    naive = sum(np.cos(n * phase) * np.clip(room_for - n + 1, 0, 1) for n in range(1, 40))
    np.testing.assert_allclose(buzz(frequency) * np.sqrt(room_for / 2), naive, atol=1e-6)


def test_a_formant_that_stands_still_is_the_recursive_resonator():
    x = noise(np.random.default_rng(0), 4000)
    ours, recursive = moving_formants(x, [(1000.0, 200.0, 1.0)]), resonate(x, 1000, 200)
    power = [np.abs(np.fft.rfft(y)[150:350]) ** 2 for y in (ours, recursive)]  # 600 to 1400 Hz
    assert abs(10 * np.log10(power[0].sum() / power[1].sum())) < 1
    assert np.corrcoef(*power)[0, 1] > 0.97
