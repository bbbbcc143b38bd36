"""Bandwidth extension: the low bands are kept, the high ones come from the model, and nothing else is needed."""

import pytest
import torch
from latents import seed
from standins import WordEncoder, tiny_codec, tiny_lm

from minigen.codec import Codec, load_codec
from minigen.engine.errors import MinigenError
from minigen.generate import TextToAudio
from minigen.generators.bandwidth import REST, below, extend_bandwidth, low_bands
from minigen.generators.latent_diffusion import LatentConfig, LatentDenoiser, LatentDiffusionGenerator


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("mini")


@pytest.fixture(scope="module")
def model(codec) -> LatentDenoiser:
    torch.manual_seed(0)
    model = LatentDenoiser(LatentConfig(width=12, layers=1, heads=2, ffn=12))
    with torch.no_grad():
        model.measure(codec.latents(sounds(24)).numpy())
    return model


def sounds(rows: int = 2) -> torch.Tensor:
    """Noise with a slope, and tones on it: [rows, 1, 8000]."""
    white = torch.randn(rows, 8000, generator=seed())
    spectrum = torch.fft.rfft(white) / (1 + torch.linspace(0, 30, 4001))
    time = torch.arange(8000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * (300 + 400 * row) * time) for row in range(rows)])
    return (0.1 * torch.fft.irfft(spectrum) + 0.1 * tones)[:, None]


def muffled(wav: torch.Tensor, cutoff: float = 2000.0) -> torch.Tensor:
    spectrum, hertz = torch.fft.rfft(wav), torch.fft.rfftfreq(wav.shape[-1], 1 / 16000)
    return torch.fft.irfft(torch.where(hertz < cutoff, spectrum, 0), n=wav.shape[-1])


def test_the_low_features_are_those_that_a_muffled_clip_keeps(codec):
    wav = sounds()
    kept = (codec.features(wav) - codec.features(muffled(wav))).abs().amax((0, 1)) < 0.15
    low = below(codec, 1500.0)
    assert kept[low].all() and 100 < low.sum() < 150 and not kept[~below(codec, 2500.0)].any()


@torch.no_grad()
def test_a_step_of_the_constraint_by_the_formula(codec, model):
    """x_0 + Aᵀ (A Aᵀ + r)⁻¹ (y - A x_0), where A x_0 are the low bands of the decoded components, f = Wᵀ (z - b)."""
    wav, x0 = muffled(sounds()), torch.randn(2, 25, 64, generator=seed(1))
    low, weight = below(codec, 0.85 * 2000), codec.encoder.weight
    decoded = (model.to_latents(x0) - codec.encoder.bias) @ weight[:, low]  # [B, T, L]
    missing = codec.features(wav)[..., low] - decoded
    a = weight[:64, low].T * model.scale
    gain = a.T @ torch.linalg.inv(a @ a.T + REST * torch.eye(len(a)))  # [C, L]
    found = low_bands(codec, model, wav, 2000.0)(x0)
    torch.testing.assert_close(found, x0 + missing @ gain.T, atol=1e-3, rtol=0)


@torch.no_grad()
def test_the_constraint_brings_any_clip_near_the_low_bands_and_leaves_the_true_one_alone(codec, model):
    wav = sounds()
    constrain, low = low_bands(codec, model, muffled(wav), 2000.0), below(codec, 1500.0)
    truth = model.to_state(codec.latents(wav))

    def distance(x0):
        decoded = (model.to_latents(x0) - codec.encoder.bias) @ codec.encoder.weight
        return (decoded - codec.features(wav))[..., low].abs().mean()

    other = truth.flip(0)
    assert distance(constrain(other)) < 1.1 * distance(truth) < 0.6 * distance(other)
    assert (constrain(truth) - truth).square().mean() < 0.25 * (constrain(other) - other).square().mean()


def test_a_clip_is_extended_to_its_own_length_and_depends_on_seed_and_caption(codec, model):
    tta = TextToAudio(codec, WideEncoder(), LatentDiffusionGenerator(model))
    wav = muffled(sounds())

    def extend(number=0, caption=None, **options):
        return extend_bandwidth(tta, wav, caption, seed=number, steps=3, **options)

    first = extend()
    assert first.shape == wav.shape and torch.equal(first, extend()) and not torch.equal(first, extend(1))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=seed())
    assert not torch.equal(extend(caption="rain"), extend(caption=["a dog", "a bell"]))
    assert torch.equal(extend(guidance=1.0), extend(guidance=0.0))  # without a caption there is nothing to follow


class WideEncoder(WordEncoder):
    """The stand-in encoder, as wide as the shipped one."""

    width = 256

    def __call__(self, captions):
        states, mask = super().__call__(captions)
        return states.repeat(1, 1, 32), mask


@pytest.mark.parametrize("given, message", [
    ({"cutoff": 100.0}, "cutoff is 100"),
    ({"cutoff": 9000.0}, "cutoff is 9000"),
    ({"caption": ["rain"]}, "1 captions for 2 clips"),
    ({"steps": 1}, "steps is 1"),
    ({"seed": 0.5}, "seed is 0.5"),
])  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(codec, model, given, message):
    tta = TextToAudio(codec, WideEncoder(), LatentDiffusionGenerator(model))
    with pytest.raises(MinigenError, match=message):
        extend_bandwidth(tta, sounds(), **given)


def test_an_empty_caption_reaches_the_encoder_which_refuses_it(codec, model):
    class Strict(WideEncoder):
        def __call__(self, captions):
            raise MinigenError(f"captions are {captions}")

    tta = TextToAudio(codec, Strict(), LatentDiffusionGenerator(model))
    with pytest.raises(MinigenError, match=r"captions are \['', ''\]"):
        extend_bandwidth(tta, sounds(), "")


def test_other_generators_are_refused():
    tta = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))
    with pytest.raises(MinigenError, match="the language_model generator cannot extend a clip"):
        extend_bandwidth(tta, sounds())
