"""Changes by a tuning: values, intervals over captions and seeds, the table, and rows that are kept in a file."""

import csv

import numpy as np
import pytest
import torch

from minigen import metrics
from minigen.engine.errors import MinigenError
from minigen.evaluation.bootstrap import Ratio, paired_difference
from minigen.evaluation.change import changes_table, load_rows, measure_changes, save_changes, save_rows
from minigen.evaluation.measure import Measurement

REFERENCE = torch.randn(30, 4, generator=torch.Generator().manual_seed(9))


def measured(seed: int, shift: float = 0.0, clips: int = 16, asked: int = 2) -> Measurement:
    """A row of random values: `shift` raises the CLAP scores and moves the features away from the reference."""
    rng = np.random.default_rng(seed)
    matches, found = rng.normal(0.5 + shift, 0.1, clips), rng.integers(0, asked + 1, clips)
    features, sounds = rng.normal(shift, 1, (clips, 4)), rng.normal(0, 1, (clips, 5))
    one = float(found.sum()) / (asked * clips)
    return Measurement(
        f"row {seed}", clips, 1.0, 1.0, 0.0, 0.0, float(matches.mean()), one, 1.0, 0.5, tuple(matches.tolist()),
        (asked,) * clips, tuple(found.tolist()), torch.from_numpy(features), torch.from_numpy(sounds),
    )  # fmt: skip


def test_the_values_are_the_means_over_seeds_of_the_metrics_own():
    before, after = [measured(s) for s in range(3)], [measured(10 + s, 0.3) for s in range(3)]
    changes = measure_changes(before, after, REFERENCE)
    for rows, of in ((before, "before"), (after, "after")):
        found = {name: getattr(change, of) for name, change in changes.items()}
        assert found["clap"].mean == pytest.approx(np.mean([row.clap for row in rows]))
        assert found["recall"].mean == pytest.approx(np.mean([row.recall for row in rows]))
        assert found["fad"].seeds == tuple(metrics.frechet_distance(REFERENCE, row.features) for row in rows)
        assert found["diversity"].seeds == tuple(metrics.diversity(row.sounds) for row in rows)
    for change in changes.values():
        assert change.change.mean == pytest.approx(change.after.mean - change.before.mean)
        assert change.change.low < change.change.mean < change.change.high
        assert len(change.change.seeds) == 3


def test_the_intervals_of_clap_and_recall_are_those_of_the_paired_bootstrap():
    before, after = [measured(0)], [measured(1, 0.2)]
    changes = measure_changes(before, after, REFERENCE)
    pair = [Ratio(np.array([row.matches]), np.ones((1, 16))) for row in (after[0], before[0])]
    assert changes["clap"].change == paired_difference(*pair) and changes["clap"].change.low > 0


def test_no_change_has_an_interval_of_0_and_a_shift_of_the_features_one_above_it():
    same = measure_changes([measured(0)], [measured(0)], REFERENCE)
    for change in same.values():
        assert change.change[:3] == (0, 0, 0) and change.before == change.after
    moved = measure_changes([measured(0)], [measured(0, 2.0)], REFERENCE)
    assert moved["fad"].change.low > 0 and moved["diversity"].change[:3] == (0, 0, 0)


def test_the_interval_of_fad_is_as_wide_as_new_clips_make_it():
    """Its half-width against the spread of the distances of fresh sets of clips."""
    fresh = [metrics.frechet_distance(REFERENCE, measured(seed, 1.0, 60).features) for seed in range(100, 160)]
    widths = []
    for seed in range(6):
        change = measure_changes([measured(seed, 1.0, 60)], [measured(seed, 1.0, 60)], REFERENCE)["fad"].before
        widths.append((change.high - change.low) / 2)
    assert np.mean(widths) == pytest.approx(1.96 * np.std(fresh), rel=0.3)


def test_rows_of_other_captions_are_refused():
    with pytest.raises(MinigenError, match="Measure all on the same"):
        measure_changes([measured(0)], [measured(0, asked=3)], REFERENCE)
    with pytest.raises(MinigenError, match="Measure all on the same"):
        measure_changes([measured(0)], [], REFERENCE)


def test_kept_rows_give_the_same_changes(tmp_path):
    rows = [measured(0), measured(1, 0.3)]
    save_rows(tmp_path / "rows.safetensors", rows, REFERENCE)
    again, reference = load_rows(tmp_path / "rows.safetensors")
    assert again == rows
    changes = measure_changes(rows[:1], rows[1:], REFERENCE)
    assert measure_changes(again[:1], again[1:], reference) == changes
    save_changes(tmp_path / "changes.csv", changes)
    table = list(csv.DictReader((tmp_path / "changes.csv").open()))
    assert len(table) == 12 and float(table[2]["mean"]) == changes["clap"].change.mean and "seed_0" in table[0]
    assert changes_table(changes).count("\n") == 5 and f"{changes['clap'].change.mean:+.3f} [" in changes_table(changes)
