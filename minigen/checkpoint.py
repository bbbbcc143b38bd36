"""Checkpoints: all that a training needs to go on, in one safetensors file, written aside and renamed.

    {"lm": {"norm.weight": tensor}, "step": 7}   --->   tensors: "/lm/norm.weight"
                                                        header: JSON of the rest, the tensors by name

Tensors go into the file as they are, everything else as JSON into its header: reading one runs no code, whoever wrote
it, which a pickle (`torch.save`) cannot promise. Any state of dicts, lists, numbers, strings and tensors will do, an
optimiser's among them. Format: https://huggingface.co/docs/safetensors.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigen.errors import MinigenError
from minigen.files import aside


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write a safetensors file aside, flush it, rename it: the last good one is always there.

    Raises:
        MinigenError: the place cannot be written, or the disk is full.
    """
    with aside(path) as part:
        try:
            save_file(_apart(tensors), part, header)
        except SafetensorError as error:  # its own word for an error of the operating system
            raise OSError(0, str(error)) from error


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a state of nested dicts and lists of tensors, numbers, strings and None; see `save_tensors`."""
    tensors = {}
    plain = _take_out(state, tensors, "")
    save_tensors(path, tensors, {"state": json.dumps(plain)})


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict:
    """Read what `save_checkpoint` wrote: the same state, but tuples come back as lists.

    Raises:
        MinigenError: no such file, or one that is damaged.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return _put_back(json.loads(file.metadata()["state"]), tensors)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MinigenError(
            f"the checkpoint {path} is damaged ({reason}). Delete it to start afresh, or copy it again."
        ) from error


def _take_out(value, tensors: dict[str, Tensor], name: str):
    """`value` with every tensor replaced by {"tensor": its name}; the tensors are collected under these names."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu()
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs, since the keys of an optimiser's state are numbers and JSON's are text
        return {"dict": [[key, _take_out(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_out(item, tensors, f"{name}/{number}") for number, item in enumerate(value)]
    return value


def _put_back(value, tensors: dict[str, Tensor]):
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_back(item, tensors) for key, item in value["dict"]}
    return [_put_back(item, tensors) for item in value] if isinstance(value, list) else value


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies where two names share one memory (tied weights), which the format does not allow."""
    seen, apart = set(), {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone(memory_format=torch.contiguous_format) if place in seen else tensor.contiguous()
        seen.add(place)
    return apart
