"""Figures of single abilities: each measure tells a good result from a bad one, and its rows reach the card."""

import math

import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.generators.discrete_diffusion import DiscreteSampler, Transitions
from minigen.recipes.generators import abilities
from minigen.recipes.generators.abilities import (
    FILE,
    ReleasedSampler,
    distance_above,
    is_smooth,
    measure,
    muffle,
    row,
    save,
    share_heard,
)
from minigen.recipes.generators.ship import _abilities

RATE = 16000


def noise(seconds: float = 4.0, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def test_a_silence_in_a_noise_has_a_seam_and_the_noise_has_none():
    wav, frames = noise(), abilities.flux(noise()).shape[0] + 1
    edges = [round(second / 4 * frames) - 1 for second in (1.75, 2.25)]
    cut = wav.clone()
    cut[..., round(1.75 * RATE) : round(2.25 * RATE)] = 0
    assert not is_smooth(cut, wav, edges)
    steady = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(4 * RATE) / RATE)[None] + wav
    assert is_smooth(steady, wav, edges)


def test_a_muffled_clip_has_nothing_above_the_cutoff_and_all_below():
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    low, high = (torch.sin(2 * math.pi * hertz * time)[None, None] for hertz in (500, 5000))
    torch.testing.assert_close(muffle(low + high, RATE), low, atol=1e-9, rtol=0)


def test_the_distance_above_the_cutoff_does_not_see_what_lies_below():
    wav = noise()
    assert distance_above(wav, wav, RATE) == 0
    assert distance_above(muffle(wav, RATE), wav, RATE) > 1
    other_lows = wav - muffle(wav, RATE, 1500.0)
    assert distance_above(other_lows, wav, RATE) < 0.05


def test_the_released_stride_keeps_masks_longer_than_the_exact_one():
    """From a state of masks at time 100 to time 90, with the network's answer the same."""
    noise, V = Transitions(8, 100, "mask_uniform"), 8
    state, logits = torch.full((1, 1, 4000), V), torch.zeros(1, 1, 4000, V)
    left = []
    for sampler in (DiscreteSampler(noise), ReleasedSampler(noise)):
        after = sampler.step(state, state, 100.0, 90.0, logits, torch.Generator().manual_seed(0))
        left.append((after == V).float().mean().item())
    masks = [noise.cumulative(t)[2] for t in (90, 91, 100)]
    assert abs(left[0] - masks[0] / masks[2]) < 0.02 and abs(left[1] - masks[0] / masks[1]) < 0.02
    assert left[1] > left[0] + 0.05


def test_the_share_heard_counts_the_events_of_each_caption():
    heard, asked = torch.tensor([[True, False], [True, True]]), torch.tensor([[True, True], [False, True]])
    assert share_heard(heard, asked) == [0.5, 1.0]


def test_a_row_is_a_mean_with_an_interval_and_reaches_the_card(tmp_path):
    each = row("seam", [0.0, 1.0, 1.0, 1.0])
    assert each.value == 0.75 and each.low < 0.75 < each.high and each.clips == 4
    save([each], tmp_path / FILE)
    text = _abilities(tmp_path / FILE)
    assert f"| seam | 4 | 0.750 | {each.low:.3f} | {each.high:.3f} |" in text and "recipes.generators.abilities" in text
    assert _abilities(tmp_path / "none.csv") == ""


def test_a_model_without_an_ability_of_its_own_is_refused(tmp_path, monkeypatch):
    from minigen.app import cli

    assert cli.main(f"corpus --out {tmp_path / 'clips'} --clips 20 --seconds 4".split()) == 0
    with pytest.raises(MinigenError, match="mini is a language_model generator"):
        measure("mini", str(tmp_path / "clips"))
