"""Official models with random weights, built with `transformers`, `encodec` and in audiocraft's format.

The official checkpoints take gigabytes; a model of the same class with random weights tests the same code. The tests
build small ones, `minigen interop` builds them at published sizes.
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


def encodec_config(causal=False, ratios=(4, 2), codebooks=4, size=32, rate=400, **others):
    """Settings of an EnCodec as facebook/encodec_32khz, or with causal=True as facebook/encodec_24khz.

    rate: samples a second. size: entries V of a codebook.
    """
    from transformers import EncodecConfig

    bits = (size - 1).bit_length()
    frames = rate // (ratios[0] * ratios[1])
    sizes = dict(
        num_filters=4, hidden_size=8, codebook_size=size, upsampling_ratios=list(ratios), sampling_rate=rate,
        target_bandwidths=[codebooks * bits * frames / 1000], num_lstm_layers=2, use_causal_conv=causal,
        use_conv_shortcut=causal,
    )  # fmt: skip
    return EncodecConfig(**{**sizes, **others})


def official_encodec(**changes):
    """A `transformers.EncodecModel`; changes: arguments of `encodec_config`."""
    from transformers import EncodecModel

    return randomise(EncodecModel(encodec_config(**changes)))


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


def t5_config(gated=False, width=12):
    """Settings of a T5, or with gated=True of a Flan-T5."""
    from transformers import T5Config

    kind = "gated-gelu" if gated else "relu"
    return T5Config(d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2, vocab_size=40, feed_forward_proj=kind)


def official_musicgen(decoder=None, text_width=12, **codec):
    """A small MusicgenForConditionalGeneration. codec: arguments of `encodec_config`."""
    decoder = decoder or decoder_config()
    codec = encodec_config(codebooks=decoder.num_codebooks, size=decoder.vocab_size, **codec)
    return musicgen_of(decoder, t5_config(width=text_width), codec)


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


LM_SETTINGS = """
lm_model: transformer_lm
codebooks_pattern: {modeling: delay, delay: {delays: [0, 1, 2, 3], flatten_first: 0}}
conditioners: {description: {model: t5, t5: {name: TEXT, finetune: false}}}
fuser: {cross_attention_pos_emb: false, cross: [description]}
transformer_lm: {dim: 16, num_heads: 2, num_layers: 2, hidden_scale: 4, n_q: 4, card: 32, norm_first: true,
  activation: gelu, bias_attn: false, bias_ff: false, bias_proj: false, positional_embedding: sin, layer_scale: null}
"""
CODEC_SETTINGS = """
sample_rate: 400
channels: 1
compression_model: encodec
encodec: {autoencoder: seanet, quantizer: rvq, sample_rate: "${sample_rate}", channels: "${channels}", causal: false,
  renormalize: false}
seanet: {dimension: 8, channels: "${channels}", causal: "${encodec.causal}", n_filters: 4, n_residual_layers: 1,
  ratios: [4, 2], activation: ELU, norm: weight_norm, kernel_size: 7, residual_kernel_size: 3, last_kernel_size: 7,
  dilation_base: 2, pad_mode: constant, true_skip: true, compress: 2, lstm: 2, disable_norm_outer_blocks: 0,
  decoder: {trim_right_ratio: 1.0, final_activation: null}, encoder: {}}
rvq: {n_q: 4, q_dropout: false, bins: 32}
"""


def package_encodec(true_skip=False, pad_mode="reflect", causal=True, codebooks=4, size=32, rate=400, residuals=1):
    """An EncodecModel of the `encodec` package; with true_skip and constant padding, the same as audiocraft's."""
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    shared = dict(dimension=8, n_filters=4, ratios=[4, 2], true_skip=true_skip, pad_mode=pad_mode, causal=causal,
                  n_residual_layers=residuals)  # fmt: skip
    quantizer = ResidualVectorQuantizer(dimension=8, n_q=codebooks, bins=size, kmeans_init=False)
    bandwidth = codebooks * (size - 1).bit_length() * (rate // 8) / 1000
    model = EncodecModel(SEANetEncoder(**shared), SEANetDecoder(**shared), quantizer, [bandwidth], rate, 1)
    return randomise(model)
