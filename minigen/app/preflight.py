"""Checks before a command works: can the output be written, can the prompt be used."""

import os
import tempfile
import time
from pathlib import Path

from minigen.engine.errors import MinigenError

STARTED = time.monotonic()  # about when the process started


def check_writable(path: Path, room: int = 0, is_file: bool = False) -> None:
    """Check that `path` can be written with `room` bytes in it, before hours of work end in an error.

    is_file: `path` is to be a file, not a folder.

    Raises:
        MinigenError: the place or the file cannot be written, or a folder is in the place of the file, or the reverse.
    """
    target = Path(os.path.realpath(path))  # where a symbolic link leads
    if target.exists() and target.is_dir() == is_file:
        raise MinigenError(f"{path} is a {'folder' if is_file else 'file'}. Name another place.")
    if is_file and target.exists() and not os.access(target, os.W_OK):
        raise MinigenError(f"{path} is write-protected. Choose another file, or make it writable.")
    folder = target.parent if is_file else target
    place = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(room))
    except OSError as error:
        raise MinigenError(f"cannot write {path} ({error.strerror}). Choose a place you may write to.") from error


def check_prompt(path: str, seconds: float) -> None:
    """Raise MinigenError if the sound file `path` cannot be read or is as long as the whole clip."""
    from minigen.audio import check_audio

    rate, frames = check_audio(path)
    if frames / rate >= seconds:
        raise MinigenError(
            f"the prompt {path} lasts {frames / rate:.2f} s, the whole clip {seconds:g} s. Ask for more --seconds."
        )
