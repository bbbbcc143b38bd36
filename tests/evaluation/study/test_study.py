"""The study: what is queued and when, nothing is lost or done twice, the table says no more than its rows."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from standins import BandJudge, BandTagger, WordEncoder, tiny_codec
from test_train import SIZES, Words, tokens
from torch import nn

from minigen.app import cli
from minigen.corpus.clip import Clip, Event
from minigen.engine.errors import MinigenError
from minigen.engine.files import exclusive, read_rows, try_lock
from minigen.evaluation.bootstrap import Difference, Ratio, paired_difference
from minigen.evaluation.counting import count_sounds, countable, said_counts
from minigen.evaluation.measure import Yardstick
from minigen.evaluation.per_caption import DIGITS, CaptionScores, Evaluator, make_evaluator, mean
from minigen.evaluation.study.plan import (
    CAPTIONS,
    CONTROL_ROWS,
    CONTROLS,
    MODELS,
    ROWS,
    SECOND,
    SMOKE,
    TEST,
    VALIDATION,
    StudyConfig,
    chosen_guidance,
    chosen_weight,
    plan,
)
from minigen.evaluation.study.results import METRICS, Results, sound_metrics
from minigen.evaluation.study.run import COLUMNS, StudyParts, run_study
from minigen.evaluation.study.similarity_parts import compare_cosines, similarity_parts
from minigen.evaluation.study.table import conclusion, make_table, of_captions, summary, write_between_marks
from minigen.evaluation.study.variants import VariantConfig, objective_of, shift_cosines
from minigen.lm import AudioLM
from minigen.recipes.lm.ship import bring, write_cards
from minigen.regularizer import similarity_matrix
from minigen.train import CrossEntropyObjective, TrainConfig, Trainer, train

TOP = Path(__file__).resolve().parents[3]
SMALL = replace(SMOKE, clips=40, captions=4, validation=4, reference=4, width=16, weights=(0.1, 1.0, 2.0, 4.0))


def parts() -> StudyParts:
    return StudyParts(tiny_codec(), WordEncoder(), BandJudge(), BandTagger())


def study(folder: Path, **options) -> list[str]:
    return run_study(folder, folder / "rows", SMALL, parts, progress=False, **options)


def rows_of(folder: Path) -> list[dict]:
    return read_rows(folder / "rows" / ROWS)


def without_clock(folder: Path) -> dict[tuple, dict]:
    rows = {(row["run"], row["split"], row["guidance"]): row for row in rows_of(folder)}
    assert len(rows) == len(rows_of(folder)), "a row is there twice"
    return {where: {name: value for name, value in row.items() if name != "hours"} for where, row in rows.items()}


# the plan


def test_one_seed_of_all_models_comes_first_then_the_other_seeds_then_the_questions():
    tasks = plan(StudyConfig())
    names = [task.name for task in tasks]
    assert names[:3] == [CONTROLS, "no-dropout-0", "dropout-0"]
    assert names[3:8] == [f"weight-{weight}-0" for weight in ("0", "0.1", "0.3", "1", "3")]
    assert names[8:10] == ["regularised-0", "every-step-0"]
    assert names[10:18] == [f"{model}-{seed}" for seed in (1, 2) for model in MODELS]
    assert names[18:24] == ["mean-pooling-0", "dropout-0.2-0", "dropout-0.3-0", "per-clip-0", "per-clip-regularised-0",
                            "no-mixing-0"]  # fmt: skip
    assert names[24:] == ["mini-no-dropout-0", "mini-dropout-0", "mini-regularized-0"]
    assert len(set(names)) == len(names)
    assert {task.steps for task in tasks if task.model in MODELS} == {StudyConfig().steps}


def test_the_whole_study_takes_ten_to_twelve_hours_in_two_processes_on_one_server_core():
    tasks = plan(StudyConfig(shipped=()))
    generated = sum(len(task.splits) for task in tasks) * 60  # 200 captions at one guidance: a minute
    assert 10 < (1.38 * sum(task.steps for task in tasks) + generated) / 3600 < 12


def test_the_second_study_has_its_own_models_and_chooses_the_weight_of_the_centred_one():
    tasks = plan(SECOND)
    names = [task.name for task in tasks]
    assert names[:4] == [CONTROLS, "dropout-0", "regularised-0", "alike-texts-0"]
    assert names[4:8] == [f"centred-weight-{weight}-0" for weight in ("0", "0.1", "1", "10")]
    assert names[8:17] == ["centred-0", *(f"{model}-{seed}" for seed in (1, 2) for model in SECOND.models)]
    assert names[17:] == ["mini-no-dropout-0", "mini-dropout-0", "mini-regularized-0"]
    changes = {task.model: task.changes for task in tasks}
    assert changes["dropout"] == {} and changes["regularised"] == {"similarity": 0.1}
    assert changes["alike-texts"] == {"text_shift": 0.85, "similarity": 0.1}
    assert changes["centred"] == {"centred": True} and changes["centred-weight-10"] == {
        "centred": True,
        "similarity": 10,
    }
    assert {task.model for task in tasks if task.weighted} == {"centred"}
    rows = [row(f"centred-weight-{weight}-0", VALIDATION, 3.0, score) for weight, score in ((0.1, 1), (1, 3), (10, 2))]
    assert chosen_weight(rows, SECOND) == 1.0


def row(run: str, split: str, guidance: float, clap: float) -> dict:
    return {"run": run, "split": split, "guidance": str(guidance), "clap": str(clap)}


def test_the_weight_is_chosen_on_validation_clips_and_only_when_all_are_measured():
    config = StudyConfig(weights=(0.1, 0.3, 1.0, 3.0))
    scores = {"weight-0-0": 0.9, "weight-0.1-0": 0.2, "weight-0.3-0": 0.5, "weight-1-0": 0.4, "weight-3-0": 0.1}
    rows = [row(run, VALIDATION, 3.0, score) for run, score in scores.items()]
    rows += [row("weight-3-0", TEST, 3.0, 0.99), row("weight-3-0", VALIDATION, 1.0, 0.99)]
    assert chosen_weight(rows, config) == 0.3
    assert chosen_weight([r for r in rows if r["run"] != "weight-3-0"], config) is None


def test_a_models_guidance_is_chosen_on_validation_clips():
    config = StudyConfig(guidances=(1.0, 3.0, 7.0))
    rows = [row("dropout-0", VALIDATION, g, score) for g, score in ((1.0, 0.2), (3.0, 0.5), (7.0, 0.4))]
    rows += [row("dropout-0", TEST, 7.0, 0.9), row("dropout-1", VALIDATION, 7.0, 0.9)]
    assert chosen_guidance(rows, "dropout", config) == 3.0
    assert chosen_guidance(rows[1:], "dropout", config) is None


def test_what_waits_for_the_weight_is_not_begun_before_it_is_chosen():
    tasks = plan(StudyConfig())
    assert {task.model for task in tasks if task.weighted} == {
        "regularised", "every-step", "mean-pooling", "per-clip-regularised",
    }  # fmt: skip
    assert not any(task.weighted for task in tasks[:8])


# running


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A whole study of tiny models, left in peace."""
    folder = tmp_path_factory.mktemp("study")
    assert study(folder) == [task.name for task in plan(SMALL)]
    return folder


def test_the_second_study_runs_to_its_table(tmp_path):
    config = replace(SMALL, models=SECOND.models, chooses=SECOND.chooses, similarity=0.1, questions=False, seeds=(0,),
                     weights=(0.1, 10.0), guidances=(1.0,), question_guidances=(3.0,))  # fmt: skip
    assert run_study(tmp_path, tmp_path / "rows", config, parts, progress=False) == [task.name for task in plan(config)]
    found = {row["model"]: row for row in rows_of(tmp_path)}
    assert found["centred"]["centred"] == "True" and float(found["centred"]["similarity"]) in config.weights
    assert (found["alike-texts"]["text_shift"], found["regularised"]["similarity"]) == ("0.85", "0.1")
    text = make_table(tmp_path / "rows", config)
    assert "| centred regulariser |" in text and "| regulariser, alike texts |" in text
    assert (
        "The centred regulariser has the weight" in text and "Where it is not centred, it has the weight 0.1." in text
    )


def test_every_run_has_a_row_for_each_split_and_guidance_and_every_tested_one_its_captions(finished):
    rows = without_clock(finished)
    wanted = set().union(*(task.rows() for task in plan(SMALL)), {(name, TEST, 0.0) for name in CONTROL_ROWS})
    assert {(run, split, float(guidance)) for run, split, guidance in rows} == wanted
    assert all(list(found)[6:] == [c for c in COLUMNS if c != "hours"] for found in rows.values())
    lines = read_rows(finished / "rows" / CAPTIONS)
    assert {(r["run"], r["guidance"]) for r in lines} == {(r, g) for r, s, g in rows if s == TEST and r != CONTROLS}
    trained = [found for found in rows.values() if found["steps"]]
    assert {found["similarity"] for found in trained if found["model"] == "dropout"} == {"0.0"}
    weight = chosen_weight(rows_of(finished), SMALL)
    assert {float(found["similarity"]) for found in trained if found["model"] == "regularised"} == {weight}
    assert {found["mix"] for found in trained if found["model"] == "no-mixing"} == {"0.0"}


def test_a_finished_study_does_nothing_and_loads_nothing(finished):
    def refuse():
        raise AssertionError("the parts were loaded")

    before = {path: path.stat().st_mtime_ns for path in (finished / "rows").iterdir()}
    assert run_study(finished, finished / "rows", SMALL, refuse, progress=False) == []
    assert {path: path.stat().st_mtime_ns for path in (finished / "rows").iterdir()} == before


def test_a_study_stopped_after_each_task_ends_with_the_same_rows(finished, tmp_path):
    shutil.copytree(finished / "corpus", tmp_path / "corpus")
    done = []
    for _ in range(4):
        done += study(tmp_path, most=1)
    assert done == [task.name for task in plan(SMALL)][:4]
    rows = without_clock(tmp_path)
    assert rows == {where: found for where, found in without_clock(finished).items() if where in rows}


WORK = """
import sys, torch
torch.set_num_threads(1)
from test_study import study
from pathlib import Path
from types import SimpleNamespace
print(*study(Path(sys.argv[1]), most=int(sys.argv[2])))
"""


def start(folder: Path, most: int) -> subprocess.Popen:
    path = os.pathsep.join([str(TOP / "tests"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), str(most)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": path})  # fmt: skip


def test_two_processes_share_the_queue_and_one_that_is_killed_loses_no_row(finished, tmp_path):
    shutil.copytree(finished / "corpus", tmp_path / "corpus")
    first = start(tmp_path, 99)
    while len(rows_of(tmp_path)) < 8:  # in the midst of its first measurements
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    several = [start(tmp_path, 3) for _ in range(2)]
    done = [process.communicate()[0].split() for process in several]
    assert all(process.returncode == 0 for process in several)
    assert len(sum(done, [])) == len(set(sum(done, []))) == 6
    rows = without_clock(tmp_path)
    assert rows == {where: found for where, found in without_clock(finished).items() if where in rows}
    assert {r for r, *_ in rows} > set(sum(done, []))


def test_rows_of_another_study_are_refused(finished, tmp_path):
    shutil.copytree(finished / "corpus", tmp_path / "corpus")
    (tmp_path / "rows").mkdir()
    lines = (finished / "rows" / ROWS).read_text().splitlines()
    (tmp_path / "rows" / ROWS).write_text("\n".join(lines[:3]) + "\n")
    other = replace(SMALL, steps=5)
    with pytest.raises(MinigenError, match="rows of another study"):
        run_study(tmp_path, tmp_path / "rows", other, parts, progress=False, most=1)


def test_a_claim_is_held_by_one_process_and_ends_with_it(tmp_path):
    held = try_lock(tmp_path / "job")
    code = f"from minigen.engine.files import try_lock; print(try_lock({str(tmp_path / 'job')!r}) is None)"
    ask = [sys.executable, "-c", code]
    assert subprocess.run(ask, capture_output=True, text=True).stdout == "True\n"
    held.release()
    assert subprocess.run(ask, capture_output=True, text=True).stdout == "False\n"
    with exclusive(tmp_path / "job"):
        assert subprocess.run(ask, capture_output=True, text=True).stdout == "True\n"


# variants of the step


def weights_of(folder, config, objective) -> dict:
    torch.manual_seed(0)
    lm = AudioLM(SIZES)
    train(lm, Words(), tokens(), tokens(16, seed=1), folder, config, progress=False, objective=objective)
    return lm.state_dict()


def test_without_a_variant_the_training_is_the_usual_one(tmp_path):
    settings = dict(steps=12, batch_size=8, warmup=5, valid_every=20, similarity=1.0, text_dropout=0.4)
    usual = weights_of(tmp_path / "a", TrainConfig(**settings), None)
    config = VariantConfig(**settings)
    variant = weights_of(tmp_path / "b", config, objective_of(SIZES, Words(), config))
    assert all(torch.equal(value, variant[name]) for name, value in usual.items())


def usual_parts(lm: AudioLM, codes, captions, drop: bool, regularise: bool = False) -> dict:
    """Parts of the usual loss, with text or without."""
    usual = CrossEntropyObjective(SIZES, Words(), TrainConfig(batch_size=8, similarity=1.0))
    return usual.loss(lm, **usual.tensors(codes, captions, drop, regularise))[1]


def parts_of(lm: AudioLM, codes, captions, drop: bool | None = None, **settings) -> dict:
    """Total and parts of a variant's loss in step 0 of seed 0."""
    objective = objective_of(SIZES, Words(), VariantConfig(batch_size=8, **settings))
    total, parts = objective.loss(lm, **objective.batch(codes, captions, np.random.default_rng([0, 1, 0]), drop))
    return {"total": total, **parts}


@pytest.fixture
def small_lm() -> AudioLM:
    torch.manual_seed(0)
    return AudioLM(SIZES)


def test_a_coin_for_every_clip_takes_the_text_from_some_and_adds_up_to_the_batchs_loss(small_lm):
    codes, captions = tokens().batch(range(8))
    dropped = np.random.default_rng([0, 3, 0]).random(8) < 0.5
    assert 0 < dropped.sum() < 8
    found = parts_of(small_lm, codes, captions, per_clip=True, text_dropout=0.5)
    each = [usual_parts(small_lm, codes[[i]], [captions[i]], bool(dropped[i]))["loss"] for i in range(8)]
    torch.testing.assert_close(found["loss"], torch.stack(each).mean())
    assert found["total"] == found["loss"] and "similarity" not in found


def test_at_a_coin_for_every_clip_the_regulariser_sees_the_clips_without_text_alone(small_lm):
    codes, captions = tokens().batch(range(8))
    dropped = np.flatnonzero(np.random.default_rng([0, 3, 0]).random(8) < 0.5).tolist()
    alone = usual_parts(small_lm, codes[dropped], [captions[i] for i in dropped], drop=True, regularise=True)
    found = parts_of(small_lm, codes, captions, per_clip=True, text_dropout=0.5, similarity=0.7)
    torch.testing.assert_close(found["similarity"], alone["similarity"])
    torch.testing.assert_close(found["total"], found["loss"] + 0.7 * alone["similarity"])
    all_with_text = parts_of(small_lm, codes, captions, per_clip=True, text_dropout=1e-9, similarity=1.0)
    assert "similarity" not in all_with_text


def test_in_every_step_means_in_steps_with_text_too(small_lm):
    codes, captions = tokens().batch(range(8))
    settings = {"similarity": 1.0, "text_dropout": 0.0}
    assert "similarity" not in parts_of(small_lm, codes, captions, **settings)
    always = parts_of(small_lm, codes, captions, every_step=True, **settings)
    torch.testing.assert_close(always["total"], always["loss"] + always["similarity"])
    torch.testing.assert_close(always["loss"], usual_parts(small_lm, codes, captions, drop=False)["loss"])
    assert always["similarity"] > 0


def test_the_centred_regulariser_compares_vectors_less_their_mean(small_lm):
    objective = objective_of(SIZES, Words(), VariantConfig(centred=True))
    generator = torch.Generator().manual_seed(0)
    text, audio = torch.randn(5, 6, generator=generator) + 3, torch.randn(5, 8, generator=generator) - 2
    texts, audios = [t - sum(text) / 5 for t in text], [a - sum(audio) / 5 for a in audio]
    cosine = torch.nn.functional.cosine_similarity
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = sum((cosine(texts[i], texts[j], 0) - cosine(audios[i], audios[j], 0)) ** 2 for i, j in pairs) / 20
    assert objective.alike(text, audio).item() == pytest.approx(expected.item(), rel=1e-5)
    moved = objective.alike(text + torch.randn(6, generator=generator), 7 * audio + 1)
    assert moved.item() == pytest.approx(expected.item(), rel=1e-4)


def test_alike_texts_have_the_cosines_that_the_shift_names():
    text = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    plain, shifted = similarity_matrix(text), similarity_matrix(shift_cosines(text, 0.85))
    assert torch.allclose(shifted, 0.85 + 0.15 * plain, atol=1e-6)
    objective = objective_of(SIZES, Words(), VariantConfig(text_shift=0.85))
    audio = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    difference = (shifted - similarity_matrix(audio)).square().sum() / 20
    assert objective.alike(text, audio).item() == pytest.approx(difference.item(), rel=1e-4)


@pytest.mark.parametrize("variant", [{"per_clip": True}, {"every_step": True}, {"centred": True}, {"text_shift": 0.5}])
def test_a_variant_is_validated_as_the_usual_objective(variant, small_lm):
    codes, captions = tokens().batch(range(8))
    for drop in (False, True):
        found = parts_of(small_lm, codes, captions, drop, similarity=1.0, text_dropout=0.5, **variant)
        assert found["total"] == usual_parts(small_lm, codes, captions, drop)["loss"] and "similarity" not in found


def test_a_step_of_a_variant_moves_other_weights_than_the_usual_step():
    codes, captions = tokens().batch(range(8))
    moved = []
    for variant in ({}, {"per_clip": True}, {"every_step": True}, {"centred": True}, {"text_shift": 0.5}):
        torch.manual_seed(0)
        lm = AudioLM(SIZES)
        config = VariantConfig(batch_size=8, similarity=1.0, text_dropout=0.5, seed=2, **variant)  # a step with text
        entry = Trainer(lm, objective_of(SIZES, Words(), config), config).train_step(codes, captions)
        moved.append(lm.norm.weight)
        assert not entry["dropped"]
    assert not torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], moved[2])


# counting


@pytest.mark.parametrize(
    ("line", "count"),
    [([0.0] * 9, 0), ([0.9] * 9, 1), ([0, 0.9, 0.9, 0, 0], 1), ([0, 0.9, 0.1, 0.9, 0.1, 0.9], 3),
     ([0.9, 0.8, 0.9, 0.85, 0.9], 1), ([0, 0.2, 0, 0.2, 0], 0), ([0.9, 0, 0, 0.9], 2)],
)  # fmt: skip
def test_a_sound_is_counted_when_its_chance_rises_and_falls_far_enough(line, count):
    assert count_sounds(torch.tensor(line)) == count


def clip(caption: str, *events: tuple) -> Clip:
    return Clip("", "", 0.0, caption, "", tuple(Event(*event) for event in events))


def test_only_counts_that_the_caption_says_of_one_kind_are_asked_for():
    dog, cat = ("dog_bark", 2, 0, 1), ("cat_meow", 3, 2, 3)
    assert said_counts(clip("A dog barks twice before a cat meows", dog, cat)) == {"dog_bark": 2}
    assert said_counts(clip("Two dogs bark and a cat meows three times", dog, cat)) == {"dog_bark": 2, "cat_meow": 3}
    assert said_counts(clip("A dog barks several times", dog)) == {}
    assert said_counts(clip("A dog barks twice, a horn beeps twice", dog, ("car_horn", 2, 2, 3))) == {}
    assert said_counts(clip("Rain falls once more", ("rain", 1, 0, 4))) == {}


def test_a_kind_is_counted_only_if_the_counter_gets_it_right_on_real_clips():
    twice, once = torch.tensor([[0, 0.9, 0, 0.9, 0, 0]]), torch.tensor([[0, 0.9, 0.9, 0.9, 0, 0]])
    clips, kinds = [clip("", ("dog_bark", 2, 0, 1))] * 10, ("dog_bark",)
    assert countable(clips, torch.stack([twice] * 8 + [once] * 2), kinds) == ("dog_bark",)
    assert countable(clips, torch.stack([twice] * 7 + [once] * 3), kinds) == ()
    assert countable(clips[:4], torch.stack([twice] * 4), kinds) == ()


# scores of captions


def scores(**values) -> CaptionScores:
    zeros = {name: np.zeros(3) for name in (*DIGITS, "clap", "kl")}
    return CaptionScores(zeros | {name: np.array(value, float) for name, value in values.items()})


def test_the_scores_of_captions_come_back_from_the_csv():
    own = scores(clap=[0.1234, -0.5, 1], kl=[0.001, 12.3456, 0], asked=[1, 2, 3], found=[0, 2, 1], held_out=[0, 1, 1])
    text = {name: str(value) for name, value in own.cells().items()}
    again = CaptionScores.read(text)
    np.testing.assert_allclose(again.values["clap"], [0.123, -0.5, 1])
    np.testing.assert_allclose(again.values["kl"], [0, 12.35, 0])
    assert all((again.values[name] == own.values[name]).all() for name in DIGITS)


def test_measures_are_sums_over_captions_and_those_of_held_out_pairs_only_over_theirs():
    own = scores(clap=[0.1, 0.2, 0.6], asked=[1, 2, 3], found=[0, 2, 1], held_out=[0, 1, 1], both=[1, 1, 0],
               ordered=[1, 0, 0])  # fmt: skip
    assert mean(own, "clap") == pytest.approx(0.3) and mean(own, "recall") == 0.5
    assert mean(own, "recall_seen") == 0 and mean(own, "recall_held_out") == pytest.approx(3 / 5)
    assert mean(own, "order") == 0.5 and np.isnan(mean(own, "count"))


def test_the_evaluator_agrees_with_the_yardstick_and_asks_for_order_only_where_both_are_heard():
    t = torch.arange(16000) / 16000
    tones = [0.5 * torch.sin(2 * torch.pi * hertz * t) for hertz in (150, 6000)]
    wavs = torch.stack([torch.cat([tones[0], tones[1]]), torch.cat([tones[1], tones[0]]), torch.cat([tones[0]] * 2)])
    clips = [clip("a dog then an engine", ("dog_bark", 1, 0, 1), ("engine", 1, 1, 2))] * 3
    yardstick = Yardstick(BandJudge(), BandTagger(), list(wavs[:, None].split(1)))
    numbers, own = Evaluator(yardstick, clips, wavs[:, None], ()).measure("x", wavs[:, None])
    row = yardstick.measure("x", wavs[:, None], clips, wavs[:, None])
    assert numbers["recall"] == pytest.approx(row.recall) and numbers["clap"] == pytest.approx(row.clap)
    assert numbers["kl"] == pytest.approx(row.kl) and numbers["fad"] == row.fad
    assert own.values["both"].tolist() == [1, 1, 0] and own.values["ordered"].tolist() == [1, 0, 0]
    assert numbers["order"] == 0.5


# the bootstrap


def test_level_and_pattern_are_the_similarity_loss_and_the_correlation_sees_the_pattern_alone():
    torch.manual_seed(0)
    text, audio = (similarity_matrix(torch.randn(6, 8)) for _ in range(2))
    found = compare_cosines(text, audio)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    loss = np.mean([float(text[i, j] - audio[i, j]) ** 2 for i, j in pairs])
    assert found.level + found.pattern == pytest.approx(loss, abs=1e-6)
    moved = compare_cosines(text, text * 0.5 + 0.4)
    assert moved.correlation == pytest.approx(1) and moved.level > 0.05 and moved.pattern > 0.001
    assert compare_cosines(text, torch.ones(6, 6)).correlation == 0  # all alike: no pattern to agree with


def test_the_measures_of_captions_can_be_shown_of_any_sounds_as_in_the_table(tmp_path):
    write_rows(tmp_path, CONFIG, SKILL)
    results = Results(tmp_path, CONFIG)
    shown = of_captions({"real clips": results.scores["real clips", 0.0]})
    table = make_table(tmp_path, CONFIG)
    there = [line for line in table.splitlines() if line.startswith("| real clips |")][0].split("|")
    here = [line for line in shown.splitlines() if line.startswith("| real clips |")][0].split("|")
    titles = [line.split("|") for text in (table, shown) for line in text.splitlines() if "recall" in line][:1]
    assert here[2].strip() == there[[title.strip() for title in titles[0]].index("recall ↑")].strip()


def test_a_tagger_without_a_timeline_is_asked_for_neither_order_nor_counts():
    class Ear:
        kinds = BandTagger().kinds
        embed, probabilities = BandTagger().embed, BandTagger().probabilities

    clips = [clip("a dog barks twice, then rain falls", ("dog_bark", 2, 0, 1), ("rain", 1, 1, 2)) for i in range(4)]
    wavs = 0.1 * torch.randn(4, 1, 16000)
    own = make_evaluator(BandJudge(), Ear(), clips, wavs, (clips, list(wavs.split(1)))).row("any", wavs)[1]
    assert not own.values["both"].any() and not own.values["counts"].any()


def test_the_similarity_parts_are_those_of_the_states_that_the_regulariser_sees():
    torch.manual_seed(0)
    lm = AudioLM(SIZES).eval()
    found = similarity_parts(lm, Words(), tokens(), "max", 5)
    loss = usual_parts(lm, *tokens().batch(range(5)), drop=True, regularise=True)["similarity"]
    assert found.level + found.pattern == pytest.approx(loss.item(), rel=1e-4)


def naive(one, other, times):
    """Every resample written out: the seeds and captions drawn, repeated, and summed."""
    drawn = []
    for seeds, captions in zip(*times, strict=True):
        rows, columns = np.repeat(np.arange(len(seeds)), seeds), np.repeat(np.arange(len(captions)), captions)
        ratios = []
        for above, below in (one, other):
            pairs = [(above[s, c], below[s, c]) for s in rows for c in columns]
            ratios.append(sum(a for a, _ in pairs) / sum(b for _, b in pairs))
        drawn.append(ratios[0] - ratios[1])
    return np.quantile(drawn, [0.025, 0.975])


def test_the_bootstrap_agrees_with_one_that_writes_every_resample_out():
    from minigen.evaluation.bootstrap import _draws

    rng = np.random.default_rng(3)
    one, other = (Ratio(rng.random((3, 7)), rng.integers(1, 4, (3, 7)).astype(float)) for _ in range(2))
    found = paired_difference(one, other, seed=5, resamples=200)
    np.testing.assert_allclose(found[1:3], naive(one, other, _draws(3, 7, 5, 200)))
    assert found.mean == pytest.approx(one[0].sum() / one[1].sum() - other[0].sum() / other[1].sum())
    assert found.seeds[1] == pytest.approx(one[0][1].sum() / one[1][1].sum() - other[0][1].sum() / other[1][1].sum())


def test_pairing_finds_a_small_difference_that_captions_of_very_different_ease_would_hide():
    rng = np.random.default_rng(0)
    ease, ones = rng.random((1, 200)).repeat(3, 0), np.ones((3, 200))
    assert paired_difference(Ratio(ease + 0.01, ones), Ratio(ease, ones)).sure
    assert not paired_difference(Ratio(ease[:, ::-1] + 0.01, ones), Ratio(ease, ones)).sure


def test_seeds_that_disagree_make_the_interval_hold_zero():
    ones = np.ones((3, 500))
    gain = np.array([[0.3], [0.3], [-0.3]]) * ones
    found = paired_difference(Ratio(gain, ones), Ratio(0 * ones, ones))
    assert not found.sure and found.mean == pytest.approx(0.1) and len(found.seeds) == 3
    assert Difference(0.1, 0.01, 0.2, ()).sure and not Difference(0.1, -0.01, 0.2, ()).sure


def test_a_measure_that_applies_to_nothing_is_no_number_and_other_shapes_are_refused():
    zeros = np.zeros((2, 5))
    nothing = Ratio(zeros, zeros)
    assert np.isnan(paired_difference(nothing, nothing).mean)
    with pytest.raises(MinigenError, match="are no pairs"):
        paired_difference(nothing, Ratio(zeros[:1], zeros[:1]))


# the table


def write_rows(folder: Path, config: StudyConfig, skill: dict[str, float], leave_out=(), **spoil) -> None:
    """Rows of a made-up study: each run finds a share of its events that grows with its skill (0 to 1)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, n = np.random.default_rng(0), 60
    controls = {"real clips": 1.0, "another split": 0.98, "codec reconstruction": 0.9, "noise": 0.0, "silence": 0.0,
                "shuffled captions": 0.05}  # fmt: skip
    asked, luck = rng.integers(1, 3, n), rng.random(n)
    rows, lines = [], []
    runs = [(name, CONTROLS, TEST, 0.0, own) for name, own in controls.items()]
    for task in plan(config)[1:]:
        if task.name not in leave_out:
            base = skill.get(task.model, 0.5)
            runs += [(task.name, task, *where, base * (0.6 if where[1] == 1 else 0.9)) for where in task.splits]
    for name, task, split, guidance, own in runs:
        found = np.where(luck < own, asked, 0)
        held = np.arange(n) % 2
        values = dict(asked=asked, found=found, held_out=held, both=found > 0, ordered=(found > 0) * (luck < own / 2),
                      counts=asked > 1, counted=(found > 1) * (luck < 0.9 * own), clap=own - 0.2 * luck,
                      kl=2 - own)  # fmt: skip
        text = CaptionScores({key: np.broadcast_to(np.asarray(value, float), n) for key, value in values.items()})
        far = 10 * (1 - own) + (0.1 if name == "another split" else 0)
        numbers = {m.field: mean(text, m.field) for m in METRICS if m.field not in ("fad", "fad_infinity", "kernel",
                                                                                   "diversity")}  # fmt: skip
        numbers |= {"fad": far + 1, "fad_infinity": far, "kernel": far / 10, "diversity": own / 2}
        numbers |= spoil.get(name.replace(" ", "_"), {})
        trained = {} if task is CONTROLS else {"steps": task.steps, "hours": 0.5, "similarity": 0.3, "level": 0.2,
                                               "pattern": 0.03, "correlation": own}  # fmt: skip
        model, seed = (CONTROLS, 0) if task is CONTROLS else (task.model, task.seed)
        where = {"run": name, "split": split, "guidance": guidance}
        rows.append({**where, "model": model, "seed": seed, "study": "s", **dict.fromkeys(COLUMNS, ""), **numbers,
                     **trained})  # fmt: skip
        if split == TEST:
            lines.append({**where, **text.cells()})
    rows.append({**rows[0], "run": CONTROLS, "clap": ""})
    for name, content in ((ROWS, rows), (CAPTIONS, lines)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)


CONFIG = StudyConfig(captions=60, shipped=())
SKILL = {"no-dropout": 0.3, "dropout": 0.5, "regularised": 0.8, "every-step": 0.5}


def test_the_table_comes_from_the_rows_alone_and_says_which_differences_are_sure(tmp_path):
    write_rows(tmp_path, CONFIG, SKILL)
    text = make_table(tmp_path, CONFIG)
    assert (tmp_path / "table.md").read_text() == text and text == make_table(tmp_path, CONFIG)
    first, second = text.split("## What the regulariser changed")
    names = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")][2:]
    assert names == [*CONTROL_ROWS, "no text dropout", "text dropout, no guidance", "text dropout, guidance",
                     "regulariser", "regulariser in every step"]  # fmt: skip
    told = {line.split("**: ")[0]: line for line in text.splitlines() if line.startswith("- **")}
    better = told["- **regulariser** minus **text dropout, guidance"]
    assert "recall +" in better and "excludes 0; by seed" in better
    same = told["- **regulariser in every step** minus **text dropout, guidance"]
    assert "recall +0 points [+0, +0] (includes 0: cannot tell" in same
    assert "Not finished" not in text and (tmp_path / "guidance.svg").exists() and (tmp_path / "weights.svg").exists()
    assert "relative to that of the codec reconstruction: " in text and "regulariser 79%, with held-out pairs" in text
    assert "11.5 hours" in text  # 23 trainings of half an hour
    assert "| regulariser | 0.200 [0.200, 0.200] | 0.030 [0.030, 0.030] | 0.480 [0.480, 0.480] |" in second
    assert "| weight 3, one seed | 0.200 | 0.030 | 0.300 |" in second and "no guidance |" not in second


def test_a_table_of_a_part_says_what_is_missing(tmp_path):
    left_out = {task.name for task in plan(CONFIG)[10:]}
    write_rows(tmp_path, CONFIG, SKILL, left_out)
    text = make_table(tmp_path, CONFIG)
    assert f"14 of {len(plan(CONFIG))} tasks of the study are missing (no-dropout-1, dropout-1," in text
    assert " and 6 more)." in text
    assert "| regulariser | " in text and "**mean pooling**" not in text
    waiting = {task.name for task in plan(CONFIG)[3:]}
    write_rows(tmp_path, CONFIG, SKILL, waiting)
    text = make_table(tmp_path, CONFIG)
    assert "not chosen yet" in text and "| regulariser | " not in text and "| no text dropout | " in text


def test_the_summary_has_few_columns_all_comparisons_and_the_tables_numbers(tmp_path):
    write_rows(tmp_path, CONFIG, SKILL)
    text, whole = summary(tmp_path, CONFIG), make_table(tmp_path, CONFIG)
    titles = next(line for line in text.splitlines() if "guidance" in line)
    assert [cell.strip(" ↑↓") for cell in titles.split("|")[4:-1]] == ["recall", "recall, held out", "CLAP", "FAD"]
    of = [line.split("**: ")[0] for line in text.splitlines() if line.startswith("- **")]
    assert of == [line.split("**: ")[0] for line in whole.splitlines() if line.startswith("- **")][:5]
    recall = next(line for line in text.splitlines() if line.startswith("| regulariser |")).split("|")[4]
    assert recall in next(line for line in whole.splitlines() if line.startswith("| regulariser |"))


def test_the_summary_goes_between_its_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- study -->\nold\n<!-- end of study -->\nafter\n")
    write_between_marks("new \\1\n", page)
    assert page.read_text() == "before\n<!-- study -->\nnew \\1\n<!-- end of study -->\nafter\n"
    page.write_text("no marks\n")
    write_between_marks("new\n", page)
    write_between_marks("new\n", tmp_path / "other.md")
    assert page.read_text() == "no marks\n" and not (tmp_path / "other.md").exists()


def test_the_conclusion_has_four_rows_and_says_what_is_sure(tmp_path):
    write_rows(tmp_path, CONFIG, SKILL | {"every-step": 0.9})
    text = conclusion(tmp_path, CONFIG)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["codec reconstruction", "text dropout, no guidance", "text dropout, guidance", "regulariser"]
    (sentence,) = [line for line in text.splitlines() if line.startswith("Over ")]
    assert sentence.startswith("Over 3 seeds and 60 captions, guidance raises recall: +")
    assert "; the regulariser raises recall: +" in sentence
    write_rows(tmp_path, CONFIG, SKILL | {"regularised": 0.5})
    assert "no difference to recall that can be told from 0: +0 points [+0, +0]." in conclusion(tmp_path, CONFIG)
    write_rows(tmp_path, CONFIG, SKILL, {task.name for task in plan(CONFIG)[3:]})
    assert "There is no conclusion yet" in conclusion(tmp_path, CONFIG)


def test_readme_page_and_table_say_what_the_rows_say(tmp_path):
    """`minigen study --table` has written all three from the rows that are in the repository."""
    shutil.copytree(TOP / "data/study", tmp_path / "study")
    assert make_table(tmp_path / "study") == (TOP / "data/study/table.md").read_text("utf-8")
    for page, text in (("README.md", conclusion), ("docs/study.md", summary)):
        between = (TOP / page).read_text("utf-8").split("<!-- study -->\n")[1].split("<!-- end of study -->")[0]
        assert between == text(TOP / "data/study")


@pytest.mark.parametrize(
    ("spoil", "title", "why"),
    [
        ({"codec_reconstruction": {"kernel": -5.0}}, "kernel", "codec reconstruction would be better than real clips"),
        ({"regularised-0": {"fad": -9e9}}, "FAD", "regulariser would be better than real clips"),
        ({"noise": {"clap": 0.5}}, "CLAP", "would be worse than noise"),
        ({"real_clips": {"count": ""}, "another_split": {"count": ""}}, "count", "does not apply"),
    ],
)
def test_a_metric_in_which_real_is_not_best_or_noise_not_worst_is_not_in_the_table(spoil, title, why, tmp_path):
    write_rows(tmp_path, CONFIG, SKILL, **spoil)
    metrics, dropped = sound_metrics(Results(tmp_path, CONFIG))
    assert title not in [metric.title for metric in metrics] and len(metrics) == len(METRICS) - 1
    (said,) = dropped
    assert said.startswith(f"{title} is left out") and why in said
    assert said in make_table(tmp_path, CONFIG)


def test_a_control_to_which_a_metric_does_not_apply_spoils_nothing(tmp_path):
    write_rows(tmp_path, CONFIG, SKILL, another_split={"kl": ""}, noise={"order": ""})
    assert len(sound_metrics(Results(tmp_path, CONFIG))[0]) == len(METRICS)


def test_no_table_without_rows_or_without_controls(tmp_path):
    with pytest.raises(MinigenError, match="no rows yet"):
        make_table(tmp_path)
    write_rows(tmp_path, CONFIG, SKILL)
    rows = (tmp_path / ROWS).read_text().splitlines()
    (tmp_path / ROWS).write_text("\n".join(line for line in rows if not line.startswith("noise")) + "\n")
    with pytest.raises(MinigenError, match="lacks controls"):
        make_table(tmp_path, CONFIG)


def only(monkeypatch, tmp_path: Path, *models: str) -> StudyConfig:
    """A study that measures `models` alone, with tmp_path as the project that ships them."""
    config = replace(SMALL, shipped=("mini-regularized",))
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path / "data")
    tasks = [task for task in plan(config) if task.model in models]
    monkeypatch.setattr(StudyConfig, "tasks", lambda *_: tasks)
    return config


def test_a_shipped_model_is_a_trainings_files_and_is_measured_like_the_others(finished, tmp_path, monkeypatch):
    bring("mini-regularized", finished / "regularised-0", tmp_path)
    target, rows = tmp_path / "data/lm/mini-regularized", tmp_path / "data/study"
    for name in ("model.safetensors", "training.json", "log.csv"):
        assert (target / name).read_bytes() == (finished / "regularised-0" / name).read_bytes()
    config = only(monkeypatch, tmp_path, CONTROLS, "mini-regularized")
    assert run_study(finished, rows, config, parts, progress=False) == [CONTROLS, "mini-regularized-0"]
    own = [row for row in read_rows(rows / ROWS) if row["run"] == "mini-regularized-0"]
    trained = [row for row in rows_of(finished) if row["run"] == "regularised-0"]
    for column in ("steps", "similarity", "text_dropout", "valid", "split", "guidance"):
        assert [row[column] for row in own] == [row[column] for row in trained], column
    assert write_cards(tmp_path, config) == ["mini-regularized"]
    text = (target / "card.md").read_text()
    assert f"--similarity {float(own[0]['similarity']):g}" in text and "| guidance 3 |" in text and "nan" not in text
    table = make_table(rows, config).split("## The shipped models")[1]
    assert "| mini-regularized, no guidance | 1 | 1 |" in table and "mini-regularized 4 steps" in summary(rows, config)


def test_a_shipped_model_that_is_not_there_is_passed_over_and_named_as_missing(finished, tmp_path, monkeypatch):
    config = only(monkeypatch, tmp_path, CONTROLS, "mini-regularized")
    assert run_study(finished, tmp_path, config, parts, progress=False) == [CONTROLS]
    assert "mini-regularized-0)" in make_table(tmp_path, config)


def test_what_is_not_a_finished_training_is_not_shipped(finished, tmp_path):
    (tmp_path / "half").mkdir()
    shutil.copy(finished / "regularised-0/model.safetensors", tmp_path / "half")
    with pytest.raises(MinigenError, match="lacks pipeline.json, training.json"):
        bring("mini-dropout", tmp_path / "half", tmp_path)
    assert not (tmp_path / "data").exists()


def test_the_command_runs_the_study_and_prints_its_table(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minigen.evaluation.study.plan.SMOKE", SMALL)
    shutil.copytree(finished / "rows", tmp_path / "out/smoke/rows")
    assert cli.main("study --smoke --out out".split()) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 tasks done") and "# The study" in out
    assert cli.main("study --first".split()) == 2  # there is no data/study here
    assert cli.main("study --table --rows nowhere".split()) == 2
    assert "no rows yet" in capsys.readouterr().err


def test_other_weights_in_any_part_the_text_encoder_too_make_it_another_study():
    def parts(seed):
        torch.manual_seed(seed)
        text = SimpleNamespace(model=nn.Linear(2, 2))  # as a TextEncoder: it holds its network
        torch.manual_seed(0)
        return StudyParts(nn.Linear(2, 3), text, nn.Linear(2, 2), nn.Linear(2, 2))

    assert parts(1).digest() == parts(1).digest()
    assert parts(1).digest() != parts(2).digest()
