"""Weights on disk: config.json and model.safetensors, read with little memory and written atomically.

    model.safetensors             a table of names, types and shapes, then the numbers
    model.safetensors.index.json  for models in several such files (shards): which file holds which tensor

The format of the Hugging Face hub (https://github.com/huggingface/safetensors, section "Format"). Pickled weights
(.bin, .pt, .th) are programs that run when they are opened; they are not read here.

Memory: tensors are read one at a time, and each mapping of the file is closed before the next is opened. The model then
uses these tensors themselves, not copies. Loading takes the memory of the model in the requested type, and of one more
tensor; a float32 file read as float16 takes half its size.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minigen.engine.checkpoint import save_tensors
from minigen.engine.errors import MinigenError, one_line
from minigen.engine.files import atomic_file, write_atomically
from minigen.engine.hub import INDEX, WEIGHTS, has_weights

M = TypeVar("M", bound=nn.Module)


def read_config(folder: Path) -> dict:
    """The settings in folder/config.json.

    Raises:
        MinigenError: no such file, or no JSON object in it.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = "is not JSON" if isinstance(error, ValueError) else "cannot be read"
        raise MinigenError(f"{path} {reason} ({one_line(error)}). Copy or write it again.") from error
    if not isinstance(values, dict):
        raise MinigenError(f"{path} holds {values!r:.40}, no settings by name. Copy or write it again.")
    return values


def read_tensors(folder: Path, dtype: torch.dtype | None = None, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a folder as copies, so that the file may be replaced afterwards.

    dtype: type of the floating-point tensors; None keeps the stored type. prefix: read only the tensors whose names
    start with it, and remove it from the names.

    Raises:
        MinigenError: a file is missing, truncated or not safetensors.
    """
    tensors, file = {}, folder / WEIGHTS
    if not has_weights(folder):
        raise MinigenError(f"no {file}. Only safetensors are read: place that file there.")
    try:
        for file, name in _table(folder):
            if name.startswith(prefix):
                tensors[name.removeprefix(prefix)] = _read_tensor(file, name, dtype)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise MinigenError(f"{file} cannot be read ({one_line(error)}). Copy, fetch or make it again.") from error
    return tensors


def _read_tensor(file: Path, name: str, dtype: torch.dtype | None) -> Tensor:
    """A copy of one tensor. The file is mapped for this tensor only: its pages are freed when the function returns."""
    with safe_open(file, "pt") as opened:
        tensor = opened.get_tensor(name)
        return tensor.to(_type(tensor, dtype), copy=True)


def _table(folder: Path) -> Iterator[tuple[Path, str]]:
    """File and name of every tensor."""
    shards = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        shards = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
    for file in (folder / shard for shard in shards):
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
        yield from ((file, name) for name in names)


def _type(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype and tensor.is_floating_point() else tensor.dtype


def rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    """A tensor's name in another library: applies every (pattern, replacement) of the table with re.sub, in turn."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def write_model(folder: str | Path, config: dict, tensors: dict[str, Tensor], dtype: torch.dtype | None) -> None:
    """Write config.json and model.safetensors atomically; floats in `dtype` (None: as they are)."""
    folder = Path(folder)
    stored = {name: tensor.detach().to("cpu", _type(tensor, dtype)).contiguous() for name, tensor in tensors.items()}
    with atomic_file(folder / WEIGHTS) as part:  # gets its name last: if the disk is full, both earlier files stay
        save_tensors(part, stored, {"format": "pt"})
        write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def module_from_tensors(make: Callable[[], M], tensors: dict[str, Tensor], place: str | Path) -> M:
    """A module that uses the given tensors as its weights, without copying them.

    make: builds the module; its whole state must be in its state dict. place: source of the tensors, for the error.

    Raises:
        MinigenError: a tensor is missing, is not part of the module, or has another shape.
    """
    with WithoutMemory():
        model = make()
    wanted = model.state_dict()
    for name in sorted(tensors.keys() | wanted.keys()):
        found = list(tensors[name].shape) if name in tensors else "missing"
        needed = list(wanted[name].shape) if name in wanted else "no such tensor"
        if found != needed:
            raise MinigenError(
                f"{place} does not fit its settings: {name} is {found} in the file, {needed} in the model. "
                "Use the config.json that was saved with the weights."
            )
    model.load_state_dict(tensors, assign=True)
    return model


class WithoutMemory(TorchFunctionMode):
    """A context in which modules are made without memory for their weights: these have shapes only (device "meta").

    Unlike `with torch.device("meta")` it leaves the constants that a module computes where they are, and skips the
    drawing of random weights: on the device "meta" both make PyTorch import its compiler, which takes a second.
    """

    allocating = frozenset({torch.empty, torch.zeros, torch.ones, torch.full})
    random = frozenset({torch.rand, torch.randn})
    drawing = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_"})

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in self.random:
            function = torch.empty
            kwargs.pop("generator", None)
        if function in self.allocating and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        if getattr(function, "__name__", "") in self.drawing:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def load_official(kind: Any, folder: Path, dtype: torch.dtype = torch.float32, prefix: str = "", config=None):
    """A model of `transformers` in eval mode, from the weights in a folder.

    Missing weights are an error here; `transformers` fills them with noise and warns.

    Args:
        kind: class of the model.
        folder: where config.json and the weights are.
        dtype: type of the weights.
        prefix: read only the weights whose names start with it (a part of a larger model).
        config: the settings, if they are not those of config.json.

    Raises:
        MinigenError: weights are missing or have other shapes than the settings say.
    """
    config = config or kind.config_class.from_pretrained(folder, local_files_only=True)
    tensors = read_tensors(folder, dtype, prefix)
    with no_loading_bar():
        model, told = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
        )
    wrong = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if wrong:
        what = f"{len(wrong)} tensors of a {kind.__name__}, the first is {wrong[0]}"
        raise MinigenError(f"{folder} lacks {what}. Fetch it again.")
    model.config._name_or_path = str(folder)
    return model.eval()


@contextmanager
def no_loading_bar():
    """Silence the progress bar and the warnings of `transformers` in a block; errors are still raised.

    Loading takes a fraction of a second, and the warning about MusicGen's special token V, one past the last code, is
    unfounded.
    """
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
