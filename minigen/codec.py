"""The codec turns sound into a few integers per second, and the integers back into sound.

    waveform [B, 1, samples] --features--> [B, T, F] --linear--> latents [B, T, D] --residual VQ--> codes [B, K, T]
    waveform [B, 1, samples] <--inverse STFT-- materials <--decoder-- latents [B, T, D] <--restore-- codes [B, K, T]

It is the first link of the chain: the language model never sees sound, only codes. The quantiser is EnCodec's (Défossez
et al., arXiv 2210.13438, section 3.2), so its weights interchange with the official one. The encoder is one linear
layer on log spectra: principal components, which need no training and keep the pitch that a small trained encoder lost.
The decoder is ConvNeXt blocks before an inverse STFT, as in Vocos (arXiv 2306.00814). It trains on two processor cores,
where EnCodec's SEANet does not.

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
from minigen.engine.files import atomic_file, write_atomically
from minigen.engine.hub import HubModel, find_model
from minigen.engine.resources import check_config, check_model
from minigen.engine.weights import read_config
from minigen.quantizer import ResidualVectorQuantizer, VectorQuantizer, check_codes

__all__ = ["Codec", "CodecConfig", "ResidualVectorQuantizer", "VectorQuantizer", "load_codec"]

HANN = 0.25645  # γ / n_fft² of the Gaussian window that is closest to a Hann window
DRIFT = 0.6  # radians: standard deviation of a step of the random walk of the clicks' phase
WALK_SEED = 1_000_000  # first seed of the walk's noise, far above the seeds of the hiss
LOCK_REACH = 2  # bins to each side in which a spectral peak is looked for


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the compact codec. Bit rate: sample_rate / hop · K · log2 V = 50 · 4 · 10 = 2000 bit/s."""

    sample_rate: int = 16000
    hop: int = 320  # samples a codec frame: 50 frames/s
    parts: int = 2  # STFT frames per codec frame
    n_fft: int = 640  # of the decoder's inverse STFT
    long_window: int = 1024  # samples of the encoder's window for pitch: bins of 16 Hz
    short_window: int = 256  # samples of its window for time: four windows per codec frame
    short_bands: int = 16  # mel bands of the short window
    width: int = 256  # channels of the decoder
    blocks: int = 5  # ConvNeXt blocks of the decoder
    latent: int = 192  # D
    num_codebooks: int = 4  # K
    codebook_size: int = 1024  # V
    restorer: bool = False  # whether `Codec.restore` estimates the latents before quantisation (`Restorer`)
    restore_reach: int = 4  # frames to each side that it uses
    lock_phases: bool = False  # whether the bins of a spectral peak share its phase (`lock_to_peaks`)

    def __post_init__(self):
        check_config(self)


class Block(nn.Module):
    """ConvNeXt block over time (arXiv 2201.03545): depthwise convolution, then a two-layer network on each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        y = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))  # [B, T, width], each from seven frames
        return x + self.scale * self.down(F.gelu(self.up(y)))  # [B, T, 3 · width] in between


class Spectrum(nn.Module):
    """STFT and inverse STFT with exactly `samples / step` frames; frame f is centred at sample (f + 1/2) · step."""

    window: Tensor  # [n_fft]

    def __init__(self, n_fft: int, step: int):
        super().__init__()
        self.n_fft, self.step = n_fft, step
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """[B, samples] -> complex [B, samples / step, n_fft / 2 + 1]."""
        edge = (self.n_fft - self.step) // 2
        frames = F.pad(wav, (edge, edge)).unfold(1, self.n_fft, self.step)  # [B, samples / step, n_fft]
        return torch.fft.rfft(frames * self.window)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Complex [B, F, n_fft / 2 + 1] -> [B, F · step]: windowed overlap-add over that of the squared windows."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window  # [B, F, n_fft]
        envelope = (self.window**2).expand(1, spectrum.shape[1], -1)
        edge = (self.n_fft - self.step) // 2
        return self._overlap(frames)[:, edge:-edge] / self._overlap(envelope)[:, edge:-edge].clamp(min=1e-4)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Overlap-add: [B, F, n_fft] -> [B, (F - 1) · step + n_fft]."""
        length = (frames.shape[1] - 1) * self.step + self.n_fft
        kernel = {"kernel_size": (1, self.n_fft), "stride": (1, self.step)}
        return F.fold(frames.transpose(1, 2), (1, length), **kernel).flatten(1)


class Features(nn.Module):
    """Log spectra of each codec frame, input of the encoder: F = long_window / 2 + 1 + 4 · short_bands numbers, log10.

    - For pitch: the magnitude of each bin of a long window, root mean square over the parts of the frame, weighted by
      (1 + f / 1 kHz)^-0.5, because the ear resolves low frequencies better than high ones.
    - For time: the mel bands of a short window, four times per frame.

    Magnitudes are clamped at 3e-4.
    """

    weight: Tensor  # [long_window / 2 + 1]
    bands: Tensor  # [short_window / 2 + 1, short_bands]

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
        power = self.long(wav).abs().square()  # [B, T · parts, bins]
        long = power.unflatten(1, (-1, self.config.parts)).mean(2).sqrt()  # [B, T, bins]
        short = (self.short(wav).abs() @ self.bands).unflatten(1, (-1, 4)).flatten(2)  # [B, T, 4 · short_bands]
        return torch.cat([_log10(long) * self.weight, _log10(short)], -1)


class Restorer(nn.Module):
    """Estimates the latents before quantisation from the sums of entries q of the frames around.

        z[t] ≈ q[t] + gate[c_0[t]] · (Σ_s A_s q[t + s] + b),   s = -reach … reach

    The quantiser replaces each latent by the mean of all latents with the same codes. The frames around tell more about
    it: the codes of a steady sound, for example, flicker. A and b are a ridge regression. The gate, one number for each
    entry of the first codebook, closes where quantisation loses nothing, as in silence. `recipes/codec/fit.py` fits
    them, and training changes A and b further, with the decoder.
    """

    gate: Tensor  # [V], from 0 to 1

    def __init__(self, config: CodecConfig):
        super().__init__()
        reach = config.restore_reach
        self.linear = nn.Conv1d(config.latent, config.latent, 2 * reach + 1, padding=reach)
        for parameter in self.linear.parameters():  # a new restorer changes nothing
            nn.init.zeros_(parameter)
        self.register_buffer("gate", torch.ones(config.codebook_size))

    def forward(self, q: Tensor, first: Tensor) -> Tensor:
        """Sums of entries [B, T, D] and codes of the first codebook, int64 [B, T] -> latents [B, T, D]."""
        correction = self.linear(q.transpose(1, 2)).transpose(1, 2).float()  # [B, T, D]
        return q + self.gate[first][..., None] * correction


class Codec(HubModel, nn.Module):
    """The compact codec, 16 kHz, 50 frames/s, 4 codebooks of 1024 entries: 2 kb/s.

    The decoder makes each STFT bin as the sum of three materials (after Serra's "deterministic plus stochastic" model,
    ICMC 1989, and Verma and Meng's transients, 1998), because 40 bits per frame cannot carry the phases:

        S[t] = tone[t] · exp(i Σ_{u≤t} turn[u])  +  click[t] · exp(i (phase[t] + drift[t]))  +  hiss[t] · N[t]

    - tone: a sine. Its phase advances from frame to frame by `turn` beyond the bin's own frequency.
    - click: a transient. The decoder gives the phase of each frame.
    - hiss: noise. N is the spectrum of white noise.

    tone² + click² + hiss² is the power of the bin: the decoder gives one magnitude and three shares. The magnitude is
    an outline, linear in three frames of latents, plus a correction by the blocks. The turn is the slope of the log
    magnitude over frequency, plus a correction. The slope alone is right for a windowed sine (phase-gradient formula:
    Průša, Balazs, Søndergaard, "A noniterative method for reconstruction of phase from STFT magnitude", IEEE/ACM TASLP
    25(5), 2017). The drift is a random walk, the same in all bins: without it, equal frames hum at the frame rate.
    """

    def __init__(self, config: CodecConfig | None = None):
        super().__init__()
        self.config = config = config or CodecConfig()
        step, bins = config.hop // config.parts, config.n_fft // 2 + 1
        self.spectrum, self.features = Spectrum(config.n_fft, step), Features(config)
        self.encoder = nn.Linear(self.features.size, config.latent)
        self.quantizer = ResidualVectorQuantizer(config.num_codebooks, config.codebook_size, config.latent)
        self.restorer = Restorer(config) if config.restorer else None
        self.outline = nn.Conv1d(config.latent, config.parts * bins, 3, padding=1)
        self.from_latent = nn.Linear(config.latent, config.width)
        self.decoder = nn.Sequential(*(Block(config.width) for _ in range(config.blocks)), nn.LayerNorm(config.width))
        self.leave = nn.Linear(config.width, config.parts * 6 * bins)
        with torch.no_grad():  # training starts from the outline with little correction and equal shares
            self.leave.weight.mul_(0.1)
            self.leave.bias.zero_()
        turns = torch.arange(bins) * step % config.n_fft / config.n_fft  # of a sine at the bin's frequency, per frame
        self.register_buffer("advance", 2 * torch.pi * turns, persistent=False)
        self.register_buffer("sign", (-1.0) ** torch.arange(bins), persistent=False)  # moves phases to mid-window

    sample_rate = property(lambda self: self.config.sample_rate, doc="Hz.")
    frame_rate = property(lambda self: self.config.sample_rate / self.config.hop, doc="Codec frames a second.")
    num_codebooks = property(lambda self: self.config.num_codebooks, doc="K.")
    codebook_size = property(lambda self: self.config.codebook_size, doc="V.")

    def latents(self, wav: Tensor) -> Tensor:
        """Latents of a waveform, not quantised: [B, 1, samples] -> [B, T, D], T = ceil(samples / hop)."""
        return self.encoder(self.features(wav)).float()

    def materials(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """[B, T, D] -> click, phase, tone, turn, hiss, each [B, T · parts, bins]; magnitudes and radians."""
        outline = self._parts(self.outline(latents.transpose(1, 2)).transpose(1, 2), 1)[0]  # [B, T · parts, bins]
        drawn = self._parts(self.leave(self.decoder(self.from_latent(latents))), 6)  # 6 × [B, T · parts, bins]
        correction, phase, turn, *shares = drawn
        size = outline + correction  # log magnitude
        powers = torch.log_softmax(torch.stack(shares), 0)  # [3, B, T · parts, bins], shares of the power
        click, tone, hiss = (_size(size + power / 2) for power in powers)
        return click, phase, tone, turn + self._slope(size.detach()), hiss

    def _parts(self, x: Tensor, count: int) -> tuple[Tensor, ...]:
        """[B, T, parts · count · bins] -> count times [B, T · parts, bins]."""
        return x.float().unflatten(2, (self.config.parts, count, -1)).flatten(1, 2).unbind(2)

    def _slope(self, size: Tensor) -> Tensor:
        """Turn of each bin by the phase-gradient formula: step · n_fft / γ · d log|S| / d bin, γ = 0.25645 · n_fft²."""
        edged = F.pad(size, (1, 1), mode="replicate")
        slope = (edged[..., 2:] - edged[..., :-2]) / 2
        return self.spectrum.step / (HANN * self.config.n_fft) * slope.clamp(-2, 2)

    def sound(self, materials: tuple[Tensor, ...], noise: Tensor, walk: Tensor) -> Tensor:
        """Waveform [B, 1, T · hop] of the materials.

        No gradient passes to the turns, because one turn changes the phase of all later frames. Their training target
        is the turn of the original (`recipes/codec/losses.py`).

        Args:
            materials: click, phase, tone, turn, hiss, as `materials` returns them.
            noise: white noise of unit variance [B, T · hop], the source of the hiss.
            walk: white noise of unit variance [B, T · parts], the steps of the drift.
        """
        click, phase, tone, turn, hiss = materials
        steps = self.advance + turn.detach()  # [B, T · parts, bins], radians
        running = lock_to_peaks(tone.detach(), steps) if self.config.lock_phases else torch.cumsum(steps, 1)
        drift = DRIFT * walk.cumsum(1)[..., None]  # [B, T · parts, 1]
        spectrum = torch.polar(click, phase + drift) + torch.polar(tone, running) * self.sign
        spectrum = spectrum + hiss * self.spectrum(noise) / self.spectrum.window.square().sum().sqrt()
        return self.spectrum.inverse(spectrum)[:, None]

    def synthesize(self, latents: Tensor) -> Tensor:
        """Waveform of latents, quantised or not: [B, T, D] -> [B, 1, T · hop]. The noise in it is always the same."""
        frames = latents.shape[1]
        noise = white_noise(frames * self.config.hop).to(latents)
        walk = white_noise(frames * self.config.parts, WALK_SEED).to(latents)
        return self.sound(self.materials(latents), noise[None], walk[None])

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] in [-1, 1] at `sample_rate` -> codes int64 [B, K, T].

        Raises:
            MinigenError: not three dimensions, not mono, no samples, or samples that are not finite.
        """
        check_waveform(wav)
        return self.quantizer.encode(self.latents(wav))

    def restore(self, codes: Tensor) -> Tensor:
        """Estimate of the latents before quantisation: codes int64 [B, K', T] -> [B, T, D], K' up to K.

            z ≈ restorer(q),   q = Σ_k e_k[c_k]

        Without a restorer (`CodecConfig.restorer`), or with fewer than K codebooks, it is the sum q itself.
        """
        q = self.quantizer.decode(codes.long())  # [B, T, D]
        if self.restorer is None or codes.shape[1] < self.num_codebooks:  # it is trained on sums of all K entries
            return q
        return self.restorer(q, codes[:, 0].long())

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, T · hop]: `synthesize(restore(codes))`, clamped to [-1, 1].

        Codes of fewer codebooks than K give a coarser sound.

        Raises:
            MinigenError: not three dimensions, not integers, too many codebooks, or a code outside 0..V-1.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        return self.synthesize(self.restore(codes)).clamp(-1, 1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16), each whole or not at all."""
        folder = Path(folder)
        with atomic_file(folder / "model.safetensors") as part:  # gets its name last, after the settings
            save_tensors(part, {name: value.half() for name, value in self.state_dict().items()})
            write_atomically(folder / "config.json", json.dumps(asdict(self.config), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Codec":
        """Load a shipped codec by name or one from a folder, as float32, in eval mode.

        Raises:
            MinigenError: no such codec, or weights that do not fit their config.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = find_model("codec", name)
        try:
            config = CodecConfig(**json.loads((folder / "config.json").read_text("utf-8")))
            check_model(lambda: cls(config), "the codec")
            codec = cls(config)
            codec.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:  # files, shapes, settings
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


def lock_to_peaks(size: Tensor, steps: Tensor) -> Tensor:
    """Running phase in which all bins near a spectral peak have the phase of the peak.

        phase[t, b] = phase[t - 1, p] + steps[t, p],   p = the peak near bin b in frame t

    One sine fills several bins. If each bin adds up its own steps, small errors of the steps move the bins apart, they
    cancel each other at times, and a steady tone flutters. Phase locking of the phase vocoder: Laroche and Dolson,
    "Improved phase vocoder time-scale modification of audio", IEEE Trans. Speech and Audio Processing 7(3), 1999.

    size: magnitudes [B, F, bins]; steps: phase advance of each bin, radians [B, F, bins]. Returns radians [B, F, bins].
    """
    bins = torch.arange(size.shape[2], device=size.device)
    near = F.pad(size, (LOCK_REACH, LOCK_REACH), value=-1).unfold(2, 2 * LOCK_REACH + 1, 1)  # [B, F, bins, 5]
    peak = near.argmax(3) - LOCK_REACH + bins  # [B, F, bins], the loudest bin within reach
    peak = peak.gather(2, peak)  # and from there the next loudest: a peak up to 2 · LOCK_REACH bins away
    phase, phases = torch.zeros_like(steps[:, 0]), []
    for t in range(steps.shape[1]):
        phase = (phase + steps[:, t]).gather(1, peak[:, t])  # [B, bins]
        phases.append(phase)
    return torch.stack(phases, 1)


def _size(logarithm: Tensor) -> Tensor:
    """Magnitude exp(x) of an STFT bin, limited smoothly to exp(5) = 148: a sine at full scale reaches 160."""
    return (5 - F.softplus(5 - logarithm)).exp()


def _log10(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=3e-4).log10()


def _mel_bands(window: int, bands: int, rate: int) -> Tensor:
    """Triangular mel filters, [window / 2 + 1, bands], on the CPU even where the model is built on the meta device."""
    from torchaudio.functional import melscale_fbanks

    with torch.device("cpu"):
        return melscale_fbanks(window // 2 + 1, 0.0, rate / 2, bands, rate)


def white_noise(samples: int, first_seed: int = 0) -> Tensor:
    """The first samples of one fixed, endless white noise of unit variance: [samples], in seeded blocks of 16000."""
    seeds = range(first_seed, first_seed - (-samples // 16000))
    return torch.cat([torch.randn(16000, generator=torch.Generator().manual_seed(s)) for s in seeds])[:samples]
