"""Checks of notebook 00: the bit rate of a codec, the columns of a delay pattern, what guidance 0 ignores."""

import math
from collections.abc import Callable, Iterable

from minigen.course.check.verdict import UNANSWERED, Verdict, number, numbers, same
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
