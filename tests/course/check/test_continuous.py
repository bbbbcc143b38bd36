"""The checks of notebook 13 accept what is right in every form, and say what is wrong with typical wrong answers."""

import math

import pytest
import torch

from minigen.course.check import continuous as check
from minigen.generators.latent_diffusion import LatentSampler, Process, dynamic_threshold, static_threshold

COSINE, FLOW = Process("cosine"), Process("flow")


def shares(t):
    return torch.cos(math.pi / 2 * t)[:, None, None], torch.sin(math.pi / 2 * t)[:, None, None]


# state and target


def noised_and_target(x0, noise, t):
    alpha, sigma = shares(t)
    return alpha * x0 + sigma * noise, alpha * noise - sigma * x0


def by_loop(x0, noise, t):
    x, v = torch.empty_like(x0), torch.empty_like(x0)
    for row, level in enumerate(t.tolist()):
        alpha, sigma = math.cos(math.pi * level / 2), math.sin(math.pi * level / 2)
        x[row], v[row] = alpha * x0[row] + sigma * noise[row], alpha * noise[row] - sigma * x0[row]
    return [x, v]


@pytest.mark.parametrize("function", [
    noised_and_target, by_loop, lambda x0, e, t: (COSINE.noised(x0, e, t), COSINE.target(x0, e, t)),
])  # fmt: skip
def test_state_and_target_are_accepted_however_they_are_made(function):
    assert check.target(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda x0, e, t: noised_and_target(x0, e, t)[::-1], "in the wrong order"),
        (lambda x0, e, t: noised_and_target(x0, e, 1 - t), "α and σ are the wrong way round"),
        (lambda x0, e, t: (FLOW.noised(x0, e, t), FLOW.target(x0, e, t)), "the shares of the flow"),
        (lambda x0, e, t: noised_and_target(x0, e, 2 * t), "cos(π t) has the wrong period"),
        (lambda x0, e, t: noised_and_target(x0, e, t[:1]), "the level of the first"),
        (lambda x0, e, t: (shares(t)[0] ** 2 * x0 + shares(t)[1] ** 2 * e, x0), "are squared"),
        (lambda x0, e, t: (x0 + shares(t)[1] * e, x0), "not scaled by α"),
        (lambda x0, e, t: (x0 * e, x0), "x_t is not α x_0 + σ ε"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], e), "this is ε"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], x0), "this is x_0"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], e - x0), "v of the flow"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], -noised_and_target(x0, e, t)[1]), "sign is reversed"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], noised_and_target(e, x0, t)[1]), "x_0 and ε are exchanged"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], noised_and_target(x0, e, 1 - t)[1]), "α and σ are exchang"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], noised_and_target(-x0, e, t)[1]), "with a minus"),
        (lambda x0, e, t: (noised_and_target(x0, e, t)[0], x0 * e), "x_t is right, v is not"),
        (lambda x0, e, t: noised_and_target(x0, e, t)[0], "Give two tensors"),
        (lambda x0, e, t: None, "NoneType comes back"),
        (lambda x0, e, t: (x0, x0[:1]), "come back. Give x_t and v"),
        (lambda x0, e, t: t * x0, "stopped with RuntimeError"),
        (lambda x0, e, t: (..., ...), "no answer"),
        (lambda x0, e, t: ..., "no answer"),
    ],
)
def test_a_wrong_state_or_target_gets_its_diagnosis(function, diagnosis):
    verdict = check.target(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# a DDIM step


def ddim(x, v, t, s, sign=1):
    (a, b), (c, d) = COSINE.alpha_sigma(t), COSINE.alpha_sigma(s)
    x0, noise = a * x - sign * b * v, b * x + sign * a * v
    return c * x0 + d * noise


def ddim_as_a_turn(x, v, t, s):
    angle = math.pi / 2 * (s - t)
    return math.cos(angle) * x + math.sin(angle) * v


def ddim_of_the_library(x, v, t, s):
    return LatentSampler(threshold="none").step(x, x * math.nan, t, s, v, None)


@pytest.mark.parametrize("function", [ddim, ddim_as_a_turn, ddim_of_the_library])
def test_a_ddim_step_is_accepted_however_it_is_written(function):
    assert check.ddim(function).right, check.ddim(function)


def by_noise(x, v, t, s):
    """Through ε alone, which divides by α."""
    (a, b), (c, d) = COSINE.alpha_sigma(t), COSINE.alpha_sigma(s)
    noise = b * x + a * v
    return c * (x - b * noise) / torch.cos(torch.tensor(math.pi / 2 * t)).where(torch.tensor(t < 1), 0.0) + d * noise


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (by_noise, "not finite"),
        (lambda x, v, t, s: x, "has not moved"),
        (lambda x, v, t, s: ddim(x, v, t, t), "has not moved"),
        (lambda x, v, t, s: COSINE.to_x0(v, x, t), "x_0 itself"),
        (lambda x, v, t, s: x + (s - t) * math.pi / 2 * v, "Euler's step. It is nearly"),
        (lambda x, v, t, s: x + (s - t) * v, "Euler's step of the flow"),
        (lambda x, v, t, s: ddim(x, v, t, s, sign=-1), "goes the wrong way"),
        (lambda x, v, t, s: COSINE.noised(COSINE.to_x0(v, x, t), v, s), "v is taken for ε"),
        (lambda x, v, t, s: COSINE.noised(COSINE.to_x0(v, x, t), x, s), "the state is taken for ε"),
        (lambda x, v, t, s: COSINE.noised(COSINE.to_noise(v, x, t), COSINE.to_x0(v, x, t), s), "exchanged: α_s"),
        (lambda x, v, t, s: ddim(x, v, s, t), "goes the wrong way"),
        (lambda x, v, t, s: COSINE.noised(COSINE.to_x0(v, x, t), torch.randn_like(x), s), "draws nothing"),
        (lambda x, v, t, s: x + v, "another state"),
        (lambda x, v, t, s: x[0], "comes back. Give a tensor"),
        (lambda x, v, t, s: x @ v, "stopped with"),
        (lambda x, v, t, s: ..., "no answer"),
    ],
)
def test_a_wrong_step_gets_its_diagnosis(function, diagnosis):
    verdict = check.ddim(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# a loss to repair


def training_loss(model, x0, generator, noise_bug=False, level_bug=False, target_bug=False, target="v", mean=True):
    def draw(shape):
        return torch.randn(shape, generator=generator)

    noise = draw(x0.shape[1:]) if noise_bug else draw(x0.shape)
    t = torch.rand(len(x0), generator=generator)
    alpha, sigma = shares(t)
    x = alpha * x0 + sigma * noise
    v = alpha * (draw(x0.shape) if target_bug else noise) - sigma * x0
    wanted = {"v": v, "noise": noise, "x0": x0}[target]
    predicted = model(x, torch.rand(len(x0), generator=generator) if level_bug else t)
    error = (predicted - wanted).square()
    return error.mean() if mean else error.sum()


def with_the_library(model, x0, generator):
    """Levels spread evenly, one random number for the batch, as the library's objective draws them."""
    t = (torch.arange(len(x0)) + torch.rand(1, generator=generator)) / len(x0)
    noise = torch.randn(x0.shape, generator=generator)
    return torch.nn.functional.mse_loss(model(COSINE.noised(x0, noise, t), t), COSINE.target(x0, noise, t))


def one_level(model, x0, generator):
    """The same level for the whole batch, which is right but noisier."""
    t = torch.rand(1, generator=generator).expand(len(x0))
    noise = torch.randn(x0.shape, generator=generator)
    return (model(COSINE.noised(x0, noise, t), t) - COSINE.target(x0, noise, t)).square().mean().item()


@pytest.mark.parametrize("function", [training_loss, with_the_library, one_level])
def test_a_loss_is_accepted_however_levels_are_drawn(function):
    assert check.loss(function).right, check.loss(function)


def changed(**part):
    return lambda *given: training_loss(*given, **part)


BUGS = ("noise_bug", "level_bug", "target_bug")


@pytest.mark.parametrize("there", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)][1:])
def test_each_mistake_that_is_left_is_named(there):
    verdict = check.loss(changed(**dict(zip(BUGS, map(bool, there), strict=True))))
    assert not verdict.right and f"{sum(there)} of 3 left" in verdict.text, verdict
    for present, text in zip(there, check.LOSS_BUGS.values(), strict=True):
        assert (text in verdict.text) == bool(present), verdict
    assert ("no answer" in verdict.text) == (sum(there) == 3)


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (changed(target="noise"), "the target is ε"),
        (changed(target="x0"), "the target is x_0"),
        (changed(mean=False), "not 1: the mean"),
        (lambda model, x0, generator: x0.mean(), "never called"),
        (lambda *given: training_loss(*given) + training_loss(*given), "several times"),
        (lambda model, x0, generator: model(x0, torch.rand(len(x0))), "comes back. Give one number"),
        (lambda model, x0, generator: model(x0), "stopped with TypeError"),
        (lambda *given: ..., "no answer"),
    ],
)
def test_a_wrong_loss_gets_its_diagnosis(function, diagnosis):
    verdict = check.loss(function)
    assert not verdict.right and diagnosis in verdict.text, verdict


# the dynamic threshold


def dynamic(x0, limit, quantile=0.995, least=True, of=torch.abs):
    size = torch.quantile(of(x0).flatten(1), quantile, dim=1)[:, None, None]
    size = size.clamp(min=limit) if least else size
    return x0.clamp(-size, size) * limit / size


def dynamic_by_loop(x0, limit):
    rows = []
    for clip in x0:
        size = max(limit, clip.abs().flatten().quantile(0.995).item())
        rows.append(clip.clamp(-size, size) / (size / limit))
    return torch.stack(rows)


@pytest.mark.parametrize("function", [dynamic, dynamic_by_loop, dynamic_threshold])
def test_a_dynamic_threshold_is_accepted_however_it_is_written(function):
    assert check.threshold(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (static_threshold, "the static threshold"),
        (lambda x0, limit: dynamic(x0, limit, least=False), "quiet clips are made louder"),
        (lambda x0, limit: dynamic(x0.flatten(0, 1)[None], limit)[0].view_as(x0), "one percentile for the whole batch"),
        (lambda x0, limit: dynamic(x0, limit, of=lambda x: x), "Take that of |x_0|"),
        (lambda x0, limit: dynamic(x0, limit, quantile=1.0), "Take the 99.5th percentile"),
        (lambda x0, limit: dynamic(x0, limit) / limit, "lies in −1 … 1"),
        (lambda x0, limit: x0, "come out wrong"),
        (lambda x0, limit: x0[:2], "comes back. Give a tensor"),
        (lambda x0, limit: x0 + "a", "stopped with TypeError"),
        (lambda x0, limit: ..., "no answer"),
    ],
)
def test_a_wrong_threshold_gets_its_diagnosis(function, diagnosis):
    verdict = check.threshold(function)
    assert not verdict.right and diagnosis in verdict.text, verdict
