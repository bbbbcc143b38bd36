"""The checks of notebook 01 accept what is right however it is computed, and say what typical wrong answers mistake."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minigen.audio import AudioError
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


def log_mel(wav, filters, n_fft, hop, pad="reflect", window=torch.hann_window, power=2.0, floor=1e-5):
    """A right log-mel spectrogram, and the wrong ones that differ in a word."""
    padded = F.pad(wav[None], (n_fft // 2, n_fft // 2), mode=pad)[0]
    bins = torch.fft.rfft(window(n_fft) * padded.unfold(-1, n_fft, hop)).abs() ** power
    return (bins @ filters.T).T.clamp(min=floor).log10()


def by_stft(wav, filters, n_fft, hop):
    stft = torch.stft(wav, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    return torch.einsum("bk,kt->bt", filters, stft.real**2 + stft.imag**2).clamp(min=1e-5).log10()


def without_ends(wav, filters, n_fft, hop):
    return (torch.fft.rfft(wav.unfold(-1, n_fft, hop)).abs().square() @ filters.T).T.clamp(min=1e-5).log10()


@pytest.mark.parametrize("function", [log_mel, by_stft])
def test_a_log_mel_spectrogram_is_accepted_by_frames_and_from_the_library(function):
    assert check.log_mel(function).right, check.log_mel(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *a: log_mel(*a, window=torch.ones), "ends with a click"),
        (lambda *a: log_mel(*a, power=1.0), "sums magnitudes"),
        (lambda *a: log_mel(*a, pad="constant"), "zeros were put"),
        (lambda *a: log_mel(*a, floor=0.0), "clamp the power"),
        (lambda *a: log_mel(*a, floor=1e-10), "lower than 1e-5"),
        (lambda *a: math.log(10) * log_mel(*a), "natural logarithm"),
        (lambda *a: 10 * log_mel(*a), "decibel"),
        (lambda *a: 10 ** log_mel(*a), "Its logarithm"),
        (lambda *a: log_mel(*a).T, "on its side"),
        (without_ends, "Mirror half a frame"),
        (lambda w, f, n, h: log_mel(w, torch.eye(n // 2 + 1), n, h), "not bands"),
        (lambda *a: log_mel(*a)[:, :7], "[20, 51], here [20, 7]"),
        (lambda *a: log_mel(*a) + 1, "differ from log_mel by 1.00"),
        (lambda *a: None, "not a tensor"),
        (lambda *a: a[9], "stopped with IndexError"),
        (lambda *a: ..., "no answer"),
    ],
)
def test_a_wrong_spectrogram_gets_its_diagnosis(function, diagnosis):
    verdict = check.log_mel(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def read(rows, load, keep=True, catch=AudioError, strip=True, once=False):
    """A right reader, and the wrong ones that differ in a word."""
    loaded, good, skipped = {}, [], Counter()
    for name, caption in rows:
        if not (caption.strip() if strip else caption):
            skipped["no caption"] += 1
            continue
        if once and name in loaded:
            continue
        if not keep or name not in loaded:
            try:
                loaded[name] = load(name)
            except catch as error:
                loaded[name] = getattr(error, "reason", "error")
        if isinstance(loaded[name], str):
            skipped[loaded[name]] += 1
        else:
            good.append((name, caption, loaded[name]))
    return good, skipped


def read_in_two_passes(rows, load):
    sounds, reasons = {}, {}
    for name in {name for name, caption in rows if caption.strip()}:
        try:
            sounds[name] = load(name)
        except AudioError as error:
            reasons[name] = error.reason
    bad = ["no caption" if not caption.strip() else reasons.get(name) for name, caption in rows]
    good = [[*row, sounds[row[0]]] for row, reason in zip(rows, bad, strict=True) if reason is None]
    return good, {reason: bad.count(reason) for reason in bad if reason}


@pytest.mark.parametrize("function", [read, read_in_two_passes])
def test_a_reader_is_accepted_in_one_pass_and_in_two(function):
    assert check.reader(function).right, check.reader(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda rows, load: ([(*row, load(row[0])) for row in rows], {}), "first bad file stops it"),
        (lambda rows, load: read(rows, load, keep=False), "a, lost was loaded more than once"),
        (lambda rows, load: read(rows, load, catch=Exception), "no AudioError was swallowed"),
        (lambda rows, load: read(rows, load, strip=False), "the good rows are"),
        (lambda rows, load: read(rows, load, once=True), "2 of 4 good rows"),
        (lambda rows, load: (read(rows, load)[0], {}), "the counts are"),
        (lambda rows, load: (read(rows, load)[0], 6), "dict of reasons, got int"),
        (lambda rows, load: (read(rows, load)[0][::-1], {}), "the good rows are"),
        (lambda rows, load: ([(*row[:2], None) for row in read(rows, load)[0]], {}), "waveform of another one"),
        (lambda rows, load: ([row[:2] for row in read(rows, load)[0]], {}), "(id, caption, waveform)"),
        (lambda rows, load: read(rows, load)[0], "two things"),
        (lambda rows, load: rows[99], "stopped with IndexError"),
        (lambda rows, load: ..., "no answer"),
    ],
)
def test_a_wrong_reader_gets_its_diagnosis(function, diagnosis):
    verdict = check.reader(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
