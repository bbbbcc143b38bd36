"""Meaning of the names of folders and files: the split that they name, the sound that they name, or neither.

audio/fold1/…, data/train/…   containers of files: no caption is made from them
dog bark/…, 001 - Rain/…      names of sounds
train/dog/…                   a split, and in it the name of a sound
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SPLITS = {
    "train": ("train", "training", "development"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_WORDS = {word for words in SPLITS.values() for word in words}
# Words in names of container folders. One word of the first set is enough; otherwise all words must be in the second.
KEEPERS = {"audio", "audios", "wav", "wavs", "flac", "mp", "ogg", "dataset", "datasets", "meta", "metadata"}
NEUTRAL = KEEPERS | SPLIT_WORDS | {
    "data", "clip", "clips", "sound", "sounds", "recording", "recordings", "sample", "samples", "segment", "segments",
    "file", "files", "fold", "folds", "part", "parts", "partial", "chunk", "batch", "split", "set", "raw", "original",
    "processed", "output", "default", "download", "downloads", "all", "full", "hz", "khz", "k", "v",
}  # fmt: skip


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder in `folder` with the sorted names in it; links to folders are followed, each folder is visited once.

    Hidden files are left out: macOS puts a file ._x.wav beside x.wav. The names include those of subfolders.
    """
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        place = os.path.realpath(where)
        if place in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(where), sorted(name for name in [*names, *folders] if not name.startswith("."))


def split_named(name: str) -> str | None:
    """The split that a name contains ("train_v2" -> "train"); None if it contains no split or several."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [split for split, spellings in SPLITS.items() if words & set(spellings)]
    return found[0] if len(found) == 1 else None


def split_of_path(parts: tuple[str, ...]) -> str | None:
    """The split that the innermost folder with a split in its name names, or None."""
    return next((split for part in reversed(parts) if (split := split_named(part))), None)


def keeps_files(name: str) -> bool:
    """Whether a folder of this name is a container of files ("audio", "fold3", "dev_clean"), not a sound."""
    from minigen.corpus.synthesis.captions import kind_of_label  # loads scipy, which most commands do not need

    words = set(re.findall(r"[a-z]+", name.lower()))
    if words <= NEUTRAL or words & KEEPERS:
        return True
    return bool(words & (SPLIT_WORDS - {"train"})) and kind_of_label(name) is None


def label_of(folders: tuple[str, ...], beside: set[str]) -> str | None:
    """The outermost of nested folders that is named for a sound; None if all are containers of files.

    beside: names of the outermost folders of the whole data set. If another of them is named for a sound, a folder
    "train" means the vehicle, as in ESC-50.
    """
    for depth, name in enumerate(folders):
        vehicle = depth == 0 and name.lower() == "train" and any(not keeps_files(other) for other in beside)
        if vehicle or not keeps_files(name):
            return name
    return None


def source_of(path: Path, folder: Path) -> str:
    """Source of a recording. ESC-10's takes "1-30226-A" and "1-30226-B" have one source and stay in one split."""
    esc = re.match(r"\d+-\d+(?=-[A-Z])", path.stem)
    return esc[0] if esc else path.relative_to(folder).with_suffix("").as_posix()


def share_out(sources: Iterable[str]) -> dict[str, str]:
    """Split of each source, by its hash in [0, 1): test below 0.1, validation below 0.2, else train.

    Adding a source does not change the split of the others. If a split would be empty, as may happen with few sources,
    test gets the source with the lowest hash, and validation the next one.
    """
    digest = {source: hashlib.sha256(source.encode("utf-8", "replace")).digest() for source in sources}
    order = sorted(digest, key=digest.get)
    below = [sum(int.from_bytes(digest[source][:4]) < edge * 2**32 for source in order) for edge in (0.1, 0.2)]
    test = max(1, below[0])
    validation = max(test + 1, below[1])
    splits = ["test"] * test + ["validation"] * (validation - test) + ["train"] * max(0, len(order) - validation)
    return dict(zip(order, splits, strict=False))
