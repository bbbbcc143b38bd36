"""Saving memory: a batch in parts, and layers computed twice, give the same gradients from fewer kept activations."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch
from test_train import SIZES, new_trainer, tokens

from minigen.engine.errors import MinigenError
from minigen.engine.resources import training_memory
from minigen.generators.denoiser import Denoiser, DenoiserConfig
from minigen.lm import AudioLM
from minigen.train import TrainConfig, Trainer, training_requirements

SAVING = [{"accumulate": 2}, {"accumulate": 3}, {"accumulate": 99}, {"checkpointing": True},
          {"accumulate": 4, "checkpointing": True}]  # fmt: skip


def gradients(dropout: float = 0.0, **settings):
    """Parts of the loss, gradients, and bytes kept between the passes, in a step with or without text, in float64."""
    torch.manual_seed(0)
    lm = AudioLM(type(SIZES)(**{**vars(SIZES), "layers": 3, "dropout": dropout})).double()
    trainer = new_trainer(lm, similarity=1.0, **settings)
    trainer._loss = lambda model, batch: trainer.objective.loss(model, **batch)  # without bfloat16
    codes, captions = tokens().batch(range(8))
    drop = settings.get("text_dropout", 0.1) == 1.0
    batch = trainer.objective.tensors(codes, captions, drop, regularise=drop)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        torch.manual_seed(1)
        parts = trainer.gradients(batch)
    return parts, [p.grad for p in lm.parameters()], sum(kept)


@pytest.mark.parametrize("saving", SAVING)
@pytest.mark.parametrize("text_dropout", [0.0, 1.0])
def test_the_gradients_are_those_of_the_whole_batch_the_regulariser_among_them(saving, text_dropout):
    parts, whole, kept = gradients(text_dropout=text_dropout)
    again, saved, less = gradients(text_dropout=text_dropout, **saving)
    assert parts.keys() == again.keys() and ("similarity" in parts) == (text_dropout == 1.0)
    for name in parts:
        assert again[name].item() == pytest.approx(parts[name].item(), abs=1e-12)
    for one, other in zip(whole, saved, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (one - other).abs().max() < 1e-12
    assert less < 0.5 * kept


def test_layers_that_are_computed_twice_drop_the_same_units():
    _, whole, _ = gradients(dropout=0.3)
    _, saved, _ = gradients(dropout=0.3, checkpointing=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, saved, strict=True) if a is not None)


def test_a_checkpoint_is_known_by_what_changes_the_result_and_not_by_what_saves_memory():
    assert repr(TrainConfig(accumulate=4, checkpointing=True)) == repr(TrainConfig())


def test_other_generators_refuse_it():
    sizes = {name: getattr(SIZES, name) for name in ("num_codebooks", "codebook_size", "width", "layers", "heads",
                                                    "ffn", "memory_width")}  # fmt: skip
    with pytest.raises(MinigenError, match="for language models, not for a Denoiser"):
        Trainer(Denoiser(DenoiserConfig(**sizes)), None, TrainConfig(checkpointing=True))


def test_the_memory_that_is_said_before_counts_what_is_saved_and_what_is_frozen():
    sizes = {"layers": 24, "width": 1024, "ffn": 4096, "rows": 8, "steps": 503}
    whole = training_memory(420_000_000, **sizes)
    lora = training_memory(9_000_000, **sizes, frozen=420_000_000)
    assert whole - lora == 4 * 6 * 420_000_000 - 4 * 7 * 9_000_000
    saved = training_memory(9_000_000, **sizes, frozen=420_000_000, checkpointing=True)
    parts = training_memory(9_000_000, **sizes, frozen=420_000_000, parts=8)
    assert saved < parts < lora and saved < 3.5e9
    assert training_memory(1000, **sizes, frozen=1000) - training_memory(1000, **sizes) == 4000


def test_the_memory_that_is_said_before_a_training_is_that_of_the_whole_process(tmp_path):
    lm, config = AudioLM(SIZES), TrainConfig(batch_size=8)
    weights = sum(p.numel() for p in lm.parameters())
    before = training_requirements(lm, tokens(), config, tmp_path)
    assert before.held == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)
    added = training_memory(weights, SIZES.layers, SIZES.width, SIZES.ffn, rows=8, steps=13) - 4 * weights
    assert before.memory - before.held == added  # 12 frames and a column for the delay; the weights are held already
    beside = torch.ones(64 * 2**20)  # 256 MiB, such as a text encoder
    after = training_requirements(lm, tokens(), config, tmp_path)
    assert after.memory - before.memory == pytest.approx(beside.nbytes, rel=0.1)


RETURNED = """
import psutil, torch
from minigen.engine.resources import return_freed_memory

def held():
    return psutil.Process().memory_info().rss / 2**20

return_freed_memory()
before, kept = held(), []
for _ in range(3):  # freed in another order than made, with small blocks between: the heap cannot shrink
    blocks = [(torch.ones(2**21), kept.append(torch.ones(100))) for _ in range(20)]  # 8 MB each
    blocks = blocks[::2]
print(held() - before)
del blocks
print(held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_freed_memory_goes_back_to_the_system():
    out = subprocess.run([sys.executable, "-c", RETURNED], capture_output=True, text=True, check=True).stdout
    alive, after = map(float, out.split())
    assert alive == pytest.approx(80, abs=10) and after < 10  # ten blocks of 8 MB are alive
