"""Where the shipped weights lie: `data/<part>/<name>`, one folder a model."""

import os
from pathlib import Path

from minigen.errors import MinigenError

DATA = Path(os.environ.get("MINIGEN_DATA", Path(__file__).resolve().parent.parent / "data"))


def find_weights(part: str, name: str) -> Path:
    """Folder of the weights called `name` for `part` ("codec", "text", "lm", "judge", "tagger").

    A name that starts with "mini" is a shipped model, anything else a folder on disk.

    Raises:
        MinigenError: no such folder.
    """
    folder = DATA / part / name if name.startswith("mini") and not Path(name).exists() else Path(name)
    if not (folder / "config.json").is_file():
        raise MinigenError(
            f"no {part} weights named {name!r} (looked for {folder / 'config.json'}). "
            f"Name a shipped model ({', '.join(shipped(part)) or 'none found'}) or a folder with a config.json."
        )
    return folder


def shipped(part: str) -> list[str]:
    """Names of the shipped models of a part, in alphabetical order."""
    return sorted(path.parent.name for path in (DATA / part).glob("*/config.json"))
