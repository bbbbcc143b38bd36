"""The card of the codec: its data, its settings, and its figures beside those of Opus on the same clips.

    held-out clips --codec, opusenc--> decoded --> mel distance, grain, perplexity of the codebooks, times real time

Opus (RFC 6716) is the codec of calls on the web. It is measured where opusenc and opusdec (Debian's opus-tools) are
installed.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigen.audio import fit_length, load_audio, save_audio
from minigen.display.tables import markdown_table
from minigen.engine.files import write_atomically
from minigen.engine.loop import Loop
from minigen.evaluation.tagger import load_tagger
from minigen.metrics import event_recall
from minigen.recipes.codec.losses import frame_lines, mel_distance, perplexities, roughness_ratio
from minigen.recipes.corpus.real_listener import Listener, Recordings, alone, picture, read_recordings, train_listener
from minigen.recipes.judge.card import held_out
from minigen.recipes.judge.data import frame_labels

Wavs = list[Tensor]  # each [1, 1, samples]
OPUS_RATES = (6, 12)  # kb/s
RECORDED = 5.0  # seconds of a recording, as ESC-10's


def to_peak(wav: Tensor) -> Tensor:
    """The waveform with a peak of 1; silence stays silence."""
    return wav / wav.abs().max().clamp(min=1e-4)


def through(codec) -> Callable[[Tensor], Tensor]:
    """Function that encodes and decodes a waveform [1, 1, samples] with a codec."""
    return lambda wav: codec.decode(codec.encode(wav))[..., : wav.shape[-1]]


def through_latents(codec) -> Callable[[Tensor], Tensor]:
    """As `through`, without quantisation: the decoder gets the encoder's latents."""
    return lambda wav: codec.synthesize(codec.latents(wav)).clamp(-1, 1)[..., : wav.shape[-1]]


def has_opus() -> bool:
    """Whether opusenc and opusdec are installed."""
    return bool(shutil.which("opusenc") and shutil.which("opusdec"))


def through_opus(kbps: int) -> Callable[[Tensor], Tensor]:
    """Function that encodes and decodes a 16 kHz waveform [1, 1, samples] with Opus at a constant bit rate."""

    def run(wav: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            there, packed, back = (str(Path(folder) / name) for name in ("in.wav", "sound.opus", "out.wav"))
            save_audio(there, wav, 16000)
            quiet = {"check": True, "capture_output": True}
            subprocess.run(["opusenc", "--hard-cbr", "--bitrate", str(kbps), there, packed], **quiet)
            subprocess.run(["opusdec", "--rate", "16000", packed, back], **quiet)
            return fit_length(load_audio(back, 16000), wav.shape[-1])

    return run


@torch.no_grad()
def distances(process: Callable[[Tensor], Tensor], wavs: Wavs) -> tuple[float, float]:
    """Mean mel distance and mean roughness ratio of peak-normalised clips after a codec."""
    pairs = [(wav, process(wav)) for wav in map(to_peak, wavs)]
    near = [float(mel_distance(wav, decoded)) for wav, decoded in pairs]
    return float(np.mean(near)), float(np.nanmean([roughness_ratio(wav, decoded) for wav, decoded in pairs]))


def entries_used(codec, wavs: Wavs) -> list[float]:
    """Perplexity of each codebook over all clips together, as a share of its entries."""
    return perplexities(torch.cat([codec.encode(to_peak(wav))[0] for wav in wavs], 1), codec.codebook_size)


def times_real_time(codec, wavs: Wavs) -> float:
    """Seconds of sound encoded and decoded in a second, clip by clip, median over clips."""
    process, speeds = through(codec), []
    for wav in wavs:
        began = time.perf_counter()
        process(wav)
        speeds.append(wav.shape[-1] / codec.sample_rate / (time.perf_counter() - began))
    return float(np.median(speeds))


def figures_table(codec, held_out: dict[str, Wavs]) -> str:
    """Markdown table: a row for each named set of clips, and each codec."""
    titles = ("held-out clips", "codec", "kb/s", "mel distance", "grain", "perplexity of the codebooks")
    rows = []
    rates = OPUS_RATES if has_opus() else ()
    for name, wavs in held_out.items():
        used = " ".join(f"{share:.2f}" for share in entries_used(codec, wavs))
        near, grain = distances(through(codec), wavs)
        clips = f"{name} ({len(wavs)})"
        rows.append([clips, "this one", f"{kbps(codec):g}", f"{near:.3f}", f"{grain:.2f}", used])
        near, grain = distances(through_latents(codec), wavs)
        rows.append([clips, "this one, not quantised", "", f"{near:.3f}", f"{grain:.2f}", ""])
        for rate in rates:
            near, grain = distances(through_opus(rate), wavs)
            rows.append([clips, "Opus", rate, f"{near:.3f}", f"{grain:.2f}", ""])
    return markdown_table(titles, rows)


def grain_table(codec, kinds: dict[str, Wavs]) -> str:
    """Markdown table: mean roughness ratio of each kind of recording after this codec, and after Opus."""
    codecs = {"this one": through(codec)} | {f"Opus {rate}": through_opus(rate) for rate in OPUS_RATES if has_opus()}
    rows = [
        (kind, *(f"{distances(run, wavs)[1]:.2f}" for run in codecs.values()), f"{lines_of(codec, wavs):.1f} dB")
        for kind, wavs in kinds.items()
    ]
    head = ("grain", *codecs, "lines at multiples of the frame rate")
    return markdown_table(head, rows)


def lines_of(codec, wavs: Wavs) -> float:
    """`frame_lines` of clips decoded by a codec, mean over the clips."""
    return float(np.mean([frame_lines(through(codec)(to_peak(wav)), codec.frame_rate) for wav in wavs]))


class Heard(NamedTuple):
    """A share measured on originals, after the codec, and after the codec without quantisation."""

    before: float
    after: float
    not_quantised: float


def losses_table(codec, folder: str | Path, scenes: int = 100, alone_clips: int = 32) -> str:
    """Markdown table of what judges still recognise after a codec, and after the same codec without quantisation.

    folder: of the recordings of ESC-10. The difference of the last two columns is what the quantiser loses.
    """
    listener, held = listener_of(folder)
    rows = {"recordings of fold 4, named by a classifier of the other folds": named(codec, listener, held)}
    for kind in ("chainsaw", "helicopter"):
        rows[f"{kind}s of the corpus, named by it"] = named_alone(codec, listener, kind, alone_clips)
    rows[f"true events of {scenes} corpus clips, detected by the tagger"] = detected(codec, scenes)
    cells = [(name, *(f"{share:.3f}" for share in shares)) for name, shares in rows.items()]
    return markdown_table(("recognised", "before the codec", "after it", "after it, not quantised"), cells)


def listener_of(folder: str | Path, fold: int = 4) -> tuple[Listener, Recordings]:
    """Classifier trained on all folds of ESC-10 but one, and the recordings of that one."""
    recordings = read_recordings(folder)
    return train_listener(recordings.rows(recordings.folds != fold)), recordings.rows(recordings.folds == fold)


def named(codec, listener: Listener, held: Recordings) -> Heard:
    """Share of recordings that a classifier names correctly."""
    samples = int(RECORDED * codec.sample_rate)
    wavs = [to_peak(fit_length(load_audio(path, codec.sample_rate), samples)) for path in held.paths]
    return _named(codec, listener, wavs, held.labels)


def named_alone(codec, listener: Listener, kind: str, clips: int) -> Heard:
    """The same for single events of one kind from the built-in corpus."""
    wavs = [torch.from_numpy(alone(kind, index)[1])[None, None] for index in range(clips)]
    return _named(codec, listener, wavs, torch.full((clips,), listener.kinds.index(kind)))


def _named(codec, listener: Listener, wavs: Wavs, labels: Tensor) -> Heard:
    shares = []
    for process in (lambda wav: wav, through(codec), through_latents(codec)):
        pictures = torch.cat([picture(process(wav)) for wav in wavs])
        shares.append((listener.scores(pictures).argmax(1) == labels).float().mean().item())
    return Heard(*shares)


def detected(codec, count: int, seed: int = 91) -> Heard:
    """Share of the true events of corpus clips that the built-in tagger detects."""
    wavs, scenes, _ = held_out(seed, count)
    true, tagger = torch.stack([frame_labels(scene.events).any(-1) for scene in scenes]), load_tagger()
    shares = []
    for process in (lambda wav: wav, through(codec), through_latents(codec)):
        sounds = torch.cat([process(wav) for wav in wavs.split(1)])
        shares.append(event_recall(tagger.probabilities(sounds), true))
    return Heard(*shares)


def kbps(codec) -> float:
    """Bit rate: frames a second times K times log2 V, in kb/s."""
    return codec.frame_rate * codec.num_codebooks * np.log2(codec.codebook_size) / 1000


@dataclass(frozen=True)
class HeldOut:
    """Held-out clips for the figures of the card: sets by name, recordings by kind, and the folder of recordings."""

    sets: dict[str, Wavs]
    kinds: dict[str, Wavs] = field(default_factory=dict)
    folder: str | Path | None = None


def write_card(
    folder: Path, codec, recipe, curve: list[dict], loop: Loop, data: str, start: str, tested: HeldOut | None
) -> None:
    """Write card.md: the data, the figures on held-out clips, the settings and the losses in training."""
    settings = {**asdict(codec.config), **asdict(recipe), "started from": start or "random weights"}
    settings |= {"parameters": f"{sum(p.numel() for p in codec.parameters()):,}", "steps taken": loop.step}
    settings |= {"minutes taken": f"{loop.seconds / 60:.1f}"}
    lines = [
        "# Compact codec",
        "",
        "Made by `minigen train-codec`; float16.",
        "",
        f"**Data**, equally often: {data}.",
        "",
    ]
    lines += [*_figures(codec, tested), markdown_table(("setting", "value"), settings.items()), ""]
    lines += ["While training, means of 50 steps:", "", _curve(curve), ""]
    write_atomically(folder / "card.md", "\n".join(lines))


def _figures(codec, tested: HeldOut | None) -> list[str]:
    if not tested:
        return []
    speed, threads = times_real_time(codec, next(iter(tested.sets.values()))[:20]), torch.get_num_threads()
    return [
        figures_table(codec, tested.sets), "", *([grain_table(codec, tested.kinds)] if tested.kinds else []), "",
        *([losses_table(codec, tested.folder), ""] if tested.folder else []),
        f"Encoding and decoding: {speed:.0f} times real time on {threads} processor thread(s).", "",
        "The classifier: `minigen/recipes/corpus/real_listener.py`. Mel distance: `mel_distance` in",
        "`minigen/recipes/codec/losses.py`, clips at a peak of 1. Grain: `roughness_ratio` there, the decoded",
        "spectrogram's over the original's.", "",
    ]  # fmt: skip


def _curve(curve: list[dict]) -> str:
    rows = curve[:: max(1, len(curve) // 24)]
    columns = ("step", "minutes", "mel", "spectral", "grain", "texture", "size", "turn", "latent", "discriminator",
               "match")  # fmt: skip
    return markdown_table(columns, [[row.get(name, "") for name in columns] for row in rows])
