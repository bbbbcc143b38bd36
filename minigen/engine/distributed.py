"""Several processes, one job: a batch is shared out, and what they find is added up, as if one had done it all.

    accelerate launch --multi_gpu --num_processes 2 -m minigen train ...      (the flag means: several; processors too)

    process 0   rows 0, 1  --> loss / 2 --backward--> gradients --.
                  pooled rows --. gathered                         + summed --> the same step of the optimiser
    process 1   rows 2, 3  --> loss / 2 --backward--> gradients --'             in every process

Accelerate starts the processes and picks the device and the means of talking (nccl between GPUs, gloo between
processors); the talking is done here, in four calls. Gradients are summed by hand rather than by PyTorch's
DistributedDataParallel, because a step without text uses no cross-attention: its gradients are None in every process
alike, the optimiser leaves those weights alone, and so it does in one process. The number of processes and this
one's rank are in the environment (WORLD_SIZE, RANK), where every launcher puts them. Alone, each call does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minigen.engine.errors import MinigenError

if TYPE_CHECKING:  # the command line asks who prints before PyTorch is loaded
    import torch
    from torch import Tensor, nn


def count() -> int:
    """How many processes share the job."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this is, from 0 on."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def beside() -> int:
    """How many of them share this machine's memory; on GPUs each has its own."""
    import torch

    return 1 if torch.cuda.is_available() or count() == 1 else int(os.environ.get("LOCAL_WORLD_SIZE", count()))


def is_first() -> bool:
    """Whether this one prints, logs and saves."""
    return rank() == 0


def device() -> torch.device:
    """Where this process computes: a GPU of its own where there are any, else the processor."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if count() > 1 else 0)


def check_shares(rows: int) -> None:
    """A batch must give every process as many rows as the others, or their losses would not weigh the same.

    Raises:
        MinigenError: the processes do not divide the rows.
    """
    if rows % count():
        raise MinigenError(f"a batch of {rows} cannot be shared by {count()} processes. Give a multiple of {count()}.")


def share(rows: int) -> slice:
    """This process's part of `rows` rows."""
    each = rows // count()
    return slice(rank() * each, (rank() + 1) * each)


def gather_rows(own: Tensor) -> Tensor:
    """The rows of all processes, [B / processes, D] -> [B, D]; gradients flow into this process's own rows alone.

    Every process computes the same loss from the same B rows. Summing the gradients afterwards (`sum_gradients`) then
    counts each row once, in the process that made it.
    """
    if count() == 1:
        return own
    torch = join()
    parts = [torch.empty_like(own) for _ in range(count())]
    torch.distributed.all_gather(parts, own.detach().contiguous())
    parts[rank()] = own
    return torch.cat(parts)


def total(value: Tensor) -> Tensor:
    """The sum of a value over all processes, without a gradient."""
    value = value.detach().clone()
    if count() > 1:
        join().distributed.all_reduce(value)
    return value


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if count() == 1 or not gradients:
        return
    import torch

    summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_objects(own: object) -> list:
    """What every process has to say, in the order of their ranks. Pickled on the way: for the job's own words only."""
    if count() == 1:
        return [own]
    everyone = [None] * count()
    join().distributed.all_gather_object(everyone, own)
    return everyone


def check_agreed(what: str, value: object) -> None:
    """Stop where the processes disagree about what they must share.

    Raises:
        MinigenError: they do.
    """
    found = gather_objects(value)
    if any(other != found[0] for other in found):
        raise MinigenError(
            f"the processes disagree about {what}: {found}. Give all of them the same files and folders."
        )


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block while the others wait; then they do, and find its work done."""
    if not is_first():
        gather_objects(None)
    yield
    if is_first():
        gather_objects(None)


def join():
    """Meet the other processes, once, by the means that Accelerate picks; returns PyTorch, which talks to them."""
    import torch

    if count() > 1 and not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState()
    return torch


def parts_of(jobs: Sequence, size: int) -> list[Sequence]:
    """The next `size` jobs for each process, in the order of their ranks; at the end some may get fewer or none."""
    return [jobs[part * size : (part + 1) * size] for part in range(count())]
