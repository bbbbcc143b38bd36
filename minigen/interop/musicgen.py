"""MusicGen's language model as `lm.AudioLM`, its pipeline as `generate.TextToAudio`'s parts, and both back again.

    transformers                                          here
    model.decoder.embed_tokens.k      [V + 1, D]          embeddings.k
    model.decoder.layers.n            self_attn.q_proj    layers.n.self_attention.query
                                      encoder_attn, fc1   layers.n.cross_attention, ffn_in
    model.decoder.layer_norm, lm_heads.k [V, D]           norm, heads.k
    enc_to_dec_proj                   [D, M]              memory_projection
    text_encoder, audio_encoder                           text.TextEncoder, interop.encodec.EncodecCodec

Each tensor corresponds to one tensor of the same shape. If the text encoder is as wide as the decoder, MusicGen has no
enc_to_dec_proj, and memory_projection is the identity. The special token V fills the gaps of the delay pattern and
starts every sequence in both. `transformers` flattens batch and codebooks: its input_ids [B K, S] are
sequence.flatten(0, 1), and so are its logits. Positions are computed; older checkpoints store them.

Source: MusicGen (arXiv 2306.05284); `transformers`, models/musicgen/modeling_musicgen.py.
"""

import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.hub import find_model
from minigen.engine.weights import load_official, module_from_tensors, no_loading_bar, read_config, read_tensors, rename
from minigen.interop.encodec import EncodecCodec
from minigen.lm import AudioLM, AudioLMConfig
from minigen.t5 import load_t5
from minigen.text import TextEncoder, load_tokenizer

NAMES = (  # patterns of names in `transformers`, and their replacements here
    (r"^model\.decoder\.embed_tokens\.", "embeddings."),
    (r"^model\.decoder\.layers\.", "layers."),
    (r"^model\.decoder\.layer_norm\.", "norm."),
    (r"^lm_heads\.", "heads."),
    (r"\.self_attn_layer_norm\.", ".self_norm."),
    (r"\.encoder_attn_layer_norm\.", ".cross_norm."),
    (r"\.final_layer_norm\.", ".ffn_norm."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.encoder_attn\.", ".cross_attention."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".ffn_in."),
    (r"\.fc2\.", ".ffn_out."),
)


def lm_from_musicgen(model_or_name, dtype: torch.dtype | None = torch.float32) -> AudioLM:
    """MusicGen's language model as an `AudioLM` in eval mode, with copied weights.

    Args:
        model_or_name: a `MusicgenForConditionalGeneration`, a `MusicgenForCausalLM` (which reads text states of its own
            width, so the projection is the identity), or the name or folder of either, such as
            "facebook/musicgen-small". Of a whole checkpoint only the decoder is read.
        dtype: type of the weights; None keeps the stored type.

    Raises:
        MinigenError: another kind of model (stereo, melody), no such folder and no way to fetch it, damaged files.
    """
    if isinstance(model_or_name, str | Path):
        return _read_lm(find_model("lm", model_or_name), dtype)
    decoder = getattr(model_or_name, "decoder", model_or_name)
    if not hasattr(decoder, "lm_heads"):
        raise MinigenError(f"{type(model_or_name).__name__} is not a MusicGen with heads. Give a MusicgenForCausalLM.")
    projection = getattr(model_or_name, "enc_to_dec_proj", None)
    tensors = {
        name: tensor.detach().to(dtype or tensor.dtype, copy=True) for name, tensor in _parts(decoder, projection)
    }
    return _build(decoder.config, tensors, "this MusicGen")


def _parts(decoder: nn.Module, projection: nn.Module | None):
    yield from decoder.state_dict().items()
    if projection is not None:
        yield from ((f"enc_to_dec_proj.{name}", tensor) for name, tensor in projection.state_dict().items())


def _read_lm(folder: Path, dtype: torch.dtype | None) -> AudioLM:
    config = _musicgen_config(folder)
    if config.model_type == "musicgen_decoder":
        return _build(config, read_tensors(folder, dtype), folder)
    tensors = read_tensors(folder, dtype, "decoder.")
    projection = read_tensors(folder, dtype, "enc_to_dec_proj.")
    tensors.update({f"enc_to_dec_proj.{name}": tensor for name, tensor in projection.items()})
    return _build(config.decoder, tensors, folder)


def _musicgen_config(folder: Path):
    """Settings of a checkpoint of a whole MusicGen or of its decoder alone."""
    from transformers import MusicgenConfig
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    kinds = {"musicgen": MusicgenConfig, "musicgen_decoder": MusicgenDecoderConfig}
    kind = read_config(folder).get("model_type")
    if kind not in kinds:
        raise MinigenError(
            f"{folder} holds a {kind!r} model, not a MusicGen. Name one such as facebook/musicgen-small."
        )
    try:
        with no_loading_bar():
            return kinds[kind].from_pretrained(folder)
    except Exception as error:  # settings that transformers refuses, each in its own way
        raise MinigenError(f"{folder / 'config.json'} is damaged ({one_line(error)}). Fetch it again.") from error


def _build(config, tensors: dict[str, Tensor], place: str | Path) -> AudioLM:
    """The language model made of the decoder's tensors, which have their names in `transformers`."""
    _check_config(config)
    names = [name for name in tensors if "embed_positions" not in name]
    ours = {rename(name, NAMES).replace("enc_to_dec_proj", "memory_projection"): tensors[name] for name in names}
    if "memory_projection.weight" not in ours:
        like = next(iter(ours.values()))
        ours["memory_projection.weight"] = torch.eye(config.hidden_size).to(like)
        ours["memory_projection.bias"] = torch.zeros(config.hidden_size).to(like)
    sizes = AudioLMConfig(
        config.num_codebooks, config.vocab_size, config.hidden_size, config.num_hidden_layers,
        config.num_attention_heads, config.ffn_dim, ours["memory_projection.weight"].shape[1],
        tuple(range(config.num_codebooks)), config.dropout,
    )  # fmt: skip
    return module_from_tensors(lambda: AudioLM(sizes), ours, place).eval()


def _check_config(config) -> None:
    if config.model_type != "musicgen_decoder":
        raise MinigenError(
            f"this is a {config.model_type!r} model, not MusicGen's decoder. Give a MusicgenForCausalLM."
        )
    if config.audio_channels != 1:
        raise MinigenError(
            f"this MusicGen has {config.audio_channels} channels; minigen is mono. Use facebook/musicgen-small, "
            "-medium or -large."
        )
    if config.activation_function != "gelu":
        raise MinigenError(f"the activation is {config.activation_function!r}; this model has GELU, as MusicGen's.")


def pipeline_from_musicgen(
    folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[EncodecCodec, TextEncoder, AudioLM]:
    """Codec, text encoder and language model of a whole checkpoint in MusicGen's format.

    dtype: type of the text encoder and the language model. The codec stays in float32, since its nearest codebook
    entries depend on rounding.

    Raises:
        MinigenError: a stereo or melody model, damaged or missing files.
    """
    from transformers import EncodecModel

    config = _musicgen_config(folder)
    if config.model_type != "musicgen" or config.text_encoder.model_type != "t5":
        raise MinigenError(f"{folder} is no whole MusicGen with a T5. Name one such as facebook/musicgen-small.")
    _check_config(config.decoder)
    try:
        codec = load_official(EncodecModel, folder, torch.float32, "audio_encoder.", config.audio_encoder)
        text = load_t5(folder, dtype, "text_encoder.", config.text_encoder.to_dict())
        encoder = TextEncoder(text, load_tokenizer(folder))
    except MinigenError:
        raise
    except Exception as error:  # the loaders raise a dozen unrelated types for a missing, cut or foreign file
        raise MinigenError(f"{folder} holds no complete MusicGen ({one_line(error)}). Fetch it again.") from error
    return EncodecCodec(codec), encoder, _read_lm(folder, dtype)


def lm_to_musicgen(lm: AudioLM, encoder: TextEncoder | None = None, codec: EncodecCodec | None = None):
    """The language model as a model of `transformers` in eval mode, with copied weights.

    Without encoder and codec it is a `MusicgenForCausalLM`, which has no projection of the text: its
    encoder_hidden_states are `lm.memory_projection(states)`, zero for padding. With a text encoder and an official
    codec it is a `MusicgenForConditionalGeneration`, whose greedy `generate` gives the same codes as `generate_codes`.

    Raises:
        MinigenError: only one of encoder and codec is given, the codec is not an EnCodec, or the text encoder is as
            wide as the language model and the projection is not the identity (MusicGen has no projection then).
    """
    from transformers import MusicgenForCausalLM
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    sizes = lm.config
    if sizes.delays != tuple(range(sizes.num_codebooks)):
        warnings.warn(f"generate of transformers delays by 0, 1, 2, ..., not by {sizes.delays}.", stacklevel=2)
    with no_loading_bar():
        config = MusicgenDecoderConfig(
            vocab_size=sizes.codebook_size, hidden_size=sizes.width, num_hidden_layers=sizes.layers, ffn_dim=sizes.ffn,
            num_attention_heads=sizes.heads, num_codebooks=sizes.num_codebooks, dropout=sizes.dropout,
            pad_token_id=sizes.codebook_size, bos_token_id=sizes.codebook_size,
        )  # fmt: skip
        with torch.device("meta"):
            names = MusicgenForCausalLM(config).state_dict()
        weights = lm.state_dict()
        theirs = {name: weights[rename(name, NAMES)].clone() for name in names}
        model = MusicgenForCausalLM.from_pretrained(None, config=config, state_dict=theirs, dtype=lm.norm.weight.dtype)
    if encoder is None and codec is None:
        return model.eval()
    if encoder is None or codec is None:
        raise MinigenError("a whole MusicGen has a text encoder and a codec. Give both, or neither.")
    if not isinstance(codec, EncodecCodec):
        kind = type(codec).__name__
        raise MinigenError(f"a whole MusicGen has an official EnCodec, not a {kind}. Export the language model alone.")
    return _whole(lm, model, encoder, codec)


def _whole(lm: AudioLM, decoder: nn.Module, encoder: TextEncoder, codec: EncodecCodec):
    """A MusicgenForConditionalGeneration of a decoder and copies of the text encoder and the codec."""
    import copy

    from transformers import MusicgenForConditionalGeneration, T5Config, T5EncoderModel

    special = lm.config.codebook_size
    with no_loading_bar():
        text = T5EncoderModel(T5Config(**asdict(encoder.model.config)))
        text.load_state_dict(encoder.model.state_dict())
        audio = copy.deepcopy(codec.model)
        model = MusicgenForConditionalGeneration(text_encoder=text, audio_encoder=audio, decoder=decoder).eval()
    weights = {name: tensor.clone() for name, tensor in lm.memory_projection.state_dict().items()}
    if hasattr(model, "enc_to_dec_proj"):
        model.enc_to_dec_proj.load_state_dict(weights, assign=True)
    elif not torch.equal(weights["weight"], torch.eye(lm.config.width).to(weights["weight"])) or weights["bias"].any():
        raise MinigenError(
            f"text states and language model are both {lm.config.width} wide, and MusicGen projects no text then. "
            "Export the language model alone."
        )
    model.generation_config.update(decoder_start_token_id=special, pad_token_id=special, bos_token_id=special)
    return model
