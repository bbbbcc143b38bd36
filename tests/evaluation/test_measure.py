"""Evaluation: what the rows of the table mean, that they are the metrics' own values, and that the controls behave."""

import csv
import math

import numpy as np
import pytest
import torch
from standins import KINDS, BandJudge, BandTagger, WordEncoder, tiny_codec, tiny_lm

from minigen import metrics
from minigen.corpus.clip import Clip, Event
from minigen.engine.errors import MinigenError
from minigen.evaluation import measure
from minigen.evaluation.bootstrap import Ratio, interval
from minigen.evaluation.measure import CODEC, CONTROLS, NOISE, REAL, SHUFFLED, SILENCE, Measurement, Yardstick
from minigen.generate import TextToAudio

CENTRES = {
    "dog_bark": 250.0,
    "rain": 1000.0,
    "siren": 2400.0,
    "engine": 5200.0,
}  # Hz that the stand-in tagger listens at


def tones(*events, seconds=1.0, level=0.3):
    """A clip's sound [1, 1, samples]: a tone at each kind's own pitch, from onset to offset, over a faint hiss."""
    t = torch.arange(round(seconds * 16000)) / 16000
    wav = 1e-4 * torch.randn(len(t))
    for kind, onset, offset in events:
        wav += level * torch.sin(2 * torch.pi * CENTRES[kind] * t) * ((t >= onset) & (t < offset))
    return wav.view(1, 1, -1)


def clip(caption, *events):
    return Clip("0", "", 0.0, caption, "x.wav", tuple(Event(kind, 1, on, off) for kind, on, off in events))


SCENES = (
    ("A dog barks", (("dog_bark", 0.0, 0.5),)),
    ("Rain falls", (("rain", 0.0, 1.0),)),
    ("A siren wails", (("siren", 0.2, 0.9),)),
    ("A dog barks followed by a siren", (("dog_bark", 0.0, 0.4), ("siren", 0.6, 1.0))),
    ("An engine runs while rain falls", (("engine", 0.0, 1.0), ("rain", 0.0, 1.0))),
    ("A siren followed by an engine", (("siren", 0.0, 0.5), ("engine", 0.5, 1.0))),
)


@pytest.fixture
def scenes():
    clips = [clip(caption, *events) for caption, events in SCENES]
    return clips, torch.cat([tones(*events) for _, events in SCENES])


@pytest.fixture
def yardstick():
    return Yardstick(BandJudge(), BandTagger(), [tones(*events, level=0.2) for _, events in SCENES])


def test_every_value_of_a_row_is_the_metrics_own(scenes, yardstick):
    clips, real = scenes
    wavs = real.roll(1, 0) + 0.01 * torch.randn(real.shape)
    row = yardstick.measure("model", wavs, clips, real)
    tagger, judge = BandTagger(), BandJudge()
    features, probs, audio = tagger.embed(wavs), tagger.probabilities(wavs), judge.embed_audio(wavs)
    true = torch.tensor([[kind in [e.kind for e in c.events] for kind in KINDS] for c in clips])
    assert (row.name, row.clips) == ("model", 6)
    assert row.fad == metrics.frechet_distance(yardstick.reference, features)
    assert row.fad_infinity == metrics.frechet_infinity(yardstick.reference, features)
    assert row.kernel == metrics.kernel_distance(yardstick.reference, features)
    assert row.kl == metrics.kl_divergence(tagger.probabilities(real), probs)
    assert row.clap == metrics.clap_score(audio, judge.embed_text([c.caption for c in clips]))
    assert row.recall == metrics.event_recall(probs, true, 0.5)
    assert row.diversity == metrics.diversity(audio)
    lines = tagger.timeline(wavs)
    assert row.order == metrics.order_accuracy(lines[[3, 5], [0, 2]], lines[[3, 5], [2, 3]])


def test_recall_and_clap_are_the_means_of_what_their_intervals_are_drawn_from(scenes, yardstick):
    clips, real = scenes
    row = yardstick.measure("model", real.roll(1, 0), clips, real)
    assert row.asked == (1, 1, 1, 2, 2, 2) and len(row.found) == len(row.matches) == 6
    assert row.recall == pytest.approx(sum(row.found) / 9) and row.clap == pytest.approx(sum(row.matches) / 6)
    assert row.recall_interval == interval(Ratio(np.array([row.found]), np.array([row.asked])))
    assert row.clap_interval[0] <= row.clap <= row.clap_interval[1]


def test_the_controls_come_in_order_and_mark_the_ends_of_the_scale(scenes, yardstick):
    clips, real = scenes
    rows = measure.controls(yardstick, clips, real, tiny_codec())
    assert tuple(row.name for row in rows) == CONTROLS == (REAL, CODEC, NOISE, SILENCE, SHUFFLED)
    by_name = {row.name: row for row in rows}
    assert by_name[REAL].recall == 1 and by_name[REAL].order == 1 and by_name[REAL].kl == 0
    assert by_name[SILENCE].recall == 0 and by_name[SILENCE].diversity == pytest.approx(0, abs=1e-6)
    assert by_name[SHUFFLED].recall < 1 and by_name[SHUFFLED].clap < by_name[REAL].clap
    assert by_name[SHUFFLED].fad == pytest.approx(by_name[REAL].fad)  # the same set of sounds, which FAD cannot tell
    assert by_name[REAL].fad < min(by_name[NOISE].fad, by_name[SILENCE].fad)


def test_shuffling_leaves_no_clip_beside_its_own_caption(scenes):
    real = torch.arange(7.0).view(7, 1, 1).repeat(1, 1, 320)
    for seed in range(20):
        shuffled = measure.control_sounds(real, tiny_codec(), seed)[SHUFFLED]
        assert (shuffled != real).all() and set(shuffled[:, 0, 0].tolist()) == set(range(7))


def test_noise_is_as_loud_as_the_real_clip_and_silence_is_silent(scenes):
    sounds = measure.control_sounds(scenes[1], tiny_codec())
    loudness = sounds[NOISE].square().mean((1, 2)).sqrt() / scenes[1].square().mean((1, 2)).sqrt()
    assert ((loudness - 1).abs() < 0.05).all() and not sounds[SILENCE].any()


def test_events_one_after_the_other_are_found_and_overlapping_ones_are_not():
    assert measure.followed_by(clip("", ("rain", 0, 4), ("dog_bark", 0, 1), ("siren", 1, 2)), KINDS) == (
        "dog_bark",
        "siren",
    )
    assert measure.followed_by(clip("", ("rain", 0, 4), ("dog_bark", 1, 2)), KINDS) is None
    assert measure.followed_by(clip("", ("siren", 0, 1), ("siren", 2, 3)), KINDS) is None
    assert measure.followed_by(clip("", ("church_bell", 0, 1), ("siren", 2, 3)), KINDS) is None  # unknown to the tagger


def test_played_backwards_the_order_is_wrong(scenes, yardstick):
    clips, real = scenes
    assert yardstick.measure("backwards", real.flip(-1), clips, real).order == 0


def test_without_known_events_recall_and_order_do_not_apply_and_the_rest_does(scenes, yardstick):
    clips, real = [clip(c.caption) for c in scenes[0]], scenes[1]
    row = yardstick.measure("real", real, clips, real)
    assert math.isnan(row.recall) and math.isnan(row.order) and math.isnan(row.recall_interval[0])
    assert math.isfinite(row.fad) and math.isfinite(row.clap)
    assert "n/a" in measure.table([row])


def test_a_tagger_without_a_timeline_measures_all_but_the_order(scenes):
    class Untimed(BandTagger):
        timeline = property()  # hasattr is False

        def probabilities(self, wav, sample_rate=16000):
            return BandTagger().probabilities(wav)

    row = Yardstick(BandJudge(), Untimed(), list(scenes[1].split(1))).measure("x", scenes[1], *scenes)
    assert math.isnan(row.order) and row.recall == 1


def test_two_clips_are_enough_for_all_but_the_extrapolation(scenes, yardstick):
    clips, real = scenes
    row = yardstick.measure("two", real[:2], clips[:2], real[:2])
    assert math.isnan(row.fad_infinity) and math.isfinite(row.fad) and math.isfinite(row.kernel)
    one = yardstick.measure("one", real[:1], clips[:1], real[:1])
    assert math.isnan(one.fad) and math.isnan(one.diversity) and one.recall == 1


@pytest.mark.parametrize("probability, recall", [(0.49, 0), (0.5, 1), (0.7, 1)])
def test_an_event_counts_as_heard_from_a_half_on(scenes, probability, recall):
    class Unsure(BandTagger):
        def probabilities(self, wav, sample_rate=16000):
            return torch.full((len(wav), len(KINDS)), probability, dtype=torch.float64)

    yardstick = Yardstick(BandJudge(), Unsure(), list(scenes[1].split(1)))
    row = yardstick.measure("x", scenes[1], *scenes)
    assert row.recall == recall and row.found == tuple(recall * n for n in row.asked)
    assert yardstick.heard(scenes[1][:1]) == [list(KINDS) if recall else []]


def test_too_few_sounds_or_references_are_refused(scenes, yardstick):
    clips, real = scenes
    with pytest.raises(MinigenError, match="5 sounds, 6 clips"):
        yardstick.measure("x", real[:5], clips, real)
    with pytest.raises(MinigenError, match="1 reference"):
        Yardstick(BandJudge(), BandTagger(), [real[:1]])


def test_what_is_heard_is_listed_with_the_surest_first(scenes, yardstick):
    heard = yardstick.heard(scenes[1])
    assert heard[0] == ["dog_bark"] and set(heard[4]) == {"engine", "rain"}
    assert yardstick.heard(torch.zeros(1, 1, 16000)) == [[]]


def row(name, found=(0, 0), asked=(0, 0), **values):
    """A row whose clips have `asked` events each, of which `found` are heard."""
    numbers = dict(fad=1.0, fad_infinity=0.5, kernel=0.01, kl=1.0, clap=0.55, order=0.5, diversity=0.4)
    recall = sum(found) / sum(asked) if any(asked) else math.nan
    matches = tuple(0.5 + 0.1 * i for i in range(len(asked)))
    numbers |= dict(recall=recall, matches=matches, asked=asked, found=found)
    return Measurement(name, len(asked), **{**numbers, **values})


def test_events_of_one_clip_are_drawn_together():
    """Sixteen events, heard or missed clip by clip, tell as much as four events and not as much as sixteen."""
    correlated = row("four in one clip", found=(4, 4, 0, 0), asked=(4, 4, 4, 4))
    assert correlated.recall_interval == row("one each", (1, 1, 0, 0), (1, 1, 1, 1)).recall_interval == (0, 1)
    low, high = metrics.bootstrap_interval([1.0] * 8 + [0.0] * 8, 0)  # as if the events were independent
    assert high - low < 0.6
    other = row("other", found=(0, 4, 0, 0), asked=(4, 4, 4, 4))
    assert measure.difference(correlated, other) == (0.25, 0, 0.75)


def test_recall_relative_to_the_codec_divides_by_the_codecs_row():
    rows = [row(CODEC, (1, 2), (2, 2)), row("model", (1, 1), (2, 2))]
    assert measure.of_codec(rows[1], rows) == pytest.approx(2 / 3) and measure.of_codec(rows[0], rows) == 1
    assert math.isnan(measure.of_codec(rows[1], rows[1:]))


def test_a_difference_pairs_the_clips_one_by_one():
    one, other = row("a", (1, 1, 1, 0), (1, 1, 1, 1)), row("b", (0, 0, 1, 0), (1, 1, 1, 1))
    assert measure.difference(one, other) == (0.5, 0, 1)
    assert measure.difference(one, one) == (0, 0, 0)
    assert measure.difference(one, other, "matches") == (0, 0, 0)
    with pytest.raises(MinigenError, match="different captions"):
        measure.difference(one, row("c", (1,), (1,)))
    with pytest.raises(MinigenError, match="different captions"):
        measure.difference(one, row("d", (1, 1, 1, 0), (1, 2, 1, 1)))


def test_the_table_is_aligned_markdown(scenes):
    lines = measure.table([row("a model", (1, 0), (1, 1)), row(CODEC, (1, 1), (1, 1))]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len({line.count("|") for line in lines}) == 1
    assert lines[2].split("|")[1].strip() == "a model" and "50% [0, 100]" in lines[2]
    assert lines[1].count("-:") == len(measure.COLUMNS) and all(line.isascii() for line in lines)


def test_the_csv_keeps_all_digits_and_leaves_empty_what_does_not_apply(tmp_path):
    measure.save_csv(tmp_path / "t.csv", [row("a", fad=1 / 3), row(CODEC, (1, 0), (1, 1))], [{"guidance": 1.0}] * 2)
    first, second = csv.DictReader((tmp_path / "t.csv").open())
    assert first["guidance"] == "1.0" and float(first["fad"]) == 1 / 3 and first["recall"] == first["recall_low"] == ""
    assert float(second["recall"]) == 0.5 and float(second["of_codec"]) == 1 and second["name"] == CODEC


def test_generating_in_batches_pairs_the_noise_of_two_models_and_repeats():
    tta = TextToAudio(tiny_codec(), WordEncoder(), tiny_lm(1))
    captions = ["a dog", "rain", "a siren wails"]
    one, other = (measure.generate_for(tta, captions, 0.2, 3.0, seed, 2, progress=False) for seed in (0, 0))
    assert one.shape == (3, 1, 3200) and torch.equal(one, other)
    alone = tta.generate(captions[2:], 0.2, 3.0, seed=1)  # the second batch is drawn with seed + 1
    torch.testing.assert_close(one[2:], alone)


def test_clips_of_one_recording_never_stand_for_each_other_and_count_once_in_sets(yardstick):
    """Five captions a recording, as in AudioCaps' test split."""
    clips = [Clip(f"{n}", f"video{n % 6}", 30.0, f"caption {n}", "") for n in range(30)]
    real = torch.randn(6, 1, 8000).clamp(-1, 1).repeat(5, 1, 1)
    for seed in range(20):
        shuffled = measure.control_sounds(real, tiny_codec(), seed)[SHUFFLED]
        assert not (shuffled == real).all(-1).any() and torch.equal(shuffled.sort(0).values, real.sort(0).values)
    many, once = (yardstick.measure("x", real[:n], clips[:n], real[:n]) for n in (30, 6))
    assert (many.fad, many.kernel, many.diversity) == pytest.approx((once.fad, once.kernel, once.diversity), rel=1e-4)
    assert many.clips == 30 and len(many.matches) == 30


def test_without_repeated_recordings_the_shuffled_order_is_a_cycle_by_one():
    real = torch.randn(9, 1, 100)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        torch.randn(real.shape, generator=generator)
        order, expected = torch.randperm(9, generator=generator), torch.empty_like(real)
        expected[order] = real[order.roll(1)]
        assert torch.equal(measure.control_sounds(real, tiny_codec(), seed)[SHUFFLED], expected)
