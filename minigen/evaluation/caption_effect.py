"""Does a language model use its captions? The same clips, with their own captions and with other clips'.

    loss of clip i with its own caption, and with the captions of other clips      nats per code
    effect = mean over clips of (own - other)                                      below 0: the right caption helps

Both losses are of one model and one clip, so what makes a clip easy or hard cancels in the difference. That makes
differences of a few hundredths of a nat visible, while the losses of two trainings differ by as much from seed to seed.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.corpus.tokens import TokenSet
from minigen.engine.errors import MinigenError
from minigen.evaluation.bootstrap import Ratio, paired_difference
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern


class CaptionEffect(NamedTuple):
    """Losses in nats per code, means over the clips, and own - other with its 95 % interval (bootstrap over clips)."""

    own: float
    other: float
    mean: float
    low: float
    high: float
    clips: int

    @property
    def helps(self) -> bool:
        """Whether the loss is lower with the right caption, beyond what drawing other clips would change."""
        return self.high < 0

    def __str__(self):
        return (
            f"{self.own:.3f} with own captions, {self.other:.3f} with other clips', difference {self.mean:+.3f} "
            f"(95% interval {self.low:+.3f} to {self.high:+.3f}, {self.clips} clips)"
        )


def caption_effect(lm: AudioLM, encoder, tokens: TokenSet, rounds: int = 4, seed: int = 0) -> CaptionEffect:
    """Measure on every clip of a set.

    Args:
        lm: the model; measured in eval mode.
        encoder: its text encoder.
        tokens: held-out clips.
        rounds: how many other captions each clip is given, one after the other; their losses are averaged.
        seed: of the order in which clips exchange captions, and of the bootstrap.

    Raises:
        MinigenError: fewer than two clips.
    """
    count = len(tokens)
    if count < 2:
        raise MinigenError(f"{count} clip has no other clip to exchange captions with. Give two or more.")
    order = np.random.default_rng(seed).permutation(count)
    own = clip_losses(lm, encoder, tokens, np.arange(count))
    others = []
    for shift in range(1, min(rounds, count - 1) + 1):
        captions = np.empty(count, dtype=int)
        captions[order] = np.roll(order, shift)  # no clip keeps its own
        others.append(clip_losses(lm, encoder, tokens, captions))
    other = torch.stack(others).mean(0)
    ones = np.ones((1, count))
    difference = paired_difference(Ratio(own[None].numpy(), ones), Ratio(other[None].numpy(), ones), seed)
    return CaptionEffect(own.mean().item(), other.mean().item(), *difference[:3], count)


@torch.no_grad()
def clip_losses(lm: AudioLM, encoder, tokens: TokenSet, captions: np.ndarray, batch: int = 16) -> Tensor:
    """Cross-entropy of each clip in nats per code, float64 [n]; clip i is given the caption of clip captions[i]."""
    pattern, fill, device = DelayPattern(lm.config.delays), lm.config.codebook_size, lm.norm.weight.device
    was_training, losses = lm.training, []
    lm.eval()
    for rows in np.array_split(np.arange(len(captions)), -(-len(captions) // batch)):
        codes, _ = tokens.batch(rows)
        memory, mask = encoder([tokens.captions[row] for row in captions[rows]])  # [B, N, D_text], [B, N]
        sequence = pattern.apply(codes.to(device), fill)  # [B, K, S]
        logits = lm(shift_right(sequence, fill), memory.to(device), mask.to(device))  # [B, K, S, V]
        entropy = F.cross_entropy(logits.permute(0, 3, 1, 2), sequence, ignore_index=fill, reduction="none")
        losses.append((entropy.sum((1, 2)).double() / (sequence != fill).sum((1, 2))).cpu())  # [B]
    lm.train(was_training)
    return torch.cat(losses)
