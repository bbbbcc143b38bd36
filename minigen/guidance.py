"""Classifier-free guidance: between the language model's logits and the sampler.

The same network has learnt p(audio | text) and, because training drops the text in some steps, p(audio). At every step
of sampling it is run with and without the text, and the difference, which is the effect of the text, is scaled:

    uncond ----------> cond ----------------------------> logits
    scale 0            scale 1                            scale 3

Each of these runs is a branch. Guidance by one text has two branches, guidance by a text and a style has three:

    branches        conditions                   combine
    1               [text] or [nothing]          -
    2               [text, nothing]              guide
    3               [both, style, nothing]       guide_two

All branches of a batch are rows of one batch, and their number is a property of the list: see `Branches`.

Sources: Ho and Salimans (arXiv 2207.12598), AudioGen (arXiv 2209.15352), MusicGen-Style (arXiv 2407.12563).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.settings import GUIDANCE, check_number


def guide(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: move away from what the model would say without the text.

        logits = uncond + scale * (cond - uncond)

    scale 0 ignores the text, 1 is plain conditional sampling, 3 is AudioGen's default.
    cond, uncond: [B, K, V] logits of the same step. Source: AudioGen (arXiv 2209.15352), section 3.2.
    """
    return uncond + scale * (cond - uncond)


def guide_two(both: Tensor, style: Tensor, uncond: Tensor, scale: float, style_scale: float) -> Tensor:
    """Guidance by two conditions, text and a style excerpt, so that neither hides the other.

        logits = uncond + scale * (style + style_scale * (both - style) - uncond)

    The inner step goes from the style alone towards style and text together: style_scale 0 ignores the text, 1 is
    `guide` with both conditions, and larger values strengthen the text against the style. The outer step is `guide`.
    both, style, uncond: [B, K, V] logits of the same step with text and style, with style only, with neither.
    Source: MusicGen-Style (arXiv 2407.12563), double classifier-free guidance; scale is its alpha, style_scale its
    beta (3 and 6 in its examples that mix text and style).
    """
    return guide(guide(both, style, style_scale), uncond, scale)


def rescale_guidance(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """Bring the size of a guided prediction of noise or latents back towards that of the conditional prediction.

        guided · (share · std(cond) / std(guided) + 1 - share)

    Guidance increases the deviation of what it predicts, which makes clips too loud. share 0 changes nothing, 1 gives
    every clip the deviation of its conditional prediction; 0.7 is usual. guided, cond: [B, ...].
    Source: Lin et al. (arXiv 2305.08891), section 3.4, as EzAudio uses it (arXiv 2409.10819).
    """
    deviation, wanted = guided.flatten(1).std(1), cond.flatten(1).std(1)  # [B]
    factor = share * wanted / deviation.clamp(min=1e-9) + 1 - share
    return guided * factor.view(-1, *(1,) * (guided.ndim - 1))


@dataclass(frozen=True, eq=False)
class Condition:
    """States that one branch reads in cross-attention, for a batch of B clips.

    The states may be those of a text, of a style, or of both one after the other along N.

    Attributes:
        memory: [B, N, M]; None: the branch reads nothing, it is unconditional.
        memory_mask: bool [B, N], True = may be read; None: all may.

    Raises:
        MinigenError: a memory without three dimensions, a mask of another type or shape than bool [B, N].
    """

    memory: Tensor | None = None
    memory_mask: Tensor | None = None

    def __post_init__(self):
        memory, mask = self.memory, self.memory_mask
        if memory is None:
            return
        if memory.ndim != 3:
            raise MinigenError(f"memory has shape {list(memory.shape)}. Give [B, N, M].")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != memory.shape[:2]):
            raise MinigenError(
                f"memory_mask is {mask.dtype} {list(mask.shape)}. Give bool {list(memory.shape[:2])}, True = real."
            )

    def padded(self, length: int) -> tuple[Tensor, Tensor]:
        """The memory padded with zeros to [B, length, M], and a mask [B, length] that hides the padding."""
        memory, mask = self.memory, self.memory_mask
        assert memory is not None
        missing = length - memory.shape[1]
        if mask is None:
            mask = memory.new_ones(memory.shape[:2], dtype=torch.bool)  # [B, N]
        return F.pad(memory, (0, 0, 0, missing)), F.pad(mask, (0, missing))


@dataclass(frozen=True, eq=False)
class Branches:
    """Branches of guidance: the conditions under which the model runs at every step, and how the results are combined.

    Attributes:
        conditions: one Condition for each branch. Branches that read nothing come last, so that cross-attention leaves
            out their rows (see AudioLM.start).
        combine: function of the branches' logits in the order of conditions, such as partial(guide, scale=3.0); None
            where there is one branch. It must be linear: decoders apply it to the hidden states, before the heads.

    Raises:
        MinigenError: no condition, a branch with a memory after one without, memories of different batch size or
            width, several branches without a function or a function for one.
    """

    conditions: tuple[Condition, ...]
    combine: Callable[..., Tensor] | None = None

    def __post_init__(self):
        object.__setattr__(self, "conditions", tuple(self.conditions))  # the tuple of a list
        if not self.conditions or (len(self.conditions) > 1) != (self.combine is not None):
            count = len(self.conditions)
            raise MinigenError(f"{count} conditions, combine={self.combine}. Give one, or several and a function.")
        reads = [condition.memory is not None for condition in self.conditions]
        if reads != sorted(reads, reverse=True):
            raise MinigenError("a condition without a memory comes before one with a memory. Put it last.")
        shapes = [list(memory.shape) for memory in self._memories()]
        if len({(batch, width) for batch, _, width in shapes}) > 1:
            raise MinigenError(f"conditions have memories of shapes {shapes}. Give the same B and M to all.")

    @property
    def batch(self) -> int | None:
        """B of the memories; None where no branch reads one."""
        memories = self._memories()
        return len(memories[0]) if memories else None

    def joined(self) -> Condition:
        """The memories of all branches as one batch, [B · branches with a memory, N, M], N that of the longest."""
        texts = self._texts()
        if not texts:
            return Condition()
        if len(texts) == 1:
            return texts[0]
        longest = max(memory.shape[1] for memory in self._memories())
        memories, masks = zip(*(text.padded(longest) for text in texts), strict=True)
        return Condition(torch.cat(memories), torch.cat(masks))

    def _texts(self) -> list[Condition]:
        """The conditions with a memory."""
        return [condition for condition in self.conditions if condition.memory is not None]

    def _memories(self) -> list[Tensor]:
        """The memories of these conditions."""
        return [condition.memory for condition in self.conditions if condition.memory is not None]


def text_branches(text: Condition, scale: float = 3.0) -> Branches:
    """Branches of guidance by one condition: `guide`, with as few branches as the scale needs.

    scale: 0 runs the model without the text only, 1 with the text only, any other value both.

    Raises:
        MinigenError: a scale that is not finite, or larger than 1e6.
    """
    check_number("guidance", scale, GUIDANCE)
    if text.memory is None or scale == 0:
        return Branches((Condition(),))
    if scale == 1:
        return Branches((text,))
    return Branches((text, Condition()), partial(guide, scale=scale))


def style_branches(both: Condition, style: Condition, scale: float = 3.0, style_scale: float = 5.0) -> Branches:
    """Branches of guidance by a text and a style: `guide_two`.

    both: states of text and style. style: states of the style alone, or those of both with the text masked.

    Raises:
        MinigenError: a scale that is not finite, or larger than 1e6.
    """
    check_number("guidance", scale, GUIDANCE)
    check_number("style guidance", style_scale, GUIDANCE)
    return Branches((both, style, Condition()), partial(guide_two, scale=scale, style_scale=style_scale))
