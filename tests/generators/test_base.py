"""The pipeline takes any generator that its folder names, loads it when it is needed, and hands it its own options."""

import json
import sys
from types import ModuleType

import pytest
import torch
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.engine.errors import MinigenError
from minigen.engine.weights import read_config
from minigen.generate import TextToAudio
from minigen.generators import base
from minigen.guidance import Condition


class Countdown:
    """A generator whose codes are steps - 1, steps - 2, ..., 0; it keeps what it was given."""

    name = "countdown"
    device = torch.device("cpu")

    def __init__(self, config):
        self.config, self.given = config, None

    @classmethod
    def from_pretrained(cls, folder, dtype=torch.float32):
        return cls(tiny_lm(1).config if read_config(folder)["kind"] == "countdown" else None)

    def save_pretrained(self, folder, dtype=torch.float16):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"kind": "countdown"}')

    def generate(self, text, frames, guidance=3.0, generator=None, progress=False, steps=16, prompt=None):
        self.given = {"text": text, "guidance": guidance, "generator": generator, "steps": steps, "prompt": prompt}
        codes = (steps - 1 - torch.arange(frames)).clamp(min=0)
        return codes.expand(len(text.memory), self.config.num_codebooks, frames)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A saved pipeline around the countdown, whose module is known by name."""
    module = ModuleType("countdown_module")
    module.Countdown = Countdown
    monkeypatch.setitem(sys.modules, "countdown_module", module)
    monkeypatch.setitem(base.CLASSES, "countdown", ("countdown_module", "Countdown"))
    monkeypatch.setattr("minigen.generate.load_text_encoder", lambda name, *how: WordEncoder())
    monkeypatch.setattr(WordEncoder, "save_pretrained", lambda self, folder: None, raising=False)
    TextToAudio(tiny_codec(), WordEncoder(), Countdown(tiny_lm(1).config)).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_names_its_generator_and_the_pipeline_runs_it(folder):
    assert json.loads((folder / "pipeline.json").read_text())["generator"] == "countdown"
    tta = TextToAudio.from_pretrained(folder)
    wav = tta.generate(["rain", "a dog barks"], seconds=0.2, guidance=2.0, seed=3, steps=4)
    expected = torch.tensor([3, 2, 1, 0, 0, 0, 0, 0, 0, 0]).expand(2, 2, 10)
    assert torch.equal(wav, tta.codec.decode(expected))
    given, (states, mask) = tta.generator.given, WordEncoder()(["rain", "a dog barks"])
    assert torch.equal(given["text"].memory, states) and torch.equal(given["text"].memory_mask, mask)
    assert given["guidance"] == 2.0 and given["generator"].initial_seed() == 3 and given["prompt"] is None


def test_what_is_not_given_is_left_to_the_generator(folder):
    tta = TextToAudio.from_pretrained(folder)
    tta.generate("rain", 0.2, 3.0, 1.0, 250, 0.0)  # the command line gives the defaults of sampling
    assert tta.generator.given["steps"] == 16 and tta.generator.given["generator"] is None


def test_a_prompt_reaches_the_generator_as_codes(folder):
    tta = TextToAudio.from_pretrained(folder)
    wav = tta.codec.decode(torch.ones(1, 2, 5, dtype=torch.int64))
    tta.generate("rain", seconds=0.2, prompt=wav)
    assert torch.equal(tta.generator.given["prompt"], tta.codec.encode(wav))


@pytest.mark.parametrize("option", [{"top_k": 5}, {"temperature": 0.0}, {"strides": 2}, {"frames": 3}])
def test_an_option_that_the_generator_does_not_have_is_one_clear_error(folder, option):
    (name,) = option
    with pytest.raises(MinigenError, match=f"countdown generator has no option '{name}'. Its options: steps, prompt."):
        TextToAudio.from_pretrained(folder).generate("rain", seconds=0.2, **option)


def test_the_language_model_has_no_steps():
    tta = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))
    with pytest.raises(MinigenError, match="generator has no option 'steps'. Its options: temperature, top_k, "):
        tta.generate("rain", seconds=0.2, steps=4)


@pytest.mark.parametrize("name", ["masked-out", None, 3, ["language_model"]])
def test_an_unknown_generator_is_one_clear_error(folder, name):
    (folder / "pipeline.json").write_text(json.dumps({"codec": "mini", "text": "mini", "generator": name}))
    with pytest.raises(MinigenError, match=r"pipeline.json names the generator .* Known generators: language_model, "):
        TextToAudio.from_pretrained(folder)


def test_a_pipeline_without_a_named_generator_is_a_language_model(folder):
    tta = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))
    tta.save_pretrained(folder, torch.float32)
    assert json.loads((folder / "pipeline.json").read_text())["generator"] == "language_model"
    (folder / "pipeline.json").write_text('{"codec": "codec", "text": "text"}')
    loaded = TextToAudio.from_pretrained(folder)
    assert loaded.lm.config == tta.lm.config
    text = Condition(*WordEncoder()(["rain"]))
    assert torch.equal(*(own.generator.generate(text, 10, temperature=0) for own in (tta, loaded)))


def test_every_named_generator_has_the_members_of_the_protocol():
    members = {"name", "generate", "from_pretrained", "save_pretrained", "device"}
    for name in base.CLASSES:
        kind = base.find_generator(name, None)
        assert kind.name == name and members <= set(dir(kind))


def test_options_of_sampling_reach_a_generator_that_has_them():
    tta, given = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1)), {"temperature": 1.0, "top_k": 5, "top_p": 0.0}
    assert base.choose_options(tta.generator, {}, given) == given
