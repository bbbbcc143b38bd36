"""Token cache on disk, from which training reads codes, a batch at a time.

    codes.npy      int16 [n, K, T], memory-mapped
    latents.npy    float16 [n, T, C], memory-mapped; only where latents were asked for
    rows.jsonl     caption, events, source: line i describes codes[i]
    skipped.jsonl  clips that were left out, with the reason
    tokens.json    settings, and numbers of finished clips and rows; entries beyond them are invalid

`minigen.corpus.tokens` writes it: codes first, then rows, then the state that counts them. If it is killed in between,
the state still counts complete rows only. Reading these files executes nothing; damaged files are refused.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigen.corpus.clip import Event
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.resources import Requirements


@dataclass(frozen=True)
class TokenSet:
    """A finished token cache, opened; codes are read from disk when a batch needs them.

    Attributes:
        codes: int16 [n, K, T], a memory map.
        captions, events, sources: one entry a row; a mixture has two sources.
        frame_rate: codec frames a second; codebook_size: V.
    """

    codes: np.ndarray
    captions: list[str]
    events: list[tuple[Event, ...]]
    sources: list[list[str]]
    frame_rate: float
    codebook_size: int

    def __len__(self) -> int:
        return len(self.captions)

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, list[str]]:
        """Rows `indices` -> (codes int64 [B, K, T], captions)."""
        rows = [int(index) for index in indices]
        return torch.from_numpy(self.codes[rows].astype(np.int64)), [self.captions[row] for row in rows]

    @classmethod
    def open(cls, folder: str | Path) -> "TokenSet":
        """Open what `tokenize` wrote.

        Raises:
            MinigenError: no token cache there, or one that is not finished or damaged.
        """
        folder = Path(folder)
        state = read_state(folder)
        if state is None or not state["done"]:
            what = "no tokens" if state is None else f"unfinished tokens ({state['next']} of {state['jobs']} clips)"
            raise MinigenError(f"there are {what} in {folder}. Run `minigen tokenize` to make them.")
        codes, rows = open_codes(folder, "r")[: state["rows"]], read_lines(folder / "rows.jsonl")
        if len(rows) != len(codes) or not rows:
            raise damaged(folder / "rows.jsonl")
        try:
            events = [tuple(Event(**event) for event in row["events"]) for row in rows]
            captions, sources = [row["caption"] + "" for row in rows], [list(row["source"]) for row in rows]
        except (TypeError, KeyError) as error:
            raise damaged(folder / "rows.jsonl") from error
        return cls(codes, captions, events, sources, state["codec"]["frame_rate"], state["codec"]["codebook_size"])


@dataclass(frozen=True)
class LatentSet(TokenSet):
    """A token cache with the codec's latents before quantisation; batches hold latents in place of codes.

    Attributes:
        latents: float16 [n, T, C], a memory map: the first C components, which have the most variance.
    """

    latents: np.ndarray

    def batch(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, list[str]]:
        """Rows `indices` -> (latents float32 [B, T, C], captions)."""
        rows = [int(index) for index in indices]
        return torch.from_numpy(self.latents[rows].astype(np.float32)), [self.captions[row] for row in rows]

    @classmethod
    def open(cls, folder: str | Path) -> "LatentSet":
        """Open what `tokenize(..., latents=True)` wrote.

        Raises:
            MinigenError: as `TokenSet.open`; tokens without latents.
        """
        tokens, folder = TokenSet.open(folder), Path(folder)
        if not (folder / "latents.npy").is_file():
            raise MinigenError(f"the tokens in {folder} have no latents. Make them with `minigen tokenize --latents`.")
        return cls(**vars(tokens), latents=open_latents(folder, "r")[: len(tokens)])


def read_state(folder: Path) -> dict | None:
    """Content of tokens.json; None if the file does not exist.

    Raises:
        MinigenError: it is damaged.
    """
    file = folder / "tokens.json"
    try:
        state = json.loads(file.read_text("utf-8")) if file.is_file() else None
        if state is not None:
            counts = [state[name] for name in ("jobs", "next", "rows", "skipped")]
            counts += [state["codec"]["codebook_size"], int(state["codec"]["frame_rate"]), int(state["done"])]
            if any(type(count) is not int or count < 0 for count in counts):
                raise ValueError("a count is not a whole number of 0 or more")
        return state
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(file) from error


def write_state(folder: Path, state: dict) -> None:
    """Write tokens.json atomically. The codes and rows that it counts must be on the disk already."""
    write_atomically(folder / "tokens.json", json.dumps(state, indent=1) + "\n")


def allocate(folder: Path, name: str, shape: tuple[int, ...], dtype: type) -> None:
    """Create an array such as codes.npy at its full size and reserve the disk space.

    Without the reservation, writing to the memory map on a full disk would kill the process without a message.

    Raises:
        MinigenError: too little room, or a folder that cannot be written.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    Requirements(f"{name} of all clips", disk=size, folder=folder).check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(folder / name, "w+", dtype, shape).flush()
        if hasattr(os, "posix_fallocate"):
            with open(folder / name, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(folder / name))
    except OSError as error:
        raise MinigenError(f"cannot write tokens to {folder} ({error.strerror}). Choose another folder.") from error


def open_codes(folder: Path, mode: str) -> np.ndarray:
    """codes.npy as a memory map.

    Raises:
        MinigenError: it is missing or damaged.
    """
    return _open_array(folder / "codes.npy", mode, np.int16)


def open_latents(folder: Path, mode: str) -> np.ndarray:
    """latents.npy as a memory map.

    Raises:
        MinigenError: it is missing or damaged.
    """
    return _open_array(folder / "latents.npy", mode, np.float16)


def _open_array(file: Path, mode: str, dtype: type) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode=mode)  # allow_pickle is off: nothing in it is executed
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise damaged(file) from error
    if array.ndim != 3 or array.dtype != dtype or 0 in array.shape[1:]:
        raise damaged(file)
    return array


def read_lines(file: Path) -> list[dict]:
    """The rows of a .jsonl file.

    Raises:
        MinigenError: it is missing or damaged.
    """
    try:
        return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise damaged(file) from error


def keep_lines(file: Path, count: int) -> None:
    """Cut a file to its first `count` lines: those after them were written after the last state."""
    lines = file.read_text("utf-8", "replace").split("\n")[:count] if file.is_file() else []
    write_atomically(file, "".join(line + "\n" for line in lines))


def damaged(file: Path) -> MinigenError:
    """The error for a file of the cache that is missing or damaged."""
    return MinigenError(f"{file} is missing or damaged. Delete {file.parent} and tokenize again.")
