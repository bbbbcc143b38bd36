"""Style conditioning: an excerpt of a sound as a condition, through a bottleneck that decides how much of it passes.

It stands beside the text encoder. Its tokens are appended to the states of the text, so the language model is
unchanged, and leaving them out removes the style.

    excerpt ─► codec ─► codes [B, k, F] ─► k embeddings, summed ─► layers, bidirectional ─► latents [B, F, C]
                                                                                             │ every 10th frame
    memory [B, N + M, W] ◄── text states, style tokens [B, M, W] ◄── Linear ◄── RVQ, q of 6 codebooks ◄── normalise

The bottleneck is residual vector quantisation (`minigen.quantizer`). With q codebooks of 64 entries a token holds at
most 6 q bits, and there are 5 tokens a second: q = 1 passes little more than the kind of sound, q = 6 many details. In
training q is drawn for each batch, so that one model has all six strengths.

The codebooks learn as moving averages of the latents. Only the language model's loss trains the layers, straight
through the quantiser. Latents are normalised by their running mean and variance, without gain and without a gradient.
`minigen.conditioning.styled_lm` trains the conditioner together with a language model.

Source: MusicGen-Style (Rouard et al., arXiv 2407.12563) and its code in audiocraft. There the features are those of a
pretrained model, a codebook has 1024 entries, and normalisation is BatchNorm.

Symbols: B batch · k codebooks that are read · F frames of the excerpt · C width of a latent · M = F // 10 style tokens
· q codebooks of the bottleneck · N tokens of the text · W width of the memory.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.engine import distributed
from minigen.engine.errors import MinigenError
from minigen.engine.hub import HubModel, find_model
from minigen.engine.resources import check_config
from minigen.engine.settings import Range, check_number
from minigen.engine.weights import module_from_tensors, read_config, read_tensors, write_model
from minigen.quantizer import ResidualVectorQuantizer, check_codes
from minigen.transformer import Attention, sinusoids

STRIDE = 10  # frames for each style token: 5 tokens a second
DECAY = 0.99  # of the running mean and variance


@dataclass(frozen=True)
class StyleConfig:
    """Sizes of a style conditioner.

    Attributes:
        streams: k, the codebooks of the codec that are read, the coarsest first.
        codebook_size: V of the codec.
        width: of the layers, a multiple of 2 · heads.
        layers: number of layers.
        heads: attention heads of a layer.
        ffn: inner width of the feed-forward block.
        latent: C.
        num_codebooks: codebooks of the bottleneck.
        entries: entries of each of them.
        memory_width: W, the width of the text states.

    Raises:
        MinigenError: a size below 1, a width that the heads do not divide.
    """

    streams: int = 3
    codebook_size: int = 1024
    width: int = 192
    layers: int = 3
    heads: int = 6
    ffn: int = 384
    latent: int = 32
    num_codebooks: int = 6
    entries: int = 64
    memory_width: int = 256

    def __post_init__(self):
        check_config(self)
        if self.width % self.heads or self.width % 2:
            raise MinigenError(f"width {self.width} with {self.heads} heads. Give an even width that the heads divide.")


class Block(nn.Module):
    """A Transformer layer without cross-attention: bidirectional self-attention and feed-forward, normed before."""

    def __init__(self, width: int, heads: int, ffn: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = nn.Linear(width, ffn, bias=False)
        self.ffn_out = nn.Linear(ffn, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, F, width] to [B, F, width]."""
        normed = self.norm(x)
        x = x + self.attention(normed, *self.attention.keys_values(normed))  # [B, F, width]
        return x + self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x))))  # [B, F, width]


class StyleConditioner(HubModel, nn.Module):
    """Codes of an excerpt to style tokens: conditioner(codes [B, k, F], q) -> [B, F // 10, W]."""

    mean: Tensor  # [C] running mean of the latents
    variance: Tensor  # [C] running variance

    def __init__(self, config: StyleConfig):
        super().__init__()
        self.config = config
        streams = range(config.streams)
        self.embeddings = nn.ModuleList(nn.Embedding(config.codebook_size, config.width) for _ in streams)
        self.layers = nn.ModuleList(Block(config.width, config.heads, config.ffn) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.input = nn.Linear(config.width, config.latent)
        self.quantizer = ResidualVectorQuantizer(config.num_codebooks, config.entries, config.latent, resumable=True)
        self.output = nn.Linear(config.latent, config.memory_width)
        self.register_buffer("mean", torch.zeros(config.latent))
        self.register_buffer("variance", torch.ones(config.latent))

    def forward(self, codes: Tensor, q: int = 3) -> Tensor:
        """Style tokens [B, F // 10, W] of an excerpt.

        Args:
            codes: int64 [B, k', F] with k' of at least k; the finer codebooks are not read. F at least 10.
            q: codebooks of the bottleneck, 1 to 6: the strength of the condition.

        Raises:
            MinigenError: codes that do not fit the configuration, an excerpt below 10 frames, q out of range.
        """
        self._check(codes, q)
        return self.tokens(self.normalise(self.latents(codes)), q)

    def latents(self, codes: Tensor) -> Tensor:
        """Latents [B, F, C] before normalisation, of codes [B, k, F]."""
        x = sum(embedding(codes[:, k]) for k, embedding in enumerate(self.embeddings))  # k of [B, F] -> [B, F, width]
        x = x + sinusoids(x.shape[1], self.config.width, x.device).to(x)
        for layer in self.layers:
            x = layer(x)  # [B, F, width]
        return self.input(self.norm(x))

    def normalise(self, latents: Tensor) -> Tensor:
        """(latents - mean) / standard deviation, both of them running and constant for the gradient."""
        return (latents.to(self.mean) - self.mean) / (self.variance + 1e-5).sqrt()

    def tokens(self, latents: Tensor, q: int) -> Tensor:
        """Quantise every 10th of the normalised latents [B, F, C] with q codebooks: tokens [B, F // 10, W]."""
        kept = latents[:, : latents.shape[1] // STRIDE * STRIDE : STRIDE]  # [B, M, C]
        entries = self.quantizer.decode(self.quantizer.encode(kept)[:, :q])  # [B, M, C]
        return self.output(entries + (kept - kept.detach()))  # the entries, with the gradient of the latents

    @torch.no_grad()
    def learn(self, latents: Tensor, generator: torch.Generator) -> None:
        """One update of the running statistics and of the codebooks, from the latents [B, F, C] of all processes."""
        rows = distributed.gather_rows(latents.detach().to(self.mean))  # [B of all processes, F, C]
        self.quantizer(self.normalise(rows), generator)
        self.mean.lerp_(rows.mean((0, 1)), 1 - DECAY)
        self.variance.lerp_(rows.var((0, 1)), 1 - DECAY)

    @torch.no_grad()
    def start(self, codes: Tensor, generator: torch.Generator) -> None:
        """Set the statistics to those of excerpts [B, k, F], and the codebooks by k-means on their latents."""
        latents = self.latents(codes).flatten(0, 1)  # [B F, C]
        self.mean.copy_(latents.mean(0))
        self.variance.copy_(latents.var(0))
        self.quantizer.start(self.normalise(latents), generator)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "StyleConditioner":
        """Load what `save_pretrained` wrote, in float32 and in eval mode.

        Raises:
            MinigenError: no such folder, unreadable files, unknown config keys, tensors that do not fit.
        """
        folder = find_model("generator", folder)
        try:
            config = StyleConfig(**read_config(folder))
        except TypeError as error:
            raise MinigenError(f"{folder / 'config.json'} is no style conditioner's ({error}).") from error
        return module_from_tensors(lambda: cls(config), read_tensors(folder, torch.float32), folder).eval()

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write folder/config.json and folder/model.safetensors, floats in `dtype`."""
        write_model(folder, asdict(self.config), self.state_dict(), dtype)

    def _check(self, codes: Tensor, q: int) -> None:
        config = self.config
        check_codes(codes, most=max(config.streams, codes.shape[1]), size=config.codebook_size)
        if codes.shape[1] < config.streams or codes.shape[2] < STRIDE:
            raise MinigenError(
                f"an excerpt has codes {list(codes.shape)}. Give [B, {config.streams}, F], F at least {STRIDE}."
            )
        check_number("codebooks", q, Range(int, 1, config.num_codebooks))
