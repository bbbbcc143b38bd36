"""Metrics: what generated sound is compared by, once a judge has turned clips into numbers.

                                              distance of two sets:  frechet_distance, frechet_infinity, kernel_distance
    wav -> judge  -> embeddings [n, E]  ----> pairs of a set:        clap_score (with the captions), diversity
        -> tagger -> probabilities [n, C] --> clip by clip:          kl_divergence, event_recall, average_precision
                  -> timelines [n, F]  -----> clip by clip:          order_accuracy

    bootstrap_interval says how sure a mean is: a number without it, or without its controls (real sound, the codec's
    reconstruction, noise, silence, shuffled captions) in the same table, says little.

Arrays or tensors of any floating type in, a Python float out, float64 in between. Which judge was asked belongs to the
number: the same clips have other distances under other embeddings.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from minigen.engine.errors import MinigenError


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to the embeddings: FAD, where they come from an audio embedder.

        |mean_r - mean_f|^2 + trace(A + B - 2 (A^1/2 B A^1/2)^1/2)        A, B: covariances of real and fake

    What stands under the last root is symmetric: its trace is the sum of the roots of its eigenvalues, and no complex
    number appears, even where n < E leaves A and B singular. 0 for identical sets, in units of a squared embedding.
    It is biased: two samples of one distribution are apart by about a constant / n, which swamps small differences
    where n is not many times E. Compare only equal n, or use `frechet_infinity`.

    real: [n, E], fake: [m, E]. Source: Kilgour et al. (arXiv 1812.08466).

    Raises:
        MinigenError: fewer than 2 clips in a set, other widths, non-finite values.
    """
    real, fake = _two_sets(real, fake)
    shift = real.mean(axis=0) - fake.mean(axis=0)
    a, b = _covariance(real), _covariance(fake)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * _roots(values)) @ vectors.T
    overlap = _roots(np.linalg.eigvalsh(root @ b @ root)).sum()
    return max(0.0, float(shift @ shift + np.trace(a) + np.trace(b) - 2 * overlap))


def frechet_infinity(real: ArrayLike, fake: ArrayLike, seed: int = 0, draws: int = 4) -> float:
    """The Fréchet distance that infinitely many clips would have, by extrapolation: FAD-infinity.

        distance(share of the clips) = infinity + slope * (1 / share)

    From both sets the same share is drawn without replacement, `draws` times for each of six shares between one half
    and all; the intercept of the fitted line, where 1 / share is 0, is returned. It may fall a little below 0 for sets
    that are alike, and it is noisier than the plain distance. (Chong and Forsyth shrink the generated set only, against
    a very large real one; here neither is large, so both are shrunk and the bias of both goes.)

    real: [n, E], fake: [m, E]. Sources: Chong and Forsyth (arXiv 1911.07023); Gui et al. (arXiv 2311.01616).

    Raises:
        MinigenError: fewer than 4 clips in a set, other widths, non-finite values.
    """
    real, fake = _two_sets(real, fake, at_least=4)
    rng = np.random.default_rng(seed)
    inverse_shares = np.repeat(np.linspace(1, 2, 6), draws)
    distances = [frechet_distance(_draw(real, x, rng), _draw(fake, x, rng)) for x in inverse_shares]
    _, intercept = np.polyfit(inverse_shares, distances, 1)
    return float(intercept)


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Squared maximum mean discrepancy with the cubic kernel k(x, y) = (x . y / E + 1)^3, in its unbiased form.

        mean of k(r_i, r_j) over i != j  +  mean of k(f_i, f_j) over i != j  -  2 * mean of k(r_i, f_j)

    It averages 0 for two samples of one distribution, at any n, so a single value may be negative. No factor is applied
    (tables of KID often print it times 1000). Memory grows with n * m: 0.2 GB a matrix for 5000 clips a side.

    real: [n, E], fake: [m, E]. Source: kernel inception distance, Binkowski et al. (arXiv 1801.01401).

    Raises:
        MinigenError: fewer than 2 clips in a set, other widths, non-finite values.
    """
    real, fake = _two_sets(real, fake)
    return float(
        _mean_off_diagonal(_cubic(real, real)) + _mean_off_diagonal(_cubic(fake, fake)) - 2 * _cubic(real, fake).mean()
    )


def kl_divergence(real_probs: ArrayLike, fake_probs: ArrayLike, eps: float = 1e-6) -> float:
    """Mean over pairs of KL(real || fake) between the classes heard in a real clip and in the one made for its caption.

        sum over classes of p log(p / q), in nats;  p, q = (probabilities + eps) / (their sum)

    Multi-label probabilities do not sum to 1, so each row is made a distribution first; eps keeps a class that one clip
    lacks from costing infinitely much, and turns a row of zeros into the uniform distribution. 0 where the rows agree.

    real_probs, fake_probs: [n, C], row i of both for the same caption. Source: AudioGen (arXiv 2209.15352).

    Raises:
        MinigenError: no pairs, other shapes, negative or non-finite values.
    """
    p, q = _pairs(real_probs, fake_probs)
    if p.min() < 0 or q.min() < 0:
        raise MinigenError(f"a probability is {min(p.min(), q.min()):g}. Give values of 0 or more.")
    p, q = ((x + eps) / (x + eps).sum(axis=1, keepdims=True) for x in (p, q))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def clap_score(audio: ArrayLike, text: ArrayLike) -> float:
    """Mean cosine similarity of each clip with its own caption, in [-1, 1]: does it sound like what was asked for?

    audio, text: [n, E] embeddings of one joint model, row i of both for the same caption; any length but 0.
    Source: CLAP (arXiv 2211.06687).

    Raises:
        MinigenError: no pairs, other shapes, non-finite values, a row of zeros.
    """
    audio, text = _pairs(audio, text)
    return float((_unit(audio) * _unit(text)).sum(axis=1).mean())


def diversity(embeddings: ArrayLike) -> float:
    """Mean cosine distance, 1 - cos, over all pairs of different clips: 0 where all sound the same, about 1 unrelated.

    embeddings: [n, E].

    Raises:
        MinigenError: fewer than 2 clips, non-finite values, a row of zeros.
    """
    rows = _unit(_matrix(embeddings, at_least=2))
    return float(1 - _mean_off_diagonal(rows @ rows.T))


def event_recall(probs: ArrayLike, true: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the events asked for that the tagger finds, in [0, 1]. What was not asked for costs nothing here.

    probs: [n, C] from the tagger. true: bool [n, C], the events in the captions. Found: probability >= threshold.

    Raises:
        MinigenError: no clips, other shapes, no event asked for.
    """
    probs, true = _pairs(probs, true)
    if not true.any():
        raise MinigenError("no event is marked in any clip, so none can be found. Give clips with events.")
    return float((probs >= threshold)[true > 0].mean())


def average_precision(probs: ArrayLike, true: ArrayLike) -> float:
    """Mean average precision: the tagger's own quality, over thresholds, averaged over the classes that occur.

        of a class = mean, over its clips, of the share of true ones among the clips scored at least as high

    1 where every class ranks its clips first; about the share of its clips where it guesses. Equal scores share a rank.
    probs: [n, C]. true: bool [n, C].

    Raises:
        MinigenError: no clips, other shapes, no event marked.
    """
    probs, true = _pairs(probs, true)
    classes = [_class_precision(p, t > 0) for p, t in zip(probs.T, true.T, strict=True) if t.any()]
    if not classes:
        raise MinigenError("no event is marked in any clip, so nothing can be ranked. Give clips with events.")
    return float(np.mean(classes))


def order_accuracy(first: ArrayLike, second: ArrayLike) -> float:
    """Share of the captions "A followed by B" in which A is heard before B: in [0, 1], 0.5 by chance.

        heard at = sum of t * weight_t / sum of weight_t, the centre of mass of the event's timeline

    A constant background draws both centres to the middle of the clip and leaves their order as it is. A tie, or an
    event without any weight, counts as wrong.

    first, second: [n, F] frame-level probabilities (0 or more) of A and of B in the same clip.

    Raises:
        MinigenError: no clips, other shapes, non-finite values.
    """
    first, second = _pairs(first, second)
    heard = (first.sum(axis=1) > 0) & (second.sum(axis=1) > 0)
    return float((heard & (_centre(first) < _centre(second))).mean())


def caution(clips: int, reference: int, width: int) -> str:
    """What has to be said beside the numbers of few clips; "" where there are enough.

    clips, reference: how many were measured, and compared with. width: E, of the embeddings. A covariance of n clips
    has rank n - 1: with n <= E the Fréchet distance compares two flat Gaussians and is too high. Below 30 clips the
    bootstrap's intervals are too narrow.
    """
    said, fewest = [], min(clips, reference)
    if fewest <= width:
        said.append(f"FAD is fitted to {fewest} clips in {width} dimensions, and needs more clips than dimensions: "
                    "it is too high, and comparable only within this table")  # fmt: skip
    if clips < 30:
        said.append(f"{clips} clips are few: the intervals are too narrow, and a difference may be chance")
    return "; ".join(said)


def bootstrap_interval(values: ArrayLike, seed: int, level: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Confidence interval of the mean of `values`: (low, high), by the percentile bootstrap.

    Draw n of the n values with replacement, take the mean, repeat; the middle `level` of the means is the interval. To
    compare two models on the same captions give the differences, clip by clip: the interval either holds 0 or does not.
    It is too narrow for a handful of values, such as three training seeds: print those one by one as well.

    values: [n]. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.

    Raises:
        MinigenError: fewer than 2 values, non-finite values, a level outside (0, 1).
    """
    values = _matrix(np.reshape(_float64(values), (-1, 1)), at_least=2)[:, 0]
    if not 0 < level < 1:
        raise MinigenError(f"level is {level}. Give a share between 0 and 1, such as 0.95.")
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _covariance(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    return centred.T @ centred / (len(rows) - 1)


def _roots(eigenvalues: np.ndarray) -> np.ndarray:
    return np.sqrt(eigenvalues.clip(0))  # a zero eigenvalue may come out as -1e-17


def _draw(rows: np.ndarray, inverse_share: float, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.permutation(len(rows))[: round(len(rows) / inverse_share)]]


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mean_off_diagonal(square: np.ndarray) -> float:
    n = len(square)
    return (square.sum() - np.trace(square)) / (n * (n - 1))


def _class_precision(scores: np.ndarray, true: np.ndarray) -> float:
    at_least_as_high = scores[None, :] >= scores[true][:, None]
    return ((at_least_as_high & true).sum(axis=1) / at_least_as_high.sum(axis=1)).mean()


def _centre(weights: np.ndarray) -> np.ndarray:
    return weights @ np.arange(weights.shape[1]) / weights.sum(axis=1).clip(min=1e-300)


def _unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if lengths.min() == 0:
        raise MinigenError(f"embedding {int(lengths.argmin())} is all zeros and has no direction. Leave it out.")
    return rows / lengths


def _float64(values: ArrayLike) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float64)
    return np.asarray(values, dtype=np.float64)


def _matrix(values: ArrayLike, at_least: int = 1) -> np.ndarray:
    rows = _float64(values)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise MinigenError(f"shape {list(rows.shape)} is no set of clips. Give [n, width], one clip a row.")
    if len(rows) < at_least:
        few = f"shape {list(rows.shape)} holds {len(rows)}, too few: this metric needs at least {at_least} clips"
        raise MinigenError(f"{few}. Measure more.")
    if not np.isfinite(rows).all():
        raise MinigenError(
            f"{int((~np.isfinite(rows)).sum())} of {rows.size} values are not finite. Look at the clips."
        )
    return rows


def _two_sets(real: ArrayLike, fake: ArrayLike, at_least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    real, fake = _matrix(real, at_least), _matrix(fake, at_least)
    if real.shape[1] != fake.shape[1]:
        raise MinigenError(f"embeddings are {real.shape[1]} and {fake.shape[1]} wide. Use one embedder for both sets.")
    return real, fake


def _pairs(one: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    one, other = _matrix(one), _matrix(other)
    if one.shape != other.shape:
        raise MinigenError(
            f"shapes {list(one.shape)} and {list(other.shape)} are no pairs. Give row i of both one clip."
        )
    return one, other
