"""A language model with a style: its memory beside transformers, the excerpt's mask by loops, and its training."""

import numpy as np
import pytest
import torch

from minigen.conditioning.styled_lm import (
    AlignObjective,
    StyledLM,
    StyleObjective,
    draw_conditions,
    draw_excerpts,
    excerpt_cells,
    join,
    readings,
)
from minigen.corpus.tokens import TokenSet
from minigen.engine.errors import MinigenError
from minigen.guidance import Condition
from minigen.interop import lm_to_musicgen
from minigen.lm import AudioLM, AudioLMConfig, shift_right
from minigen.loss import cross_entropy
from minigen.optim import make_optimizers
from minigen.patterns import DelayPattern
from minigen.train import CrossEntropyObjective, TrainConfig, Trainer, train

V, K = 24, 3
SIZES = AudioLMConfig(K, V, width=16, layers=2, heads=2, ffn=24, memory_width=8, delays=(0, 1, 2))
WORDS = ("dog", "rain", "bell", "wind")


class Words:
    """A stand-in encoder: each word of WORDS is a fixed vector, followed by padding."""

    width = 8

    def __init__(self):
        self.table = torch.randn(len(WORDS), 8, generator=torch.Generator().manual_seed(1))

    def __call__(self, captions):
        states = self.table[[WORDS.index(c) for c in captions]][:, None]  # [B, 1, 8]
        mask = torch.tensor([True, False]).expand(len(captions), 2)
        return torch.cat([states, 0 * states], 1), mask


def tokens(clips: int = 24, frames: int = 60, seed: int = 0) -> TokenSet:
    """Clips whose codes stay in a range of their own: an excerpt tells which."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(6, size=clips)
    codes = kinds[:, None, None] * 4 + rng.integers(4, size=(clips, K, frames))
    return TokenSet(codes.astype(np.int16), [WORDS[k % 4] for k in kinds], [()] * clips, [[]] * clips, 50.0, V)


def styled(seed: int = 0) -> StyledLM:
    torch.manual_seed(seed)
    return StyledLM.from_language_model(AudioLM(SIZES), tokens().batch(range(12))[0], seed)


@pytest.fixture
def model() -> StyledLM:
    return styled().eval()


CODES, CAPTIONS = tokens(6, seed=3).batch(range(6))


def objective(model: StyledLM, dropout: float = 0.1) -> StyleObjective:
    return StyleObjective(model, Words(), TrainConfig(text_dropout=dropout))


# the memory


@torch.no_grad()
def test_the_style_follows_the_text_in_the_memory(model):
    states, mask = Words()(CAPTIONS)
    style = model.style(CODES, 3)  # [6, 6, 8]
    both = join(Condition(states, mask), style)
    assert torch.equal(both.memory, torch.cat([states, style], 1))
    assert both.memory_mask.tolist() == [[True, False, *[True] * 6]] * 6
    alone = join(Condition(), style)
    assert torch.equal(alone.memory, style) and alone.memory_mask is None


@torch.no_grad()
def test_text_and_style_are_concatenated_states_of_a_musicgen(model):
    states, mask = Words()(CAPTIONS)
    both = join(Condition(states, mask), model.style(CODES, 2))
    sequence = DelayPattern(SIZES.delays).apply(CODES, V)
    theirs = lm_to_musicgen(model.lm)
    projected = model.lm.memory_projection(both.memory) * both.memory_mask[..., None]
    logits = theirs(sequence.flatten(0, 1), encoder_hidden_states=projected,
                    encoder_attention_mask=both.memory_mask.long()).logits  # fmt: skip
    ours = model.lm(sequence, both.memory, both.memory_mask).flatten(0, 1)
    torch.testing.assert_close(ours, logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_style_that_is_masked_is_no_style(model):
    states, mask = Words()(CAPTIONS)
    both = join(Condition(states, mask), model.style(CODES, 2))
    sequence = DelayPattern(SIZES.delays).apply(CODES, V)
    hidden_style = both.memory_mask.clone()
    hidden_style[:, 2:] = False
    torch.testing.assert_close(model.lm(sequence, both.memory, hidden_style), model.lm(sequence, states, mask))
    nothing = torch.zeros_like(hidden_style)
    torch.testing.assert_close(model.lm(sequence, both.memory, nothing), model.lm(sequence))


# the excerpt


def test_the_cells_of_an_excerpt_are_its_frames():
    cells = excerpt_cells((2, K, 9), np.array([0, 4]), 3)
    for b, start in enumerate((0, 4)):
        for k in range(K):
            assert [t for t in range(9) if cells[b, k, t]] == [start, start + 1, start + 2]


def test_excerpts_are_one_to_two_seconds_and_at_most_half_of_the_clip():
    drawn = [draw_excerpts(8, 200, np.random.default_rng(n)) for n in range(300)]
    lengths = [length for _, length in drawn]
    assert min(lengths) == 50 and max(lengths) == 100
    assert all((starts >= 0).all() and (starts + length <= 200).all() for starts, length in drawn)
    assert max((starts + length).max() for starts, length in drawn) == 200
    assert {draw_excerpts(1, 60, np.random.default_rng(n))[1] for n in range(20)} == {30}
    with pytest.raises(MinigenError, match="clips of 49 frames are too short"):
        draw_excerpts(1, 49, np.random.default_rng(0))


def test_the_excerpt_is_a_part_of_the_clip_and_no_target_in_the_delayed_columns(model):
    for number in range(10):
        batch = objective(model).batch(CODES, CAPTIONS, np.random.default_rng(number), drop=False)
        excerpt, target = batch["excerpt"], batch["target"]
        length = excerpt.shape[-1]
        assert torch.equal(batch["sequence"], DelayPattern(SIZES.delays).apply(CODES, V))
        for b in range(6):
            places = [t for t in range(61 - length) if torch.equal(CODES[b, :, t : t + length], excerpt[b])]
            assert len(places) == 1
            for k in range(K):
                for s in range(target.shape[-1]):
                    frame = s - SIZES.delays[k]
                    counts = 0 <= frame < 60 and not places[0] <= frame < places[0] + length
                    assert target[b, k, s] == (CODES[b, k, frame] if counts else V)


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_the_other_frames(model):
    batch = objective(model).batch(CODES, CAPTIONS, np.random.default_rng(4), drop=False)
    loss, parts = objective(model).loss(model, **batch)
    both = join(Condition(batch["memory"], batch["mask"]), model.style(batch["excerpt"], int(batch["q"][0])))
    logits = model.lm(shift_right(batch["sequence"], V), both.memory, both.memory_mask)
    torch.testing.assert_close(loss, cross_entropy(logits, batch["target"]))
    assert parts == {"loss": loss}


# what is left out


def test_conditions_are_left_out_as_often_as_the_objective_says():
    rng = np.random.default_rng(0)
    drawn = [draw_conditions(rng, 0.1) for _ in range(20000)]
    expected = {(False, False): 0.1 + 0.9 * 0.16, (True, True): 0.9 * 0.36, (True, False): 0.9 * 0.24}
    for pair, share in expected.items():
        assert drawn.count(pair) / 20000 == pytest.approx(share, abs=0.012)


@torch.no_grad()
def test_without_text_and_style_the_model_reads_nothing_bit_for_bit(model):
    batch = objective(model, dropout=1.0).batch(CODES, CAPTIONS, np.random.default_rng(0))
    assert batch.keys() == {"sequence", "target"}
    batch["target"] = batch["sequence"]  # the excerpt counted again: the loss of the language model
    plain = CrossEntropyObjective(SIZES, Words(), TrainConfig())
    expected = plain.loss(model.lm, **plain.batch(CODES, CAPTIONS, np.random.default_rng(0), drop=True))[0]
    assert torch.equal(objective(model).loss(model, **batch)[0], expected)


def test_a_batch_has_all_four_combinations_of_text_and_style(model):
    batches = [objective(model).batch(CODES, CAPTIONS, np.random.default_rng(n)) for n in range(60)]
    assert {("memory" in batch, "excerpt" in batch) for batch in batches} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert {int(batch["q"][0]) for batch in batches if "q" in batch} == set(range(1, 7))


def test_validation_measures_text_and_style_then_the_style_alone(model):
    for drop in (False, True):
        batch = objective(model).batch(CODES, CAPTIONS, np.random.default_rng(0), drop)
        assert "excerpt" in batch and ("memory" in batch) == (not drop)


# the training


def test_the_matrices_of_both_parts_go_to_muon(model):
    muon, adamw = make_optimizers(model, TrainConfig())
    inner = {id(p) for p in muon.param_groups[0]["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in inner) == (".layers." in name and parameter.ndim == 2), name
    assert sum(len(group["params"]) for group in (*muon.param_groups, *adamw.param_groups)) == len(
        list(model.parameters())
    )


def test_the_codebooks_learn_in_training_and_rest_in_validation(model):
    goal = objective(model)
    batch = goal.batch(CODES, CAPTIONS, np.random.default_rng(0), drop=False)
    before = model.style.quantizer.stages[0].codebook.clone()
    goal.loss(model.eval(), **batch)
    assert torch.equal(model.style.quantizer.stages[0].codebook, before)
    goal.loss(model.train(), **batch)[0].backward()
    assert not torch.equal(model.style.quantizer.stages[0].codebook, before)
    assert model.style.embeddings[0].weight.grad.abs().sum() > 0  # straight through the quantiser


def run(folder, model, steps=40, **settings):
    config = TrainConfig(steps=steps, batch_size=8, warmup=5, valid_every=20, **settings)
    goal = StyleObjective(model, Words(), config)
    return train(model, Words(), tokens(), tokens(16, seed=1), folder, config, progress=False, objective=goal)


def test_training_learns_to_use_the_style(tmp_path):
    """The excerpt tells the range of the clip's codes, and nothing else tells it before the first column."""
    model = styled()
    history = run(tmp_path, model, steps=60, learning_rate=2e-2)
    assert history[-1]["valid_no_text"] < 0.8 * history[0]["valid_no_text"]
    start = torch.full((6, K, 1), V)
    with torch.no_grad():
        probabilities = model.lm(start, model.style(CODES[..., :30], 6))[:, 0, 0].softmax(-1)  # [6, V]
    ranges = probabilities.unflatten(-1, (6, 4)).sum(-1)  # [6, 6]
    own = ranges[range(6), CODES[:, 0, 0] // 4]
    assert own.mean() > 0.4, "chance is 1/6"


# the conditioner alone


def test_the_readings_of_the_text_are_those_inside_the_language_model(model):
    lm, (memory, mask) = model.lm, Words()(["dog", "rain"])
    shifted = shift_right(DelayPattern(SIZES.delays).apply(tokens(2).batch(range(2))[0], V), V)
    found = readings(lm, shifted, memory, mask)
    layer, x, read = found[-1]
    assert [each[0] for each in found] == list(lm.layers) and read.abs().min() > 0
    last = x + read + layer.feed_forward(layer.ffn_norm(x + read))
    torch.testing.assert_close(lm.norm(last), lm.hidden_states(shifted, memory, mask))


def test_tokens_that_are_the_caption_have_the_loss_0_and_tokens_that_say_nothing_1(model, monkeypatch):
    aligned = AlignObjective(model.eval(), Words(), TrainConfig())
    batch = aligned.batch(*tokens().batch(range(4)), np.random.default_rng(0), drop=False)
    monkeypatch.setattr(model.style, "tokens", lambda latents, q: batch["memory"][:, :1])  # the words without padding
    assert aligned.loss(model, **batch)[0] < 1e-9
    torch.nn.init.zeros_(model.lm.memory_projection.bias)
    monkeypatch.setattr(model.style, "tokens", lambda latents, q: torch.zeros(4, 3, 8))
    torch.testing.assert_close(aligned.loss(model, **batch)[0], torch.ones(()))


def test_the_conditioner_learns_alone_what_captions_say(tmp_path):
    model = styled()
    frozen = {name: value.clone() for name, value in model.lm.state_dict().items()}
    aligned = AlignObjective(model, Words(), TrainConfig())
    config = TrainConfig(steps=60, batch_size=8, warmup=5, learning_rate=0.02, valid_every=60, ema=0.9)
    history = train(model, Words(), tokens(), tokens(seed=1), tmp_path, config, progress=False, objective=aligned)
    assert history[-1]["valid"] < 0.7 * history[0]["valid"]
    assert all(torch.equal(value, frozen[name]) for name, value in model.lm.state_dict().items())
    assert torch.equal(StyledLM.from_pretrained(tmp_path).style.mean, model.style.mean.half().float())


@torch.no_grad()
def test_a_narrowed_bottleneck_has_other_codebooks_and_the_same_networks(model):
    narrow = model.narrowed(4, tokens().batch(range(12))[0])
    assert narrow.style.config.entries == 4 and narrow.lm is model.lm
    torch.testing.assert_close(narrow.style.latents(CODES), model.style.latents(CODES), rtol=0, atol=0)
    again = model.narrowed(4, tokens().batch(range(12))[0])
    assert torch.equal(narrow.style(CODES, 6), again.style(CODES, 6))
    assert len(narrow.style.quantizer.decode(torch.arange(4)[:, None, None]).unique(dim=0)) == 4
    assert model.style.config.entries == 64


def test_a_step_reads_a_part_of_the_clip_and_validation_all_of_it(model):
    aligned = AlignObjective(model, Words(), TrainConfig())
    codes, captions = tokens(4, frames=80).batch(range(4))
    read = [aligned.batch(codes, captions, np.random.default_rng(0), drop)["sequence"].shape for drop in (None, True)]
    assert read == [(4, K, 62), (4, K, 82)]


def test_a_training_that_stopped_in_the_middle_ends_with_the_same_weights(tmp_path):
    whole, halves = styled(), styled()
    config = TrainConfig(steps=12, batch_size=8)
    one = Trainer(whole, StyleObjective(whole, Words(), config), config)
    first = Trainer(halves, StyleObjective(halves, Words(), config), config)
    for step in range(12):
        one.train_step(*tokens().batch(range(step, step + 8)))
        if step < 6:
            first.train_step(*tokens().batch(range(step, step + 8)))
    again = styled(seed=5)
    second = Trainer(again, StyleObjective(again, Words(), config), config)
    second.load({**first.state(), "lm": {name: value.clone() for name, value in first.lm.state_dict().items()}})
    for step in range(6, 12):
        second.train_step(*tokens().batch(range(step, step + 8)))
    for (name, value), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


# files


@torch.no_grad()
def test_both_parts_lie_in_one_folder(model, tmp_path):
    model.save_pretrained(tmp_path, torch.float32)
    again = StyledLM.from_pretrained(tmp_path)
    for (name, value), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert AudioLM.from_pretrained(tmp_path).config == SIZES
    assert StyledLM.from_pretrained(tmp_path, torch.float16).lm.norm.weight.dtype == torch.float16


def test_a_folder_without_a_conditioner_or_with_another_is_refused(model, tmp_path):
    model.lm.save_pretrained(tmp_path)
    with pytest.raises(MinigenError, match="style"):
        StyledLM.from_pretrained(tmp_path)
    other = AudioLMConfig(K, 12, width=16, layers=1, heads=2, ffn=24, memory_width=8, delays=(0, 1, 2))
    StyledLM.from_language_model(AudioLM(other), CODES % 12).style.save_pretrained(tmp_path / "style")
    with pytest.raises(MinigenError, match="differ in codebook_size"):
        StyledLM.from_pretrained(tmp_path)


@torch.no_grad()
def test_the_conditioner_starts_with_the_embeddings_of_the_language_model():
    torch.manual_seed(0)
    lm = AudioLM(SIZES)
    made = StyledLM.from_language_model(lm, tokens().batch(range(12))[0])
    for k in range(3):
        assert torch.equal(made.style.embeddings[k].weight, lm.embeddings[k].weight[:V])
    again = StyledLM.from_language_model(lm, tokens().batch(range(12))[0])
    assert torch.equal(made.style(CODES), again.style(CODES))
