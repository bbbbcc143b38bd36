"""The checks of notebook 05 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch
import torch.nn.functional as F

from minigen.course.check import lm as check


def back(steps):
    """[steps, steps]: how far column n lies behind column s."""
    return torch.arange(steps)[:, None] - torch.arange(steps)


def by_softmax(q, k, v, width, read=None):
    distance = back(q.shape[2])
    read = (distance >= 0) & (distance < width) if read is None else read
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~read, -torch.inf).softmax(-1) @ v


def by_torch(q, k, v, width):
    mask = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril().triu(1 - width)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def by_loop(q, k, v, width):
    out = torch.zeros_like(v)
    for s in range(q.shape[2]):
        seen = slice(max(0, s - width + 1), s + 1)
        weights = (k[:, :, seen] @ q[:, :, s, :, None] / q.shape[-1] ** 0.5).softmax(2)
        out[:, :, s] = (weights * v[:, :, seen]).sum(2)
    return out


@pytest.mark.parametrize("function", [by_softmax, by_torch, by_loop])
def test_a_window_is_accepted_however_it_is_made(function):
    assert check.window_attention(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda q, k, v, w: by_softmax(q, k, v, w, back(7) >= 0), "all of the past"),
        (lambda q, k, v, w: by_softmax(q, k, v, w, back(7) < w), "the future is read"),
        (lambda q, k, v, w: by_softmax(q, k, v, w, back(7).abs() < w), "to both sides"),
        (lambda q, k, v, w: by_softmax(q, k, v, w, (back(7) >= 0) & (back(7) <= w)), "one too wide"),
        (lambda q, k, v, w: by_softmax(2 * q, k, v, w), "not divided by √d"),
        (lambda q, k, v, w: by_softmax(q / 2, k, v, w), "divided by d"),
        (lambda q, k, v, w: (q @ k.mT / 2).softmax(-1) * (back(7) < w) * (back(7) >= 0) @ v, "after the softmax"),
        (lambda q, k, v, w: by_softmax(q, k, v, w)[0], "has shape [3, 7, 4]"),
        (lambda q, k, v, w: v, "compare each step"),
        (lambda q, k, v, w: by_softmax(q, k, v, w, back(7) > 9), "NaN comes back"),
        (lambda q, k, v, w: "done", "not a tensor"),
        (lambda q, k, v, w: q @ k, "stopped with RuntimeError"),
        (lambda q, k, v, w: ..., "no answer"),
    ],
)
def test_a_wrong_window_gets_its_diagnosis(function, diagnosis):
    verdict = check.window_attention(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def by_joining(q, k, v, past):
    for name, new in (("k", k), ("v", v)):
        past[name] = torch.cat([past[name], new], dim=2) if name in past else new
    return F.scaled_dot_product_attention(q, past["k"], past["v"])


def by_listing(q, k, v, past):
    past[len(past)] = (k, v)
    keys, values = (torch.cat(side, dim=2) for side in zip(*past.values(), strict=True))
    return by_softmax(q, keys, values, None, torch.ones(1, len(past), dtype=torch.bool))


@pytest.mark.parametrize("function", [by_joining, by_listing])
def test_a_cache_is_accepted_however_it_keeps_the_past(function):
    assert check.attend_next(function).right


def last_only(q, k, v, past):
    keys, values = torch.cat([past.get("k", k), k], dim=2), torch.cat([past.get("v", v), v], dim=2)
    past |= {"k": k, "v": v}
    return F.scaled_dot_product_attention(q, keys, values)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda q, k, v, past: v, "reads itself only"),
        (last_only, "only the last column is kept"),
        (lambda q, k, v, past: by_joining(2 * q, k, v, past), "not divided by √d"),
        (lambda q, k, v, past: by_joining(q, k, 2 * v, past), "column 0 is not"),
        (lambda q, k, v, past: by_joining(q, k, v, past)[:, :, 0], "not [B, heads, 1, d]"),
        (lambda q, k, v, past: None, "gives NoneType"),
        (lambda q, k, v, past: past["k"], "stopped with KeyError"),
        (lambda q, k, v, past: ..., "no answer"),
    ],
)
def test_a_wrong_cache_gets_its_diagnosis(function, diagnosis):
    verdict = check.attend_next(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def write(model, start, steps, temperature, generator, column=-1, read=True):
    sequence = start
    for _ in range(steps):
        logits = model(sequence if read else start)[:, :, column] / temperature
        new = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
        sequence = torch.cat([sequence, new.view(*start.shape[:2], 1)], dim=2)
    return sequence


def write_codebook_by_codebook(model, start, steps, temperature, generator):
    columns = [start]
    for _ in range(steps):
        probs = (model(torch.cat(columns, dim=2))[:, :, -1] / temperature).softmax(-1)
        drawn = [torch.multinomial(probs[:, k], 1, generator=generator) for k in range(start.shape[1])]
        columns.append(torch.stack(drawn, dim=1))
    return torch.cat(columns, dim=2)


@pytest.mark.parametrize("function", [write, write_codebook_by_codebook])
def test_writing_is_accepted_all_codebooks_at_once_and_one_by_one(function):
    assert check.write_on(function).right


def greedy(model, start, steps, temperature, generator):
    for _ in range(steps):
        start = torch.cat([start, model(start)[:, :, -1:].argmax(-1)], dim=2)
    return start


def mixed_up(model, start, steps, temperature, generator):
    for _ in range(steps):
        new = torch.multinomial(model(start)[:, :, -1].softmax(-1).flatten(0, 1), 1, generator=generator)
        start = torch.cat([start, new.view(start.shape[1], start.shape[0]).T[..., None]], dim=2)
    return start


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (greedy, "always taken"),
        (mixed_up, "mixed up"),
        (lambda m, s, n, t, g: write(m, s, n, t, g, read=False), "read before the next one"),
        (lambda m, s, n, t, g: write(m, s, n, t, g, column=0), "first column's logits"),
        (lambda m, s, n, t, g: write(m, s, n, 1.0, g), "no effect"),
        (lambda m, s, n, t, g: write(m, s, n, 1 / t, g), "Divide"),
        (lambda m, s, n, t, g: write(m, s, n, t, g)[:, :, s.shape[2] :], "[2, 3, 4] comes back"),
        (lambda m, s, n, t, g: write(m, s + 1, n, t, g), "have changed"),
        (lambda m, s, n, t, g: 7, "int comes back"),
        (lambda m, s, n, t, g: m(s).missing, "stopped with AttributeError"),
        (lambda m, s, n, t, g: ..., "no answer"),
    ],
)
def test_wrong_writing_gets_its_diagnosis(function, diagnosis):
    verdict = check.write_on(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def changed(sequence, s, k):
    other = sequence.clone()
    other[:, k, s] = (other[:, k, s] + 1) % 10
    return other


def by_change(model, S=6, K=3, columns=range(1, 6), codebooks=(0, 1, 2), all_of_it=False):
    sequence = torch.randint(10, (2, K, S), generator=torch.Generator().manual_seed(0))
    before = model(sequence)
    for s in columns:
        for k in codebooks:
            after = model(changed(sequence, s, k))
            end = S if all_of_it else s
            if not torch.equal(after[:, :, :end], before[:, :, :end]):
                return True
    return False


def by_cutting(model):
    """A causal model gives the same logits for the beginning, without what follows; here what follows is replaced."""
    sequence = torch.randint(10, (2, 3, 6), generator=torch.Generator().manual_seed(0))
    whole = model(sequence)
    tails = [torch.cat([sequence[..., :s], (sequence[..., s:] + 3) % 10], dim=2) for s in range(1, 6)]
    return any(not torch.allclose(model(tail)[:, :, :s], whole[:, :, :s]) for s, tail in enumerate(tails, 1))


@pytest.mark.parametrize("function", [by_change, by_cutting])
def test_a_test_for_leaks_is_accepted(function):
    assert check.sees_the_future(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda model: by_change(model, all_of_it=True), "a causal model is called leaky"),
        (lambda model: False, "one column ahead passes"),
        (lambda model: by_change(model, codebooks=(0,)), "leak in one codebook"),
        (lambda model: by_change(model, columns=range(1, 5)), "last column to the first"),
        (lambda model: torch.tensor(True), "Return True or False"),
        (lambda model: model.layers, "stopped with AttributeError"),
        (lambda model: ..., "no answer"),
    ],
)
def test_a_wrong_test_for_leaks_gets_its_diagnosis(function, diagnosis):
    verdict = check.sees_the_future(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
