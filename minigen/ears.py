"""What the judge and the tagger share: how much at once, and what a waveform is."""

from torch import Tensor

from minigen.errors import MinigenError

BATCH = 32  # clips that go through a model at once


def check_wav(wav: Tensor) -> Tensor:
    """The waveforms as float32; MinigenError unless they are [B, 1, samples] and not empty."""
    if wav.ndim != 3 or wav.shape[1] != 1 or wav.numel() == 0:
        raise MinigenError(f"the judge hears waveforms [B, 1, samples], not {list(wav.shape)}. Reshape them.")
    return wav.float()
