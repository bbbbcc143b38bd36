"""Official models with random weights at small sizes, made as `transformers` and audiocraft make them."""

import torch
from torch import nn


def randomise(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Weights large enough for every part to matter; the entries of codebooks, too."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and "embed_positions" not in name and "inited" not in name:
            tensor.normal_(std=scale)
    return model.eval()


def randomise_encodec(model: nn.Module) -> nn.Module:
    """Weights that keep what comes in alive to the end, so that codes and waveforms vary; of either library's model."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("weight_g", "original0")):
            tensor.normal_(std=0.3).add_(1.5)
        elif name.endswith("bias"):
            tensor.normal_(std=0.05)
        elif tensor.is_floating_point() and "inited" not in name:
            tensor.normal_(std=0.3)
    return model.eval()


def decoder_config(width=16, heads=2, layers=2, ffn=24, codebooks=4, size=32, **others):
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    return MusicgenDecoderConfig(
        vocab_size=size, hidden_size=width, num_hidden_layers=layers, ffn_dim=ffn, num_attention_heads=heads,
        num_codebooks=codebooks, pad_token_id=size, bos_token_id=size, **others,
    )  # fmt: skip


def encodec_config(causal=False, ratios=(4, 2), codebooks=4, size=32, rate=400, **others):
    """As facebook/encodec_32khz, or with causal=True as facebook/encodec_24khz."""
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
    from transformers import EncodecModel

    return randomise_encodec(EncodecModel(encodec_config(**changes)))


def word_tokenizer():
    """A tokenizer as T5's: pieces by their likelihood, </s> after every caption, <pad> is 0."""
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
    from transformers import T5Config

    kind = "gated-gelu" if gated else "relu"
    return T5Config(d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2, vocab_size=40, feed_forward_proj=kind)


def official_musicgen(decoder=None, text_width=12, **codec):
    """MusicgenForConditionalGeneration, as facebook/musicgen-small."""
    from transformers import MusicgenConfig, MusicgenForConditionalGeneration

    decoder = decoder or decoder_config()
    codec = encodec_config(codebooks=decoder.num_codebooks, size=decoder.vocab_size, **codec)
    config = MusicgenConfig(text_encoder=t5_config(width=text_width), audio_encoder=codec, decoder=decoder)
    model = randomise(MusicgenForConditionalGeneration(config))
    randomise_encodec(model.audio_encoder)
    special = decoder.vocab_size
    model.generation_config.update(decoder_start_token_id=special, pad_token_id=special, bos_token_id=special)
    return model


def save_musicgen(model, folder, **options):
    """A folder as facebook/musicgen-small: three models in one file, the processor's files beside them."""
    from transformers import EncodecFeatureExtractor, MusicgenProcessor

    model.save_pretrained(folder, **options)
    extractor = EncodecFeatureExtractor(sampling_rate=model.config.audio_encoder.sampling_rate, padding_side="left")
    MusicgenProcessor(extractor, word_tokenizer()).save_pretrained(folder)
    return folder


class AudiocraftLM(nn.Module):
    """audiocraft's LMModel read literally, on PyTorch's own attention: its names, its stacked projections."""

    def __init__(self, width=16, heads=2, layers=2, codebooks=4, size=32, memory=12):
        super().__init__()
        self.emb = nn.ModuleList(nn.Embedding(size + 1, width) for _ in range(codebooks))
        conditioner = nn.ModuleDict({"description": nn.ModuleDict({"output_proj": nn.Linear(memory, width)})})
        self.condition_provider = nn.ModuleDict({"conditioners": conditioner})
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(_layer(width, heads) for _ in range(layers))})
        self.out_norm = nn.LayerNorm(width)
        self.linears = nn.ModuleList(nn.Linear(width, size, bias=False) for _ in range(codebooks))

    def forward(self, sequence, states=None):
        """[B, K, S], [B, N, memory] -> [B, K, S, V]; without text it reads zeros."""
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


def _layer(width, heads):
    attention = lambda: nn.MultiheadAttention(width, heads, bias=False, batch_first=True)  # noqa: E731
    norms = {name: nn.LayerNorm(width) for name in ("norm1", "norm_cross", "norm2")}
    linears = {"linear1": nn.Linear(width, 4 * width, bias=False), "linear2": nn.Linear(4 * width, width, bias=False)}
    return nn.ModuleDict({"self_attn": attention(), "cross_attention": attention(), **norms, **linears})


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
    """An EncodecModel of the encodec package; with true_skip and constant padding, audiocraft's, name for name."""
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    shared = dict(dimension=8, n_filters=4, ratios=[4, 2], true_skip=true_skip, pad_mode=pad_mode, causal=causal,
                  n_residual_layers=residuals)  # fmt: skip
    quantizer = ResidualVectorQuantizer(dimension=8, n_q=codebooks, bins=size, kmeans_init=False)
    bandwidth = codebooks * (size - 1).bit_length() * (rate // 8) / 1000
    model = EncodecModel(SEANetEncoder(**shared), SEANetDecoder(**shared), quantizer, [bandwidth], rate, 1)
    return randomise_encodec(model)
