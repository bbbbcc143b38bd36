"""Several processes that train or tokenise together, each on its share of a batch; the result is that of one process.

    accelerate launch --multi_gpu --num_processes 2 -m minigen train ...     (also for several processes on a processor)

    batch of 4 rows, drawn from the same chance in every process
    process 0   rows 0, 1  --> loss / 2 --backward--> gradients --.
                  pooled rows --. gathered                         + summed --> the same optimiser step
    process 1   rows 2, 3  --> loss / 2 --backward--> gradients --'             in every process

Accelerate starts the processes and picks the backend (nccl between GPUs, gloo between processors). The number of
processes and the rank of this one are in the environment (WORLD_SIZE, RANK), where every launcher puts them. In a
single process every call here returns at once.

Gradients are summed by `sum_gradients` and not by PyTorch's DistributedDataParallel. A step without text does not use
cross-attention, so its gradients are None in every process, and the optimiser leaves those weights alone, as it does in
a single process. DistributedDataParallel would turn them into zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minigen.engine.errors import MinigenError

if TYPE_CHECKING:  # PyTorch is imported inside functions: the command line needs `is_first` before it is loaded
    import torch
    from torch import Tensor, nn


def count() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def processes_here() -> int:
    """Number of processes that share this machine's memory; 1 on GPUs, which have their own."""
    import torch

    return 1 if torch.cuda.is_available() or count() == 1 else int(os.environ.get("LOCAL_WORLD_SIZE", count()))


def is_first() -> bool:
    """Whether this process prints, logs and saves."""
    return rank() == 0


def device() -> torch.device:
    """Device of this process: its own GPU where there are GPUs, else the processor."""
    import torch

    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if count() > 1 else 0)


def check_shares(rows: int) -> None:
    """Check that every process gets equally many rows of a batch; otherwise their losses would not weigh the same.

    Raises:
        MinigenError: the number of rows is not a multiple of the number of processes.
    """
    if rows % count():
        raise MinigenError(f"a batch of {rows} cannot be shared by {count()} processes. Give a multiple of {count()}.")


def share(rows: int) -> slice:
    """The rows of a batch that belong to this process."""
    each = rows // count()
    return slice(rank() * each, (rank() + 1) * each)


def gather_rows(own: Tensor) -> Tensor:
    """Concatenate the rows of all processes: [B / processes, D] -> [B, D]. Only this process's rows carry a gradient.

    Every process then computes the same loss from the same B rows. When the gradients are summed afterwards
    (`sum_gradients`), each row counts once, in the process that computed it.
    """
    if count() == 1:
        return own
    torch = join()
    parts = [torch.empty_like(own) for _ in range(count())]
    torch.distributed.all_gather(parts, own.detach().contiguous())
    parts[rank()] = own
    return torch.cat(parts)


def total(value: Tensor) -> Tensor:
    """Sum of a value over all processes, without a gradient."""
    value = value.detach().clone()
    if count() > 1:
        join().distributed.all_reduce(value)
    return value


def average(value: Tensor) -> Tensor:
    """Mean of a value over all processes, without a gradient."""
    return total(value) / count()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, with one all-reduce."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    import torch

    summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_objects(own: object) -> list:
    """Objects of all processes in the order of their ranks. They are pickled, so nothing from outside may be passed."""
    if count() == 1:
        return [own]
    everyone = [None] * count()
    join().distributed.all_gather_object(everyone, own)
    return everyone


def check_agreed(what: str, value: object) -> None:
    """Check that all processes have the same value.

    Raises:
        MinigenError: they differ, with all values.
    """
    found = gather_objects(value)
    if any(other != found[0] for other in found):
        raise MinigenError(
            f"the processes disagree about {what}: {found}. Give all of them the same files and folders."
        )


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the block while the others wait; then the others run it and find the work done."""
    if not is_first():
        gather_objects(None)
    yield
    if is_first():
        gather_objects(None)


def join():
    """Open the process group at the first call, with the backend that Accelerate picks; returns the module torch."""
    import torch

    if count() > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState()
    return torch


def parts_of(jobs: Sequence, size: int) -> list[Sequence]:
    """Split jobs into one part of `size` for each process, by rank; the last parts may be shorter or empty."""
    return [jobs[part * size : (part + 1) * size] for part in range(count())]
