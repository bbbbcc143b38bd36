"""Checkpoints: all that a training needs to go on, in one safetensors file, written aside and renamed.

    {"lm": {"norm.weight": tensor}, "step": 7}   --->   tensors: "/lm/norm.weight"
                                                        header: JSON of the rest, the tensors by name

    file:   length of the header, 8 bytes  |  header: JSON, types, shapes and places  |  the tensors, one after another

Tensors go into the file as they are, everything else as JSON into its header: reading one runs no code, whoever wrote
it, which a pickle (`torch.save`) cannot promise. Any state of dicts, lists, numbers, strings and tensors will do, an
optimiser's among them. Format: https://huggingface.co/docs/safetensors. It is written here, and not by the library,
whose writer makes a temporary file of its own that stays behind when the process is killed; the bytes are the same.
"""

import json
import sys
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.engine.files import atomic_file

# The format's names, in the library's order: what needs the widest alignment comes first in a file.
TYPES = {
    torch.uint64: "U64", torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.uint32: "U32",
    torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint16: "U16", torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
CHECKPOINT = "checkpoint.safetensors"  # the name that every training gives it in its folder
ALIGNMENT = 8  # bytes: the header is filled up with spaces, so that the tensors begin at a multiple


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> None:
    """Write a safetensors file aside, flush it, rename it: the last good one is always there.

    tensors: of any type in TYPES, any strides, any device; where two share one memory (tied weights), each is written.

    Raises:
        MinigenError: the place cannot be written, the disk is full, or the format has no name for a tensor's type.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES or tensor.layout != torch.strided:
            raise MinigenError(f"{name} is a tensor of {tensor.dtype}, {tensor.layout}. Convert it first.")
    order = list(TYPES)
    ordered = sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0]))
    with atomic_file(path) as part, open(part, "wb") as file:
        file.write(_header(ordered, header))
        for _, tensor in ordered:
            _write(file, tensor)


def _header(tensors: list[tuple[str, Tensor]], metadata: dict[str, str] | None) -> bytes:
    """Length and JSON: metadata, then {name: {dtype, shape, data_offsets: [first byte, byte after the last]}}."""
    table, place = {"__metadata__": metadata} if metadata else {}, 0
    for name, tensor in tensors:
        end = place + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write(file: BinaryIO, tensor: Tensor) -> None:
    """The values of one tensor, row by row, little-endian: no more than this one is ever held twice."""
    values = tensor.detach().cpu().contiguous().flatten()
    raw = values.view(torch.uint8)
    if sys.byteorder == "big":
        raw = raw.view(-1, values.element_size()).flip(1).flatten()
    file.write(raw.numpy())


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
