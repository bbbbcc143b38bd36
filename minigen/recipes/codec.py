"""How the compact codec was trained: `minigen train-codec`.

Second link's recipe. Three phases share one loss (EnCodec, arXiv 2210.13438, section 3.4, without its adversary):

    loss = |log mel(x) - log mel(y)| over five windows + |STFT(x)^.3 - STFT(y)^.3| + commitment

first without quantisation until the latents mean something, then k-means starts the codebooks on them, then all
together.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from minigen.codec import Codec, CodecConfig
from minigen.device import fast_bf16
from minigen.errors import MinigenError

SCALES = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 128))  # STFT window in samples, mel bands


@dataclass(frozen=True)
class CodecRecipe:
    """Budget and optimiser. Every batch takes the same number of crops from each source of sound."""

    minutes: float = 25.0  # of training proper; the learning rate follows it
    steps: int | None = None  # instead of minutes: the same on every machine
    batch_size: int = 16
    crop: int = 16000  # samples
    learning_rate: float = 8e-4
    plain_share: float = 0.12  # of the budget, before the codebooks start
    commitment: float = 0.25
    seed: int = 0


@lru_cache(maxsize=16)
def _mel(window: int, bands: int, rate: int):
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(rate, n_fft=window, hop_length=window // 4, n_mels=bands, power=1.0)


def mel_distance(x: Tensor, y: Tensor, rate: int = 16000, scales: tuple = SCALES) -> Tensor:
    """Multi-scale log-mel distance of waveforms [B, 1, samples]: mean |log10 mel(x) - log10 mel(y)| over the scales.

    Magnitudes are clamped at 1e-5; 0.3 means a typical band is off by a factor of two.
    """
    mels = [_mel(window, bands, rate) for window, bands in scales]
    return sum((mel(x).clamp(min=1e-5).log10() - mel(y).clamp(min=1e-5).log10()).abs().mean() for mel in mels) / len(
        mels
    )


def _compressed(x: Tensor, window: int) -> Tensor:
    z = torch.stft(x[:, 0], window, window // 4, window=torch.hann_window(window), return_complex=True)
    return (z.real.square() + z.imag.square() + 1e-7) ** 0.15


def spectral_distance(x: Tensor, y: Tensor, window: int) -> Tensor:
    """Mean |STFT(x)^0.3 - STFT(y)^0.3| of magnitudes: what mel bands blur, such as single harmonics."""
    return F.l1_loss(_compressed(x, window), _compressed(y, window))


def roughness(x: Tensor) -> Tensor:
    """Grain of the spectrogram: log10 STFT magnitude (window 512, hop 128) less its 5 × 5 local mean, and that mean.

    Returns [2, B, bins, frames]; the ratio of the standard deviations of two clips says whether noise still has grain.
    """
    z = torch.stft(x[:, 0], 512, 128, window=torch.hann_window(512), return_complex=True).abs().clamp(min=1e-5).log10()
    mean = F.avg_pool2d(z[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
    return torch.stack([z - mean, mean])


def roughness_ratio(original: Tensor, decoded: Tensor) -> float:
    """Standard deviation of the decoded clip's grain over the original's, where the original's mean is above -3."""
    grain, mean = roughness(original)
    loud = mean > -3
    return float(roughness(decoded)[0][loud].std() / grain[loud].std())


class _Crops:
    """Random crops from corpora held in memory as 16-bit samples, each corpus equally often."""

    def __init__(self, corpora: list, crop: int, progress: bool):
        self.crop, self.sources = crop, []
        for corpus in corpora:
            load = tqdm(range(len(corpus)), desc="loading", disable=not progress)
            wavs = [(corpus.load(i)[0, 0].clamp(-1, 1) * 32767).short() for i in load]
            self.sources.append([w for w in wavs if len(w) >= crop])
        if not all(self.sources):
            raise MinigenError(f"a source of sound has no clip of at least {crop} samples. Give longer clips.")

    def batch(self, size: int, rng: np.random.Generator) -> Tensor:
        """[size, 1, crop]; levels are random (peak 0.1 to 1), since the codec must not expect one."""
        rows = []
        for i in range(size):
            source = self.sources[i % len(self.sources)]
            wav = source[rng.integers(len(source))]
            first = rng.integers(len(wav) - self.crop + 1)
            row = wav[first : first + self.crop].float() / 32767
            rows.append(row / row.abs().max().clamp(min=0.02) * 10 ** rng.uniform(-1, 0))
        return torch.stack(rows)[:, None]


def train_codec(
    folder: str | Path,
    corpora: list,
    recipe: CodecRecipe | None = None,
    config: CodecConfig | None = None,
    held_out: list | None = None,
    progress: bool = True,
) -> Codec:
    """Train the compact codec on corpora and write it, with its card, to `folder`; an interrupted run goes on.

    Args:
        folder: where config.json, model.safetensors and card.md go; the checkpoint lies beside them until the end.
        corpora: `Corpus` objects (sources of equal weight).
        recipe: budget and optimiser.
        config: sizes of the codec.
        held_out: waveforms [1, 1, samples] for the card's figures.
        progress: show a bar.
    """
    recipe, folder = recipe or CodecRecipe(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    codec = Codec(config)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=recipe.learning_rate, betas=(0.8, 0.99), weight_decay=0.01)
    crops = _Crops(corpora, recipe.crop, progress)
    state = _resume(folder / "checkpoint.pt", codec, optimizer)
    generator = torch.Generator().manual_seed(recipe.seed + state["step"])
    rng = np.random.default_rng([recipe.seed, state["step"]])
    bar = tqdm(total=100, desc="codec", disable=not progress, bar_format="{l_bar}{bar}| {elapsed}{postfix}")
    last_save = time.monotonic()
    while (share := _share(state, recipe)) < 1:
        began = time.monotonic()
        quantise = share >= recipe.plain_share
        if quantise and not state["started"]:
            _start(codec, crops, recipe, rng, generator)
            state["started"] = True
        for group in optimizer.param_groups:
            group["lr"] = (
                recipe.learning_rate * min(1, (state["step"] + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * share))
            )
        distance = _step(codec, optimizer, crops.batch(recipe.batch_size, rng), quantise, recipe, rng, generator)
        state["step"] += 1
        state["minutes"] += (time.monotonic() - began) / 60
        if state["step"] % 50 == 0:
            state["curve"].append((round(state["minutes"], 2), round(distance, 4)))
        bar.n = min(100, round(100 * _share(state, recipe), 1))
        bar.set_postfix_str(f"step {state['step']}, mel distance {distance:.3f}")
        if time.monotonic() - last_save > 60:
            _save(folder / "checkpoint.pt", codec, optimizer, state)
            last_save = time.monotonic()
    bar.close()
    codec.eval().save_pretrained(folder)
    codec = Codec.from_pretrained(folder)  # the figures are those of the rounded weights
    _write_card(folder, codec, recipe, state, held_out or [])
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return codec


def _share(state: dict, recipe: CodecRecipe) -> float:
    """How much of the budget is used, 0 to 1."""
    return state["step"] / recipe.steps if recipe.steps else state["minutes"] / recipe.minutes


def _step(codec, optimizer, wav, quantise, recipe, rng, generator) -> float:
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        if quantise:
            decoded, _, commitment = codec(wav, generator)
        else:
            decoded, commitment = codec.synthesize(codec.latents(wav)), 0.0
    some = [SCALES[i] for i in rng.permutation(len(SCALES))[:3]]  # a random three of five cost less and average out
    distance = mel_distance(wav, decoded, scales=some)
    loss = distance + 2 * spectral_distance(wav, decoded, rng.choice([512, 1536])) + recipe.commitment * commitment
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
    optimizer.step()
    return float(distance.detach())


@torch.no_grad()
def _start(codec, crops, recipe, rng, generator) -> None:
    """k-means on the latents of enough crops to give every entry several vectors."""
    needed = 8 * codec.codebook_size * codec.config.hop // (recipe.crop * recipe.batch_size) + 1
    latents = [codec.latents(crops.batch(recipe.batch_size, rng)).flatten(0, 1) for _ in range(needed)]
    codec.quantizer.start(torch.cat(latents), generator)


def _buffers(codec) -> list[Tensor]:
    return [t for stage in codec.quantizer.stages for t in (stage.counts, stage.sums)]


def _save(path: Path, codec, optimizer, state) -> None:
    aside = path.with_suffix(".new")
    parts = {
        "codec": codec.state_dict(),
        "buffers": _buffers(codec),
        "optimizer": optimizer.state_dict(),
        "state": state,
    }
    torch.save(parts, aside)
    aside.replace(path)


def _resume(path: Path, codec, optimizer) -> dict:
    if not path.exists():
        return {"step": 0, "minutes": 0.0, "started": False, "curve": []}
    saved = torch.load(path, weights_only=True)
    codec.load_state_dict(saved["codec"])
    optimizer.load_state_dict(saved["optimizer"])
    for mine, theirs in zip(_buffers(codec), saved["buffers"], strict=True):
        mine.copy_(theirs)
    return saved["state"]


@torch.no_grad()
def codec_figures(codec, wavs: list[Tensor]) -> dict[str, float]:
    """Figures on waveforms [1, 1, samples] at the codec's rate, each brought to a peak of 1.

    Returns mel distance, roughness ratio (median over clips), and the perplexity of each codebook as a share of V.
    """
    distances, ratios, codes = [], [], []
    for wav in wavs:
        wav = wav / wav.abs().max().clamp(min=1e-4)
        code = codec.encode(wav)
        decoded = codec.decode(code)[..., : wav.shape[-1]]
        distances.append(float(mel_distance(wav, decoded)))
        ratios.append(roughness_ratio(wav, decoded))
        codes.append(code[0])
    figures = {"mel_distance": float(np.mean(distances)), "roughness_ratio": float(np.nanmedian(ratios))}
    for k, stream in enumerate(torch.cat(codes, 1)):
        share = torch.bincount(stream, minlength=codec.codebook_size).double() / stream.numel()
        figures[f"perplexity_{k}"] = float(torch.exp(-torch.special.xlogy(share, share).sum())) / codec.codebook_size
    return figures


def _write_card(folder: Path, codec, recipe, state, held_out) -> None:
    lines = [
        "# Compact codec",
        "",
        "Made by `minigen train-codec`; data and licences are named by the command that ran it.",
        "",
    ]
    lines += ["| setting | value |", "|---|---|"]
    lines += [f"| {k} | {v} |" for k, v in {**asdict(codec.config), **asdict(recipe)}.items()]
    lines += [f"| parameters | {sum(p.numel() for p in codec.parameters()):,} |"]
    lines += [f"| steps taken | {state['step']} |", f"| minutes taken | {state['minutes']:.1f} |", ""]
    if held_out:
        lines += [f"On {len(held_out)} held-out clips:", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value:.3f} |" for name, value in codec_figures(codec, held_out).items()] + [""]
    lines += [
        "Mel distance while training (minutes, distance):",
        "",
        json.dumps(state["curve"][:: max(1, len(state["curve"]) // 20)]),
    ]
    (folder / "card.md").write_text("\n".join(lines) + "\n")
