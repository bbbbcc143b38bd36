"""Official models with random weights, built with `transformers`, and a language model in audiocraft's format.

The official checkpoints take gigabytes; a model of the same class with random weights tests the same code.
`minigen interop` builds them at the published sizes, the tests build small ones.
"""

from pathlib import Path

import torch
from torch import Tensor, nn


def randomise(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Give every weight a value that shows in the output; returns the model in eval mode.

    scale: standard deviation of the matrices: 0.3 suits widths of about 16, 0.05 those of about 1000.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or "embed_positions" in name or "inited" in name:
            continue
        if name.endswith(("original0", "weight_g")) or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.normal_(std=0.3).add_(1.2)  # of normalisations, and the lengths of weight normalisation
        elif "codebook" in name:
            tensor.normal_(std=0.3)
        else:
            tensor.normal_(std=min(scale, 0.05) if name.endswith("bias") else scale)
    return model.eval()


def decoder_config(width=16, heads=2, layers=2, ffn=24, codebooks=4, size=32, **others):
    """Settings of MusicGen's language model. size: entries V of a codebook."""
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    return MusicgenDecoderConfig(
        vocab_size=size, hidden_size=width, num_hidden_layers=layers, ffn_dim=ffn, num_attention_heads=heads,
        num_codebooks=codebooks, pad_token_id=size, bos_token_id=size, **others,
    )  # fmt: skip


def word_tokenizer():
    """A tokenizer of the same kind as T5's: a unigram model, </s> after every caption, <pad> is 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    unigram = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=unigram, model_input_names=["input_ids", "attention_mask"], **special
    )


def musicgen_of(decoder, text, codec, scale: float = 0.3):
    """A MusicgenForConditionalGeneration from the settings of its three models; see `randomise` for scale."""
    from transformers import MusicgenConfig, MusicgenForConditionalGeneration

    config = MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    model = randomise(MusicgenForConditionalGeneration(config), scale)
    special = decoder.vocab_size
    model.generation_config.update(decoder_start_token_id=special, pad_token_id=special, bos_token_id=special)
    return model


def save_musicgen(model, folder: Path, **options) -> Path:
    """Save a folder like facebook/musicgen-small: three models in one file, and the files of the processor."""
    from transformers import EncodecFeatureExtractor, MusicgenProcessor

    model.save_pretrained(folder, **options)
    extractor = EncodecFeatureExtractor(sampling_rate=model.config.audio_encoder.sampling_rate, padding_side="left")
    MusicgenProcessor(extractor, word_tokenizer()).save_pretrained(folder)
    return folder


class AudiocraftLM(nn.Module):
    """audiocraft's LMModel on PyTorch's own attention, with its tensor names and stacked projections."""

    def __init__(self, width=16, heads=2, layers=2, codebooks=4, size=32, memory=12):
        super().__init__()
        self.emb = nn.ModuleList(nn.Embedding(size + 1, width) for _ in range(codebooks))
        conditioner = nn.ModuleDict({"description": nn.ModuleDict({"output_proj": nn.Linear(memory, width)})})
        self.condition_provider = nn.ModuleDict({"conditioners": conditioner})
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(_layer(width, heads) for _ in range(layers))})
        self.out_norm = nn.LayerNorm(width)
        self.linears = nn.ModuleList(nn.Linear(width, size, bias=False) for _ in range(codebooks))

    def forward(self, sequence: Tensor, states: Tensor | None = None) -> Tensor:
        """Sequence [B, K, S], states [B, N, memory] -> logits [B, K, S, V]; without text, one zero vector is read."""
        x = sum(emb(sequence[:, k]) for k, emb in enumerate(self.emb))
        half, steps = x.shape[-1] // 2, torch.arange(x.shape[1])[:, None]
        phase = steps / (torch.tensor(10000.0) ** (torch.arange(half) / (half - 1)))
        x = x + torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1)
        project = self.condition_provider["conditioners"]["description"]["output_proj"]
        text = torch.zeros(len(x), 1, x.shape[-1]) if states is None else project(states)
        future = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
        for layer in self.transformer["layers"]:
            y = layer["norm1"](x)
            x = x + layer["self_attn"](y, y, y, attn_mask=future, need_weights=False)[0]
            x = x + layer["cross_attention"](layer["norm_cross"](x), text, text, need_weights=False)[0]
            x = x + layer["linear2"](nn.functional.gelu(layer["linear1"](layer["norm2"](x))))
        return torch.stack([linear(self.out_norm(x)) for linear in self.linears], dim=1)


def _layer(width: int, heads: int) -> nn.ModuleDict:
    attention = {
        name: nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
        for name in ("self_attn", "cross_attention")
    }
    norms = {name: nn.LayerNorm(width) for name in ("norm1", "norm_cross", "norm2")}
    linears = {"linear1": nn.Linear(width, 4 * width, bias=False), "linear2": nn.Linear(4 * width, width, bias=False)}
    return nn.ModuleDict({**attention, **norms, **linears})
