"""The tagger: which events does a sound hold, and when? It serves FAD, KL, event recall and order.

    wav --log-mel--> convolutions --> features of each frame --> [B, C, F] chance of each kind --pool--> [B, C]
                                            +--mean over frames--> [B, E] for FAD and the kernel distance

`Tagger` is the project's own, trained on the built-in corpus and on real recordings, never on the output of a codec or
of a language model (minigen/recipes/judge/train.py); `OfficialTagger` is the Audio Spectrogram Transformer by name.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from minigen.audio import SAMPLE_RATE, check_waveform, log_mel, resample
from minigen.corpus.clip import KINDS
from minigen.engine.errors import MinigenError, one_line
from minigen.engine.hub import HubModel, find_model
from minigen.engine.weights import load_official, read_config, read_tensors, write_model

BATCH = 32  # clips that go through a model at once
LOUDEST = 1.5  # largest sample of a waveform in [-1, 1]


@dataclass(frozen=True)
class TaggerConfig:
    """Shape of a `Tagger`. channels: of the four convolutions over the picture; width: of the features."""

    kinds: tuple[str, ...] = KINDS
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)
    width: int = 128


def load_tagger(name: str | Path = "mini") -> "Tagger | OfficialTagger":
    """An event classifier: "mini", a folder, or an official one such as "MIT/ast-finetuned-audioset-10-10-0.4593".

    Raises:
        MinigenError: no such folder, weights that are not safetensors, or an official model that cannot be fetched.
    """
    folder = find_model("tagger", name)
    try:
        settings = read_config(folder)
        if settings.get("model_type") == "audio-spectrogram-transformer":
            return OfficialTagger(folder)
        tagger = Tagger(TaggerConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}))
        tagger.load_state_dict(read_tensors(folder, torch.float32))
    except Exception as error:  # foreign settings, cut weights, weights of another shape
        raise MinigenError(f"{folder} holds no tagger ({one_line(error)}). Name another folder.") from error
    return tagger.eval()


def check_wav(wav: Tensor) -> Tensor:
    """Waveforms [B, 1, samples] as float32.

    Raises:
        MinigenError: another shape, no samples, samples that are not finite, or samples that are not scaled to [-1, 1]:
            whole numbers, or a peak above 1.5 (a decoder may overshoot 1 a little).
    """
    check_waveform(wav)
    peak = float(wav.abs().max())
    if peak > LOUDEST:
        raise MinigenError(f"samples lie in [-1, 1], the largest of these is {peak:g}. Divide 16-bit samples by 32768.")
    return wav.float()


def linear_softmax(frames: Tensor) -> Tensor:
    """Chance that an event sounds in a clip, from its chance in each frame: [..., F] -> [...].

        p = sum_t p_t^2 / sum_t p_t

    Each frame votes with its own probability as its weight: a short event counts in full, and silence around it does
    not dilute it. Source: Wang, Li, Metze, "A comparison of five multiple instance learning pooling functions for
    sound event detection with weak labeling" (arXiv 1810.09050), section 2.
    """
    return frames.square().sum(-1) / frames.sum(-1).clamp(min=1e-7)


class Tagger(HubModel, nn.Module):
    """Convolutional event classifier: log-mel [B, 64, 50 per second] -> one chance per kind and frame, 12.5 a second.

    Four convolutions shrink time by 4 and frequency by 16, a fifth folds the four bands that remain, a sixth looks
    0.2 s to either side, and one linear layer scores the kinds. Events overlap: each kind has its own sigmoid.
    """

    timeline_rate = SAMPLE_RATE / 320 / 4

    def __init__(self, config: TaggerConfig):
        super().__init__()
        first, second, third, fourth = config.channels
        self.config, self.kinds = config, config.kinds
        self.bands = nn.BatchNorm1d(64)
        self.picture = nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
            *_shrink(first, second, (2, 2)), *_shrink(second, third, (2, 1)), *_shrink(third, fourth, (2, 1)),
        )  # fmt: skip
        self.fold = nn.Sequential(nn.Conv1d(fourth * 4, config.width, 1), nn.BatchNorm1d(config.width), nn.ReLU())
        self.context = nn.Sequential(nn.Conv1d(config.width, config.width, 5, padding=2), nn.ReLU())
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Conv1d(config.width, len(config.kinds), 1)

    def hidden(self, mel: Tensor) -> Tensor:
        """Features of each frame: log-mel [B, 64, F] -> [B, width, ceil(F / 2) // 2]."""
        picture = self.bands(mel)[:, None].contiguous(memory_format=torch.channels_last)
        folded = self.fold(self.picture(picture).flatten(1, 2))
        return folded + self.context(folded)

    def forward(self, mel: Tensor) -> Tensor:
        """Logits of each kind in each frame: log-mel [B, 64, F] -> [B, C, ceil(F / 2) // 2]."""
        return self.head(self.dropout(self.hidden(mel)))

    @torch.no_grad()
    def timeline(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """When each kind sounds: [B, 1, samples] -> probabilities [B, C, F], `timeline_rate` frames a second.

        Frame f speaks for the time from f / timeline_rate to (f + 1) / timeline_rate seconds.

        Raises:
            MinigenError: another shape, or no samples.
        """
        return torch.cat([self(mel).sigmoid() for mel in self._pictures(wav, sample_rate)])

    def probabilities(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Chance of each kind in each clip: [B, 1, samples] -> [B, C] in [0, 1]; kinds do not exclude each other."""
        return linear_softmax(self.timeline(wav, sample_rate))

    @torch.no_grad()
    def embed(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Features for FAD and the kernel distance: [B, 1, samples] -> [B, width], the mean over frames."""
        return torch.cat([self.hidden(mel).mean(-1) for mel in self._pictures(wav, sample_rate)])

    def _pictures(self, wav: Tensor, sample_rate: int):
        wav = resample(check_wav(wav), sample_rate, SAMPLE_RATE).to(self.head.weight.device)
        return (log_mel(part) for part in wav.split(BATCH))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16) to a folder that `load_tagger` reads."""
        write_model(folder, asdict(self.config), self.state_dict(), torch.float16)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Tagger":
        """The same as `load_tagger`."""
        return load_tagger(name)


class OfficialTagger(nn.Module):
    """The Audio Spectrogram Transformer (arXiv 2104.01778): AudioSet's 527 kinds, clips of up to 10 s, no timeline."""

    def __init__(self, folder: Path):
        from transformers import ASTFeatureExtractor, ASTForAudioClassification

        super().__init__()
        self.model = load_official(ASTForAudioClassification, folder)
        self.extractor = ASTFeatureExtractor.from_pretrained(folder)
        self.kinds = tuple(self.model.config.id2label[i] for i in range(self.model.config.num_labels))

    def _features(self, wav: Tensor, sample_rate: int):
        rate = self.extractor.sampling_rate
        for part in resample(check_wav(wav), sample_rate, rate).split(BATCH):
            clips = [clip.numpy() for clip in part.squeeze(1).cpu()]
            yield self.extractor(clips, sampling_rate=rate, return_tensors="pt")["input_values"].to(self.model.device)

    @torch.no_grad()
    def probabilities(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Chance of each kind in each clip: [B, 1, samples] -> [B, C] in [0, 1]; kinds do not exclude each other."""
        return torch.cat([self.model(x).logits.sigmoid() for x in self._features(wav, sample_rate)])

    @torch.no_grad()
    def embed(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Features for FAD: [B, 1, samples] -> [B, E], mean of the class and distillation tokens of the last layer."""
        body = self.model.audio_spectrogram_transformer
        return torch.cat([body(x).pooler_output for x in self._features(wav, sample_rate)])


def _shrink(before: int, after: int, pool: tuple[int, int]) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(pool)]
