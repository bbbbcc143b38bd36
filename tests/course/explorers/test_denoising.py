"""The denoising explorer: the recorder changes nothing, pictures are the latents' spectra, controls show and play."""

import re

import pytest
import torch
from latents import seed

from minigen.codec import load_codec
from minigen.course.explorers.denoising import (
    DenoisingExplorer,
    Moment,
    Recorder,
    describe,
    filmstrip,
    log_spectrum,
    some_steps,
)
from minigen.engine.errors import MinigenError
from minigen.generators.iterate import iterate
from minigen.generators.latent_diffusion import LatentConfig, LatentDenoiser, LatentSampler


@pytest.fixture(scope="module")
def codec():
    return load_codec("mini")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = LatentDenoiser(LatentConfig(width=12, layers=1, heads=2, ffn=12))
    torch.nn.init.normal_(model.output.weight, std=0.2)
    return model


def made(model, sampler, steps=4):
    return iterate(model, sampler, torch.full((2, 10, 64), torch.nan), steps=steps, generator=seed()).state


@pytest.fixture(scope="module")
def runs(model):
    found = {}
    for name, steps in (("short", 4), ("long", 8)):
        recorder = Recorder(LatentSampler())
        found[name] = recorder.finish(made(model, recorder, steps))
    return found


def test_recording_changes_nothing(model, runs):
    plain = made(model, LatentSampler())
    assert torch.equal(runs["short"][-1].state, plain[:1])
    assert [moment.t for moment in runs["short"]] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert torch.equal(runs["short"][0].state, torch.randn(2, 10, 64, generator=seed())[:1])


def test_the_last_prediction_is_the_clip(runs):
    *_, before, last = runs["long"]
    torch.testing.assert_close(before.x0, last.state, atol=1e-5, rtol=0)
    assert torch.equal(last.state, last.x0)


def test_the_picture_of_all_latents_is_the_spectrum_of_the_sound(codec):
    wav = 0.2 * torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16000)[None, None]
    picture = log_spectrum(codec, codec.latents(wav).detach())
    assert picture.shape == (513, 25)
    assert (picture[:, 5:20].argmax(0) - 64).abs().max() <= 1  # bins of 16 Hz
    true = 20 * (codec.features(wav)[0, :, :513] / codec.features.weight).T
    assert (picture - true)[:200, 5:20].abs().mean() < 6


def test_the_filmstrip_has_a_panel_for_each_picture(codec):
    figure = filmstrip({str(n): torch.zeros(513, 10) for n in range(7)}, codec, columns=4)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown[:7]] == [str(n) for n in range(7)] and len(figure.axes) == 8


def test_the_sentence_and_the_chosen_steps(runs):
    assert describe(runs["short"], 0).startswith("step 0 of 4: t = 1.00, deviation of the state ")
    assert some_steps(runs["long"], 3) == [0, 4, 8] and some_steps(runs["short"]) == [0, 1, 2, 3, 4]


def test_every_control_changes_picture_sentence_and_sounds(runs, model, codec):
    explorer = DenoisingExplorer(runs, model, codec)

    def shown():
        return (bytes(explorer.image.value), explorer.said.value, *(sound.value for sound in explorer.sounds))

    seen = [shown()]
    for control, value in ((explorer.step, 1), (explorer.run, "long")):
        control.value = value
        seen.append(shown())
    for column in zip(*seen, strict=True):
        assert len(set(column)) == 3
    assert seen[0][0].startswith(b"\x89PNG") and all(re.search("data:audio/flac", row[2]) for row in seen)


def test_a_run_with_fewer_steps_moves_the_slider_back(runs, model, codec):
    explorer = DenoisingExplorer({"long": runs["long"], "short": runs["short"]}, model, codec)
    explorer.step.value = 8
    explorer.run.value = "short"
    assert explorer.step.max == explorer.step.value == 4 and explorer.said.value.startswith("step 4 of 4")


@pytest.mark.parametrize("runs", [{}, {"one": [Moment(1.0, torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))]}])
def test_nothing_to_show_is_refused(runs, model, codec):
    with pytest.raises(MinigenError, match="nothing to show"):
        DenoisingExplorer(runs, model, codec)
