"""Files that are complete or absent: an interrupted write, a crash or a full disk keeps the last good version.

    content --> .name.PID.part/name --fsync--> rename --> name   a reader sees the old file or the new one
    rows    --> name.csv, each appended and flushed on its own   half a line at the end is removed before the next row

A rename within a file system is atomic (POSIX), and data flushed before it survives a loss of power (Pillai et al.,
"All file systems are not created equal", OSDI 2014). Everything that takes more than a moment to compute is written
with these functions: checkpoints, weights, tokens, tables, answers of listeners.
"""

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minigen.engine.errors import MinigenError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; at the end of the block the file is flushed and renamed to `path`.

    The temporary file lies in a folder of its own, so that a library may put further files beside it. Parent folders of
    `path` are created; a symbolic link is followed. If the block fails, nothing is left and an old `path` stays.

    Raises:
        MinigenError: the place cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path) if os.path.islink(path) else path)
    folder = path.with_name(f".{path.name}.{os.getpid()}.part")
    part = folder / path.name
    try:
        _refuse_read_only(path)
        folder.mkdir(parents=True, exist_ok=True)
        yield part
        part.chmod(folder.stat().st_mode & 0o666)  # some libraries create files that only their owner may read
        _flush(part)
        os.replace(part, path)
        _flush(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write a whole file through `atomic_file`. Text is encoded as UTF-8.

    Raises:
        MinigenError: the place cannot be written; nothing is left behind.
    """
    with atomic_file(path) as part:
        part.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Append lines to a text file and flush them to the disk.

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
    """Append one row to a CSV file; the first row creates the file and its header.

    A process that is killed while it appends loses this row only. Line breaks within a cell become spaces.

    Raises:
        MinigenError: the file has other columns, or cannot be written.
    """
    path = Path(path)
    header, line = _csv_line(row), _csv_line(row.values())
    existing = _complete_lines(path, repair=True)
    if existing is None:
        write_atomically(path, header + "\n")
    elif existing.split("\n", 1)[0] != header:
        raise MinigenError(f"{path} has the columns {existing.splitlines()[0]}, not {header}. Name another file.")
    append_lines(path, [line])


def write_rows(path: str | Path, rows: list[dict]) -> None:
    """Write rows of the same columns as a CSV file, with a header, in folders that are made if need be.

    Raises:
        MinigenError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a file written by `append_row`, without an incomplete last one; no rows if the file does not exist.

    Raises:
        MinigenError: the file cannot be read.
    """
    return list(csv.DictReader(io.StringIO(_complete_lines(Path(path)) or "")))


def remove_stale_parts(folder: str | Path) -> None:
    """Remove the temporary files that killed processes left in a folder; those of running processes stay."""
    import psutil

    for part in Path(folder).glob(".*.*.part"):
        process = part.name.split(".")[-2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def try_lock(path: str | Path) -> "BaseFileLock | None":
    """Acquire the lock file `path` without waiting; None if another process holds it.

    `release()` frees the lock, and so does the end of the process, however it ended: the lock belongs to the open file,
    not to the existence of the file.

    Raises:
        MinigenError: the place cannot be written.
    """
    from filelock import Timeout

    try:
        return _acquire(path, blocking=False)
    except Timeout:
        return None


@contextmanager
def exclusive(path: str | Path) -> Iterator[None]:
    """Run a block while holding the lock file `path`; wait as long as another process holds it. See `try_lock`.

    Raises:
        MinigenError: the place cannot be written.
    """
    lock = _acquire(path, blocking=True)
    try:
        yield
    finally:
        lock.release()


def _acquire(path: str | Path, blocking: bool) -> "BaseFileLock":
    """Acquire a lock file; `filelock.Timeout` if another process holds it and `blocking` is False."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=blocking)
    except Timeout:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    return lock


def cannot_write(path: str | Path, error: OSError) -> MinigenError:
    """The one-line error for a file that could not be written."""
    reason = error.strerror or error
    return MinigenError(f"cannot write {path} ({reason}). Make room, or choose a place you may write to.")


def _refuse_read_only(path: Path) -> None:
    """PermissionError if `path` exists and is write-protected; renaming over it would ignore the protection."""
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _csv_line(cells: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(" ".join(str(cell).splitlines()) for cell in cells)
    return text.getvalue()


def _complete_lines(path: Path, repair: bool = False) -> str | None:
    """Text of the file without an incomplete last line; None if there is no file or no complete line.

    repair: also remove that incomplete line from the file. Only a writer may: for a reader it may be a line that
    another process is writing at this moment.
    """
    try:
        if not path.exists():
            return None
        with open(path, "r+b" if repair else "rb") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if repair and end < len(content):
                file.truncate(end)
        return content[:end].decode("utf-8", "replace") or None
    except OSError as error:
        raise cannot_write(path, error) from error


def _flush(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows does not open folders
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
