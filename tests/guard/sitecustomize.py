"""What a notebook must not do, refused in its kernel: reach another machine, or leave a file in the repository.

Python imports this by itself where the folder is on PYTHONPATH (`notebooks/conftest.py` puts it there for nbval). It
watches kernels and whatever they start, nothing else. Python tells an audit hook of every connection and of every file
that is opened, and a hook cannot be taken off again. The refusal is no `Exception`: code that tries the network and
shrugs ("except Exception: offline, then") does not swallow it. What a compiled library does by itself (a kernel's own
local sockets, gloo between two processes) is not seen; these talk to this machine alone.
"""

import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
FREE = ("build", ".git", ".venv", ".pytest_cache", ".ruff_cache", ".hypothesis")  # of the repository: git looks at none
LOCAL = ("127.", "::1", "localhost", "0.0.0.0")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CALLS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"}


class Refused(BaseException):
    """A cell of a notebook did what a notebook must not do."""


def watch(event: str, given: tuple) -> None:
    """The audit hook."""
    if event in CALLS:
        address = given[1] if event in ("socket.connect", "socket.sendto") else given[0]
        host = address[0] if isinstance(address, tuple) else address if event.startswith("socket.get") else None
        if host and not _text(host).startswith(LOCAL):
            raise Refused(f"a notebook tried to reach {_text(host)}: it has to run without a network")
    elif event == "open" and isinstance(given[2], int) and given[2] & WRITING:
        _check(given[0])
    elif event in CHANGES and (event == "os.truncate" or given[-1] == -1):
        for place in given[:2]:  # rmtree names a file by an open folder instead (dir_fd, else -1): no place to look up
            _check(place)


def _check(place) -> None:
    if not isinstance(place, str | bytes | os.PathLike):
        return
    path = os.path.realpath(_text(os.fspath(place)))
    if path.startswith(TOP + os.sep):
        parts = os.path.relpath(path, TOP).split(os.sep)
        if parts[0] not in FREE and not {"__pycache__", ".ipynb_checkpoints"} & set(parts):
            raise Refused(
                f"a notebook changed {'/'.join(parts)}: write under build/lessons, or into a temporary folder"
            )


def _text(value) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


if "ipykernel_launcher" in sys.orig_argv or "MINIGEN_GUARDED" in os.environ:
    os.environ["MINIGEN_GUARDED"] = "1"  # for the processes that a kernel starts
    sys.addaudithook(watch)
