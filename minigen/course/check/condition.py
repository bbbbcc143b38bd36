"""Checks of notebook 14: a bottleneck, two forms of double guidance, the excerpt's mask, learning one vector."""

from collections.abc import Callable, Iterable
from itertools import product

import torch
from torch import Tensor

from minigen.course.check.verdict import Verdict, as_float, call, close, stopped
from minigen.patterns import DelayPattern

# a bottleneck

STRIDE, STAGES, USED = 10, 5, 3


def bottleneck(function: Callable[..., Tensor]) -> Verdict:
    """function(latents [B, T, width], tables, q, stride) must quantise: [B, T // stride, width].

    tables: of [entries, width]. Every stride-th frame, q stages on what is left over, and the gradient of the latents
    straight through.
    """
    latents, tables = _toy_latents()
    given = latents.clone().requires_grad_()
    value, failed = call("bottleneck(...)", function, given, [table.clone() for table in tables], USED, STRIDE)
    if failed:
        return failed
    if not isinstance(value, Tensor):
        return Verdict(False, f"a {type(value).__name__} comes back. Give a tensor [B, T // stride, width].")
    kept = latents[:, 0:20:STRIDE]  # [2, 2, 3]
    wanted = _quantised(kept, tables[:USED])
    if not _alike(value, wanted):
        hint = f"The shape is {list(value.shape)}, wanted {list(wanted.shape)}: r ← r − nearest entry, q times."
        return _diagnose(value, _bottleneck_mistakes(latents, tables), hint)
    if not value.requires_grad:
        return Verdict(False, "the values are right, but no gradient reaches the latents, so that nothing before the "
                              "bottleneck would learn. Add kept − kept.detach().")  # fmt: skip
    (slope,) = torch.autograd.grad(value.sum(), given, allow_unused=True)
    right = torch.zeros_like(latents)
    right[:, 0:20:STRIDE] = 1
    if slope is None or not _alike(slope, right):
        return Verdict(False, "the values are right, the gradient is not: that of the kept frames is 1, as if nothing "
                              "had been quantised, and that of the others 0. Add kept − kept.detach().")  # fmt: skip
    return Verdict(True, "q nearest entries for every tenth frame, and a gradient that goes straight through.")


def _toy_latents() -> tuple[Tensor, list[Tensor]]:
    """Latents [2, 25, 3] and five tables [8, 3] of ever smaller entries."""
    chance = torch.Generator().manual_seed(0)
    tables = [torch.randn(8, 3, generator=chance) * 0.6**stage for stage in range(STAGES)]
    return torch.randn(2, 25, 3, generator=chance), tables


def _nearest(x: Tensor, table: Tensor) -> Tensor:
    return table[(x[..., None, :] - table).square().sum(-1).argmin(-1)]


def _quantised(x: Tensor, tables: Iterable[Tensor]) -> Tensor:
    rest = x
    for table in tables:
        rest = rest - _nearest(rest, table)
    return x - rest


def _bottleneck_mistakes(latents: Tensor, tables: list[Tensor]) -> tuple:
    first, used = latents[:, 0:20:STRIDE], tables[:USED]
    means = latents[:, :20].unflatten(1, (2, STRIDE)).mean(2)  # [2, 2, 3]
    whole = _quantised(first, used)
    return (
        (_quantised(latents[:, ::STRIDE], used), "a token is made for the last 5 frames, which are no whole stride."),
        (_quantised(first, tables), "all stages are used. q says how many."),
        (_quantised(first, tables[:1]), "only the first stage is used. q says how many."),
        (
            sum(_nearest(first, table) for table in used),
            "each stage quantises the latent itself. Give it what is left.",
        ),
        (whole - _quantised(first, used[:-1]), "this is the last stage's entry. Add the entries of all q stages."),
        (first - whole, "this is what is left over. Add the entries."),
        (first, "nothing is quantised."),
        (_quantised(latents, used), "every frame has a token. Keep every stride-th frame."),
        (_quantised(means, used), "the mean of ten frames is quantised. Keep the first frame of each ten."),
        (
            _quantised(latents[:, STRIDE - 1 : 20 : STRIDE], used),
            "the last of each ten frames is kept. Keep the first.",
        ),
        (_quantised(latents[:, :2], used), "the first two frames are kept. Keep every stride-th frame."),
    )


# two forms of double guidance


def two_forms(function: Callable[[float, float], object]) -> Verdict:
    """function(style, text) must give (α, β) of `guide_two` for uncond + style (s − uncond) + text (both − s)."""
    for style, text in ((3.0, 15.0), (2.0, 5.0), (4.0, 1.0)):
        value, failed = call(f"two_forms({style:g}, {text:g})", function, style, text)
        if failed:
            return failed
        try:
            alpha, beta = (as_float(part) for part in value)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            return Verdict(False, f"{value!r} is not a pair of numbers. Return α, β.")
        if alpha is None or beta is None:
            return Verdict(False, f"{value!r} is not a pair of numbers. Return α, β.")
        if close(alpha, style) and close(beta, text / style):
            continue
        mistakes = (
            ((style, text), "β is multiplied by α in `guide_two`: the step from style to both has the factor α β."),
            ((text / style, style), "α and β are exchanged."),
            ((text, style / text), "style and text are exchanged: α is the factor of (style − uncond)."),
            ((style, style / text), "β is inverted: α β = text."),
            ((style, text - style), "α and β multiply; they do not add up."),
            ((style, style * text), "β is multiplied by the style's scale. Divide: α β = text."),
        )
        for (wrong_alpha, wrong_beta), hint in mistakes:
            if close(alpha, wrong_alpha) and close(beta, wrong_beta):
                return Verdict(False, hint)
        return Verdict(False, f"({alpha:g}, {beta:g}) for style {style:g} and text {text:g}. Multiply `guide_two` out, "
                              "and compare the factors of (style − uncond) and of (both − style).")  # fmt: skip
    return Verdict(True, "α = style, β = text / style. The two forms say the same, except for a style of 0.")


# the excerpt's mask

MASK_BUGS = {
    "shared": "what is read is hidden as well (`target = sequence` is no copy)",
    "columns": "every stream hides the same columns (stream k is delays[k] columns late)",
    "long": "one frame too many is hidden (frames start … start + length − 1)",
}


def hide(function: Callable[..., object]) -> Verdict:
    """function(codes [B, K, T], starts, length, pattern, special) must give (sequence, target), both [B, K, S].

    The target is the sequence with `special` at the excerpt's cells. Names each of three mistakes that is still in it.
    """
    pattern, special = DelayPattern((0, 1, 2, 3)), 99
    codes, starts, length = torch.arange(96).view(2, 4, 12), [2, 6], 4
    value, failed = call("hide(...)", function, codes.clone(), list(starts), length, pattern, special)
    if failed:
        return failed
    try:
        given = torch.stack([torch.as_tensor(part) for part in value])  # type: ignore[attr-defined]
    except (TypeError, ValueError, RuntimeError) as error:
        return stopped("the pair (sequence, target)", error)
    if torch.equal(given, _hidden(codes, starts, length, pattern, special, dict.fromkeys(MASK_BUGS, False))):
        return Verdict(True, "all is read, the excerpt's frames are not asked for, each stream at its own columns.")
    for there in product((True, False), repeat=3):
        bugs = dict(zip(MASK_BUGS, there, strict=True))
        if torch.equal(given, _hidden(codes, starts, length, pattern, special, bugs)):
            left = [text for name, text in MASK_BUGS.items() if bugs[name]]
            begun = "" if len(left) < len(MASK_BUGS) else "no answer so far: "
            return Verdict(False, f"{begun}{len(left)} of 3 left: {'; '.join(left)}.")
    if given.shape[2:] != (4, 15):
        return Verdict(
            False, f"the shapes are {list(given.shape[1:])}, not [2, 4, 15]. Both are sequences with a delay."
        )
    return Verdict(False, "other cells are hidden. Stream k holds frame t in column t + delays[k]; what is read "
                          "stays whole.")  # fmt: skip


def _hidden(
    codes: Tensor, starts: list[int], length: int, pattern: DelayPattern, special: int, bugs: dict[str, bool]
) -> Tensor:
    """The sequence that is read and the target, [2, B, K, S], with the mistakes that `bugs` names."""
    sequence = pattern.apply(codes, special)  # [B, K, S]
    target = sequence.clone()
    for b, start in enumerate(starts):
        for k, delay in enumerate(pattern.delays):
            first = start + (0 if bugs["columns"] else delay)
            target[b, k, first : first + length + bugs["long"]] = special
    return torch.stack([target if bugs["shared"] else sequence, target])


# learning one vector

STEPS, RATE, PATIENCE = 60, 0.1, 3
LOWEST = torch.tensor([1.0, -0.5, 0.75])  # of the held-out loss


def learn(function: Callable[..., Tensor]) -> Verdict:
    """function(loss, held_out, start, steps, rate, patience) must give the vector of the lowest held-out loss.

    Adam on a copy of `start`; held_out is measured before the first step and after every step; it ends after `steps`
    steps, or when `patience` measurements in a row brought no new lowest one.
    """
    asked: list[Tensor] = []

    def loss(v: Tensor) -> Tensor:
        asked.append(v.detach().clone())
        return _loss(v)

    start = torch.zeros(3)
    value, failed = call("learn(...)", function, loss, _held_out, start, STEPS, RATE, PATIENCE)
    if failed:
        return failed
    if not isinstance(value, Tensor) or value.shape != (3,):
        return Verdict(False, "a vector like `start` comes back: the one of the lowest held-out loss.")
    if start.any():
        return Verdict(False, "`start` itself has changed. Train a copy: start.clone().requires_grad_().")
    if not asked:
        return Verdict(False, "`loss` is never called. The gradient comes from `loss`; `held_out` is only measured.")
    best, last, steps = _learn(torch.optim.Adam, _loss)
    if len(asked) > steps and (_alike(value, best) or len(asked) >= STEPS):
        return Verdict(False, f"{len(asked)} steps are taken. After {steps}, {PATIENCE} measurements in a row have "
                              "brought no new lowest one: stop.")  # fmt: skip
    if _alike(value, best) and len(asked) == steps:
        return _learn_nothing(function) or Verdict(True, f"{steps} steps, and back to the best of them.")
    if _alike(value, best):
        return Verdict(False, f"{len(asked)} steps are taken instead of {steps}. Stop after {PATIENCE} measurements "
                              "in a row that brought no new lowest one.")  # fmt: skip
    mistakes = (
        (last, "this is the last vector. Keep a copy of the best one: v.detach().clone()."),
        (torch.zeros(3), "this is the start. Take steps, and keep the best vector."),
        (_learn(torch.optim.SGD, _loss)[0], "this is plain gradient descent. Use torch.optim.Adam."),
        (_learn(torch.optim.Adam, _held_out)[0], "the steps follow the held-out loss. Take the gradient of `loss`."),
    )
    hint = f"{len(asked)} steps of Adam at the rate {RATE:g} end elsewhere. Is the gradient zero before each backward?"
    return _diagnose(value, mistakes, hint)


def _learn_nothing(function: Callable[..., Tensor]) -> Verdict | None:
    """A verdict on a start that every step makes worse; None if the start comes back."""
    value, failed = call("learn(...)", function, _loss, _held_out, LOWEST.clone(), STEPS, RATE, PATIENCE)
    if failed or (isinstance(value, Tensor) and _alike(value, LOWEST)):
        return failed
    return Verdict(False, "where every step makes held_out worse, the start is the best vector. Measure it before the "
                          "first step.")  # fmt: skip


def _loss(v: Tensor) -> Tensor:
    return (v - torch.tensor([2.0, -1.0, 0.5])).square().sum()


def _held_out(v: Tensor) -> Tensor:
    """Falls at first, and rises when the vector has come half of the way."""
    return (v - LOWEST).square().sum()


def _learn(optimiser: type[torch.optim.Optimizer], loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, int]:
    """The best vector, the last one, and the number of steps."""
    v = torch.zeros(3, requires_grad=True)
    optimizer = optimiser([v], lr=RATE)  # type: ignore[call-arg]
    vectors, measured = [v.detach().clone()], [_held_out(v).item()]
    while len(measured) <= STEPS and len(measured) - 1 - measured.index(min(measured)) < PATIENCE:
        optimizer.zero_grad()
        loss(v).backward()
        optimizer.step()
        vectors.append(v.detach().clone())
        measured.append(_held_out(v).item())
    return vectors[measured.index(min(measured))], vectors[-1], len(measured) - 1


# comparison


def _alike(given: Tensor, wanted: object) -> bool:
    wanted = torch.as_tensor(wanted)
    return given.shape == wanted.shape and torch.allclose(given.detach().double(), wanted.double(), atol=1e-5)


def _diagnose(given: Tensor, mistakes: Iterable[tuple], hint: str) -> Verdict:
    """The text of the mistake that leads to `given`, or the hint."""
    for value, text in mistakes:
        if _alike(given, value):
            return Verdict(False, text)
    return Verdict(False, f"not right for the values tried. {hint}")
