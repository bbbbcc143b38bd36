"""Where the shipped weights lie: `data/<part>/<name>`, one folder a model."""

import os
from pathlib import Path

from minigen.errors import MinigenError

DATA = Path(os.environ.get("MINIGEN_DATA", Path(__file__).resolve().parent.parent / "data"))


def find_weights(part: str, name: str | Path) -> Path:
    """Folder of the weights called `name` for `part` ("codec", "text", "lm", "judge", "tagger").

    A shipped model comes before a folder of the same name, unless it is given as ./name or as a Path.

    Raises:
        MinigenError: no such folder.
    """
    kept = DATA / part / name
    folder = kept if is_plain(name) and (kept / "config.json").is_file() else Path(name)
    if not (folder / "config.json").is_file():
        raise MinigenError(
            f"no {part} weights named {str(name)!r} (looked for {folder / 'config.json'}). "
            f"Name a shipped model ({', '.join(shipped(part)) or 'none found'}) or a folder with a config.json."
        )
    return folder


def is_plain(name: str | Path) -> bool:
    """Whether this is a name without a folder in it, as shipped models have."""
    return isinstance(name, str) and not any(separator in name for separator in ("/", os.sep))


def shipped(part: str) -> list[str]:
    """Names of the shipped models of a part, in alphabetical order."""
    return sorted(path.parent.name for path in (DATA / part).glob("*/config.json"))
