"""The codec: sound becomes a few integers a second, and back.

    waveform [B, 1, samples] --> encoder --> latents [B, T, D] --> residual VQ --> codes [B, K, T]
    waveform [B, 1, samples] <-- decoder <-- sum of K entries  <-- look-up   <-- codes [B, K, T]

First link of the chain: the language model never sees sound, only these codes. The quantiser is EnCodec's (Défossez et
al., arXiv 2210.13438, section 3.2; codebooks learnt by moving averages as in VQ-VAE, arXiv 1711.00937, appendix A.1),
so its weights interchange with the official one. Around it stand frame-rate layers as in Vocos (arXiv 2306.00814):
ConvNeXt blocks between an STFT and an inverse STFT, which train on two cores where EnCodec's SEANet does not.

    B batch, K codebooks, T codec frames, V codebook size, D latent width
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.errors import MinigenError
from minigen.paths import find_weights


class VectorQuantizer(nn.Module):
    """One codebook: a vector becomes the index of its nearest entry.

    Learning, as in EnCodec: each entry is the moving average of the vectors that chose it (no gradient), it starts from
    k-means, and an entry that hardly anyone chooses is replaced by a vector of the current batch.
    """

    codebook: Tensor  # [V, D]
    counts: Tensor  # [V] moving average of how many vectors chose each entry
    sums: Tensor  # [V, D] moving average of their sums

    def __init__(self, size: int, width: int, decay: float = 0.99, dead_below: float = 0.1):
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codebook", torch.randn(size, width))
        self.register_buffer("counts", torch.ones(size), persistent=False)
        self.register_buffer("sums", self.codebook.clone(), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Nearest entries: [..., D] -> int64 [...], argmin over v of ||x - e_v||²."""
        flat = x.reshape(-1, x.shape[-1]).float()
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would choose other entries
            distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T  # + ||x||², the same for every entry
        return distance.argmin(1).view(x.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Entries of the codes: int64 [...] -> [..., D]."""
        return F.embedding(codes, self.codebook)

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator, rounds: int = 15) -> None:
        """Begin the codebook with k-means on vectors [n, D], n at least V."""
        if len(x) < len(self.codebook):
            raise MinigenError(f"k-means needs at least {len(self.codebook)} vectors, got {len(x)}. Give more audio.")
        order = torch.randperm(len(x), generator=generator)[: len(self.codebook)]
        self.codebook.copy_(x[order])
        for _ in range(rounds):
            counts, sums = self._tally(x, self.encode(x))
            self.codebook.copy_(torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], self.codebook))
        self.counts.fill_(1.0)
        self.sums.copy_(self.codebook)

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor, generator: torch.Generator) -> None:
        """One step of learning from vectors [n, D] and the codes [n] that they chose."""
        counts, sums = self._tally(x, codes)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        dead = self.counts < self.dead_below
        if dead.any():
            chosen = torch.randint(len(x), (int(dead.sum()),), generator=generator)
            self.sums[dead], self.counts[dead] = x[chosen], 1.0
        self.codebook.copy_(self.sums / self.counts[:, None])

    def _tally(self, x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(codes, minlength=len(self.codebook)).to(x.dtype)
        sums = torch.zeros_like(self.codebook).index_add_(0, codes, x.to(self.codebook.dtype))
        return counts, sums


class ResidualVectorQuantizer(nn.Module):
    """K codebooks in a row, each quantising what the ones before left over.

        r_0 = x,   c_k = nearest(r_k),   r_{k+1} = r_k - e_k[c_k],   x ≈ Σ_k e_k[c_k]

    Gradients: the output is passed straight through to x, once for the sum, and every stage's commitment loss
    ||r_k - sg(e_k)||² reaches x, because the residual subtracts the *detached* entry. EnCodec as published subtracts
    the straight-through value, which cancels that gradient for all stages but the first (encodec issue 25; audiocraft
    mends it).
    """

    def __init__(self, num_codebooks: int = 4, codebook_size: int = 1024, width: int = 128):
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.stages = nn.ModuleList(VectorQuantizer(codebook_size, width) for _ in range(num_codebooks))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise latents [B, T, D]; with a generator the codebooks also learn from them (training).

        Returns:
            quantised [B, T, D] (straight through), codes int64 [B, K, T], commitment loss (scalar, mean over stages).
        """
        residual, total, codes, losses = x, torch.zeros_like(x), [], []
        for stage in self.stages:
            index = stage.encode(residual.detach())
            entry = stage.decode(index)
            losses.append(F.mse_loss(residual, entry))
            if generator is not None:
                stage.update(residual.detach().flatten(0, 1), index.flatten(), generator)
            residual, total = residual - entry, total + entry
            codes.append(index)
        return x + (total - x).detach(), torch.stack(codes, 1), torch.stack(losses).mean()

    def encode(self, x: Tensor) -> Tensor:
        """Latents [B, T, D] -> codes int64 [B, K, T]."""
        return self(x)[1]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K', T] -> latents [B, T, D]; fewer codebooks than K give a coarser sum."""
        return sum(stage.decode(index) for stage, index in zip(self.stages, codes.unbind(1), strict=False))

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator) -> None:
        """Begin all codebooks with k-means, stage by stage on the residuals of vectors [n, D]."""
        for stage in self.stages:
            stage.start(x, generator)
            x = x - stage.decode(stage.encode(x))


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the compact codec. Bit rate: sample_rate / hop · K · log2 V = 50 · 4 · 10 = 2000 bit/s."""

    sample_rate: int = 16000
    hop: int = 320  # samples a codec frame: 50 frames/s
    parts: int = 2  # STFT frames a codec frame: finer in time than the codes
    n_fft: int = 640
    width: int = 256
    blocks: int = 5  # ConvNeXt blocks on either side
    latent: int = 128
    num_codebooks: int = 4
    codebook_size: int = 1024


class Block(nn.Module):
    """ConvNeXt block along time (arXiv 2201.03545): depthwise convolution, then a two-layer network on each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        y = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        return x + self.scale * self.down(F.gelu(self.up(y)))


class Spectrum(nn.Module):
    """STFT and its inverse on a grid without half frames: `samples / step` frames, first one centred half a step in."""

    def __init__(self, n_fft: int, step: int):
        super().__init__()
        self.n_fft, self.step = n_fft, step
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """[B, samples] -> complex [B, samples / step, n_fft / 2 + 1]."""
        edge = (self.n_fft - self.step) // 2
        frames = F.pad(wav, (edge, edge)).unfold(1, self.n_fft, self.step)
        return torch.fft.rfft(frames * self.window)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Complex [B, F, n_fft / 2 + 1] -> [B, F · step]: windowed overlap-add divided by the windows' own overlap."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window
        envelope = (self.window**2).expand(1, spectrum.shape[1], -1)
        edge = (self.n_fft - self.step) // 2
        whole = self._overlap(frames)[:, edge:-edge] / self._overlap(envelope)[:, edge:-edge].clamp(min=1e-4)
        return whole

    def _overlap(self, frames: Tensor) -> Tensor:
        length = (frames.shape[1] - 1) * self.step + self.n_fft
        kernel = {"kernel_size": (1, self.n_fft), "stride": (1, self.step)}
        return F.fold(frames.transpose(1, 2), (1, length), **kernel).flatten(1)


class Codec(nn.Module):
    """The compact codec, 16 kHz, 50 frames/s, 4 codebooks of 1024 entries: 2 kb/s."""

    def __init__(self, config: CodecConfig | None = None):
        super().__init__()
        self.config = config = config or CodecConfig()
        bins = config.n_fft // 2 + 1
        self.spectrum = Spectrum(config.n_fft, config.hop // config.parts)
        self.enter = nn.Linear(config.parts * 3 * bins, config.width)
        self.encoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.to_latent = nn.Linear(config.width, config.latent)
        self.quantizer = ResidualVectorQuantizer(config.num_codebooks, config.codebook_size, config.latent)
        self.from_latent = nn.Linear(config.latent, config.width)
        self.decoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.leave = nn.Linear(config.width, config.parts * 2 * bins)

    sample_rate = property(lambda self: self.config.sample_rate, doc="Hz.")
    frame_rate = property(lambda self: self.config.sample_rate / self.config.hop, doc="Codec frames a second.")
    num_codebooks = property(lambda self: self.config.num_codebooks, doc="K.")
    codebook_size = property(lambda self: self.config.codebook_size, doc="V.")

    def latents(self, wav: Tensor) -> Tensor:
        """[B, 1, samples] -> [B, T, D], T = ceil(samples / hop); each STFT frame enters as log magnitude and phase."""
        wav = F.pad(wav[:, 0], (0, -wav.shape[-1] % self.config.hop))
        z = self.spectrum(wav)
        size = z.abs().clamp(min=1e-5)
        loud = z / size * size**0.3  # the phase, weighted so that it fades with the sound
        features = torch.cat([size.log10() / 2, loud.real, loud.imag], -1)
        frames = features.unflatten(1, (-1, self.config.parts)).flatten(2)
        return self.to_latent(self.encoder(self.enter(frames))).float()

    def synthesize(self, latents: Tensor) -> Tensor:
        """[B, T, D] -> [B, 1, T · hop]: the decoder names a log magnitude and a phase for each STFT bin."""
        frames = self.leave(self.decoder(self.from_latent(latents)))
        size, phase = frames.float().unflatten(2, (self.config.parts, -1)).flatten(1, 2).chunk(2, -1)
        return self.spectrum.inverse(torch.polar(size.clamp(max=5).exp(), phase))[:, None]

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] in [-1, 1] at `sample_rate` -> codes int64 [B, K, T].

        Raises:
            MinigenError: not three dimensions, not mono, or no samples.
        """
        _check_waveform(wav)
        return self.quantizer.encode(self.latents(wav))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, T · hop] in [-1, 1].

        Raises:
            MinigenError: not three dimensions, or a code outside 0..V-1.
        """
        _check_codes(codes, self.codebook_size)
        return self.synthesize(self.quantizer.decode(codes)).clamp(-1, 1)

    def forward(self, wav: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Training pass: waveform -> (reconstruction [B, 1, samples], codes [B, K, T], commitment loss)."""
        quantized, codes, loss = self.quantizer(self.latents(wav), generator)
        return self.synthesize(quantized)[..., : wav.shape[-1]], codes, loss

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16)."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Codec":
        """Load a shipped codec by name or one from a folder, as float32, in eval mode.

        Raises:
            MinigenError: no such codec, or weights that do not fit their config.
        """
        from safetensors.torch import load_file

        folder = find_weights("codec", str(name))
        try:
            codec = cls(CodecConfig(**json.loads((folder / "config.json").read_text())))
            codec.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except (RuntimeError, TypeError, ValueError) as error:  # shapes, an unknown setting, or no JSON
            reason = " ".join(str(error).split())[:300]
            raise MinigenError(f"the codec weights in {folder} do not fit their config: {reason}") from error
        return codec.eval()


class EncodecCodec(nn.Module):
    """An official mono EnCodec (`transformers.EncodecModel`) behind the same interface."""

    def __init__(self, model: nn.Module, bandwidth: float = 6.0):
        super().__init__()
        config = model.config
        if config.audio_channels != 1:
            raise MinigenError(
                f"this EnCodec has {config.audio_channels} channels; minigen is mono. "
                f"Use facebook/encodec_24khz or facebook/encodec_32khz."
            )
        self.model = model.eval()
        self.bandwidth = bandwidth if bandwidth in config.target_bandwidths else max(config.target_bandwidths)
        self.sample_rate, self.frame_rate = config.sampling_rate, float(config.frame_rate)
        self.codebook_size = config.codebook_size
        self.num_codebooks = model.quantizer.get_num_quantizers_for_bandwidth(self.bandwidth)

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] -> codes int64 [B, K, T]."""
        _check_waveform(wav)
        return self.model.encode(wav, bandwidth=self.bandwidth).audio_codes[0]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, samples]."""
        _check_codes(codes, self.codebook_size)
        return self.model.decode(codes[None], [None]).audio_values


def load_codec(name: str | Path = "mini") -> Codec | EncodecCodec:
    """A codec in eval mode: "mini", a folder from `save_pretrained`, or an official mono EnCodec (name or folder).

    Raises:
        MinigenError: neither on disk nor to be fetched.
    """
    config = Path(name) / "config.json"
    official = json.loads(config.read_text()).get("model_type") == "encodec" if config.is_file() else "/" in str(name)
    if not official:
        return Codec.from_pretrained(name)
    from transformers import EncodecModel

    try:
        return EncodecCodec(EncodecModel.from_pretrained(name))
    except OSError as error:
        raise MinigenError(
            f"the codec {str(name)!r} is not on disk and could not be fetched. Copy its config.json and "
            f"model.safetensors into a folder and name that folder."
        ) from error


def _check_waveform(wav: Tensor) -> None:
    if wav.ndim != 3 or wav.shape[1] != 1 or wav.shape[2] == 0:
        raise MinigenError(f"a waveform is [B, 1, samples] with samples > 0, got {list(wav.shape)}.")


def _check_codes(codes: Tensor, size: int) -> None:
    if codes.ndim != 3 or codes.numel() == 0:
        raise MinigenError(f"codes are [B, K, T], got {list(codes.shape)}.")
    if codes.min() < 0 or codes.max() >= size:
        raise MinigenError(f"codes lie in 0..{size - 1}, got {int(codes.min())}..{int(codes.max())}.")
