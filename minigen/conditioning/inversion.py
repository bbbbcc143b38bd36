"""Textual inversion: a new word that stands for the sound of one recording and can be used in any caption.

    clip ─► codec ─► codes [n, K, T] ──────────────────────────────┐ cross-entropy under the frozen language model
    "<x>" ─► n vectors ─► frozen T5 ─► states [1, N, D] ─► AudioLM ─┘        gradient reaches the n vectors only

Nothing else changes: neither the text encoder nor the language model. Two spaces:

    "word"     the vectors are token embeddings, so they pass T5 and mix with the other words: "<x> while rain falls"
    "memory"   the vectors are states after T5, appended to those of the rest of the caption

The vectors begin as those of a caption that fits the clip. `minigen learn-word` takes the one that the judge finds
closest (`closest_caption`). `invert`, which has no judge, takes the one under which the clip is likeliest
(`likeliest_caption`); for a real recording that is often a caption of another kind. Gradient descent moves the vectors.
A quarter of the frames is held out, and it stops when the loss on them no longer falls. A penalty keeps the vectors
near their beginning.

    loss = CE(codes | caption with the word) + PULL · mean (v - v_0)² / mean v_0²
    kept = v_0 + (v - v_0) / w                                                       w = 3, the usual guidance

Sampling with guidance w multiplies the effect of the memory by w, and with it the effect of the step from v_0 to v. The
whole step overshoots then: clips become less like the recording than those of the plain caption. A w-th of it is kept.

What it reaches with "mini" on real recordings stands in data/tuning/card.md (`minigen.recipes.tuning.words`).

Sources: textual inversion (Gal et al., arXiv 2208.01618); for music, MusicGen-Style (arXiv 2407.12563), section 3.

Symbols: n vectors of a word, or clips · K, T, S see `minigen.train` · N tokens · D width of the text encoder.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.conditioning.retrieval import Embedder
from minigen.corpus.synthesis.captions import PHRASES
from minigen.engine.checkpoint import save_tensors
from minigen.engine.errors import MinigenError, one_line
from minigen.generate import progress_bar
from minigen.lm import AudioLM, shift_right
from minigen.loss import heads_cross_entropy
from minigen.patterns import DelayPattern
from minigen.text import TextEncoder, check_texts

SPACES = ("word", "memory")
STEPS = 60  # at the most
EVERY, PATIENCE = 5, 4  # steps between two measurements on the held-out frames, and measurements without progress
ENDINGS = ("", " nearby", " in the distance", " loudly", " softly", " once", " twice", " three times", " several times")
BLOCK, HELD_OUT = 10, 0.25  # frames of a block, and the share of the blocks that is not trained on
RATE = 0.01  # of Adam, relative to the size of the vectors
PULL = 0.3  # weight of the penalty
GUIDANCE = 3.0  # w, with which clips are usually sampled


@dataclass(frozen=True, eq=False)
class LearntWord:
    """A word and its vectors.

    Attributes:
        word: as it stands in captions, in angle brackets.
        vectors: float32 [n, D].
        space: "word" or "memory".
        like: the plain caption that the vectors began as.
        models: digest of the text encoder and the language model that it was learnt with.
        loss: cross-entropy of the held-out frames, at the beginning and of the kept vectors.
    """

    word: str
    vectors: Tensor
    space: str
    like: str
    models: str
    loss: tuple[float, float]

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; an interrupted save leaves no part of it."""
        header = {"word": self.word, "space": self.space, "like": self.like, "models": self.models,
                  "loss": " ".join(map(repr, self.loss))}  # fmt: skip
        save_tensors(path, {"vectors": self.vectors}, header)

    @classmethod
    def load(cls, path: str | Path) -> "LearntWord":
        """Read what `save` wrote.

        Raises:
            MinigenError: no such file, or one that is not a learnt word.
        """
        try:
            with safe_open(path, "pt") as file:
                header, vectors = file.metadata() or {}, file.get_tensor("vectors")
            before, after = map(float, header["loss"].split())
            word = cls(header["word"], vectors.float(), header["space"], header["like"], header["models"],
                       (before, after))  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise MinigenError(
                f"{path} holds no learnt word ({one_line(error)}). Make one: minigen learn-word."
            ) from error
        if word.space not in SPACES or vectors.ndim != 2:
            raise MinigenError(f"{path} holds a word of space {word.space!r}, {list(vectors.shape)}. Learn it again.")
        return word


def identity(lm: nn.Module, encoder: TextEncoder) -> str:
    """Digest of the weights of a text encoder and a language model, in half precision."""
    digest = hashlib.sha256()
    for model in (encoder.model, lm):
        for name, weight in sorted(model.state_dict().items()):
            digest.update(name.encode() + weight.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class EncoderWithWords(TextEncoder):
    """A text encoder that knows some learnt words: `states, mask = encoder(["<x> while rain falls"])`.

    A caption without learnt words has the states of the plain encoder, bit for bit.
    """

    def __init__(self, encoder: TextEncoder, words: Iterable[LearntWord]):
        """Add words to an encoder, which stays as it is.

        Raises:
            MinigenError: two words of the same name, a word in the vocabulary already, vectors of another width.
        """
        super().__init__(encoder.model, encoder.tokenizer)
        self.words = {word.word: word for word in words}
        for word in self.words.values():
            check_word(word.word, encoder)
            if word.vectors.shape[1] != encoder.width:
                raise MinigenError(f"{word.word} has vectors of width {word.vectors.shape[1]}, the text encoder "
                                   f"{encoder.width}. Learn it again with this encoder.")  # fmt: skip
        self.reader = Tokenizer.from_str(encoder.tokenizer.to_str())
        self.reader.add_tokens([AddedToken(name, normalized=False) for name in self.words])
        self.numbers = {self.reader.token_to_id(name): name for name in self.words}  # id of the token -> word

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """As `TextEncoder.__call__`."""
        check_texts(captions)
        if not any(name in caption for caption in captions for name in self.words):
            return super().__call__(captions)
        with torch.no_grad():
            return self.states(captions, {name: word.vectors for name, word in self.words.items()})

    def states(self, captions: list[str], vectors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States and mask of captions with the given vectors in place of the words' own; gradients reach them."""
        rows = [self._row(caption, vectors) for caption in captions]
        longest = max(len(row) for row in rows)
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])  # [B, N]
        states = torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])  # [B, N, D]
        return states, mask.to(states.device)

    def _row(self, caption: str, vectors: dict[str, Tensor]) -> Tensor:
        """States [N, D] of one caption."""
        table, parts, appended = self.model.shared.weight, [], []
        for number in self.reader.encode(caption).ids:
            name = self.numbers.get(number)
            if name is None:
                parts.append(table[number][None])
            elif self.words[name].space == "word":
                parts.append(vectors[name].to(table))
            else:
                appended.append(vectors[name].to(table))
        self._check_lengths([sum(map(len, parts + appended))])
        states = self.model.run(torch.cat(parts)[None])[0].float()  # [N, D]
        return torch.cat([states, *appended])

    def tokens(self, caption: str) -> list[str]:
        """The tokens of a caption as text; a learnt word is one."""
        return self.reader.encode(caption).tokens


def check_word(word: str, encoder: TextEncoder) -> None:
    """Check the spelling of a new word.

    Raises:
        MinigenError: not in angle brackets, or in the vocabulary already.
    """
    if not isinstance(word, str) or not re.fullmatch(r"<[\w-]+>", word):
        raise MinigenError(f"the word is {word!r}. Write letters, digits and hyphens in angle brackets: <my-dog>.")
    if encoder.tokenizer.token_to_id(word) is not None:
        raise MinigenError(f"{word} is in the vocabulary of the text encoder already. Choose another word.")


def load_words(paths: Iterable[str | Path], lm: nn.Module, encoder: TextEncoder) -> EncoderWithWords:
    """The encoder with the words of some files.

    Raises:
        MinigenError: a file that is no word, or that was learnt with other models; two files with the same word.
    """
    words: dict[str, LearntWord] = {}
    for path in paths:
        word = LearntWord.load(path)
        if word.models != identity(lm, encoder):
            raise MinigenError(f"{path} was learnt with other models. Learn {word.word} again with this one.")
        if word.word in words:
            raise MinigenError(f"{path} is the second file with the word {word.word}. Leave one of them out.")
        words[word.word] = word
    return EncoderWithWords(encoder, words.values())


def plain_captions() -> dict[str, str]:
    """A short caption for each kind of sound of the built-in corpus: kind -> caption, such as "a dog barks"."""
    return {kind: _sentence(phrases.clauses[0]) for kind, phrases in PHRASES.items()}


def describing_captions(kind: str) -> list[str]:
    """Captions of one kind that say what it is like: "a small dog barks", "a big dog woofs", ..."""
    phrases = PHRASES[kind]
    bodies = [_sentence(clause, word) for clause in phrases.clauses for word in ("", *phrases.low, *phrases.high)]
    return list(dict.fromkeys(bodies + [_sentence(clause) for clause in (*phrases.low_clauses, *phrases.high_clauses)]))


def _sentence(clause: str, word: str = "") -> str:
    subject, verb, _ = clause.split("|")
    return f"{subject} {verb}".replace("{}", word)


def closest_caption(judge: Embedder, wav: Tensor, sample_rate: int) -> str:
    """The caption of one kind of sound that is closest to a clip [1, 1, samples], by the cosine of embeddings.

    judge: see `minigen.evaluation.clap`. The endings of `likeliest_caption` are not tried.
    """
    captions = list(dict.fromkeys(caption for kind in PHRASES for caption in describing_captions(kind)))
    return captions[int((judge.embed_text(captions) @ judge.embed_audio(wav, sample_rate)[0]).argmax())]


def likeliest_caption(lm: AudioLM, encoder: TextEncoder, codes: Tensor) -> str:
    """The caption under which a clip is most likely: first the kind, then what it is like, then how it is heard."""
    ranked = rank_captions(lm, encoder, codes, list(plain_captions().values()))
    (kind,) = [kind for kind, caption in plain_captions().items() if caption == ranked[0][1]]
    best = rank_captions(lm, encoder, codes, describing_captions(kind))[0][1]
    return rank_captions(lm, encoder, codes, [best + ending for ending in ENDINGS])[0][1]


@torch.no_grad()
def rank_captions(lm: AudioLM, encoder: TextEncoder, codes: Tensor, captions: list[str]) -> list[tuple[float, str]]:
    """Cross-entropy of codes [n, K, T] under each caption, the most likely caption first."""
    losses = [clip_loss(lm, *_repeat(*encoder([caption]), len(codes)), codes).item() for caption in captions]
    return sorted(zip(losses, captions, strict=True))


def clip_loss(lm: AudioLM, memory: Tensor, mask: Tensor, codes: Tensor, frames: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of codes [n, K, T] under a memory [n, N, D], on the frames that are True in bool [T]."""
    pattern, special = DelayPattern(lm.config.delays), lm.config.codebook_size
    sequence = pattern.apply(codes, special)  # [n, K, S]
    hidden = lm.hidden_states(shift_right(sequence, special), memory, mask)  # [n, S, D of the model]
    if frames is not None:
        sequence = pattern.apply(codes.masked_fill(~frames, special), special)  # the others are no targets
    return heads_cross_entropy(hidden, lm.heads, sequence)


def invert(
    lm: AudioLM,
    encoder: TextEncoder,
    codes: Tensor,
    word: str = "<x>",
    space: str = "word",
    like: str | None = None,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = True,
) -> LearntWord:
    """Learn a word for the sound of a clip.

    Args:
        lm: the language model, in eval mode; it does not change.
        encoder: its text encoder; it does not change.
        codes: int64 [n, K, T], the clip, or several of the same sound; T of at least 25 frames (0.5 s).
        word: the new word, in angle brackets.
        space: "word" or "memory", see the module.
        like: caption that the vectors begin as; None: `likeliest_caption`.
        steps: number of steps at the most.
        seed: of the choice of the held-out frames.
        progress: whether to show a bar on stderr.

    Raises:
        MinigenError: a word that is spelt wrongly or known already, an unknown space, codes that are too short.
    """
    check_word(word, encoder)
    if space not in SPACES:
        raise MinigenError(f"space is {space!r}. Choose one of {', '.join(SPACES)}.")
    if codes.ndim != 3 or codes.shape[-1] < 25:
        raise MinigenError(f"the clip has codes {list(codes.shape)}. Give [n, K, T], T of at least 25 frames (0.5 s).")
    like = like or likeliest_caption(lm, encoder, codes)
    start = first_vectors(encoder, like, space)  # [n, D]
    empty = LearntWord(word, start, space, like, identity(lm, encoder), (0.0, 0.0))
    kept, losses = _descend(lm, EncoderWithWords(encoder, [empty]), empty, codes, steps, seed, progress)
    return LearntWord(word, kept, space, like, empty.models, losses)


def first_vectors(encoder: TextEncoder, like: str, space: str) -> Tensor:
    """Vectors [n, D] of a plain caption: the embeddings of its tokens, or their states, without the closing `</s>`."""
    if not like.strip():
        raise MinigenError(f"the caption to begin from is {like!r}. Give one with a word, such as 'a dog barks'.")
    ids = encoder.tokenizer.encode(like).ids[:-1]
    if space == "word":
        return encoder.model.shared.weight[ids].detach().float().clone()
    return encoder([like])[0][0, : len(ids)].clone()


def _descend(
    lm: AudioLM, encoder: EncoderWithWords, empty: LearntWord, codes: Tensor, steps: int, seed: int, progress: bool
) -> tuple[Tensor, tuple[float, float]]:
    """Adam with early stopping: the kept vectors, and the loss on the held-out frames at the beginning and for them."""
    start = empty.vectors
    vectors, size = start.clone().requires_grad_(True), start.square().mean().sqrt()
    optimizer = torch.optim.Adam([vectors], lr=RATE * size.item())
    held_out = held_out_frames(codes.shape[-1], seed).to(codes.device)  # [T]

    def loss_of(vectors: Tensor, frames: Tensor) -> Tensor:
        memory, mask = encoder.states([empty.word], {empty.word: vectors})  # [1, N, D]
        return clip_loss(lm, *_repeat(memory, mask, len(codes)), codes, frames)

    best, losses = start, []
    with _Frozen(lm):
        for step in progress_bar(range(steps + 1), "steps", progress):
            if step % EVERY == 0 or step == steps:
                with torch.no_grad():
                    losses.append(loss_of(vectors, held_out).item())
                if losses[-1] == min(losses):
                    best = vectors.detach().clone()
                if step == steps or len(losses) - 1 - losses.index(min(losses)) >= PATIENCE:
                    break
            loss = loss_of(vectors, ~held_out) + PULL * ((vectors - start) / size).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        kept = start + (best - start) / GUIDANCE
        with torch.no_grad():
            return kept, (losses[0], loss_of(kept, held_out).item())


def held_out_frames(frames: int, seed: int) -> Tensor:
    """Frames that are not trained on: a quarter of the blocks of 10 frames, drawn at random; bool [T]."""
    blocks = -(-frames // BLOCK)
    chosen = np.random.default_rng(seed).permutation(blocks)[: max(1, round(HELD_OUT * blocks))]
    return torch.isin(torch.arange(frames) // BLOCK, torch.from_numpy(chosen))


def _repeat(memory: Tensor, mask: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The memory of one caption for several clips."""
    return memory.expand(rows, -1, -1), mask.expand(rows, -1)


class _Frozen:
    """A block in which a module is in eval mode and its weights need no gradient; afterwards all is as before."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __enter__(self) -> None:
        self.needed = [weight.requires_grad for weight in self.module.parameters()]
        self.training = self.module.training
        self.module.eval().requires_grad_(False)

    def __exit__(self, *error) -> None:
        for weight, needed in zip(self.module.parameters(), self.needed, strict=True):
            weight.requires_grad_(needed)
        self.module.train(self.training)
