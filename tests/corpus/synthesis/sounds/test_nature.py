"""The synthesised weather, water, fire and machines: shape, chance, counts, pitch and silence."""

import numpy as np
import pytest

from minigen.corpus.clip import KINDS
from minigen.corpus.synthesis.dsp import RATE
from minigen.corpus.synthesis.sounds.machines import SOUNDS as MACHINES
from minigen.corpus.synthesis.sounds.nature import SOUNDS as NATURE

SOUNDS = {**NATURE, **MACHINES}
STEADY = ["rain", "wind", "sea_waves", "crackling_fire", "stream", "helicopter", "chainsaw", "engine", "siren"]
RHYTHMIC = ["clock_tick", "typing", "footsteps"]


def make(kind: str, seed: int, samples: int = 4 * RATE, count: int = 1, pitch: float = 0.0) -> np.ndarray:
    return SOUNDS[kind](np.random.default_rng(seed), samples, count, pitch)


def loudness(sound: np.ndarray, frame: float) -> np.ndarray:
    size = int(frame * RATE)
    return np.sqrt(np.mean(sound[: len(sound) // size * size].reshape(-1, size) ** 2, axis=1))


def onsets(sound: np.ndarray, apart: float) -> int:
    """Rises to twice the loudest of the 50 ms before (or from silence), at least `apart` seconds from the last one."""
    level, last, found = np.concatenate([np.zeros(6), loudness(sound, 0.01)]), -1e9, 0
    for i in range(6, len(level)):
        if level[i] > 0.1 * level.max() and level[i] > 2 * level[i - 6 : i - 1].max() and (i - last) * 0.01 >= apart:
            last, found = i, found + 1
    return found


def centroid(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(len(sound), 1 / RATE)) / np.sum(power))


def test_the_two_modules_make_exactly_the_kinds_from_rain_on():
    assert tuple(SOUNDS) == KINDS[KINDS.index("rain") :]


@pytest.mark.parametrize("kind", SOUNDS)
def test_every_sound_is_finite_float32_with_a_sane_peak_at_any_length(kind):
    for seed, samples in enumerate([4 * RATE, RATE // 2, 16001, 3 * RATE + 7]):
        sound = make(kind, seed, samples, count=1 + seed % 3, pitch=0.5 * (seed % 3 - 1))
        assert sound.shape == (samples,) and sound.dtype == np.float32
        assert np.isfinite(sound).all() and 0.05 < np.abs(sound).max() <= 1


@pytest.mark.parametrize("kind", SOUNDS)
def test_the_seed_decides_every_sample(kind):
    assert make(kind, 3).tobytes() == make(kind, 3).tobytes()
    assert not np.array_equal(make(kind, 3), make(kind, 4))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "apart"),
    [("knock", 0.12), ("church_bell", 0.4), ("car_horn", 0.2), ("alarm_beep", 0.12), ("telephone", 0.7)],
)
def test_countable_kinds_sound_exactly_count_times(kind, apart, count):
    assert [onsets(make(kind, seed, count=count), apart) for seed in range(5)] == [count] * 5


@pytest.mark.parametrize("kind", ["knock", "car_horn", "alarm_beep"])
def test_with_little_room_they_crowd_together_and_none_is_lost(kind):
    assert [onsets(make(kind, seed, RATE // 2, count=3), 0.1) for seed in range(5)] == [3] * 5


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_high_pitch_is_brighter_than_a_low_one(kind):
    low, high = (np.mean([centroid(make(kind, seed, 2 * RATE, 1, pitch)) for seed in range(4)]) for pitch in (-1, 1))
    assert high > 1.1 * low


@pytest.mark.parametrize("kind", STEADY + RHYTHMIC)
def test_textures_fill_their_time(kind):
    """Steady ones are never 40 dB below their mean for half a second; rhythmic ones never pause over 1.2 s."""
    for seed in range(4):
        sound = make(kind, seed)
        frame = 0.5 if kind in STEADY else 1.2
        assert loudness(sound, frame).min() > 0.01 * np.sqrt(np.mean(sound**2))


@pytest.mark.parametrize("kind", STEADY)
def test_no_sound_carries_a_constant_offset(kind):
    sound = make(kind, 1)
    assert abs(sound.mean()) < 0.05 * sound.std()
