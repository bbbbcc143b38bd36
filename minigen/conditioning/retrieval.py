"""Retrieval: the clips of a token set that are nearest to a caption, as styles for generation.

    token set ─► codec ─► judge ─► embeddings [n, E] of sounds and captions ──┐
    caption ─► judge ─► [E] ──────────────────────────────────────────────────┴─► nearest clips ─► loudest 2 s
                                                                                                       │ style
    sound ◄─────────────────────────── generator with a style conditioner ◄── caption, excerpt ◄───────┘

A model writes what it has heard in training. A kind of sound that it has never heard can still be asked for, if a few
recordings of it lie in a token set: the excerpt shows the model what the caption means. Nothing is trained.

A caption is compared with the captions of the clips, a sound with their sounds. A caption could be compared with the
sounds as well, in the judge's joint space, but there a word that the judge has never read lies near the wrong sounds.
Among captions such a word misleads as well, since the other words decide. So `retrieve_styles` adds a score of shared
words to the cosine, in which rare words count most:

    score(x, c) = cos(x, c) + Σ_{v in x and c} idf(v) / Σ_{v in x} idf(v)        idf(v) = log((n + 1) / n_v)

n_v is the number of the n captions with the word v. Words of x that no caption has are left out of both sums.
Dense search together with words is common practice; idf is Spärck Jones's (1972).

Source: retrieval-augmented text-to-audio generation (Yuan et al., arXiv 2309.08051), which feeds features of the
retrieved clips to cross-attention; here the style conditioner (`minigen.conditioning.style`) makes them.

Symbols: n clips · E width of an embedding · k neighbours · K, T see `minigen.train`.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from minigen.corpus.tokens import TokenSet
from minigen.engine.checkpoint import save_tensors
from minigen.engine.errors import MinigenError, one_line
from minigen.generate import progress_bar

BATCH = 16  # clips that are decoded and embedded at once
EXCERPT = 2.0  # seconds of a style
HOP = 0.1  # seconds between the excerpts that are compared


class Embedder(Protocol):
    """The two members of a judge that retrieval uses (`minigen.evaluation.clap`)."""

    def embed_audio(self, wav: Tensor, sample_rate: int) -> Tensor:
        """Unit vectors [B, E] of sounds [B, 1, samples]."""

    def embed_text(self, captions: list[str]) -> Tensor:
        """Unit vectors [n, E] of captions."""


@dataclass(frozen=True, eq=False)
class ClipMemory:
    """Embeddings of the clips of a token set.

    Attributes:
        sounds: float32 [n, E], unit vectors of the sounds.
        texts: float32 [n, E], unit vectors of the captions.
    """

    sounds: Tensor
    texts: Tensor

    @classmethod
    def build(cls, tokens: TokenSet, codec: nn.Module, judge: Embedder, progress: bool = True) -> "ClipMemory":
        """Decode and embed all clips of a token set."""
        parts = []
        for first in progress_bar(range(0, len(tokens), BATCH), "embedding", progress):
            codes, _ = tokens.batch(range(first, min(first + BATCH, len(tokens))))  # [b, K, T]
            parts.append(judge.embed_audio(codec.decode(codes), codec.sample_rate))
        return cls(torch.cat(parts), judge.embed_text(list(tokens.captions)))

    def save(self, path: str | Path) -> None:
        """Write a safetensors file."""
        save_tensors(path, {"sounds": self.sounds, "texts": self.texts})

    @classmethod
    def load(cls, path: str | Path) -> "ClipMemory":
        """Read what `save` wrote.

        Raises:
            MinigenError: no such file, or one that is no memory of clips.
        """
        try:
            with safe_open(path, "pt") as file:
                return cls(file.get_tensor("sounds"), file.get_tensor("texts"))
        except (OSError, SafetensorError) as error:
            raise MinigenError(f"{path} holds no memory of clips ({one_line(error)}). Build it again.") from error

    def nearest(self, queries: Tensor, k: int = 1, by: str = "texts") -> tuple[Tensor, Tensor]:
        """Rows of the k clips nearest to each query, int64 [B, k], the nearest first, and their cosines [B, k].

        Args:
            queries: unit vectors [B, E] of captions or of sounds.
            k: number of clips.
            by: "texts" compares with the captions of the clips, "sounds" with their sounds.

        Raises:
            MinigenError: k below 1 or above the number of clips, queries of another width.
        """
        if not 1 <= k <= len(self.sounds):
            raise MinigenError(f"k is {k} for a memory of {len(self.sounds)} clips. Give 1 to {len(self.sounds)}.")
        if by not in ("texts", "sounds"):
            raise MinigenError(f'by is {by!r}. Choose "texts" or "sounds".')
        if queries.ndim != 2 or queries.shape[1] != self.sounds.shape[1]:
            raise MinigenError(f"queries are {list(queries.shape)}. Give [B, {self.sounds.shape[1]}].")
        best = (queries @ (self.texts if by == "texts" else self.sounds).T).topk(k, dim=1)
        return best.indices, best.values


def retrieve_styles(
    captions: list[str], memory: ClipMemory, tokens: TokenSet, codec: nn.Module, judge: Embedder, k: int = 1
) -> Tensor:
    """A style for each caption: the loudest 2 s of the clip with the highest score, or the k-th; [B, 1, samples].

    The score is that of the module. `TextToAudio.generate(captions, style=retrieve_styles(...))` takes it.

    Raises:
        MinigenError: a memory of another token set, k below 1 or above the number of clips.
    """
    if len(memory.sounds) != len(tokens):
        raise MinigenError(f"a memory of {len(memory.sounds)} clips for {len(tokens)}. Build it from these tokens.")
    if not 1 <= k <= len(tokens):
        raise MinigenError(f"k is {k} for {len(tokens)} clips. Give 1 to {len(tokens)}.")
    scores = judge.embed_text(captions) @ memory.texts.T + shared_words(captions, tokens.captions)  # [B, n]
    rows = scores.argsort(dim=1, descending=True, stable=True)[:, k - 1]  # [B], the first of equal ones
    codes, _ = tokens.batch(rows.tolist())  # [B, K, T]
    return loudest(codec.decode(codes), codec.sample_rate)


def shared_words(queries: Sequence[str], captions: Sequence[str]) -> Tensor:
    """Share of each query's words that each caption has, rare words weighing more: float32 [B, n] in [0, 1].

    It is the second part of the score of the module.
    """
    words = [set(_words(caption)) for caption in captions]
    counts = Counter(word for each in words for word in each)
    rarity = {word: math.log((len(words) + 1) / count) for word, count in counts.items()}
    rows = []
    for query in queries:
        known = {word: rarity[word] for word in _words(query) if word in rarity}
        total = sum(known.values()) or 1.0
        rows.append([sum(weight for word, weight in known.items() if word in each) / total for each in words])
    return torch.tensor(rows)


def _words(caption: str) -> list[str]:
    return re.findall(r"\w+", caption.lower())


def loudest(wav: Tensor, sample_rate: int, seconds: float = EXCERPT) -> Tensor:
    """The `seconds` of each waveform with the most energy: [B, 1, samples] -> [B, 1, at most seconds]."""
    length, hop = round(seconds * sample_rate), round(HOP * sample_rate)
    if wav.shape[-1] <= length:
        return wav
    windows = wav[:, 0].unfold(-1, length, hop)  # [B, windows, length]
    best = windows.square().sum(-1).argmax(1)  # [B]
    return windows[torch.arange(len(wav)), best][:, None].clone()
