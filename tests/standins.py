"""Small stand-ins for the shipped models: the same interfaces, made in milliseconds, deaf to all but loud bands."""

import hashlib
import zlib

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from minigen.app.demo.live import LiveConfig
from minigen.app.demo.run import DemoConfig, Parts
from minigen.audio import log_mel
from minigen.codec import Codec, CodecConfig
from minigen.lm import AudioLM, AudioLMConfig

KINDS = ("dog_bark", "rain", "siren", "engine")  # heard in the lowest quarter of the bands, the next, ...


class BandTagger:
    """Hears kind k in a frame where a band in the k-th quarter of the 64 mel bands holds more than 25 dB."""

    kinds, timeline_rate = KINDS, 50.0

    def timeline(self, wav, sample_rate=16000):
        quarters = log_mel(wav).unflatten(1, (4, 16)).amax(2)
        return (8 * (quarters - 2.5)).sigmoid()

    def probabilities(self, wav, sample_rate=16000):
        return self.timeline(wav).amax(-1)

    def embed(self, wav, sample_rate=16000):
        return log_mel(wav).unflatten(1, (16, 4)).mean((2, 3))


class BandJudge:
    """Sounds by the kinds in them and captions by the kinds they name, on one sphere of 4 dimensions."""

    def embed_audio(self, wav, sample_rate=16000):
        return normalize(BandTagger().probabilities(wav) + 0.05, dim=-1)

    def embed_text(self, captions):
        named = [[float(kind.split("_")[0] in caption.lower()) for kind in KINDS] for caption in captions]
        return normalize(torch.tensor(named) + 0.05, dim=-1)


class WordEncoder:
    """A caption as one random vector per word, always the same one."""

    width = 8

    def __call__(self, captions):
        states = torch.nn.utils.rnn.pad_sequence([_words(caption, 8) for caption in captions], batch_first=True)
        return states, states.abs().sum(-1) > 0

    def tokens(self, caption):
        return [*caption.split(), "</s>"]


def _words(caption, width):
    seeds = [zlib.crc32(word.lower().encode()) for word in caption.split()]
    return torch.stack([torch.randn(width, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def tiny_codec(seed=0, latent=8):
    torch.manual_seed(seed)
    sizes = dict(parts=1, n_fft=640, width=16, blocks=1, latent=latent, num_codebooks=2, codebook_size=16)
    return Codec(CodecConfig(**sizes)).eval()


def tiny_lm(seed):
    torch.manual_seed(seed)
    return AudioLM(AudioLMConfig(2, 16, width=16, layers=1, heads=2, ffn=32, memory_width=8, delays=(0, 1))).eval()


def tiny_parts():
    return Parts(tiny_codec(), WordEncoder(), BandJudge(), BandTagger(), tiny_lm(1), tiny_lm(2))


TINY = DemoConfig(
    seconds=1.0, captions=5, sweep_captions=3, scales=(1.0, 3.0), examples=2, generated_at_once=3,
    live=LiveConfig(width=16, layers=1, heads=2, batch_size=4, warmup=1),
)  # fmt: skip


class HashCodec(nn.Module):
    """A codec that names each frame of 320 samples by a digest of it: any change of the sound changes the codes."""

    sample_rate, frame_rate, num_codebooks, codebook_size = 16000, 50.0, 4, 1024

    def __init__(self, version=0):
        super().__init__()
        self.register_buffer("version", torch.tensor(version))
        self.clips = 0

    def encode(self, wav):
        self.clips += len(wav)
        frames = wav.squeeze(1).unfold(1, 320, 320)
        digests = [[hashlib.sha256(frame.numpy().tobytes()).digest()[:8] for frame in clip] for clip in frames]
        codes = np.frombuffer(b"".join(b"".join(row) for row in digests), np.uint16).reshape(len(wav), -1, 4)
        return torch.from_numpy(codes.astype(np.int64) % 1024).transpose(1, 2)
