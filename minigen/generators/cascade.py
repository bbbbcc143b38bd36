"""A cascade: one diffusion makes a coarse clip, a second one refines it.

    text ─► coarse model, 12.5 frames/s ─► c [B, T/4, C] ─► repeated ─┐  corrupted at level a
    noise x_1 [B, T, C] ───────────────► cascader, t = 1 … 0 ◄────────┴─► x_0 [B, T, C] ─► codec.synthesize

Noise2Music (arXiv 2302.03917) makes sound in this way: a generator writes a compact form of it, a cascader brings it to
full rate. Here the coarse clip consists of means of four frames of latents (`LatentConfig.stride`), so that the
generator works on a quarter of the frames and decides what happens when. The cascader adds what four frames hide: the
onsets and the grain.

In training the cascader reads means of the true clip, at generation those that the first model made, which have errors.
Therefore the condition is corrupted in training, by blur and noise:

    c' = α(a) blur(c) + σ(a) ε        a ~ U(0, 0.5)

a is given to the cascader as one more component, and at generation it says how far the coarse clip may be trusted
(conditioning augmentation, Ho et al., "Cascaded diffusion models", arXiv 2106.15282, section 3).

Both are trained by one command each, in this order:

    minigen train TOKENS --generator coarse --from mini --out FOLDER
    minigen train TOKENS --generator cascader --from FOLDER --out FOLDER/cascader

Symbols: B batch · T frames · C components · D latent width · a level of corruption · c, c' coarse clip, at T frames.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.engine.errors import MinigenError
from minigen.engine.settings import Range, check_number
from minigen.generators.iterate import Guidance, iterate
from minigen.generators.latent_diffusion import (
    LatentDenoiser,
    LatentDiffusionGenerator,
    LatentObjective,
    LatentSampler,
    check_range,
    pool_frames,
    spread,
)
from minigen.guidance import Condition
from minigen.optim import TrainConfig
from minigen.text import TextEncoder

STRIDE = 4  # codec frames in a coarse frame
WORST = 0.5  # highest level of corruption in training
BLUR = 2.0  # largest deviation of the blur, in codec frames
LEVEL = Range(float, 0, WORST)


def corrupt(coarse: Tensor, noise: Tensor, level: Tensor, width: Tensor) -> Tensor:
    """Blur a coarse clip over time and add noise: c [B, T, C] -> c' [B, T, C], formula in the module.

    Args:
        coarse: c.
        noise: ε [B, T, C].
        level: a [B], from 0 to 1.
        width: deviation of the Gaussian blur in frames, [B]; 0: none.
    """
    angle = (torch.pi / 2 * level)[:, None, None]  # [B, 1, 1]
    return angle.cos() * blur(coarse, width) + angle.sin() * noise


def blur(x: Tensor, width: Tensor) -> Tensor:
    """Gaussian blur over time, [B, T, C], of deviation width [B] in frames; the first and last frame are repeated."""
    reach = int(3 * BLUR)
    places = torch.arange(-reach, reach + 1, device=x.device)
    kernel = torch.exp(-0.5 * (places / width.clamp(min=1e-3)[:, None]) ** 2)  # [B, 2 reach + 1]
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x)
    padded = F.pad(x.mT, (reach, reach), mode="replicate")  # [B, C, T + 2 reach]
    return torch.einsum("bctk,bk->btc", padded.unfold(2, 2 * reach + 1, 1), kernel)


def repeat_frames(coarse: Tensor, frames: int) -> Tensor:
    """Repeat each coarse frame four times: [B, T / 4, C] -> [B, frames, C]."""
    return coarse.repeat_interleave(STRIDE, 1)[:, :frames]


class Refiner(nn.Module):
    """A cascader with its condition, as a model for `iterate`: it reads states [B, T, C].

    Args:
        cascader: a `LatentDenoiser` with `conditioned`.
        condition: c' [B, T, C].
        level: a.
    """

    def __init__(self, cascader: LatentDenoiser, condition: Tensor, level: float):
        super().__init__()
        self.cascader = cascader
        self.beside = torch.cat([condition, torch.full_like(condition[..., :1], level)], -1)  # [B, T, C + 1]
        self.train(cascader.training)  # `iterate` restores the mode that it finds

    def hidden_states(self, state: Tensor, memory=None, memory_mask=None, time=None, attend=None) -> Tensor:
        """As `Denoiser.hidden_states`."""
        return self.cascader.hidden_states(torch.cat([state, self.beside], -1), memory, memory_mask, time, attend)

    def head(self, hidden: Tensor) -> Tensor:
        """As `Denoiser.head`."""
        return self.cascader.head(hidden)


class CascadeGenerator:
    """A coarse model and a cascader, with the members of `minigen.generators.base.Generator`; it makes latents."""

    name = "cascade"

    def __init__(self, coarse: LatentDenoiser, cascader: LatentDenoiser):
        """coarse: of stride 4. cascader: conditioned.

        Raises:
            MinigenError: models that are not those of a cascade.
        """
        if coarse.config.stride != STRIDE or not cascader.config.conditioned:
            raise MinigenError(
                f"a cascade needs a model of stride {STRIDE} and a conditioned one. These have stride "
                f"{coarse.config.stride} and conditioned={cascader.config.conditioned}."
            )
        self.coarse, self.cascader, self.config = LatentDiffusionGenerator(coarse), cascader, coarse.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.coarse.device

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "CascadeGenerator":
        """Load the coarse model of a folder, and the cascader in its subfolder "cascader".

        Raises:
            MinigenError: no cascader yet, or as `Denoiser.from_pretrained`.
        """
        if not (Path(folder) / "cascader").is_dir():
            raise MinigenError(
                f"{folder} holds the coarse model of a cascade alone. Train the other with `minigen train TOKENS "
                f"--generator cascader --from {folder} --out {folder}/cascader`."
            )
        coarse = LatentDiffusionGenerator.from_pretrained(folder, dtype).model
        return cls(coarse, LatentDenoiser.from_pretrained(Path(folder) / "cascader", dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write what `from_pretrained` reads."""
        self.coarse.save_pretrained(folder, dtype)
        self.cascader.save_pretrained(Path(folder) / "cascader", dtype)

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: Guidance = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        steps: int = 50,
        method: str = "ddim",
        threshold: str = "dynamic",
        rescale: float = 0.7,
        level: float = 0.1,
        refine_steps: int = 25,
        refine_guidance: float = 1.0,
    ) -> Tensor:
        """Latents [B, frames, D] for `codec.synthesize`.

        Args:
            text: states of B captions.
            frames: T.
            guidance: strength of the text in the coarse model.
            generator: source of chance on the device of the weights.
            progress: whether to show bars.
            steps: steps of the coarse model.
            method: of its steps, as in `LatentDiffusionGenerator.generate`.
            threshold: of the coarse model, as there.
            rescale: of the coarse model, as there.
            level: a, corruption of the coarse clip before it is refined, from 0 to 0.5; more hides more of its errors.
            refine_steps: steps of the cascader.
            refine_guidance: strength of the text in the cascader.

        Raises:
            MinigenError: an option out of range, a result out of range because guidance is too large.
        """
        coarse = self.coarse.generate(
            text, frames, guidance, generator, progress, steps, method, threshold, rescale
        )  # [B, frames, D], each frame four times
        return self.refine(coarse, text, refine_guidance, generator, progress, refine_steps, level)

    def refine(
        self,
        coarse: Tensor,
        text: Condition,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
        steps: int = 25,
        level: float = 0.1,
    ) -> Tensor:
        """Refine coarse latents [B, T, D], each frame repeated four times: [B, T, D]. Options as in `generate`."""
        check_number("level", level, LEVEL)
        model = self.cascader
        clean = model.to_state(coarse)  # [B, T, C]
        noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
        levels = clean.new_full((len(clean),), level)
        condition = corrupt(clean, noise, levels, torch.zeros_like(levels))
        sampler = LatentSampler(model.process, limit=model.limit.item())
        refiner = Refiner(model, condition, level)
        made = iterate(refiner, sampler, torch.full_like(clean, torch.nan), text.memory, text.memory_mask, steps,
                       guidance, generator, progress)  # fmt: skip
        check_range(made.state, guidance)
        return model.to_latents(made.state)


class CoarseObjective(LatentObjective):
    """`LatentObjective` of the coarse model; its folder is that of the cascade."""

    generator = "cascade"


class CascadeObjective(LatentObjective):
    """Mean square error of v of a cascader, as an objective of `minigen.train`; see the module for the corruption.

    Args:
        model (LatentDenoiser): the cascader that is trained, after `measure`.
        encoder (TextEncoder): the frozen text encoder.
        config (TrainConfig): text_dropout.
    """

    generator = "cascader"

    def __init__(self, model: LatentDenoiser, encoder: TextEncoder, config: TrainConfig, corruption: float = WORST):
        """corruption: highest level a; 0 trains on true coarse clips only."""
        super().__init__(model, encoder, config)
        self.corruption = corruption

    def noised(self, x0: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """As `LatentObjective.noised`, with corrupted coarse clips beside the state: [B, T, 2 C + 1]."""
        x0 = x0[:, : x0.shape[1] // STRIDE * STRIDE]
        batch = super().noised(x0, rng)
        noise = torch.from_numpy(rng.standard_normal(x0.shape, np.float32))
        level, width = self.corruption * spread(len(x0), rng), BLUR * spread(len(x0), rng)  # each [B]
        coarse = repeat_frames(pool_frames(x0, STRIDE), x0.shape[1])
        if self.corruption:
            coarse = corrupt(coarse, noise, level, width)
        levels = level[:, None, None].expand(-1, x0.shape[1], 1)  # [B, T, 1]
        return {**batch, "state": torch.cat([batch["state"], coarse, levels], -1)}
