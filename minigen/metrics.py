"""Metrics: numbers that compare sets of sounds, from the embeddings and probabilities of a judge and a tagger.

                                              two sets:       frechet_distance, frechet_infinity, kernel_distance
    wav -> judge  -> embeddings [n, E]  ----> pairs:          clap_score (with the captions), diversity,
                                                              neighbours_in_common, is_nearest (with excerpts)
        -> tagger -> probabilities [n, C] --> clip by clip:   kl_divergence, event_recall, average_precision
                  -> timelines [n, F]  -----> clip by clip:   order_accuracy

The last module of the chain. `bootstrap_interval` gives the uncertainty of a mean. A result needs its interval, and its
controls in the same table: real sound, the codec's reconstruction, noise, silence, shuffled captions.

Inputs are arrays or tensors of any floating type, results are Python floats, and the computation is in float64. A
result depends on the judge: the same clips have other distances under other embeddings.

    n clips, E width of an embedding, C classes of events, F frames of a timeline
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

from minigen.engine.errors import MinigenError


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Fréchet distance of two Gaussians fitted to the embeddings; for audio, the Fréchet audio distance (FAD).

        |mean_r - mean_f|^2 + trace(A + B - 2 (A^1/2 B A^1/2)^1/2)        A, B: covariances of real and fake

    The matrix under the outer root is symmetric, so the trace of its root is the sum of the roots of its eigenvalues.
    No complex number appears, even if n < E and A and B are singular. 0 for identical sets; the unit is that of a
    squared embedding. The estimate is biased: two samples of the same distribution have a distance of about a
    constant / n, which hides small differences unless n is many times E. Compare only equal n, or use
    `frechet_infinity`.

    real: [n, E], fake: [m, E]. Source: Kilgour et al. (arXiv 1812.08466).

    Raises:
        MinigenError: fewer than 2 clips in a set, unequal widths, non-finite values.
    """
    real, fake = _two_sets(real, fake)
    shift = real.mean(axis=0) - fake.mean(axis=0)  # [E]
    a, b = _covariance(real), _covariance(fake)  # [E, E]
    values, vectors = np.linalg.eigh(a)  # [E], [E, E]
    root = (vectors * _roots(values)) @ vectors.T  # A^1/2, [E, E]
    overlap = _roots(np.linalg.eigvalsh(root @ b @ root)).sum()
    return max(0.0, float(shift @ shift + np.trace(a) + np.trace(b) - 2 * overlap))


def frechet_infinity(real: ArrayLike, fake: ArrayLike, seed: int = 0, draws: int = 4) -> float:
    """Fréchet distance extrapolated to infinitely many clips (FAD-infinity), which removes the bias.

        distance(share of the clips) = infinity + slope * (1 / share)

    The same share of both sets is drawn without replacement, `draws` times for each of six shares between one half and
    all. The result is the intercept of the fitted line, at 1 / share = 0. It can be slightly below 0 for equal
    distributions, and it is noisier than the plain distance. Chong and Forsyth subsample only the generated set and
    compare it with a very large real set; here neither set is large, so both are subsampled to remove both biases.

    real: [n, E], fake: [m, E]. Sources: Chong and Forsyth (arXiv 1911.07023); Gui et al. (arXiv 2311.01616).

    Raises:
        MinigenError: fewer than 4 clips in a set, unequal widths, non-finite values.
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

    Its expectation is 0 for two samples of the same distribution at any n, so a single value may be negative. No factor
    is applied (tables of KID often print it times 1000). Memory grows with n * m: 0.2 GB a matrix for 5000 clips each.

    real: [n, E], fake: [m, E]. Source: kernel inception distance, Binkowski et al. (arXiv 1801.01401).

    Raises:
        MinigenError: fewer than 2 clips in a set, unequal widths, non-finite values.
    """
    real, fake = _two_sets(real, fake)
    return float(
        _mean_off_diagonal(_cubic(real, real)) + _mean_off_diagonal(_cubic(fake, fake)) - 2 * _cubic(real, fake).mean()
    )


def kl_divergence(real_probs: ArrayLike, fake_probs: ArrayLike, eps: float = 1e-6) -> float:
    """Mean KL(real || fake) between the class probabilities of a real clip and of the clip generated for its caption.

        sum over classes of p log(p / q), in nats;  p, q = (probabilities + eps) / (their sum)

    Multi-label probabilities do not sum to 1, so each row is normalised first. eps keeps the result finite when a class
    has probability 0, and turns a row of zeros into the uniform distribution. 0 if the rows are equal.

    real_probs, fake_probs: [n, C], row i of both for the same caption. Source: AudioGen (arXiv 2209.15352).

    Raises:
        MinigenError: no pairs, unequal shapes, negative or non-finite values.
    """
    p, q = _pairs(real_probs, fake_probs)
    if p.min() < 0 or q.min() < 0:
        raise MinigenError(f"a probability is {min(p.min(), q.min()):g}. Give values of 0 or more.")
    p, q = ((x + eps) / (x + eps).sum(axis=1, keepdims=True) for x in (p, q))
    return float((p * np.log(p / q)).sum(axis=1).mean())


def clap_score(audio: ArrayLike, text: ArrayLike) -> float:
    """Mean cosine similarity of each clip with its own caption, in [-1, 1].

    audio, text: [n, E] embeddings of one joint model, row i of both for the same caption, of any length above 0.
    Source: CLAP (arXiv 2211.06687).

    Raises:
        MinigenError: no pairs, unequal shapes, non-finite values, a row of zeros.
    """
    audio, text = _pairs(audio, text)
    return float((_unit(audio) * _unit(text)).sum(axis=1).mean())


def diversity(embeddings: ArrayLike) -> float:
    """Mean cosine distance, 1 - cos, over all pairs of different clips: 0 for equal clips, about 1 for unrelated ones.

    embeddings: [n, E].

    Raises:
        MinigenError: fewer than 2 clips, non-finite values, a row of zeros.
    """
    rows = _unit(_matrix(embeddings, at_least=2))
    return float(1 - _mean_off_diagonal(rows @ rows.T))


def neighbours_in_common(excerpts: ArrayLike, outputs: ArrayLike, others: ArrayLike, k: int = 10) -> float:
    """Likeness of outputs to the excerpts that they were made from: share of their k nearest clips that they share.

        mean over i of |nearest(excerpt_i) ∩ nearest(output_i)| / k        nearest: the k clips of `others` by cosine

    In [0, 1]; about k / m for unrelated clips. It asks whether both lie in the same region of sounds, not whether they
    are equal: `is_nearest` asks that.

    excerpts, outputs: [n, E], row i of both belong together. others: [m, E] of real clips, m at least k, without the
    excerpts. Source: MusicGen-Style (arXiv 2407.12563), section 4.

    Raises:
        MinigenError: no pairs, unequal widths, a row of zeros, fewer clips than k, k below 1.
    """
    excerpts, outputs, others = _excerpts(excerpts, outputs, others)
    if not 1 <= k <= len(others):
        raise MinigenError(f"k is {k} for {len(others)} clips. Give at least 1, and at most as many as clips.")
    ours, theirs = (np.argsort(-rows @ others.T, axis=1, kind="stable")[:, :k] for rows in (excerpts, outputs))
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(ours, theirs, strict=True)]))


def is_nearest(excerpts: ArrayLike, outputs: ArrayLike, others: ArrayLike) -> float:
    """Copying: share of the excerpts whose own output is nearer to them, by cosine, than every other clip, in [0, 1].

    0 if the outputs are only of the same kind as the excerpts, 1 if they are copies.

    excerpts, outputs: [n, E], row i of both belong together. others: [m, E] of real clips, without the excerpts.
    Source: MusicGen-Style (arXiv 2407.12563), section 4.

    Raises:
        MinigenError: no pairs, unequal widths, a row of zeros.
    """
    excerpts, outputs, others = _excerpts(excerpts, outputs, others)
    own = (excerpts * outputs).sum(axis=1)  # [n]
    return float((own > (excerpts @ others.T).max(axis=1)).mean())


def event_recall(probs: ArrayLike, true: ArrayLike, threshold: float = 0.5) -> float:
    """Share of the events in the captions that the tagger finds, in [0, 1]. Additional events do not count.

    probs: [n, C] from the tagger. true: bool [n, C], the events in the captions. Found: probability >= threshold.

    Raises:
        MinigenError: no clips, unequal shapes, no event in any caption.
    """
    probs, true = _pairs(probs, true)
    if not true.any():
        raise MinigenError("no event is marked in any clip, so none can be found. Give clips with events.")
    return float((probs >= threshold)[true > 0].mean())


def average_precision(probs: ArrayLike, true: ArrayLike) -> float:
    """Mean average precision of a tagger, over the classes that occur: its quality at all thresholds together.

        precision of a class = mean, over its clips, of the share of its clips among those scored at least as high

    1 if every class ranks its own clips first; for random scores about the share of its clips. Equal scores share a
    rank.
    probs: [n, C]. true: bool [n, C].

    Raises:
        MinigenError: no clips, unequal shapes, no event marked.
    """
    probs, true = _pairs(probs, true)
    classes = [_class_precision(p, t > 0) for p, t in zip(probs.T, true.T, strict=True) if t.any()]
    if not classes:
        raise MinigenError("no event is marked in any clip, so nothing can be ranked. Give clips with events.")
    return float(np.mean(classes))


def order_accuracy(first: ArrayLike, second: ArrayLike) -> float:
    """Share of the clips of captions "A followed by B" in which A comes before B: in [0, 1], 0.5 by chance.

        time of an event = sum of t * weight_t / sum of weight_t, the centre of mass of its timeline

    A constant background moves both centres towards the middle of the clip and does not change their order. A tie, or
    an event without any weight, counts as wrong.

    first, second: [n, F] frame-level probabilities (0 or more) of A and of B in the same clip.

    Raises:
        MinigenError: no clips, unequal shapes, non-finite values.
    """
    first, second = _pairs(first, second)
    heard = (first.sum(axis=1) > 0) & (second.sum(axis=1) > 0)
    return float((heard & (_centre(first) < _centre(second))).mean())


def caution(clips: int, reference: int, width: int) -> str:
    """Warning to print beside results of few clips; "" if there are enough.

    The covariance of n clips has rank n - 1, so with n <= E the Fréchet distance is too high. Below 30 clips the
    bootstrap's intervals are too narrow.

    clips, reference: number of measured clips, and of the clips they are compared with. width: E.
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

    Draw n of the n values with replacement, take the mean, repeat `resamples` times; the interval holds the middle
    `level` of the means. To compare two models on the same captions, give the differences clip by clip, and see whether
    the interval contains 0. The interval is too narrow for a few values, such as three training seeds: print those one
    by one as well.

    values: [n]. Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.

    Raises:
        MinigenError: fewer than 2 values, non-finite values, a level outside (0, 1).
    """
    values = _matrix(np.reshape(_float64(values), (-1, 1)), at_least=2)[:, 0]  # [n]
    if not 0 < level < 1:
        raise MinigenError(f"level is {level}. Give a share between 0 and 1, such as 0.95.")
    rng = np.random.default_rng(seed)
    means = [rng.choice(values, len(values)).mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _covariance(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)  # [n, E]
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
    at_least_as_high = scores[None, :] >= scores[true][:, None]  # [true clips, n]
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
        raise MinigenError(f"shape {list(rows.shape)} is not a set of clips. Give [n, width], one clip a row.")
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


def _excerpts(excerpts: ArrayLike, outputs: ArrayLike, others: ArrayLike) -> tuple[np.ndarray, ...]:
    """Unit rows of excerpts and outputs [n, E] and of other clips [m, E]."""
    excerpts, outputs = _pairs(excerpts, outputs)
    return _unit(excerpts), _unit(outputs), _unit(_two_sets(excerpts, others, at_least=1)[1])


def _pairs(one: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    one, other = _matrix(one), _matrix(other)
    if one.shape != other.shape:
        raise MinigenError(
            f"shapes {list(one.shape)} and {list(other.shape)} are no pairs. Give row i of both one clip."
        )
    return one, other
