"""Training of the compact codec: `minigen train-codec`.

    first     encoder, codebooks, restorer, outline     in closed form (`fit.py`)
    then      decoder and restorer                      in steps, on distances (`losses.py`) and a discriminator

    codes --restore--> latents --+
                                 +--decoder--> sound, compared with the original
    latents, not quantised ------+

The codes are final before the first step, so language models can be trained on them while the decoder still improves.
Part of each batch is decoded from latents that were never quantised: generators of latents use the same decoder.
Source of the adversarial losses: EnCodec (arXiv 2210.13438, section 3.4).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minigen.codec import Codec, CodecConfig
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.distributed import device
from minigen.engine.errors import MinigenError
from minigen.engine.loop import Loop
from minigen.engine.resources import Requirements, announce, fast_bf16, recipe_requirements
from minigen.optim import Ema, cosine, set_rate
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

PARTS = ("codec", "discriminator", "optimizer", "discriminator_optimizer")
DECAY = 0.999  # of the moving average of the weights
WARMUP = 100  # steps
FURTHER = 0.4  # learning rate for a codec that is trained already, relative to that for a new one
POINT = 50  # steps per point of the curve


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
    latent: float = 3.0  # squared distance of restored latents from those before quantisation
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
    recipe, loaded = recipe or CodecRecipe(), Codec.from_pretrained(start) if start else None
    training = _Training(Path(folder), recipe, loaded, config)
    announce(_requirements(training, sources), progress)
    crops = Crops(list(sources.values()), recipe.crop, progress)
    training.run(crops, progress)
    training.averaged().save_pretrained(folder)
    codec = Codec.from_pretrained(folder)  # the card measures the weights as stored, in float16
    data = "; ".join(f"{name} ({len(source)} clips)" for name, source in sources.items())
    write_card(Path(folder), codec, recipe, training.curve, training.loop, data, str(start or ""), tested)
    training.loop.checkpoint.unlink(missing_ok=True)
    return codec


def _requirements(training: "_Training", sources: dict) -> Requirements:
    """Memory and time: weights of codec, average and discriminator; clips of 5 s, as ESC-10's, as 16-bit samples."""
    models = (training.codec, training.codec, training.discriminator)  # the average is as large as the codec
    parameters = sum(weight.numel() for model in models for weight in model.parameters())
    held = 2 * 5 * training.codec.sample_rate * sum(map(len, sources.values()))
    return recipe_requirements("training the codec", parameters, held, training.recipe.minutes, training.folder)


def _groups(codec: Codec) -> list[dict]:
    """Parameters that are trained; the restorer, which starts from its optimum on latents, at a tenth of the rate."""
    learned = [(name, weight) for name, weight in codec.named_parameters() if weight.requires_grad]
    decoder = [weight for name, weight in learned if not name.startswith("restorer.")]
    restorer = [weight for name, weight in learned if name.startswith("restorer.")]
    return [{"params": decoder}, {"params": restorer, "share": 0.1}]


class _Training:
    """Codec, moving average of its weights, discriminator, optimisers and curve of one training."""

    def __init__(self, folder: Path, recipe: CodecRecipe, codec: Codec | None, config: CodecConfig | None):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.folder, self.recipe, self.device = folder, recipe, device()
        self.has_codes = codec is not None
        self.has_restorer = codec is not None and codec.restorer is not None
        if codec is None:
            codec = Codec(config or CodecConfig(restorer=True, lock_phases=True))
        elif not self.has_restorer:
            codec = add_restorer(codec)
        self.codec = codec.to(self.device).train()
        self.codec.encoder.requires_grad_(False)
        self.discriminator = Discriminator().to(self.device)
        rates = {"lr": recipe.learning_rate, "betas": (0.8, 0.99), "weight_decay": 0.01}
        self.optimizer = torch.optim.AdamW(_groups(self.codec), **rates)
        self.discriminator_optimizer = torch.optim.AdamW(self.discriminator.parameters(), **rates)
        self.ema, self.curve = Ema(self.codec, DECAY), []

    def run(self, crops: Crops, progress: bool) -> None:
        """Fit what has a closed form, then take steps until the budget is spent; continue from a checkpoint."""
        recipe, recent = self.recipe, []
        identity = f"{recipe} {self.codec.config}"
        self.loop = loop = Loop(
            self.folder / CHECKPOINT, identity, self.state, recipe.steps, recipe.minutes, "codec", progress=progress
        )
        if saved := loop.resume(self.device):
            self.load(saved)
        elif not self.has_restorer:
            self.fit(crops, progress)
            loop.save()
        for share in loop:
            recent.append(self.step(crops, loop.step, share))
            if loop.step % POINT == POINT - 1:
                mean = {name: round(float(np.mean([row[name] for row in recent])), 4) for name in recent[0]}
                self.curve.append({"step": loop.step + 1, "minutes": round(loop.elapsed() / 60, 2), **mean})
                loop.show(", ".join(f"{name} {value:.3f}" for name, value in mean.items()))
                recent = []

    @torch.no_grad()
    def fit(self, crops: Crops, progress: bool) -> None:
        """Fit the parts that have a closed form, and round them as in the file: from here on the codes are final."""
        chance = torch.Generator().manual_seed(self.recipe.seed)

        def clips():
            whole = crops.whole(self.recipe.clips, self.recipe.seed)
            bar = tqdm(whole, "fit", self.recipe.clips * len(crops.sources), disable=not progress)
            return (wav.to(self.device) for wav in bar)

        if self.has_codes:
            fit_restorer(self.codec, clips())
        else:
            fit_codec(self.codec, clips, chance, self.recipe.vectors)
        self.codec.save_pretrained(self.folder)
        self.codec.load_state_dict(Codec.from_pretrained(self.folder).to(self.device).state_dict())
        self.ema = Ema(self.codec, DECAY)

    def step(self, crops: Crops, number: int, share: float) -> dict[str, float]:
        """One update at `share` of the budget. Its random numbers depend on seed and number alone."""
        self.rng = np.random.default_rng([self.recipe.seed, number])
        self.chance = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + number)
        peak = self.recipe.learning_rate * (FURTHER if self.has_codes else 1.0)
        set_rate(self.optimizer, peak * min(1, (number + 1) / WARMUP) * cosine(share))
        wav = crops.batch(self.recipe.batch_size, self.rng).to(self.device)
        parts = self._learn(wav)
        self.ema.update(self.codec)
        return {name: float(value) for name, value in parts.items()}

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
            raise MinigenError(f"the gradient is not finite; the last checkpoint is {self.folder / CHECKPOINT}.")
        optimizer.step()

    def averaged(self) -> Codec:
        """The codec with the moving average of the weights, on the CPU."""
        codec = Codec(self.codec.config)
        codec.load_state_dict(self.ema.weights)
        return codec.eval()

    def state(self) -> dict:
        """Everything that the next step depends on."""
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        return {**parts, "averaged": self.ema.weights, "updates": self.ema.updates, "curve": self.curve}

    def load(self, saved: dict) -> None:
        """Set the state from a checkpoint."""
        for name in PARTS:
            getattr(self, name).load_state_dict(saved[name])
        self.ema.weights, self.ema.updates, self.curve = saved["averaged"], saved["updates"], saved["curve"]
