"""Linear probe: a detector of one kind of sound, trained on the judge's embeddings of some examples.

    wav ─► judge ─► embedding e [E] ─► probability = sigmoid(w · e + b)

It measures a kind of sound that the tagger does not know. The judge stays as it is; only w and b are fitted, by
minimising the logistic loss with a penalty on w:

    mean over both classes of log(1 + exp(-y (w · e + b))) + λ/2 |w|²        y = 1 or -1, both classes weigh the same

The loss is convex, so Newton's method finds its minimum in a few steps, from any start.
Source: Alain and Bengio, linear classifier probes (arXiv 1610.01644).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from minigen.engine.errors import MinigenError

STEPS = 50  # at the most; Newton's method needs about ten


@dataclass(frozen=True, eq=False)
class Probe:
    """A detector of one kind of sound.

    Attributes:
        weights: float64 [E].
        bias: float.
    """

    weights: np.ndarray
    bias: float

    def probabilities(self, embeddings: ArrayLike) -> np.ndarray:
        """Probability of the kind for each of embeddings [n, E]: float64 [n]."""
        return 1 / (1 + np.exp(-(np.asarray(embeddings, np.float64) @ self.weights + self.bias)))


def train_probe(positive: ArrayLike, negative: ArrayLike, penalty: float = 1e-3) -> Probe:
    """Fit a probe.

    Args:
        positive: [n, E] embeddings of the kind.
        negative: [m, E] of other sounds.
        penalty: λ, above 0.

    Raises:
        MinigenError: no examples of a class, unequal widths, non-finite values, a penalty of 0 or less.
    """
    classes = [np.asarray(rows, np.float64) for rows in (positive, negative)]
    if any(rows.ndim != 2 or not len(rows) for rows in classes) or classes[0].shape[1] != classes[1].shape[1]:
        raise MinigenError(f"examples are {[list(rows.shape) for rows in classes]}. Give [n, E] and [m, E].")
    if not all(np.isfinite(rows).all() for rows in classes) or not penalty > 0:
        raise MinigenError(f"examples must be finite and the penalty above 0; the penalty is {penalty}.")
    x = np.concatenate(classes)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # [n + m, E + 1]: the last column is for the bias
    y = np.repeat([1.0, -1.0], [len(rows) for rows in classes])
    share = np.repeat([0.5 / len(rows) for rows in classes], [len(rows) for rows in classes])  # both classes 1/2
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-9  # the bias is not penalised
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        step = _newton_step(x, y, share, ridge, weights)
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    return Probe(weights[:-1], float(weights[-1]))


def _newton_step(x: np.ndarray, y: np.ndarray, share: np.ndarray, ridge: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Inverse Hessian times gradient of the loss, halved until the loss falls."""
    wrong = 1 / (1 + np.exp(y * (x @ weights)))  # [n + m], probability of the wrong class
    gradient = ridge * weights - x.T @ (share * y * wrong)
    hessian = np.diag(ridge) + (x * (share * wrong * (1 - wrong))[:, None]).T @ x
    step = np.linalg.solve(hessian, gradient)
    before = _loss(x, y, share, ridge, weights)
    while _loss(x, y, share, ridge, weights - step) > before + 1e-12:
        step = step / 2
    return step


def _loss(x: np.ndarray, y: np.ndarray, share: np.ndarray, ridge: np.ndarray, weights: np.ndarray) -> float:
    return float(share @ np.logaddexp(0, -y * (x @ weights)) + ridge @ weights**2 / 2)
