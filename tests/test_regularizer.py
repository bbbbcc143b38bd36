import pytest
import torch

from minigen.engine.errors import MinigenError
from minigen.regularizer import pool, similarity_loss, similarity_loss_pooled, similarity_matrix


@pytest.fixture
def batch():
    """Text [5, 7, 6], audio [5, 9, 8] in float64, with masks that leave 1 to all of the positions."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(5, 7, 6, dtype=torch.float64, generator=generator)
    audio = torch.randn(5, 9, 8, dtype=torch.float64, generator=generator)
    text_mask = torch.arange(7) < torch.tensor([7, 1, 4, 2, 6])[:, None]
    audio_mask = torch.arange(9) < torch.tensor([3, 9, 5, 1, 8])[:, None]
    return text, audio, text_mask, audio_mask


def naive_loss(text, audio, text_mask, audio_mask, pooling):
    def vector(states, mask):
        real = [state for state, is_real in zip(states, mask, strict=True) if is_real]
        return torch.stack([max(c) if pooling == "max" else sum(c) / len(c) for c in zip(*real, strict=True)])

    def cosine(a, b):
        return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())

    texts = [vector(s, m) for s, m in zip(text, text_mask, strict=True)]
    audios = [vector(s, m) for s, m in zip(audio, audio_mask, strict=True)]
    pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts)) if i != j]
    return sum((cosine(texts[i], texts[j]) - cosine(audios[i], audios[j])) ** 2 for i, j in pairs) / len(pairs)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_the_loss_is_a_double_loop_over_pairs(batch, pooling):
    expected = naive_loss(*batch, pooling)
    assert abs(similarity_loss(*batch, pooling=pooling) - expected) < 1e-10
    assert expected > 0.01


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("rubbish", [0.0, 1e9, float("inf"), float("nan")])
def test_what_stands_in_the_padding_changes_nothing(batch, pooling, rubbish):
    text, audio, text_mask, audio_mask = batch
    dirty_text = text.masked_fill(~text_mask[..., None], rubbish)
    dirty_audio = audio.masked_fill(~audio_mask[..., None], rubbish)
    dirty = similarity_loss(dirty_text, dirty_audio, text_mask, audio_mask, pooling)
    assert torch.equal(dirty, similarity_loss(*batch, pooling=pooling))


def test_more_padding_changes_nothing(batch):
    text, audio, text_mask, audio_mask = batch
    longer = torch.nn.functional.pad(text, (0, 0, 0, 4), value=8.0), torch.nn.functional.pad(text_mask, (0, 4))
    assert torch.equal(similarity_loss(longer[0], audio, longer[1], audio_mask), similarity_loss(*batch))
    torch.testing.assert_close(pool(*longer, "mean"), pool(text, text_mask, "mean"), rtol=0, atol=1e-14)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_no_mask_means_that_everything_is_real(batch, pooling):
    text, audio, text_mask, audio_mask = batch
    full = similarity_loss(text, audio, torch.ones_like(text_mask), torch.ones_like(audio_mask), pooling)
    assert torch.equal(similarity_loss(text, audio, pooling=pooling), full)


@pytest.mark.parametrize("shape", [(4, 8), (4, 0, 8), (4, 2, 3, 8)])
def test_what_is_no_sequence_of_vectors_is_refused(shape):
    with pytest.raises(MinigenError, match="a vector for each position"):
        similarity_loss(torch.zeros(shape), torch.zeros(4, 5, 8))


def test_a_mean_of_many_large_half_precision_numbers_is_finite():
    states, mask = torch.full((2, 500, 3), 300.0, dtype=torch.float16), torch.ones(2, 500, dtype=torch.bool)
    assert torch.equal(pool(states, mask, "mean"), states[:, 0])


def test_permuting_the_batch_changes_nothing(batch):
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(similarity_loss(*(x[order] for x in batch)), similarity_loss(*batch))


def test_permuting_the_audio_alone_changes_the_loss(batch):
    text, audio, text_mask, audio_mask = batch
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = similarity_loss(text, audio[order], text_mask, audio_mask[order])
    assert abs(moved - similarity_loss(*batch)) > 1e-3


def test_gradient_flows_to_the_audio_and_never_to_the_text(batch):
    text, audio, text_mask, audio_mask = batch
    text.requires_grad_(), audio.requires_grad_()
    similarity_loss(text, audio, text_mask, audio_mask).backward()
    assert text.grad is None
    assert (audio.grad.abs().sum(dim=(1, 2)) > 0).all()
    assert (audio.grad[~audio_mask] == 0).all()


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_the_gradient_is_right(batch, pooling):
    text, audio, text_mask, audio_mask = batch
    audio.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity_loss(text, x, text_mask, audio_mask, pooling), audio)


def test_equal_similarities_cost_nothing(batch):
    text = batch[0]
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    pooled = pool(text)
    assert similarity_loss(text, text) == 0
    assert similarity_loss_pooled(pooled, 7 * pooled @ rotation) < 1e-28


def test_following_the_gradient_makes_audio_similarities_like_those_of_the_text(batch):
    text, audio, text_mask, audio_mask = batch
    audio.requires_grad_()
    optimizer = torch.optim.Adam([audio], lr=0.05)
    before = similarity_loss(*batch).item()
    for _ in range(200):
        optimizer.zero_grad()
        similarity_loss(text, audio, text_mask, audio_mask).backward()
        optimizer.step()
    assert similarity_loss(*batch) < 0.01 * before


def test_micro_batches_pooled_apart_give_the_loss_of_the_whole_batch(batch):
    text, audio, text_mask, audio_mask = batch
    pieces = [slice(0, 2), slice(2, 5)]
    texts = torch.cat([pool(text[p], text_mask[p]) for p in pieces])
    audios = torch.cat([pool(audio[p], audio_mask[p]) for p in pieces])
    assert torch.equal(similarity_loss_pooled(texts, audios), similarity_loss(*batch))


def test_similarities_are_cosines():
    matrix = similarity_matrix(torch.tensor([[2.0, 0.0], [3.0, 3.0], [0.0, -1.0], [0.0, 0.0]]))
    half = 0.5**0.5
    expected = [[1, half, 0, 0], [half, 1, -half, 0], [0, -half, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(matrix, torch.tensor(expected))


def test_the_loss_keeps_its_precision_under_autocast(batch):
    text, audio, text_mask, audio_mask = (x.float() if x.is_floating_point() else x for x in batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = similarity_loss(text, audio, text_mask, audio_mask)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, similarity_loss(text, audio, text_mask, audio_mask))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda t, a, m: similarity_loss(t[:1], a[:1]), "batch of 1 has no pairs"),
        (lambda t, a, m: similarity_loss(t[:2], a), "2 captions for 5 clips"),
        (lambda t, a, m: similarity_loss(t, a, m & (torch.arange(5) != 2)[:, None]), r"rows \[2\]"),
        (lambda t, a, m: similarity_loss(t, a, m[:, :3]), r"\[5, 3\]"),
        (lambda t, a, m: similarity_loss(t, a, m.long()), "int64"),
        (lambda t, a, m: similarity_loss(t, a, pooling="sum"), "'sum'"),
    ],
)
def test_mistakes_are_named_with_their_value(batch, mistake, words):
    text, audio, text_mask, _ = batch
    with pytest.raises(MinigenError, match=words):
        mistake(text, audio, text_mask)
