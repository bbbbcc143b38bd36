"""LoRA: a language model is tuned by small matrices beside its own, which stay frozen (arXiv 2106.09685).

    x [..., in] --W [out, in], frozen-------------------------------> y [..., out]
                --A [r, in], trained--> [..., r] --B [out, r], trained--> times α / r, added to y

    W' = W + (α / r) B A                  r rank · α = 2 r here · B = 0 at the start, so that W' = W

Adapted are the matrices of attention and feed-forward blocks (`TARGETS`). For a square matrix of width D, rank r trains
2 r D numbers instead of D². `add_lora` calls the `peft` library, and an adapter is stored in its format:

    adapter_config.json          rank, α, names of the adapted modules, name of the base model
    adapter_model.safetensors    base_model.model.layers.0.self_attention.query.lora_A.weight [r, in], lora_B [out, r]

`merge_adapter` adds a stored adapter to a model's weights. The model has its usual form then, and generates as fast as
before. It does the sum above by itself, because importing `peft` takes longer than making a sound. It also reads
adapters of MusicGen in `transformers`, whose names it translates (`minigen.interop.adapters` writes them).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minigen.engine.checkpoint import save_tensors
from minigen.engine.errors import MinigenError, one_line
from minigen.engine.files import write_atomically
from minigen.engine.settings import COUNT, check_number
from minigen.engine.weights import module_from_tensors, rename
from minigen.lm import AudioLM

TARGETS = ("query", "key", "value", "out", "ffn_in", "ffn_out")
SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # before the names of an adapter's tensors
ADAPTER = "default"  # peft's name for the first adapter of a model
UNKNOWN = ("use_dora", "use_qalora", "lora_bias", "modules_to_save", "alpha_pattern", "fan_in_fan_out",
           "trainable_token_indices", "target_parameters", "layer_replication")  # fmt: skip


def add_lora(lm: AudioLM, rank: int, base: str | None = None, seed: int = 0) -> AudioLM:
    """Freeze the weights of a model, and add a trainable adapter to it in place; returns the model.

    Args:
        lm (AudioLM): the model; its outputs are unchanged at first.
        rank (int): r, from 1 to the width.
        base (str or None): name of the model, stored in the adapter's config.
        seed (int): of the matrices A.

    Raises:
        MinigenError: a rank out of range, or a model that has an adapter already.
    """
    check_number("the rank of LoRA", rank, COUNT)
    if rank > lm.config.width:
        raise MinigenError(f"rank {rank} for a model of width {lm.config.width}. Give a rank far below the width.")
    if is_adapted(lm):
        raise MinigenError("this model has an adapter already. Merge it first: minigen.tuning.lora.merged(lm).")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS), base_model_name_or_path=base)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, lm)
    return lm


def is_adapted(lm: torch.nn.Module) -> bool:
    """Whether the model has an adapter that is not merged."""
    return hasattr(lm, "peft_config")


def without_adapter(lm: AudioLM) -> AudioLM:
    """The model before the adapter, frozen, in eval mode. It uses the same tensors and takes no memory of its own."""
    weights = {
        name.replace(".base_layer.", "."): tensor for name, tensor in lm.state_dict().items() if ".lora_" not in name
    }
    return module_from_tensors(lambda: AudioLM(lm.config), weights, "the base model").eval().requires_grad_(False)


@torch.no_grad()
def merged(lm: AudioLM) -> AudioLM:
    """A plain model in eval mode with the adapter's products added to copies of the weights."""
    plain = without_adapter(lm)
    for name, module in lm.named_modules():
        if hasattr(module, "get_delta_weight"):  # a layer that peft has adapted
            own = plain.get_submodule(name)
            own.weight = torch.nn.Parameter(own.weight + module.get_delta_weight(ADAPTER))
    return plain


def save_adapter(lm: torch.nn.Module, folder: str | Path) -> None:
    """Write the adapter of a model in peft's format, each file whole or not at all.

    Raises:
        MinigenError: the folder cannot be written.
    """
    config = {name: _plain(value) for name, value in lm.peft_config[ADAPTER].to_dict().items()}
    tensors = {
        PREFIX + name.replace(f".{ADAPTER}.", "."): tensor
        for name, tensor in lm.state_dict().items()
        if ".lora_" in name
    }
    write_adapter(folder, {**config, "inference_mode": True}, tensors)


def write_adapter(folder: str | Path, config: dict, tensors: dict[str, Tensor]) -> None:
    """Write the two files of an adapter."""
    folder = Path(folder)
    write_atomically(folder / SETTINGS, json.dumps(config, indent=2) + "\n")
    save_tensors(folder / WEIGHTS, tensors, {"format": "pt"})


def _plain(value):
    """A setting as JSON has it: sets become sorted lists, named constants their value."""
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)


def read_adapter(folder: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Settings and tensors of a stored adapter, the tensors by peft's names without `base_model.model.`.

    Raises:
        MinigenError: no adapter there, a damaged one, or one of another kind than plain LoRA.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / SETTINGS).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        missing = WEIGHTS if (folder / SETTINGS).is_file() else SETTINGS
        raise MinigenError(
            f"{folder} holds no adapter: {missing} is missing. Name a folder with {SETTINGS} and {WEIGHTS}."
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise MinigenError(f"the adapter in {folder} is damaged ({one_line(error)}). Copy or make it again.") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise MinigenError(f"{folder} holds an adapter of the kind {kind!r}. Only LORA is read: merge it with peft.")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise MinigenError(f"{folder / SETTINGS} has no number lora_alpha. Copy or make the adapter again.")
    used = [name for name in UNKNOWN if config.get(name)]
    if used or config.get("bias", "none") != "none":
        raise MinigenError(
            f"the adapter in {folder} uses {', '.join(used) or 'bias'}, which is not plain LoRA. Merge it with peft."
        )
    return config, {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


@torch.no_grad()
def merge_adapter(lm: AudioLM, folder: str | Path) -> AudioLM:
    """Add a stored adapter to the weights of a plain model: W <- W + (α / r) B A, or α / √r for rsLoRA.

    Args:
        lm (AudioLM): the model that the adapter was made for, changed in place.
        folder (str or Path): an adapter in peft's format, for an `AudioLM` or for MusicGen in `transformers`.

    Returns:
        The model.

    Raises:
        MinigenError: no adapter in the folder, or one of another model, another rank or another kind.
    """
    config, tensors = read_adapter(folder)
    modules, rank = dict(lm.named_modules()), config.get("r")
    pairs = pair_matrices(tensors, folder)
    for name, (a, b) in pairs.items():  # all are checked before the first is added
        found, wanted = (len(b), a.shape[1]), tuple(getattr(modules.get(name), "weight", torch.empty(0)).shape)
        if found != wanted:
            there = f"{wanted[0]} x {wanted[1]}" if len(wanted) == 2 else "missing"
            raise MinigenError(
                f"the adapter in {folder} was made for another model: {name} is {found[0]} x {found[1]} there, {there} "
                f"in this one. Its base is {config.get('base_model_name_or_path') or 'not named'}."
            )
        if not len(a) == b.shape[1] == rank and not config.get("rank_pattern"):
            raise MinigenError(
                f"the adapter in {folder} has the rank {rank} in {SETTINGS}, but {name} has {len(a)}. Copy both files "
                "of one adapter."
            )
    for name, (a, b) in pairs.items():
        scale = config["lora_alpha"] / (len(a) ** 0.5 if config.get("use_rslora") else len(a))
        weight = modules[name].weight
        weight += (scale * (b.float() @ a.float())).to(weight)  # [out, in]
    return lm


def pair_matrices(tensors: dict[str, Tensor], folder: str | Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Names of the adapted modules of an `AudioLM` -> their matrices A [r, in] and B [out, r].

    Raises:
        MinigenError: a matrix without its partner, or no matrices.
    """
    ours = {_our_name(name): tensor for name, tensor in tensors.items()}
    names = sorted({name.partition(".lora_")[0] for name in ours})
    wanted = {f"{name}.lora_{letter}.weight" for name in names for letter in "AB"}
    if not names or wanted != ours.keys():
        odd = next(iter(sorted(wanted ^ ours.keys())), "no tensors")
        raise MinigenError(f"the adapter in {folder} is not whole, or not plain LoRA ({odd}). Make it again.")
    return {name: (ours[f"{name}.lora_A.weight"], ours[f"{name}.lora_B.weight"]) for name in names}


def _our_name(name: str) -> str:
    """Name of a tensor in an `AudioLM`, from that or from the name in MusicGen of `transformers`."""
    if "model.decoder." not in name and "enc_to_dec_proj" not in name:
        return name
    from minigen.interop.musicgen import NAMES

    return rename(name.removeprefix("decoder."), NAMES).replace("enc_to_dec_proj", "memory_projection")
