"""CLAP model: embeds sounds and captions in one space, so that their cosine says how well they fit.

    wav     --log-mel--> convolutions, Transformer over time --> unit vector [B, E] --+
                                                                                      +--> cosine: CLAP score, retrieval
    caption --tokens---> RoBERTa --------------------------> unit vector [B, E] ------+

CLAP: "Large-scale contrastive language-audio pretraining" (arXiv 2211.06687). `OfficialJudge` is the model of
laion/clap-htsat-unfused, or of a folder in its format; its audio encoder is HTSAT, a window Transformer. `Judge` is the
built-in model. It has CLAP's text encoder; its audio encoder starts with the convolutions of the event tagger, because
HTSAT trains too slowly on one processor core (the model's card has the figures). It was not trained on the output of a
codec or of a language model.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from minigen.audio import SAMPLE_RATE, fit_length, log_mel, resample
from minigen.engine.errors import MinigenError, one_line
from minigen.engine.hub import HubModel, find_model
from minigen.engine.weights import load_official, read_config, read_tensors, write_model
from minigen.evaluation.tagger import (
    BATCH,
    OfficialTagger,
    Tagger,
    TaggerConfig,
    check_wav,
    linear_softmax,
    load_tagger,
)

__all__ = ["Judge", "JudgeConfig", "OfficialJudge", "OfficialTagger", "Tagger", "TaggerConfig", "linear_softmax",
           "load_judge", "load_tagger"]  # fmt: skip


def load_judge(name: str | Path = "mini") -> "Judge | OfficialJudge":
    """A CLAP model by name: "mini", a folder, or an official one such as "laion/clap-htsat-unfused".

    Raises:
        MinigenError: no such folder, weights that are not safetensors, or an official model that cannot be downloaded.
    """
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    folder = find_model("judge", name)
    try:
        settings, tokenizer = read_config(folder), AutoTokenizer.from_pretrained(folder)
        if settings.get("model_type") == "clap":
            return OfficialJudge(
                load_official(ClapModel, folder), tokenizer, ClapFeatureExtractor.from_pretrained(folder)
            )
        judge = Judge(JudgeConfig(**settings), tokenizer)
        judge.load_state_dict(read_tensors(folder, torch.float32))
    except Exception as error:  # loaders raise many types for missing or damaged files
        raise MinigenError(f"{folder} holds no complete judge ({one_line(error)}). Fetch it again.") from error
    return judge.eval()


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of a `Judge`.

    Args:
        width (int): of both encoders and of the embeddings.
        layers (int): of each Transformer.
        heads (int): of attention, in each layer.
        pieces (int): of the tokenizer.
        seconds (float): length of the audio encoder's input.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    pieces: int = 2048
    seconds: float = 4.0


class Judge(HubModel, nn.Module):
    """The built-in CLAP model. `ears` is a complete `Tagger`: training can also use its event loss."""

    def __init__(self, config: JudgeConfig, tokenizer):
        from transformers import ClapTextConfig, ClapTextModelWithProjection

        super().__init__()
        width, self.config, self.tokenizer = config.width, config, tokenizer
        self.ears = Tagger(TaggerConfig(width=width))
        self.place = nn.Parameter(0.02 * torch.randn(int(config.seconds * Tagger.timeline_rate), width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.time = nn.TransformerEncoder(layer, config.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.projection = nn.Linear(2 * width, width)
        self.text = ClapTextModelWithProjection(ClapTextConfig(
            vocab_size=config.pieces, hidden_size=width, num_hidden_layers=config.layers, projection_dim=width,
            num_attention_heads=config.heads, intermediate_size=2 * width, max_position_embeddings=130))  # fmt: skip
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of the inverse temperature, from CLAP's start

    def hear(self, features: Tensor) -> Tensor:
        """Unit vectors from the tagger's features of each frame: [B, width, T] -> [B, width]."""
        states = self.time(features.transpose(1, 2) + self.place)  # [B, T, width]
        pooled = torch.cat([states.mean(1), states.amax(1)], -1)  # [B, 2 * width]
        return normalize(self.projection(pooled).float(), dim=-1)

    def read(self, captions: list[str]) -> Tensor:
        """Unit vectors of one batch of captions, [n, width]."""
        tokens = _tokens(self.tokenizer, captions, self.text.config.max_position_embeddings, self.scale.device)
        return normalize(self.text(**tokens).text_embeds.float(), dim=-1)

    @torch.no_grad()
    def embed_audio(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Unit vectors of sounds: [B, 1, samples] -> float32 [B, width].

        A clip longer than `config.seconds` is embedded in pieces (`by_pieces`); a shorter one is padded with silence.

        Raises:
            MinigenError: another shape, or no samples.
        """
        samples = int(self.config.seconds * SAMPLE_RATE)
        wav = resample(check_wav(wav), sample_rate, SAMPLE_RATE).to(self.scale.device)
        return by_pieces(lambda part: self.hear(self.ears.hidden(log_mel(fit_length(part, samples)))), wav, samples)

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """Unit vectors of captions: n captions -> float32 [n, width]. Captions are cut after 128 tokens.

        Raises:
            MinigenError: no captions.
        """
        return _in_batches(self.read, captions)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors (float16) and the tokenizer to a folder for `load_judge`."""
        self.tokenizer.save_pretrained(folder)
        write_model(folder, asdict(self.config), self.state_dict(), torch.float16)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Judge":
        """The same as `load_judge`."""
        return load_judge(name)


class OfficialJudge(nn.Module):
    """A CLAP model of `transformers`, with its tokenizer and the parameters of its feature extractor."""

    def __init__(self, model: nn.Module, tokenizer, extractor):
        super().__init__()
        fusion = (
            extractor.truncation == "fusion"
        )  # laion/clap-htsat-fused: other filters, and the spectrogram four times
        filters = extractor.mel_filters if fusion else extractor.mel_filters_slaney
        self.model, self.tokenizer, self.extractor, self.copies = model, tokenizer, extractor, 4 if fusion else 1
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32), persistent=False)
        self.eval()

    @torch.no_grad()
    def embed_audio(self, wav: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
        """Unit vectors of sounds: [B, 1, samples] -> float32 [B, E]. A clip longer than 10 s is embedded in pieces.

        Raises:
            MinigenError: another shape, or no samples.
        """
        wav = resample(check_wav(wav), sample_rate, self.extractor.sampling_rate)
        hear = lambda part: self.model.get_audio_features(self.features(part)).pooler_output  # noqa: E731
        return by_pieces(hear, wav, int(self.extractor.nb_max_samples))

    def features(self, wav: Tensor) -> Tensor:
        """Log-mel spectrograms in dB: [B, 1, samples] -> [B, 1, F, bands] ([B, 4, F, bands] with fusion).

            10 log10(max(filters @ |STFT|^2, 1e-10))

        Equal to ClapFeatureExtractor, which takes one clip at a time. A short clip is first repeated or padded with
        zeros to full length, as the extractor's `padding` says.
        """
        size, hop = self.extractor.fft_window_size, self.extractor.hop_length
        wav = self._full_length(wav.squeeze(1).to(self.filters.device))
        window = torch.hann_window(size, device=wav.device)
        power = torch.stft(wav, size, hop, window=window, return_complex=True).abs() ** 2
        mel = (power.transpose(1, 2) @ self.filters).clamp(min=1e-10)
        return (10 * mel.log10())[:, None].repeat(1, self.copies, 1, 1)

    def _full_length(self, wav: Tensor) -> Tensor:
        samples = int(self.extractor.nb_max_samples)
        fits = samples // wav.shape[-1]
        repeats = {"repeat": fits + 1, "repeatpad": max(fits, 1), "pad": 1}[self.extractor.padding]
        return fit_length(wav.repeat(1, repeats), samples)

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """Unit vectors of captions: n captions -> float32 [n, E]. Captions are cut after 512 tokens.

        Raises:
            MinigenError: no captions.
        """
        positions, device = self.model.config.text_config.max_position_embeddings, self.filters.device
        read = lambda part: self.model.get_text_features(**_tokens(self.tokenizer, part, positions, device))  # noqa: E731
        return _in_batches(lambda part: read(part).pooler_output, captions)


def by_pieces(hear: Callable[[Tensor], Tensor], wav: Tensor, samples: int) -> Tensor:
    """Unit vectors of clips of any length: mean over pieces of `samples`, weighted by their lengths, then normalised.

    CLAP's own extractor takes a random piece of a long clip; here equal clips give equal vectors.
    hear: [b, 1, up to samples] -> unit vectors [b, E]; wav: [B, 1, any].
    """
    total = 0
    for piece in wav.split(samples, -1):
        vectors = torch.cat([hear(part) for part in piece.split(BATCH)])  # [B, E]
        total = total + piece.shape[-1] * vectors
    return normalize(total, dim=-1)


def _in_batches(read: Callable[[list[str]], Tensor], captions: list[str]) -> Tensor:
    captions = [captions] if isinstance(captions, str) else list(captions)
    if not captions:
        raise MinigenError("no captions to embed. Give a list of at least one.")
    return torch.cat([read(captions[i : i + BATCH]) for i in range(0, len(captions), BATCH)])


def _tokens(tokenizer, captions: list[str], positions: int, device: torch.device) -> dict[str, Tensor]:
    """Token numbers and mask, [n, N] each, cut to the model's length. RoBERTa's positions start at 2."""
    tokens = tokenizer(captions, padding=True, truncation=True, max_length=positions - 2, return_tensors="pt")
    return {key: tokens[key].to(device) for key in ("input_ids", "attention_mask")}
