"""Event tagger: probability of each kind of event, in a clip and over time. For FAD, KL, recall and order.

    wav --log-mel--> convolutions --> features of each frame --> [B, C, F] probabilities --pool--> [B, C]
                                            +--mean over frames--> [B, E] for FAD and the kernel distance

`Tagger` is the built-in model. It was trained on the built-in corpus and on real recordings, not on the output of a
codec or of a language model (minigen/recipes/judge/train.py). `OfficialTagger` is the Audio Spectrogram Transformer.
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

BATCH = 32  # clips in one forward pass
LOUDEST = 1.5  # largest sample of a waveform in [-1, 1]


@dataclass(frozen=True)
class TaggerConfig:
    """Sizes of a `Tagger`. channels: of the four 2D convolutions; width: of the features."""

    kinds: tuple[str, ...] = KINDS
    channels: tuple[int, int, int, int] = (32, 64, 128, 192)
    width: int = 128


def load_tagger(name: str | Path = "mini") -> "Tagger | OfficialTagger":
    """An event tagger by name: "mini", a folder, or "MIT/ast-finetuned-audioset-10-10-0.4593" and its like.

    Raises:
        MinigenError: no such folder, weights that are not safetensors, or an official model that cannot be downloaded.
    """
    folder = find_model("tagger", name)
    try:
        settings = read_config(folder)
        if settings.get("model_type") == "audio-spectrogram-transformer":
            return OfficialTagger(folder)
        tagger = Tagger(TaggerConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}))
        tagger.load_state_dict(read_tensors(folder, torch.float32))
    except Exception as error:  # other settings, truncated weights, weights of another shape
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
    """Probability of an event in a clip, from its probability in each frame: [..., F] -> [...].

        p = sum_t p_t^2 / sum_t p_t

    A mean over frames, weighted with the probabilities themselves: silence around a short event does not lower it.
    Source: Wang, Li, Metze, "A comparison of five multiple instance learning pooling functions for
    sound event detection with weak labeling" (arXiv 1810.09050), section 2.
    """
    return frames.square().sum(-1) / frames.sum(-1).clamp(min=1e-7)


class Tagger(HubModel, nn.Module):
    """Convolutional event tagger: log-mel [B, 64, F], 50 frames a second -> logits of each kind, 12.5 a second.

    Four 2D convolutions reduce time by 4 and frequency by 16. A 1D convolution combines the remaining four bands,
    another one adds 0.16 s of context to either side, and a linear layer gives the logits. Each kind has its own
    sigmoid, because events overlap.
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
        picture = self.bands(mel)[:, None]  # [B, 1, 64, F]
        picture = self.picture(picture.contiguous(memory_format=torch.channels_last))  # [B, channels, 4, F / 4]
        folded = self.fold(picture.flatten(1, 2))  # [B, width, F / 4]
        return folded + self.context(folded)

    def forward(self, mel: Tensor) -> Tensor:
        """Logits of each kind in each frame: log-mel [B, 64, F] -> [B, C, ceil(F / 2) // 2]."""
        return self.head(self.dropout(self.hidden(mel)))

    @torch.no_grad()
    def timeline(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Probability of each kind over time: [B, 1, samples] -> [B, C, F], `timeline_rate` frames a second.

        Frame f covers the time from f / timeline_rate to (f + 1) / timeline_rate seconds.

        Raises:
            MinigenError: another shape, or no samples.
        """
        return torch.cat([self(mel).sigmoid() for mel in self._pictures(wav, sample_rate)])

    def probabilities(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Probability of each kind in each clip: [B, 1, samples] -> [B, C]. Several kinds can be present."""
        return linear_softmax(self.timeline(wav, sample_rate))

    @torch.no_grad()
    def embed(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Features for FAD and the kernel distance: [B, 1, samples] -> [B, width], the mean over frames."""
        return torch.cat([self.hidden(mel).mean(-1) for mel in self._pictures(wav, sample_rate)])

    def _pictures(self, wav: Tensor, sample_rate: int):
        wav = resample(check_wav(wav), sample_rate, SAMPLE_RATE).to(self.head.weight.device)
        return (log_mel(part) for part in wav.split(BATCH))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16) to a folder for `load_tagger`."""
        write_model(folder, asdict(self.config), self.state_dict(), torch.float16)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Tagger":
        """The same as `load_tagger`."""
        return load_tagger(name)


class OfficialTagger(nn.Module):
    """Audio Spectrogram Transformer (arXiv 2104.01778): the 527 kinds of AudioSet, clips of up to 10 s, no timeline."""

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
        """Probability of each kind in each clip: [B, 1, samples] -> [B, C]. Several kinds can be present."""
        return torch.cat([self.model(x).logits.sigmoid() for x in self._features(wav, sample_rate)])

    @torch.no_grad()
    def embed(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Features for FAD: [B, 1, samples] -> [B, E], mean of the class and distillation tokens of the last layer."""
        body = self.model.audio_spectrogram_transformer
        return torch.cat([body(x).pooler_output for x in self._features(wav, sample_rate)])


def _shrink(before: int, after: int, pool: tuple[int, int]) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(pool)]
