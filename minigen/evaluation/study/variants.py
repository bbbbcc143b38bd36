"""Variants of the training objective that only the studies compare with the usual one.

    usual         one coin for the batch:     all clips with text | all without, loss + similarity · regulariser
    per clip      one coin for every clip:    14 of 16 clips with text, 2 without; the regulariser sees those 2
    every step    one coin for the batch:     the regulariser in steps with text, too
    centred       as usual, the regulariser compares pooled vectors less their mean over the batch, on both sides
    alike texts   as usual, the regulariser sees texts that are more alike: cosine t becomes s + (1 - s) t

A coin for every clip is what dropout usually means. At a probability of 0.1 it leaves one or two clips of a batch
without text, so the regulariser (arXiv 2309.08773) has almost no pairs. This is why the usual objective drops the text
of the whole batch.

The similarity loss is a level (all cosines of the sounds are too high alike) plus a pattern (which clips are alike),
see `minigen.evaluation.study.similarity_parts`. Centring takes the common part of all vectors away before the cosines
are taken, so that only the pattern is left to learn. Alike texts are the regime of the paper: the pooled states of an
official T5 have high cosines for any two captions, those of the built-in encoder have not. There the levels agree from
the start, so that the loss is the pattern too, though a smaller one.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.engine.settings import Range, TrainConfig, setting
from minigen.lm import AudioLM, AudioLMConfig
from minigen.text import TextEncoder
from minigen.train import CrossEntropyObjective


@dataclass(frozen=True)
class VariantConfig(TrainConfig):
    """Settings of a training and its variant.

    per_clip: drop the text of every clip with its own coin. every_step: use the regulariser in steps with text, too.
    centred: the regulariser compares vectors less their mean. text_shift: s of the texts that it compares with.
    """

    per_clip: bool = setting(False, (False, True))
    every_step: bool = setting(False, (False, True))
    centred: bool = setting(False, (False, True))
    text_shift: float = setting(0.0, Range(float, 0, 0.99))


def objective_of(sizes: AudioLMConfig, encoder: TextEncoder, config: VariantConfig) -> CrossEntropyObjective:
    """The objective that a config names; the usual one where neither variant is chosen."""
    if config.per_clip:
        return PerClipObjective(sizes, encoder, config)
    if config.every_step:
        return EveryStepObjective(sizes, encoder, config)
    if config.centred:
        return CentredObjective(sizes, encoder, config)
    if config.text_shift:
        return AlikeTextsObjective(sizes, encoder, config)
    return CrossEntropyObjective(sizes, encoder, config)


class EveryStepObjective(CrossEntropyObjective):
    """The usual objective, with the regulariser in steps with text, too."""

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """As `Objective.batch`; in training, the pooled text is in every batch."""
        if drop is not None:
            return super().batch(codes, captions, rng, drop)
        return self.tensors(codes, captions, rng.random() < self.config.text_dropout, self.config.similarity > 0)


class CentredObjective(CrossEntropyObjective):
    """The usual objective, with the mean over the batch taken from the vectors that the regulariser compares."""

    def alike(self, text: Tensor, audio: Tensor) -> Tensor:
        """Similarity loss of centred vectors: text [B, D_text], audio [B, D]."""
        return super().alike(text - text.mean(0), audio - audio.mean(0))


class AlikeTextsObjective(CrossEntropyObjective):
    """The usual objective, with more similar texts for the regulariser."""

    def alike(self, text: Tensor, audio: Tensor) -> Tensor:
        """Similarity loss with the cosines s + (1 - s) t of the texts: text [B, D_text], audio [B, D]."""
        return super().alike(shift_cosines(text, self.config.text_shift), audio)


def shift_cosines(rows: Tensor, shift: float) -> Tensor:
    """Vectors [B, D + 1] whose cosines are shift + (1 - shift) t, where t are those of the rows [B, D].

    Each row of norm 1 gets one more component, the same for all: sqrt(shift / (1 - shift)).
    """
    common = rows.new_full((len(rows), 1), (shift / (1 - shift)) ** 0.5)
    return torch.cat([F.normalize(rows, dim=1), common], dim=1)


class PerClipObjective(CrossEntropyObjective):
    """The usual objective, with a coin for every clip. The regulariser compares the clips of a batch without text.

    A batch holds two groups of clips: "sequence", "memory" and "mask" of those with text, "sequence_no_text" and, for
    the regulariser, "pooled_no_text" of those without. For training in a single process.
    """

    same_shapes = False  # the two groups have other sizes in every step

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """As `Objective.batch`, with one coin for every clip."""
        if drop is not None:
            return super().batch(codes, captions, rng, drop)
        seed, _, step = rng.bit_generator.seed_seq.entropy  # a stream of its own, as in the published runs
        dropped = np.random.default_rng([seed, 3, step]).random(len(captions)) < self.config.text_dropout
        batch = {}
        for drop in (False, True):
            rows = np.flatnonzero(dropped == drop).tolist()
            if not rows:
                continue
            regularise = drop and self.config.similarity > 0 and len(rows) > 1  # one clip has no pairs
            part = self.tensors(codes[rows], [captions[row] for row in rows], drop, regularise)
            batch |= {f"{name}_no_text" if drop else name: value for name, value in part.items()}
        return batch

    def loss(self, model: AudioLM, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy of both groups of clips, plus `similarity` · similarity loss of those without text."""
        clips = sum(len(value) for name, value in batch.items() if name.startswith("sequence"))
        entropy, parts = 0, {}
        for ending in ("", "_no_text"):
            names = [name for name in ("sequence", "memory", "mask", "pooled") if name + ending in batch]
            group = {name: batch[name + ending] for name in names}
            if group:
                _, found = super().loss(model, **group)
                entropy = entropy + len(group["sequence"]) / clips * found["loss"]
                parts |= found
        parts["loss"] = entropy
        weighted = self.config.similarity * parts["similarity"] if "similarity" in parts else 0
        return entropy + weighted, parts
