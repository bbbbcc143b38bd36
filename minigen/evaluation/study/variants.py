"""Variants of the training that the study compares with the usual one, and that nobody else needs.

    usual       a coin for the batch:    text | no text, loss + similarity · regulariser
    per clip    a coin for every clip:   8 of 10 with text, 2 without; the regulariser sees the pairs among those 2
    every step  a coin for the batch:    the regulariser in both cases

A coin for every clip is what dropout usually means. At 0.1 it leaves one or two clips of a batch without text, so that
the regulariser (arXiv 2309.08773) has next to no pairs: the reason why the usual coin is the whole batch's.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from minigen.optim import TrainConfig
from minigen.trainer import Trainer


@dataclass(frozen=True)
class VariantConfig(TrainConfig):
    """The settings of a training, and which variant it is. per_clip: a coin for every clip instead of the batch's.

    every_step: the regulariser in steps with text, too.
    """

    per_clip: bool = False
    every_step: bool = False


class VariantTrainer(Trainer):
    """A `Trainer` whose step follows a `VariantConfig`; with neither variant it is the usual one, bit for bit."""

    config: VariantConfig

    def similarity(self, drop: bool) -> float:
        """As `Trainer.similarity`, or the same in every step."""
        return self.config.similarity if drop or self.config.every_step else 0.0

    def recordable(self) -> bool:
        """As `Trainer.recordable`; two parts of a batch have other sizes in every step."""
        return not self.config.per_clip and super().recordable()

    def losses(self, codes: Tensor, captions: list[str], drop: bool, similarity: float = 0.0) -> tuple[Tensor, Tensor]:
        """As `Trainer.losses`; while it learns, a coin for every clip may decide over its text."""
        if not (self.lm.training and self.config.per_clip):
            return super().losses(codes, captions, drop, similarity)
        coins = np.random.default_rng([self.config.seed, 3, self.step]).random(len(captions))
        return self._apart(codes, captions, coins < self.config.text_dropout)

    def _apart(self, codes: Tensor, captions: list[str], dropped: np.ndarray) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the whole batch from that of its two parts, and the similarity loss of the second one."""
        entropies, alike = [], []
        for without in (False, True):
            rows = np.flatnonzero(dropped == without).tolist()
            if rows:
                weight = self.config.similarity if without and len(rows) > 1 else 0.0
                entropy, loss = super().losses(codes[rows], [captions[row] for row in rows], without, weight)
                entropies.append(len(rows) / len(captions) * entropy)
                alike.append(loss)
        return sum(entropies), sum(alike)
