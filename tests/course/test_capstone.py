"""The capstone's bench: entries are kept with the scores of each caption, and judged by paired intervals and rules."""

import numpy as np
import pytest
import standins

from minigen.course import capstone
from minigen.course.capstone import Entry, add_entry, difference, leaderboard, measure, read_entries, verdict
from minigen.engine.errors import MinigenError
from minigen.evaluation.per_caption import DECIMALS, DIGITS, CaptionScores, mean

N = 48


def entry(name="mini", gain=0.0, seed=0, heard=0.8, minutes=9.0, asked=2) -> Entry:
    rng, ones = np.random.default_rng(seed), np.ones(N)
    hard = np.random.default_rng(99).normal(0.6, 0.2, N)
    values = {field: ones for field in (*DIGITS, *DECIMALS)} | {"asked": asked * ones}
    values |= {"clap": hard + rng.normal(gain, 0.1, N), "found": rng.binomial(2, heard, N).astype(float)}
    return Entry(name, minutes, 3.0, 0.9, CaptionScores(values))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (entry("a", 0.15, 1), "raised"),
        (entry("a", 0.0, 2), "cannot tell"),
        (entry("a", -0.15, 3), "lower"),
        (entry("a", 0.15, 1, minutes=10.1), "over time"),
        (entry("a", 0.3, 1, heard=0.3), "CLAP rose, recall fell"),
    ],
)
def test_the_verdict_follows_the_rules(made, said):
    assert verdict(made, entry()) == said


def test_an_entry_less_itself_is_nothing():
    assert difference(entry(), entry("again"))[:3] == (0.0, 0.0, 0.0)


def test_other_captions_are_refused():
    with pytest.raises(MinigenError, match="different captions"):
        difference(entry("a", asked=3), entry())


def test_entries_come_back_from_the_file_and_a_name_is_taken_once(tmp_path):
    file, made = tmp_path / "folder" / "entries.csv", [entry(), entry("my, idea", 0.1, 1)]
    for one in made:
        add_entry(file, one)
    back = read_entries(file, tmp_path / "missing.csv")
    assert [one[:4] for one in back] == [one[:4] for one in made]
    assert np.allclose(back[1].scores.values["clap"], made[1].scores.values["clap"], atol=1e-3)
    with pytest.raises(MinigenError, match="another name"):
        add_entry(file, entry())


def test_the_leaderboard_is_sorted_and_works_when_it_is_empty():
    assert leaderboard([]).startswith("No entries yet")
    assert leaderboard([entry("mine")]).startswith("No entries yet")
    lines = leaderboard([entry(), entry("worse", -0.2, 1), entry("better", 0.2, 2)]).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["better", "mini", "worse"]
    assert "| baseline |" in lines[3] and "| raised |" in lines[2] and "[+0.1" in lines[2]


class Evaluator:
    """Notes the sounds that it is given."""

    def __init__(self, clips):
        self.clips = clips

    def measure(self, name, wavs):
        self.wavs = wavs
        return {"diversity": 0.5}, entry().scores


def test_a_model_is_measured_with_the_same_seeds_each_time():
    from minigen.corpus.clip import Clip
    from minigen.generate import TextToAudio

    tta = TextToAudio(standins.tiny_codec(), standins.WordEncoder(), standins.tiny_lm(1))
    clips = [Clip(str(row), "", 0.0, caption, f"{row}.wav") for row, caption in enumerate(["a dog", "rain"])]
    runs = []
    for _ in range(2):
        evaluator = Evaluator(clips)
        made = measure("mine", tta, evaluator, 5.0, seconds=0.5, progress=False)
        assert made[:4] == ("mine", 5.0, 3.0, 0.5)
        runs.append(evaluator.wavs)
    assert runs[0].shape == (2, 1, 8000) and bool((runs[0] == runs[1]).all())


def test_the_baseline_of_the_repository_is_one_of_48_captions():
    (found,) = [one for one in read_entries(capstone.GIVEN) if one.name == capstone.BASELINE]
    assert len(found.scores.values["asked"]) == capstone.CLIPS and 0.5 < mean(found.scores, "clap") < 1
