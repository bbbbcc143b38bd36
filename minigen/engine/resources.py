"""Limits, said before they bite: what a job will need is compared with what there is, before any of it is taken.

    config.json --check_config--> numbers within reason --check_model--> parameters, counted without making them
    a job       --Requirements--> "5.3 M parameters, 0.4 GB of memory (21 GB free), ..."  or a refusal, on one line

A config may come from anywhere, and one digit too many asks for a terabyte. PyTorch's "meta" device makes modules whose
tensors have shapes and no memory: the model is built there first and weighed.
"""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from minigen.engine.errors import MinigenError

MOST = 2**20  # of any size in a config: no model has layers a million wide, and loops over more would not end
MOST_PARTS = 1024  # of what is built one by one: layers, codebooks, heads
PARTS = ("layers", "blocks", "heads", "num_codebooks", "parts", "depth")
BYTES = 4  # a float32
PIECES = 3 * BYTES * 2**21  # of logits, a few of which `minigen.loss` holds at a time on a processor


def check_config(config: object) -> None:
    """Every number of a config (a dataclass) lies within reason: sizes up to 2^20, at most 1024 layers, finite rates.

    Raises:
        MinigenError: one does not, or has another type than its default.
    """
    for field in fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        if kind is int:
            most = MOST_PARTS if field.name in PARTS else MOST
            if type(value) is not int or not 1 <= value <= most:
                raise MinigenError(f"{field.name} is {_short(value)}. Give a whole number from 1 to {most:,}.")
        elif kind is float and not (type(value) in (int, float) and math.isfinite(value)):
            raise MinigenError(f"{field.name} is {_short(value)}. Give a finite number.")
        elif kind in (str, bool) and type(value) is not kind:
            raise MinigenError(f"{field.name} is {_short(value)}. Give a {kind.__name__}.")


def check_model(build: Callable, what: str, copies: int = 1) -> int:
    """Weigh the model that `build()` would make, without making it; returns its parameters.

    copies: how many times the weights will be in memory.

    Raises:
        MinigenError: they do not fit into the memory that is free.
    """
    import torch

    with torch.device("meta"):
        parameters = sum(tensor.numel() for tensor in build().state_dict().values())
    Requirements(what, parameters, memory=copies * BYTES * parameters).check()
    return parameters


@dataclass(frozen=True)
class Requirements:
    """What a job is expected to take. memory and disk in bytes, seconds of time; 0 where it is not worth a word."""

    what: str
    parameters: int = 0
    memory: float = 0
    disk: float = 0
    seconds: float = 0
    folder: Path = Path(".")

    def __str__(self) -> str:
        parts = [f"{amount(self.parameters)} parameters"] if self.parameters else []
        if self.memory:
            parts.append(f"about {amount(self.memory)}B of memory ({amount(memory_free())}B free)")
        if self.disk:
            parts.append(f"{amount(self.disk)}B of disk ({amount(disk_free(self.folder))}B free)")
        if self.seconds:
            parts.append(f"about {duration(self.seconds)}")
        return f"{self.what}: {', '.join(parts)}"

    def check(self) -> None:
        """Stop where it cannot fit.

        Raises:
            MinigenError: more memory or disk is needed than is free.
        """
        if self.memory > memory_free():
            have = f"{amount(memory_free())}B of memory are free"
            raise MinigenError(
                f"{self.what} needs {amount(self.memory)}B, and {have}. Choose a smaller model or batch, or free some."
            )
        if self.disk > disk_free(self.folder):
            have = f"{self.folder} has {amount(disk_free(self.folder))}B"
            raise MinigenError(f"{self.what} needs {amount(self.disk)}B of disk, {have}. Make room.")


def training_memory(parameters: int, layers: int, width: int, ffn: int, rows: int, steps: int) -> int:
    """Bytes that a training step takes: seven copies of the weights, and what the way back needs of the way there.

    Weights, gradients, AdamW's two moments (Muon has one, and another while it works), their average, the copy that is
    validated, and one to spare: 7 · 4 bytes a parameter.
    For each of `rows` · `steps` positions 20 vectors of `width` and 3 of `ffn` in each layer, in float32. Weights of
    attention are not among them, the fused kernel never keeps them; nor logits but for the pieces of `minigen.loss`.
    docs/scaling.md compares this with the measured peak of a process.
    """
    return BYTES * (7 * parameters + rows * steps * layers * (20 * width + 3 * ffn)) + PIECES


def recipe_requirements(what: str, parameters: int, held: float, minutes: float, folder: str | Path) -> Requirements:
    """What one of the trainings of `minigen.recipes` will take, in `minutes` of training proper.

    Memory: weights, gradients and AdamW's two moments (16 bytes a parameter) and `held` bytes of clips, without what a
    step makes on its way. Disk: two checkpoints of 12 bytes a parameter, the old one and the new.
    """
    return Requirements(
        what, parameters, 4 * BYTES * parameters + held, 2 * 3 * BYTES * parameters, 60 * minutes, Path(folder)
    )


def announce(need: Requirements, progress: bool = True) -> None:
    """Say what a long job will take before it begins; one that cannot fit does not begin.

    Raises:
        MinigenError: as `Requirements.check`.
    """
    need.check()
    if progress:
        print(need, flush=True)


def memory_free() -> float:
    """Bytes of memory that a new job may take: what the system calls available, within a container's own limit."""
    free = _number_after("/proc/meminfo", "MemAvailable:") * 1024
    if not free and hasattr(os, "sysconf"):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_number_after(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    used -= _number_after("/sys/fs/cgroup/memory.stat", "inactive_file")  # files read before: given up when needed
    return min(free or math.inf, limit - used if limit else math.inf)


def fast_bf16() -> bool:
    """Whether this processor (or GPU) multiplies bfloat16 natively; elsewhere it would be slower than float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def disk_free(folder: str | Path) -> float:
    """Bytes that the disk of a folder (or of the nearest one that is there) can take."""
    places = (Path(folder).absolute(), *Path(folder).absolute().parents)
    return shutil.disk_usage(next(place for place in places if place.is_dir())).free


def amount(value: float) -> str:
    """A number of things for a person: 5300000 -> "5.3 M"."""
    for power, sign in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.{1 if value < 10 ** (power + 1) else 0}f} {sign}"
    return f"{value:.0f} "


def duration(seconds: float) -> str:
    """A time for a person: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number_after(file: str, word: str = "") -> int:
    """The first whole number of a file, or of its line that begins with `word`; 0 where there is none."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return 0
    found = next((line.removeprefix(word).split() for line in lines if line.startswith(word)), [])
    return int(found[0]) if found and found[0].isdigit() else 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."
