"""What names of folders and files say: which split they hold, and whether they name a sound or only keep files.

audio/fold1/…, data/train/…   keep files: no caption is made from them        train/dog/… is of the training split
dog bark/…, 001 - Rain/…      name what sounds
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from minigen.corpus.synthesis.captions import kind_of_label

SPLITS = {
    "train": ("train", "training", "development"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_WORDS = {word for words in SPLITS.values() for word in words}
# Words of folders that keep files. One of the first set is enough; of the second, all words of a name have to be.
KEEPERS = {"audio", "audios", "wav", "wavs", "flac", "mp", "ogg", "dataset", "datasets", "meta", "metadata"}
NEUTRAL = KEEPERS | SPLIT_WORDS | {
    "data", "clip", "clips", "sound", "sounds", "recording", "recordings", "sample", "samples", "segment", "segments",
    "file", "files", "fold", "folds", "part", "parts", "partial", "chunk", "batch", "split", "set", "raw", "original",
    "processed", "output", "default", "download", "downloads", "all", "full", "hz", "khz", "k", "v",
}  # fmt: skip


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder in `folder` with the names in it, sorted; links to folders are followed, each folder is seen once.

    What is hidden is left out: macOS leaves a file ._x.wav beside x.wav. A name of a folder that ends like a sound file
    is listed too.
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
    """The one split that a name speaks of ("train_v2" -> "train", "clotho_development" -> "train"), or None."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    found = [split for split, spellings in SPLITS.items() if words & set(spellings)]
    return found[0] if len(found) == 1 else None


def split_of_path(parts: tuple[str, ...]) -> str | None:
    """The split that the innermost of some folders names, or None."""
    return next((split for part in reversed(parts) if (split := split_named(part))), None)


def keeps_files(name: str) -> bool:
    """Whether a folder of this name only keeps files ("audio", "fold3", "dev_clean"), and names no sound."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    if words <= NEUTRAL or words & KEEPERS:
        return True
    return bool(words & (SPLIT_WORDS - {"train"})) and kind_of_label(name) is None


def label_of(folders: tuple[str, ...], beside: set[str]) -> str | None:
    """The first of some nested folders that names a sound; None where they only keep files.

    beside: names of the outermost folders of the whole data set. "train" among them stands for the vehicle where
    another names a sound, as in ESC-50.
    """
    for depth, name in enumerate(folders):
        vehicle = depth == 0 and name.lower() == "train" and any(not keeps_files(other) for other in beside)
        if vehicle or not keeps_files(name):
            return name
    return None


def source_of(path: Path, folder: Path) -> str:
    """Where a recording comes from: takes "1-30226-A" and "1-30226-B" of ESC-10 were cut from one and must not part."""
    esc = re.match(r"\d+-\d+(?=-[A-Z])", path.stem)
    return esc[0] if esc else path.relative_to(folder).with_suffix("").as_posix()


def share_out(sources: Iterable[str]) -> dict[str, str]:
    """The split of each source, by where its hash falls in [0, 1).

    Below 0.1 is test, below 0.2 validation, the rest train: adding sources moves none of the others. Of a few, where
    chance would leave test or validation empty, the next lowest is taken.
    """
    digest = {source: hashlib.sha256(source.encode("utf-8", "replace")).digest() for source in sources}
    order = sorted(digest, key=digest.get)
    below = [sum(int.from_bytes(digest[source][:4]) < edge * 2**32 for source in order) for edge in (0.1, 0.2)]
    test = max(1, below[0])
    validation = max(test + 1, below[1])
    splits = ["test"] * test + ["validation"] * (validation - test) + ["train"] * max(0, len(order) - validation)
    return dict(zip(order, splits, strict=False))
