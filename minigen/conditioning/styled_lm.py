"""A language model with a style conditioner, and its training.

    caption ─► text encoder ─► states [B, N, W] ──┐ joined along N
    excerpt ─► StyleConditioner ─► [B, M, W] ─────┴─► memory ─► AudioLM ─► logits

Training (`StyleObjective`). The excerpt is cut out of the clip that is to be written, at a random place, 1 to 2 s long.
Its own frames are left out of the loss, because copying them would be an easy way to a low loss:

    clip     . . x x x . . .        x  the excerpt
    k0       . . x x x . . . - -    the same frames after the delay pattern; the loss counts the cells "."
    k1       - . . x x x . . . -

In some steps text, style, or both are left out, so that one network learns all four conditionals, which guidance by two
conditions needs (`minigen.guidance.guide_two`). The number q of codebooks is drawn for each batch.

Before that the conditioner is trained alone (`AlignObjective`). The language model cannot read a new kind of token, and
random tokens teach it to ignore them. But it reads captions, and a caption says a part of what its sound says. So the
tokens of an excerpt learn to do to the frozen language model what the clip's caption does:

    o_l = cross_attention_l(x_l, caption)    ô_l = cross_attention_l(x_l, tokens)    loss = mean_l |ô_l - o_l|² / |o_l|²

x_l [S, D] is what enters the cross-attention of layer l when the language model reads the clip and its caption. A loss
of 1 is that of tokens that say nothing. This step is the project's own:

    minigen train TOKENS --generator conditioner --from mini-dropout --out FIRST
    minigen train TOKENS --generator style --from FIRST --out FOLDER

Source: MusicGen-Style (Rouard et al., arXiv 2407.12563), section 3, and its configuration in audiocraft.
Symbols: as in `minigen.conditioning.style` and `minigen.train`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minigen.conditioning.style import StyleConditioner, StyleConfig
from minigen.engine.errors import MinigenError
from minigen.engine.hub import HubModel
from minigen.guidance import Condition
from minigen.lm import AudioLM, AudioLMConfig, find_generator_folder, shift_right
from minigen.loss import heads_cross_entropy
from minigen.optim import TrainConfig
from minigen.patterns import DelayPattern
from minigen.text import TextEncoder
from minigen.transformer import Layer, sinusoids

FOLDER = "style"  # the conditioner's folder inside that of its language model
SHORTEST, LONGEST = 50, 100  # frames of an excerpt in training: 1 to 2 s
ALIGNED = 60  # frames of a clip that the language model reads in a step of `AlignObjective`
DROPOUT = 0.4  # share of the steps without text, and of those without style, where not both are left out


class StyledLM(HubModel, nn.Module):
    """A language model and its style conditioner, trained together and saved in one folder.

        folder/config.json, model.safetensors                the language model, as `AudioLM` saves it
        folder/style/config.json, model.safetensors          the conditioner

    Attributes:
        lm: the language model.
        style: the conditioner.
        config: sizes of the language model.
    """

    def __init__(self, lm: AudioLM, style: StyleConditioner):
        super().__init__()
        self.lm, self.style = lm, style

    @property
    def config(self) -> AudioLMConfig:
        """Sizes of the language model."""
        return self.lm.config

    @classmethod
    def from_language_model(cls, lm: AudioLM, codes: Tensor, seed: int = 0) -> "StyledLM":
        """Add a new conditioner to a language model.

        Its embeddings start as those of the language model, which knows the codes already.

        Args:
            lm: the language model, which becomes a part of the result.
            codes: int64 [B, K, T] of some clips, for the k-means start of the codebooks.
            seed: of the random weights and of k-means.
        """
        sizes = lm.config
        config = StyleConfig(streams=min(3, sizes.num_codebooks), codebook_size=sizes.codebook_size, width=sizes.width,
                             heads=sizes.heads, ffn=2 * sizes.width, memory_width=sizes.memory_width)  # fmt: skip
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            style = StyleConditioner(config)
        for ours, theirs in zip(style.embeddings, lm.embeddings, strict=False):
            ours.load_state_dict({"weight": theirs.weight[: sizes.codebook_size].detach()})
        style.start(codes[:, : config.streams, :LONGEST], torch.Generator().manual_seed(seed))
        return cls(lm, style)

    def narrowed(self, entries: int, codes: Tensor, seed: int = 0) -> "StyledLM":
        """The same networks around a new bottleneck, whose codebooks have so many entries.

        Args:
            entries: of each codebook.
            codes: int64 [B, K, T] of some clips, for the k-means start of the codebooks.
            seed: of k-means.
        """
        style = StyleConditioner(replace(self.style.config, entries=entries))
        kept = {name: value for name, value in self.style.state_dict().items() if not name.startswith("quantizer.")}
        style.load_state_dict(kept, strict=False)
        with torch.no_grad():
            latents = style.normalise(style.latents(codes[:, : style.config.streams, :LONGEST]))  # [B, F, C]
        style.quantizer.start(latents.flatten(0, 1), torch.Generator().manual_seed(seed))
        return StyledLM(self.lm, style.eval())

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: torch.dtype | None = torch.float32) -> "StyledLM":
        """Load both parts, in eval mode. dtype: of the language model's weights.

        Raises:
            MinigenError: no such folder, no conditioner in it, parts that do not fit each other.
        """
        folder = find_generator_folder(name_or_folder)
        lm, style = AudioLM.from_pretrained(folder, dtype), StyleConditioner.from_pretrained(folder / FOLDER)
        for name in ("codebook_size", "memory_width"):
            if getattr(lm.config, name) != getattr(style.config, name):
                raise MinigenError(f"{folder}: the language model and {FOLDER}/ differ in {name}. Copy both again.")
        return cls(lm, style).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write both parts, floats in `dtype`."""
        self.style.save_pretrained(Path(folder) / FOLDER, dtype)
        self.lm.save_pretrained(folder, dtype)


def join(text: Condition, tokens: Tensor) -> Condition:
    """The states of a text [B, N, W], if there are any, followed by style tokens [B, M, W]."""
    if text.memory is None:
        return Condition(tokens)
    memory, mask = text.padded(text.memory.shape[1])  # [B, N, W], [B, N]
    seen = mask.new_ones(tokens.shape[:2])  # [B, M]
    return Condition(torch.cat([memory, tokens.to(memory)], dim=1), torch.cat([mask, seen], dim=1))


# training


class StyleObjective:
    """Cross-entropy of the codes outside the excerpt, with text and style or without, as an objective of training.

        none         text_dropout = 0.1                                            no memory
        else         text left out with probability 0.4, and style left out with probability 0.4, independently

    Args:
        model (StyledLM): the model that is trained.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout.
    """

    generator = "style"
    same_shapes = False  # excerpts have other lengths in every step

    def __init__(self, model: StyledLM, encoder: TextEncoder, config: TrainConfig):
        self.encoder, self.config = encoder, config
        self.pattern, self.fill = DelayPattern(model.config.delays), model.config.codebook_size
        self.codebooks = model.style.config.num_codebooks

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """As `Objective.batch`; drop leaves the text out and keeps the style.

        "target" is the sequence with V at the cells of the excerpt. A batch without style has no "excerpt". "q" [B] and
        "seed" [B], for the codebooks' dead entries, have the same number in every row.

        Raises:
            MinigenError: clips shorter than one second.
        """
        keep_text, keep_style = draw_conditions(rng, self.config.text_dropout) if drop is None else (not drop, True)
        starts, length = draw_excerpts(*codes.shape[::2], rng)
        inside = excerpt_cells(codes.shape, starts, length).to(codes.device)  # [B, K, T]
        sequence, left_out = self.pattern.apply(codes, self.fill), self.pattern.apply(inside.long(), 0) > 0  # [B, K, S]
        batch = {"sequence": sequence, "target": sequence.masked_fill(left_out, self.fill)}
        if keep_style:
            batch["excerpt"] = codes[inside].view(*codes.shape[:2], length)  # [B, K, F]
            batch["q"] = torch.full((len(codes),), int(rng.integers(1, self.codebooks + 1)))
            batch["seed"] = torch.full((len(codes),), int(rng.integers(2**31)))
        if keep_text:
            batch["memory"], batch["mask"] = self.encoder(captions)  # [B, N, W], [B, N]
        return batch

    def loss(
        self,
        model: StyledLM,
        sequence: Tensor,
        target: Tensor,
        excerpt: Tensor | None = None,
        q: Tensor | None = None,
        seed: Tensor | None = None,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """CE(target | what is there of text and style); in training the codebooks learn from the excerpts."""
        condition = Condition(memory, mask)
        if excerpt is not None:
            latents = model.style.latents(excerpt)  # [B, F, C]
            condition = join(condition, model.style.tokens(model.style.normalise(latents), int(q[0])))
            if model.training:
                model.style.learn(latents, torch.Generator().manual_seed(int(seed[0])))
        shifted = shift_right(sequence, self.fill)  # [B, K, S]
        hidden = model.lm.hidden_states(shifted, condition.memory, condition.memory_mask)  # [B, S, D]
        entropy = heads_cross_entropy(hidden, model.lm.heads, target)
        return entropy, {"loss": entropy}


class AlignObjective(StyleObjective):
    """Distance of the style tokens from the caption, in the cross-attention of a frozen language model; see the module.

    Args: as of `StyleObjective`; the weights of the language model are frozen.
    """

    def __init__(self, model: StyledLM, encoder: TextEncoder, config: TrainConfig):
        super().__init__(model, encoder, config)
        model.lm.requires_grad_(False)

    def batch(
        self, codes: Tensor, captions: list[str], rng: np.random.Generator, drop: bool | None = None
    ) -> dict[str, Tensor]:
        """Excerpts, captions, and the columns of the clip that the language model reads; nothing is left out.

        A training step reads `ALIGNED` frames from a random place on, validation (`drop` given) whole clips.
        """
        starts, length = draw_excerpts(*codes.shape[::2], rng)
        inside = excerpt_cells(codes.shape, starts, length).to(codes.device)  # [B, K, T]
        first = 0 if drop is not None else int(rng.integers(max(1, codes.shape[2] - ALIGNED + 1)))
        read = codes if drop is not None else codes[..., first : first + ALIGNED]  # [B, K, T']
        memory, mask = self.encoder(captions)  # [B, N, W], [B, N]
        return {
            "sequence": self.pattern.apply(read, self.fill), "memory": memory, "mask": mask,
            "excerpt": codes[inside].view(*codes.shape[:2], length),  # [B, K, F]
            "q": torch.full((len(codes),), int(rng.integers(1, self.codebooks + 1))),
            "seed": torch.full((len(codes),), int(rng.integers(2**31))),
        }  # fmt: skip

    def loss(
        self, model: StyledLM, sequence: Tensor, memory: Tensor, mask: Tensor, excerpt: Tensor, q: Tensor, seed: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the module; in training the codebooks learn from the excerpts."""
        latents = model.style.latents(excerpt)  # [B, F, C]
        tokens = model.lm.memory_projection(model.style.tokens(model.style.normalise(latents), int(q[0])))  # [B, M, D]
        if model.training:
            model.style.learn(latents, torch.Generator().manual_seed(int(seed[0])))
        apart = []
        for layer, x, read in readings(model.lm, shift_right(sequence, self.fill), memory, mask):
            ours = layer.attend_text(x, layer.cross_attention.keys_values(tokens), None)  # ô_l [B, S, D]
            apart.append((ours - read).square().mean((1, 2)) / read.square().mean((1, 2)))  # [B]
        distance = torch.stack(apart).mean()
        return distance, {"loss": distance}


@torch.no_grad()
def readings(lm: AudioLM, shifted: Tensor, memory: Tensor, mask: Tensor) -> list[tuple[Layer, Tensor, Tensor]]:
    """For each layer what enters its cross-attention, x_l [B, S, D], and what it reads from the text, o_l [B, S, D].

    shifted: what the language model reads, [B, K, S].
    """
    found = []
    text, text_mask = lm.memory_projection(memory), mask[:, None, None]  # [B, N, D], [B, 1, 1, N]
    x = lm.embed(shifted, sinusoids(shifted.shape[2], lm.config.width, shifted.device))  # [B, S, D]
    for layer in lm.layers:
        assert isinstance(layer, Layer)
        x = x + layer.attend_self(layer.self_norm(x), True, None, None)
        read = layer.attend_text(x, layer.cross_attention.keys_values(text), text_mask)
        found.append((layer, x, read))
        x = x + read
        x = x + layer.feed_forward(layer.ffn_norm(x))  # [B, S, D]
    return found


def draw_conditions(rng: np.random.Generator, neither: float) -> tuple[bool, bool]:
    """Draw whether a batch keeps its text, and whether it keeps its style; with probability `neither` it keeps none."""
    if rng.random() < neither:
        return False, False
    return bool(rng.random() >= DROPOUT), bool(rng.random() >= DROPOUT)


def draw_excerpts(clips: int, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw the first frame of each clip's excerpt, int [B], and their common length: 1 to 2 s, half a clip at most.

    Raises:
        MinigenError: clips of fewer than 50 frames.
    """
    if frames < SHORTEST:
        raise MinigenError(f"clips of {frames} frames are too short for an excerpt. Tokenise clips of 1 s or more.")
    longest = min(LONGEST, frames // 2)
    length = int(rng.integers(min(SHORTEST, longest), longest + 1))
    return rng.integers(0, frames - length + 1, clips), length


def excerpt_cells(shape: tuple[int, ...], starts: np.ndarray, length: int) -> Tensor:
    """The cells of the excerpts: bool [B, K, T], True at frames start … start + length - 1."""
    frame, first = torch.arange(shape[2]), torch.from_numpy(starts)[:, None]  # [T], [B, 1]
    inside = (frame >= first) & (frame < first + length)  # [B, T]
    return inside[:, None].expand(shape)  # [B, K, T]
