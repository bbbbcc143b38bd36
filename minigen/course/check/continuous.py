"""Checks of notebook 13: state and target, a DDIM step, a repaired loss, the dynamic threshold."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minigen.course.check.verdict import UNANSWERED, Verdict, call, stopped
from minigen.generators.latent_diffusion import Process, dynamic_threshold

COSINE = Process("cosine")
ROWS, FRAMES, WIDTH = 4, 3, 5


def _noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (ROWS, FRAMES, WIDTH)), generator=torch.Generator().manual_seed(seed))


# state and target

LEVELS = (0.0, 0.2, 0.7, 1.0)  # t of the rows


def target(function: Callable) -> Verdict:
    """function(x0 [B, T, C], noise, t [B]) -> (x_t, v) of the cosine process."""
    x0, noise, t = _noise(0), _noise(1), torch.tensor(LEVELS)
    value, failed = call("noised_and_target(...)", function, x0.clone(), noise.clone(), t.clone())
    if failed:
        return failed
    if value is None or torch.is_tensor(value) or not _is_pair(value):
        return Verdict(False, f"{_kind(value)} comes back. Give two tensors, x_t and v.")
    x, v = value  # type: ignore[misc]
    if x is ... or v is ...:
        return UNANSWERED
    if not (torch.is_tensor(x) and torch.is_tensor(v) and x.shape == v.shape == x0.shape):
        return Verdict(False, f"{_kind(x)} and {_kind(v)} come back. Give x_t and v, each {list(x0.shape)}.")
    right_x, right_v = COSINE.noised(x0, noise, t), COSINE.target(x0, noise, t)
    if _close(x, right_x) and _close(v, right_v):
        return Verdict(True, "x_t = α x_0 + σ ε and v = α ε − σ x_0, with a level for each clip.")
    if _close(x, right_v) and _close(v, right_x):
        return Verdict(False, "both are right, in the wrong order. Give x_t first, then v.")
    for wrong, text in _state_mistakes(x0, noise, t):
        if _close(x, wrong):
            return Verdict(False, f"x_t: {text}")
    if not _close(x, right_x):
        return Verdict(False, "x_t is not α x_0 + σ ε with α = cos(π t / 2) and σ = sin(π t / 2).")
    for wrong, text in _target_mistakes(x0, noise, t):
        if _close(v, wrong):
            return Verdict(False, f"x_t is right. v: {text}")
    return Verdict(False, "x_t is right, v is not α ε − σ x_0.")


def _state_mistakes(x0: Tensor, noise: Tensor, t: Tensor) -> Sequence[tuple[Tensor, str]]:
    alpha, sigma = (share[:, None, None] for share in COSINE.alpha_sigma(t))
    twice, other = (share[:, None, None] for share in ((math.pi * t).cos(), (math.pi * t).sin()))
    return (
        (sigma * x0 + alpha * noise, "α and σ are the wrong way round. At t = 0 the clip is clean."),
        (Process("flow").noised(x0, noise, t), "these are the shares of the flow, 1 − t and t. Take cosine and sine."),
        (twice * x0 + other * noise, "cos(π t) has the wrong period. Take cos(π t / 2)."),
        (alpha**2 * x0 + sigma**2 * noise, "the shares are squared. α² + σ² = 1, but x_t has α and σ."),
        (x0 + sigma * noise, "the clip is not scaled by α."),
        (COSINE.noised(x0, noise, t[0]), "every clip has the level of the first. Each has its own t."),
    )


def _target_mistakes(x0: Tensor, noise: Tensor, t: Tensor) -> Sequence[tuple[Tensor, str]]:
    alpha, sigma = (share[:, None, None] for share in COSINE.alpha_sigma(t))
    return (
        (noise, "this is ε. v is α ε − σ x_0."),
        (x0, "this is x_0. v is α ε − σ x_0."),
        (noise - x0, "this is v of the flow, ε − x_0. Here it is α ε − σ x_0."),
        (sigma * x0 - alpha * noise, "the sign is reversed. v points from the clip to the noise: α ε − σ x_0."),
        (alpha * x0 - sigma * noise, "x_0 and ε are exchanged."),
        (sigma * noise - alpha * x0, "α and σ are exchanged."),
        (alpha * noise + sigma * x0, "the sum is wanted with a minus: α ε − σ x_0."),
    )


# a DDIM step

PAIRS = ((1.0, 0.9), (0.6, 0.5), (0.6, 0.1), (0.05, 0.0))  # t and s


def ddim(function: Callable) -> Verdict:
    """function(x [B, T, C], v, t, s) -> x_s, the DDIM step of the cosine process."""
    given = []
    for t, s in PAIRS:
        x, v = _noise(2), _noise(3)
        for _ in range(2):
            value, failed = call(f"ddim(x, v, {t}, {s})", function, x.clone(), v.clone(), t, s)
            if failed:
                return failed
            if not torch.is_tensor(value) or value.shape != x.shape:
                return Verdict(False, f"{_kind(value)} comes back. Give a tensor of the shape of x.")
            given.append(value)
        if not torch.allclose(given[-1], given[-2], equal_nan=True):
            return Verdict(False, "two calls give two results. A DDIM step draws nothing: it uses the ε of this state.")
    given = given[::2]
    if not all(value.isfinite().all() for value in given):
        return Verdict(False, "at t = 1 the result is not finite: α is 0. Take x_0 = α x − σ v and ε = σ x + α v.")
    if _all_close(given, lambda *case: _ddim(*case)):
        return Verdict(True, "x_0 and ε of this state, mixed again with the shares of s.")
    for wrong, text in STEP_MISTAKES:
        if _all_close(given, wrong):
            return Verdict(False, text)
    t, s = next(case for case, value in zip(PAIRS, given, strict=True) if not _close(value, _case(_ddim, *case)))
    return Verdict(False, f"from t = {t} to s = {s} another state comes out. x_s = α_s x_0 + σ_s ε.")


def _ddim(x: Tensor, v: Tensor, t: float, s: float) -> Tensor:
    return COSINE.noised(COSINE.to_x0(v, x, t), COSINE.to_noise(v, x, t), s)


def _case(step: Callable, t: float, s: float) -> Tensor:
    return step(_noise(2), _noise(3), t, s)


def _all_close(given: Sequence[Tensor], step: Callable) -> bool:
    return all(_close(value, _case(step, *case)) for value, case in zip(given, PAIRS, strict=True))


STEP_MISTAKES: tuple[tuple[Callable[[Tensor, Tensor, float, float], Tensor], str], ...] = (
    (lambda x, v, t, s: x, "the state has not moved. Mix x_0 and ε with the shares of s, not of t."),
    (lambda x, v, t, s: COSINE.to_x0(v, x, t), "this is x_0 itself. Mix it again with ε: α_s x_0 + σ_s ε."),
    (lambda x, v, t, s: x + (s - t) * math.pi / 2 * v, "this is Euler's step. It is nearly the same for small steps."),
    (lambda x, v, t, s: x + (s - t) * v, "this is Euler's step of the flow."),
    (
        lambda x, v, t, s: COSINE.noised(COSINE.to_noise(v, x, t), COSINE.to_x0(v, x, t), s),
        "x_0 and ε are exchanged: α_s goes with x_0.",
    ),
    (
        lambda x, v, t, s: _ddim(x, -v, t, s),
        "the step goes the wrong way. Is a sign of v wrong (x_0 = α x − σ v, ε = σ x + α v), or are t and s exchanged?",
    ),
    (lambda x, v, t, s: COSINE.noised(COSINE.to_x0(v, x, t), v, s), "v is taken for ε. ε = σ x + α v."),
    (lambda x, v, t, s: COSINE.noised(COSINE.to_x0(v, x, t), x, s), "the state is taken for ε. ε = σ x + α v."),
)

# a loss to repair

LOSS_BUGS = {  # in the order of the lines of the loss to repair
    "noise": "all clips of a batch get the same noise (draw it in the shape of x0)",
    "level": "the model is told another level than that of the state (give it the same t)",
    "target": "the target has other noise than the state (use the same noise)",
}


def loss(function: Callable) -> Verdict:
    """function(model, x0 [B, T, C], generator) -> the mean square error of v, with the cosine process.

    model(x, t [B]) predicts v. Names each of the three mistakes that is still in it.
    """
    x0 = 4 * _noise(5, 6, 300, 8)
    seen = _Model(x0)
    try:
        found = [function(seen.answering(how), x0.clone(), torch.Generator().manual_seed(0)) for how in _Model.WAYS]
    except Exception as error:  # a reader's function may raise anything
        return stopped("training_loss", error)
    if any(value is ... for value in found):
        return UNANSWERED
    if not seen.calls:
        return Verdict(False, "the model is never called.")
    if seen.calls != len(found):
        return Verdict(False, "the model is called several times for one loss.")
    try:
        values = dict(zip(_Model.WAYS, (float(value) for value in found), strict=True))
    except (TypeError, ValueError, RuntimeError):
        return Verdict(False, f"{_kind(found[0])} comes back. Give one number: the mean over everything.")
    bugs = {"noise": seen.shared, "level": seen.mistold, "target": values["v"] > 0.01}
    if any(bugs.values()):
        if bugs["target"] and values["noise"] < 0.01:
            return Verdict(False, "the target is ε. This notebook's network predicts v = α ε − σ x_0.")
        if bugs["target"] and values["x0"] < 0.01:
            return Verdict(False, "the target is x_0. This notebook's network predicts v = α ε − σ x_0.")
        left = [text for name, text in LOSS_BUGS.items() if bugs[name]]
        begun = "" if len(left) < len(LOSS_BUGS) else "no answer so far: "
        return Verdict(False, f"{begun}{len(left)} of 3 left: {'; '.join(left)}.")
    if not math.isclose(values["off by 1"], 1, abs_tol=0.01):
        return Verdict(
            False, f"a prediction that is wrong by 1 everywhere costs {values['off by 1']:g}, not 1: the mean."
        )
    return Verdict(True, "noise for each clip, one level for state and model, and the target of the same noise.")


class _Model:
    """A model that works out the noise in the states which it is given, knowing x_0, and answers as it is told."""

    WAYS = ("v", "noise", "x0", "off by 1")

    def __init__(self, x0: Tensor):
        self.x0, self.calls, self.shared, self.mistold = x0, 0, False, False

    def answering(self, how: str) -> Callable[..., Tensor]:
        """Model that predicts v, the noise, x_0, or v + 1."""

        def model(x: Tensor, t: Tensor) -> Tensor:
            self.calls += 1
            alpha = ((x * self.x0).sum((1, 2)) / self.x0.square().sum((1, 2))).clamp(0, 1)  # [B], nearly exact
            told = torch.as_tensor(t, dtype=x.dtype).flatten().expand(len(x))
            true = 1 - alpha.asin() * 2 / math.pi
            self.mistold |= bool((true - told).abs().max() > 0.06)
            level = true if self.mistold else told
            alpha, sigma = (share[:, None, None] for share in COSINE.alpha_sigma(level))
            noise = (x - alpha * self.x0) / sigma.clamp(min=1e-3)
            self.shared |= bool((noise[0] - noise[1:]).square().mean() < 0.5)
            v = alpha * noise - sigma * self.x0
            return {"v": v, "noise": noise, "x0": self.x0, "off by 1": v + 1}[how]

        return model


# the dynamic threshold


def threshold(function: Callable) -> Verdict:
    """function(x0 [B, T, C], limit) must be `dynamic_threshold`: a clip beyond the limit is clamped and scaled."""
    x0, limit = _noise(4, 4, 50, 8) * torch.tensor([0.3, 1.0, 2.0, 6.0])[:, None, None], 2.5
    x0[1, 0, 0] = 9.0  # one number far out in a clip that is in range
    x0[3] -= 3.0  # a clip that is further out below than above
    value, failed = call("dynamic(x0, limit)", function, x0.clone(), limit)
    if failed:
        return failed
    if not torch.is_tensor(value) or value.shape != x0.shape:
        return Verdict(False, f"{_kind(value)} comes back. Give a tensor of the shape of x0.")
    if _close(value, dynamic_threshold(x0, limit)):
        return Verdict(True, "each clip is clamped at its own percentile and scaled to the limit; quiet clips are not.")
    for wrong, text in _threshold_mistakes(x0, limit):
        if _close(value, wrong):
            return Verdict(False, text)
    rows = [n for n in range(len(x0)) if not _close(value[n], dynamic_threshold(x0, limit)[n])]
    return Verdict(False, f"of clips with the deviations 0.3, 1, 2 and 6.7 those of number {rows} come out wrong.")


def _threshold_mistakes(x0: Tensor, limit: float) -> Sequence[tuple[Tensor, str]]:
    size = torch.quantile(x0.flatten(1).abs(), 0.995, dim=1)[:, None, None]  # [B, 1, 1]
    above = size.clamp(min=limit)
    signed = torch.quantile(x0.flatten(1), 0.995, dim=1)[:, None, None].clamp(min=limit)
    every = torch.quantile(x0.flatten().abs(), 0.995).clamp(min=limit)
    largest = x0.abs().amax((1, 2), keepdim=True).clamp(min=limit)
    return (
        (x0.clamp(-limit, limit), "this is the static threshold: everything beyond the limit becomes the limit."),
        (x0.clamp(-size, size) * limit / size, "quiet clips are made louder. The size is at least the limit."),
        (x0.clamp(-above, above), "the clips are clamped at their percentile. Scale them by limit / size, too."),
        (x0 * limit / above, "the clips are scaled. Clamp them at their percentile first."),
        (x0.clamp(-every, every) * limit / every, "one percentile for the whole batch. Each clip has its own."),
        (x0.clamp(-signed, signed) * limit / signed, "the percentile is that of x_0. Take that of |x_0|."),
        (x0 * limit / largest, "the size is the largest |x_0|. Take the 99.5th percentile."),
        (x0.clamp(-above, above) / above, "the result lies in −1 … 1. Multiply by the limit."),
    )


# shared


def _is_pair(value: object) -> bool:
    try:
        return len(value) == 2  # type: ignore[arg-type]
    except TypeError:
        return False


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.float(), b.float(), atol=1e-4, rtol=1e-4)


def _kind(value: object) -> str:
    """Type and shape of a value."""
    return f"{value.dtype} {list(value.shape)}" if torch.is_tensor(value) else f"{type(value).__name__}"
