"""The checks of notebook 02 accept what is right however it is computed, and say what typical wrong answers mistake."""

import math

import pytest
import torch

from minigen.course.check import codec as check


@pytest.mark.parametrize(
    "function",
    [
        lambda bits, frames, entries: math.floor(bits / (frames * math.log2(entries))),
        lambda bits, frames, entries: bits // (frames * ((entries - 1).bit_length())),
        lambda bits, frames, entries: max(k for k in range(99) if k * frames * math.log2(entries) <= bits),
        lambda bits, frames, entries: torch.tensor(bits / frames / math.log2(entries)).floor(),
    ],
)
def test_the_number_of_codebooks_is_accepted_however_it_is_computed(function):
    assert check.codebooks(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda b, f, v: b / (f * math.log2(v)), "round down"),
        (lambda b, f, v: math.ceil(b / (f * math.log2(v))), "more bits than there are"),
        (lambda b, f, v: b // (f * v), "log2 V bits, not V"),
        (lambda b, f, v: b // f, "bits of a frame"),
        (lambda b, f, v: b // math.log2(v), "codes a second"),
        (lambda b, f, v: b // (f * math.log(v)), "use log2"),
        (lambda b, f, v: math.floor(1000 * b / (f * math.log2(v))), "not in kb/s"),
        (lambda b, f, v: 4, "codebooks(6000, 75, 1024) gives 4, but 8 fit"),
        (lambda b, f, v: None, "not a number"),
        (lambda b, f, v: b / 0, "stopped with ZeroDivisionError"),
        (lambda b, f, v: ..., "no answer"),
    ],
)
def test_a_wrong_number_of_codebooks_gets_its_diagnosis(function, diagnosis):
    verdict = check.codebooks(function)
    assert not verdict.right
    assert diagnosis in verdict.text


def quantise(x, codebooks, subtract="entry", straight="once", order="codes"):
    """A right residual quantiser, and the wrong ones that differ in a word."""
    residual, total, codes, losses = x, torch.zeros_like(x), [], []
    for entries in codebooks:
        codes.append(torch.cdist(residual.detach(), entries.detach()).argmin(1))
        e = entries[codes[-1]] if straight == "attached" else entries[codes[-1]].detach()
        losses.append((residual - e).square().mean())
        q = residual + (e - residual).detach()
        total = total + (q if straight == "each" else e)
        residual = {"entry": residual - e, "q": residual - q, "nothing": residual, "all": (residual - e).detach()}[
            subtract
        ]
    if straight == "once":
        total = x + (total - x).detach()
    return total, torch.stack(codes, dim=1 if order == "frames" else 0), torch.stack(losses).mean()


def with_the_residual_in_no_grad(x, codebooks):
    with torch.no_grad():
        residuals, codes = [x], []
        for entries in codebooks:
            codes.append((entries.square().sum(1) - 2 * residuals[-1] @ entries.T).argmin(1))
            residuals.append(residuals[-1] - entries[codes[-1]])
    taken = [(x - residual).detach() for residual in residuals]
    loss = sum((x - one).square().mean() for one in taken[1:]) / len(codebooks)
    return x - residuals[-1], torch.stack(codes), loss


@pytest.mark.parametrize("function", [quantise, with_the_residual_in_no_grad])
def test_a_residual_quantiser_is_accepted_as_a_loop_and_from_the_sums(function):
    assert check.quantise(function).right, check.quantise(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda x, c: quantise(x, c, subtract="q"), "only the first stage's loss reaches x"),
        (lambda x, c: quantise(x, c, straight="each"), "3 times that of x"),
        (lambda x, c: quantise(x, c, straight="never"), "no gradient passes"),
        (lambda x, c: quantise(x, c, straight="attached"), "gradient to the codebooks"),
        (lambda x, c: quantise(x, c, subtract="nothing"), "a later one is not"),
        (lambda x, c: quantise(x, c, order="frames"), "[n, K]"),
        (lambda x, c: (x, *quantise(x, c)[1:]), "is x: the decoder"),
        (lambda x, c: (*quantise(x, c)[:2], 3 * quantise(x, c)[2]), "the sum over the stages"),
        (lambda x, c: (*quantise(x, c)[:2], quantise(x, c)[2].detach()), "no gradient to x"),
        (lambda x, c: (*quantise(x, c)[:2], torch.tensor(1.0)), "the loss should be"),
        (lambda x, c: quantise(x, c)[0], "three tensors"),
        (lambda x, c: c.missing, "stopped with AttributeError"),
        (lambda x, c: ..., "no answer"),
    ],
)
def test_a_wrong_quantiser_gets_its_diagnosis(function, diagnosis):
    verdict = check.quantise(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def revive(entries, counts, points, limit, generator):
    dead, entries, counts = counts < limit, entries.clone(), counts.clone()
    entries[dead] = points[torch.randint(len(points), (int(dead.sum()),), generator=generator)]
    counts[dead] = 1.0
    return entries, counts


def revive_in_a_loop(entries, counts, points, limit, generator):
    rows = []
    for entry, count in zip(entries, counts, strict=True):
        chosen = torch.randint(len(points), (1,), generator=generator).item()
        rows.append((points[chosen], torch.tensor(1.0)) if count < limit else (entry, count))
    return torch.stack([row for row, _ in rows]), torch.stack([count for _, count in rows])


def in_place(entries, counts, points, limit, generator):
    dead = counts < limit
    entries[dead], counts[dead] = points[torch.randint(len(points), (int(dead.sum()),), generator=generator)], 1.0
    return entries, counts


def filled_with(value):
    def function(entries, counts, points, limit, generator):
        dead = (counts < limit)[:, None]
        return torch.where(dead, value(points), entries), torch.where(dead[:, 0], 1.0, counts)

    return function


@pytest.mark.parametrize("function", [revive, revive_in_a_loop])
def test_dead_entries_are_revived_at_once_or_one_by_one(function):
    assert check.revive(function).right, check.revive(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (in_place, "arguments were changed"),
        (lambda e, c, p, limit, g: (e, c), "no entry has changed"),
        (lambda e, c, p, limit, g: (torch.where((c < limit)[:, None], e, p[:8]), c), "direction of <"),
        (lambda e, c, p, limit, g: revive(e, c, p, limit + 1e-6, g), "equals the limit"),
        (lambda e, c, p, limit, g: revive(e, c, p, 1.5, g), "dead are [1, 3, 5]"),
        (filled_with(lambda p: torch.zeros(2)), "not one of the points"),
        (filled_with(lambda p: p[7]), "the same point"),
        (filled_with(lambda p: torch.cat([p[:1], p[:1], p[:1], p[1:2], p[:1], p[2:3], p[:2]])), "first points"),
        (lambda e, c, p, limit, g: (revive(e, c, p, limit, g)[0], c), "die again"),
        (lambda e, c, p, limit, g: revive(e, c, p, limit, g)[0], "two tensors"),
        (lambda e, c, p, limit, g: e.missing, "stopped with AttributeError"),
        (lambda e, c, p, limit, g: ..., "no answer"),
    ],
)
def test_a_wrong_revival_gets_its_diagnosis(function, diagnosis):
    verdict = check.revive(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


def step(codec, wav, optimizer, generator, straight=True, commits=True, learns_from="residual", backward=True):
    """A right training step, and the broken one of the notebook, which differs in three words."""
    latents = codec.down(wav)
    residual, total, commitment = latents, torch.zeros_like(latents), 0.0
    for stage in codec.stages:
        index = stage.encode(residual.detach())
        entry = stage.decode(index)
        commitment = commitment + ((residual - entry) if commits else (residual - entry).detach()).square().mean()
        stage.update({"residual": residual, "latents": latents}[learns_from].detach(), index, generator)
        residual, total = residual - entry, total + entry
    made = codec.up(latents + (total - latents).detach() if straight else total)
    loss = (wav - made).square().mean() + 0.1 * commitment
    optimizer.zero_grad()
    if backward:
        loss.backward()
        optimizer.step()
    return loss.item()


def step_by_sums(codec, wav, optimizer, generator):
    z = codec.down(wav)
    taken = torch.zeros_like(z)
    for stage in codec.stages:
        rest = (z - taken).detach()
        stage.update(rest, stage.encode(rest), generator)
        taken = taken + stage.decode(stage.encode(rest))
    loss = (wav - codec.up(z + (taken - z).detach())).square().mean() + 0.1 * (z - taken).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("function", [step, step_by_sums])
def test_a_training_step_is_accepted_in_two_forms(function):
    assert check.training_step(function).right, check.training_step(function)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda *a: step(*a, straight=False, commits=False, learns_from="latents"), "the encoder did not learn"),
        (lambda *a: step(*a, straight=False, commits=False), "the encoder did not learn"),
        (lambda *a: step(*a, commits=False), "commitment loss does not reach"),
        (lambda *a: step(*a, learns_from="latents"), "does not learn from what the first"),
        (lambda *a: step(*a, backward=False), "the decoder did not learn"),
        (lambda c, w, o, g: c.missing, "stopped with AttributeError"),
        (..., "no answer"),
    ],
)
def test_a_wrong_training_step_gets_its_diagnosis(function, diagnosis):
    verdict = check.training_step(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
