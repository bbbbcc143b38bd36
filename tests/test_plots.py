"""Figures: axes with labels and units, and what is drawn is what was given."""

import math
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from minigen import plots
from minigen.audio import log_mel


def tone(hz=1000.0, seconds=0.5, rate=16000):
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate)) / rate)


def point(recall, clap=0.3, diversity=0.5):
    intervals = dict(recall_interval=(recall - 0.1, recall + 0.2), clap_interval=(clap - 0.1, clap + 0.1))
    return SimpleNamespace(recall=recall, clap=clap, diversity=diversity, **intervals)


SWEEP = {"plain": {1.0: point(0.3), 3.0: point(0.6)}, "regularized": {1.0: point(0.35), 3.0: point(0.7)}}
FIGURES = {
    "waveform": lambda: plots.waveform(tone()),
    "spectrogram": lambda: plots.spectrogram(tone()[None, None]),
    "loss_curves": lambda: plots.loss_curves({"train": ([1, 2], [3.0, 2.0])}),
    "guidance_sweep": lambda: plots.guidance_sweep(SWEEP),
    "similarity_matrices": lambda: plots.similarity_matrices(torch.eye(3), torch.ones(3, 3)),
    "codes_heatmap": lambda: plots.codes_heatmap(torch.randint(1024, (4, 50))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_drawn_and_its_axes_are_labelled(name):
    figure = FIGURES[name]()
    for axes in figure.axes:
        assert axes.get_ylabel(), "an axis without a name"
    assert figure.axes[-1].get_xlabel() or figure.axes[0].get_xlabel()
    figure.savefig(file := BytesIO(), format="png", dpi=20)
    assert file.getvalue().startswith(b"\x89PNG")


def test_time_is_in_seconds_and_frequency_in_hz():
    axes = plots.spectrogram(tone(), title="a tone").axes[0]
    assert axes.get_xlabel() == "time (s)" and axes.get_ylabel() == "frequency (Hz)" and axes.get_title() == "a tone"
    assert axes.get_xlim() == (0, 0.5) and axes.get_yticklabels()[-1].get_text() == "8000"
    assert plots.waveform(tone()).axes[0].get_xlim() == (0, 0.5)


@pytest.mark.parametrize("hz", [500.0, 2000.0, 5000.0])
def test_a_tone_is_brightest_at_its_own_frequency_on_the_axis(hz):
    axes = plots.spectrogram(tone(hz)).axes[0]
    picture = axes.images[0].get_array()
    height = (picture.mean(axis=1).argmax() + 0.5) / len(picture) * axes.get_ylim()[1]
    assert abs(height - plots.mel(hz)) < 1.5 * axes.get_ylim()[1] / len(picture)


def test_levels_are_decibels_of_the_library_s_own_mel_spectrogram():
    np.testing.assert_allclose(plots.mel_db(tone()), 10 * log_mel(tone().view(1, 1, -1), bands=80)[0], rtol=1e-6)


def test_the_small_picture_has_a_pixel_a_band_and_frame_low_bands_at_the_bottom():
    picture = imread(BytesIO(plots.spectrogram_png(tone(200.0))), format="png")
    assert picture.shape[:2] == (80, 26)
    assert picture[40:].mean() > picture[:40].mean()  # rows run from top to bottom


def test_losses_that_were_not_measured_are_left_out():
    axes = plots.loss_curves({"train": ([0, 1, 2], [math.nan, 3.0, 2.0]), "valid": ([0], [math.nan])}).axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [2, 2]] and len(axes.lines[1].get_xydata()) == 0
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "valid"]
    assert "nats" in axes.get_ylabel()


def test_the_sweep_has_a_line_a_model_and_drops_a_panel_without_numbers():
    figure = plots.guidance_sweep(SWEEP)
    assert len(figure.axes) == 3 and len(figure.axes[0].containers) == 2
    assert figure.axes[0].containers[0].lines[0].get_ydata().tolist() == [0.3, 0.6]
    unknown = {"plain": {1.0: point(math.nan), 3.0: point(math.nan)}}
    assert len(plots.guidance_sweep(unknown).axes) == 2


def test_error_bars_span_the_interval():
    bars = plots.guidance_sweep(SWEEP).axes[0].containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.2, 0.5], [0.5, 0.8]])


def test_the_third_matrix_is_the_regularizer_s_loss():
    from minigen.regularizer import pool, similarity_loss, similarity_matrix

    text, audio = torch.randn(4, 5, 6), torch.randn(4, 7, 8)
    matrices = [similarity_matrix(pool(states, None, "max")) for states in (text, audio)]
    shown = plots.similarity_matrices(*matrices).axes[2].images[0].get_array()
    assert shown.sum() / (4 * 3) == pytest.approx(similarity_loss(text, audio).item(), rel=1e-5)


def test_special_tokens_stay_white_in_the_heat_map():
    shown = plots.codes_heatmap(torch.tensor([[0, 5], [1024, 7]])).axes[0].images[0].get_array()
    assert shown.mask.tolist() == [[False, False], [True, False]]


def test_svg_has_no_background_and_can_be_inked():
    text = plots.svg(plots.loss_curves({"train": ([1, 2], [3.0, 2.0])}), ink="#abcdef")
    assert text.lstrip().startswith("<?xml") and "#abcdef" in text and "fill: #ffffff" not in text
