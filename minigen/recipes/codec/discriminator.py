"""The adversary of the codec's decoder: networks that look at spectrograms and say which are real.

    wav --STFT of one of three windows--> log magnitude [B, 1, bins, frames] --four strided convolutions--> a mark for
                                                                                  each patch [B, 1, bins/8, frames/8]

What an average of likely sounds lacks is what a critic sees at once: grain in rain, lines in a voice. Patch critics on
spectrograms: UnivNet (arXiv 2106.07889, section 2.2) and PatchGAN (1611.07004); hinge loss and feature matching as in
EnCodec (2210.13438, section 3.4). One window, drawn by chance, is looked at in a step: three cost three times as much.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

WINDOWS = (512, 1024, 2048)


class PatchCritic(nn.Module):
    """Marks the patches of the log spectrogram of one window."""

    def __init__(self, window: int, channels: tuple[int, ...] = (1, 16, 32, 64)):
        super().__init__()
        pairs = zip(channels, channels[1:], strict=False)
        layers = [nn.Conv2d(a, b, (5, 5), stride=(2, 2), padding=2) for a, b in pairs]
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.mark = weight_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(window), persistent=False)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[B, 1, samples] -> marks [B, 1, bins / 8, frames / 8] (above 0 means real) and every layer's features."""
        size = len(self.window)
        z = torch.stft(wav[:, 0], size, size // 4, window=self.window, return_complex=True)
        x = (z.real.square() + z.imag.square() + 1e-8).log10()[:, None] / 2
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.mark(x), features


class Critic(nn.Module):
    """One `PatchCritic` for each window."""

    def __init__(self):
        super().__init__()
        self.patches = nn.ModuleList(PatchCritic(window) for window in WINDOWS)

    def blame(self, real: Tensor, made: Tensor, which: int) -> Tensor:
        """The critic's own loss: mean max(0, 1 - D(real)) + mean max(0, 1 + D(made))."""
        marks = self.patches[which](torch.cat([real, made.detach()]))[0]
        good, bad = marks.chunk(2)
        return F.relu(1 - good).mean() + F.relu(1 + bad).mean()

    def please(self, real: Tensor, made: Tensor, which: int) -> tuple[Tensor, Tensor]:
        """The codec's losses: -mean D(made), and the distance of the features, mean |f(made) - f(real)| / mean |f|."""
        with torch.no_grad():
            _, wanted = self.patches[which](real)
        marks, found = self.patches[which](made)
        match = [F.l1_loss(mine, theirs) / theirs.abs().mean() for mine, theirs in zip(found, wanted, strict=True)]
        return -marks.mean(), torch.stack(match).mean()
