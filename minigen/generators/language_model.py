"""The language model as a generator of the pipeline: codes one column after another.

Condition ─► generate_codes (`minigen.generate`): AudioLM, guidance, sampling ─► codes [B, K, T]
"""

from pathlib import Path

import torch
from torch import Tensor

from minigen.generate import generate_codes
from minigen.guidance import Condition
from minigen.lm import AudioLM


class LanguageModelGenerator:
    """An `AudioLM` with the members of `minigen.generators.base.Generator`."""

    name = "language_model"

    def __init__(self, lm: AudioLM):
        self.lm, self.config = lm, lm.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.lm.norm.weight.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "LanguageModelGenerator":
        """Load the language model, see `AudioLM.from_pretrained`."""
        return cls(AudioLM.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Save the language model, see `AudioLM.save_pretrained`."""
        self.lm.save_pretrained(folder, dtype)

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
    ) -> Tensor:
        """Codes int64 [B, K, frames]; the options are those of `generate_codes`."""
        return generate_codes(
            self.lm, text.memory, text.memory_mask, frames, guidance, temperature, top_k, top_p, prompt, generator,
            progress,
        )  # fmt: skip
