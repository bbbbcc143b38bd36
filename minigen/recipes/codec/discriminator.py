"""The discriminator of the codec: networks that tell real spectrograms from decoded ones.

    wav --STFT with one of three windows--> log magnitude [B, 1, bins, frames] --four convolutions, three of stride 2-->
                                                               logit of each patch [B, 1, bins / 8, frames / 8]

Distances between spectrograms favour the average of all likely sounds, which is too smooth. The discriminator corrects
that: noise keeps its grain, and voices keep their lines. Patch discriminators on spectrograms: UnivNet (arXiv
2106.07889, section 2.2) and PatchGAN (1611.07004). Hinge loss and feature matching: EnCodec (2210.13438, section 3.4).
A training step uses one window, drawn at random, because three would cost three times as much.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (512, 1024, 2048)


class PatchDiscriminator(nn.Module):
    """Discriminator of the patches of the log spectrogram with one window."""

    def __init__(self, window: int, channels: tuple[int, ...] = (1, 16, 32, 64)):
        super().__init__()
        pairs = zip(channels, channels[1:], strict=False)
        layers = [nn.Conv2d(a, b, (5, 5), stride=(2, 2), padding=2) for a, b in pairs]
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.to_logit = weight_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 1, samples] -> logits [B, 1, bins / 8, frames / 8], positive for real, and the features of each layer."""
        size = len(self.window)
        z = torch.stft(wav[:, 0], size, size // 4, window=self.window, return_complex=True)
        x = (z.real.square() + z.imag.square() + 1e-8).log10()[:, None] / 2  # [B, 1, bins, frames]
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)  # [B, channels, bins / 2, frames / 2], then / 4, / 8
            features.append(x)
        return self.to_logit(x), features


class Discriminator(nn.Module):
    """One `PatchDiscriminator` for each window."""

    def __init__(self):
        super().__init__()
        self.patches = nn.ModuleList(PatchDiscriminator(window) for window in WINDOWS)

    def discriminator_loss(self, real: Tensor, made: Tensor, which: int) -> Tensor:
        """Hinge loss of the discriminator with window `which`: mean max(0, 1 - D(real)) + mean max(0, 1 + D(made))."""
        logits = self.patches[which](torch.cat([real, made.detach()]))[0]
        good, bad = logits.chunk(2)
        return F.relu(1 - good).mean() + F.relu(1 + bad).mean()

    def generator_loss(self, real: Tensor, made: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """Losses of the codec: adversarial, -mean D(made); feature matching, mean |f(made) - f(real)| / mean |f|."""
        with torch.no_grad():
            _, wanted = self.patches[which](real)
        logits, found = self.patches[which](made)
        match = [F.l1_loss(mine, theirs) / theirs.abs().mean() for mine, theirs in zip(found, wanted, strict=True)]
        return -logits.mean(), torch.stack(match).mean()
