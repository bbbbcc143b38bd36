"""Checks of notebook 01: the alias of a tone, a window for two tones, a log-mel spectrogram, a reader of clips."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minigen.audio import AudioError
from minigen.course.check.verdict import Verdict, as_float, call, close, numbers, same, stopped

TONES = ((3000, 16000), (13000, 16000), (7000, 8000), (8000, 8000), (9000, 8000), (21000, 8000), (500, 1200))
PAIRS = ((40, 16000), (100, 16000), (125, 16000), (50, 44100), (31.25, 8000))
REASONS = {"lost": "missing", "html": "not audio", "mute": "silent"}  # id -> what is wrong with its file
ROWS = [
    ("a", "A dog barks"), ("lost", "A bell rings"), ("b", "Rain falls"), ("a", "A puppy yips"), ("html", "Wind blows"),
    ("b", "  "), ("mute", "Nothing sounds"), ("lost", "A bell"), ("c", ""), ("a", "Barking"),
]  # fmt: skip


def alias(function: Callable[[float, float], float]) -> Verdict:
    """Which frequency is heard: function(hz, rate) is in 0..rate/2, at the distance of hz from a multiple of rate."""
    given, failed = numbers("alias", function, TONES)
    if failed:
        return failed
    if same(given, [abs(hz - rate * round(hz / rate)) for hz, rate in TONES]):
        return Verdict(True, "two tones at the same distance from a multiple of the rate have the same samples.")
    mistakes = (
        (lambda hz, rate: hz, "a tone above half the rate does not stay where it is. Where does it fold to?"),
        (lambda hz, rate: rate - hz, "right between half the rate and the rate. What about 3000 Hz, which fits?"),
        (lambda hz, rate: abs(rate - hz), "right near the rate itself. What about 3000 Hz, and more than 1.5 rates?"),
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


def log_mel(function: Callable[[Tensor, Tensor, int, int], object]) -> Verdict:
    """A log-mel spectrogram: function(wav [samples], filters [bands, bins], n_fft, hop) -> [bands, samples // hop + 1].

    log10 of the power of mirrored, Hann-windowed frames, summed by the filters and clamped at 1e-5.
    """
    n_fft, hop = 256, 80
    seconds = torch.arange(4000) / 8000
    wav = 0.5 * torch.sin(2 * torch.pi * 440 * seconds) * (seconds < 0.3)  # then silence
    hertz, middles = torch.arange(n_fft // 2 + 1) * 8000 / n_fft, torch.linspace(200, 3800, 20)[:, None]
    filters = (1 - (hertz - middles).abs() / 250).clamp(min=0)  # [20, bins], triangles
    value, failed = call("my_log_mel", function, wav, filters, n_fft, hop)
    if failed:
        return failed
    right = _log_mel(wav, filters, n_fft, hop)
    if not isinstance(value, Tensor) or value.shape != right.shape:
        return Verdict(False, _shape_fault(value, right, n_fft, hop))
    if torch.allclose(value.float(), right, atol=1e-2):
        return Verdict(True, "frames, window, DFT, power, bands, clamp, logarithm: this is `minigen.audio.log_mel`.")
    return Verdict(False, _log_mel_fault(value.float(), wav, filters, n_fft, hop))


def _log_mel(wav: Tensor, filters: Tensor, n_fft: int, hop: int, window: bool = True, pad: str = "reflect",
             power: int = 2, floor: float = 1e-5) -> Tensor:  # fmt: skip
    shape = torch.hann_window(n_fft) if window else torch.ones(n_fft)
    padded = F.pad(wav[None], (n_fft // 2, n_fft // 2), mode=pad)[0]
    bins = torch.fft.rfft(shape * padded.unfold(0, n_fft, hop)).abs() ** power  # [frames, bins]
    return (filters @ bins.T).clamp(min=floor).log10()


def _shape_fault(value: object, right: Tensor, n_fft: int, hop: int) -> str:
    if not isinstance(value, Tensor):
        return f"it gives {type(value).__name__}, not a tensor."
    if value.shape == right.T.shape:
        return "the picture lies on its side: give [bands, frames]."
    if value.shape[-1] == (4000 - n_fft) // hop + 1:
        return "frames are missing at both ends. Mirror half a frame there first."
    if value.shape[0] == n_fft // 2 + 1:
        return "these are bins, not bands. The filters sum them up."
    return f"4000 samples with hop {hop} and {len(right)} filters give {list(right.shape)}, here {list(value.shape)}."


def _log_mel_fault(value: Tensor, wav: Tensor, filters: Tensor, n_fft: int, hop: int) -> str:
    if not torch.isfinite(value).all():
        return "silence gives −inf or nan: clamp the power before the logarithm."
    right = _log_mel(wav, filters, n_fft, hop)
    mistakes = (
        (right * math.log(10), "that is the natural logarithm. Use log10."),
        (10 * right, "that is in decibel. Here it is log10 alone."),
        (10**right, "that is the power. Its logarithm is wanted."),
        (_log_mel(wav, filters, n_fft, hop, window=False), "without the window every frame ends with a click."),
        (_log_mel(wav, filters, n_fft, hop, power=1), "that sums magnitudes. A band sums powers: square them."),
        (_log_mel(wav, filters, n_fft, hop, pad="constant"), "zeros were put at the ends. Mirror the clip there."),
        (_log_mel(wav, filters, n_fft, hop, floor=1e-10), "the clamp is lower than 1e-5."),
    )
    for wrong, text in mistakes:
        if torch.allclose(value, wrong, atol=1e-2):
            return text
    return (
        f"the shape is right; the values differ from log_mel by {float((value - right).abs().mean()):.2f} on average."
    )


def reader(function: Callable[[list, Callable], object]) -> Verdict:
    """A reader: function(rows, load) -> ([(id, caption, wav)] of good rows, {reason: number of skipped rows})."""
    asked: list[str] = []
    value, failed = call("read", function, list(ROWS), lambda name: _load(name, asked))
    if failed:
        stops = failed.text.startswith("read stopped with AudioError")
        return Verdict(False, "the first bad file stops it: catch AudioError for each row.") if stops else failed
    if not isinstance(value, tuple) or len(value) != 2:
        return Verdict(False, "return two things: the list of good rows and the dict of reasons.")
    fault = _rows_fault(value[0]) or _reasons_fault(value[1], asked) or _bug_fault(function)
    return Verdict(not fault, fault or "it skips, counts and reports, loads each file once, and hides no mistake.")


def _load(name: str, asked: list[str]) -> Tensor:
    asked.append(name)
    if name in REASONS:
        raise AudioError(REASONS[name], f"{name} cannot be read")
    return torch.full((4,), float(ord(name)))


def _rows_fault(good: object) -> str:
    wanted = [row for row in ROWS if row[0] not in REASONS and row[1].strip()]
    if not isinstance(good, list) or not all(isinstance(row, tuple | list) and len(row) == 3 for row in good):
        return "the first thing is a list with (id, caption, waveform) for each good row."
    pairs = [(row[0], row[1]) for row in good]
    if len(pairs) < len(wanted) and {pair[0] for pair in pairs} == {"a", "b"}:
        return f"{len(pairs)} of {len(wanted)} good rows came back. A clip with several captions is several rows."
    if pairs != wanted:
        return f"the good rows are {[row[1] for row in wanted]}, here {[pair[1] for pair in pairs]}."
    if not all(isinstance(row[2], Tensor) and float(row[2][0]) == ord(row[0]) for row in good):
        return "a row has the waveform of another one, or none."
    return ""


def _reasons_fault(counts: object, asked: list[str]) -> str:
    wanted = {"missing": 2, "not audio": 1, "no caption": 2, "silent": 1}
    if not isinstance(counts, dict):
        return f"the second thing is a dict of reasons, got {type(counts).__name__}."
    if counts != wanted:
        return f"the counts are {wanted}, here {dict(counts)}. Each skipped row counts."
    twice = sorted({name for name in asked if asked.count(name) > 1})
    return f"{', '.join(twice)} was loaded more than once. Keep what was loaded, also its reason." if twice else ""


def _bug_fault(function: Callable) -> str:
    def broken(name: str) -> Tensor:
        raise KeyError(name)

    try:
        function([("a", "A dog barks")], broken)
    except KeyError:
        return ""
    except Exception as error:  # whatever a reader's function may raise
        return stopped("a load with a mistake in its code", error).text
    return "an error that is no AudioError was swallowed. It is a mistake in the code: let it out."


def _diagnosed(given: list, mistakes: tuple, name: str, cases: tuple, right: Callable) -> Verdict:
    """The text of the mistake that gives these numbers, else the first case that is wrong."""
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in cases]):
            return Verdict(False, text)
    case, got = next((c, g) for c, g in zip(cases, given, strict=True) if not close(as_float(g), right(*c)))
    asked = ", ".join(f"{value:g}" for value in case)
    return Verdict(False, f"{name}({asked}) gives {as_float(got):g}, but {right(*case):g} is right.")
