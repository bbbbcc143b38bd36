"""Files that are there whole or not at all: whatever is killed, pulled out or full, the last good one stays.

    content --> .name.PID.part --fsync--> rename --> name   a reader sees the old file or the new one, never a half
    rows    --> name.csv, each added and flushed by itself  a half line at the end is cut off before the next is added

A rename within a folder happens at once or not at all, and what was flushed before it survives a loss of power; POSIX
promises the first, fsync the second (Pillai et al., "All file systems are not created equal", OSDI 2014). Everything
that costs more than a moment to make again is written here: checkpoints, weights, tokens, tables, answers.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from minigen.engine.errors import MinigenError


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write the file that is yielded; leaving the block flushes it to the disk and renames it to `path`.

    Parent folders are made. Where the block fails, nothing is left behind and an earlier `path` stays as it was.

    Raises:
        MinigenError: the place cannot be written, or the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _flush(part)
        os.replace(part, path)
        _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a whole file through `aside`. Text is UTF-8.

    Raises:
        MinigenError: the place cannot be written; nothing is left behind.
    """
    with atomic_file(path) as part:
        part.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines to the end of a text file and flush them to the disk.

    Raises:
        MinigenError: the place cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def append_row(path: str | Path, row: dict) -> None:
    """Add one row to a CSV that only grows; the first row makes the file and its header.

    A program that is killed while it adds a row loses that row and no other. Line breaks in a cell become spaces.

    Raises:
        MinigenError: the table has other columns, or the place cannot be written.
    """
    path = Path(path)
    header, line = (_csv_line(cells) for cells in (row, row.values()))
    whole = _whole_lines(path, mend=True)
    if whole is None:
        write_atomically(path, header + "\n")
    elif whole.split("\n", 1)[0] != header:
        raise MinigenError(f"{path} has the columns {whole.splitlines()[0]}, not {header}. Name another file.")
    append_lines(path, [line])


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a table that `append_row` made, without a last one that was cut off. An absent file has none.

    Raises:
        MinigenError: the place cannot be read.
    """
    return list(csv.DictReader(io.StringIO(_whole_lines(Path(path)) or "")))


def remove_stale_parts(folder: str | Path) -> None:
    """Remove what killed processes left beside their files in a folder: parts whose process no longer lives."""
    for part in Path(folder).glob(".*.*.part"):
        process = part.name.split(".")[-2]
        if process.isdigit() and not _lives(int(process)):
            with suppress(OSError):
                part.unlink()


def try_lock(path: str | Path) -> IO | None:
    """Take a job for this process: an open file that holds it, or None where another process has it.

    Closing the file gives the job back; so does the end of the process, whatever ended it, since the lock is the
    system's and not the file's existence. Where there are no such locks (Windows, some network disks), the job is
    always given.

    Raises:
        MinigenError: the place cannot be written.
    """
    return _locked(path, wait=False)


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Wait until no other process is in a block with this path, then go through it; see `claim`.

    Raises:
        MinigenError: the place cannot be written.
    """
    file = _locked(path, wait=True)
    try:
        yield
    finally:
        file.close()


def _locked(path: str | Path, wait: bool) -> IO | None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # open as long as the lock is held
    except OSError as error:
        raise cannot_write(path, error) from error
    with suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            pass  # a file system without locks: as where the system has none
    return file


def cannot_write(path: str | Path, error: OSError) -> MinigenError:
    """What to say, on one line, of a file that could not be written."""
    reason = error.strerror or error
    return MinigenError(f"cannot write {path} ({reason}). Make room, or choose a place you may write to.")


def _csv_line(cells: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(" ".join(str(cell).splitlines()) for cell in cells)
    return text.getvalue()


def _whole_lines(path: Path, mend: bool = False) -> str | None:
    """The file's text without a last half line; None where there is no file or no whole line.

    mend: cut that half line off the file, too. Only who is about to write may: to a reader it may be one that another
    process is in the middle of writing.
    """
    try:
        if not path.exists():
            return None
        with open(path, "r+b" if mend else "rb") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if mend and end < len(content):
                file.truncate(end)
        return content[:end].decode("utf-8", "replace") or None
    except OSError as error:
        raise cannot_write(path, error) from error


def _flush(path: Path) -> None:
    """To the disk itself: a file's content, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
