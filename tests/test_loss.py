"""The loss: mean over the real codes, and the same value and gradient when computed piece by piece."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import minigen.loss
from minigen.loss import cross_entropy, heads_cross_entropy

B, K, S, V, D = 3, 2, 7, 16, 8


class Watch(TorchDispatchMode):
    """Records the size of the largest tensor made inside, and the number of matrix products."""

    numbers = products = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.products += "mm" in function.name()
        for value in made if isinstance(made, (tuple, list)) else (made,):
            self.numbers = max(self.numbers, value.numel() if isinstance(value, torch.Tensor) else 0)
        return made


def example(dtype=torch.float64):
    """Hidden states that require a gradient, heads, and a sequence with gaps."""
    torch.manual_seed(0)
    heads = nn.ModuleList(nn.Linear(D, V, bias=False, dtype=dtype) for _ in range(K))
    sequence = torch.randint(V + 1, (B, K, S))
    sequence[0, :, 0] = V
    return torch.randn(B, S, D, dtype=dtype, requires_grad=True), heads, sequence


def usual(hidden, heads, sequence):
    """The plain loss, from the logits of all heads at once."""
    return cross_entropy(torch.stack([head(hidden) for head in heads], dim=1), sequence)


def gradients(loss, hidden, heads):
    return torch.autograd.grad(loss, [hidden, *heads.parameters()])


def test_cross_entropy_is_the_mean_over_real_codes():
    torch.manual_seed(0)
    logits, sequence = torch.randn(2, 3, 5, 7), torch.randint(8, (2, 3, 5))  # 7 = V marks a gap
    losses = []
    for b in range(2):
        for k in range(3):
            for s in range(5):
                if sequence[b, k, s] < 7:
                    losses.append(-torch.log_softmax(logits[b, k, s], 0)[sequence[b, k, s]])
    assert torch.allclose(cross_entropy(logits, sequence), torch.stack(losses).mean())


def test_a_given_count_divides_the_sum_so_that_shares_of_a_batch_add_up_to_the_whole():
    hidden, heads, sequence = example()
    sequence[2] = V  # a share without a code
    count = (sequence < V).sum() / B  # mean number of codes of a share of one clip
    shares = [heads_cross_entropy(hidden[b : b + 1], heads, sequence[b : b + 1], count) for b in range(B)]
    mean, whole = sum(shares) / B, heads_cross_entropy(hidden, heads, sequence)
    torch.testing.assert_close(mean, whole)
    for ours, theirs in zip(gradients(mean, hidden, heads), gradients(whole, hidden, heads), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [1, 4, 5, B * S, 1000])
def test_pieces_give_the_loss_and_the_gradients_of_the_whole(monkeypatch, rows):
    monkeypatch.setattr(minigen.loss, "PIECE", rows * K * V)
    hidden, heads, sequence = example()
    whole, pieces = usual(hidden, heads, sequence), heads_cross_entropy(hidden, heads, sequence)
    assert torch.allclose(pieces, whole, rtol=0, atol=1e-12)
    for a, b in zip(gradients(3 * pieces, hidden, heads), gradients(3 * whole, hidden, heads), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_one_head_gives_what_pytorch_gives():
    hidden, heads, sequence = example()
    official = torch.nn.functional.linear_cross_entropy(
        hidden.flatten(0, 1), heads[0].weight, sequence[:, 0].flatten(), ignore_index=V,
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=4),
    )  # fmt: skip
    ours = heads_cross_entropy(hidden, heads[:1], sequence[:, :1])
    assert torch.allclose(ours, official, rtol=0, atol=1e-12)
    for a, b in zip(gradients(ours, hidden, heads[:1]), gradients(official, hidden, heads[:1]), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_small_changes():
    hidden, heads, sequence = example()
    assert torch.autograd.gradcheck(lambda states: heads_cross_entropy(states, heads, sequence), hidden)


def test_gaps_take_no_part_even_where_the_logits_are_no_numbers():
    hidden, heads, sequence = example()
    sequence[1, :, 3] = V
    with torch.no_grad():
        before = heads_cross_entropy(hidden, heads, sequence)
        hidden[1, 3] = torch.nan
        assert heads_cross_entropy(hidden, heads, sequence) == before


def test_a_logit_far_below_the_others_has_a_finite_loss():
    hidden, heads, sequence = example(torch.float32)
    loss = heads_cross_entropy(1e4 * hidden, heads, sequence)
    assert loss > 1000 and torch.allclose(loss, usual(1e4 * hidden, heads, sequence))


def test_without_gradients_the_loss_is_the_same_for_a_third_of_the_products():
    hidden, heads, sequence = example()
    with Watch() as with_gradients:
        expected = heads_cross_entropy(hidden, heads, sequence)
    with torch.no_grad(), Watch() as without:
        assert heads_cross_entropy(hidden, heads, sequence) == expected
    assert without.products - 1 == (with_gradients.products - 1) / 3 == 1  # and a row of one tells the type


def test_all_logits_are_never_there_at_once(monkeypatch):
    monkeypatch.setattr(minigen.loss, "PIECE", 2 * K * V)
    hidden, heads, sequence = example()
    with Watch() as pieces:
        gradients(heads_cross_entropy(hidden, heads, sequence), hidden, heads)
    assert pieces.numbers == max(K * V * D, B * S * D, 2 * K * V) < B * S * K * V
    with Watch() as whole:
        gradients(usual(hidden, heads, sequence), hidden, heads)
    assert whole.numbers == B * S * K * V


def test_autocast_multiplies_in_bfloat16_and_the_gradients_keep_their_type():
    hidden, heads, sequence = example(torch.float32)
    fine = heads_cross_entropy(hidden, heads, sequence)
    with torch.autocast("cpu", torch.bfloat16):
        coarse, whole = heads_cross_entropy(hidden, heads, sequence), usual(hidden, heads, sequence)
    assert coarse.dtype == torch.float32 and coarse != fine
    assert torch.allclose(coarse, whole.float(), atol=0.02) and torch.allclose(coarse, fine, atol=0.02)
    for a, b in zip(gradients(coarse, hidden, heads), gradients(fine, hidden, heads), strict=True):
        assert a.dtype == torch.float32 and torch.allclose(a, b, atol=0.02 * b.abs().max())
