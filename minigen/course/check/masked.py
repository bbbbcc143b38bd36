"""Checks of notebook 11: hiding a share of cells, the schedule, a step to repair, filling what is missing."""

import math
from collections.abc import Callable, Collection, Sequence
from itertools import combinations

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, call, stopped
from minigen.generators.masked import cosine_counts, gumbel

# hiding a share

DRAWS = (0.1, 0.5, 0.9, 0.99)  # u; of 10 cells 9, 7, 1 and, by the formula alone, 0 are hidden


def hide(function: Callable[[Tensor, Tensor], object]) -> Verdict:
    """function(scores [B, L], u [B]) -> bool [B, L]: the max(1, floor(L cos(π u / 2))) cells with the lowest scores."""
    scores = torch.rand(len(DRAWS), 10, generator=torch.Generator().manual_seed(0))
    value, failed = call("hide(scores, u)", function, scores.clone(), torch.tensor(DRAWS))
    if failed:
        return failed
    if not torch.is_tensor(value) or value.dtype != torch.bool or value.shape != scores.shape:
        return Verdict(False, f"{_kind(value)} comes back. Give bool [B, L] = {list(scores.shape)}, True = hidden.")
    places = scores.argsort(1).argsort(1)  # rank of each cell, 0 for the lowest score
    u = torch.tensor(DRAWS)[:, None]
    share = (math.pi / 2 * u).cos()
    least = (10 * share).floor().clamp(min=1)  # [B, 1]
    if torch.equal(value, places < least):
        return Verdict(True, f"{', '.join(f'{n:g}' for n in least[:, 0].tolist())} of 10 cells for u = {DRAWS}.")
    mistakes = (
        (places >= least, "True marks the cells that are kept. Turn it round: True = hidden."),
        (9 - places < least, "the cells with the highest scores are hidden. Take the lowest."),
        (places < (10 * share).floor(), "u = 0.99 hides no cell, so nothing could be learnt. Hide at least one."),
        (places < (10 * u).floor().clamp(min=1), "the share is u itself. Take cos(π u / 2)."),
        (places < (10 * (1 - share)).floor().clamp(min=1), "this is the share that is kept, 1 − cos(π u / 2)."),
        (places < (10 * (math.pi / 2 * u).sin()).floor().clamp(min=1), "the share is the sine. Take the cosine."),
        (places < (10 * (math.pi * u).cos()).floor().clamp(min=1), "the share is cos(π u). Take cos(π u / 2)."),
        (places < least[0], "every row hides as many cells as the first. Each row has its own u."),
        (places < (10 * share).round().clamp(min=1), "the number is rounded. Take the floor."),
        (scores < share, "scores are compared with the share. Compare their ranks with the number of cells."),
    )
    for wrong, text in mistakes:
        if torch.equal(value, wrong):
            return Verdict(False, text)
    found = value.sum(1).tolist()
    if found == least[:, 0].tolist():
        return Verdict(
            False, "the numbers of hidden cells are right, the cells are not. Hide those of the lowest scores."
        )
    return Verdict(False, f"u = {DRAWS} hides {found} of 10 cells, not {least[:, 0].int().tolist()}.")


# the schedule

SCHEDULES = ((16, 800), (4, 50), (7, 7), (20, 22), (1, 5))


def counts(function: Callable[[int, int], object]) -> Verdict:
    """function(steps, cells) must be `cosine_counts`: the numbers of hidden cells after each step."""
    given = []
    for case in SCHEDULES:
        value, failed = call(f"counts{case}", function, *case)
        if failed:
            return failed
        try:
            given.append([float(count) for count in value])  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            return Verdict(False, f"counts{case} gives {_kind(value)}. Give a list of numbers.")
    right = [cosine_counts(*case) for case in SCHEDULES]
    if given == right:
        return Verdict(
            True, "floor(L cos(π/2 · i/steps)), at least one less than before, at least 1, and 0 at the end."
        )
    for formula, text in COUNT_MISTAKES:
        if given == [formula(*case) for case in SCHEDULES]:
            return Verdict(False, text)
    wrong = next(i for i, one in enumerate(given) if one != right[i])
    shown = ", ".join(f"{count:g}" for count in given[wrong][:20])
    return Verdict(False, f"counts{SCHEDULES[wrong]} gives {shown}. Right is {', '.join(map(str, right[wrong]))}.")


def _schedule(
    steps: int, cells: int, share: Callable[[float], float] = lambda u: math.cos(math.pi / 2 * u), first: int = 1,
    whole: Callable[[float], int] = math.floor, strict: bool = True, end: bool = True,
) -> list[int]:  # fmt: skip
    """The schedule, or one with a mistake in it."""
    found, hidden = [], cells
    for i in range(first, steps + first):
        count = max(1, whole(cells * share(i / steps)))
        hidden = min(hidden - 1, count) if strict else count
        found.append(hidden)
    return [*found[:-1], 0] if end else found


COUNT_MISTAKES: tuple[tuple[Callable[[int, int], Sequence[float]], str], ...] = (
    (lambda s, c: [c, *cosine_counts(s, c)], "the number at the start is in the list. Begin after the first step."),
    (
        lambda s, c: [a - b for a, b in zip([c, *cosine_counts(s, c)], cosine_counts(s, c), strict=False)],
        "these are the numbers of cells that are decided. Give those that stay hidden.",
    ),
    (lambda s, c: [c - count for count in cosine_counts(s, c)], "these are the cells that are known by then."),
    (lambda s, c: _schedule(s, c, strict=False, end=False), "the last step hides 1 cell. It hides none."),
    (lambda s, c: _schedule(s, c, strict=False), "a step may decide no cell. Each step hides at least one cell less."),
    (lambda s, c: _schedule(s, c, first=0), "i begins at 0. After the first step it is 1."),
    (lambda s, c: _schedule(s, c, whole=round), "the numbers are rounded. Take the floor."),
    (lambda s, c: _schedule(s, c, share=lambda u: 1 - u), "the share falls linearly. Take cos(π/2 · i/steps)."),
    (lambda s, c: _schedule(s, c, share=lambda u: 1 - math.sin(math.pi / 2 * u)), "the share is 1 − sin. Take cos."),
    (lambda s, c: _schedule(s, c, share=lambda u: math.cos(math.pi * u)), "cos(π i/steps) has the wrong period: π/2."),
)


# a step of the sampler

SIZE = 32  # V of the toy, and the mark of a hidden cell
CHOICES = (1, 2, 3, 4, 6, 8, 12, 16)  # equally likely codes of each cell: whatever is drawn, p is 1 / n
ROWS = 4000
CLOSE = 0.024  # of a share of ROWS


def step(function: Callable) -> Verdict:
    """function(state [B, L], logits [B, L, V], count, tau, generator) -> the next state [B, L].

    All hidden cells are drawn, and the `count` of the lowest confidence, log p + tau · Gumbel noise, are hidden again.
    """
    for judge in (_kept_and_hidden, _drawn, _noise_of_the_choice):
        mistake = judge(function)
        if mistake:
            return mistake
    return Verdict(
        True, "given cells stay, hidden ones are drawn, and the `count` of the lowest log p + τ · Gumbel are hidden."
    )


def _kept_and_hidden(function: Callable) -> Verdict | None:
    """Without noise: which cells are kept, and which are hidden again."""
    state = torch.full((50, len(CHOICES)), SIZE)
    state[:, 1], state[:, 6] = 5, 31
    for count in (2, 0):
        value, failed = _called(function, state, _uniform(CHOICES, 50), count, 0.0)
        if failed:
            return failed
        new = torch.as_tensor(value)
        if (new[:, [1, 6]] != state[:, [1, 6]]).any():
            return Verdict(
                False, "a cell that was known has changed. Draw the hidden cells only, and never hide a known one."
            )
        hidden = new == SIZE
        if (hidden.sum(1) != count).any():
            found = int(hidden[0].sum())
            text = f" {count} is the number of cells to hide, not of those to decide." if found == 6 - count else ""
            return Verdict(False, f"count = {count} of 6 hidden cells leaves {found} hidden.{text}")
        possible = torch.where(state == SIZE, torch.tensor(CHOICES), SIZE)  # codes below this number
        if (torch.where(hidden, 0, new) >= possible).any():
            return Verdict(False, "codes of probability 0 are drawn. Draw from the softmax of the cell's logits.")
        if count and not hidden[:, [5, 7]].all():
            surest = hidden[:, [0, 2]].all()
            text = "the surest cells are hidden." if surest else "the wrong cells are hidden."
            return Verdict(False, f"{text} Without noise, hide those whose drawn code has the lowest probability.")
    return None


def _drawn(function: Callable) -> Verdict | None:
    """Shares of the drawn codes."""
    probs = torch.tensor([0.5, 0.25, 0.125, 0.125])
    value, failed = _called(function, torch.full((ROWS, 1), 4), probs.log().expand(ROWS, 1, 4), 0, 0.0)
    if failed:
        return failed
    shares = torch.bincount(torch.as_tensor(value).flatten(), minlength=4)[:4] / ROWS
    if shares[0] > 0.999:
        return Verdict(False, "the likeliest code is always taken. Draw from the softmax of the logits.")
    if (shares - probs).abs().max() > 0.03:
        found = [round(share, 2) for share in shares.tolist()]
        return Verdict(False, f"codes of the probabilities {probs.tolist()} are drawn with the shares {found}.")
    return None


def _noise_of_the_choice(function: Callable) -> Verdict | None:
    """One of two cells is kept, of p = 1 and 1/4. With Gumbel noise it is the first in a share 1 / (1 + 4^(-1/τ))."""
    found = []
    for tau in (1.0, 2.0):
        value, failed = _called(function, torch.full((ROWS, 2), SIZE), _uniform((1, 4), ROWS), 1, tau)
        if failed:
            return failed
        found.append((torch.as_tensor(value)[:, 0] != SIZE).float().mean().item())
    if all(abs(share - _surer(math.log(4) / tau)) < CLOSE for share, tau in zip(found, (1.0, 2.0), strict=True)):
        return None
    mistakes = (
        ((1.0, 1.0), "the noise has no effect. Add τ times a Gumbel number of its own to each cell."),
        ((_surer(math.log(4)),) * 2, "τ has no effect. Multiply the noise by it."),
        ((_surer(math.log(4)), _surer(2 * math.log(4))), "the noise is divided by τ. Multiply."),
        ((_surer(0.75), _surer(0.375)), "the noise is added to the probability. Add it to its logarithm."),
        ((0.5, 0.5), "the choice is by the noise alone. Add log p."),
    )
    for wrong, text in mistakes:
        if all(abs(a - b) < CLOSE for a, b in zip(found, wrong, strict=True)):
            return Verdict(False, text)
    return Verdict(
        False,
        f"of two cells of p = 1 and 1/4 the first is kept in a share of {found[0]:.2f} at τ = 1 and {found[1]:.2f} at "
        "τ = 2; with Gumbel noise it is 0.80 and 0.67. Is the noise −log(−log u)?",
    )


def _surer(difference: float) -> float:
    """Probability that a cell stays ahead by this difference of log p when both get Gumbel noise of τ = 1."""
    return 1 / (1 + math.exp(-difference))


def _uniform(choices: Sequence[int], rows: int) -> Tensor:
    """Logits [rows, L, SIZE] of cells with n equally likely codes, the first n."""
    possible = torch.arange(SIZE) < torch.tensor(choices)[:, None]  # [L, V]
    return torch.where(possible, 0.0, -100.0).expand(rows, -1, -1)


def _called(function: Callable, state: Tensor, logits: Tensor, count: int, tau: float) -> tuple[object, Verdict | None]:
    """Call a step of the reader, and check the shape and the type of what it returns."""
    chance = torch.Generator().manual_seed(0)
    value, failed = call("step(...)", function, state.clone(), logits.clone(), count, tau, chance)
    return value, failed or _bad_codes(value, state)


# a step to repair

STEP_BUGS = {
    "mask": "hidden cells are looked for after all were filled, so none is found, and the confidence has no effect "
    "(keep `hidden` from before)",
    "likeliest": "the likeliest code is taken (draw from probs)",
    "last": "the last step, count = 0, hides a cell (its mark is no code: hide none)",
}


def repair(function: Callable) -> Verdict:
    """A step, as in `step`, with three mistakes. Names those that are left."""
    verdict = step(function)
    if verdict.right or verdict == UNANSWERED:
        return verdict
    for number in range(len(STEP_BUGS), 0, -1):
        for bugs in combinations(STEP_BUGS, number):
            if _steps_alike(function, bugs):
                begun = "" if number < len(STEP_BUGS) else "no answer so far: "
                return Verdict(False, f"{begun}{number} of 3 left: {'; '.join(STEP_BUGS[bug] for bug in bugs)}.")
    return verdict


def _steps_alike(function: Callable, bugs: Collection[str]) -> bool:
    """Whether a step of the reader gives what the exercise's step with these mistakes gives, draw for draw."""
    state = torch.full((200, len(CHOICES)), SIZE)
    state[:, 1], state[:, 6] = 5, 31
    for count in (3, 0):
        value, failed = _called(function, state, _uniform(CHOICES, 200), count, 1.0)
        right = _step(state, _uniform(CHOICES, 200), count, 1.0, torch.Generator().manual_seed(0), bugs)
        if failed or not torch.equal(torch.as_tensor(value), right):
            return False
    return True


# filling

HOLE = (2, 3, 4, 6, 7, 9)  # missing cells of 12
STEPS = 4


def fill(function: Callable) -> Verdict:
    """function(predict, known [B, L], steps, noise, generator) -> [B, L]: the missing cells (V), in `steps` steps.

    predict(state [B, L]) gives logits [B, L, V]. τ falls linearly from `noise` at the first step to 0 at the last.
    """
    known = torch.arange(12).repeat(3, 1)
    known[:, HOLE] = SIZE
    seen: list[Tensor] = []

    def predict(state: Tensor) -> Tensor:
        seen.append(state.clone())
        return _uniform(range(1, 13), len(state))

    try:
        value = function(predict, known.clone(), STEPS, 0.0, torch.Generator().manual_seed(0))
    except Exception as error:  # a reader's function may raise anything
        return stopped("fill(...)", error)
    if value is ...:
        return UNANSWERED
    failed = (
        _bad_codes(value, known) or _wrong_states([*seen, torch.as_tensor(value)], known) or _wrong_orders(function)
    )
    return failed or Verdict(
        True, f"given cells stay, and {', '.join(map(str, cosine_counts(STEPS, 6)))} of 6 missing cells stay hidden."
    )


def _wrong_states(states: Sequence[Tensor], known: Tensor) -> Verdict | None:
    """What is wrong with the states that the model saw, and the result behind them."""
    if len(states) != STEPS + 1:
        return Verdict(False, f"predict is called {len(states) - 1} times for {STEPS} steps.")
    if not torch.equal(states[0], known):
        return Verdict(False, "the first state that predict sees is not `known`. Start with it.")
    if any((state != known)[known != SIZE].any() for state in states):
        return Verdict(False, "given cells have changed. Draw the missing ones only.")
    hidden = [int((state[0] == SIZE).sum()) for state in states]
    if hidden[-1]:
        return Verdict(False, f"{hidden[-1]} cells are still hidden at the end. The last step hides none.")
    if hidden != [6, *cosine_counts(STEPS, 6)]:
        whole = [min(6, count) for count in cosine_counts(STEPS, 12)]
        text = "the schedule is made for all 12 cells. Make it for the 6 missing ones." if hidden[1:] == whole else ""
        return Verdict(False, text or f"hidden cells: {hidden}. Right is {[6, *cosine_counts(STEPS, 6)]}.")
    for before, after in zip(states, states[1:], strict=False):
        if (before != after)[before != SIZE].any():
            return Verdict(False, "a cell that was decided has changed. Each cell is decided once.")
    if not all(torch.equal(state == SIZE, _least_sure(state, known)) for state in states[1:]):
        return Verdict(False, "the cells are not decided in the order of their confidence.")
    return None


def _least_sure(state: Tensor, known: Tensor) -> Tensor:
    """The missing cells that a right state with as many hidden cells hides: the last ones, of the most choices."""
    hidden = int((state[0] == SIZE).sum())
    last = torch.zeros_like(state, dtype=torch.bool)
    last[:, [*HOLE][6 - hidden :]] = True
    return last


def _wrong_orders(function: Callable) -> Verdict | None:
    """Compare how often each of three cells is decided last with a noise that falls to 0."""
    found, failed = _last(function)
    if failed:
        return failed
    if (found - _reference(_falling)).abs().max() < 0.03:
        return None
    for levels, text in (
        (lambda _: 0.0, "the noise has no effect. Give each step its τ."),
        (lambda _: 1.0, "the noise stays the same. Let it fall to 0 at the last step."),
        (lambda u: u, "the noise grows. Let it fall from `noise` to 0."),
    ):
        if (found - _reference(levels)).abs().max() < 0.03:
            return Verdict(False, text)
    return Verdict(
        False, "the order of the cells is another one. τ of step i = 0, 1, … is noise · (1 − i / (steps − 1))."
    )


def _falling(progress: float) -> float:
    return 1 - progress


def _reference(levels: Callable[[float], float]) -> Tensor:
    """Shares of the cells that are decided last, [3], by a right sampler with these levels of the noise."""

    def run(predict: Callable, known: Tensor, steps: int, noise: float, generator: torch.Generator) -> Tensor:
        state = known
        for i, count in enumerate(cosine_counts(steps, 3)):
            state = _step(state, predict(state), count, noise * levels(i / (steps - 1)), generator)
        return state

    return _last(run)[0]


def _last(function: Callable) -> tuple[Tensor, Verdict | None]:
    """Shares of three cells of p = 1, 1/3 and 1/12 that are decided last, in three steps with noise 2: [3]."""
    states: list[Tensor] = []

    def predict(state: Tensor) -> Tensor:
        states.append(state.clone())
        return _uniform((1, 3, 12), len(state))

    known = torch.full((ROWS, 3), SIZE)
    value, failed = call("fill(...)", function, predict, known, 3, 2.0, torch.Generator().manual_seed(1))
    if failed or len(states) != 3:
        return torch.zeros(3), failed or Verdict(False, f"predict is called {len(states)} times for 3 steps.")
    return (states[-1] == SIZE).float().mean(0), None


def _step(
    state: Tensor, logits: Tensor, count: int, tau: float, generator: torch.Generator, bugs: Collection[str] = ()
) -> Tensor:
    """A right step, or one with the named mistakes of `STEP_BUGS`."""
    probs, special = logits.softmax(-1), logits.shape[-1]  # [B, L, V]
    if "likeliest" in bugs:
        drawn = probs.argmax(-1)
    else:
        drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator).view_as(state)  # [B, L]
    new = torch.where(state == special, drawn, state)
    hidden = (new if "mask" in bugs else state) == special
    sure = probs.gather(-1, drawn[..., None])[..., 0].log() + tau * gumbel(probs[..., 0], generator)  # [B, L]
    sure = sure.masked_fill(~hidden, math.inf)
    count = max(1, count) if "last" in bugs else count
    return new.scatter(1, sure.argsort(1)[:, :count], special)


# shared


def _bad_codes(value: object, state: Tensor) -> Verdict | None:
    if torch.is_tensor(value) and value.shape == state.shape and not value.is_floating_point():
        return None
    return Verdict(False, f"{_kind(value)} comes back. Give codes [B, L] = {list(state.shape)}.")


def _kind(value: object) -> str:
    """Type and shape of a value."""
    return f"{value.dtype} {list(value.shape)}" if torch.is_tensor(value) else f"{type(value).__name__}"
