"""The study of the families: its order, what is trained and measured, killed processes, the table made from rows."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from standins import BandJudge, BandTagger, WordEncoder, tiny_codec

from minigen.app import cli
from minigen.engine.errors import MinigenError
from minigen.engine.files import read_rows
from minigen.evaluation.study.families import FAMILIES, FAMILIES_SMOKE, FamiliesConfig, FamilyStudy
from minigen.evaluation.study.families_table import conclusion, make_table, summary
from minigen.evaluation.study.plan import CAPTIONS, CONTROL_ROWS, CONTROLS, ROWS, TEST, VALIDATION, missing
from minigen.evaluation.study.run import StudyParts, run_study
from minigen.generators.base import CLASSES, load_generator

TOP = Path(__file__).resolve().parents[3]
SMALL = replace(FAMILIES_SMOKE, clips=40, captions=4, validation=4, reference=4, width=16, others=(4,))
CLOCKS = ("hours", "seconds_one", "seconds_eight")


def parts() -> StudyParts:
    return StudyParts(tiny_codec(latent=192), WordEncoder(), BandJudge(), BandTagger())


def study(folder: Path, most: int | None = None) -> list[str]:
    return run_study(folder, folder / "rows", SMALL, parts, progress=False, most=most, kind=FamilyStudy)


def rows_of(folder: Path) -> list[dict]:
    return read_rows(folder / "rows" / ROWS)


def without_clock(folder: Path) -> dict[tuple, dict]:
    rows = {(row["run"], row["split"], row["guidance"]): row for row in rows_of(folder)}
    assert len(rows) == len(rows_of(folder)), "a row is there twice"
    return {where: {name: value for name, value in row.items() if name not in CLOCKS} for where, row in rows.items()}


# the plan


def chosen(model: str, config: FamiliesConfig) -> list[dict]:
    """Validation rows of a model by which its last guidance is the best."""
    values = enumerate(config.guidances)
    return [{"run": f"{model}-0", "split": VALIDATION, "guidance": str(g), "clap": str(i)} for i, g in values]


def test_one_seed_of_every_family_comes_first_and_the_costliest_last():
    config = FamiliesConfig()
    names = [task.name for task in config.tasks([])]
    assert names[:5] == [CONTROLS, *(f"{family}-0" for family in FAMILIES)]
    assert names[5:10] == [f"{model}-0" for model in config.shipped]
    assert names[10:15] == [f"masked@{count}-0" for count in (4, 8, 16, 32, 128)]
    assert names[25:33] == [f"{family}-{seed}" for seed in (1, 2) for family in FAMILIES]
    assert names[33:38] == [f"mini-masked@{count}-0" for count in (4, 8, 16, 32, 128)]
    assert len(set(names)) == len(names) == 53
    assert not [name for name in names if name.startswith(("language_model@", "mini-regularized@"))]


def test_every_family_sees_twelve_thousand_clips_at_three_seeds():
    config = FamiliesConfig()
    trained = [task for task in config.tasks([]) if task.steps]
    assert sorted((task.model, task.seed) for task in trained) == sorted((f, s) for f in FAMILIES for s in range(3))
    assert {task.steps * config.batch_size for task in trained} == {12_000}


def test_what_needs_a_guidance_waits_until_it_is_chosen_on_validation_clips():
    config = FamiliesConfig()
    waiting = {task.name for task in config.tasks([]) if config.waits(task, [])}
    assert {"masked@8-0", "masked-1", "mini-latent@4-0"} <= waiting
    assert not waiting & {CONTROLS, "masked-0", "mini-latent-0"}
    rows = chosen("masked", config)
    tasks = {task.name: task for task in config.tasks(rows)}
    assert tasks["masked@8-0"].splits == tasks["masked-1"].splits == ((TEST, 5.0),)
    assert not config.waits(tasks["masked-1"], rows) and config.waits(tasks["latent-1"], rows)


# running


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A whole study of tiny models, left in peace."""
    folder = tmp_path_factory.mktemp("families")
    assert study(folder) == [task.name for task in SMALL.tasks([])]
    return folder


def test_every_run_has_its_rows_and_every_tested_one_its_captions(finished):
    rows = without_clock(finished)
    tasks = SMALL.tasks(rows_of(finished))
    wanted = set().union(*(task.rows() for task in tasks), {(name, TEST, 0.0) for name in CONTROL_ROWS})
    assert {(run, split, float(guidance)) for run, split, guidance in rows} == wanted and not missing(tasks, rows_of(
        finished))  # fmt: skip
    lines = read_rows(finished / "rows" / CAPTIONS)
    assert {(r["run"], r["guidance"]) for r in lines} == {(r, g) for r, s, g in rows if s == TEST and r != CONTROLS}


def test_rows_tell_the_evaluations_and_the_seconds(finished):
    tested = {row["run"]: row for row in rows_of(finished) if row["split"] == TEST and row["model"] in FAMILIES}
    counts = {run: int(row["evaluations"]) for run, row in tested.items()}
    assert counts["masked-0"] == counts["latent-1"] == 8 and counts["discrete@4-0"] == 4
    assert counts["language_model-0"] == 2 * (50 + 1)  # columns of one second in two codebooks
    assert all(0 < float(row["seconds_one"]) and 0 < float(row["seconds_eight"]) for row in tested.values())
    assert {row["steps"] for row in tested.values()} == {"4"}


def test_every_family_is_trained_as_the_generator_of_its_name_with_the_same_sizes(finished):
    for family in FAMILIES:
        generator = load_generator(finished / f"{family}-1")
        assert type(generator).__name__ == CLASSES[family][1]
        assert (generator.config.width, generator.config.layers) == (16, 1)
        assert not (finished / f"{family}-1/checkpoint.safetensors").exists()


def test_a_finished_study_does_nothing(finished):
    def refuse():
        raise AssertionError("the parts were loaded")

    rows = finished / "rows"
    assert run_study(finished, rows, SMALL, refuse, progress=False, kind=FamilyStudy) == []


def test_a_further_shipped_model_adds_rows_to_a_study_and_changes_none(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path / "data")
    shutil.copytree(finished / "masked-0", tmp_path / "data/generators/mini-masked")
    rows = tmp_path / "rows"
    shutil.copytree(finished / "rows", rows)
    before = (rows / ROWS).read_text()
    config = replace(SMALL, shipped=("mini-regularized", "mini-masked"))
    done = run_study(finished, rows, config, parts, progress=False, kind=FamilyStudy)
    assert done == ["mini-masked-0", "mini-masked@4-0"] and (rows / ROWS).read_text().startswith(before)


def test_a_shipped_model_that_is_not_there_is_passed_over_and_nothing_waits_for_it(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path / "data")
    shutil.copytree(finished / "masked-0", tmp_path / "data/generators/mini-masked")
    config = replace(SMALL, shipped=("mini-regularized", "mini-masked", "mini-latent"), models=FAMILIES[:1])
    done = run_study(finished, tmp_path, config, parts, progress=False, kind=FamilyStudy)
    assert done == [CONTROLS, "language_model-0", "mini-masked-0", "language_model-1", "mini-masked@4-0"]
    table = make_table(tmp_path, config)
    assert "mini-regularized-0" in table.split("are missing (")[1].split(")")[0]
    assert "mini-masked 4 steps" in table and "| mini-masked |" in table.split("## The shipped models")[1]


WORK = """
import os, signal, sys, torch
torch.set_num_threads(1)
from pathlib import Path
import test_families
from minigen.evaluation.study import run

run.PAUSE = 0.05
rows_left = int(sys.argv[3])
append = run.append_row

def append_or_die(path, row):
    global rows_left
    rows_left -= path.name == run.ROWS
    if rows_left == 0:  # the caption scores are there, the row is not; the locks are held
        os.kill(os.getpid(), signal.SIGKILL)
    append(path, row)

run.append_row = append_or_die
print(*test_families.study(Path(sys.argv[1]), int(sys.argv[2])))
"""


def start(folder: Path, most: int, dies_at_row: int = 0) -> subprocess.Popen:
    """A process of the study; with `dies_at_row` it is killed as it adds that row."""
    path = os.pathsep.join([str(TOP / "tests"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    argv = [sys.executable, "-c", WORK, str(folder), str(most), str(dies_at_row)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})


def test_two_processes_share_the_queue_and_one_that_is_killed_loses_no_row(finished, tmp_path):
    shutil.copytree(finished / "corpus", tmp_path / "corpus")
    first = start(tmp_path, 99, dies_at_row=9)  # a row of the language model's first measurements
    assert first.communicate()[0] == "" and first.returncode == -signal.SIGKILL
    assert len(rows_of(tmp_path)) == 8
    several = [start(tmp_path, 3) for _ in range(2)]
    done = [process.communicate()[0].split() for process in several]
    assert all(process.returncode == 0 for process in several)
    assert len(sum(done, [])) == len(set(sum(done, []))) == 6
    rows = without_clock(tmp_path)
    assert rows == {where: found for where, found in without_clock(finished).items() if where in rows}
    assert {run for run, *_ in rows} > set(sum(done, []))


def test_measurements_go_on_where_only_the_rows_are_left(finished, tmp_path):
    """The work folder may be deleted: a model that is needed again is trained again, with the same weights."""
    shutil.copytree(finished / "corpus", tmp_path / "corpus")
    lines = (finished / "rows" / ROWS).read_text().splitlines(keepends=True)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / ROWS).write_text("".join(line for line in lines if not line.startswith("discrete@4-0")))
    assert study(tmp_path) == ["discrete@4-0"]
    assert without_clock(tmp_path) == without_clock(finished)


# the table


def test_the_table_comes_from_the_rows_alone(finished, tmp_path):
    shutil.copytree(finished / "rows", tmp_path / "rows")
    text = make_table(tmp_path / "rows", SMALL)
    assert (tmp_path / "rows/table.md").read_text() == text == make_table(tmp_path / "rows", SMALL)
    first = text.split("## Differences")[0]
    names = [line.split("|")[1].strip() for line in first.splitlines() if line.startswith("|")][2:]
    assert names == [*CONTROL_ROWS, "language model", "masked", "discrete diffusion", "latent diffusion"]
    assert "Not finished" not in text and "saw 16 clips (4 steps of 4)" in text
    assert len([line for line in text.splitlines() if line.startswith("- **")]) == 6  # every two of four
    budgets = text.split("## Other numbers of evaluations")[1]
    of_masked = [line.split("|")[4].strip() for line in budgets.splitlines() if line.startswith("| masked |")]
    assert of_masked == ["4", "8"]
    assert (tmp_path / "rows/families.svg").exists() and "families.svg" in text and "shipped.svg" not in text


def change(file: Path, run: str, **cells: object) -> None:
    """Overwrite cells of the rows whose run begins with a name."""
    lines = read_rows(file)
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows({**line, **cells} if line["run"].startswith(run) else line for line in lines)


def test_a_difference_is_told_with_its_interval_or_not_at_all(finished, tmp_path):
    rows = tmp_path / "rows"
    shutil.copytree(finished / "rows", rows)
    for run, clap in (("real", 1.0), ("another", 0.99), ("codec", 0.98), ("noise", -1.0)):  # CLAP passes its controls
        change(rows / ROWS, run, clap=clap)
    scores = {"language_model": "0.1 0.2 0.3 0.2", "masked": "0.6 0.7 0.8 0.7", "latent": "0.2 0.1 0.2 0.3"}
    for run, clap in scores.items():
        change(rows / CAPTIONS, run, clap=clap)
    told = {line.split("**: ")[0]: line for line in make_table(rows, SMALL).splitlines() if line.startswith("- **")}
    better = told["- **masked** minus **language model"].split("CLAP ")[1]
    assert better.startswith("+0.500 [+0.500, +0.500] (excludes 0; by seed +0.500, +0.500)")
    assert "includes 0: cannot tell" in told["- **latent diffusion** minus **language model"].split("CLAP ")[1]
    sentence = conclusion(rows, SMALL).splitlines()[-1]
    assert sentence.startswith("Over 2 seeds and 4 captions, compared with the language model: masked ")
    assert "CLAP +0.500 [+0.500, +0.500]; discrete" in sentence and sentence.endswith("(cannot tell).")
    assert "- **masked** minus **language model**" in summary(rows, SMALL)


def test_an_unfinished_study_names_what_is_missing_and_concludes_nothing(finished, tmp_path):
    lines = (finished / "rows" / ROWS).read_text().splitlines(keepends=True)
    shutil.copytree(finished / "rows", tmp_path / "rows")
    (tmp_path / "rows" / ROWS).write_text("".join(line for line in lines if not line.startswith(("latent", "masked@"))))
    text = make_table(tmp_path / "rows", SMALL)
    missing = f"**Not finished**: 4 of {len(SMALL.tasks([]))} tasks of the study are missing"
    assert f"{missing} (latent-0, masked@4-0, latent@4-0, latent-1)." in text
    assert f"{missing}. The same command continues it." in summary(tmp_path / "rows", SMALL)
    assert "| latent diffusion |" not in text and "| masked |" in text
    assert "There is no conclusion yet" in conclusion(tmp_path / "rows", SMALL)


def test_the_conclusion_counts_the_seeds_that_are_measured(finished, tmp_path):
    lines = (finished / "rows" / ROWS).read_text().splitlines(keepends=True)
    shutil.copytree(finished / "rows", tmp_path / "rows")
    (tmp_path / "rows" / ROWS).write_text("".join(line for line in lines if not line.startswith("latent-1")))
    assert conclusion(tmp_path / "rows", SMALL).splitlines()[-1].startswith("Over 1 seed and 4 captions, ")


def test_no_table_without_rows(tmp_path):
    with pytest.raises(MinigenError, match="no rows yet"):
        make_table(tmp_path, SMALL)


def test_the_command_makes_the_table_of_the_families(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minigen.evaluation.study.families.FAMILIES_SMOKE", SMALL)
    shutil.copytree(finished / "rows", tmp_path / "out/smoke/families")
    assert cli.main("study --families --smoke --out out".split()) == 0
    assert capsys.readouterr().out.startswith("0 tasks done; rows in out/smoke/families\n# The families")
    assert cli.main("study --families --first".split()) == 2
    assert cli.main("study --families --table --rows nowhere".split()) == 2
    assert "no rows yet" in capsys.readouterr().err


def test_pages_and_table_say_what_the_rows_in_the_repository_say(tmp_path):
    rows, config = TOP / "data/study/families", FamiliesConfig()
    if not (rows / ROWS).is_file():
        pytest.skip("the study of the families has no rows yet")
    shutil.copytree(rows, tmp_path / "rows")
    assert make_table(tmp_path / "rows", config) == (rows / "table.md").read_text("utf-8")
    for page, text in (("README.md", conclusion), ("docs/study.md", summary)):
        marked = (TOP / page).read_text("utf-8").split("<!-- families -->\n")[1:]
        assert all(part.split("<!-- end of families -->")[0] == text(rows, config) for part in marked)
