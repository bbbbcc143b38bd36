"""How the compact codec was trained: `minigen train-codec`. Four stages, in one run.

    share of the budget   what learns              loss
    0 .. plain            encoder, decoder         distances (`codec_losses.py`); nothing is quantised yet
    plain                 codebooks                k-means on those latents
    plain .. freeze       all                      distances + commitment + crowding
    freeze .. 1           decoder                  distances + critic (`critic.py`): the codes are final from here on

The last stage leaves the codes as they are (it draws what an average lacks: grain, lines), so a language model may be
trained on them while the decoder still improves. Source: EnCodec (arXiv 2210.13438, section 3.4).
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

from minigen.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from minigen.codec import Codec, CodecConfig
from minigen.device import fast_bf16
from minigen.errors import MinigenError
from minigen.files import sweep
from minigen.limits import Need, recipe_need, say
from minigen.processes import device
from minigen.recipes.codec_card import HeldOut, write_card
from minigen.recipes.codec_data import Crops
from minigen.recipes.codec_losses import SCALES, crowding, mel_distance, size_distance, turn_distance, window_distances
from minigen.recipes.critic import WINDOWS, Critic

SAVE_EVERY = 60.0  # seconds between checkpoints


@dataclass(frozen=True)
class CodecRecipe:
    """Budget, optimisers and weights of the losses. Every batch takes the same number of crops from each source."""

    minutes: float = 120.0  # of training proper; the stages and the learning rate follow it
    steps: int | None = None  # instead of minutes: the same on every machine
    batch_size: int = 12
    crop: int = 16000  # samples
    learning_rate: float = 5e-4  # falls to a tenth until the freeze
    critic_rate: float = 5e-4  # of the decoder and its critic, after the freeze
    plain: float = 0.08  # share of the budget; 0 where weights are given to start with
    freeze: float = 0.5  # share of the budget; 0 keeps the codes of the codec to start with
    spectral: float = 4.0
    grain: float = 1.5
    size: float = 1.0
    turn: float = 0.5
    commitment: float = 0.25
    crowding: float = 0.2
    critic: float = 0.05
    match: float = 0.5
    dead_below: float = 0.25  # moving average of uses a step under which an entry is replaced
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
    """Train the compact codec and write it, with its card, to `folder`; an interrupted run goes on.

    From the freeze on, `folder` holds a codec whose codes are final.

    Args:
        folder: where config.json, model.safetensors and card.md go; the checkpoint lies beside them until the end.
        sources: sounds of equal weight by name, each with a length and `load(index)` -> waveform [1, 1, samples].
        recipe: budget and optimisers.
        config: sizes of the codec.
        tested: held-out clips for the card's figures.
        start: name or folder of a codec whose weights to begin with, past the plain stage.
        progress: show a bar.
    """
    run = _Run(Path(folder), recipe or CodecRecipe(), Codec.from_pretrained(start) if start else None, config)
    say(_need(run, sources), progress)
    run.resume()
    run.crops = Crops(list(sources.values()), run.recipe.crop, progress)
    bar = tqdm(total=100, desc="codec", disable=not progress, bar_format="{l_bar}{bar}| {elapsed}{postfix}")
    while (share := run.share) < 1:
        run.step(share)
        bar.n = min(100, round(100 * run.share, 1))
        bar.set_postfix_str(run.told())
    bar.close()
    run.averaged.cpu().eval().save_pretrained(folder)
    codec = Codec.from_pretrained(folder)  # the figures are those of the rounded weights
    data = "; ".join(f"{name} ({len(source)} clips)" for name, source in sources.items())
    write_card(Path(folder), codec, run.recipe, run.state, data, str(start or ""), tested)
    run.checkpoint.unlink(missing_ok=True)
    return codec


def _need(run: "_Run", sources: dict) -> Need:
    """Weights of codec, average and critic; clips held as 16-bit samples, of 5 s each as ESC-10's are."""
    models = (run.codec, run.averaged, run.critic)
    parameters = sum(weight.numel() for model in models for weight in model.parameters())
    held = 2 * 5 * run.codec.sample_rate * sum(map(len, sources.values()))
    return recipe_need("training the codec", parameters, held, run.recipe.minutes, run.folder)


class _Run:
    """One training: codec, critic, their optimisers, and where the run stands."""

    crops: Crops

    def __init__(self, folder: Path, recipe: CodecRecipe, codec: Codec | None, config: CodecConfig | None):
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)
        self.folder, self.recipe, self.checkpoint = folder, recipe, folder / CHECKPOINT
        self.device = device()
        self.codec = (codec or Codec(config)).to(self.device).train()
        self.critic = Critic().to(self.device)
        self.averaged = deepcopy(self.codec)
        self.plain = 0.0 if codec else recipe.plain
        rates = {"betas": (0.8, 0.99), "weight_decay": 0.01}
        self.optimizer = torch.optim.AdamW(self.codec.parameters(), lr=recipe.learning_rate, **rates)
        self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), lr=recipe.critic_rate, **rates)
        self.state = {"step": 0, "minutes": 0.0, "quantised": codec is not None, "frozen": False, "curve": []}
        self.saved, self.sums = time.monotonic(), {}
        for stage in self.codec.quantizer.stages:
            stage.dead_below = recipe.dead_below
            stage.settle()

    @property
    def share(self) -> float:
        """How much of the budget is used, 0 to 1."""
        state, recipe = self.state, self.recipe
        return state["step"] / recipe.steps if recipe.steps else state["minutes"] / recipe.minutes

    def step(self, share: float) -> None:
        """One update at `share` of the budget."""
        began, state, recipe = time.monotonic(), self.state, self.recipe
        self._draw()
        if share >= self.plain and not state["quantised"]:
            self._start_codebooks()
        if share >= recipe.freeze and not state["frozen"]:
            self._freeze()
        self._set_rates(share)
        wav = self.crops.batch(recipe.batch_size, self.rng).to(self.device)
        losses = self._against_critic(wav) if state["frozen"] else self._with_distances(wav)
        self._average(0.0 if state["step"] < 1000 and not state["frozen"] else 0.999)
        for name, value in losses.items():
            self.sums.setdefault(name, []).append(float(value))
        state["step"] += 1
        state["minutes"] += (time.monotonic() - began) / 60
        if state["step"] % 50 == 0:
            mean = {name: round(float(np.mean(values)), 4) for name, values in self.sums.items()}
            state["curve"].append({"step": state["step"], "minutes": round(state["minutes"], 2), **mean})
            self.sums = {}
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def _draw(self) -> None:
        """Chance that belongs to the step: a resumed run draws what it would have drawn."""
        self.rng = np.random.default_rng([self.recipe.seed, self.state["step"]])
        self.chance = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.state["step"])

    def told(self) -> str:
        """What the progress bar says."""
        last = self.state["curve"][-1] if self.state["curve"] else {}
        told = (f"{name} {value:.3f}" for name, value in last.items() if name not in ("step", "minutes"))
        return ", ".join([f"step {self.state['step']}", *told])

    def _with_distances(self, wav: Tensor) -> dict[str, Tensor]:
        codec, recipe = self.codec, self.recipe
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast_bf16()):
            latents = codec.latents(wav)
            quantised, commitment, crowd = latents, latents.new_zeros(()), latents.new_zeros(())
            if self.state["quantised"]:
                crowd = self._crowding(latents.flatten(0, 1))
                quantised, _, commitment = codec.quantizer(latents, self.chance)
            materials = codec.materials(quantised)
        loss, told, _ = self._distances(wav, materials)
        loss = loss + recipe.commitment * commitment + recipe.crowding * crowd
        self._update(self.optimizer, codec, loss)
        return told | {"commitment": commitment.detach(), "crowding": crowd.detach()}

    def _crowding(self, latents: Tensor) -> Tensor:
        """`crowding` of the first two codebooks, the ones that silence and hiss would fill; latents [n, D]."""
        uneven = []
        for stage in self.codec.quantizer.stages[:2]:
            uneven.append(crowding(latents, stage.codebook.clone()))  # the codebook is about to learn, in place
            latents = latents - stage.decode(stage.encode(latents.detach()))
        return torch.stack(uneven).mean()

    def _against_critic(self, wav: Tensor) -> dict[str, Tensor]:
        codec, recipe, which = self.codec, self.recipe, int(self.rng.integers(len(WINDOWS)))
        with torch.no_grad():
            quantised = codec.quantizer.decode(codec.encode(wav))
        loss, told, decoded = self._distances(wav, codec.materials(quantised))
        blame = self.critic.blame(wav, decoded, which)
        self._update(self.critic_optimizer, self.critic, blame)
        mark, match = self.critic.please(wav, decoded, which)
        self._update(self.optimizer, codec, loss + recipe.critic * mark + recipe.match * match)
        return told | {"critic": blame.detach(), "match": match.detach()}

    def _distances(self, wav: Tensor, materials: tuple) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, its parts, and the sound: mel over three of the five windows, spectral and grain over one of them."""
        recipe, codec, (click, _, tone, turn, hiss) = self.recipe, self.codec, materials
        noise = torch.randn(wav.shape[0], turn.shape[1] * codec.spectrum.step, generator=self.chance).to(wav)
        decoded = codec.sound(*materials, noise)[..., : wav.shape[-1]]
        one = int(self.rng.integers(1, len(SCALES)))
        others = [SCALES[i] for i in self.rng.permutation([i for i in range(5) if i != one])[:2]]
        mel, spectral, grain = window_distances(wav, decoded, *SCALES[one])
        mel = (mel + 2 * mel_distance(wav, decoded, scales=tuple(others))) / 3
        true = codec.spectrum(wav[:, 0])
        size = size_distance(true, (click.square() + tone.square() + hiss.square()).sqrt())
        turns = turn_distance(true, turn, codec.advance)
        loss = mel + recipe.spectral * spectral + recipe.grain * grain + recipe.size * size + recipe.turn * turns
        told = {"mel": mel, "spectral": spectral, "grain": grain, "size": size, "turn": turns}
        return loss, {name: value.detach() for name, value in told.items()}, decoded

    def _update(self, optimizer: torch.optim.Optimizer, model: nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if not torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)):
            step = self.state["step"]
            raise MinigenError(f"the gradient of step {step} is not finite; the last checkpoint is {self.checkpoint}.")
        optimizer.step()

    def _set_rates(self, share: float) -> None:
        recipe, warm = self.recipe, min(1, (self.state["step"] + 1) / 100)
        if self.state["frozen"]:
            rate = recipe.critic_rate * (0.5 + 0.5 * math.cos(math.pi * (share - recipe.freeze) / (1 - recipe.freeze)))
        else:
            rate = recipe.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * min(1, share / recipe.freeze)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """k-means on the latents of enough crops to give every entry several vectors."""
        codec, recipe = self.codec, self.recipe
        needed = 8 * codec.codebook_size * codec.config.hop // (recipe.crop * recipe.batch_size) + 1
        batches = (self.crops.batch(recipe.batch_size, self.rng).to(self.device) for _ in range(needed))
        codec.quantizer.start(torch.cat([codec.latents(batch).flatten(0, 1) for batch in batches]), self.chance)
        self.state["quantised"] = True

    @torch.no_grad()
    def _freeze(self) -> None:
        """Fix what makes the codes, rounded as it will be stored, and write a codec that others may use already."""
        self.codec.load_state_dict(self.averaged.state_dict())
        self.codec.save_pretrained(self.folder)
        rounded = Codec.from_pretrained(self.folder).to(self.device)
        for name, value in self.codec.state_dict().items():
            value.copy_(rounded.state_dict()[name])
        self.averaged.load_state_dict(self.codec.state_dict())
        self._fix()
        self.state["frozen"] = True
        self.save()

    def _fix(self) -> None:
        for part in (self.codec.enter, self.codec.encoder, self.codec.to_latent):
            part.requires_grad_(False)

    @torch.no_grad()
    def _average(self, keep: float) -> None:
        for mine, theirs in zip(self.averaged.state_dict().values(), self.codec.state_dict().values(), strict=True):
            mine.lerp_(theirs, 1 - keep) if keep else mine.copy_(theirs)

    def _buffers(self) -> list[Tensor]:
        return [tensor for stage in self.codec.quantizer.stages for tensor in (stage.counts, stage.sums)]

    def save(self) -> None:
        """Write all that the run needs to go on."""
        self.saved = time.monotonic()
        models = {"codec": self.codec, "averaged": self.averaged, "critic": self.critic}
        optimizers = {"optimizer": self.optimizer, "critic_optimizer": self.critic_optimizer}
        parts = {name: part.state_dict() for name, part in (models | optimizers).items()}
        parts |= {"buffers": self._buffers(), "state": self.state}
        save_checkpoint(self.checkpoint, parts)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        sweep(self.folder)
        if not self.checkpoint.exists():
            return
        saved = load_checkpoint(self.checkpoint, self.device)
        for name in ("codec", "averaged", "critic", "optimizer", "critic_optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        for mine, theirs in zip(self._buffers(), saved["buffers"], strict=True):
            mine.copy_(theirs)
        self.state = saved["state"]
        if self.state["frozen"]:
            self._fix()
