"""The checks of notebook 01 accept what is right however it is computed, and say what typical wrong answers mistake."""

import math

import numpy as np
import pytest
import torch

from minigen.course.check import sound as check


def heard(hz, rate):
    """The alias by measurement: the loudest bin of the samples' own Fourier transform."""
    samples = np.cos(2 * np.pi * hz * np.arange(rate) / rate)
    return int(np.abs(np.fft.rfft(samples)).argmax())


@pytest.mark.parametrize(
    "function",
    [
        lambda hz, rate: abs(hz - rate * round(hz / rate)),
        lambda hz, rate: min(hz % rate, rate - hz % rate),
        lambda hz, rate: torch.tensor(abs((hz + rate / 2) % rate - rate / 2)),
        heard,
    ],
)
def test_an_alias_is_accepted_however_it_is_computed(function):
    assert check.alias(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda hz, rate: hz, "does not stay"),
        (lambda hz, rate: rate - hz, "3000 Hz, which fits"),
        (lambda hz, rate: abs(rate - hz), "near the rate"),
        (lambda hz, rate: hz % rate, "folds once more"),
        (lambda hz, rate: hz % (rate / 2), "is reflected"),
        (lambda hz, rate: min(hz, rate / 2), "reflected"),
        (lambda hz, rate: hz if hz <= rate / 2 else rate - hz, "folds once"),
        (lambda hz, rate: hz if hz <= rate / 2 else abs(rate - hz), "folds once"),
        (lambda hz, rate: 0, "alias(3000, 16000) gives 0, but 3000"),
        (lambda hz, rate: hz / 0, "stopped with ZeroDivisionError"),
        (lambda hz, rate: None, "not a number"),
        (lambda hz, rate: ..., "no answer"),
    ],
)
def test_a_wrong_alias_gets_its_diagnosis(function, diagnosis):
    verdict = check.alias(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def doubled(apart, rate):
    n_fft = 1
    while rate / n_fft > apart / 2:
        n_fft *= 2
    return n_fft


@pytest.mark.parametrize("function", [doubled, lambda apart, rate: 2 ** math.ceil(math.log2(2 * rate / apart))])
def test_the_window_is_accepted_as_a_loop_and_as_a_formula(function):
    assert check.window(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda apart, rate: doubled(2 * apart, rate), "one bin apart"),
        (lambda apart, rate: doubled(apart / 2, rate), "four bins"),
        (lambda apart, rate: 2 * rate / apart, "round it up"),
        (lambda apart, rate: 2 * apart / rate, "upside down"),
        (lambda apart, rate: math.log2(doubled(apart, rate)), "2 to that power"),
        (lambda apart, rate: 1024, "window(100, 16000) gives 1024, but 512"),
        (lambda apart, rate: "1024", "not a number"),
        (lambda apart, rate: ..., "no answer"),
    ],
)
def test_a_wrong_window_gets_its_diagnosis(function, diagnosis):
    verdict = check.window(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize(("apart", "rate"), check.PAIRS)
def test_the_window_asked_for_shows_a_gap_between_the_tones_and_its_half_does_not(apart, rate):
    n_fft = doubled(apart, rate)
    step = rate / n_fft  # tones on bins of the right window
    low = round(rate / 8 / step) * step
    high = low + round(apart / step) * step
    time = torch.arange(int(rate)) / rate
    wav = torch.sin(2 * torch.pi * low * time) + torch.sin(2 * torch.pi * high * time)
    right, short = (gap(wav, n, low, high, rate) for n in (n_fft, n_fft // 2))
    assert right > 3 > 1 > short


def gap(wav, n_fft, low, high, rate):
    """dB by which the weakest bin between two tones lies below the weaker of them."""
    power = torch.stft(wav, n_fft, n_fft // 4, window=torch.hann_window(n_fft), center=False, return_complex=True)
    db = 20 * power.abs().mean(1).clamp(min=1e-9).log10()
    first, last = round(low / rate * n_fft), round(high / rate * n_fft)
    return float(min(db[first], db[last]) - db[first : last + 1].min())


def rms(wav):
    return wav.square().mean().sqrt()


def loop(first, second, db):
    a = math.sqrt(sum(x * x for x in first.flatten().tolist()) / first.numel())
    b = math.sqrt(sum(x * x for x in second.flatten().tolist()) / second.numel())
    return a / b / 10 ** (db / 20)


@pytest.mark.parametrize("function", [loop, lambda f, s, db: rms(f) / rms(s) * 10 ** (-db / 20)])
def test_the_gain_is_accepted_as_a_loop_and_as_tensors(function):
    assert check.gain(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda f, s, db: rms(f) / rms(s) * 10 ** (db / 20), "sign"),
        (lambda f, s, db: rms(f) / rms(s) * 10 ** (-db / 10), "takes 20"),
        (lambda f, s, db: 10 ** (-db / 20), "equally loud"),
        (lambda f, s, db: rms(s) / rms(f) * 10 ** (-db / 20), "wrong way round"),
        (lambda f, s, db: f.square().mean() / s.square().mean() * 10 ** (-db / 10), "ratio of powers"),
        (lambda f, s, db: f.abs().max() / s.abs().max() * 10 ** (-db / 20), "largest samples"),
        (lambda f, s, db: f.norm() / s.norm() * 10 ** (-db / 20), "sums of squares"),
        (lambda f, s, db: rms(f) / rms(s), "forgets db"),
        (lambda f, s, db: 1.0, "Start with 0 dB"),
        (lambda f, s, db: f, "not one number"),
        (lambda f, s, db: f + s, "stopped with RuntimeError"),
        (lambda f, s, db: ..., "no answer"),
    ],
)
def test_a_wrong_gain_gets_its_diagnosis(function, diagnosis):
    verdict = check.gain(function)
    assert not verdict.right
    assert diagnosis in verdict.text
