"""`minigen doctor`: tests every part of the installation, and names the command that repairs a broken one.

    ok       PyTorch             2.13.0+cpu: no GPU, 2 threads, fast bfloat16
    broken   torchaudio          libcudart.so.13: cannot open shared object file: No such file or directory
             repair it with: .venv/bin/python -m minigen doctor --mend

Not part of the chain. Nothing heavy is imported at the top, because it has to work without PyTorch too.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.hub import DATA, INSTALLED, shipped

WEIGHTS = ("codec/mini", "text/mini", "lm/mini-no-dropout", "lm/mini-dropout", "lm/mini-regularized", "judge/mini",
           "tagger/mini")  # fmt: skip
ROOM = 1.0  # GB that `minigen demo` may need under build/


@dataclass(frozen=True)
class Finding:
    """One line of the report. state: "ok", "missing" or "broken". mend: command that repairs it."""

    state: str
    what: str
    detail: str
    mend: str = ""
    essential: bool = True

    def __str__(self) -> str:
        line = f"{self.state:<9}{self.what:<20}{self.detail}"
        return line + (f"\n{'':<9}repair it with: {self.mend}" if self.mend else "")


def run_doctor(mend: bool = False, show: Callable[[str], None] = print) -> int:
    """Test every part and show a line for each. Returns 0 if everything essential works, else 1.

    mend: first rename torchaudio's compiled extension if it prevents `import torchaudio`.
    """
    if mend:
        show(mend_torchaudio())
    faults = 0
    for finding in examine():
        show(str(finding))
        if finding.essential and finding.state != "ok":
            faults += 1
    if faults:
        show(f"{faults} of these must be repaired before minigen can run.")
        return 1
    show("Everything that minigen needs works.")
    return 0


def examine() -> Iterator[Finding]:
    """Yield a finding for every part, in the order of the chain. A part is tested when its finding is asked for."""
    yield _python()
    yield _library("PyTorch", "torch", _try_torch)
    yield _library("torchaudio", "torchaudio", _try_torchaudio, repair=f"{_python_command()} -m minigen doctor --mend")
    yield _library("encodec", "encodec")
    yield _library("transformers", "transformers")
    yield _library("soundfile", "soundfile", _try_soundfile)
    yield from (_weights(*name.split("/")) for name in WEIGHTS)
    yield from (_weights("generators", name) for name in shipped("generators"))
    yield _installed("JupyterLab", "jupyterlab")
    yield _installed("ipywidgets", "ipywidgets")
    yield _disk(Path("build"))


def _python() -> Finding:
    return Finding("ok", "Python", f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}")


def _library(what: str, module: str, attempt: Callable[[], str] = str, repair: str = "") -> Finding:
    """Import a library and try it. attempt: returns a remark; repair: command that repairs an installed library."""
    if PathFinder.find_spec(module) is None:
        return Finding("missing", what, "not installed", _install(module))
    try:
        importlib.import_module(module)
        said = attempt()
    except Exception as error:  # a broken library may raise anything
        return Finding("broken", what, _one_line(error), repair or _install(module, "--force-reinstall --no-deps "))
    return Finding("ok", what, metadata.version(module) + (said and f": {said}"))


def _installed(what: str, package: str) -> Finding:
    """Find a package that only notebooks need. It is not imported, because that takes a second."""
    try:
        return Finding("ok", what, metadata.version(package), essential=False)
    except metadata.PackageNotFoundError:
        return Finding("missing", what, "not installed; only notebooks need it", _install(package), essential=False)


def _try_torch() -> str:
    import torch

    from minigen.engine.resources import fast_bf16

    if not torch.equal(torch.eye(2) @ torch.ones(2, 1), torch.ones(2, 1)):
        raise MinigenError("a product of two matrices comes out wrong")
    device = f"GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
    return f"{device}, {torch.get_num_threads()} threads, {'fast' if fast_bf16() else 'no fast'} bfloat16"


def _try_torchaudio() -> str:
    import torch
    from torchaudio.functional import resample

    if resample(torch.zeros(1, 480), 48000, 16000).shape != (1, 160):
        raise MinigenError("resampling 480 samples from 48 to 16 kHz does not give 160")
    compiled = any(_extension_folder().glob("*.so"))
    return "with its compiled extension" if compiled else "in pure Python, without its compiled extension"


def _try_soundfile() -> str:
    import io

    import numpy
    import soundfile

    for kind in ("WAV", "FLAC", "OGG"):
        file = io.BytesIO()
        soundfile.write(file, numpy.zeros(1600), 16000, format=kind)
        if len(soundfile.read(io.BytesIO(file.getvalue()))[0]) != 1600:
            raise MinigenError(f"1600 samples written as {kind} do not come back")
    return "writes and reads wav, flac and ogg"


def _weights(part: str, name: str) -> Finding:
    """Load a shipped model."""
    what, folder = f"{part} weights", DATA / part / name
    mend = _restore(folder)
    if not (folder / "model.safetensors").is_file():
        return Finding("missing", what, f"no {_short(folder / 'model.safetensors')}", mend)
    try:
        _load(part, name)
    except ImportError as error:
        return Finding("broken", what, f"cannot be tried: {_one_line(error)}", "the commands above, then try again")
    except Exception as error:  # a damaged file may raise anything
        return Finding("broken", what, _one_line(error), mend)
    return Finding("ok", what, f"{name}, {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB")


def _restore(folder: Path) -> str:
    """The command that restores the shipped model in a folder."""
    if os.environ.get("MINIGEN_DATA"):
        return "unset MINIGEN_DATA"
    if not INSTALLED:
        return f"git checkout -- {_short(folder)}"
    try:
        source = json.loads(metadata.distribution("minigen").read_text("direct_url.json") or "{}").get("url")
    except metadata.PackageNotFoundError:
        source = None
    return f"{_python_command()} -m pip install --force-reinstall --no-deps {source or 'SOURCE_OF_MINIGEN'}"


def _load(part: str, name: str) -> None:
    from minigen import codec, lm, text
    from minigen.evaluation import clap
    from minigen.generators.base import load_generator

    load = {"codec": codec.load_codec, "text": text.load_text_encoder, "lm": lm.AudioLM.from_pretrained}
    load |= {"generators": load_generator, "judge": clap.load_judge, "tagger": clap.load_tagger}
    load[part](name)


def _disk(folder: Path) -> Finding:
    """Check space and permission to write `folder`, or the folder in which it would be made."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return Finding("broken", f"{folder}/", f"cannot be written: {error.strerror}", f"chmod u+w {_short(place)}")
    if free < ROOM:
        room = f"{free:.1f} GB free; {ROOM:g} GB may be needed"
        return Finding("broken", f"{folder}/", room, f"delete what you do not need in {_short(place)}")
    return Finding("ok", f"{folder}/", f"can be written, {free:.0f} GB free")


def mend_torchaudio() -> str:
    """Make `import torchaudio` work if its compiled extension does not fit the PyTorch. Returns what was done.

    Linux wheels of torchaudio are CUDA builds. With a CPU-only PyTorch the extension cannot be loaded, and the import
    fails. Without the extension's files torchaudio runs in pure Python, which is all that minigen needs. The files are
    renamed, not deleted, and only if that helps; if the import works, nothing is changed.
    """
    if PathFinder.find_spec("torchaudio") is None or import_error("torch"):
        return "torchaudio: nothing to mend before PyTorch and torchaudio are installed."
    before = import_error("torchaudio")
    if not before:
        return "torchaudio: imports as it is; nothing to mend."
    files = sorted(_extension_folder().glob("*.so"))
    _rename(files, lambda file: file.with_name(file.name + ".aside"))
    after = import_error("torchaudio")
    if after:
        _rename([file.with_name(file.name + ".aside") for file in files], lambda file: file.with_suffix(""))
        return f"torchaudio: cannot be imported with its compiled extension or without; nothing was changed: {after}"
    return (
        f"torchaudio: its compiled extension cannot be loaded here ({before}). Set aside "
        f"{', '.join(file.name for file in files)} in {_short(_extension_folder())} (renamed to *.so.aside; rename "
        "back to undo). It now imports and runs in pure Python, which is all that minigen needs."
    )


def import_error(module: str) -> str:
    """Import a module in a new process. Returns the last line of the error, or "" if there was none."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["the process died"])[-1]


def _rename(files: list[Path], name: Callable[[Path], Path]) -> None:
    for file in files:
        try:
            file.rename(name(file))
        except OSError as error:
            raise MinigenError(
                f"cannot rename {file} ({error.strerror}). Run `minigen doctor --mend` as the owner of the environment."
            ) from error


def _extension_folder() -> Path:
    """Folder of torchaudio's compiled extension, found without importing torchaudio."""
    return Path(PathFinder.find_spec("torchaudio").origin).parent / "lib"


def _install(module: str, options: str = "") -> str:
    """The pip command that installs a library in the version of pyproject.toml; for PyTorch, the one for processors."""
    try:
        asked = [line for line in metadata.requires("minigen") or [] if re.match(rf"{module}\b", line)]
    except metadata.PackageNotFoundError:
        asked = []
    exact = next((line for line in asked if 'extra == "cpu"' in line), asked[0] if asked else module)
    return f"{_python_command()} -m pip install {options}'{exact.split(';')[0].strip()}'"


def _python_command() -> str:
    """This Python as a user would type it here."""
    return _short(Path(sys.executable))


def _short(path: Path) -> str:
    """A path as a user would type it: relative if it lies below the working folder."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
