"""Checks of notebook 09: which metric sees what, FAD from batches, an interval over clips, a contrastive loss."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from minigen.course.check.verdict import UNANSWERED, Verdict, as_float, close, stopped
from minigen.metrics import frechet_distance

METRICS = ("fad", "kernel", "kl", "clap", "recall", "order", "diversity")
SEEN_BY = {  # fault -> the metrics that show it, and why the others do not
    "replay": ({"clap", "kl", "recall"}, "a metric that compares each clip with its own caption"),
    "repeat": ({"diversity"}, "a metric that compares the clips with each other"),
    "swap": ({"order"}, "a metric of when events happen, not only of whether they do"),
}


def shown_by(answer: object) -> Verdict:
    """Which metric shows which fault. answer: {"replay": metric, "repeat": metric, "swap": metric}."""
    if answer is ... or (isinstance(answer, Mapping) and any(value is ... for value in answer.values())):
        return UNANSWERED
    if not isinstance(answer, Mapping) or set(answer) != set(SEEN_BY):
        return Verdict(False, f"give a dictionary with a metric for each of {', '.join(map(repr, SEEN_BY))}.")
    named = {fault: str(metric).strip().lower() for fault, metric in answer.items()}
    for metric in named.values():
        if metric not in METRICS:
            return Verdict(False, f"{metric} is not on the list. Choose among {', '.join(METRICS)}.")
    for fault, metric in named.items():
        right, hint = SEEN_BY[fault]
        if metric not in right:
            return Verdict(False, f"{fault}: {_why_not(fault, metric)} Take {hint}.")
    return Verdict(
        True, "FAD and kernel compare sets; CLAP, KL and recall see the pairs, order the times, diversity the copies."
    )


def _why_not(fault: str, metric: str) -> str:
    if fault == "replay" and metric in ("fad", "kernel"):
        return f"{metric} compares whole sets, and replayed recordings are a perfect set."
    if fault == "repeat" and metric in ("fad", "kernel"):
        return f"{metric} rises, as it does for every other difference: it does not tell which."
    if fault == "swap" and metric in ("clap", "kl", "recall", "fad", "kernel"):
        return f"{metric} is the same for both orders, or nearly so."
    return f"{metric} does not show it."


Batches = list[np.ndarray]


def streamed(function: Callable[[Batches, Batches], float]) -> Verdict:
    """function(real, fake), lists of batches [n_i, E], must be the Fréchet distance of all clips of each list.

    The batches differ in size and in mean, so that averages over batches come out wrong.
    """
    rng = np.random.default_rng(0)
    real, fake = (
        [rng.normal(shift + step, 1, (n, 3)) for n, step in ((9, 0.0), (4, 1.5), (7, -1.0))] for shift in (0, 2)
    )
    try:
        given = function([x.copy() for x in real], [x.copy() for x in fake])
    except Exception as error:  # a reader's function may raise anything
        return stopped("streamed", error)
    if given is ...:
        return UNANSWERED
    value, right = as_float(given), frechet_distance(np.concatenate(real), np.concatenate(fake))
    if value is None:
        return Verdict(False, f"streamed gives {given!r}, not a number. What is returned?")
    if abs(value - right) < 1e-6 * right:
        return Verdict(True, f"{value:.4f}: n, Σ x and Σ x xᵀ are enough, however many clips come.")
    for name, text in STREAM_MISTAKES.items():
        if abs(value - _distance(real, fake, name)) < 1e-6 * right:
            return Verdict(False, text)
    return Verdict(False, f"{value:.4f}, but the distance of all clips together is {right:.4f}.")


STREAM_MISTAKES = {
    "distances": "this is the mean of the batches' distances. Each of them has few clips and a large bias.",
    "means": "the means of the batches are averaged as if all had the same size. Divide Σ x by the number of clips.",
    "within": "the covariances of the batches are averaged: the differences between the batches' means are missing.",
    "population": "the covariance is divided by n. With n − 1 it is that of the library.",
    "uncentred": "Σ x xᵀ / n is not centred. Subtract n · mean meanᵀ before you divide.",
    "first": "this is the distance of the first batches only.",
}


def _distance(real: Batches, fake: Batches, mistake: str) -> float:
    """Fréchet distance with one of the mistakes above."""
    if mistake == "distances":
        return float(np.mean([frechet_distance(x, y) for x, y in zip(real, fake, strict=True)]))
    if mistake == "first":
        return frechet_distance(real[0], fake[0])
    (m, a), (n, b) = (_moments(batches, mistake) for batches in (real, fake))
    overlap = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return float((m - n) @ (m - n) + np.trace(a) + np.trace(b) - 2 * overlap)


def _moments(batches: Batches, mistake: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean [E] and covariance [E, E] of the clips of some batches, with a mistake."""
    rows = np.concatenate(batches)
    mean, count = rows.mean(axis=0), len(rows)
    if mistake == "means":
        mean = np.mean([x.mean(axis=0) for x in batches], axis=0)
    if mistake == "within":
        return mean, np.mean([np.cov(x.T) for x in batches], axis=0)
    if mistake == "uncentred":
        return mean, rows.T @ rows / count
    centred = rows.T @ rows - count * np.outer(mean, mean)
    return mean, centred / (count if mistake == "population" else count - 1)


def recall_interval(function: Callable) -> Verdict:
    """function(found, asked), events of each clip [n], must give the 95 % interval of recall, resampled over clips."""
    rng = np.random.default_rng(1)
    asked = rng.integers(1, 7, 40)
    found = np.where(rng.random(40) < 0.5, asked, 0)  # all events of a clip, or none: they are not independent
    try:
        given = function(found.copy(), asked.copy())
        if given is ...:
            return UNANSWERED
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        return Verdict(False, f"recall_interval gives {given!r}. Return the two ends, (low, high).")
    except Exception as error:  # a reader's function may raise anything
        return stopped("recall_interval", error)
    return _judge_ends(low, high, found, asked)


def _judge_ends(low: float, high: float, found: np.ndarray, asked: np.ndarray) -> Verdict:
    if low > high:
        return Verdict(False, f"low is {low:.3f} and high {high:.3f}: the ends are exchanged.")
    wanted, near = _clip_ends(found, asked), 0.025
    if abs(low - wanted[0]) < near and abs(high - wanted[1]) < near:
        return Verdict(True, f"{low:.2f} to {high:.2f}: the events of a clip stay together, as they were drawn.")
    events = np.concatenate([np.arange(n) < k for n, k in zip(asked, found, strict=True)]).astype(float)
    single = _clip_ends(events, np.ones(len(events)))
    if abs(low - single[0]) < near and abs(high - single[1]) < near:
        return Verdict(False, f"{low:.2f} to {high:.2f} takes the events of one clip as independent: too narrow. "
                              "Draw clips, and take their events along.")  # fmt: skip
    rates = _clip_ends(found / asked, np.ones(len(asked)))
    if abs(low - rates[0]) < near and abs(high - rates[1]) < near:
        return Verdict(False, "this is the mean of the clips' own recalls. Recall is all found over all asked events.")
    return Verdict(False, f"{low:.3f} to {high:.3f}, but about {wanted[0]:.3f} to {wanted[1]:.3f} is needed.")


def _clip_ends(found: np.ndarray, asked: np.ndarray) -> tuple[float, float]:
    rows = np.random.default_rng(0).integers(len(found), size=(4000, len(found)))  # [resamples, n]
    low, high = np.quantile(found[rows].sum(axis=1) / asked[rows].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def contrastive(function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> Verdict:
    """function(audio [B, E], text [B, E], same bool [B, B], temperature) must be the contrastive loss, a scalar.

    Cosines over the temperature, softmax over each row and over each column, and as target of a row the same share for
    each of its matching entries; the mean of both directions.
    """
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    same = torch.eye(5, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    try:
        given = function(audio.clone(), text.clone(), same.clone(), 0.2)
        if given is ...:
            return UNANSWERED
        value = torch.as_tensor(given)
    except Exception as error:  # a reader's function may raise anything
        return stopped("contrastive", error)
    if value.numel() != 1:
        return Verdict(False, f"the shape is {list(value.shape)}. The loss is one number.")
    if close(value.item(), _contrastive(audio, text, same, 0.2)):
        return Verdict(True, "both directions, and matches are no negatives.")
    for changes, hint in CONTRASTIVE_MISTAKES:
        if close(value.item(), _contrastive(audio, text, same, 0.2, **changes)):
            return Verdict(False, hint)
    return Verdict(
        False, f"{value.item():.4f} for the vectors tried, but {_contrastive(audio, text, same, 0.2):.4f} is needed."
    )


CONTRASTIVE_MISTAKES: tuple[tuple[dict, str], ...] = (
    ({"directions": (0,)}, "one direction only: sounds among captions. Take the mean with the other."),
    ({"directions": (1,)}, "one direction only: captions among sounds. Take the mean with the other."),
    ({"own": True}, "the target is the clip's own caption only. Entries marked in `same` are matches as well."),
    ({"unit": False}, "products of vectors of any length. Normalise both first, so that the products are cosines."),
    ({"power": 1}, "the cosines are multiplied by the temperature. Divide: a small temperature sharpens."),
    ({"power": 0}, "the temperature does nothing. Divide the cosines by it."),
    ({"scale": 2.0}, "the two directions are added. Take their mean."),
    ({"scale": 5.0}, "the clips are added. Take their mean."),
    ({"spread": False}, "the targets of a row with two matches sum to 2. Divide `same` by its row sum."),
)  # fmt: skip


def _contrastive(
    audio: Tensor, text: Tensor, same: Tensor, temperature: float, directions: Iterable[int] = (0, 1),
    own: bool = False, unit: bool = True, power: int = -1, scale: float = 1.0, spread: bool = True,
) -> float:  # fmt: skip
    """The contrastive loss; the named arguments make typical mistakes."""
    if unit:
        audio, text = normalize(audio, dim=-1), normalize(text, dim=-1)
    logits = audio @ text.T * temperature**power  # [B, B]
    match = (torch.eye(len(same)) if own else same).to(logits.dtype)
    losses = []
    for direction in directions:
        scores, target = (logits, match) if direction == 0 else (logits.T, match.T)
        target = target / target.sum(-1, keepdim=True) if spread else target
        losses.append(-(target * scores.log_softmax(-1)).sum(-1).mean())
    return scale * torch.stack(losses).mean().item()
