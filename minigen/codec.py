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

from minigen.checkpoint import save_tensors
from minigen.errors import MinigenError
from minigen.files import write_aside
from minigen.hub import HubModel, find_model
from minigen.limits import check_config, check_model
from minigen.official import EncodecCodec, check_codes, check_waveform
from minigen.quantizer import ResidualVectorQuantizer, VectorQuantizer
from minigen.weights import read_config

__all__ = ["Codec", "CodecConfig", "EncodecCodec", "ResidualVectorQuantizer", "VectorQuantizer", "load_codec"]


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

    def __post_init__(self):
        check_config(self)


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


class Codec(HubModel, nn.Module):
    """The compact codec, 16 kHz, 50 frames/s, 4 codebooks of 1024 entries: 2 kb/s.

    The decoder draws each STFT bin as the sum of three materials (after Serra's "deterministic plus stochastic" model,
    ICMC 1989, and Verma and Meng's transients, 1998), because 40 bits a frame cannot carry anybody's phase:

        S[t] = tone[t] · exp(i Σ_{u≤t} turn[u])  +  click[t] · exp(i phase[t])  +  noise[t] · N[t]

    A tone keeps its line because its phase runs on from frame to frame by `turn`; a click has the phase that the frame
    names; rain is the spectrum N of white noise, shaped.
    """

    def __init__(self, config: CodecConfig | None = None):
        super().__init__()
        self.config = config = config or CodecConfig()
        step, bins = config.hop // config.parts, config.n_fft // 2 + 1
        self.spectrum = Spectrum(config.n_fft, step)
        self.enter = nn.Linear(config.parts * 3 * bins, config.width)
        self.encoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.to_latent = nn.Linear(config.width, config.latent)
        self.quantizer = ResidualVectorQuantizer(config.num_codebooks, config.codebook_size, config.latent)
        self.from_latent = nn.Linear(config.latent, config.width)
        self.decoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.leave = nn.Linear(config.width, config.parts * 5 * bins)
        with torch.no_grad():  # tones begin faint: before their turns are learnt they are a train of pulses
            self.leave.bias.view(config.parts, 5, bins)[:, [0, 2, 4]] = torch.tensor([-1.0, -5.0, -1.0])[:, None]
        turns = torch.arange(bins) * step % config.n_fft / config.n_fft  # of a bin's own frequency, from frame to frame
        self.register_buffer("advance", 2 * torch.pi * turns, persistent=False)
        self.register_buffer("sign", (-1.0) ** torch.arange(bins), persistent=False)  # phases are those at the middle

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

    def materials(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """[B, T, D] -> click, phase, tone, turn, hiss, each [B, T · parts, bins]; magnitudes and radians."""
        frames = self.leave(self.decoder(self.from_latent(latents))).float().unflatten(2, (self.config.parts, 5, -1))
        click, phase, tone, turn, hiss = frames.flatten(1, 2).unbind(2)
        return _size(click), phase, _size(tone), turn, _size(hiss)

    def sound(self, click: Tensor, phase: Tensor, tone: Tensor, turn: Tensor, hiss: Tensor, noise: Tensor) -> Tensor:
        """The materials (see the class), with white noise of unit variance [B, T · hop], as a waveform [B, 1, T · hop].

        No gradient passes from the sound to the turns: a turn moves all that follows it. They learn from true ones.
        """
        running = torch.cumsum(self.advance + turn.detach(), 1)
        spectrum = torch.polar(click, phase) + torch.polar(tone, running) * self.sign
        spectrum = spectrum + hiss * self.spectrum(noise) / self.spectrum.window.square().sum().sqrt()
        return self.spectrum.inverse(spectrum)[:, None]

    def synthesize(self, latents: Tensor) -> Tensor:
        """[B, T, D] -> [B, 1, T · hop]. The noise in it is always the same: equal codes sound equal."""
        noise = white_noise(latents.shape[1] * self.config.hop).to(latents)
        return self.sound(*self.materials(latents), noise[None])

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] in [-1, 1] at `sample_rate` -> codes int64 [B, K, T].

        Raises:
            MinigenError: not three dimensions, not mono, or no samples.
        """
        check_waveform(wav)
        return self.quantizer.encode(self.latents(wav))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, T · hop] in [-1, 1].

        Raises:
            MinigenError: not three dimensions, or a code outside 0..V-1.
        """
        check_codes(codes, self.codebook_size)
        return self.synthesize(self.quantizer.decode(codes)).clamp(-1, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), each whole or not at all."""
        folder = Path(folder)
        write_aside(folder / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")
        save_tensors(folder / "model.safetensors", {name: value.half() for name, value in self.state_dict().items()})

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Codec":
        """Load a shipped codec by name or one from a folder, as float32, in eval mode.

        Raises:
            MinigenError: no such codec, or weights that do not fit their config.
        """
        from safetensors.torch import load_file

        folder = find_model("codec", name)
        try:
            config = CodecConfig(**json.loads((folder / "config.json").read_text()))
            check_model(lambda: cls(config), "the codec")
            codec = cls(config)
            codec.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except (RuntimeError, TypeError, ValueError) as error:  # shapes, an unknown setting, or no JSON
            reason = " ".join(str(error).split())[:300]
            raise MinigenError(f"the codec weights in {folder} do not fit their config: {reason}") from error
        return codec.eval()


def load_codec(name: str | Path = "mini") -> Codec | EncodecCodec:
    """A codec in eval mode: "mini", a folder from `save_pretrained`, or an official mono EnCodec (name or folder).

    Raises:
        MinigenError: neither on disk nor to be fetched.
    """
    folder = find_model("codec", name)
    kind = EncodecCodec if "model_type" in read_config(folder) else Codec
    return kind.from_pretrained(folder)


def _size(logarithm: Tensor) -> Tensor:
    """Magnitude of an STFT bin, exp(x), bent so that it stays below exp(5): a sine at full scale reaches 160."""
    return (5 - F.softplus(5 - logarithm)).exp()


def white_noise(samples: int) -> Tensor:
    """The first samples of one endless white noise of unit variance, [samples]: drawn second by second, each seeded."""
    seconds = range(-(-samples // 16000))
    return torch.cat([torch.randn(16000, generator=torch.Generator().manual_seed(s)) for s in seconds])[:samples]
