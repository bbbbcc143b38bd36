"""Checkpoints: the whole state of a training in one safetensors file, replaced atomically.

    {"lm": {"norm.weight": tensor}, "step": 7}   --->   tensors: "/lm/norm.weight"
                                                        header:  JSON of everything else, with the tensors by name

Tensors are stored as they are, everything else as JSON in the header. Reading such a file never runs
code; reading a pickle (`torch.save`) may. A state may hold dicts, lists, numbers, strings and tensors, as the state of
an optimizer does. Format: https://huggingface.co/docs/safetensors.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigen.engine.errors import MinigenError, one_line
from minigen.engine.files import atomic_file, cannot_write

CHECKPOINT = "checkpoint.safetensors"  # file name of the checkpoint in the folder of every training


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically: the last complete file is there at any moment.

    tensors: of any strides, on any device. Tensors that share memory (tied weights) are each written.

    Raises:
        MinigenError: the place cannot be written, the disk is full, or the format has no such type of tensor.
    """
    with atomic_file(path) as part:
        try:
            save_file(_separate(tensors), part, header)
        except KeyError as error:  # the library looks types up in a table
            raise MinigenError(f"safetensors cannot hold a tensor of type {error}. Convert it first.") from error
        except SafetensorError as error:  # a failed write
            raise cannot_write(path, OSError(one_line(error))) from error


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, no two in the same memory. A tensor that is so already is not copied."""
    separate: dict[str, Tensor] = {}
    used = set()
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise MinigenError(f"safetensors cannot hold {name}, a tensor of {tensor.layout}. Convert it first.")
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if memory in used else tensor
        used.add(memory)
    return separate


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a state of nested dicts and lists of tensors, numbers, strings and None.

    Raises:
        MinigenError: as `save_tensors`.
    """
    tensors: dict[str, Tensor] = {}
    structure = _take_out_tensors(state, tensors, "")
    save_tensors(path, tensors, {"state": json.dumps(structure)})


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> dict:
    """Read a state that `save_checkpoint` wrote, with lists instead of tuples.

    device: where the tensors are placed.

    Raises:
        MinigenError: no such file, or one that is damaged.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return _put_back_tensors(json.loads(file.metadata()["state"]), tensors)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise MinigenError(
            f"the checkpoint {path} is damaged ({one_line(error)}). Delete it to start afresh, or copy it again."
        ) from error


def _take_out_tensors(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """`value` with {"tensor": name} in place of every tensor; the tensors are added to `tensors` under these names."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs: the keys of an optimizer's state are numbers, those of JSON are strings
        return {"dict": [[key, _take_out_tensors(item, tensors, f"{name}/{key}")] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_out_tensors(item, tensors, f"{name}/{number}") for number, item in enumerate(value)]
    return value


def _put_back_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_take_out_tensors`."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _put_back_tensors(item, tensors) for key, item in value["dict"]}
    if isinstance(value, list):
        return [_put_back_tensors(item, tensors) for item in value]
    return value
