"""Checks of notebook 01: the alias of a tone, the window that tells two tones apart, the gain that gives a level."""

import math
from collections.abc import Callable

import torch

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, close, numbers, same, stopped

TONES = ((3000, 16000), (13000, 16000), (7000, 8000), (8000, 8000), (9000, 8000), (21000, 8000), (500, 1200))
PAIRS = ((40, 16000), (100, 16000), (125, 16000), (50, 44100), (31.25, 8000))
LEVELS = (0.0, 5.0, -5.0, 20.0)


def alias(function: Callable[[float, float], float]) -> Verdict:
    """Which frequency is heard: function(hz, rate) is in 0..rate/2, at the distance of hz from a multiple of rate."""
    given, failed = numbers("alias", function, TONES)
    if failed:
        return failed
    if same(given, [abs(hz - rate * round(hz / rate)) for hz, rate in TONES]):
        return Verdict(True, "two tones at the same distance from a multiple of the rate have the same samples.")
    mistakes = (
        (lambda hz, rate: hz, "a tone above half the rate does not stay where it is. Where does it fold to?"),
        (lambda hz, rate: rate - hz, "right between half the rate and the rate. What of 3000 Hz, which fits?"),
        (lambda hz, rate: abs(rate - hz), "right near the rate itself. What of 3000 Hz, and of more than 1.5 rates?"),
        (lambda hz, rate: hz % rate, "the remainder may still be above half the rate, where it folds once more."),
        (lambda hz, rate: hz % (rate / 2), "above half the rate a tone is reflected; it does not start at 0 Hz again."),
        (lambda hz, rate: min(hz, rate / 2), "a tone that does not fit is not held at the edge but reflected there."),
        (lambda hz, rate: hz if hz <= rate / 2 else rate - hz, "folds once; 21000 Hz at 8000 Hz folds more often."),
        (lambda hz, rate: hz if hz <= rate / 2 else abs(rate - hz), "folds once; 21000 Hz at 8000 Hz folds more."),
    )  # fmt: skip
    return _diagnosed(given, mistakes, "alias", TONES, lambda hz, rate: abs(hz - rate * round(hz / rate)))


def window(function: Callable[[float, float], int]) -> Verdict:
    """The shortest Hann window, a power of two, whose bins lie half of `apart` Hz from each other, or closer."""
    given, failed = numbers("window", function, PAIRS)
    if failed:
        return failed
    if same(given, [_window(2, *pair) for pair in PAIRS]):
        return Verdict(True, "n_fft ≥ 2 · rate / apart: the closer two tones are, the longer the window must be.")
    mistakes = (
        (lambda apart, rate: _window(1, apart, rate), "puts the tones one bin apart: no bin is left between them."),
        (lambda apart, rate: _window(4, apart, rate), "puts the tones four bins apart. Two are enough: half of it."),
        (lambda apart, rate: 2 * rate / apart, "is the right length; round it up to a power of two."),
        (lambda apart, rate: 2 * apart / rate, "is upside down: bins are rate / n_fft Hz apart."),
        (lambda apart, rate: math.log2(_window(2, apart, rate)), "is the power. Give 2 to that power."),
    )
    return _diagnosed(given, mistakes, "window", PAIRS, lambda apart, rate: _window(2, apart, rate))


def _window(bins: int, apart: float, rate: float) -> int:
    return 2 ** math.ceil(math.log2(bins * rate / apart) - 1e-9)


def gain(function: Callable[[torch.Tensor, torch.Tensor, float], float]) -> Verdict:
    """What to multiply `second` by: function(first, second, db) puts the rms of `first` db above that of the result."""
    generator = torch.Generator().manual_seed(0)
    first, second = 0.3 * torch.randn(400, generator=generator), 0.05 * torch.randn(900, generator=generator)
    first, second = first.view(1, 1, -1), second.view(1, 1, -1)
    given = []
    for db in LEVELS:
        try:
            given.append(function(first, second, db))
        except Exception as error:  # whatever a reader's function may raise
            return stopped(f"gain(first, second, {db:g})", error)
        if given[-1] is ...:
            return UNANSWERED
        if as_float(given[-1]) is None:
            return Verdict(False, f"gain(first, second, {db:g}) gives {given[-1]!r}, not one number. What is returned?")
    return _gain_verdict([as_float(one) for one in given], first, second)


def _gain_verdict(given: list[float], first: torch.Tensor, second: torch.Tensor) -> Verdict:
    ratio = float(first.square().mean().sqrt() / second.square().mean().sqrt())
    peaks = float(first.abs().max() / second.abs().max())
    sums = float(first.square().sum().sqrt() / second.square().sum().sqrt())
    forms = {
        "": lambda db: ratio * 10 ** (-db / 20),
        "makes the second clip louder, the more dB are asked for: mind the sign.": lambda db: ratio * 10 ** (db / 20),
        "takes 10 for a factor of ten. That is right for power; an amplitude takes 20.": lambda db: (
            ratio * 10 ** (-db / 10)
        ),
        "assumes that the clips are equally loud before. Divide their rms.": lambda db: 10 ** (-db / 20),
        "has the two clips the wrong way round.": lambda db: 10 ** (-db / 20) / ratio,
        "is a ratio of powers, rms squared. A waveform is multiplied by the root of that.": lambda db: (
            ratio**2 * 10 ** (-db / 10)
        ),
        "compares the largest samples. One click would set the level: compare rms.": lambda db: (
            peaks * 10 ** (-db / 20)
        ),
        "compares sums of squares, which grow with the length of a clip. Take their means.": lambda db: (
            sums * 10 ** (-db / 20)
        ),
        "forgets db.": lambda db: ratio,
    }
    for text, form in forms.items():
        if all(math.isclose(one, form(db), rel_tol=1e-4) for one, db in zip(given, LEVELS, strict=True)):
            return Verdict(not text, text or "g = rms(first) / rms(second) · 10^(−db / 20).")
    got = 20 * math.log10(ratio / given[1]) if given[1] > 0 else math.nan
    return Verdict(False, f"asked for 5 dB, the first clip comes out {got:.1f} dB above the second. Start with 0 dB.")


def _diagnosed(given: list, mistakes: tuple, name: str, cases: tuple, right: Callable) -> Verdict:
    """The text of the mistake that gives these numbers, else the first case that is wrong."""
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in cases]):
            return Verdict(False, text)
    case, got = next((c, g) for c, g in zip(cases, given, strict=True) if not close(as_float(g), right(*c)))
    asked = ", ".join(f"{value:g}" for value in case)
    return Verdict(False, f"{name}({asked}) gives {as_float(got):g}, but {right(*case):g} is right.")
