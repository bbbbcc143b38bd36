"""Muon: singular values near 1, unchanged singular vectors, the formula, and agreement with PyTorch's Muon."""

import pytest
import torch
from torch import nn

from minigen.lm import AudioLM, AudioLMConfig
from minigen.optim import Muon, TrainConfig, make_optimizers, orthogonalize

SHAPES = [(24, 24), (24, 24), (96, 24), (24, 96)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices(dtype=torch.float64):
    return [nn.Parameter(draw(*shape, seed=seed).to(dtype)) for seed, shape in enumerate(SHAPES)]


def steps(optimizer, parameters, number, seed=100):
    for step in range(number):
        for index, p in enumerate(parameters):
            p.grad = draw(*p.shape, seed=seed + 10 * step + index).to(p.dtype)
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 16), (40, 16), (16, 40)])
def test_singular_values_become_about_one_and_the_vectors_stay(shape):
    matrix = draw(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values.max() > 3 * values.min()
    new = left.mT @ orthogonalize(matrix) @ right.mT  # diagonal exactly where the vectors are the same
    assert torch.allclose(new, torch.diag(new.diagonal()), atol=1e-9)
    assert 0.68 < new.diagonal().min() and new.diagonal().max() < 1.21


def test_a_size_does_not_matter_and_zero_stays_zero():
    matrix = draw(8, 12)
    assert torch.allclose(orthogonalize(1e4 * matrix), orthogonalize(matrix), atol=1e-6)
    assert not orthogonalize(torch.zeros(8, 12)).any()


def test_matrices_together_are_matrices_alone():
    several = draw(5, 12, 8)
    assert torch.allclose(orthogonalize(several), torch.stack([orthogonalize(one) for one in several]), atol=1e-12)


def test_the_formula():
    ours, lr, momentum, decay = matrices(), 0.03, 0.9, 0.2
    naive, means = [p.detach().clone() for p in ours], [torch.zeros_like(p) for p in ours]
    optimizer = Muon(ours, lr, momentum, decay)
    for step in range(4):
        steps(optimizer, ours, 1, seed=7 * step)
        for index, p in enumerate(naive):
            gradient = draw(*p.shape, seed=7 * step + index)
            means[index] = momentum * means[index] + (1 - momentum) * gradient
            ahead = momentum * means[index] + (1 - momentum) * gradient
            naive[index] = p - lr * (0.2 * max(p.shape) ** 0.5 * orthogonalize(ahead) + decay * p)
    for p, q in zip(ours, naive, strict=True):
        assert torch.allclose(p, q, atol=1e-12)


def test_it_is_the_one_of_pytorch():
    """PyTorch's works in bfloat16, so both agree to 2 % of the distance moved."""
    ours, theirs, before = (matrices(torch.float32) for _ in range(3))
    steps(Muon(ours, 1e-2), ours, 5)
    steps(torch.optim.Muon(theirs, 1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), theirs, 5)
    for p, q, start in zip(ours, theirs, before, strict=True):
        assert (p - q).norm() < 0.02 * (p - start).norm()


def test_an_update_is_as_large_as_those_of_adamw():
    for shape in SHAPES:
        (matrix,) = parameters = [nn.Parameter(torch.zeros(*shape, dtype=torch.float64))]
        steps(Muon(parameters, 1.0), parameters, 1)
        assert matrix.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_without_a_gradient_nothing_moves():
    moving, still = parameters = matrices()[:2]
    optimizer, before = Muon(parameters, 0.1), still.detach().clone()
    moving.grad = torch.ones_like(moving)
    optimizer.step()
    assert torch.equal(still, before) and still not in optimizer.state


def test_a_state_taken_up_goes_on_the_same():
    whole, halves = matrices(), matrices()
    steps(Muon(whole, 0.1), whole, 2)
    first = Muon(halves, 0.1)
    steps(first, halves, 1)
    second = Muon(halves, 0.5)
    second.load_state_dict(first.state_dict())
    steps(second, halves, 1, seed=110)
    for p, q in zip(whole, halves, strict=True):
        assert torch.equal(p, q)


def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest():
    lm = AudioLM(AudioLMConfig(num_codebooks=2, codebook_size=16, width=32, layers=2, heads=2, ffn=64, delays=(0, 1)))
    muon, adamw = make_optimizers(lm, TrainConfig(weight_decay=0.3))
    names = {id(p): name for name, p in lm.named_parameters()}
    inner = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    decayed, free = ({names[id(p)] for p in group["params"]} for group in adamw.param_groups)
    assert inner == {name for name in names.values() if name.startswith("layers") and "norm" not in name}
    assert decayed == {f"{part}.{k}.weight" for part in ("embeddings", "heads") for k in (0, 1)} | {
        "memory_projection.weight"
    }
    assert free == set(names.values()) - inner - decayed and "norm.weight" in free
    decays = [group["weight_decay"] for optimizer in (muon, adamw) for group in optimizer.param_groups]
    assert decays == [0.3, 0.3, 0.0]
