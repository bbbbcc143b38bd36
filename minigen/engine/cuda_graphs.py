"""CUDA graphs: on a GPU, a fixed sequence of operations is recorded once and replayed.

    first call     function(inputs) --its several hundred small operations are recorded--> graph
    later calls    new inputs are copied over the old ones --> graph.replay() --> outputs, in the same memory

A small model keeps a GPU busy for about 2 microseconds per operation, and Python takes 5 to 10 microseconds to launch
the next one. A graph launches all of them at once. In return everything is fixed: shapes, addresses in memory, and the
branch that is taken. Nothing inside may wait for the processor (`.item()`, `if tensor > 0`, a copy from pageable
memory).

Source: PyTorch, "CUDA semantics", section "CUDA Graphs".
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEXT_MULTIPLE = 16  # texts are padded to a multiple of it, since every length needs a graph of its own


class Replay:
    """A function of tensors as a CUDA graph. A call with tensors of the same shapes overwrites the same outputs.

    Args:
        function (callable): what is recorded. It runs `warm` times before, so that libraries set themselves up; side
            effects happen then, too.
        inputs (Tensor): example inputs on the GPU. They are copied; each call copies its inputs over them.
        warm (int): number of runs before recording.
    """

    def __init__(self, function: Callable, *inputs: Tensor, warm: int = 2):
        self.inputs = [value.clone() for value in inputs]
        side_stream = torch.cuda.Stream()  # PyTorch requires that the warm-up runs on a stream that is not the default
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(warm):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(side_stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor):
        """The outputs for new inputs; the next call overwrites them."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.outputs


class RecordedGradients:
    """Forward and backward pass as CUDA graphs, one for each set of shapes.

    Args:
        gradients (callable): takes a batch as a dict of tensors, sets `.grad` of every parameter, returns tensors.
        parameters (iterable of Parameter): the parameters whose gradients are set.

    A call has the signature and the effect of `gradients`. Parameters that take no part in a batch (cross-attention
    in a step without text) have the gradient None, also when another graph has set one before.
    """

    def __init__(self, gradients: Callable[[dict[str, Tensor]], dict], parameters: Iterable[nn.Parameter]):
        self.gradients, self.parameters = gradients, list(parameters)
        self.recorded: dict[tuple, tuple[Replay, list[Tensor | None]]] = {}

    def __call__(self, batch: dict[str, Tensor]) -> dict:
        """Set the gradients for a batch; returns what `gradients` returns."""
        batch = pad_text(batch)
        key = tuple((name, value.shape) for name, value in batch.items())
        if key not in self.recorded:
            self.recorded[key] = self._record(batch)
        replay, gradients = self.recorded[key]
        outputs = replay(*batch.values())
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return outputs

    def _record(self, batch: dict[str, Tensor]) -> tuple[Replay, list[Tensor | None]]:
        """The graph, and the tensors that it writes the gradients to."""
        names = list(batch)
        replay = Replay(lambda *values: self.gradients(dict(zip(names, values, strict=True))), *batch.values())
        return replay, [parameter.grad for parameter in self.parameters]


def pad_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pad "memory" [B, N, D] and "mask" [B, N] of a batch to the next multiple of `TEXT_MULTIPLE` words."""
    if "mask" not in batch:
        return batch
    missing = -batch["mask"].shape[1] % TEXT_MULTIPLE
    memory = F.pad(batch["memory"], (0, 0, 0, missing))  # [B, N + missing, D]
    return {**batch, "memory": memory, "mask": F.pad(batch["mask"], (0, missing))}


def recording() -> bool:
    """Whether a graph is being recorded; checks that read a value have to be left out then."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
