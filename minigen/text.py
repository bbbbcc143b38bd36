"""The frozen text encoder: captions in, one vector for each token out.

    ["a dog barks", "rain"] --tokenizer--> ids [B, N] --T5 encoder--> states [B, N, D], mask [B, N]

       ▁a ▁dog ▁bark s </s>                mask  1 1 1 1 1        </s> ends every caption, as in T5
       ▁rain </s>                                1 1 0 0 0        0 = padding, whose states are zeros

The language model reads the states through cross-attention; the regularizer pools them. The encoder is never trained
with the language model: it brings what it learned from text alone, and captions can be encoded once and kept.
"mini" is a compact T5 encoder made by `minigen.recipes.text.train`; Flan-T5 and every other T5 load by name or by
folder, through the same two `transformers` classes.
Sources: T5 (arXiv 1910.10683), Flan-T5 (2210.11416); frozen T5 for sound: AudioGen (2209.15352), MusicGen (2306.05284).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.hub import HubModel, find_model
from minigen.engine.settings import MAX_TOKENS
from minigen.engine.weights import load_official, no_loading_bar, read_config

if TYPE_CHECKING:  # transformers takes two seconds to import, so it is imported where an encoder is loaded
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

__all__ = ["MAX_TOKENS", "TextEncoder", "load_text_encoder", "no_loading_bar"]


class TextEncoder(HubModel):
    """A frozen T5 encoder with its tokenizer: `states, mask = encoder(["a dog barks"])`.

    Not an `nn.Module`, so that no optimizer, checkpoint or `.train()` of a model that holds it can reach its weights.

    model: a `transformers.T5EncoderModel`; its weights are frozen and its dropout is off from here on.
    tokenizer: the tokenizer it was trained with.
    """

    def __init__(self, model: T5EncoderModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """D, the width of the states."""
        return self.model.config.d_model

    @property
    def device(self) -> torch.device:
        """Where the weights lie, and where the states come out."""
        return self.model.device

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the weights to a device; returns itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Encode captions: states [B, N, D] float32 and mask [B, N] bool (True = a token, False = padding).

        N is the length of the longest caption in tokens, `</s>` included. States of padding are zeros, as in MusicGen
        (`encoder_hidden_states * attention_mask`): T5 computes something there too, and a reader that forgets the mask
        should find nothing rather than words that nobody wrote.

        Raises:
            MinigenError: no captions, a caption that is empty or not text, or one of more than 256 tokens.
        """
        _check(captions)
        batch = self.tokenizer(list(captions), padding=True, return_tensors="pt", verbose=False)
        mask = batch["attention_mask"].bool()
        self._check_lengths(mask.sum(1).tolist())
        mask = mask.to(self.device)
        states = self.model(input_ids=batch["input_ids"].to(self.device), attention_mask=mask).last_hidden_state
        return states.float() * mask.unsqueeze(-1), mask

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder and its tokenizer to a folder that `load_text_encoder` (and `transformers`) reads."""
        with no_loading_bar():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> TextEncoder:
        """The same as `load_text_encoder`."""
        return load_text_encoder(name)

    def tokens(self, caption: str) -> list[str]:
        """The pieces a caption is cut into, with the closing `</s>`."""
        return self.tokenizer.convert_ids_to_tokens(self.tokenizer(caption)["input_ids"])

    def _check_lengths(self, lengths: list[int]) -> None:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[worst] > MAX_TOKENS:
            raise MinigenError(
                f"caption {worst} has {lengths[worst]} tokens; the text encoder reads at most {MAX_TOKENS}. "
                "Shorten it to one or two sentences."
            )


def load_text_encoder(name: str | Path = "mini", dtype: torch.dtype = torch.float32) -> TextEncoder:
    """Load a frozen text encoder, its weights in `dtype`; what it says is float32 in any case.

    name: "mini" (shipped), a folder with config.json, model.safetensors and tokenizer.json, or the name of a T5 on the
        Hugging Face hub such as "google/flan-t5-base" (fetched once, then read from the cache).

    Raises:
        MinigenError: no such folder or model, a model that is not a T5, damaged files, or no way to fetch it.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    folder = find_model("text", name, old_names=True)
    kind = read_config(folder).get("model_type")
    if kind != "t5":
        raise MinigenError(f"{folder} holds a {kind!r} model, not a T5. Name a T5 such as google/flan-t5-base.")
    try:
        model = load_official(T5EncoderModel, folder, dtype)
        return TextEncoder(model, AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # the loaders raise a dozen unrelated types for a missing, cut or foreign file
        raise MinigenError(
            f"cannot load a text encoder from {folder}: {one_line(error)}. "
            "The folder needs config.json, model.safetensors and tokenizer.json of one T5 model."
        ) from error


def _check(captions: list[str]) -> None:
    """Refuse what would come out as states that mean nothing."""
    if not isinstance(captions, list | tuple) or not all(isinstance(caption, str) for caption in captions):
        raise MinigenError(f"captions must be a list of texts, not {captions!r:.60}. Write ['a dog barks'].")
    if not captions:
        raise MinigenError("no captions. Give at least one.")
    for i, caption in enumerate(captions):
        if not caption.strip():
            raise MinigenError(f"caption {i} is empty ({caption!r:.40}). Describe a sound in a few words.")
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise MinigenError(f"caption {i} is not valid Unicode ({caption!r:.40}). Save it as UTF-8.")
