"""Cost of a generator: evaluations as its own loop counts them, and processor time of one thread."""

import pytest
import standins
import torch

from minigen.evaluation import cost
from minigen.evaluation.cost import default_steps, evaluations, is_cascade, makes_columns, processor_seconds, steps_for
from minigen.generate import TextToAudio
from minigen.generators.base import CLASSES, find_generator
from minigen.generators.denoiser import Denoiser
from minigen.generators.language_model import LanguageModelGenerator
from minigen.generators.masked import MaskedGenerator
from minigen.guidance import Condition


@pytest.fixture
def masked() -> MaskedGenerator:
    return MaskedGenerator(Denoiser.from_language_model(standins.tiny_lm(1)))


def test_a_language_model_evaluates_twice_for_each_column():
    generator = LanguageModelGenerator(standins.tiny_lm(1))
    assert makes_columns(generator)
    assert evaluations(generator, 50) == 2 * (50 + max(generator.config.delays))


def test_a_masked_model_evaluates_as_often_as_its_loop(masked, monkeypatch):
    counted = []
    hidden = Denoiser.hidden_states
    monkeypatch.setattr(Denoiser, "hidden_states", lambda self, *a, **k: counted.append(1) or hidden(self, *a, **k))
    width = masked.config.memory_width
    masked.generate(Condition(torch.zeros(1, 2, width), torch.ones(1, 2, dtype=torch.bool)), 20, steps=3)
    assert len(counted) == evaluations(masked, 20, 3) == 6
    assert evaluations(masked, 20) == 2 * default_steps(masked) and not makes_columns(masked)


class Cascade:
    """The members of a cascade that are asked for."""

    coarse = cascader = None

    def generate(self, text, frames, steps: int = 50, refine_steps: int = 25):
        raise NotImplementedError


def test_a_cascade_counts_both_of_its_models():
    assert is_cascade(Cascade())
    assert evaluations(Cascade(), 200) == 125 and evaluations(Cascade(), 200, 4, 3) == 11


@pytest.mark.parametrize("count", [6, 8, 16, 64, 128])
def test_a_budget_of_evaluations_is_kept(count, masked):
    for generator in (masked, Cascade()):
        assert abs(evaluations(generator, 200, **steps_for(generator, count)) - count) <= 1


def test_every_generator_with_steps_tells_their_default():
    kinds = [find_generator(name, None) for name in CLASSES if name not in ("language_model", "style")]
    assert all(default_steps(kind) > 1 for kind in kinds)


def test_time_is_that_of_one_thread_and_the_threads_come_back(monkeypatch):
    tta = TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(1))
    threads, clock = torch.get_num_threads(), iter([0.0, 3.0, 3.0, 4.0])
    monkeypatch.setattr(cost.time, "process_time", lambda: next(clock))
    seen = []
    generate = tta.generate
    tta.generate = lambda *a, **k: seen.append(torch.get_num_threads()) or generate(*a, **k)
    assert processor_seconds(tta, ["a dog"], 0.2, 3.0) == 1.0
    assert seen == [1, 1] and torch.get_num_threads() == threads
