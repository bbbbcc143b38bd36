"""Checks of notebook 00: the bit rate of a codec, the columns of a pattern, what guidance 0 ignores, a continuation."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, number, numbers, same, stopped
from minigen.patterns import DelayPattern

CASES = (  # (frames, delays) that tell the formulas apart
    (200, (0, 1, 2, 3)), (5, (0, 1, 2, 3)), (5, (0, 0, 0, 0)), (7, (0, 2, 4, 6)), (6, (0, 0, 1, 1)), (6, (3, 0)),
)  # fmt: skip


def bit_rate(answer: object, codec) -> Verdict:
    """Bits a second of a codec's codes: frame rate · K · log2 V. codec: anything with the numbers of `load_codec`."""
    rate, streams, entries = codec.frame_rate, codec.num_codebooks, codec.codebook_size
    bits = math.log2(entries)
    right = rate * streams * bits
    mistakes = (
        (rate * bits, f"is what one codebook costs. Each frame has {streams}."),
        (rate * streams, f"is the number of codes a second. How many bits does one of {entries} entries take?"),
        (streams * bits, f"is the bits of one frame. There are {rate:g} frames a second."),
        (
            rate * streams * entries,
            f"counts {entries} bits a code. To tell {entries} entries apart takes log2 of that.",
        ),
        (rate * streams * math.log(entries), "comes from the natural logarithm. A bit is a choice of two: use log2."),
        (rate * streams * math.log10(entries), "comes from log10. A bit is a choice of two: use log2."),
        (codec.sample_rate * streams * bits, "counts samples. The codec writes codes once a frame, not once a sample."),
        (right / 1000, "is the answer in kb/s. Give bit/s."),
        (right / 8, "is the answer in bytes a second. Give bit/s."),
    )
    said = f"{rate:g} frames/s × {streams} codebooks × {bits:g} bits = {right:g} bit/s."
    return number(answer, right, said, mistakes, "Multiply frames a second, codes a frame and bits a code.")


def columns(function: Callable[[int, tuple[int, ...]], int]) -> Verdict:
    """S for T frames: function(frames, delays) must be what `DelayPattern(delays).steps(frames)` is."""
    given, failed = numbers("columns", function, CASES)
    if failed:
        return failed
    right = [DelayPattern(delays).steps(frames) for frames, delays in CASES]
    if same(given, right):
        return Verdict(True, "S = T + max(delays): the stream that starts last also ends last.")
    return Verdict(False, _columns_mistake(given, right))


def _columns_mistake(given: list, right: list) -> str:
    mistakes = (
        (lambda t, d: t, "frames alone is enough only without delays: the late streams end after the first."),
        (lambda t, d: t + 3, "3 is the longest delay of (0, 1, 2, 3) only. Take it from delays."),
        (lambda t, d: t + len(d), "len(delays) counts the streams; what matters is how late the last one starts."),
        (lambda t, d: t + len(d) - 1, "the number of streams less one is their longest delay only for 0, 1, 2, ..."),
        (lambda t, d: t + d[-1], "the last stream need not be the latest: think of delays (3, 0)."),
        (lambda t, d: t + sum(d), "the delays overlap in time: take the longest, not the sum."),
        (lambda t, d: t * len(d), "frames × streams is the flatten pattern. Here a column holds several streams."),
        (lambda t, d: t + max(d) + 1, "one too many. The model reads a start column, but it does not count in S."),
        (lambda t, d: t - max(d), "subtracting gives the frames of a number of columns. Here the columns are wanted."),
    )
    for formula, text in mistakes:
        if same(given, [formula(*case) for case in CASES]):
            return text
    wrong = next(i for i in range(len(CASES)) if not same(given[i : i + 1], right[i : i + 1]))
    frames, delays = CASES[wrong]
    return f"columns({frames}, {delays}) gives {given[wrong]}, but {right[wrong]} are needed. Draw them."


def ignored_at_zero(answer: object) -> Verdict:
    """Which of caption, seed, temperature and top_k have no effect at guidance 0. answer: a set, a list or one name."""
    if answer is ...:
        return UNANSWERED
    options = ("caption", "seed", "temperature", "top_k")
    names = [answer] if isinstance(answer, str) else list(answer) if isinstance(answer, Iterable) else [answer]
    cleaned = {str(name).strip().lower() for name in names}
    cleaned = {"caption" if name in ("captions", "text") else name for name in cleaned}
    unknown = sorted(cleaned - set(options))
    if unknown:
        return Verdict(False, f"{', '.join(unknown)} is not on the list. Choose among {', '.join(options)}.")
    if "seed" in cleaned:
        return Verdict(False, "the seed starts the random draws, and codes are drawn at every guidance.")
    if cleaned & {"temperature", "top_k"}:
        return Verdict(False, "temperature and top_k act after guidance, on whatever logits it leaves.")
    if not cleaned:
        return Verdict(False, "put 0 for w in uncond + w (cond − uncond). Which term is left?")
    return Verdict(True, "uncond + 0 (cond − uncond) = uncond, and uncond never saw the caption.")


def continuation(function: Callable, delays: tuple[int, ...], special: int) -> Verdict:
    """A loop that continues codes: function(prompt [1, K, P], frames, draw_next) -> codes [1, K, frames].

    It is run with a model whose draw depends on every cell of the sequence, for a prompt that is short, long or whole.
    """
    for prompt_frames, frames in ((2, 9), (6, 9), (4, 4)):
        prompt = torch.arange(len(delays) * prompt_frames).view(1, len(delays), prompt_frames) % special
        right = _continued(prompt, frames, delays, special)
        try:
            value = function(prompt.clone(), frames, lambda sequence: _drawn(sequence, special))
        except Exception as error:  # whatever a reader's function may raise
            return stopped("extend", error)
        if value is ...:
            return UNANSWERED
        fault = _continuation_fault(value, right, prompt, special)
        if fault:
            return Verdict(False, f"{prompt_frames} frames given, {frames} wanted: {fault}")
    return Verdict(True, "the prompt's cells are given, the others are drawn after all columns before them.")


def _drawn(sequence: Tensor, special: int) -> Tensor:
    """A made-up draw of the next column [1, K] that depends on every cell of the sequence [1, K, s]."""
    places = torch.arange(1, sequence.numel() + 1).view(sequence.shape)
    return ((sequence * places).sum() * torch.arange(3, 3 + sequence.shape[1]) % special)[None]


def _continued(prompt: Tensor, frames: int, delays: tuple[int, ...], special: int) -> Tensor:
    sequence = torch.full((1, len(delays), 1), special)
    for s in range(frames + max(delays)):
        column = _drawn(sequence, special)
        for k, late in enumerate(delays):
            t = s - late
            if not 0 <= t < frames:
                column[0, k] = special
            elif t < prompt.shape[-1]:
                column[0, k] = prompt[0, k, t]
        sequence = torch.cat([sequence, column[..., None]], dim=-1)
    return DelayPattern(delays).revert(sequence[..., 1:])


def _continuation_fault(value: object, right: Tensor, prompt: Tensor, special: int) -> str:
    given = prompt.shape[-1]
    if not isinstance(value, Tensor) or value.shape != right.shape:
        what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return f"codes are a tensor {list(right.shape)}, got {what}."
    if torch.equal(value, right):
        return ""
    if (value == special).any():
        return "the special token is among the codes. Is the delay undone, without the first column of V?"
    kept = [torch.equal(value[:, k, :given], prompt[:, k]) for k in range(prompt.shape[1])]
    if not any(kept):
        return "the prompt is not at the beginning. Are its codes written over the drawn ones?"
    if not all(kept):
        return f"the prompt is kept in codebooks {[k for k, one in enumerate(kept) if one]} only. Mind the delays."
    return "the prompt is kept, but the rest was not drawn after these columns. Are gaps V, and is the prompt in them?"
