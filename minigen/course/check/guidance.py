"""Checks of notebook 07: a guided probability, top-p for many rows, a repaired sampler, guidance that changes."""

from collections.abc import Callable, Iterable
from itertools import product

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, number, stopped
from minigen.generate import keep_top_k, keep_top_p, sample
from minigen.guidance import guide
from minigen.lm import AudioLM, AudioLMConfig
from minigen.patterns import DelayPattern


def guided(answer: object, cond: Iterable[float], uncond: Iterable[float], scale: float) -> Verdict:
    """The guided probability of code 0, for the probabilities cond and uncond with and without text."""
    c, u = (torch.as_tensor(values, dtype=torch.float64) for values in (cond, uncond))
    right = _first(u * (c / u) ** scale)
    mistakes = (
        (c[0].item(), "is the probability with the text: that is scale 1."),
        (u[0].item(), "is the probability without text: that is scale 0."),
        ((u + scale * (c - u))[0].item(), "guides the probabilities themselves. Guide their logarithms, then softmax."),
        (_first((u + scale * (c - u)).clamp(min=0)), "guides the probabilities themselves. Guide their logarithms."),
        (_first((u + scale * (c - u)).exp()), "takes the probabilities for logits. Their logarithms are logits."),
        (_first(c**scale), "leaves out p(audio): this is the conditional at the temperature 1 / scale."),
        (_first(c * (c / u) ** scale), "starts from cond: cond + w (cond − uncond). Start from uncond."),
        (_first(c * (u / c) ** scale), "has the difference the wrong way round: cond − uncond."),
        ((u * (c / u) ** scale)[0].item(), "does not sum to 1 with that of the other codes. Divide by the sum."),
    )
    said = f"uncond × (cond / uncond)^{scale:g}, scaled to a sum of 1: {right:.4f}, where the text alone said {c[0]:g}."
    return number(_rounded(answer, right), right, said, mistakes, "Guide log p code by code, then take the softmax.")


def _first(weights: torch.Tensor) -> float:
    """Share of the first weight."""
    return (weights[0] / weights.sum()).item()


def _rounded(answer: object, right: float) -> object:
    """`right` where the answer is it to three digits or to the precision of float32, else the answer."""
    try:
        return right if abs(float(answer) - right) < 6e-4 else answer
    except (TypeError, ValueError, RuntimeError):
        return answer


NUCLEI = (  # (probabilities [K, V], p): sorted and not, a first code that reaches p alone, p reached exactly, all
    (((0.5, 0.25, 0.125, 0.125), (0.125, 0.5, 0.125, 0.25), (0.0625, 0.0, 0.9375, 0.0)), 0.6),
    (((0.25, 0.5, 0.25, 0.0), (0.5, 0.25, 0.125, 0.125)), 0.5),
    (((0.375, 0.0625, 0.3125, 0.25), (0.1875, 0.3125, 0.25, 0.25)), 0.7),
    (((0.3125, 0.1875, 0.25, 0.25),), 1.0),
)


def top_p(function: Callable[[Tensor, float], Tensor]) -> Verdict:
    """function(probs [K, V], p) must be `minigen.generate.keep_top_p`: what top-p keeps, each row with the sum 1."""
    given = []
    for rows, p in NUCLEI:
        try:
            answer = function(torch.tensor(rows), p)
            if answer is ...:
                return UNANSWERED
            given.append(torch.as_tensor(answer).double())
        except Exception as error:  # a reader's function may raise anything
            return stopped(f"top_p({[list(row) for row in rows]}, {p})", error)
        if given[-1].shape != torch.tensor(rows).shape:
            return Verdict(False, f"the shape is {list(given[-1].shape)}. Give a probability for each code, [K, V].")
    if _alike(given, [keep_top_p(torch.tensor(rows), p) for rows, p in NUCLEI]):
        return Verdict(True, "a code stays while those more likely than it do not reach p by themselves, row by row.")
    return Verdict(False, _top_p_mistake(given))


def _alike(given: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.allclose(a, b.double(), atol=1e-6) for a, b in zip(given, wanted, strict=True))


def _top_p_mistake(given: list[Tensor]) -> str:
    cases = [(torch.tensor(rows), p) for rows, p in NUCLEI]
    kept = [keep_top_p(*case) for case in cases]
    if _alike(given, [probs * (row > 0) for (probs, _), row in zip(cases, kept, strict=True)]):
        return "the right codes, but the rows do not sum to 1. Divide each by its sum."
    if _alike(given, [row.sort(-1, descending=True).values for row in kept]):
        return "the right probabilities, in sorted order. Put each back at its code: scatter."
    for keep, text in TOP_P_MISTAKES:
        if all(torch.equal(row > 0, keep(*case) & (case[0] > 0)) for row, case in zip(given, cases, strict=True)):
            return text
    wrong = next(i for i, row in enumerate(given) if not torch.equal(row > 0, kept[i] > 0))
    return f"for p = {cases[wrong][1]} the rows keep {_codes(given[wrong])}, top-p keeps {_codes(kept[wrong])}."


def _codes(rows: Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in rows]


def _by_rank(probs: Tensor, keep: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Mask [K, V] of what `keep` wants, given the sorted probabilities and their cumulative sums."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(probs, dtype=torch.bool).scatter(-1, order, keep(ordered, ordered.cumsum(-1)))


TOP_P_MISTAKES: tuple[tuple[Callable[[Tensor, float], Tensor], str], ...] = (
    (lambda probs, p: _by_rank(probs, lambda one, sums: sums <= p),
     "the code with which the sum reaches p is missing: the kept codes must have at least p together."),
    (lambda probs, p: _by_rank(probs, lambda one, sums: sums - one <= p),
     "one code too many where the sum is exactly p: stop as soon as it has reached p."),
    (lambda probs, p: probs.cumsum(-1) - probs < p,
     "the sum runs in the order of the codes. Sort each row by probability first."),
    (lambda probs, p: probs >= p,
     "p is compared with single probabilities. It is the sum of the likeliest that has to reach p."),
    (lambda probs, p: ~_by_rank(probs, lambda one, sums: sums - one < p),
     "these are the codes that are struck out. Keep the others."),
)  # fmt: skip

SAMPLER_BUGS = {  # mistakes of the sampler to repair, in the order of its lines
    "guidance": "guidance acts on probabilities (it belongs on logits, before the softmax)",
    "temperature": "the temperature divides probabilities and cancels (divide the guided logits)",
    "rows": "one threshold for all rows (each row keeps its own k codes)",
}


def sampler(function: Callable[..., Tensor]) -> Verdict:
    """function(cond, uncond, w, temperature, k, generator), logits [K, V], must draw what the library draws: [K].

    Names each of the three mistakes that is still in it.
    """
    cond, uncond = 0.5 * torch.randn(2, 600, 8, generator=torch.Generator().manual_seed(1))
    settings = (3.0, 0.6, 3)
    try:
        answer = function(cond.clone(), uncond.clone(), *settings, torch.Generator().manual_seed(2))
        if answer is ...:
            return UNANSWERED
        drawn = torch.as_tensor(answer)
    except Exception as error:  # a reader's function may raise anything
        return stopped("sampler", error)
    if drawn.shape != (600,):
        return Verdict(False, f"the shape is {list(drawn.shape)}. One code for each row is [K], here [600].")
    if _share(drawn, sample(guide(cond, uncond, 3.0), 0.6, top_k=3, generator=torch.Generator().manual_seed(2))) > 0.99:
        return Verdict(True, "guide the logits, divide them by the temperature, softmax, k codes of each row, draw.")
    for there in product((True, False), repeat=3):
        bugs = dict(zip(SAMPLER_BUGS, there, strict=True))
        if _share(drawn, _broken(cond, uncond, *settings, torch.Generator().manual_seed(2), bugs)) > 0.99:
            left = [text for name, text in SAMPLER_BUGS.items() if bugs[name]]
            begun = "" if len(left) < len(SAMPLER_BUGS) else "no answer so far: "
            return Verdict(False, f"{begun}{len(left)} of 3 left: {'; '.join(left)}.")
    return Verdict(False, "other codes than the library draws with this generator. Draw once, with multinomial.")


def _share(drawn: Tensor, wanted: Tensor) -> float:
    return (drawn == wanted).double().mean().item()


def _broken(
    cond: Tensor,
    uncond: Tensor,
    w: float,
    temperature: float,
    k: int,
    generator: torch.Generator,
    bugs: dict[str, bool],
) -> Tensor:
    """The sampler of the exercise with the mistakes that `bugs` names."""
    if bugs["guidance"]:
        probs = guide(cond.softmax(-1), uncond.softmax(-1), w).clamp(min=0)
        probs = probs / temperature if bugs["temperature"] else probs ** (1 / temperature)
    else:
        logits = guide(cond, uncond, w)
        probs = logits.softmax(-1) / temperature if bugs["temperature"] else (logits / temperature).softmax(-1)
    probs = probs * (probs >= probs.topk(k).values.min()) if bugs["rows"] else keep_top_k(probs, k)
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


def scheduled(function: Callable[..., Tensor]) -> Verdict:
    """function(lm, memory, mask, frames, scale_at, seed) must generate codes [B, K, frames] with a scale per column.

    Column s is guided by scale_at(s); each column is drawn for all K streams at once, at temperature 1 and top-k 250.
    """
    lm, memory, mask = _toy()
    falling = lambda s: 6.0 - s  # noqa: E731
    try:
        answer = function(lm, memory, mask, 10, falling, 3)
        if answer is ...:
            return UNANSWERED
        codes = torch.as_tensor(answer)
    except Exception as error:  # a reader's function may raise anything
        return stopped("scheduled", error)
    if codes.shape != (2, 2, 10):
        return Verdict(False, f"the shape is {list(codes.shape)}. Codes are [B, K, frames], here [2, 2, 10]: "
                              "take the first column off, then pattern.revert.")  # fmt: skip
    if torch.equal(codes, _scheduled(lm, memory, mask, 10, falling, 3)):
        return Verdict(True, "a scale for each column; the loop of the library asks for one scale at its start.")
    mistakes = (
        (lambda s: falling(0), "scale_at is asked once. Ask it in every column."),
        (lambda s: falling(s + 1), "the scale is that of the next column: the first one has s = 0."),
        (lambda s: 1.0, "there is no guidance: uncond + scale_at(s) · (cond − uncond)."),
        (lambda s: 0.0, "the text is not used: the logits are those without text."),
        (lambda s: 1 + falling(s), "this starts from cond: cond + w (cond − uncond). Start from uncond."),
        (lambda s: 1 - falling(s), "cond and uncond are exchanged."),
    )
    for scale, text in mistakes:
        if torch.equal(codes, _scheduled(lm, memory, mask, 10, scale, 3)):
            return Verdict(False, text)
    return Verdict(False, "other codes than with the same seed here. One generator from the seed; in each column the "
                          "logits of the last position, one call of sample, known cells on top.")  # fmt: skip


def _toy() -> tuple[AudioLM, Tensor, Tensor]:
    """A small model of random weights in which codes and text matter, and two texts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = AudioLM(AudioLMConfig(2, 12, width=16, layers=1, heads=2, ffn=32, memory_width=6, delays=(0, 1))).eval()
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, 0.3)
        return lm, torch.randn(2, 3, 6), torch.tensor([[True, True, True], [True, False, False]])


@torch.no_grad()
def _scheduled(lm: AudioLM, memory: Tensor, mask: Tensor, frames: int, scale_at: Callable, seed: int) -> Tensor:
    generator, pattern = torch.Generator().manual_seed(seed), DelayPattern(lm.config.delays)
    special = lm.config.codebook_size
    known = pattern.apply(torch.full((len(memory), lm.config.num_codebooks, frames), -1), fill=special)  # [B, K, S]
    sequence = torch.full_like(known[..., :1], special)
    for s in range(known.shape[-1]):
        logits = guide(lm(sequence, memory, mask)[:, :, -1], lm(sequence)[:, :, -1], scale_at(s))  # [B, K, V]
        drawn = sample(logits, generator=generator)
        column = torch.where(known[..., s] == -1, drawn, known[..., s])
        sequence = torch.cat([sequence, column[..., None]], dim=-1)
    return pattern.revert(sequence[..., 1:])
