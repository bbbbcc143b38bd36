"""The checks of notebook 14 accept what is right in every form, and say what is wrong with typical wrong answers."""

import pytest
import torch

from minigen.conditioning.style import StyleConditioner, StyleConfig
from minigen.course.check import condition as check


def nearest(x, table):
    return table[torch.cdist(x, table).argmin(-1)]


def by_stages(latents, tables, q, stride):
    kept = latents[:, : latents.shape[1] // stride * stride : stride]
    rest, total = kept.detach(), 0
    for table in tables[:q]:
        entry = nearest(rest, table)
        rest, total = rest - entry, total + entry
    return total + kept - kept.detach()


def by_the_library(latents, tables, q, stride):
    style = StyleConditioner(StyleConfig(1, 4, 4, 1, 1, 4, 3, len(tables), len(tables[0]), 3))
    for stage, table in zip(style.quantizer.stages, tables, strict=True):
        stage.codebook.data.copy_(table)
    with torch.no_grad():
        style.output.weight.copy_(torch.eye(3))
        style.output.bias.zero_()
    return style.tokens(latents, q)


@pytest.mark.parametrize("function", [by_stages, by_the_library])
def test_a_bottleneck_is_accepted_however_it_is_computed(function):
    assert check.bottleneck(function).right


def on_each_stage(latents, tables, q, stride):
    kept = latents[:, :20:stride]
    return sum(nearest(kept, table) for table in tables[:q])


def averaged(latents, tables, q, stride):
    return by_stages(latents[:, :20].unflatten(1, (2, 10)).mean(2), tables, q, 1)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (on_each_stage, "quantises the latent itself"),
        (averaged, "the mean of ten frames"),
        (lambda x, t, q, s: by_stages(x, t, 5, s), "all stages"),
        (lambda x, t, q, s: by_stages(x, t, 1, s), "only the first stage"),
        (lambda x, t, q, s: by_stages(x, t, q, 1), "every frame has a token"),
        (lambda x, t, q, s: by_stages(torch.cat([x, x[:, 24:].expand(-1, 5, -1)], 1), t, q, s), "no whole stride"),
        (lambda x, t, q, s: by_stages(x[:, 9:19], t, q, s), "not right for the values"),
        (lambda x, t, q, s: by_stages(x[:, 9:].repeat(1, 2, 1), t, q, s)[:, :2], "the last of each ten"),
        (lambda x, t, q, s: by_stages(x[:, :2], t, q, 1), "the first two frames"),
        (lambda x, t, q, s: x[:, :20:s], "nothing is quantised"),
        (lambda x, t, q, s: x[:, :20:s] - by_stages(x, t, q, s), "left over"),
        (lambda x, t, q, s: by_stages(x, t, q, s) - by_stages(x, t, q - 1, s), "the last stage's entry"),
        (lambda x, t, q, s: by_stages(x, t, q, s).detach(), "no gradient"),
        (lambda x, t, q, s: by_stages(x.detach(), t, q, s) + 2 * (x - x.detach())[:, :20:s], "the gradient is not"),
        (lambda x, t, q, s: by_stages(x, t, q, s).tolist(), "a list comes back"),
        (lambda x, t, q, s: x @ t, "TypeError"),
        (lambda x, t, q, s: ..., "no answer"),
    ],
)
def test_a_wrong_bottleneck_gets_its_diagnosis(function, diagnosis):
    verdict = check.bottleneck(function)
    assert not verdict.right
    assert diagnosis in verdict.text


@pytest.mark.parametrize("function", [lambda s, t: (s, t / s), lambda s, t: torch.tensor([s, t / s])])
def test_the_two_forms_are_accepted_as_numbers_and_as_tensors(function):
    assert check.two_forms(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda s, t: (s, t), "the factor α β"),
        (lambda s, t: (t / s, s), "α and β are exchanged"),
        (lambda s, t: (t, s / t), "style and text are exchanged"),
        (lambda s, t: (s, s / t), "inverted"),
        (lambda s, t: (s, t - s), "do not add up"),
        (lambda s, t: (s, s * t), "Divide"),
        (lambda s, t: (1.0, 1.0), "Multiply `guide_two` out"),
        (lambda s, t: s, "not a pair"),
        (lambda s, t: (s, "t"), "not a pair"),
        (lambda s, t: s / 0, "ZeroDivisionError"),
        (lambda s, t: ..., "no answer"),
    ],
)
def test_wrong_scales_get_their_diagnosis(function, diagnosis):
    verdict = check.two_forms(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def by_cells(codes, starts, length, pattern, special):
    frame = torch.arange(codes.shape[2])
    first = torch.tensor(starts)[:, None]
    inside = ((frame >= first) & (frame < first + length))[:, None].expand(codes.shape)
    return pattern.apply(codes, special), pattern.apply(codes.masked_fill(inside, special), special)


def by_columns(codes, starts, length, pattern, special, copy=True, delayed=True, more=0):
    sequence = pattern.apply(codes, special)
    target = sequence.clone() if copy else sequence
    for b, start in enumerate(starts):
        for k, delay in enumerate(pattern.delays):
            first = start + delay * delayed
            target[b, k, first : first + length + more] = special
    return sequence, target


@pytest.mark.parametrize("function", [by_cells, by_columns])
def test_the_mask_is_accepted_before_and_after_the_delay(function):
    assert check.hide(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *a: by_columns(*a, copy=False, delayed=False, more=1), "no answer so far: 3 of 3 left"),
        (lambda *a: by_columns(*a, copy=False), "1 of 3 left: what is read is hidden"),
        (lambda *a: by_columns(*a, delayed=False), "1 of 3 left: every stream"),
        (lambda *a: by_columns(*a, more=1), "1 of 3 left: one frame too many"),
        (lambda *a: by_columns(*a, copy=False, more=1), "2 of 3 left"),
        (lambda *a: by_columns(*a, more=-1), "other cells"),
        (lambda codes, *a: (codes, codes), "the shapes are"),
        (lambda codes, *a: 7, "stopped with TypeError"),
        (lambda codes, *a: codes.nothing, "AttributeError"),
        (lambda codes, *a: ..., "no answer"),
    ],
)
def test_a_wrong_mask_gets_its_diagnosis(function, diagnosis):
    verdict = check.hide(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def with_a_count(loss, held_out, start, steps, rate, patience, optimizer=torch.optim.Adam, keep=True, ends=True):
    v = start.clone().requires_grad_()
    optimizer = optimizer([v], lr=rate)
    best, lowest, waited = v.detach().clone(), held_out(v).item(), 0
    for _ in range(steps):
        optimizer.zero_grad()
        loss(v).backward()
        optimizer.step()
        measured = held_out(v).item()
        if measured < lowest:
            best, lowest, waited = v.detach().clone(), measured, 0
        else:
            waited += 1
        if waited >= patience and ends:
            break
    return best if keep else v


def with_lists(loss, held_out, start, steps, rate, patience):
    v = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([v], lr=rate)
    seen, losses = [], []
    for step in range(steps + 1):
        with torch.no_grad():
            seen.append(v.clone())
            losses.append(held_out(v).item())
        if step - losses.index(min(losses)) >= patience:
            break
        optimizer.zero_grad()
        loss(v).backward()
        optimizer.step()
    return seen[losses.index(min(losses))]


@pytest.mark.parametrize("function", [with_a_count, with_lists])
def test_early_stopping_is_accepted_however_it_counts(function):
    assert check.learn(function).right


def without_the_first(loss, held_out, start, *rest):
    """The first step counts as an improvement, whatever it is."""
    calls = []

    def measured(v):
        calls.append(v)
        return held_out(v) if len(calls) > 1 else torch.tensor(float("inf"))

    return with_a_count(loss, measured, start, *rest)


def on_the_start(loss, held_out, start, *rest):
    v = with_a_count(loss, held_out, start, *rest)
    start += v
    return v


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *a: with_a_count(*a, keep=False), "the last vector"),
        (lambda *a: with_a_count(*a, ends=False), "60 steps are taken"),
        (lambda *a: with_a_count(*a[:-1], patience=a[-1] - 1), "steps are taken instead of"),
        (without_the_first, "the start is the best vector"),
        (lambda *a: with_a_count(*a, optimizer=torch.optim.SGD), "plain gradient descent"),
        (lambda loss, held_out, *a: with_a_count(held_out, held_out, *a), "never called"),
        (lambda loss, held_out, *a: with_a_count(lambda v: held_out(v) + 0 * loss(v), held_out, *a), "follow the held"),
        (lambda loss, held_out, start, *a: (loss(start), start.clone())[1], "this is the start"),
        (lambda loss, held_out, start, *a: (loss(start), start + 7)[1], "end elsewhere"),
        (on_the_start, "`start` itself has changed"),
        (lambda *a: 3.0, "a vector like `start`"),
        (lambda *a: a.nothing, "AttributeError"),
        (lambda *a: ..., "no answer"),
    ],
)
def test_a_wrong_training_gets_its_diagnosis(function, diagnosis):
    verdict = check.learn(function)
    assert not verdict.right
    assert diagnosis in verdict.text
