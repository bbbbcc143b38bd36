"""The reader of ESC-10: labels, kinds and folds come from the names of folders and files."""

import pytest
import torch

from minigen.audio import save_audio
from minigen.engine.errors import MinigenError
from minigen.recipes.esc10 import list_recordings, recordings_of_known_kinds


@pytest.fixture
def folder(tmp_path):
    for name in ("001 - Dog bark/1-100-A.wav", "001 - Dog bark/4-200-B.wav", "012 - Theremin/2-7-A.wav"):
        save_audio(tmp_path / name, 0.1 * torch.randn(1, 1, 8000))
    (tmp_path / "001 - Dog bark/README.md").write_text("no sound")
    (tmp_path / "3-1-A.wav").write_bytes(b"not in a class folder")
    return tmp_path


def test_every_sound_file_of_a_class_folder_is_listed_with_label_kind_and_fold(folder):
    found = [(each.path.name, each.label, each.kind, each.fold) for each in list_recordings(folder)]
    assert found == [
        ("1-100-A.wav", "dog bark", "dog_bark", "1"),
        ("4-200-B.wav", "dog bark", "dog_bark", "4"),
        ("2-7-A.wav", "theremin", "", "2"),
    ]


def test_a_recording_loads_as_a_waveform_at_the_usual_rate(folder):
    assert list_recordings(folder)[0].load().shape == (1, 1, 8000)


def test_only_classes_that_the_corpus_knows_have_a_kind(folder):
    assert [each.kind for each in recordings_of_known_kinds(folder)] == ["dog_bark", "dog_bark"]
    with pytest.raises(MinigenError, match=r"named after a kind \(.*dog_bark.*\)"):
        recordings_of_known_kinds(folder / "012 - Theremin")
