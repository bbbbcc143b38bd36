"""Figures: axes with labels and units, and what is drawn is what was given."""

import math
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from minigen.audio import log_mel
from minigen.corpus import Event
from minigen.display import plots


def tone(hz=1000.0, seconds=0.5, rate=16000):
    return 0.5 * torch.sin(2 * torch.pi * hz * torch.arange(round(seconds * rate)) / rate)


def point(recall, clap=0.3, diversity=0.5):
    intervals = dict(recall_interval=(recall - 0.1, recall + 0.2), clap_interval=(clap - 0.1, clap + 0.1))
    return SimpleNamespace(recall=recall, clap=clap, diversity=diversity, **intervals)


SWEEP = {"plain": {1.0: point(0.3), 3.0: point(0.6)}, "regularized": {1.0: point(0.35), 3.0: point(0.7)}}
COSTS = {"masked": [(4, 0.5, 0.2, 0.1, 0.4), (8, 1.0, 0.3, 0.2, 0.4)], "language model": [(406, 0.8, 0.5, 0.4, 0.6)]}
FIGURES = {
    "waveform": lambda: plots.waveform(tone()),
    "spectrogram": lambda: plots.spectrogram(tone()[None, None]),
    "loss_curves": lambda: plots.loss_curves({"train": ([1, 2], [3.0, 2.0])}),
    "guidance_sweep": lambda: plots.guidance_sweep(SWEEP),
    "quality_over_cost": lambda: plots.quality_over_cost({"recall": COSTS, "CLAP": COSTS}),
    "similarity_matrices": lambda: plots.similarity_matrices(torch.eye(3), torch.ones(3, 3)),
    "codes_heatmap": lambda: plots.codes_heatmap(torch.randint(1024, (4, 50))),
    "point_clouds": lambda: plots.point_clouds({"real": np.eye(4, 2), "made": np.ones((3, 2))}, "one", "two"),
    "matrices": lambda: plots.matrices({"a": torch.eye(3), "b": 2 * torch.ones(3, 2)}, "word", "step", "weight"),
    "lines": lambda: plots.lines({"a": (range(30), range(30))}, "time (s)", "level (dB)", {"b": ([1], [2])}),
    "spectrograms": lambda: plots.spectrograms({"one": tone(), "two": tone(500.0), "three": tone(2000.0)}),
    "probability_bars": lambda: plots.probability_bars({"flat": torch.ones(4) / 4, "sure": torch.eye(4)[0]}),
    "window_lengths": lambda: plots.window_lengths(tone(), (256, 1024)),
    "event_lanes": lambda: plots.event_lanes([Event("dog_bark", 2, 0.5, 1.0)], 2.0),
    "codebook_map": lambda: plots.codebook_map(torch.randn(9, 2), {"one": torch.zeros(1, 2), "two": torch.randn(2, 2)}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_drawn_and_its_axes_are_labelled(name):
    figure = FIGURES[name]()
    for axes in figure.axes:
        assert axes.get_ylabel(), "an axis without a name"
    assert figure.axes[-1].get_xlabel() or figure.axes[0].get_xlabel()
    figure.savefig(file := BytesIO(), format="png", dpi=20)
    assert file.getvalue().startswith(b"\x89PNG")


def test_quality_stands_over_evaluations_and_over_seconds_with_its_interval():
    over_evaluations, over_seconds = plots.quality_over_cost({"recall": COSTS}).axes
    for axes, x in ((over_evaluations, [4, 8]), (over_seconds, [0.5, 1.0])):
        line, _, (bars,) = axes.containers[0].lines
        assert list(line.get_xdata()) == x and list(line.get_ydata()) == [0.2, 0.3] and axes.get_xscale() == "log"
        assert np.allclose([segment[:, 1] for segment in bars.get_segments()], [[0.1, 0.4], [0.2, 0.4]])


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


def test_neighbouring_entries_have_different_colours():
    image = plots.codes_heatmap(torch.arange(8)[None]).axes[0].images[0]
    colours = image.to_rgba(image.get_array())[0, :, :3]
    assert abs(colours[1:] - colours[:-1]).max(1).min() > 0.1


def test_an_axis_of_whole_numbers_has_whole_ticks():
    axes = plots.lines({"a": (range(1, 5), [3.0, 2.0, 1.5, 1.4])}, "codebooks", "error").axes[0]
    assert all(tick == round(tick) for tick in axes.get_xticks())


def test_svg_has_no_background_and_can_be_inked():
    text = plots.svg(plots.loss_curves({"train": ([1, 2], [3.0, 2.0])}), ink="#abcdef")
    assert text.lstrip().startswith("<?xml") and "#abcdef" in text and "fill: #ffffff" not in text


def test_only_curves_of_few_points_are_marked_and_dots_have_no_line():
    axes = plots.lines({"a": (range(30), range(30)), "b": ([0, 1], [1, 0])}, "x", "y", {"c": ([2], [3])}).axes[0]
    assert [line.get_marker() for line in axes.lines] == ["", "s", "o"]
    assert axes.lines[2].get_linestyle() == "None" and axes.lines[2].get_xydata().tolist() == [[2, 3]]


@pytest.mark.parametrize("length", [256, 4096])
def test_a_tone_lies_at_its_frequency_whatever_the_window(length):
    axes = plots.window_lengths(tone(1000.0, seconds=1.0), (length,)).axes[0]
    image = axes.images[0]
    bottom, top = image.get_extent()[2:]
    rows = image.get_array()
    height = bottom + (rows.mean(axis=1).argmax() + 0.5) / len(rows) * (top - bottom)
    assert abs(height - 1000) <= 16000 / length / 2
    assert axes.get_ylim() == (0, 2000)


def test_an_event_s_bar_spans_its_time():
    axes = plots.event_lanes([Event("rain", 1, 0.0, 2.0), Event("dog_bark", 2, 0.5, 1.25)], 2.0).axes[0]
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0.0, 2.0), (0.5, 0.75)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rain", "dog bark"]
    assert [text.get_text().strip() for text in axes.texts] == ["2 times"]


def test_entries_that_nobody_chose_are_crosses():
    entries = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    axes = plots.codebook_map(torch.randn(20, 2), {"toy": entries}).axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 0]], [[9, 9]]]
    assert [line.get_marker() for line in axes.lines] == ["o", "x"]


def test_several_spectrograms_share_their_colours_and_hold_each_sound():
    figure = plots.spectrograms({"one": tone(), "two": tone(500.0), "three": tone(2000.0)}, columns=2)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["one", "two", "three"] and len(figure.axes) == 4
    for axes, hz in zip(figure.axes, (1000.0, 500.0, 2000.0), strict=False):
        np.testing.assert_allclose(axes.images[0].get_array(), plots.mel_db(tone(hz)), rtol=1e-6)
        assert axes.images[0].get_clim() == (plots.QUIET_DB, plots.LOUD_DB)


def test_bars_are_as_high_as_the_probabilities_on_one_scale():
    figure = plots.probability_bars({"flat": torch.ones(4) / 4, "sure": torch.eye(4)[0]}, columns=2)
    assert [[bar.get_height() for bar in axes.patches] for axes in figure.axes] == [[0.25] * 4, [1, 0, 0, 0]]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_matrices_show_the_first_row_on_top_and_share_one_scale():
    figure = plots.matrices({"a": torch.eye(3), "b": 2 * torch.ones(3, 2)}, "word", "step", "weight")
    images = [axes.images[0] for axes in figure.axes[:2]]
    assert [image.get_clim() for image in images] == [(0, 2), (0, 2)]
    assert images[0].origin == "upper" and images[1].get_array().shape == (3, 2)


def test_intervals_are_drawn_where_they_lie_and_what_is_unknown_is_left_out():
    rows = {"one": (0.5, 0.4, 0.7), "unknown": (math.nan,) * 3, "two": (0.2, 0.1, 0.3)}
    axes = plots.intervals(rows, "share", mark=0.5).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two"] and axes.get_xlabel() == "share"
    assert [line.get_xdata().tolist() for line in axes.lines[:3:2]] == [[0.4, 0.7], [0.1, 0.3]]
    assert axes.lines[-1].get_xdata() == [0.5, 0.5] and axes.get_ylim()[0] > axes.get_ylim()[1]


def test_the_ellipse_of_a_cloud_lies_two_deviations_from_its_mean():
    points = np.random.default_rng(0).normal((3, -1), (2, 0.5), size=(20000, 2))
    axes = plots.point_clouds({"real": points}, "x", "y").axes[0]
    ellipse, mean = (np.array(line.get_xydata()) for line in axes.lines[1:3])
    assert mean[0] == pytest.approx((3, -1), abs=0.05)
    assert np.ptp(ellipse, axis=0) == pytest.approx((8, 2), rel=0.03)


def test_matrices_can_be_given_their_colour_scale():
    image = plots.matrices({"a": torch.eye(3)}, "x", "y", "z", limits=(-1, 1)).axes[0].images[0]
    assert image.get_clim() == (-1, 1)
