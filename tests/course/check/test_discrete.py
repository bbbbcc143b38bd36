"""The checks of notebook 12 accept what is right in every form, and say what is wrong with typical wrong answers."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from minigen.course.check import discrete as check
from minigen.course.explorers import revising
from minigen.generators.discrete_diffusion import MASK, STAY, Transitions

# the noise from time 0 to t


def by_hand(t, kind, size):
    """In plain Python, one line for each rule."""
    if t == 0:
        return 1, 0, 0
    share = (t - 1) / 99
    stay = STAY[0] + share * (STAY[1] - STAY[0])
    mask = {"mask": 1 - stay, "mask_uniform": MASK[0] + share * (MASK[1] - MASK[0]), "uniform": 0}[kind]
    return stay, (1 - stay - mask) / size, mask


def by_table(t, kind, size):
    """From arrays of all times, [101]."""
    stay = np.concatenate([[1], np.linspace(*STAY, 100)])
    mask = {"mask": 1 - stay, "uniform": 0 * stay, "mask_uniform": np.concatenate([[0], np.linspace(*MASK, 100)])}[kind]
    return np.stack([stay, (1 - stay - mask) / size, mask])[:, t]


@pytest.mark.parametrize("function", [
    by_hand, by_table, lambda *case: torch.tensor(by_table(*case)),
    lambda t, kind, size: Transitions(size, 100, kind).cumulative(t),
])  # fmt: skip
def test_the_cumulative_values_are_accepted_in_every_form(function):
    assert check.cumulative(function).right, check.cumulative(function)


def with_line(t, kind, size, place=lambda t: (t - 1) / 99, clean=True, count=0, mask_of=None):
    if t == 0 and clean:
        return 1, 0, 0
    stay = STAY[0] + place(t) * (STAY[1] - STAY[0])
    rising = MASK[0] + place(t) * (MASK[1] - MASK[0])
    mask = rising if mask_of else {"mask": 1 - stay, "mask_uniform": rising, "uniform": 0}[kind]
    return stay, (1 - stay - mask) / (size + count), mask


def step_of(t, kind, size):
    if t == 0:
        return 1, 0, 0
    (stay, _, mask), (stay_before, _, mask_before) = by_hand(t, kind, size), by_hand(t - 1, kind, size)
    alpha, gamma = stay / stay_before, 1 - (1 - mask) / (1 - mask_before)
    return alpha, (1 - alpha - gamma) / size, gamma


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *case: with_line(*case, clean=False), "t = 0 is the clean clip"),
        (lambda *case: with_line(*case, place=lambda t: t / 100), "the lines begin at t = 0"),
        (lambda t, kind, size: (by_hand(t, kind, size)[0], size * by_hand(t, kind, size)[1], by_hand(t, kind, size)[2]),
         "of all V codes together"),
        (lambda *case: with_line(*case, count=1), "divided by V + 1"),
        (lambda *case: with_line(*case, count=-1), "divided by V − 1"),
        (lambda *case: with_line(*case, mask_of="every kind"), "every kind has the masks"),
        (lambda *case: (by_hand(*case)[0], by_hand(*case)[2], by_hand(*case)[1]), "uniform and mask are exchanged"),
        (lambda *case: by_hand(*case)[::-1], "stay and mask are exchanged"),
        (step_of, "of the single step"),
        (lambda *case: (0.5, 0.1, 0.0), "cumulative(0, 'mask', 5) gives (0.5, 0.1, 0). Right is (1, 0, 0)."),
        (lambda *case: by_hand(*case)[:2], "gives (1, 0). Right is"),
        (lambda *case: by_hand(*case)[0], "gives 1. Give the three numbers"),
        (lambda *case: by_hand(*case, 1), "stopped with TypeError"),
        (lambda *case: ..., "no answer"),
    ],
)  # fmt: skip
def test_wrong_cumulative_values_get_their_diagnosis(function, diagnosis):
    verdict = check.cumulative(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# the posterior


def matrix(stay, mask, size, count=0):
    table = torch.full((size + 1, size + 1), (1 - stay - mask) / (size + count), dtype=torch.float64)
    table[range(size), range(size)] += stay
    table[:, size] = mask
    table[size] = torch.eye(size + 1)[size]
    return table


def between(at_s, at_t):
    return at_t[0] / at_s[0], 1 - (1 - at_t[2]) / (1 - at_s[2])


def by_matrices(p, seen, at_s, at_t, divide=True, scale=False, step=between, row=False, count=0):
    size = p.shape[1]
    to_s, to_t = (matrix(stay, mask, size, count) for stay, _, mask in (at_s, at_t))
    on = matrix(*step(at_s, at_t), size, count)
    weight = p / to_t[:size, seen].T if divide else p
    total = weight @ to_s[:size] * (on[seen] if row else on[:, seen].T)
    return total / total.sum(1, keepdim=True) if scale else total


def by_loops(p, seen, at_s, at_t):
    size = p.shape[1]
    to_s, to_t, on = (matrix(*ends, size) for ends in ((at_s[0], at_s[2]), (at_t[0], at_t[2]), between(at_s, at_t)))
    table = torch.zeros(len(p), size + 1)
    for cell, code in enumerate(seen.tolist()):
        for earlier in range(size + 1):
            for clean in range(size):
                likely = on[earlier, code] * to_s[clean, earlier] / to_t[clean, code]
                table[cell, earlier] += p[cell, clean] * likely
    return table


def by_formula(p, seen, at_s, at_t):
    (stay_s, uniform_s, mask_s), (stay_t, uniform_t, mask_t) = at_s, at_t
    alpha, gamma = between(at_s, at_t)
    beta = (1 - alpha - gamma) / p.shape[1]
    same = (seen[:, None] == torch.arange(p.shape[1])).double()
    r = p / (stay_t * same + uniform_t)
    code = (alpha * same + beta) * (stay_s * r + uniform_s * r.sum(1, keepdim=True))
    hidden = (seen == p.shape[1])[:, None]
    codes = torch.where(hidden, gamma / mask_t * (stay_s * p + uniform_s), code)
    return torch.cat([codes, hidden * mask_s / mask_t], 1)


@pytest.mark.parametrize("function", [
    by_matrices, by_loops, by_formula, lambda *case: by_formula(*case).float(),
    lambda *case: by_matrices(*case, scale=True),
])  # fmt: skip
def test_a_posterior_is_accepted_however_it_is_written(function):
    assert check.posterior(function).right, check.posterior(function)


def both(masked, shown):
    """A posterior by one function for masked cells, by another for cells with a code."""

    def function(p, seen, *ends):
        return torch.where((seen == p.shape[1])[:, None], masked(p, seen, *ends), shown(p, seen, *ends))

    return function  # fmt: skip


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *case: by_matrices(*case, divide=False), "division by q(x_t | x_0 = k) is missing"),
        (lambda *case: by_matrices(*case, divide=False, scale=True), "is not the same"),
        (lambda *case: by_matrices(*case, step=lambda at_s, at_t: (at_t[0], at_t[2])), "from s to t is missing"),
        (lambda *case: by_matrices(*case, step=lambda at_s, at_t: (at_t[0], at_t[2]), scale=True), "from s to t is"),
        (lambda *case: by_matrices(*case, step=lambda at_s, at_t: (at_t[0] - at_s[0], at_t[2] - at_s[2])), "quotients"),
        (lambda *case: by_matrices(*case, row=True), "stay masked for ever"),
        (lambda *case: by_matrices(*case, count=1), "divided by V + 1"),
        (lambda *case: 2 * by_formula(*case), "right up to a factor"),
        (both(by_formula, lambda *case: by_matrices(*case, row=True, divide=False)), "right for masked cells, not"),
        (both(lambda *case: by_matrices(*case, row=True), by_formula), "right for cells with a code, not"),
        (lambda p, *rest: by_formula(p.flip(1), *rest), "not right for the values tried"),
        (lambda p, *rest: p, "the probability of the mask is missing"),
        (lambda p, seen, *rest: seen, "torch.int64 [12] comes back"),
        (lambda *case: None, "NoneType comes back"),
        (lambda p, *rest: p + "a", "stopped with TypeError"),
        (lambda *case: ..., "no answer"),
    ],
)
def test_a_wrong_posterior_gets_its_diagnosis(function, diagnosis):
    verdict = check.posterior(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# revisions


def count_by_loop(states, mask):
    counts = [[0] * states[0].shape[1] for _ in states[0]]
    for before, after in pairwise(states):
        for k, row in enumerate(before.tolist()):
            for place, code in enumerate(row):
                counts[k][place] += code != mask and after[k, place].item() not in (mask, code)
    return counts


def count_stacked(states, mask):
    run = torch.stack(states)
    return ((run[1:] != run[:-1]) & (run[:-1] != mask)).sum(0)


@pytest.mark.parametrize("function", [
    count_by_loop, count_stacked, revising.revisions, lambda *case: count_stacked(*case).numpy(),
])  # fmt: skip
def test_counts_of_revisions_are_accepted_in_every_kind_of_table(function):
    assert check.revisions(function).right, check.revisions(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda x, mask: sum((a != b).long() for a, b in pairwise(x)), "that gets its first code"),
        (lambda x, mask: sum(((a == b) & (a != mask)).long() for a, b in pairwise(x)), "that keep the code"),
        (lambda x, mask: ((x[0] != x[-1]) & (x[0] != mask)).long(), "only the first and the last"),
        (lambda x, mask: count_stacked(x, mask).clamp(max=1), "counts once"),
        (lambda x, mask: count_stacked(x, mask) > 0, "Count the steps"),
        (lambda x, mask: count_stacked(x, mask).sum(), "of all cells together"),
        (lambda x, mask: [int(count_stacked([a, b], mask).sum()) for a, b in pairwise(x)], "of each step"),
        (lambda x, mask: count_stacked(x, mask).T, "the shape is [4, 2]"),
        (lambda x, mask: count_stacked(x, mask) + 1, "for the run tried. Right is [[0, 2, 3, 0], [2, 0, 0, 0]]."),
        (lambda x, mask: "none", "str comes back"),
        (lambda x, mask: x[9], "stopped with IndexError"),
        (lambda x, mask: ..., "no answer"),
    ],
)
def test_wrong_counts_get_their_diagnosis(function, diagnosis):
    verdict = check.revisions(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# a fast sampler to repair


def fast(noise, p, seen, t, s, share=True, stride=True, row=True):
    """The function of the exercise; the named arguments keep its mistakes."""
    t = s + 1 if stride else t
    return by_matrices(p, seen, noise.cumulative(s), noise.cumulative(t), row=row, count=int(share))


@pytest.mark.parametrize("function", [
    lambda *case: fast(*case, False, False, False), lambda noise, *case: noise.posterior(*case),
    lambda noise, p, seen, t, s: by_formula(p, seen, noise.cumulative(s), noise.cumulative(t)),
])  # fmt: skip
def test_a_repaired_sampler_is_accepted(function):
    assert check.fast_posterior(function).right, check.fast_posterior(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (fast, "no answer so far: 3 of 3 left: the uniform share is divided by V + 1"),
        (lambda *case: fast(*case, share=False), "2 of 3 left: x_t is taken for x_{s+1}"),
        (lambda *case: fast(*case, stride=False), "2 of 3 left: the uniform share"),
        (lambda *case: fast(*case, row=False), "2 of 3 left: the uniform share"),
        (lambda *case: fast(*case, share=False, row=False), "1 of 3 left: x_t is taken for x_{s+1}"),
        (lambda *case: fast(*case, share=False, stride=False), "1 of 3 left: the row of the cell's code"),
        (lambda *case: fast(*case, stride=False, row=False), "1 of 3 left: the uniform share"),
        (lambda noise, p, *rest: torch.nn.functional.pad(p, (0, 1)), "by none of the three mistakes alone"),
        (lambda noise, p, *rest: p, "the probability of the mask is missing"),
        (lambda *case: 1 / 0, "stopped with ZeroDivisionError"),
        (lambda *case: ..., "no answer"),
    ],
)
def test_mistakes_that_are_left_are_named(function, diagnosis):
    verdict = check.fast_posterior(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
