"""The codec: sound becomes a few integers a second, and back.

    waveform [B, 1, samples] --features--> [B, T, F] --linear--> latents [B, T, D] --residual VQ--> codes [B, K, T]
    waveform [B, 1, samples] <--inverse STFT-- three materials <--decoder-- sum of K entries <--look-up-- codes

First link of the chain: the language model never sees sound, only these codes. The quantiser is EnCodec's (Défossez et
al., arXiv 2210.13438, section 3.2), so its weights interchange with the official one. The encoder is one linear layer
on log spectra: principal components, which need no training and keep the pitch that a small trained encoder lost. The
decoder is ConvNeXt blocks before an inverse STFT, as in Vocos (arXiv 2306.00814), which train on two cores where
EnCodec's SEANet does not.

    B batch, K codebooks, T codec frames, V codebook size, D latent width, F features
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigen.audio import check_waveform
from minigen.engine.checkpoint import save_tensors
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import HubModel, find_model
from minigen.engine.resources import check_config, check_model
from minigen.engine.weights import read_config
from minigen.quantizer import ResidualVectorQuantizer, VectorQuantizer, check_codes

__all__ = ["Codec", "CodecConfig", "ResidualVectorQuantizer", "VectorQuantizer", "load_codec"]

HANN = 0.25645  # of a Hann window, the γ / n_fft² of the Gauss window nearest to it
DRIFT = 0.6  # radians: a step of the clicks' random walk
WALK_SEED = 1_000_000  # the walk's noise begins where the hiss's never comes


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the compact codec. Bit rate: sample_rate / hop · K · log2 V = 50 · 4 · 10 = 2000 bit/s."""

    sample_rate: int = 16000
    hop: int = 320  # samples a codec frame: 50 frames/s
    parts: int = 2  # STFT frames a codec frame: finer in time than the codes
    n_fft: int = 640  # of the decoder's inverse STFT
    long_window: int = 1024  # samples the encoder hears for pitch: lines 16 Hz apart
    short_window: int = 256  # and for time: four of them in a codec frame
    short_bands: int = 16
    width: int = 256  # of the decoder
    blocks: int = 5  # ConvNeXt blocks
    latent: int = 192
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


class Features(nn.Module):
    """What the encoder hears of a codec frame: F = long_window / 2 + 1 + 4 · short_bands numbers, all log10.

    - Pitch: magnitude of each bin of a long window, root mean square over the frame's parts, weighted by
      (1 + f / 1 kHz)^-0.5: an ear tells low lines apart better than high ones.
    - Time: four times a frame, the mel bands of a short window.

    Magnitudes below 3e-4 count as silence.
    """

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config, bins = config, config.long_window // 2 + 1
        self.long = Spectrum(config.long_window, config.hop // config.parts)
        self.short = Spectrum(config.short_window, config.hop // 4)
        hertz = torch.arange(bins) * config.sample_rate / config.long_window
        self.register_buffer("weight", (1 + hertz / 1000) ** -0.5, persistent=False)
        bands = _mel_bands(config.short_window, config.short_bands, config.sample_rate)
        self.register_buffer("bands", bands, persistent=False)

    @property
    def size(self) -> int:
        """F."""
        return len(self.weight) + 4 * self.config.short_bands

    def forward(self, wav: Tensor) -> Tensor:
        """[B, 1, samples] -> [B, T, F], T = ceil(samples / hop)."""
        wav = F.pad(wav[:, 0], (0, -wav.shape[-1] % self.config.hop)).float()
        long = self.long(wav).abs().square().unflatten(1, (-1, self.config.parts)).mean(2).sqrt()
        short = (self.short(wav).abs() @ self.bands).unflatten(1, (-1, 4)).flatten(2)
        return torch.cat([_log10(long) * self.weight, _log10(short)], -1)


class Codec(HubModel, nn.Module):
    """The compact codec, 16 kHz, 50 frames/s, 4 codebooks of 1024 entries: 2 kb/s.

    The decoder draws each STFT bin as the sum of three materials (after Serra's "deterministic plus stochastic" model,
    ICMC 1989, and Verma and Meng's transients, 1998), because 40 bits a frame cannot carry anybody's phase:

        S[t] = tone[t] · exp(i Σ_{u≤t} turn[u])  +  click[t] · exp(i (phase[t] + drift[t]))  +  hiss[t] · N[t]

    A tone keeps its line because its phase runs on from frame to frame by `turn`; a click has the phase that the frame
    names; rain is the spectrum N of white noise, shaped. tone² + click² + hiss² is the bin's power: one magnitude, and
    three shares of it. The magnitude is an outline, linear in three frames of latents, that the blocks correct. The
    turn begins as the slope of the log magnitude over frequency, which a windowed sine obeys (phase-gradient formula:
    Průša, Balazs, Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude", IEEE/ACM TASLP
    25(5), 2017). The drift, a random walk the same in all bins, keeps equal frames from humming at the frame rate.
    """

    def __init__(self, config: CodecConfig | None = None):
        super().__init__()
        self.config = config = config or CodecConfig()
        step, bins = config.hop // config.parts, config.n_fft // 2 + 1
        self.spectrum, self.features = Spectrum(config.n_fft, step), Features(config)
        self.encoder = nn.Linear(self.features.size, config.latent)
        self.quantizer = ResidualVectorQuantizer(config.num_codebooks, config.codebook_size, config.latent)
        self.outline = nn.Conv1d(config.latent, config.parts * bins, 3, padding=1)
        self.from_latent = nn.Linear(config.latent, config.width)
        self.decoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.leave = nn.Linear(config.width, config.parts * 6 * bins)
        with torch.no_grad():  # the outline begins nearly uncorrected, with equal shares
            self.leave.weight.mul_(0.1)
            self.leave.bias.zero_()
        turns = torch.arange(bins) * step % config.n_fft / config.n_fft  # of a bin's own frequency, from frame to frame
        self.register_buffer("advance", 2 * torch.pi * turns, persistent=False)
        self.register_buffer("sign", (-1.0) ** torch.arange(bins), persistent=False)  # phases are those at the middle

    sample_rate = property(lambda self: self.config.sample_rate, doc="Hz.")
    frame_rate = property(lambda self: self.config.sample_rate / self.config.hop, doc="Codec frames a second.")
    num_codebooks = property(lambda self: self.config.num_codebooks, doc="K.")
    codebook_size = property(lambda self: self.config.codebook_size, doc="V.")

    def latents(self, wav: Tensor) -> Tensor:
        """[B, 1, samples] -> [B, T, D], T = ceil(samples / hop)."""
        return self.encoder(self.features(wav)).float()

    def materials(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """[B, T, D] -> click, phase, tone, turn, hiss, each [B, T · parts, bins]; magnitudes and radians."""
        outline = self._parts(self.outline(latents.transpose(1, 2)).transpose(1, 2), 1)[0]
        drawn = self._parts(self.leave(self.decoder(self.from_latent(latents))), 6)
        correction, phase, turn, *shares = drawn
        size = outline + correction
        click, tone, hiss = (_size(size + share / 2) for share in torch.log_softmax(torch.stack(shares), 0))
        return click, phase, tone, turn + self._slope(size.detach()), hiss

    def _parts(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, T, parts · count · bins] -> count times [B, T · parts, bins]."""
        return x.float().unflatten(2, (self.config.parts, count, -1)).flatten(1, 2).unbind(2)

    def _slope(self, size: Tensor) -> Tensor:
        """Turn of each bin beyond its own frequency, step · n_fft / γ · d log|S| / d bin, with γ = 0.25645 · n_fft²."""
        edged = F.pad(size, (1, 1), mode="replicate")
        slope = (edged[..., 2:] - edged[..., :-2]) / 2
        return self.spectrum.step / (HANN * self.config.n_fft) * slope.clamp(-2, 2)

    def sound(self, materials: tuple[Tensor, ...], noise: Tensor, walk: Tensor) -> Tensor:
        """Materials as a waveform [B, 1, T · hop].

        No gradient passes from the sound to the turns: a turn moves all that follows it. They learn from true ones.

        Args:
            materials: click, phase, tone, turn, hiss, as `materials` gives them.
            noise: white, of unit variance [B, T · hop]: what the hiss is made of.
            walk: white, of unit variance [B, T · parts]: the steps of the drift.
        """
        click, phase, tone, turn, hiss = materials
        running = torch.cumsum(self.advance + turn.detach(), 1)
        drift = DRIFT * walk.cumsum(1)[..., None]
        spectrum = torch.polar(click, phase + drift) + torch.polar(tone, running) * self.sign
        spectrum = spectrum + hiss * self.spectrum(noise) / self.spectrum.window.square().sum().sqrt()
        return self.spectrum.inverse(spectrum)[:, None]

    def synthesize(self, latents: Tensor) -> Tensor:
        """[B, T, D] -> [B, 1, T · hop]. The noise in it is always the same: equal codes sound equal."""
        frames = latents.shape[1]
        noise = white_noise(frames * self.config.hop).to(latents)
        walk = white_noise(frames * self.config.parts, WALK_SEED).to(latents)
        return self.sound(self.materials(latents), noise[None], walk[None])

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] in [-1, 1] at `sample_rate` -> codes int64 [B, K, T].

        Raises:
            MinigenError: not three dimensions, not mono, no samples, or some that are no numbers.
        """
        check_waveform(wav)
        return self.quantizer.encode(self.latents(wav))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, T · hop]; fewer codebooks than K sound coarser.

        Raises:
            MinigenError: not three dimensions, not whole numbers, too many codebooks, or a code outside 0..V-1.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        return self.synthesize(self.quantizer.decode(codes.long())).clamp(-1, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), each whole or not at all."""
        folder = Path(folder)
        write_atomically(folder / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")
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
            config = CodecConfig(**json.loads((folder / "config.json").read_text("utf-8")))
            check_model(lambda: cls(config), "the codec")
            codec = cls(config)
            codec.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except (RuntimeError, TypeError, ValueError) as error:  # shapes, an unknown setting, or no JSON
            reason = " ".join(str(error).split())[:300]
            raise MinigenError(f"the codec weights in {folder} do not fit their config: {reason}") from error
        return codec.eval()


def load_codec(name: str | Path = "mini") -> nn.Module:
    """A `Codec` or an official `interop.encodec.EncodecCodec`, in eval mode; both have the same interface.

    name: "mini", a folder from `save_pretrained`, or an official mono EnCodec (a name on the hub, or a folder).

    Raises:
        MinigenError: neither on disk nor to be fetched.
    """
    folder = find_model("codec", name)
    if "model_type" not in read_config(folder):  # a key of every config of `transformers`, and of none of ours
        return Codec.from_pretrained(folder)
    from minigen.interop.encodec import EncodecCodec

    return EncodecCodec.from_pretrained(folder)


def _size(logarithm: Tensor) -> Tensor:
    """Magnitude of an STFT bin, exp(x), bent so that it stays below exp(5): a sine at full scale reaches 160."""
    return (5 - F.softplus(5 - logarithm)).exp()


def _log10(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=3e-4).log10()


def _mel_bands(window: int, bands: int, rate: int) -> Tensor:
    """Triangles of the mel scale, [window / 2 + 1, bands], also while a model is only sized (on the meta device)."""
    from torchaudio.functional import melscale_fbanks

    with torch.device("cpu"):
        return melscale_fbanks(window // 2 + 1, 0.0, rate / 2, bands, rate)


def white_noise(samples: int, first_seed: int = 0) -> Tensor:
    """The first samples of an endless white noise of unit variance, [samples]: drawn second by second, each seeded."""
    seeds = range(first_seed, first_seed - (-samples // 16000))
    return torch.cat([torch.randn(16000, generator=torch.Generator().manual_seed(s)) for s in seeds])[:samples]
