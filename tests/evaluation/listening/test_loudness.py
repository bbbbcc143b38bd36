"""Loudness is what the standard's meter shows, and matched clips are equally loud and do not clip."""

import math

import pytest
import torch

from minigen.evaluation.listening.loudness import PEAK, TARGET, loudness, match_loudness


def sine(hz, seconds=2.0, rate=16000, peak=1.0):
    return peak * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate)) / rate).view(1, 1, -1)


def test_a_full_scale_sine_of_997_hz_has_the_loudness_that_the_standard_gives():
    assert loudness(sine(997)) == pytest.approx(-3.01, abs=0.02)
    assert loudness(sine(997, rate=48000), 48000) == pytest.approx(-3.01, abs=0.02)


def test_it_agrees_with_torchaudio_s_meter_at_48_khz():
    from torchaudio.functional import loudness as meter

    noise = 0.1 * torch.randn(1, 48000)
    noise[:, 20000:30000] *= 0.2
    assert loudness(noise, 48000) == pytest.approx(float(meter(noise, 48000)), abs=0.1)


def test_twice_the_amplitude_is_six_decibels_more():
    noise = 0.05 * torch.randn(1, 1, 32000)
    assert loudness(2 * noise) - loudness(noise) == pytest.approx(20 * math.log10(2), abs=1e-6)


def test_low_tones_count_less_and_high_ones_more():
    assert loudness(sine(50)) < loudness(sine(997)) - 0.5
    assert loudness(sine(4000)) > loudness(sine(997)) + 2


def test_silence_around_a_sound_does_not_make_it_quieter():
    bark = sine(500, 0.8)
    padded = torch.nn.functional.pad(bark, (16000, 40000))
    assert loudness(padded) == pytest.approx(loudness(bark), abs=1.5)
    assert 10 * math.log10(padded.square().mean() / bark.square().mean()) < -6  # what the root of mean square says


def test_silence_has_none_and_is_not_amplified():
    assert loudness(torch.zeros(1, 1, 16000)) == -math.inf
    assert match_loudness([torch.zeros(1, 1, 100), sine(500)])[0].abs().max() == 0


def test_a_clip_shorter_than_a_block_is_heard():
    assert math.isfinite(loudness(sine(1000, 0.05)))


def test_matched_clips_are_equally_loud_and_within_range():
    click = torch.zeros(1, 1, 16000)
    click[..., 8000:8010] = 1.0
    for group in ([sine(300, peak=0.9), 0.01 * torch.randn(1, 1, 16000)], [click, sine(2000, peak=0.02)]):
        matched = match_loudness(group)
        levels = [loudness(wav) for wav in matched]
        assert max(levels) - min(levels) < 0.01 and levels[0] <= TARGET + 0.01
        assert max(float(wav.abs().max()) for wav in matched) <= PEAK + 1e-6
    assert levels[0] < TARGET - 3  # the click's peak turned both down
