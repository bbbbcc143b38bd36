"""The report: one page that needs nothing else, holds what was measured, and says only what the numbers say."""

import base64
import io
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
import torch

from minigen.app.demo.report import page, write_report
from minigen.app.demo.sentences import (
    GUIDED,
    LIVE,
    LIVE_MISMATCHED,
    MISMATCHED,
    PLAIN,
    REGULARIZED,
    Example,
    Facts,
    Results,
    findings,
)
from minigen.display.players import flac
from minigen.evaluation.caption_effect import CaptionEffect
from minigen.evaluation.measure import CODEC, COLUMNS, NOISE, REAL, SHUFFLED, SILENCE, Measurement, cells

PLAYED = (REAL, CODEC, LIVE, PLAIN, GUIDED, REGULARIZED)
NAMES = (REAL, CODEC, NOISE, SILENCE, SHUFFLED, LIVE, PLAIN, GUIDED, REGULARIZED, MISMATCHED, LIVE_MISMATCHED)


def measurement(name, found=10, clips=20, clap=0.3, of=40):
    rng = np.random.default_rng(len(name))
    matches = tuple((clap + 0.05 * rng.standard_normal(clips)).tolist())
    events = np.array([1] * found + [0] * (of - found)).reshape(clips, -1)  # of / clips events in each clip
    counts = (of // clips,) * clips, tuple(events.sum(1).tolist())
    recall = found / of if of else math.nan
    return Measurement(name, clips, 3.25, 1.5, 0.01, 0.8, sum(matches) / clips, recall, 0.5, 0.4, matches, *counts)


def history(start, end):
    middle = [{"step": 5, "loss": (start + end) / 2, "valid": (start + end) / 2, "valid_no_text": end}]
    return [{"step": 0, "valid": start, "valid_no_text": start}, *middle,
            {"step": 10, "loss": end, "valid": end, "valid_no_text": end}]  # fmt: skip


def results(low=-0.04, high=-0.02):
    found = dict(zip(NAMES, (38, 32, 1, 0, 3, 6, 12, 24, 25, 3, 2), strict=True))
    sound = 0.3 * torch.sin(torch.arange(8000) / 10.0)[None]
    heard = {label: ["rain", "siren"] for label in PLAYED}
    captions = ("A dog barks & rain falls", '<b>Rain</b> on a "roof"')
    examples = [Example(text, ["dog_bark", "rain"], dict.fromkeys(PLAYED, sound), heard) for text in captions]
    sweep = {"mini-dropout": {1.0: measurement("a", 12), 3.0: measurement("b", 24, clap=0.4)}}
    times = (("corpus", 20.0), ("tokens", 40.0))
    facts = Facts(
        "the built-in corpus",
        960,
        120,
        4.0,
        3.0,
        10,
        2_500_000,
        7_900_000,
        1024,
        3.0,
        5.0,
        "the built-in tagger",
        128,
        "the built-in CLAP judge",
        0,
        times,
    )
    rows = [measurement(name, count) for name, count in found.items()]
    return Results(facts, examples, history(6.9, 4.0), CaptionEffect(4.0, 4.03, -0.03, low, high, 120), rows, sweep)


@pytest.fixture(scope="module")
def html():
    return page(results())


class Reader(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "source", "path", "rect", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.text += data if not {"script", "style"} & {*self.open} else ""


def test_the_page_refers_to_nothing_outside_itself(html):
    assert not re.search(r"https?:|//\w+\.|@import|url\((?!#)", re.sub(r"base64,[\w+/=]+", "", html))
    for tag, attributes in Reader(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "a")
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    inside = [base64.b64decode(x).decode() for x in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", html)]
    assert len(inside) == 5 and not any(re.search(r'(href|src)="(?!#|data:)', svg) for svg in inside)


def test_every_tag_is_closed_and_no_placeholder_is_left(html):
    assert Reader(html).open == [] and "{{" not in html and "{%" not in html


def test_each_caption_has_a_player_and_a_picture_for_each_model_that_can_be_told_apart(html):
    tags = Reader(html).tags
    players = [attributes for tag, attributes in tags if tag == "audio"]
    pictures = [attributes for tag, attributes in tags if tag == "img"]
    assert len(players) == 12 and len(pictures) == 12 + 3  # the chain, the losses and the sweep
    assert len({player["aria-label"] for player in players}) == 12
    assert all(picture["alt"].strip() for picture in pictures)
    assert all("controls" in player and player["src"].startswith("data:audio/flac") for player in players)


def test_a_player_plays_what_was_given(html):
    encoded = re.search(r"data:audio/flac;base64,([\w+/=]+)", html)[1]
    wav, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)))
    assert rate == 16000
    np.testing.assert_allclose(wav, results().examples[0].sounds[REAL][0], atol=1 / 32768)


def test_sounds_beyond_full_scale_are_clipped_and_not_wrapped():
    wav, _ = soundfile.read(io.BytesIO(flac(torch.tensor([[2.0, -2.0, 0.0]]))))
    np.testing.assert_allclose(wav, [1, -1, 0], atol=1e-4)


def test_captions_are_shown_as_they_are_and_cannot_break_the_page(html):
    assert "<b>" not in html and "A dog barks &amp; rain falls" in html
    assert '<b>Rain</b> on a "roof"' in Reader(html).text


def test_the_table_is_there_cell_by_cell_with_a_line_on_each_column(html):
    text = unescape(html)
    for name, *values in cells(results().rows):
        line = re.search(rf'<th scope="row">{re.escape(name)}</th>(.*?)</tr>', text)[1]
        assert re.findall("<td>(.*?)</td>", line) == values
    assert re.findall('<th scope="row">(.*?)</th>', text) == list(NAMES)
    assert all(f"<dd>{column.reading}</dd>" in unescape(html) for column in COLUMNS)


def test_sample_sizes_and_embedders_are_named(html):
    text = Reader(html).text
    for said in ("20 held-out clips", "120 real", "128 numbers", "the built-in tagger", "Guidance: scale 3", "Seed 0"):
        assert said in text


def test_the_page_fits_a_phone(html):
    assert 'content="width=device-width, initial-scale=1"' in html
    assert ".box { overflow-x: auto;" in html and "prefers-color-scheme: dark" in html


def test_what_is_heard_is_marked_as_asked_for_or_not(html):
    assert "✓\u00a0rain" in html and "+\u00a0siren" in html and "✓\u00a0siren" not in html


def test_the_findings_say_what_the_numbers_say():
    texts = " ".join(findings(results()))
    assert "from 6.90 to 4.00 nats" in texts and "difference of -0.030 (95% interval -0.040 to -0.020)" in texts
    assert "120 held-out clips cost 4.000 nats per code with their own captions, 4.030 with captions of other" in texts
    assert "the model uses the captions" in texts and "detects 15% of the events" in texts and "and 5% if" in texts
    assert "detects 95% in the real clips, 80% after the codec, and 62%" in texts
    assert "78% of the codec's value" in texts
    assert "raises recall by 30 points" in texts and "it excludes 0" in texts
    assert "raises recall by 3 points (95% interval +0 to +8; it includes 0" in texts
    assert "20 clips with 120 others in 128 dimensions. Real" in texts
    assert "FAD is fitted to 20 clips in 128 dimensions, and needs more clips" in texts and "20 clips are few" in texts


def test_the_findings_own_up_when_the_text_has_not_helped():
    text = findings(results(high=0.01))[0]
    assert "interval includes 0" in text and "does not show that the model uses the captions" in text


def test_two_models_that_find_the_same_events_are_not_told_apart():
    made = results()
    rows = [replace(row, found=made.rows[0].found) if row.name in (PLAIN, GUIDED) else row for row in made.rows]
    assert (
        "Guidance, on the same captions with the same noise, does not change recall"
        in findings(replace(made, rows=rows))[3]
    )


def test_without_known_events_the_findings_say_so_and_compare_by_clap_alone():
    made = results()
    made = replace(made, rows=[measurement(name, 0, of=0) for name in NAMES])
    texts = " ".join(findings(made))
    assert (
        "true events of these clips are not known" in texts and "the CLAP score" in texts and "recall by" not in texts
    )
    assert "n/a" in page(made)


def test_the_file_is_written_whole(tmp_path, html):
    path = write_report(tmp_path / "a" / "report.html", results())
    assert path.read_text("utf-8")[:15] == "<!doctype html>" and len(path.read_text("utf-8")) == len(html)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
