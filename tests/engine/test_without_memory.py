"""Modules without memory for their weights: shapes only, and nothing of PyTorch's compiler."""

import subprocess
import sys

import torch
from torch import nn

from minigen.engine.weights import WithoutMemory


class Parts(nn.Module):
    """All that modules of the chain are made of: layers, random tables, constants that are computed."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 5, 3), nn.LayerNorm(5), nn.Embedding(6, 7))
        self.start = nn.Parameter(torch.zeros(8))
        self.register_buffer("table", torch.randn(9, 10))
        self.register_buffer("window", torch.hann_window(4), persistent=False)
        nn.init.normal_(self.layers[0].weight, std=0.1)


def test_weights_have_shapes_only_and_constants_their_values():
    whole = Parts()
    with WithoutMemory():
        sized = Parts()
    assert {name: w.shape for name, w in sized.state_dict().items()} == {
        name: w.shape for name, w in whole.state_dict().items()
    }
    assert all(weight.is_meta for weight in sized.state_dict().values())
    assert torch.equal(sized.window, torch.hann_window(4))


def test_a_table_larger_than_any_memory_can_be_sized():
    with WithoutMemory():
        assert torch.randn(10**9, 10**6).numel() == nn.Embedding(10**9, 10**6).weight.numel() == 10**15


def test_no_random_number_is_drawn():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with WithoutMemory():
        Parts()
    assert torch.equal(torch.rand(3), expected)


def test_outside_the_context_all_is_as_before():
    with WithoutMemory():
        pass
    assert not nn.Linear(2, 2).weight.is_meta


def test_loading_the_shipped_models_does_not_import_the_compiler():
    code = (
        "import sys; from minigen.generate import TextToAudio; TextToAudio.from_pretrained('mini');"
        "print([name for name in ('torch._dynamo', 'sympy', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
