"""Training of the compact codec: `minigen train-codec`.

    first     encoder, codebooks, linear part of the restorer, outline     in closed form (`fit.py`)
    then      restorer and decoder     steps on distances (`losses.py`) and against a discriminator (`discriminator.py`)

    codes --restore--> latents --+
                                 +--decoder--> sound, compared with the original
    latents, not quantised ------+

The codes are final before the first step, so language models can be trained on them while the decoder still improves.
Part of each batch is decoded from latents that were never quantised: generators of latents use the same decoder.
Source of the adversarial losses: EnCodec (arXiv 2210.13438, section 3.4).
"""

import math
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minigen.codec import Codec, CodecConfig
from minigen.engine.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from minigen.engine.distributed import device
from minigen.engine.errors import MinigenError
from minigen.engine.files import remove_stale_parts
from minigen.engine.resources import Requirements, announce, fast_bf16, recipe_requirements
from minigen.recipes.codec.card import HeldOut, write_card
from minigen.recipes.codec.data import Crops
from minigen.recipes.codec.discriminator import WINDOWS, Discriminator
from minigen.recipes.codec.fit import add_restorer, fit_codec, fit_restorer
from minigen.recipes.codec.losses import (
    LONG,
    SCALES,
    TEXTURES,
    mel_distance,
    size_distance,
    texture_distance,
    turn_distance,
    window_distances,
)

SAVE_EVERY = 60.0  # seconds between checkpoints
PARTS = ("codec", "averaged", "discriminator", "optimizer", "discriminator_optimizer")


@dataclass(frozen=True)
class CodecRecipe:
    """Budget, optimisers and weights of the losses. Every batch takes the same number of crops from each source."""

    minutes: float = 120.0  # of steps; the learning rate follows it
    steps: int | None = None  # instead of minutes: the same on every machine
    batch_size: int = 6
    unquantised: float = 0.34  # share of each batch that is decoded from latents without quantisation
    crop: int = 30720  # samples; texture needs about two seconds
    learning_rate: float = 5e-4  # of decoder and discriminator; falls to 0 as half a cosine
    clips: int = 700  # of each source, for the fit
    vectors: int = 170_000  # for its k-means
    spectral: float = 4.0
    grain: float = 1.5
    texture: float = 0.3
    size: float = 1.0
    turn: float = 0.5
    latent: float = 0.5  # squared distance of restored latents from those before quantisation
    adversarial: float = 0.05
    match: float = 0.5
    seed: int = 0


def train_codec(
    folder: str | Path,
    sources: dict,
    recipe: CodecRecipe | None = None,
    config: CodecConfig | None = None,
    tested: HeldOut | None = None,
    start: str | Path | None = None,
    progress: bool = True,
) -> Codec:
    """Train the compact codec and write it, with its card, to `folder`; an interrupted run continues.

    From the fit on, `folder` holds a codec whose codes are final.

    Args:
        folder: folder for config.json, model.safetensors and card.md, and for the checkpoint until the end.
        sources: sounds of equal weight by name, each with a length and `load(index)` -> waveform [1, 1, samples].
        recipe: budget and optimisers.
        config: sizes of the codec; by default those of the shipped one, with a restorer and locked phases.
        tested: held-out clips for the figures in the card.
        start: name or folder of a codec to start from. Its codes stay, so its language models stay valid; it gets a
            restorer if it has none.
        progress: show a bar.
    """
    run = _Run(Path(folder), recipe or CodecRecipe(), Codec.from_pretrained(start) if start else None, config)
    announce(_requirements(run, sources), progress)
    run.crops = Crops(list(sources.values()), run.recipe.crop, progress)
    run.begin(progress)
    bar = tqdm(total=100, desc="codec", disable=not progress, bar_format="{l_bar}{bar}| {elapsed}{postfix}")
    while (share := run.share) < 1:
        run.step(share)
        bar.n = min(100, round(100 * run.share, 1))
        bar.set_postfix_str(run.told())
    bar.close()
    run.averaged.cpu().eval().save_pretrained(folder)
    codec = Codec.from_pretrained(folder)  # the card measures the weights as stored, in float16
    data = "; ".join(f"{name} ({len(source)} clips)" for name, source in sources.items())
    write_card(Path(folder), codec, run.recipe, run.state, data, str(start or ""), tested)
    run.checkpoint.unlink(missing_ok=True)
    return codec


def _requirements(run: "_Run", sources: dict) -> Requirements:
    """Memory and time: weights of codec, average and discriminator; clips of 5 s, as ESC-10's, as 16-bit samples."""
    models = (run.codec, run.averaged, run.discriminator)
    parameters = sum(weight.numel() for model in models for weight in model.parameters())
    held = 2 * 5 * run.codec.sample_rate * sum(map(len, sources.values()))
    return recipe_requirements("training the codec", parameters, held, run.recipe.minutes, run.folder)


class _Run:
    """State of a training: codec, its moving average, discriminator, optimisers, steps taken and curve."""

    crops: Crops

    def __init__(self, folder: Path, recipe: CodecRecipe, codec: Codec | None, config: CodecConfig | None):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.folder, self.recipe, self.checkpoint = folder, recipe, folder / CHECKPOINT
        self.device, self.fitted = device(), codec is not None
        self.restorer_fitted = codec is not None and codec.restorer is not None
        if codec is None:
            codec = Codec(config or CodecConfig(restorer=True, lock_phases=True))
        elif not self.restorer_fitted:
            codec = add_restorer(codec)
        self.codec = codec.to(self.device).train()
        self.codec.encoder.requires_grad_(False)
        self.discriminator = Discriminator().to(self.device)
        self.averaged = deepcopy(self.codec)
        rates = {"betas": (0.8, 0.99), "weight_decay": 0.01}
        learns = [weight for weight in self.codec.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(learns, lr=recipe.learning_rate, **rates)
        self.discriminator_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), lr=recipe.learning_rate, **rates
        )
        self.state = {"step": 0, "minutes": 0.0, "curve": []}
        self.saved, self.sums = time.monotonic(), {}

    def begin(self, progress: bool) -> None:
        """Continue from the checkpoint if there is one; otherwise fit the parts that have a closed form."""
        remove_stale_parts(self.folder)
        if self.checkpoint.exists():
            self._resume()
        elif not self.restorer_fitted:
            self._fit(progress)

    @torch.no_grad()
    def _fit(self, progress: bool) -> None:
        """Fit the parts that have a closed form, and round them as in the file: from here on the codes are final."""
        chance = torch.Generator().manual_seed(self.recipe.seed)

        def clips():
            whole = self.crops.whole(self.recipe.clips, self.recipe.seed)
            bar = tqdm(whole, "fit", self.recipe.clips * len(self.crops.sources), disable=not progress)
            return (wav.to(self.device) for wav in bar)

        if self.fitted:
            fit_restorer(self.codec, clips())
        else:
            fit_codec(self.codec, clips, chance, self.recipe.vectors)
        self.codec.save_pretrained(self.folder)
        rounded = Codec.from_pretrained(self.folder).to(self.device).state_dict()
        self.codec.load_state_dict(rounded)
        self.averaged.load_state_dict(rounded)
        self.save()

    @property
    def share(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        state, recipe = self.state, self.recipe
        return state["step"] / recipe.steps if recipe.steps else state["minutes"] / recipe.minutes

    def step(self, share: float) -> None:
        """One update at `share` of the budget."""
        began, state = time.monotonic(), self.state
        self._draw()
        self._set_rates(share)
        wav = self.crops.batch(self.recipe.batch_size, self.rng).to(self.device)
        for name, value in self._learn(wav).items():
            self.sums.setdefault(name, []).append(float(value))
        self._average(min(0.999, (state["step"] + 1) / (state["step"] + 10)))
        state["step"] += 1
        state["minutes"] += (time.monotonic() - began) / 60
        if state["step"] % 50 == 0:
            mean = {name: round(float(np.mean(values)), 4) for name, values in self.sums.items()}
            state["curve"].append({"step": state["step"], "minutes": round(state["minutes"], 2), **mean})
            self.sums = {}
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def _draw(self) -> None:
        """Seed the random numbers of the step, so that a resumed run draws the same ones."""
        self.rng = np.random.default_rng([self.recipe.seed, self.state["step"]])
        self.chance = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.state["step"])

    def told(self) -> str:
        """Text of the progress bar."""
        last = self.state["curve"][-1] if self.state["curve"] else {}
        told = (f"{name} {value:.3f}" for name, value in last.items() if name not in ("step", "minutes"))
        return ", ".join([f"step {self.state['step']}", *told])

    def _learn(self, wav: Tensor) -> dict[str, Tensor]:
        """One step on crops [B, 1, samples]: discriminator, then codec. Returns the parts of the loss."""
        codec, recipe, which = self.codec, self.recipe, int(self.rng.integers(len(WINDOWS)))
        with torch.no_grad():
            latents = codec.latents(wav)  # [B, T, D]
            codes = codec.quantizer.encode(latents)
        coded = len(wav) - round(recipe.unquantised * len(wav))  # clips that are decoded from their codes
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16()):
            restored = codec.restore(codes[:coded])
            materials = codec.materials(torch.cat([restored, latents[coded:]]))
        loss, told, decoded = self._distances(wav, materials)
        latent = (restored - latents[:coded]).square().mean()
        blame = self.discriminator.discriminator_loss(wav, decoded, which)
        self._update(self.discriminator_optimizer, self.discriminator, blame)
        adversarial, match = self.discriminator.generator_loss(wav, decoded, which)
        loss = loss + recipe.latent * latent + recipe.adversarial * adversarial + recipe.match * match
        self._update(self.optimizer, codec, loss)
        return told | {"latent": latent.detach(), "discriminator": blame.detach(), "match": match.detach()}

    def _distances(self, wav: Tensor, materials: tuple) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, its parts, the sound; random windows: three for mel, one for spectral and grain, one for texture."""
        recipe, codec, (click, _, tone, turn, hiss) = self.recipe, self.codec, materials
        scales = [scale for scale in (*SCALES, LONG) if scale[0] <= wav.shape[-1]]
        noise = torch.randn(wav.shape[0], turn.shape[1] * codec.spectrum.step, generator=self.chance).to(wav)
        walk = torch.randn(turn.shape[:2], generator=self.chance).to(wav)
        decoded = codec.sound(materials, noise, walk)[..., : wav.shape[-1]]
        one = int(self.rng.integers(1, len(scales)))
        others = [scales[i] for i in self.rng.permutation([i for i in range(len(scales)) if i != one])[:2]]
        mel, spectral, grain = window_distances(wav, decoded, *scales[one])
        mel = (mel + 2 * mel_distance(wav, decoded, scales=tuple(others))) / 3
        texture = texture_distance(wav, decoded, *TEXTURES[int(self.rng.integers(len(TEXTURES)))])
        true = codec.spectrum(wav[:, 0])
        size = size_distance(true, (click.square() + tone.square() + hiss.square()).sqrt())
        turns = turn_distance(true, turn, codec.advance)
        loss = mel + recipe.spectral * spectral + recipe.grain * grain + recipe.texture * texture
        loss = loss + recipe.size * size + recipe.turn * turns
        told = {"mel": mel, "spectral": spectral, "grain": grain, "texture": texture, "size": size, "turn": turns}
        return loss, {name: value.detach() for name, value in told.items()}, decoded

    def _update(self, optimizer: torch.optim.Optimizer, model: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
            step = self.state["step"]
            raise MinigenError(f"the gradient of step {step} is not finite; the last checkpoint is {self.checkpoint}.")
        optimizer.step()

    def _set_rates(self, share: float) -> None:
        warm = min(1, (self.state["step"] + 1) / 100)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * min(1, share)))

    @torch.no_grad()
    def _average(self, keep: float) -> None:
        for mine, theirs in zip(self.averaged.parameters(), self.codec.parameters(), strict=True):
            mine.lerp_(theirs, 1 - keep)

    def save(self) -> None:
        """Write the checkpoint."""
        self.saved = time.monotonic()
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        save_checkpoint(self.checkpoint, parts | {"state": self.state})

    def _resume(self) -> None:
        saved = load_checkpoint(self.checkpoint, self.device)
        for name in PARTS:
            getattr(self, name).load_state_dict(saved[name])
        self.state = saved["state"]
