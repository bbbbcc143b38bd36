"""Recorded steps: the same numbers as the usual ones. What needs a GPU runs where there is one."""

import pytest
import torch
from test_train import SIZES, Words, tokens

from minigen import trainer as trainer_module
from minigen.decoding.torch_step import Decoder, FixedDecoder, make_decoder
from minigen.engine.cuda_graphs import Replay, recording
from minigen.evaluation.study.variants import VariantConfig, VariantTrainer
from minigen.generate import generate_codes
from minigen.lm import AudioLM, AudioLMConfig
from minigen.train import TrainConfig, Trainer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Rerun:
    """Stands in for a graph on a processor: the function runs again, and its outputs go where the first ones lay."""

    made = []

    def __init__(self, function, *inputs):
        self.function, self.inputs = function, [value.clone() for value in inputs]
        self.outputs = function(*self.inputs)
        self.made.append([tuple(value.shape) for value in inputs])

    def __call__(self, *inputs):
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        for own, new in zip(self.outputs, self.function(*self.inputs), strict=True):
            own.copy_(new)
        return self.outputs


class Usual(Trainer):
    def recordable(self):
        return False


class Recorded(Trainer):
    """Records wherever it is. The gradients that a graph leaves in their place are copied there."""

    def recordable(self):
        return True

    def _record(self, batch, similarity):
        replay, gradients = super()._record(batch, similarity)
        if isinstance(replay, Rerun):
            usual = replay.function

            def in_place(*parts):
                found = usual(*parts)
                for own, parameter in zip(gradients, self.lm.parameters(), strict=True):
                    if own is not None:
                        own.copy_(parameter.grad)
                return found

            replay.function = in_place
        return replay, gradients


def steps(kind, words, count=12, **settings):
    torch.manual_seed(0)
    own = kind(AudioLM(SIZES), words, TrainConfig(batch_size=8, text_dropout=0.4, warmup=2, **settings))
    data = tokens()
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
def test_recorded_steps_are_the_usual_ones_whatever_the_length_of_the_text(similarity, monkeypatch):
    monkeypatch.setattr(trainer_module, "Replay", Rerun)
    monkeypatch.setattr(Rerun, "made", [])
    usual, expected = steps(Usual, TwoLengths(), similarity=similarity)
    found, own = steps(Recorded, TwoLengths(), similarity=similarity)
    assert {entry["dropped"] for entry in usual} == {True, False}
    assert len(Rerun.made) == 2  # with the text and without it; both lengths are padded to one
    for name in ("dropped", "loss", "similarity"):
        assert [entry[name] or 0 for entry in found] == pytest.approx([entry[name] or 0 for entry in usual], rel=1e-4)
    for name, value in expected.lm.state_dict().items():
        torch.testing.assert_close(own.lm.state_dict()[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_what_a_step_leaves_out_has_no_gradient_though_another_recording_had_one(monkeypatch):
    monkeypatch.setattr(trainer_module, "Replay", Rerun)
    _, own = steps(Recorded, Words(), count=12)
    own._gradients(*tokens().batch(range(8)), drop=True)
    assert own.lm.layers[0].cross_attention.query.weight.grad is None
    own._gradients(*tokens().batch(range(8)), drop=False)
    assert own.lm.layers[0].cross_attention.query.weight.grad is not None


def test_nothing_is_recorded_on_a_processor_nor_where_a_step_is_never_the_same():
    lm = AudioLM(SIZES)
    assert Trainer(lm, Words(), TrainConfig()).recordable() == torch.cuda.is_available()
    assert not VariantTrainer(lm, Words(), VariantConfig(per_clip=True)).recordable()
    assert not Trainer(AudioLM(AudioLMConfig(width=32, layers=1, dropout=0.1)), Words(), TrainConfig()).recordable()
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
    assert len(own.recorded) == 2
    assert [entry["loss"] for entry in found] == pytest.approx([entry["loss"] for entry in usual], abs=0.02)


@needs_gpu
def test_on_a_gpu_the_codes_are_those_of_plain_steps(monkeypatch):
    torch.manual_seed(0)
    lm, memory = AudioLM(SIZES).eval().cuda(), torch.randn(3, 5, 8).cuda()
    assert type(make_decoder(lm, lm.start(2, 4))) is FixedDecoder
    found = [generate_codes(lm, memory, None, 20, 3.0, temperature=0, prompt=p) for p in (None, gpu_prompt())]
    monkeypatch.setattr("minigen.generate.make_decoder", Decoder)
    plain = [generate_codes(lm, memory, None, 20, 3.0, temperature=0, prompt=p) for p in (None, gpu_prompt())]
    assert all(map(torch.equal, found, plain))


def gpu_prompt():
    return torch.randint(16, (3, 2, 4), generator=torch.Generator().manual_seed(0)).cuda()
