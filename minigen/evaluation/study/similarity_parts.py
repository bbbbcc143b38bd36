"""What the regulariser itself changed: are clips with like captions alike inside the model?

    captions --text encoder--> pooled --cosines--> t_ij ─┐
    codes    --language model, no text--> pooled --> s_ij ─┴─> level, pattern, correlation over the pairs i != j

The similarity loss is a mean square, so it is a sum of two parts: (mean of s - t)², that all cosines together lie too
high, and the variance of s - t, that the wrong pairs are alike. A loss can fall for the first alone, which says nothing
of any clip. The correlation of s with t sees only the second.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from minigen.corpus.token_cache import TokenSet
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern
from minigen.regularizer import pool, similarity_matrix
from minigen.text import TextEncoder


class Likeness(NamedTuple):
    """level + pattern is the similarity loss; correlation: of the cosines, from -1 to 1."""

    level: float
    pattern: float
    correlation: float


def compare_cosines(text: Tensor, audio: Tensor) -> Likeness:
    """Likeness of two matrices of cosines [B, B]; the diagonal is left out."""
    pairs = ~torch.eye(len(text), dtype=torch.bool, device=text.device)
    difference = (audio - text)[pairs]
    correlation = torch.corrcoef(torch.stack([text[pairs], audio[pairs]]))[0, 1]
    return Likeness(
        difference.mean().square().item(), difference.var(correction=0).item(), correlation.nan_to_num().item()
    )


@torch.no_grad()
def likeness(lm: AudioLM, encoder: TextEncoder, tokens: TokenSet, pooling: str = "max", clips: int = 64) -> Likeness:
    """Likeness of the first clips of a set, from the hidden states that the regulariser sees: without any text."""
    codes, captions = tokens.batch(range(min(clips, len(tokens))))
    device, fill = next(lm.parameters()).device, lm.config.codebook_size
    sequence = DelayPattern(lm.config.delays).apply(codes.to(device), fill)
    hidden = [lm.hidden_states(shift_right(part, fill)).float() for part in sequence.split(16)]
    states, mask = encoder(captions)
    by_text = similarity_matrix(pool(states.to(device), mask.to(device), pooling))
    return compare_cosines(by_text, similarity_matrix(pool(torch.cat(hidden), None, pooling)))
