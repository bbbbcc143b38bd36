"""Checkpoints of audiocraft: AudioGen and MusicGen as their authors published them, converted to this library's format.

    state_dict.bin               {"best_state": names -> tensors, "xp.cfg": settings as YAML}   ─► the language model
    compression_state_dict.bin   the same for the codec, or {"pretrained": its name on the hub}  ─► codec/
    xp.cfg, conditioners.description.t5.name                                                     ─► pipeline.json

Both files are pickles, which may run a program when opened. They are read with torch.load(weights_only=True), which
builds only tensors and plain containers, and written as safetensors by `minigen convert`.

The language model is that of `lm.py` under other names, with W_q, W_k, W_v stacked into one in_proj_weight. There is
one difference: in audiocraft, padding tokens take part in cross-attention as zero vectors, which still get a share of
the softmax; here, as in `transformers`, they are masked. A single caption has no padding and gives audiocraft's logits.
Source: https://github.com/facebookresearch/audiocraft, models/lm.py, models/builders.py, utils/export.py.
"""

import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.files import write_atomically
from minigen.engine.hub import AUDIOCRAFT, HUB_NAME, fetch, refuse_pointers
from minigen.engine.weights import module_from_tensors, rename
from minigen.interop.encodec import EncodecCodec
from minigen.interop.encodec_weights import bandwidth_of, encodec_from_state
from minigen.lm import AudioLM, AudioLMConfig

LM_NAMES = (  # patterns of audiocraft's names, and their replacements here
    (r"^emb\.", "embeddings."),
    (r"^linears\.", "heads."),
    (r"^out_norm\.", "norm."),
    (r"^condition_provider\.conditioners\.description\.output_proj\.", "memory_projection."),
    (r"^transformer\.layers\.", "layers."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.mha\.", "."),
    (r"\.out_proj\.", ".out."),
    (r"\.norm1\.", ".self_norm."),
    (r"\.norm_cross\.", ".cross_norm."),
    (r"\.norm2\.", ".ffn_norm."),
    (r"\.linear1\.", ".ffn_in."),
    (r"\.linear2\.", ".ffn_out."),
)
LM_AS = {  # the only supported value of settings of the language model
    "lm_model": "transformer_lm", "fuser.cross_attention_pos_emb": False, "transformer_lm.norm_first": True,
    "transformer_lm.norm": "layer_norm", "transformer_lm.activation": "gelu", "transformer_lm.layer_scale": None,
    "transformer_lm.positional_embedding": "sin", "transformer_lm.qk_layer_norm": False,
    "transformer_lm.qk_layer_norm_cross": False, "transformer_lm.kv_repeat": 1, "transformer_lm.past_context": None,
}  # fmt: skip
CODEC_AS = {"compression_model": "encodec", "encodec.autoencoder": "seanet", "encodec.quantizer": "rvq",
            "seanet.activation": "ELU", "seanet.disable_norm_outer_blocks": 0,
            "seanet.decoder.final_activation": None}  # fmt: skip

NEEDED = object()
CODEC_SETTINGS = {  # name in transformers: name in audiocraft, and its default there
    "sampling_rate": ("sample_rate", NEEDED), "audio_channels": ("channels", NEEDED), "n_q": ("rvq.n_q", NEEDED),
    "codebook_size": ("rvq.bins", NEEDED), "hidden_size": ("seanet.dimension", 128),
    "normalize": ("encodec.renormalize", False), "num_filters": ("seanet.n_filters", NEEDED),
    "num_residual_layers": ("seanet.n_residual_layers", NEEDED), "upsampling_ratios": ("seanet.ratios", NEEDED),
    "norm_type": ("seanet.norm", NEEDED), "kernel_size": ("seanet.kernel_size", 7),
    "last_kernel_size": ("seanet.last_kernel_size", 7), "residual_kernel_size": ("seanet.residual_kernel_size", 3),
    "dilation_growth_rate": ("seanet.dilation_base", 2), "use_causal_conv": ("seanet.causal", False),
    "pad_mode": ("seanet.pad_mode", NEEDED), "compress": ("seanet.compress", 2),
    "num_lstm_layers": ("seanet.lstm", NEEDED), "trim_right_ratio": ("seanet.decoder.trim_right_ratio", 1.0),
    "use_conv_shortcut": ("seanet.true_skip", NEEDED),
}  # fmt: skip


def lm_from_audiocraft(state_dict: Mapping[str, Tensor], config, dtype: torch.dtype | None = torch.float32) -> AudioLM:
    """The language model of a MusicGen or AudioGen checkpoint in eval mode, with copied tensors.

    Args:
        state_dict: the file's "best_state".
        config: the file's "xp.cfg" as YAML or as a mapping, or only the settings under "transformer_lm", or an
            AudioLMConfig. Only the number of heads is required; other sizes are those of the tensors.
        dtype: type of the weights; None keeps the stored type.

    Raises:
        MinigenError: no num_heads, a setting or a tensor that this model does not have, shapes that do not fit.
    """
    state_dict, settings = _plain(state_dict), _settings(config, "transformer_lm")
    _refuse_others(settings, LM_AS)
    tensors = {}
    for name, tensor in state_dict.items():
        for ours, part in _split(rename(name, LM_NAMES), tensor):
            tensors[ours] = part.to(dtype or part.dtype, copy=True)
    sizes = _sizes(tensors, settings)
    return module_from_tensors(lambda: AudioLM(sizes), tensors, "this audiocraft state dict").eval()


def codec_from_audiocraft(state_dict: Mapping[str, Tensor], config) -> EncodecCodec:
    """The codec of an AudioGen checkpoint (an EnCodec: 16 kHz, 4 codebooks of 2048), or one trained with audiocraft.

    state_dict: "best_state" of compression_state_dict.bin. config: its "xp.cfg", as YAML or as a mapping.

    Raises:
        MinigenError: settings that are missing or that EnCodec does not have, tensors that do not fit.
    """
    state_dict, settings = _plain(state_dict), _settings(config)
    _refuse_others(settings, CODEC_AS)
    return EncodecCodec(encodec_from_state(state_dict, _encodec_settings(settings)))


def convert_audiocraft(source: str | Path, out: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Convert an audiocraft checkpoint to a folder that `TextToAudio.from_pretrained` reads.

    Args:
        source: a folder with state_dict.bin and compression_state_dict.bin, or a name such as
            "facebook/audiogen-medium".
        out: folder for config.json, model.safetensors, codec/ and pipeline.json. pipeline.json names the text encoder,
            which is found like any other.
        dtype: type of the floating-point weights.

    Raises:
        MinigenError: files are missing, hold more than tensors and text, or are of another kind of model.
    """
    folder, out = _checkpoint(source), Path(out)
    codec = read_pickle(folder / AUDIOCRAFT[1])
    name = codec.get("pretrained")
    if name is None:
        codec_from_audiocraft(codec.get("best_state"), codec.get("xp.cfg")).save_pretrained(out / "codec")
    model = read_pickle(folder / AUDIOCRAFT[0])
    settings = _settings(model.get("xp.cfg"))
    lm_from_audiocraft(model.get("best_state"), settings, None).save_pretrained(out, dtype)
    text = _get(settings, "conditioners.description.t5.name")
    write_atomically(out / "pipeline.json", json.dumps({"codec": name or "codec", "text": text}) + "\n")


def read_pickle(path: Path) -> dict:
    """Content of a .bin file of audiocraft: tensors, numbers, text and containers.

    Raises:
        MinigenError: no such file, or a file that holds other objects.
    """
    refuse_pointers([path])
    try:
        return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise MinigenError(
            f"{path} holds more than tensors and text ({found[1] if found else one_line(error)}), and opening it could "
            "run any program. Where you trust it, export it with audiocraft.utils.export, which leaves the rest out."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise MinigenError(f"{path} cannot be read ({one_line(error)}). Copy or fetch it again.") from error


def _checkpoint(source: str | Path) -> Path:
    if not Path(source).exists() and HUB_NAME.fullmatch(str(source)):
        return fetch("lm", str(source), AUDIOCRAFT, lambda place: all((place / file).is_file() for file in AUDIOCRAFT))
    for file in AUDIOCRAFT:
        if not (Path(source) / file).is_file():
            raise MinigenError(f"no {Path(source) / file}. Name a folder with {' and '.join(AUDIOCRAFT)}.")
    return Path(source)


def _plain(state_dict) -> Mapping[str, Tensor]:
    """The tensors by name, also from the whole content of the file."""
    state_dict = state_dict.get("best_state", state_dict) if isinstance(state_dict, Mapping) else state_dict
    if not isinstance(state_dict, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state_dict.values()):
        raise MinigenError(f'no state dict: {state_dict!r:.60}. Give the file\'s "best_state", tensors by name.')
    return state_dict


def _settings(config, section: str = "") -> dict:
    """The settings as a dict; the settings of one section alone are put under its name."""
    if isinstance(config, AudioLMConfig):
        delays = {"modeling": "delay", "delay": {"delays": config.delays}}
        return {"transformer_lm": {"num_heads": config.heads}, "codebooks_pattern": delays}
    if isinstance(config, str):
        import yaml

        try:
            config = yaml.safe_load(config)
        except yaml.YAMLError as error:
            raise MinigenError(f'the settings are no YAML ({one_line(error)}). Give the file\'s "xp.cfg".') from error
    if not isinstance(config, Mapping):
        raise MinigenError(f'no settings: {config!r:.60}. Give the file\'s "xp.cfg", as text or as a mapping.')
    return dict(config) if not section or section in config else {section: config, **config}


def _get(settings: Mapping, path: str, default=None):
    """A setting by its dotted path. A value "${other.path}" refers to another setting (OmegaConf syntax)."""
    value = settings
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    other = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return _get(settings, other[1], default) if other else value


def _refuse_others(settings: Mapping, known: dict) -> None:
    for path, here in known.items():
        found = _get(settings, path, here)
        if found != here:
            raise MinigenError(f"{path} is {found!r} in this checkpoint, but {here!r} here. It cannot be converted.")


def _split(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """The query, key and value weights of a stacked projection; any other tensor unchanged."""
    if not name.endswith(".in_proj_weight"):
        return [(name, tensor)]
    stem = name.removesuffix("in_proj_weight")
    parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
    return [(f"{stem}{part}.weight", rows) for part, rows in parts]


def _sizes(tensors: dict[str, Tensor], settings: Mapping) -> AudioLMConfig:
    """Sizes of the model: heads and delays from the settings, the rest from the tensors; both must agree."""
    try:
        entries, width = tensors["embeddings.0.weight"].shape
        ffn, memory = len(tensors["layers.0.ffn_in.weight"]), tensors["memory_projection.weight"].shape[1]
    except KeyError as error:
        raise MinigenError(
            f"no {error.args[0]} among these tensors: not a text-to-audio model of audiocraft."
        ) from None
    codebooks, layers = _count(tensors, "embeddings."), _count(tensors, "layers.")
    found = {"n_q": codebooks, "card": entries - 1, "dim": width, "num_layers": layers}
    for key, value in found.items():
        if (said := _get(settings, f"transformer_lm.{key}", value)) != value:
            raise MinigenError(f"{key} is {said} in the settings, {value} in the tensors. Give the settings they had.")
    heads = _get(settings, "transformer_lm.num_heads")
    if heads is None:
        raise MinigenError('the settings do not say num_heads, which no tensor shows. Give the file\'s "xp.cfg".')
    return AudioLMConfig(codebooks, entries - 1, width, layers, heads, ffn, memory, _delays(settings, codebooks))


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """Number of modules in the list whose tensors' names begin with `prefix`."""
    return len({name.split(".")[1] for name in tensors if name.startswith(prefix)})


def _delays(settings: Mapping, codebooks: int) -> tuple[int, ...]:
    modeling = _get(settings, "codebooks_pattern.modeling", "delay")
    if modeling == "parallel":
        return (0,) * codebooks
    if modeling != "delay":
        raise MinigenError(f"the codebook pattern is {modeling!r}; this model writes 'delay' or 'parallel'.")
    return tuple(_get(settings, "codebooks_pattern.delay.delays", range(codebooks)))


def _encodec_settings(settings: Mapping) -> dict:
    """Arguments of `transformers.EncodecConfig` for audiocraft's settings."""
    found = {theirs: _get(settings, path, default) for theirs, (path, default) in CODEC_SETTINGS.items()}
    missing = [CODEC_SETTINGS[theirs][0] for theirs, value in found.items() if value is NEEDED]
    if missing:
        raise MinigenError(f"the codec's settings lack {', '.join(missing)}. Give the file's \"xp.cfg\".")
    frame_rate = -(-found["sampling_rate"] // math.prod(found["upsampling_ratios"]))
    bandwidth = bandwidth_of(found.pop("n_q"), found["codebook_size"], frame_rate)
    return {**found, "use_conv_shortcut": not found["use_conv_shortcut"], "target_bandwidths": [bandwidth]}
