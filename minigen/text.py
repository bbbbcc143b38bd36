"""The frozen text encoder: captions in, one vector for each token out.

    ["a dog barks", "rain"] --tokenizer--> ids [B, N] --T5 encoder--> states [B, N, D], mask [B, N]

       ▁a ▁dog ▁bark s </s>                mask  1 1 1 1 1        </s> ends every caption, as in T5
       ▁rain </s>                                1 1 0 0 0        0 = padding, whose states are zeros

The language model reads the states through cross-attention; the regularizer pools them. The encoder is never trained
with the language model, so the states of a caption can be computed once and stored.
"mini" is a compact T5 encoder made by `minigen.recipes.text.train`; Flan-T5 and every other T5 load by name or by
folder. The network is `minigen.t5`; the tokenizer is that of the library `tokenizers`.
Sources: T5 (arXiv 1910.10683), Flan-T5 (2210.11416); frozen T5 for sound: AudioGen (2209.15352), MusicGen (2306.05284).
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.files import write_atomically
from minigen.engine.hub import HubModel, find_model
from minigen.engine.settings import MAX_TOKENS
from minigen.engine.weights import read_config
from minigen.t5 import T5Encoder, load_t5

__all__ = ["MAX_TOKENS", "TextEncoder", "load_text_encoder", "load_tokenizer"]

PAD = 0  # the id of <pad> in every T5 vocabulary
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<extra_id_0>"}


class TextEncoder(HubModel):
    """A frozen T5 encoder with its tokenizer: `states, mask = encoder(["a dog barks"])`.

    It is no `nn.Module`, so the optimizer, checkpoints and `.train()` of a model that contains it do not affect it.

    model: its weights are frozen and its dropout is turned off.
    tokenizer: the tokenizer that the model was trained with.
    """

    def __init__(self, model: T5Encoder, tokenizer: Tokenizer):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """D, the width of the states."""
        return self.model.config.d_model

    @property
    def device(self) -> torch.device:
        """Device of the weights and of the states."""
        return self.model.device

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Move the weights to a device; returns itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Encode captions: states [B, N, D] float32 and mask [B, N] bool (True = a token, False = padding).

        N is the length of the longest caption in tokens, `</s>` included. States of padding are set to zero, as in
        MusicGen (`encoder_hidden_states * attention_mask`): T5's own states of padding are not zero, and code without
        the mask would treat them as words.

        Raises:
            MinigenError: no captions, a caption that is empty or not text, or one of more than 256 tokens.
        """
        check_texts(captions)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(captions))]
        self._check_lengths([len(ids) for ids in tokens])
        rows = [torch.tensor(ids) for ids in tokens]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)  # [B, N]
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]  # [B, N]
        ids, mask = ids.to(self.device), mask.to(self.device)
        states = self.model(ids, mask)  # [B, N, D]
        return states.float() * mask.unsqueeze(-1), mask

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder and its tokenizer to a folder that `load_text_encoder` (and `transformers`) reads."""
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "TextEncoder":
        """The same as `load_text_encoder`."""
        return load_text_encoder(name)

    def tokens(self, caption: str) -> list[str]:
        """The tokens of a caption as text, with the closing `</s>`."""
        return self.tokenizer.encode(caption).tokens

    def _check_lengths(self, lengths: list[int]) -> None:
        worst = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[worst] > MAX_TOKENS:
            raise MinigenError(
                f"caption {worst} has {lengths[worst]} tokens; the text encoder reads at most {MAX_TOKENS}. "
                "Shorten it to one or two sentences."
            )


def load_text_encoder(name: str | Path = "mini", dtype: torch.dtype = torch.float32) -> TextEncoder:
    """Load a frozen text encoder.

    Args:
        name: "mini" (shipped), a folder with config.json, model.safetensors and tokenizer.json, or the name of a T5 on
            the Hugging Face hub such as "google/flan-t5-base" (fetched once, then read from the cache).
        dtype: of the weights. The states are float32 in any case.

    Raises:
        MinigenError: no such folder or model, a model that is not a T5, damaged files, or no way to fetch it.
    """
    folder = find_model("text", name, old_names=True)
    kind = read_config(folder).get("model_type")
    if kind != "t5":
        raise MinigenError(f"{folder} holds a {kind!r} model, not a T5. Name a T5 such as google/flan-t5-base.")
    try:
        return TextEncoder(load_t5(folder, dtype), load_tokenizer(folder))
    except Exception as error:  # the loaders raise a dozen unrelated types for a missing, cut or foreign file
        raise MinigenError(
            f"cannot load a text encoder from {folder}: {one_line(error)}. "
            "The folder needs config.json, model.safetensors and tokenizer.json of one T5 model."
        ) from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder: tokenizer.json, or spiece.model (older T5s), which `transformers` converts.

    Raises:
        MinigenError: the folder has neither file.
        Exception: a file is damaged; of the type that the library raises.
    """
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif (folder / "spiece.model").is_file():
        try:
            import google.protobuf  # noqa: F401
            import sentencepiece  # noqa: F401
            from transformers import T5Tokenizer
        except ImportError as error:
            raise MinigenError(f"spiece.model needs two more packages ({error}): sentencepiece, protobuf") from error
        tokenizer = T5Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    else:
        raise MinigenError(f"{folder} has no tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write tokenizer.json, and tokenizer_config.json, which names the special tokens for `transformers`."""
    known = {name: token for name, token in SPECIAL.items() if tokenizer.token_to_id(token) is not None}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_TOKENS, **known}
    write_atomically(Path(folder) / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomically(Path(folder) / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")


def check_texts(captions: list[str]) -> None:
    """Refuse captions that are not text, empty, or not valid Unicode."""
    if not isinstance(captions, list | tuple) or not all(isinstance(caption, str) for caption in captions):
        raise MinigenError(f"captions must be a list of texts, not {captions!r:.60}. Write ['a dog barks'].")
    if not captions:
        raise MinigenError("no captions. Give at least one.")
    for i, caption in enumerate(captions):
        if not caption.strip():
            raise MinigenError(f"caption {i} is empty ({caption!r:.40}). Describe a sound in a few words.")
        if any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise MinigenError(f"caption {i} is not valid Unicode ({caption!r:.40}). Save it as UTF-8.")
