"""EnCodec's weights in three libraries: `transformers`, the `encodec` package of its authors, and this one.

    encodec package      encoder.model.3.conv.conv.weight_g                     quantizer.vq.layers.0._codebook.embed
    transformers         encoder.layers.3.conv.parametrizations.weight.original0   quantizer.layers.0.codebook.embed
    this library         (that of transformers, behind `EncodecCodec`)          stages.0.codebook

The layers and weights are the same under other names. The quantiser of this library gives the same codes as theirs from
the same codebooks. audiocraft names its weights as the package does.
Sources: https://github.com/facebookresearch/encodec, modules/ and quantization/; `transformers`, models/encodec.
"""

import math
from pathlib import Path

from torch import Tensor, nn

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.weights import no_loading_bar, rename
from minigen.interop.encodec import EncodecCodec, check_mono
from minigen.quantizer import ResidualVectorQuantizer

PACKAGE_NAMES = (  # patterns of names in the encodec package and audiocraft, and their replacements in transformers
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.(conv|convtr)\.(conv|convtr)\.", ".conv."),
    (r"\.(conv|convtr)\.norm\.", ".norm."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"^quantizer\.vq\.", "quantizer."),
    (r"\._codebook\.", ".codebook."),
)


def codec_from_encodec(model_or_name, bandwidth: float | None = None) -> EncodecCodec:
    """An official EnCodec as a codec of this library.

    Args:
        model_or_name: an `EncodecModel` of the `encodec` package (copied), one of `transformers` (used itself), or a
            name or folder as in `EncodecCodec.from_pretrained`.
        bandwidth: kb/s. None: the bandwidth that the package's model is set to (its highest if it is not set), else 6.

    Raises:
        MinigenError: not mono, or layers that the official model does not have.
    """
    if isinstance(model_or_name, str | Path):
        return EncodecCodec.from_pretrained(model_or_name, bandwidth or 6.0)
    if hasattr(model_or_name, "target_bandwidths"):  # the package's
        model, found = model_or_name, model_or_name.bandwidth or max(model_or_name.target_bandwidths)
        return EncodecCodec(encodec_from_state(model.state_dict(), _package_settings(model)), bandwidth or found)
    return EncodecCodec(model_or_name, bandwidth or 6.0)


def encodec_from_state(state_dict: dict[str, Tensor], settings: dict) -> nn.Module:
    """A `transformers.EncodecModel` with the weights of the `encodec` package or of audiocraft.

    settings: arguments of `transformers.EncodecConfig`.

    Raises:
        MinigenError: settings that it refuses; tensors that are missing, unknown or of another shape.
    """
    from transformers import EncodecConfig, EncodecModel

    try:
        with no_loading_bar():
            config = EncodecConfig(**settings)
            check_mono(config)
            model = EncodecModel(config)
            model.load_state_dict({rename(name, PACKAGE_NAMES): tensor for name, tensor in state_dict.items()})
    except MinigenError:
        raise
    except Exception as error:  # several types for settings, RuntimeError for tensors
        raise MinigenError(
            f"these weights are not those of an EnCodec ({one_line(error)}). Give the settings they had."
        ) from error
    return model.eval()


def bandwidth_of(num_codebooks: int, codebook_size: int, frame_rate: int) -> float:
    """Bit rate of K codebooks in kb/s: K · log2 V · frame_rate / 1000, plus half a bit/s against rounding down K."""
    return (num_codebooks * math.ceil(math.log2(codebook_size)) * frame_rate + 0.5) / 1000


def _package_settings(model) -> dict:
    """Arguments of `transformers.EncodecConfig` for a model of the `encodec` package, read from its layers."""
    encoder, decoder = model.encoder, model.decoder
    first, block, last = encoder.model[0], encoder.model[1], encoder.model[-1]
    second = encoder.model[2] if encoder.n_residual_layers > 1 else None
    (lstm,) = [layer.lstm for layer in encoder.model if hasattr(layer, "lstm")]
    return {
        "target_bandwidths": [float(b) for b in model.target_bandwidths], "sampling_rate": model.sample_rate,
        "audio_channels": model.channels, "normalize": model.normalize, "chunk_length_s": model.segment,
        "overlap": model.overlap if model.segment else None, "hidden_size": encoder.dimension,
        "num_filters": encoder.n_filters, "num_residual_layers": encoder.n_residual_layers,
        "upsampling_ratios": list(decoder.ratios), "norm_type": first.conv.norm_type,
        "kernel_size": first.conv.conv.kernel_size[0], "last_kernel_size": last.conv.conv.kernel_size[0],
        "residual_kernel_size": block.block[1].conv.conv.kernel_size[0],
        "dilation_growth_rate": second.block[1].conv.conv.dilation[0] if second else 2,
        "use_causal_conv": first.causal, "pad_mode": first.pad_mode,
        "compress": encoder.n_filters // block.block[1].conv.conv.out_channels, "num_lstm_layers": lstm.num_layers,
        "trim_right_ratio": next(layer.trim_right_ratio for layer in decoder.model if hasattr(layer, "convtr")),
        "codebook_size": model.quantizer.bins, "use_conv_shortcut": not isinstance(block.shortcut, nn.Identity),
    }  # fmt: skip


def codec_to_encodec(codec: EncodecCodec):
    """The codec as a model of the `encodec` package, with copied weights: same codes, same waveform."""
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder

    config = codec.model.config
    shared = dict(
        channels=config.audio_channels, dimension=config.hidden_size, n_filters=config.num_filters,
        n_residual_layers=config.num_residual_layers, ratios=list(config.upsampling_ratios), norm=config.norm_type,
        kernel_size=config.kernel_size, last_kernel_size=config.last_kernel_size,
        residual_kernel_size=config.residual_kernel_size, dilation_base=config.dilation_growth_rate,
        causal=config.use_causal_conv, pad_mode=config.pad_mode, true_skip=not config.use_conv_shortcut,
        compress=config.compress, lstm=config.num_lstm_layers,
    )  # fmt: skip
    encoder, decoder = SEANetEncoder(**shared), SEANetDecoder(**shared, trim_right_ratio=config.trim_right_ratio)
    quantizer = _package_quantizer(config.hidden_size, config.num_quantizers, config.codebook_size)
    bandwidths = list(config.target_bandwidths)
    model = EncodecModel(encoder, decoder, quantizer, bandwidths, config.sampling_rate, config.audio_channels)
    weights = codec.model.state_dict()
    model.load_state_dict({name: weights[rename(name, PACKAGE_NAMES)] for name in model.state_dict()})
    model.set_target_bandwidth(codec.bandwidth)
    return model.eval()


def _package_quantizer(width: int, num_codebooks: int, codebook_size: int):
    from encodec.quantization import ResidualVectorQuantizer as PackageQuantizer

    return PackageQuantizer(dimension=width, n_q=num_codebooks, bins=codebook_size, kmeans_init=False)


def quantizer_to_encodec(quantizer: ResidualVectorQuantizer):
    """The quantiser as one of the `encodec` package: encode(latents [B, D, T], frame_rate) -> codes [K, B, T]."""
    books = [stage.codebook for stage in quantizer.stages]
    theirs = _package_quantizer(books[0].shape[1], len(books), len(books[0]))
    for layer, book in zip(theirs.vq.layers, books, strict=True):
        layer._codebook.embed.copy_(book)
        layer._codebook.embed_avg.copy_(book)
    return theirs.eval()


def quantizer_to_transformers(quantizer: ResidualVectorQuantizer):
    """The quantiser as one of `transformers`' EnCodec: encode(latents [B, D, T]) -> codes [K, B, T]."""
    from transformers import EncodecConfig
    from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer

    books = [stage.codebook for stage in quantizer.stages]
    size, width = books[0].shape
    frame_rate = 50  # any: the settings need one, the codes do not depend on it
    bandwidth = bandwidth_of(len(books), size, frame_rate)
    rate = frame_rate * math.prod(EncodecConfig().upsampling_ratios)
    settings = {"codebook_size": size, "codebook_dim": width, "hidden_size": width, "sampling_rate": rate}
    theirs = EncodecResidualVectorQuantizer(EncodecConfig(**settings, target_bandwidths=[bandwidth]))
    for layer, book in zip(theirs.layers, books, strict=True):
        layer.codebook.embed.copy_(book)
        layer.codebook.embed_avg.copy_(book)
    return theirs.eval()


def quantizer_from_encodec(theirs: nn.Module) -> ResidualVectorQuantizer:
    """A quantiser of this library with the codebooks of one of the `encodec` package, audiocraft or `transformers`."""
    books = [book for name, book in theirs.state_dict().items() if name.endswith("codebook.embed")]
    quantizer = ResidualVectorQuantizer(len(books), *books[0].shape)
    for stage, book in zip(quantizer.stages, books, strict=True):
        stage.codebook.copy_(book)
        stage.sums.copy_(book)
    return quantizer
