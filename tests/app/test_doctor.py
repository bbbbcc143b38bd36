"""The doctor: it finds what is wrong, names the command that mends it, and mends torchaudio without breaking it."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from minigen.app import doctor
from minigen.app.cli import main
from minigen.engine.errors import MinigenError

NEEDS_NO_EXTENSION = """
from pathlib import Path
if list((Path(__file__).parent / "lib").glob("*.so")):
    raise OSError("libcudart.so.13: cannot open shared object file: No such file or directory")
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of libraries with a torch that imports and a torchaudio whose import runs `NEEDS_NO_EXTENSION`."""
    (tmp_path / "torch.py").write_text("")
    lib = tmp_path / "torchaudio/lib"
    lib.mkdir(parents=True)
    for name in ("_torchaudio.so", "libtorchaudio.so"):
        (lib / name).write_bytes(b"compiled")
    (tmp_path / "torchaudio/__init__.py").write_text(NEEDS_NO_EXTENSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).resolve().parents[2]}")
    return tmp_path


def extension(site: Path) -> list[str]:
    return sorted(path.name for path in (site / "torchaudio/lib").iterdir())


def test_mending_sets_the_extension_aside_where_it_keeps_torchaudio_from_being_imported(site):
    assert "libcudart" in doctor.import_error("torchaudio")
    said = doctor.mend_torchaudio()
    assert "libcudart.so.13" in said and "_torchaudio.so, libtorchaudio.so" in said and "rename back" in said
    assert extension(site) == ["_torchaudio.so.aside", "libtorchaudio.so.aside"]
    assert doctor.import_error("torchaudio") == ""
    assert (site / "torchaudio/lib/libtorchaudio.so.aside").read_bytes() == b"compiled"


def test_mending_twice_changes_nothing_more(site):
    doctor.mend_torchaudio()
    assert "nothing to mend" in doctor.mend_torchaudio()
    assert extension(site) == ["_torchaudio.so.aside", "libtorchaudio.so.aside"]


def test_mending_leaves_a_torchaudio_that_imports_alone(site):
    (site / "torchaudio/__init__.py").write_text("")
    assert "nothing to mend" in doctor.mend_torchaudio()
    assert extension(site) == ["_torchaudio.so", "libtorchaudio.so"]


def test_mending_puts_everything_back_where_it_does_not_help(site):
    (site / "torchaudio/__init__.py").write_text("raise ImportError('another trouble')")
    said = doctor.mend_torchaudio()
    assert "another trouble" in said and "nothing was changed" in said
    assert extension(site) == ["_torchaudio.so", "libtorchaudio.so"]


def test_mending_waits_for_a_pytorch_that_works(site):
    (site / "torch.py").write_text("raise ImportError('no torch')")
    assert "before PyTorch" in doctor.mend_torchaudio()
    assert extension(site) == ["_torchaudio.so", "libtorchaudio.so"]


def test_files_that_may_not_be_renamed_are_a_clear_error(site, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(MinigenError, match="Permission denied.*owner"):
        doctor.mend_torchaudio()


def test_a_library_that_is_not_installed_comes_with_its_pip_command_in_the_version_of_the_project():
    finding = doctor._library("Soundfile", "no_such_library")
    assert finding.state == "missing" and finding.mend.endswith("-m pip install 'no_such_library'")
    assert doctor._install("soundfile").endswith("-m pip install 'soundfile>=0.13'")
    assert (
        doctor._install("transformers", "--force-reinstall ").split(" install ")[1].startswith("--force-reinstall 'tra")
    )
    assert Path(doctor._install("soundfile").split()[0]).name == Path(sys.executable).name


def test_a_library_that_fails_its_trial_is_broken_and_says_why():
    def fail():
        raise RuntimeError("the wav\ncomes back wrong")

    finding = doctor._library("soundfile", "soundfile", fail)
    assert (
        finding.state == "broken"
        and finding.detail == "the wav comes back wrong"
        and "--force-reinstall" in finding.mend
    )


def test_a_broken_torchaudio_is_sent_to_the_mending(monkeypatch):
    def fail():
        raise OSError("libcudart.so.13")

    monkeypatch.setattr(doctor, "_try_torchaudio", fail)
    finding = next(finding for finding in doctor.examine() if finding.what == "torchaudio")
    assert finding.state == "broken" and finding.mend.endswith("-m minigen doctor --mend")


def test_weights_that_are_gone_or_damaged_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DATA", tmp_path)
    monkeypatch.delenv("MINIGEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    missing = doctor._weights("codec", "mini")
    assert (missing.state, missing.mend) == ("missing", "git checkout -- codec/mini")
    (tmp_path / "codec/mini").mkdir(parents=True)
    (tmp_path / "codec/mini/model.safetensors").write_bytes(b"cut off")
    (tmp_path / "codec/mini/config.json").write_text("{}")
    monkeypatch.setattr("minigen.engine.hub.DATA", tmp_path)
    assert doctor._weights("codec", "mini").state == "broken"


def test_weights_of_another_folder_are_mended_by_forgetting_it(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DATA", tmp_path)
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path))
    assert doctor._weights("lm", "mini-dropout").mend == "unset MINIGEN_DATA"


def test_a_place_that_cannot_be_written_or_is_full_is_reported(tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("a file")
    assert doctor._disk(tmp_path / "notes/build").state == "broken"
    assert doctor._disk(tmp_path / "build").state == "ok"
    monkeypatch.setattr(doctor, "ROOM", 1e9)
    assert "GB free" in doctor._disk(tmp_path / "build").detail and doctor._disk(tmp_path / "build").state == "broken"
    assert not (tmp_path / "build").exists()


def test_what_only_notebooks_need_does_not_fail_the_rest(monkeypatch):
    ill = doctor.Finding("missing", "JupyterLab", "not installed", "pip install jupyterlab", essential=False)
    monkeypatch.setattr(doctor, "examine", lambda: iter([ill]))
    assert doctor.run_doctor(show=lambda line: None) == 0
    monkeypatch.setattr(doctor, "examine", lambda: iter([replace(ill, essential=True)]))
    assert doctor.run_doctor(show=lambda line: None) == 1


def test_everything_works_here(capsys):
    """The doctor on the environment of the tests: every line ok, one for each part, and status 0."""
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Everything that minigen needs works."
    assert all(line.startswith("ok ") for line in lines[:-1]), lines
    text = "\n".join(lines)
    parts = ["Python", "PyTorch", "torchaudio", "encodec", "transformers", "soundfile", "codec weights", "text weights",
             "lm weights", "judge weights", "tagger weights", "JupyterLab", "ipywidgets", f"build{os.sep}"]  # fmt: skip
    assert all(f"  {part}" in text for part in parts)
