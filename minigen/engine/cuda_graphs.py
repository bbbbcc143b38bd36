"""On a GPU, what is the same every time is recorded once and replayed: CUDA graphs.

    the first call    function(inputs) --its some hundred small operations, noted down--> a graph
    later calls       new inputs copied over the old ones --> graph.replay() --> the outputs, in their place

A small model keeps a GPU busy for two millionths of a second an operation, and Python takes five to ten to ask for the
next. A graph asks for all of them at once. In return everything is fixed: shapes, places in memory, and which branch is
taken; nothing inside may wait for the processor (`.item()`, `if tensor > 0`, a copy from ordinary memory).

Source: PyTorch, "CUDA semantics", section "CUDA Graphs".
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Replay:
    """A function of tensors, as a CUDA graph: called with tensors of the same shapes, it writes the same outputs anew.

    function: is run `warm` times before it is recorded, so that libraries set themselves up; what it changes besides
    its outputs is changed then, too. inputs: tensors on the GPU, copied here; a call copies new values over them.
    """

    def __init__(self, function: Callable, *inputs: Tensor, warm: int = 2):
        self.inputs = [value.clone() for value in inputs]
        aside = torch.cuda.Stream()  # what is recorded must not have begun on the stream that everyone uses
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(warm):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor):
        """The outputs for new inputs; the next call writes over them."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.outputs


def recording() -> bool:
    """Whether a graph is being recorded: checks that read a value have to wait until it is not."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
