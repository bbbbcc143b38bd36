"""Recorded steps compute the same numbers as the usual ones. Tests that need a GPU run where there is one."""

import pytest
import torch
from test_train import SIZES, Words, tokens

from minigen.decoding.torch_step import Decoder, FixedDecoder, make_decoder
from minigen.engine import cuda_graphs
from minigen.engine.cuda_graphs import Replay, recording
from minigen.evaluation.study.variants import VariantConfig, objective_of
from minigen.generate import generate_codes
from minigen.lm import AudioLM, AudioLMConfig
from minigen.train import CrossEntropyObjective, TrainConfig, Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Rerun:
    """Stand-in for a graph on a processor: runs the function again and copies its outputs over the first ones.

    Like a graph, it writes the gradients to the memory that they had when it was recorded.
    """

    made = []
    parameters = []

    def __init__(self, function, *inputs):
        self.function, self.inputs = function, [value.clone() for value in inputs]
        self.outputs = function(*self.inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]
        self.made.append([tuple(value.shape) for value in inputs])

    def __call__(self, *inputs):
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        for name, new in self.function(*self.inputs).items():
            self.outputs[name].copy_(new)
        for own, parameter in zip(self.gradients, self.parameters, strict=True):
            if own is not None:
                own.copy_(parameter.grad)
        return self.outputs


@pytest.fixture
def stand_in(monkeypatch):
    """Graphs on a processor."""
    monkeypatch.setattr(cuda_graphs, "Replay", Rerun)
    monkeypatch.setattr(Rerun, "made", [])


class Usual(Trainer):
    def recordable(self):
        return False


class Recorded(Trainer):
    """A trainer that records on every device."""

    def recordable(self):
        Rerun.parameters = list(self.lm.parameters())
        return True


def make(kind, words, **settings) -> Trainer:
    torch.manual_seed(0)
    config = TrainConfig(**{"batch_size": 8, "text_dropout": 0.4, "warmup": 2, **settings})
    return kind(AudioLM(SIZES), CrossEntropyObjective(SIZES, words, config), config)


def steps(kind, words, count=12, **settings):
    own, data = make(kind, words, **settings), tokens()
    said = [own.train_step(*data.batch(range(8 * (i % 5), 8 * (i % 5) + 8))) for i in range(count)]
    return said, own


class TwoLengths(Words):
    """Captions of one word, the last of which is padding in every other batch."""

    calls = 0

    def forward(self, captions):
        states, mask = super().forward(captions)
        self.calls += 1
        pads = self.calls % 2
        return torch.nn.functional.pad(states, (0, 0, 0, pads)), torch.nn.functional.pad(mask, (0, pads))


@pytest.mark.parametrize("similarity", [0.0, 1.0])
def test_recorded_steps_are_the_usual_ones_whatever_the_length_of_the_text(similarity, stand_in):
    usual, expected = steps(Usual, TwoLengths(), similarity=similarity)
    found, own = steps(Recorded, TwoLengths(), similarity=similarity)
    assert {entry["dropped"] for entry in usual} == {True, False}
    assert len(Rerun.made) == 2  # with the text and without it; both lengths are padded to one
    for name in ("dropped", "loss", "similarity"):
        assert [entry[name] or 0 for entry in found] == pytest.approx([entry[name] or 0 for entry in usual], rel=1e-4)
    for name, value in expected.lm.state_dict().items():
        torch.testing.assert_close(own.lm.state_dict()[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_what_a_step_leaves_out_has_no_gradient_though_another_recording_had_one(stand_in):
    _, own = steps(Recorded, Words(), count=12)
    codes, captions = tokens().batch(range(8))
    for drop in (True, False):
        own.recorded(own.objective.tensors(codes, captions, drop, regularise=False))
        assert (own.lm.layers[0].cross_attention.query.weight.grad is None) == drop
    assert len(Rerun.made) == 2


def test_nothing_is_recorded_on_a_processor_nor_where_a_step_is_never_the_same():
    usual = make(Trainer, Words())
    assert usual.recordable() == torch.cuda.is_available()
    usual.device = torch.device("cuda")  # as if there were one
    assert usual.recordable()
    usual.objective = objective_of(SIZES, Words(), VariantConfig(per_clip=True))
    assert not usual.recordable()
    usual.objective = objective_of(SIZES, Words(), VariantConfig(every_step=True))
    assert usual.recordable()
    usual.lm = AudioLM(AudioLMConfig(width=32, layers=1, dropout=0.1))
    assert not usual.recordable()
    assert not recording()


def test_a_processor_reads_no_more_of_the_cache_than_is_filled():
    lm = AudioLM(SIZES).eval()
    assert not isinstance(make_decoder(lm, lm.start(1, 4)), FixedDecoder)


@needs_gpu
def test_a_replay_computes_anew_in_the_same_place():
    replay = Replay(lambda a, b: (a @ b, a.sum()), *torch.randn(2, 4, 4, device="cuda"))
    first = replay.outputs[0].data_ptr()
    a, b = torch.randn(2, 4, 4, device="cuda")
    product, total = replay(a, b)
    torch.testing.assert_close(product, a @ b)
    torch.testing.assert_close(total, a.sum())
    assert product.data_ptr() == first


@needs_gpu
@pytest.mark.parametrize("similarity", [0.0, 1.0])
def test_on_a_gpu_recorded_steps_are_the_usual_ones(similarity):
    usual, _ = steps(Usual, Words(), similarity=similarity)
    found, own = steps(Trainer, Words(), similarity=similarity)
    assert len(own.recorded.recorded) == 2
    assert [entry["loss"] for entry in found] == pytest.approx([entry["loss"] for entry in usual], abs=0.02)


@needs_gpu
def test_on_a_gpu_the_codes_are_those_of_plain_steps(monkeypatch):
    torch.manual_seed(0)
    lm, memory = AudioLM(SIZES).eval().cuda(), torch.randn(3, 5, 8).cuda()
    assert type(make_decoder(lm, lm.start(2, 4))) is FixedDecoder
    found = [generate_codes(lm, memory, None, 20, 3.0, temperature=0, prompt=p) for p in (None, gpu_prompt())]
    monkeypatch.setattr("minigen.decoding.torch_step.make_decoder", Decoder)
    plain = [generate_codes(lm, memory, None, 20, 3.0, temperature=0, prompt=p) for p in (None, gpu_prompt())]
    assert all(map(torch.equal, found, plain))


def gpu_prompt():
    return torch.randint(16, (3, 2, 4), generator=torch.Generator().manual_seed(0)).cuda()
