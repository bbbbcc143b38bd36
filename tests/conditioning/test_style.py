"""The style conditioner: its bottleneck beside encodec's, its statistics and codebooks by loops, what it refuses."""

import pytest
import torch

from minigen.conditioning.style import STRIDE, StyleConditioner, StyleConfig
from minigen.engine.errors import MinigenError

SMALL = StyleConfig(streams=2, codebook_size=20, width=16, layers=2, heads=2, ffn=24, latent=5, entries=8,
                    memory_width=12)  # fmt: skip


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@pytest.fixture
def conditioner() -> StyleConditioner:
    torch.manual_seed(0)
    made = StyleConditioner(SMALL).eval()
    made.start(torch.randint(0, 20, (6, 2, 30)), seeded())
    return made


CODES = torch.randint(0, 20, (3, 2, 34), generator=seeded(1))


@torch.no_grad()
def test_ten_frames_become_a_token(conditioner):
    assert conditioner(CODES, 3).shape == (3, 3, 12)  # 34 frames
    assert conditioner(CODES[..., :10], 1).shape == (3, 1, 12)
    assert StyleConditioner(StyleConfig())(torch.randint(0, 1024, (2, 3, 75)), 6).shape == (2, 7, 256)


@torch.no_grad()
@pytest.mark.parametrize("q", range(1, 7))
def test_the_bottleneck_with_q_codebooks_is_that_of_the_encodec_package(conditioner, q):
    from encodec.quantization import ResidualVectorQuantizer as Official

    official = Official(dimension=5, n_q=6, bins=8, kmeans_init=False).eval()
    for stage, layer in zip(conditioner.quantizer.stages, official.vq.layers, strict=True):
        layer._codebook.embed.copy_(stage.codebook)
    latents = conditioner.normalise(conditioner.latents(CODES))  # [3, 34, 5]
    kept = latents[:, [0, 10, 20]]
    quantised = official.vq(kept.transpose(1, 2), n_q=q)[0].transpose(1, 2)
    torch.testing.assert_close(conditioner(CODES, q), conditioner.output(quantised))


@torch.no_grad()
def test_more_codebooks_lose_less(conditioner):
    latents = conditioner.normalise(conditioner.latents(CODES))
    codes = conditioner.quantizer.encode(latents)
    errors = [(latents - conditioner.quantizer.decode(codes[:, :q])).square().mean() for q in (1, 3, 6)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


@torch.no_grad()
def test_equal_entries_give_equal_tokens_whatever_lies_within_them(conditioner):
    """The tokens are a function of the codes of the bottleneck alone: at most 3 bits with one codebook of 8."""
    many = torch.randint(0, 20, (200, 2, STRIDE), generator=seeded(2))
    tokens = conditioner(many, 1)[:, 0]
    assert 1 < len(tokens.unique(dim=0)) <= 8


def test_every_frame_reads_every_frame_in_both_directions(conditioner):
    embedded = [conditioner.embeddings[0](CODES[:1, 0]).detach().requires_grad_(True)]
    conditioner.embeddings[0].forward = lambda codes: embedded[0]
    conditioner.latents(CODES[:1])[0, 15].sum().backward()
    assert (embedded[0].grad[0].abs().sum(-1) > 0).all()


def test_the_gradient_passes_straight_through_the_quantiser(conditioner):
    latents = torch.randn(2, 20, 5, requires_grad=True)
    conditioner.tokens(latents, 2).sum().backward()
    expected = torch.zeros(2, 20, 5)
    expected[:, [0, 10]] = conditioner.output.weight.sum(0)
    torch.testing.assert_close(latents.grad, expected)
    assert conditioner.quantizer.stages[0].codebook.grad is None


@torch.no_grad()
def test_the_statistics_and_codebooks_are_moving_averages(conditioner):
    latents = 3 + 2 * torch.randn(4, 20, 5)
    mean, variance = conditioner.mean.clone(), conditioner.variance.clone()
    first = conditioner.quantizer.stages[0]
    sums, counts, book = first.sums.clone(), first.counts.clone(), first.codebook.clone()
    normal = ((latents - mean) / (variance + 1e-5).sqrt()).flatten(0, 1)
    conditioner.learn(latents, seeded())
    chosen = torch.cdist(normal, book).argmin(1)
    for entry in range(8):
        mine = normal[chosen == entry]
        total, count = 0.99 * sums[entry] + 0.01 * mine.sum(0), 0.99 * counts[entry] + 0.01 * len(mine)
        torch.testing.assert_close(first.codebook[entry], total / count)
    for i in range(5):
        values = latents[..., i].flatten()
        close = {"atol": 1e-5, "rtol": 0}
        torch.testing.assert_close(conditioner.mean[i], 0.99 * mean[i] + 0.01 * values.mean(), **close)
        torch.testing.assert_close(conditioner.variance[i], 0.99 * variance[i] + 0.01 * values.var(), **close)


@torch.no_grad()
def test_after_the_start_latents_are_normal_and_every_entry_is_used(conditioner):
    codes = torch.randint(0, 20, (6, 2, 30), generator=seeded(5))
    conditioner.start(codes, seeded())
    normal = conditioner.normalise(conditioner.latents(codes)).flatten(0, 1)
    torch.testing.assert_close(normal.mean(0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.var(0), torch.ones(5), atol=1e-3, rtol=0)
    assert len(conditioner.quantizer.encode(normal[None])[0, 0].unique()) == 8


@torch.no_grad()
def test_a_saved_conditioner_is_the_same_and_goes_on_learning_the_same(conditioner, tmp_path):
    conditioner.save_pretrained(tmp_path, torch.float32)
    again = StyleConditioner.from_pretrained(tmp_path)
    assert torch.equal(again(CODES, 4), conditioner(CODES, 4))
    for one in (again, conditioner):
        for step in range(3):
            one.learn(torch.randn(2, 20, 5, generator=seeded(step)), seeded(step))
    assert torch.equal(again(CODES, 4), conditioner(CODES, 4))


@pytest.mark.parametrize(
    "codes, q, message",
    [
        (CODES, 0, "codebooks is 0. Give a whole number of at least 1 and at most 6"),
        (CODES, 9, "codebooks is 9"),
        (CODES, 1.5, "codebooks is 1.5"),
        (CODES[:, :1], 3, r"codes \[3, 1, 34\]. Give \[B, 2, F\]"),
        (CODES[..., :9], 3, "F at least 10"),
        (CODES + 1, 3, r"codes lie in 0..19, got 1..20"),
        (CODES.float(), 3, "codes are int64"),
    ],
)
def test_what_cannot_be_a_style_is_refused(conditioner, codes, q, message):
    with pytest.raises(MinigenError, match=message):
        conditioner(codes, q)


def test_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(MinigenError, match="width 18 with 4 heads"):
        StyleConfig(width=18, heads=4)
    with pytest.raises(MinigenError, match="layers is 0"):
        StyleConfig(layers=0)
    (tmp_path / "config.json").write_text('{"colour": 3}')
    with pytest.raises(MinigenError, match="is no style conditioner's"):
        StyleConditioner.from_pretrained(tmp_path)
