"""Parts of the similarity loss: level and pattern, and the correlation of the model's cosines with the captions'.

    captions --text encoder--> pooled --cosines--> t_ij ─┐
    codes    --language model, no text--> pooled --> s_ij ─┴─> level, pattern, correlation over the pairs i != j

The similarity loss is the mean of (s - t)², hence a sum of two parts. The level, (mean of s - t)², is large if all
cosines are too high. The pattern, the variance of s - t, is large if the wrong pairs are alike. The loss can fall
by the level alone, which says nothing about single clips. The correlation of s with t depends on the pattern alone.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from minigen.corpus.token_cache import TokenSet
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern
from minigen.regularizer import pool, similarity_matrix
from minigen.text import TextEncoder


class SimilarityParts(NamedTuple):
    """level + pattern is the similarity loss; correlation of the cosines: -1 to 1."""

    level: float
    pattern: float
    correlation: float


def compare_cosines(text: Tensor, audio: Tensor) -> SimilarityParts:
    """Parts of two matrices of cosines [B, B], the diagonal left out."""
    pairs = ~torch.eye(len(text), dtype=torch.bool, device=text.device)
    difference = (audio - text)[pairs]
    correlation = torch.corrcoef(torch.stack([text[pairs], audio[pairs]]))[0, 1]
    return SimilarityParts(
        difference.mean().square().item(), difference.var(correction=0).item(), correlation.nan_to_num().item()
    )


@torch.no_grad()
def similarity_parts(
    lm: AudioLM, encoder: TextEncoder, tokens: TokenSet, pooling: str = "max", clips: int = 64
) -> SimilarityParts:
    """Parts of the similarity loss of the first clips of a set, on hidden states without text, as in training."""
    codes, captions = tokens.batch(range(min(clips, len(tokens))))
    device, fill = next(lm.parameters()).device, lm.config.codebook_size
    sequence = DelayPattern(lm.config.delays).apply(codes.to(device), fill)
    hidden = [lm.hidden_states(shift_right(part, fill)).float() for part in sequence.split(16)]
    states, mask = encoder(captions)
    by_text = similarity_matrix(pool(states.to(device), mask.to(device), pooling))
    return compare_cosines(by_text, similarity_matrix(pool(torch.cat(hidden), None, pooling)))
