"""The language model with a style conditioner as a generator of the pipeline.

    text ─► Condition ─────────────┐ join, style_branches
    style codes ─► conditioner ────┴─► [both, style, nothing] ─► generate_guided, combined by guide_two ─► codes

Source: MusicGen-Style (arXiv 2407.12563), double classifier-free guidance.
"""

from pathlib import Path

import torch
from torch import Tensor

from minigen.conditioning.styled_lm import LONGEST, StyledLM, join
from minigen.engine.errors import MinigenError
from minigen.generate import generate_guided
from minigen.guidance import Branches, Condition, style_branches, text_branches
from minigen.lm import AudioLM


class StyleGenerator:
    """A `StyledLM` with the members of `minigen.generators.base.Generator`."""

    name = "style"

    def __init__(self, model: StyledLM):
        self.model, self.config = model, model.config

    @property
    def lm(self) -> AudioLM:
        """The language model."""
        return self.model.lm

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.lm.norm.weight.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "StyleGenerator":
        """Load the language model and its conditioner, see `StyledLM.from_pretrained`."""
        return cls(StyledLM.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Save both, see `StyledLM.save_pretrained`."""
        self.model.save_pretrained(folder, dtype)

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: float = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        temperature: float = 1.0,
        top_k: int = 250,
        top_p: float = 0.0,
        prompt: Tensor | None = None,
        style: Tensor | None = None,
        codebooks: int = 3,
        style_guidance: float = 5.0,
    ) -> Tensor:
        """Codes int64 [B, K, frames], under a text, a style, or both. The other options are those of `generate_codes`.

        Args:
            text: states of B captions; without a memory: no captions.
            frames: length of the clips.
            guidance: alpha in `guide_two`: strength of text and style together.
            generator: source of randomness.
            progress: whether to show a bar on stderr.
            temperature: see `minigen.generate.sample`.
            top_k: see `minigen.generate.sample`.
            top_p: see `minigen.generate.sample`.
            prompt: codes to continue.
            style: codes [B, K, F] or [1, K, F] of an excerpt. Of more than 100 frames (2 s), the first 100 are read.
            codebooks: q, 1 to 6: how much of the excerpt passes.
            style_guidance: beta in `guide_two`: above 1 it strengthens the text against the style, 0 ignores the text.

        Raises:
            MinigenError: neither text nor style, numbers of texts and excerpts that differ, options out of range.
        """
        branches, batch = self.branches(text, style, guidance, codebooks, style_guidance)
        return generate_guided(self.lm, branches, batch, frames, temperature, top_k, top_p, prompt, generator, progress)

    @torch.no_grad()
    def branches(
        self, text: Condition, style: Tensor | None, guidance: float, codebooks: int, style_guidance: float
    ) -> tuple[Branches, int]:
        """Branches of guidance and the batch size B. Arguments as in `generate`."""
        if style is None and text.memory is None:
            raise MinigenError("neither a caption nor a style. Give one of them, or both.")
        if style is None:
            return text_branches(text, guidance), len(text.memory)
        batch = len(style) if text.memory is None else len(text.memory)
        if len(style) not in (1, batch):
            raise MinigenError(f"{len(style)} styles for {batch} captions. Give one style, or one for each caption.")
        tokens = self.model.style(style[..., :LONGEST], codebooks).expand(batch, -1, -1)  # [B, M, W]
        if text.memory is None:
            return text_branches(Condition(tokens), guidance), batch
        return style_branches(join(text, tokens), Condition(tokens), guidance, style_guidance), batch
