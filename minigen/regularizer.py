"""Similarity regulariser: clips with similar captions should have similar representations in the language model.

    text states  [B, N, D_text] --pool over words--> [B, D_text] --cosines--> [B, B] --.
                                                                                        (difference)^2, mean of the
    audio states [B, S, D]      --pool over time---> [B, D] -------cosines--> [B, B] --'  B (B - 1) off-diagonal pairs

The text states come from the frozen encoder. The audio states are the language model's last hidden states in a training
step without text (the text of the whole batch was dropped), so that their similarity comes from the audio. Only
similarities are compared, never the vectors themselves, so the two widths need not agree. The loss is added to the
cross-entropy with a weight (`minigen.train.CrossEntropyObjective`).

Source: "Enhance audio generation controllability through representation similarity regularization"
(arXiv 2309.08773).

Symbols: B clips · N words · D_text width of the text encoder · S columns · D width of the language model
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.engine.errors import MinigenError


def similarity_loss(
    text: Tensor,
    audio: Tensor,
    text_mask: Tensor | None = None,
    audio_mask: Tensor | None = None,
    pooling: str = "max",
) -> Tensor:
    """Mean squared difference between the audio similarities and the text similarities of a batch.

    Pools both (`pool`) and compares them (`similarity_loss_pooled`).

    Args:
        text (Tensor): [B, N, D_text] states of the text encoder; no gradient flows to them.
        audio (Tensor): [B, S, D] hidden states of the language model.
        text_mask (Tensor): bool [B, N], True = real; None where nothing is padded. Padding takes no part.
        audio_mask (Tensor): bool [B, S], likewise.
        pooling (str): "max" (the paper's best) or "mean".

    Returns:
        A scalar from 0 (all similarities agree) to 4.

    Raises:
        MinigenError: as `pool` and `similarity_loss_pooled`.
    """
    return similarity_loss_pooled(pool(text, text_mask, pooling), pool(audio, audio_mask, pooling))


def similarity_loss_pooled(text: Tensor, audio: Tensor) -> Tensor:
    """The loss for clips that are already pooled, one row per clip.

        loss = 1 / (B (B - 1)) * sum over i != j of (cos(text_i, text_j) - cos(audio_i, audio_j))^2

    Where a batch is split over micro-batches or processes, most pairs consist of clips from two pieces. So pool each
    piece, concatenate the rows (or gather them in a way that carries gradients, `minigen.engine.distributed`), and call
    this once for the whole batch.

    Args:
        text (Tensor): [B, D_text]; detached here, since the encoder is frozen.
        audio (Tensor): [B, D].

    Returns:
        A scalar.

    Raises:
        MinigenError: fewer than 2 clips, or another number of captions than of clips.
    """
    if len(text) != len(audio):
        raise MinigenError(f"{len(text)} captions for {len(audio)} clips. Give one caption for each clip.")
    if len(audio) < 2:
        raise MinigenError(f"a batch of {len(audio)} has no pairs of clips to compare. Give 2 clips or more.")
    difference = similarity_matrix(text.detach()) - similarity_matrix(audio)  # [B, B]
    own = torch.eye(len(audio), dtype=torch.bool, device=audio.device)  # [B, B]; a clip's similarity to itself is 1
    return difference.masked_fill(own, 0).square().sum() / (len(audio) * (len(audio) - 1))


def similarity_matrix(pooled: Tensor) -> Tensor:
    """Cosine similarity of every row with every row: [B, D] -> [B, B] in [-1, 1].

    Computed in float32 or finer, also inside autocast: the loss squares differences that bfloat16 would round to 0.
    A row of zeros has similarity 0 to all rows.
    """
    with torch.autocast(pooled.device.type, enabled=False):
        rows = F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=-1)  # [B, D], norm 1
        return rows @ rows.T


def pool(states: Tensor, mask: Tensor | None = None, pooling: str = "max") -> Tensor:
    """Reduce a sequence of states to one vector: maximum or mean of each channel over the real positions.

    Args:
        states (Tensor): [B, N, D].
        mask (Tensor): bool [B, N], True = real; None where all are.
        pooling (str): "max" or "mean".

    Returns:
        Tensor [B, D].

    Raises:
        MinigenError: states of other dimensions or without a position, an unknown pooling, a mask of another shape or
            type, or a row without a real position.
    """
    if states.ndim != 3 or states.shape[1] == 0:
        raise MinigenError(f"states are {list(states.shape)}. Give [B, N, D], N above 0: a vector for each position.")
    if pooling not in ("max", "mean"):
        raise MinigenError(f'pooling is {pooling!r}. Choose "max" or "mean".')
    if mask is None:
        return states.amax(dim=1) if pooling == "max" else states.mean(dim=1)
    _check_mask(states, mask)
    padding = ~mask[..., None]  # [B, N, 1]
    if pooling == "max":
        return states.masked_fill(padding, -torch.inf).amax(dim=1)
    kind = torch.promote_types(states.dtype, torch.float32)  # a sum in float16 overflows
    return (states.masked_fill(padding, 0).sum(dim=1, dtype=kind) / mask.sum(dim=1, keepdim=True)).to(states.dtype)


def _check_mask(states: Tensor, mask: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != states.shape[:2]:
        raise MinigenError(
            f"mask is {mask.dtype} {list(mask.shape)} for states {list(states.shape)}. Give bool [B, N], True = real."
        )
    empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise MinigenError(f"rows {empty} of the batch have no real position to pool. Leave them out.")
