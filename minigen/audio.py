"""Sound in and out: read any file as mono float32, write it, change its rate and length, look at its mel spectrogram.

    file (any rate, channels, subtype) --load_audio--> wav [1, 1, samples] in [-1, 1] --log_mel--> picture [B, bands, F]
    file (16-bit wav or flac)          <--save_audio--

The first link of the chain: everything after it sees float32 waveforms [B, 1, samples]. Files are read and written with
`soundfile` (torchaudio's `load` and `save` need FFmpeg); torchaudio resamples and makes the mel spectrogram.
"""

import io
import math
import os
import re
from fractions import Fraction
from functools import lru_cache
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.sound_file import count_frames, open_sound, read_frames

SAMPLE_RATE = 16000
MAX_RATE = 655_350  # Hz, the largest rate in flac's header
# Formats that libsndfile reads, the preferred ones first; and usual formats that it does not read.
AUDIO_SUFFIXES = (".wav", ".flac", ".aiff", ".aif", ".aifc", ".w64", ".rf64", ".caf", ".au", ".snd", ".ogg", ".oga",
                  ".opus", ".mp3", ".wave")  # fmt: skip
FOREIGN_SUFFIXES = (".m4a", ".webm", ".mp4", ".aac", ".wma", ".mkv", ".mka", ".3gp", ".amr", ".ape", ".wv")
WRITABLE = {".wav": "WAV", ".flac": "FLAC"}


class AudioError(MinigenError):
    """A recording that cannot be used.

    Attributes:
        reason: one or two words to count by: "missing", "empty", "not audio", "truncated", "not finite", "silent", ...
    """

    def __init__(self, reason: str, text: str):
        super().__init__(text)
        self.reason = reason


def load_audio(
    source: str | Path | bytes, sample_rate: int = SAMPLE_RATE, start: float = 0.0, seconds: float | None = None
) -> Tensor:
    """Read a recording of any rate, channel count and sample format as mono float32 [1, 1, samples].

    Channels are averaged, the rate is changed to `sample_rate` Hz, and a recording that exceeds [-1, 1] is scaled back
    into it. Only the part asked for is read.

    Args:
        source: a path, or the bytes of a whole file.
        sample_rate: rate of the result, Hz.
        start: time to start from, seconds.
        seconds: length to read; None reads to the end. A shorter recording is not padded.

    Raises:
        AudioError: missing, not audio, empty, truncated, holding NaN or infinity, or over before `start`.
        MinigenError: `seconds` is not above 0, `start` no number, or `sample_rate` no whole number above 0.
    """
    name = "these bytes" if isinstance(source, bytes) else f"{source}"
    if seconds is not None and not 0 < seconds < math.inf:
        raise MinigenError(f"cannot read {seconds} s of {name}. Ask for more than 0 s.")
    if not math.isfinite(start):
        raise MinigenError(f"cannot begin to read {name} at {start} s. Give a number of seconds.")
    _check_rate(sample_rate)
    rate, frames = check_audio(source)
    first = round(start * rate)
    if not 0 <= first < frames:
        raise AudioError("too short", f"{name} lasts {frames / rate:.2f} s: nothing at {start} s. Start earlier.")
    count = frames - first if seconds is None else min(frames - first, max(1, round(seconds * rate)))
    wav = torch.from_numpy(_read(source, name, first, count)).mean(1).view(1, 1, -1)
    if not torch.isfinite(wav).all():
        raise AudioError("not finite", f"{name} holds NaN or infinite samples. Use another recording.")
    wav = resample(wav, rate, sample_rate)
    return wav / wav.abs().max().clamp(min=1.0)


def check_waveform(wav: Tensor) -> None:
    """MinigenError unless a waveform is [B, 1, samples], not empty, and finite."""
    if wav.ndim != 3 or wav.shape[1] != 1 or wav.numel() == 0:
        raise MinigenError(f"a waveform is [B, 1, samples] with B and samples > 0, got {list(wav.shape)}.")
    if not wav.is_floating_point() or not wav.isfinite().all():
        raise MinigenError(f"a waveform is float32 in [-1, 1], got {wav.dtype} or samples that are no numbers.")


def _check_rate(sample_rate: int, most: float = math.inf) -> None:
    if not isinstance(sample_rate, Integral) or not 0 < sample_rate <= most:
        raise MinigenError(f"the sample rate is {sample_rate!r}. Give a whole number of Hz, such as {SAMPLE_RATE}.")


def check_audio(source: str | Path | bytes) -> tuple[int, int]:
    """Look at a recording's header: -> (rate in Hz, frames). Nothing is decoded where the header knows the length.

    libsndfile shortens a wav whose data ends early without an error, so the sizes in its log are compared too.

    Raises:
        AudioError: missing, not audio, empty, truncated.
    """
    import soundfile

    name = "these bytes" if isinstance(source, bytes) else f"{source}"
    if not isinstance(source, bytes):
        _check_file(Path(source))
    try:
        with open_sound(source) as file:
            rate, frames, log = file.samplerate, count_frames(file), file.extra_info
    except (soundfile.LibsndfileError, OSError, TypeError) as error:
        raise AudioError("not audio", f"{name} is not a readable sound file. {_advice(name)}") from error
    if _ends_early(log):
        raise AudioError("truncated", f"{name} ends before the length its header promises. Fetch it again.")
    if frames < 1:
        raise AudioError("empty", f"{name} holds no samples. Use another recording.")
    if not 1000 <= rate <= 1_000_000:
        raise AudioError("not audio", f"{name} claims a rate of {rate} Hz. Use 1 kHz to 1 MHz.")
    return rate, frames


def _advice(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix in FOREIGN_SUFFIXES:
        return f"{suffix} needs FFmpeg: convert it with `ffmpeg -i FILE{suffix} FILE.flac`."
    return "Use wav, flac, ogg or mp3."


def _check_file(path: Path) -> None:
    if not os.path.exists(path):
        raise AudioError("missing", f"there is no file {path}. Check the path.")
    if not os.path.isfile(path):
        raise AudioError("not a file", f"{path} is a folder, not a sound file. Name a file.")
    if path.stat().st_size == 0:
        raise AudioError("empty", f"{path} is an empty file. Use another recording.")


def _ends_early(log: str) -> bool:
    """True where libsndfile's log of the header shows fewer bytes of samples than promised.

    A length of 2 GiB or more means that it is unknown: programs that write to a pipe use it.
    """
    sizes = re.search(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    short = sizes is not None and int(sizes[2]) + 1 < int(sizes[1]) < 0x7FFF0000
    return short or "File ended unexpectedly" in log


def _read(source: str | Path | bytes, name: str, first: int, count: int):
    """`count` frames from frame `first`: float32 [frames, channels]. Some decoders omit a few: up to 5 % may miss."""
    import soundfile

    try:
        samples = read_frames(source, first, count)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError("truncated", f"{name} breaks off while it is read. Fetch it again.") from error
    if len(samples) < 0.95 * count:
        raise AudioError("truncated", f"{name} ends after {len(samples)} of {count} samples. Fetch it again.")
    return samples


def save_audio(path: str | Path, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> None:
    """Write one waveform as a 16-bit wav or flac (by suffix), clipped to [-1, 1]; parent folders are made.

    The file is written aside and then renamed: a reader sees the whole file or none.

    Args:
        path: output file; an existing file is replaced.
        wav: [samples], [1, samples] or [1, 1, samples].
        sample_rate: Hz.

    Raises:
        MinigenError: another shape or suffix, integers, no samples, NaN or infinity, a rate that files do not have, or
            a place that cannot be written.
    """
    import soundfile

    path, wav = Path(path), torch.as_tensor(wav).detach().cpu()
    check_floats(wav)
    wav = wav.float()
    if path.suffix.lower() not in WRITABLE:
        raise MinigenError(f"cannot write {path.suffix or 'no suffix'!r} ({path}). End the name in .wav or .flac.")
    if wav.ndim == 0 or wav.numel() == 0 or wav.numel() != wav.shape[-1]:
        raise MinigenError(f"cannot write a waveform of shape {list(wav.shape)} to {path}. Give one clip.")
    if not torch.isfinite(wav).all():
        raise MinigenError(f"the waveform for {path} holds NaN or infinity. Check the model that made it.")
    _check_rate(sample_rate, MAX_RATE)
    encoded = io.BytesIO()
    samples = wav.flatten().clamp(-1, 1).numpy()
    soundfile.write(encoded, samples, sample_rate, "PCM_16", format=WRITABLE[path.suffix.lower()])
    write_atomically(path, encoded.getvalue())


def check_floats(wav: Tensor) -> None:
    """Raise MinigenError unless the samples are floating-point numbers: integers have another range than [-1, 1]."""
    if not wav.is_floating_point():
        raise MinigenError(f"the waveform is {wav.dtype}. Give floats in [-1, 1]: divide 16-bit samples by 32768.")


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate by windowed-sinc interpolation: [..., n] -> [..., ceil(n * to_rate / from_rate)].

    The ratio is rounded to a denominator of at most 1000 (exact for all usual rates, else within a millionth or so):
    the filter bank grows with it, and 44101 to 16000 Hz would take gigabytes.
    """
    from torchaudio.functional import resample as sinc

    ratio = Fraction(from_rate, to_rate).limit_denominator(1000)
    return wav if ratio == 1 else sinc(wav, ratio.numerator, ratio.denominator)


def fit_length(wav: Tensor, samples: int) -> Tensor:
    """Trim the end, or pad it with zeros: [..., any] -> [..., samples]."""
    wav = wav[..., :samples]
    return torch.nn.functional.pad(wav, (0, samples - wav.shape[-1]))


def peak_normalize(wav: Tensor, peak: float = 0.9) -> Tensor:
    """Scale each clip so that its largest sample is `peak`; silence stays silence. [..., samples] -> the same shape."""
    loudest = wav.abs().amax(-1, keepdim=True)
    return torch.where(loudest > 0, wav * peak / loudest.clamp(min=1e-9), wav)


def log_mel(wav: Tensor, sample_rate: int = SAMPLE_RATE, bands: int = 64, n_fft: int = 1024, hop: int = 320) -> Tensor:
    """Log-mel spectrogram, log10(max(power, 1e-5)): [B, 1, samples] -> float32 [B, bands, samples // hop + 1].

    Power of a Hann-windowed Fourier transform of `n_fft` samples every `hop` samples (20 ms), centred on its frame,
    summed into `bands` triangular filters spaced evenly on the mel scale from 0 Hz to half the rate. Values from -5
    (silence) to about 4. A clip shorter than `n_fft` is padded with zeros to `n_fft` first.
    """
    wav = wav.squeeze(1)
    if wav.shape[-1] < n_fft:
        wav = fit_length(wav, n_fft)
    transform = _mel_transform(sample_rate, bands, n_fft, hop, wav.device)
    return transform(wav).clamp(min=1e-5).log10()


@lru_cache(maxsize=8)
def _mel_transform(sample_rate: int, bands: int, n_fft: int, hop: int, device: torch.device):
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(sample_rate, n_fft, hop_length=hop, n_mels=bands).to(device)
