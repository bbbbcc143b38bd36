"""The blind test in a notebook: every control does what it says, and no model is named before the report."""

import pytest
import torch
from sounds import sound_in

from minigen.course.explorers.blind import BlindTest
from minigen.engine.errors import MinigenError
from minigen.evaluation.listening.answers import answers_file, read_answers, store
from minigen.evaluation.listening.make import write_clips
from minigen.evaluation.listening.plan import REAL_CHECK, SIDES, new_plan, write_plan

MODELS = ("mini-dropout", "mini-regularized")


@pytest.fixture
def folder(tmp_path):
    """A test of three captions and one check, whose clips are half a second long."""
    plan = new_plan("ab", 0, MODELS, [f"<b>caption</b> {n}" for n in range(3)], checks=1)
    write_plan(tmp_path, plan)
    for row in range(3):
        write_clips(tmp_path, plan, row, {m: 0.1 * torch.randn(1, 8000) for m in MODELS}, 0.1 * torch.randn(1, 8000))
    return tmp_path


def everything(test) -> str:
    """All that the widget shows as text."""
    parts = [test.said, test.caption, *test.sounds.values()]
    return " ".join(part.value for part in parts) + " ".join(button.description for button in test.answers.values())


def answer_by(test, wanted):
    """Click through the whole test; wanted(models) -> the preferred one."""
    while test.trials:
        trial = test.plan.trials[test.trials[0].trial]
        file = trial.files[trial.models.index(wanted(trial.models))]
        test.answers["left" if test.trials[0].left == file else "right"].click()


def test_nothing_can_be_answered_before_a_name_is_given(folder):
    test = BlindTest(folder)
    assert all(button.disabled for button in test.answers.values())
    test.begin.click()
    assert "cannot be a listener" in test.said.value and all(button.disabled for button in test.answers.values())
    test.name.value = "Anna"
    test.begin.click()
    assert not any(button.disabled for button in test.answers.values())
    assert "1 of 4" in test.caption.value and "<b>caption" not in test.caption.value
    assert all(len(sound_in(test.sounds[side].value)[0]) == 8000 for side in SIDES)


def test_each_click_is_in_the_table_before_the_next_pair_and_no_model_is_named(folder):
    test = BlindTest(folder, "anna")
    test.begin.click()
    for number in range(3):
        shown = test.trials[0]
        test.answers["left"].click()
        row = read_answers(folder)[number]
        assert (row["trial"], row["left"], row["answer"]) == (shown.trial, shown.left, "left")
        assert test.bar.value == number + 1
        assert not any(word in everything(test) for word in (*MODELS, "mini", "check", "noise"))


def test_one_goes_on_where_one_stopped_and_ends_with_the_report(folder):
    first = BlindTest(folder, "anna")
    first.begin.click()
    first.answers["right"].click()
    test = BlindTest(folder, "ANNA")
    test.begin.click()
    assert test.trials == first.trials and test.bar.value == 1
    answer_by(test, lambda models: REAL_CHECK if REAL_CHECK in models else MODELS[1])
    assert "That was all" in test.caption.value and all(button.disabled for button in test.answers.values())
    assert "mini-dropout preferred to mini-regularized" in test.said.value


def test_the_report_can_be_seen_at_any_time(folder):
    test = BlindTest(folder, "ben")
    test.show_report.click()
    assert "0 judgements of 0 listeners" in test.said.value


def test_a_trial_that_was_answered_in_the_browser_meanwhile_counts_once(folder):
    test = BlindTest(folder, "anna")
    test.begin.click()
    store(folder, test.plan, "anna", test.trials[0].trial, "left")
    test.answers["right"].click()
    assert len(answers_file(folder, "anna").read_text().splitlines()) == 2 and len(test.trials) == 3


def test_an_answer_that_cannot_be_written_is_said_and_the_pair_stays(folder):
    test = BlindTest(folder, "anna")
    test.begin.click()
    (folder / "answers").write_text("a file where the folder should be")
    test.answers["left"].click()
    assert "cannot write" in test.said.value and len(test.trials) == 4


def test_a_folder_without_a_test_is_refused(tmp_path):
    with pytest.raises(MinigenError, match="no listening test"):
        BlindTest(tmp_path)
