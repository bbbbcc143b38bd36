"""Memory, disk and time that a job will take, compared with what is free before the job starts.

    config.json --check_config--> numbers in range --check_model--> number of parameters, without allocating them
    a job       --Requirements--> "5.3 M parameters, 0.4 GB of memory (21 GB free), ..."  or a one-line refusal

A config from outside may contain any number, and a single digit too many can request a terabyte. A module built on
PyTorch's "meta" device has tensors with shapes but without memory, so the size of a model is known before it is
allocated.
"""

import contextlib
import ctypes
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from minigen.engine.errors import MinigenError

MAX_SIZE = 2**20  # upper limit of every size in a config: wider layers do not exist
MAX_COUNT = 1024  # upper limit of what is built one by one in a loop
COUNTS = ("layers", "blocks", "heads", "num_codebooks", "parts", "depth")
BYTES = 4  # a float32
MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc's malloc.h
PIECES = 3 * BYTES * 2**21  # bytes of the pieces of logits that `minigen.loss` holds at a time on a CPU


def check_config(config: Any) -> None:
    """Check the numbers of a config (a dataclass): sizes up to 2^20, at most 1024 layers, finite rates.

    Raises:
        MinigenError: a value is out of range, or has another type than its default.
    """
    for field in fields(config):
        value, kind = getattr(config, field.name), type(field.default)
        if kind is int:
            most = MAX_COUNT if field.name in COUNTS else MAX_SIZE
            if type(value) is not int or not 1 <= value <= most:
                raise MinigenError(f"{field.name} is {_short(value)}. Give a whole number from 1 to {most:,}.")
        elif kind is float and not (type(value) in (int, float) and math.isfinite(value)):
            raise MinigenError(f"{field.name} is {_short(value)}. Give a finite number.")
        elif kind in (str, bool) and type(value) is not kind:
            raise MinigenError(f"{field.name} is {_short(value)}. Give a {kind.__name__}.")


def check_model(build: Callable, what: str, copies: int = 1) -> int:
    """Number of parameters of the model that `build()` would make; no memory is allocated for them.

    what: name of the model in the error. copies: how many times the weights will be in memory.

    Raises:
        MinigenError: the weights do not fit into the free memory.
    """
    from minigen.engine.weights import WithoutMemory

    with WithoutMemory():
        parameters = sum(tensor.numel() for tensor in build().state_dict().values())
    Requirements(what, parameters, memory=copies * BYTES * parameters).check()
    return parameters


@dataclass(frozen=True)
class Requirements:
    """Expected requirements of a job; 0 for what need not be mentioned.

    what: name of the job. memory, disk: bytes. seconds: duration. folder: whose disk is used. held: bytes of the memory
    that are in use already: libraries, a text encoder, the weights.
    """

    what: str
    parameters: int = 0
    memory: float = 0
    disk: float = 0
    seconds: float = 0
    folder: Path = Path(".")
    held: float = 0

    def __str__(self) -> str:
        parts = [f"{amount(self.parameters)} parameters"] if self.parameters else []
        if self.memory:
            held = f"{amount(self.held)}B of it in use already, " if self.held else ""
            parts.append(f"about {amount(self.memory)}B of memory ({held}{amount(memory_free())}B free)")
        if self.disk:
            parts.append(f"{amount(self.disk)}B of disk ({amount(disk_free(self.folder))}B free)")
        if self.seconds:
            parts.append(f"about {duration(self.seconds)}")
        return f"{self.what}: {', '.join(parts)}"

    def check(self) -> None:
        """Compare with the free memory and disk; what is held already need not be free.

        Raises:
            MinigenError: more memory or disk is needed than is free.
        """
        more = self.memory - self.held
        if more > memory_free():
            needs = f"{amount(more)}B{' more' if self.held else ''}, and {amount(memory_free())}B of memory are free"
            raise MinigenError(f"{self.what} needs {needs}. Choose a smaller model or batch, or free some.")
        if self.disk > disk_free(self.folder):
            have = f"{self.folder} has {amount(disk_free(self.folder))}B"
            raise MinigenError(f"{self.what} needs {amount(self.disk)}B of disk, {have}. Make room.")


def training_memory(
    parameters: int, layers: int, width: int, ffn: int, rows: int, steps: int,
    frozen: int = 0, parts: int = 1, checkpointing: bool = False,
) -> int:  # fmt: skip
    """Memory of a training step in bytes: seven copies of the weights, and the activations kept for the backward pass.

        4 · (7 · parameters + rows · steps · layers · (20 · width + 3 · ffn)) + pieces of logits

    The seven copies: weights, gradients, AdamW's two moments (Muon has one, and one more while it works), their moving
    average, the copy that is validated, and one to spare. Activations: 20 vectors of `width` and 3 of `ffn` for each of
    `rows` · `steps` positions in each layer, in float32. Attention weights are not among them, since the fused kernel
    does not store them. docs/scaling.md compares this with the measured peak of a process.

    frozen: weights that are not trained, in memory once. parts: of a batch, which are computed
    one after the other; between them only the last states of all rows are kept. checkpointing: of each layer only the
    input is kept, and the activations of one layer at a time.
    """
    positions, layer = -(-rows // parts) * steps, 20 * width + 3 * ffn
    kept = positions * (layers * width + layer) if checkpointing else positions * layers * layer
    if parts > 1:
        kept += rows * steps * width
    return BYTES * (7 * parameters + frozen + kept) + PIECES


def recipe_requirements(what: str, parameters: int, held: float, minutes: float, folder: str | Path) -> Requirements:
    """Requirements of a training of `minigen.recipes` that runs for `minutes`.

    Memory: weights, gradients and AdamW's two moments (16 bytes a parameter), and `held` bytes of clips; activations
    are not counted. Disk: the old checkpoint and the new one, of 12 bytes a parameter each.
    """
    memory = 4 * BYTES * parameters + held
    disk = 2 * 3 * BYTES * parameters
    return Requirements(what, parameters, memory, disk, 60 * minutes, Path(folder))


def announce(requirements: Requirements, progress: bool = True) -> None:
    """Print what a long job will take, if `progress`; raise if it cannot fit.

    Raises:
        MinigenError: as `Requirements.check`.
    """
    requirements.check()
    if progress:
        print(requirements, flush=True)


def memory_held() -> int:
    """Bytes of memory that this process uses now."""
    import psutil

    return psutil.Process().memory_info().rss


def return_freed_memory() -> None:
    """Have the C library give every freed block of 1 MB or more back to the system at once.

    glibc gives freed blocks back above a limit, which it raises up to 32 MB in the course of a program. Below the limit
    it keeps them, in one heap for each thread: a training with checkpointing computes its layers in two threads, and
    its process then holds several times the memory of the tensors that are alive. The price is that the system clears
    each block anew. On other systems nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc: macOS, Windows, musl
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**20)


def memory_free() -> float:
    """Bytes of memory that a new job may take: what the system calls available, within the limit of a container."""
    import psutil

    limit = _number("/sys/fs/cgroup/memory.max")
    used = _number("/sys/fs/cgroup/memory.current")
    used -= _number("/sys/fs/cgroup/memory.stat", "inactive_file ")  # cached files, which the kernel frees when needed
    available = psutil.virtual_memory().available
    return min(available, limit - used) if limit else available


def fast_bf16() -> bool:
    """Whether this GPU or CPU multiplies bfloat16 natively; otherwise bfloat16 is slower than float32."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def disk_free(folder: str | Path) -> float:
    """Free bytes on the disk of a folder; of its nearest existing parent if it does not exist."""
    folder = Path(folder).absolute()
    return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free


def amount(value: float) -> str:
    """A number with a unit prefix: 5300000 -> "5.3 M"."""
    for power, sign in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            decimals = 1 if value < 10 ** (power + 1) else 0
            return f"{value / 10**power:.{decimals}f} {sign}"
    return f"{value:.0f} "


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours: 600 -> "10 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(file: str, key: str = "") -> int:
    """The whole number in a file, or in its line that starts with `key`; 0 if there is none."""
    try:
        lines = Path(file).read_text("utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.removeprefix(key).split()
        if line.startswith(key) and words and words[0].isdigit():
            return int(words[0])
    return 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:60]}..."
