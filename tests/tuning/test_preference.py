"""Preference tuning: the loss against its formula and a gradient by hand, exact log-likelihoods, and what it learns."""

import math

import numpy as np
import pytest
import torch
from test_train import SIZES, WORDS, Words

from minigen.engine.errors import MinigenError
from minigen.lm import AudioLM, shift_right
from minigen.patterns import DelayPattern
from minigen.train import TrainConfig, Trainer, train
from minigen.tuning.preference import PreferenceObjective, log_likelihood, pair_tokens, preference_loss


def four(pairs: int, seed: int = 0) -> list[torch.Tensor]:
    """Log-likelihoods of the size of a real clip's: hundreds of nats, and differences of some tens."""
    chance = torch.Generator().manual_seed(seed)
    return [-500 + 40 * torch.randn(pairs, dtype=torch.float64, generator=chance) for _ in range(4)]


def test_the_loss_is_the_formula_in_float64():
    chosen, rejected, ref_chosen, ref_rejected = values = four(64)
    expected = 0.0
    for w, lost, ref_w, ref_l in zip(*(each.tolist() for each in values), strict=True):
        margin = 0.1 * ((w - lost) - (ref_w - ref_l))
        expected += math.log1p(math.exp(-margin)) / 64  # -log σ(margin)
    assert preference_loss(chosen, rejected, ref_chosen, ref_rejected).item() == pytest.approx(expected, abs=1e-9)


def test_the_gradient_is_the_one_derived_by_hand():
    """∂loss / ∂chosen = -β (1 - σ(margin)) / B, and the opposite for the rejected clip."""
    values = [each.requires_grad_() for each in four(16, seed=1)]
    preference_loss(*values, beta=0.3).backward()
    chosen, rejected, ref_chosen, ref_rejected = (each.detach().numpy() for each in values)
    margin = 0.3 * ((chosen - rejected) - (ref_chosen - ref_rejected))
    by_hand = -0.3 * (1 - 1 / (1 + np.exp(-margin))) / 16
    for value, sign in zip(values, (1, -1, -1, 1), strict=True):
        assert np.abs(value.grad.numpy() - sign * by_hand).max() <= 1e-9


def test_a_very_wrong_order_costs_its_margin_and_stays_finite():
    far = torch.tensor([-1e5], dtype=torch.float64)
    assert preference_loss(far, -far, 0 * far, 0 * far, beta=1.0).item() == pytest.approx(2e5)
    assert preference_loss(-far, far, 0 * far, 0 * far, beta=1.0).item() == pytest.approx(0.0)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_an_impossible_beta_is_refused(beta):
    with pytest.raises(MinigenError, match="above 0"):
        preference_loss(*four(2), beta=beta)


def test_log_likelihoods_of_other_shapes_are_refused():
    values = four(4)
    with pytest.raises(MinigenError, match=r"\[4\], \[4\], \[1\], \[4\]"):
        preference_loss(values[0], values[1], values[2][:1], values[3])


def model(seed: int = 0) -> AudioLM:
    torch.manual_seed(seed)
    return AudioLM(SIZES).double().eval()


def codes(clips: int, frames: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randint(16, (clips, 2, frames), generator=torch.Generator().manual_seed(seed))


def test_the_log_likelihood_is_the_sum_over_the_real_cells_of_the_pattern():
    lm, sequence = model(), DelayPattern((0, 1)).apply(codes(3), 16)
    memory, mask = Words()(list(WORDS[:3]))
    found = log_likelihood(lm, sequence, memory, mask)
    logs = lm(shift_right(sequence, 16), memory, mask).log_softmax(-1)
    for clip in range(3):
        expected = 0.0
        for k in range(2):
            for frame in range(6):  # frame t of codebook k stands in column t + k
                expected += logs[clip, k, frame + k, sequence[clip, k, frame + k]].item()
        assert found[clip].item() == pytest.approx(expected, abs=1e-9)


def test_the_probabilities_of_all_clips_of_one_frame_sum_to_one():
    lm = model()
    every = torch.cartesian_prod(torch.arange(16), torch.arange(16))[..., None]  # [256, 2, 1]: both codebooks
    assert log_likelihood(lm, DelayPattern((0, 1)).apply(every, 16)).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


def pairs(count: int = 32):
    """The chosen clip's codes lie below 8, the rejected one's do not."""
    captions = [WORDS[i % 4] for i in range(count)]
    return pair_tokens(codes(count) % 8, codes(count, seed=1) % 8 + 8, captions, 50.0, 16)


def tune(folder, lm, reference, **settings):
    config = TrainConfig(**{"steps": 15, "batch_size": 8, "warmup": 3, "valid_every": 15, **settings})
    objective = PreferenceObjective(SIZES, Words(), reference)
    return train(lm, Words(), pairs(), pairs(16), folder, config, progress=False, objective=objective)


def fresh() -> AudioLM:
    torch.manual_seed(0)
    return AudioLM(SIZES)


def test_at_the_start_the_loss_is_log_2():
    config, lm = TrainConfig(batch_size=8), fresh()
    trainer = Trainer(lm, PreferenceObjective(SIZES, Words(), fresh()), config)
    assert trainer.validate(pairs(16))["valid"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_chosen_clips_become_likelier_than_the_rejected_ones_and_the_reference_stays(tmp_path):
    lm, reference = fresh(), fresh()
    before = [each.clone() for each in reference.parameters()]
    history = tune(tmp_path, lm, reference)
    assert history[-1]["valid"] < 0.3 < history[0]["valid"]
    text = Words()([WORDS[i % 4] for i in range(8)])
    gains = []
    for clips in (codes(8) % 8, codes(8, seed=1) % 8 + 8):
        sequence = DelayPattern((0, 1)).apply(clips, 16)
        gains.append((log_likelihood(lm, sequence, *text) - log_likelihood(reference, sequence, *text)).mean().item())
    assert gains[0] > gains[1] + 10
    assert all(torch.equal(a, b) for a, b in zip(before, reference.parameters(), strict=True))
