"""Small models and clips for the tests of latent diffusion and of the cascade."""

import numpy as np
import torch
from test_train import tokens

from minigen.corpus import LatentSet
from minigen.generators.latent_diffusion import LatentConfig, LatentDenoiser

B, T, C, D = 3, 6, 4, 5
SMALL = {"components": C, "latent": D, "width": 16, "layers": 2, "heads": 2, "ffn": 24, "memory_width": 8}


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def noise(number: int = 0, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (B, T, C)), generator=seed(number))


def latents(rows: int = 8, frames: int = 60) -> torch.Tensor:
    return noise(9, rows, frames, D)


def denoiser(**changes) -> LatentDenoiser:
    """A model with random weights everywhere: the zeros of the start would hide mistakes."""
    torch.manual_seed(0)
    model = LatentDenoiser(LatentConfig(**{**SMALL, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


class Same(torch.nn.Module):
    """A stand-in encoder: all captions have the same states."""

    width = 8

    def forward(self, captions):
        return noise(7, 1, 2, 8).expand(len(captions), 2, 8), torch.ones(len(captions), 2, dtype=torch.bool)


def latent_set(clips: int = 48, seed: int = 0) -> LatentSet:
    """The clips of `test_train.tokens`, 60 frames long, with random latents."""
    drawn = np.random.default_rng([seed, 1]).standard_normal((clips, 60, D)).astype(np.float16)
    return LatentSet(**vars(tokens(clips, 60, seed)), latents=drawn)
