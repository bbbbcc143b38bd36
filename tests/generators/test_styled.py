"""The style generator: its branches beside the formula, its options, and the pipeline from a waveform to codes."""

import json

import pytest
import torch
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.conditioning.styled_lm import StyledLM, join
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio, generate_codes, generate_guided
from minigen.generators.styled import StyleGenerator
from minigen.guidance import Condition, guide, guide_two

CODES = torch.randint(0, 16, (4, 2, 60), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tta() -> TextToAudio:
    model = StyledLM.from_language_model(tiny_lm(1), CODES).eval()
    return TextToAudio(tiny_codec(), WordEncoder(), StyleGenerator(model))


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def text(*captions: str) -> Condition:
    return Condition(*WordEncoder()(list(captions)))


@torch.no_grad()
def test_text_and_style_are_three_branches_combined_by_guide_two(tta):
    captions, tokens = text("rain", "a dog barks"), tta.generator.model.style(CODES[:2], 4)
    branches, batch = tta.generator.branches(captions, CODES[:2], 2.0, 4, 5.0)
    both, style, nothing = branches.conditions
    assert batch == 2 and nothing.memory is None
    assert torch.equal(both.memory, join(captions, tokens).memory) and torch.equal(style.memory, tokens)
    logits = torch.randn(3, 2, 2, 16).unbind()
    assert torch.equal(branches.combine(*logits), guide_two(*logits, 2.0, 5.0))


def test_guidance_of_one_and_one_is_plain_conditioning_on_both(tta):
    captions = text("rain", "a dog barks")
    made = tta.generator.generate(captions, 8, 1.0, seed(), style=CODES[:2], codebooks=2, style_guidance=1.0)
    with torch.no_grad():
        both = join(captions, tta.generator.model.style(CODES[:2], 2))
    assert torch.equal(made, generate_codes(tta.lm, both.memory, both.memory_mask, 8, 1.0, generator=seed()))


@torch.no_grad()
def test_a_style_alone_is_guided_against_nothing(tta):
    tokens = tta.generator.model.style(CODES[:2], 3)
    branches, batch = tta.generator.branches(Condition(), CODES[:2], 2.5, 3, 5.0)
    assert batch == 2 and torch.equal(branches.conditions[0].memory, tokens)
    assert torch.equal(branches.combine(*CODES[:2].float()), guide(*CODES[:2].float(), 2.5))


def test_without_a_style_it_is_the_language_model_bit_for_bit(tta):
    made = tta.generate(["rain", "a dog barks"], 0.2, seed=3)
    assert torch.equal(made, TextToAudio(tta.codec, tta.encoder, tta.lm).generate(["rain", "a dog barks"], 0.2, seed=3))


@torch.no_grad()
def test_of_a_long_excerpt_two_seconds_are_read_and_one_serves_all_captions(tta):
    long = torch.randint(0, 16, (1, 2, 150), generator=seed(4))
    read = tta.generator.branches(text("rain", "wind"), long, 3.0, 3, 5.0)[0].conditions[1].memory
    assert read.shape == (2, 10, 8) and torch.equal(read[0], read[1])
    assert torch.equal(read[:1], tta.generator.model.style(long[..., :100], 3))


def test_a_waveform_becomes_codes_and_reaches_the_generator(tta, monkeypatch):
    wav, given = 0.1 * torch.randn(1, 1, 8000, generator=seed(2)), {}

    def generate(text, frames, guidance, generator, progress, **options):
        given.update(options, text=text)
        return generate_guided(tta.lm, *tta.generator.branches(text, options["style"], 1.0, 3, 1.0), frames)

    generate.__signature__ = __import__("inspect").signature(tta.generator.generate)
    monkeypatch.setattr(tta.generator, "generate", generate)
    sound = tta.generate(None, 0.5, style=wav, codebooks=2, style_guidance=4.0)
    assert sound.shape == (1, 1, 8000) and given["text"].memory is None
    assert torch.equal(given["style"], tta.codec.encode(wav))
    assert given["codebooks"] == 2 and given["style_guidance"] == 4.0


def test_the_folder_is_a_pipeline_that_names_the_style_generator(tta, tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.generate.load_text_encoder", lambda name, *how: WordEncoder())
    monkeypatch.setattr(WordEncoder, "save_pretrained", lambda self, folder: None, raising=False)
    tta.save_pretrained(tmp_path, torch.float32)
    assert json.loads((tmp_path / "pipeline.json").read_text())["generator"] == "style"
    again = TextToAudio.from_pretrained(tmp_path).generator
    first, second = (g.generate(text("rain"), 20, 3.0, seed(), style=CODES[:1]) for g in (again, tta.generator))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "captions, options, message",
    [
        ("rain", {"style": torch.zeros(1, 1, 8000)}, "style is silent"),
        ("rain", {"style": torch.ones(1, 1, 7000)}, "lasts 0.44 s. Give at least 0.5 s, and at most the clip's 1 s"),
        ("rain", {"style": torch.ones(1, 1, 17000)}, "style lasts 1.06 s"),
        ("rain", {"style": torch.ones(1, 8000)}, r"a waveform is \[B, 1, samples\]"),
        ("rain", {"style": torch.full((1, 1, 8000), torch.nan)}, "no numbers"),
        ("rain", {"style": [0.0] * 8000}, "style is a list"),
        ("rain", {"style": torch.ones(1, 1, 8000), "codebooks": 0}, "codebooks is 0"),
        ("rain", {"style": torch.ones(1, 1, 8000), "codebooks": 9}, "codebooks is 9"),
        ("rain", {"style": torch.ones(1, 1, 8000), "style_guidance": float("nan")}, "style guidance is nan"),
        (["rain", "wind", "a dog"], {"style": torch.ones(2, 1, 8000)}, "2 styles for 3 captions"),
        (None, {}, "captions are"),
        ([], {"style": torch.ones(1, 1, 8000)}, "captions are"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_style_is_one_clear_line(tta, captions, options, message):
    with pytest.raises(MinigenError, match=message):
        tta.generate(captions, 1.0, **options)


def test_a_generator_without_a_conditioner_refuses_a_style(tta):
    plain = TextToAudio(tta.codec, tta.encoder, tta.lm)
    with pytest.raises(MinigenError, match="language_model generator has no option 'style'"):
        plain.generate("rain", 1.0, style=torch.ones(1, 1, 8000))


def test_neither_text_nor_style_is_refused(tta):
    with pytest.raises(MinigenError, match="neither a caption nor a style"):
        tta.generator.generate(Condition(), 8)
