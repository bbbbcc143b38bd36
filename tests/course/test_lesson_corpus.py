"""The corpus of a lesson: one name for all notebooks, built once, by the first notebook that asks for it."""

import os
import subprocess
import sys

import pytest
import torch

from minigen.audio import save_audio
from minigen.course import lesson_corpus as lesson
from minigen.course.lesson_corpus import lesson_corpus
from minigen.engine.errors import MinigenError
from minigen.engine.hub import where_typed


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Lessons are kept in a folder of this test; the environment names no corpus."""
    monkeypatch.setattr(lesson, "lessons_folder", lambda: tmp_path)
    monkeypatch.delenv(lesson.VARIABLE, raising=False)
    return tmp_path


def recordings(folder, count: int):
    for number in range(count):
        for kind in ("dog", "rain"):
            save_audio(folder / kind / f"{number}.wav", torch.rand(16000) - 0.5)
    return folder


def test_the_built_in_corpus_has_as_many_clips_as_asked_for_with_their_events(folder):
    corpus = lesson_corpus(clips=5, seconds=1.0)
    assert len(corpus) == 5 and len(corpus.captions) == 5
    assert corpus.load(4).shape == (1, 1, 16000)
    assert all(clip.events for clip in corpus.clips)


def test_it_is_built_once_and_is_the_same_the_second_time(folder, monkeypatch):
    first = lesson_corpus(clips=3, seconds=1.0)
    monkeypatch.setattr(lesson, "build_corpus", lambda *_, **__: pytest.fail("built again"))
    second = lesson_corpus(clips=3, seconds=1.0)
    assert first.captions == second.captions and torch.equal(first.load(2), second.load(2))
    assert len(list(folder.iterdir())) == 1  # and nothing of the making is left behind


def test_every_split_can_be_asked_for_and_holds_enough(folder):
    for split in ("validation", "test"):
        assert len(lesson_corpus(clips=2, seconds=1.0, split=split)) == 2


def test_the_environment_names_other_data_and_the_notebook_still_others(folder, monkeypatch):
    monkeypatch.setenv(lesson.VARIABLE, str(recordings(folder / "theirs", 12)))
    corpus = lesson_corpus(clips=4, seconds=1.0)
    assert set(corpus.captions) <= {"A dog", "Rain", "Dog", "Rain falls", "A dog barks"} and len(corpus) == 4
    with pytest.raises(MinigenError, match="elsewhere"):
        lesson_corpus(folder / "elsewhere")


def test_of_more_clips_some_are_drawn_the_same_ones_for_a_seed_each_with_its_own_sound(folder):
    data = recordings(folder / "mine", 12)
    whole = lesson_corpus(data, clips=99, seconds=1.0)
    drawn, again, other = (lesson_corpus(data, clips=5, seconds=1.0, seed=seed) for seed in (0, 0, 1))
    assert [clip.file for clip in drawn.clips] == [clip.file for clip in again.clips]
    assert [clip.file for clip in drawn.clips] != [clip.file for clip in other.clips]
    places = {clip.file: i for i, clip in enumerate(whole.clips)}
    for i, clip in enumerate(drawn.clips):
        assert torch.equal(drawn.load(i), whole.load(places[clip.file]))


def test_two_processes_that_build_at_once_both_find_a_whole_corpus(folder):
    """As two notebooks that are run side by side do."""
    code = (
        "import sys; from pathlib import Path; from minigen.course import lesson_corpus as lesson\n"
        "lesson.lessons_folder = lambda: Path(sys.argv[1])\n"
        "corpus = lesson.lesson_corpus(clips=4, seconds=1.0); print(corpus.load(3).abs().sum() > 0, *corpus.captions)"
    )
    command, quiet = [sys.executable, "-c", code, str(folder)], {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)
            for _ in range(2)]  # fmt: skip
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] and said[0][0].startswith("tensor(True)")
    assert len(list(folder.iterdir())) == 1


def test_the_second_notebook_takes_what_the_first_one_made(folder, monkeypatch):
    """Between looking and renaming, another notebook was quicker."""
    made = lesson_corpus(clips=3, seconds=1.0)
    (place,) = folder.iterdir()
    moved = place.rename(folder / "moved")

    def build(target, *rest, **options):
        moved.rename(place)
        target.mkdir()
        (target / "half").touch()

    monkeypatch.setattr(lesson, "build_corpus", build)
    assert lesson_corpus(clips=3, seconds=1.0).captions == made.captions


def test_notebooks_keep_what_they_make_where_git_does_not_look(monkeypatch):
    monkeypatch.undo()
    place = lesson.lessons_folder()
    assert place.is_dir() and place.parts[-2:] == ("build", "lessons")
    assert not subprocess.run(["git", "check-ignore", "-q", str(place)], cwd=place).returncode


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "build").touch()
    monkeypatch.setattr(lesson, "ROOT", tmp_path)
    with pytest.raises(MinigenError, match="cannot write"):
        lesson.lessons_folder()


@pytest.mark.parametrize("place", ["recordings", "./recordings/", "../top/recordings"])
def test_a_relative_path_in_the_environment_is_taken_from_where_the_command_was_typed(place, tmp_path, monkeypatch):
    """`MINIGEN_CORPUS=recordings make lab`: the shell stands in the repository, the kernel in notebooks/."""
    (tmp_path / "top/recordings").mkdir(parents=True)
    (tmp_path / "top/notebooks").mkdir()
    monkeypatch.setenv("PWD", str(tmp_path / "top"))
    monkeypatch.chdir(tmp_path / "top/notebooks")
    assert where_typed(place) == str(tmp_path / "top/recordings")
    assert where_typed("owner/name") == "owner/name" and where_typed("") == ""
    with pytest.raises(MinigenError, match=f"no captions in {tmp_path / 'top/recordings'}"):
        monkeypatch.setenv("MINIGEN_CORPUS", place)
        lesson_corpus()
