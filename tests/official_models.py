"""Small official models with random weights, for the tests of the conversions."""

from minigen.interop.random_models import decoder_config, musicgen_of, randomise


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
