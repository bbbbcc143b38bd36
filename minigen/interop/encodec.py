"""An official EnCodec behind the same interface as `codec.Codec`.

    waveform [B, 1, samples] --> SEANet: convolutions, LSTM --> latents [B, T, D] --> residual VQ --> codes [B, K, T]
    24 kHz, causal, 75 frames/s, up to 32 codebooks of 1024;  32 kHz (MusicGen's), 50 frames/s, 4 codebooks of 2048

The network is that of `transformers`; `encodec_weights.py` converts its weights to the `encodec` package and back. The
48 kHz EnCodec is refused: it is stereo and normalises its input.
Source: Défossez et al., "High fidelity neural audio compression" (arXiv 2210.13438).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from minigen.audio import check_waveform
from minigen.engine.errors import MinigenError, one_line
from minigen.engine.hub import HubModel, find_model
from minigen.engine.weights import load_official, read_config, write_model
from minigen.quantizer import check_codes


class EncodecCodec(HubModel, nn.Module):
    """An official mono EnCodec in eval mode.

    Args:
        model: a `transformers.EncodecModel`; it is used itself, not copied.
        bandwidth: one of the model's target bandwidths, kb/s; it sets the number of codebooks K. If the model does not
            have it, the highest is used.

    Raises:
        MinigenError: the model is not mono, or it encodes overlapping chunks or normalises its input (48 kHz).
    """

    def __init__(self, model: nn.Module, bandwidth: float = 6.0):
        super().__init__()
        config = model.config
        check_mono(config)
        self.model = model
        self.bandwidth = bandwidth if bandwidth in config.target_bandwidths else max(config.target_bandwidths)
        self.sample_rate, self.frame_rate = config.sampling_rate, float(config.frame_rate)
        self.codebook_size = config.codebook_size
        self.num_codebooks = model.quantizer.get_num_quantizers_for_bandwidth(self.bandwidth)
        self.eval()

    @torch.no_grad()
    def encode(self, wav: Tensor) -> Tensor:
        """Waveform float32 [B, 1, samples] in [-1, 1] at `sample_rate` -> codes int64 [B, K, T].

        Raises:
            MinigenError: not three dimensions, not mono, no samples, or some that are no numbers.
        """
        check_waveform(wav)
        return self.model.encode(wav.to(self.model.dtype), bandwidth=self.bandwidth).audio_codes[0]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [B, K, T] -> waveform float32 [B, 1, samples]; fewer codebooks than K sound coarser.

        Raises:
            MinigenError: not three dimensions, not whole numbers, too many codebooks, or a code outside 0..V-1.
        """
        check_codes(codes, self.num_codebooks, self.codebook_size)
        return self.model.decode(codes.long()[None], [None]).audio_values

    @classmethod
    def from_pretrained(cls, name: str | Path, bandwidth: float = 6.0) -> EncodecCodec:
        """Load "facebook/encodec_24khz", "facebook/encodec_32khz" or a folder in their format, in float32.

        Raises:
            MinigenError: no such folder and no way to fetch it, damaged files, or a codec that is not mono.
        """
        from transformers import EncodecConfig, EncodecModel

        folder = find_model("codec", name)
        kind = read_config(folder).get("model_type")
        if kind != "encodec":
            raise MinigenError(f"{folder} holds a {kind!r} model, not an EnCodec. Name facebook/encodec_24khz.")
        try:
            config = EncodecConfig.from_pretrained(folder)
            check_mono(config)
            return cls(load_official(EncodecModel, folder, config=config), bandwidth)
        except MinigenError:
            raise
        except Exception as error:  # settings that transformers refuses, each in its own way
            raise MinigenError(f"{folder} holds no complete EnCodec ({one_line(error)}). Fetch it again.") from error

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors in the official format, for `load_codec` and for `transformers`."""
        settings = {**json.loads(self.model.config.to_json_string()), "architectures": ["EncodecModel"]}
        write_model(folder, settings, self.model.state_dict(), None)


def check_mono(config) -> None:
    """Raise MinigenError unless these are the settings of a mono EnCodec whose codes alone determine the sound."""
    if config.audio_channels != 1:
        raise MinigenError(
            f"this EnCodec has {config.audio_channels} channels; minigen is mono. "
            f"Use facebook/encodec_24khz or facebook/encodec_32khz."
        )
    if config.normalize or config.chunk_length_s is not None:
        raise MinigenError("this EnCodec normalises or chunks its input; its codes alone do not determine the sound. "
                           "Use facebook/encodec_24khz or facebook/encodec_32khz.")  # fmt: skip
