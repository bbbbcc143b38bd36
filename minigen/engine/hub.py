"""Models by name: found on disk, downloaded from the Hugging Face hub, uploaded to it.

    "mini"                      data/<part>/mini     shipped with minigen; language models in lm, others in generators
    "my/folder"                 that folder          written by `save_pretrained`
    "facebook/musicgen-small"   the hub's cache; if it is not there, the hub

All parts find their models with this module. It works without a network: the error for a model that cannot be
downloaded explains how to place it by hand.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from minigen.engine.errors import MinigenError, one_line

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = not (PACKAGE.parent / "pyproject.toml").is_file()  # as a package, not used from its repository
ROOT = Path.cwd() if INSTALLED else PACKAGE.parent  # where build/ lies: the working folder, or the repository


def where_typed(path: str) -> str:
    """A path from an environment variable, relative to where the command was typed.

    Jupyter starts kernels in the notebook's folder: `MINIGEN_CORPUS=recordings make lab` means a folder beside the
    Makefile. The shell leaves the place in PWD; where it does not, the working folder and the repository are tried.
    """
    for folder in (os.environ.get("PWD", ""), "", ROOT):
        if path and os.path.exists(os.path.join(folder, path)):
            return os.path.abspath(os.path.join(folder, path))
    return path


SHIPPED = PACKAGE / "data" if INSTALLED else ROOT / "data"
DATA = Path(where_typed(os.environ.get("MINIGEN_DATA", "")) or SHIPPED)  # the models that are found by a plain name
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # "owner/model"
OLD_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # or one without an owner, such as "t5-small"
FILES = ("config.json", WEIGHTS, "*.safetensors", "*.json", "*.txt", "spiece.model")  # of a model on the hub
PICKLES = (".bin", ".pt", ".pth", ".th", ".ckpt", ".pkl")
LFS = b"version https://git-lfs.github.com/spec/"  # how a Git LFS pointer begins
AUDIOCRAFT = ("state_dict.bin", "compression_state_dict.bin")


def find_model(part: str, name: str | Path, old_names: bool = False) -> Path:
    """Folder of a model, with its config.json: shipped, on disk, or in the hub's cache (downloaded if necessary).

    Args:
        part: "codec", "text", "lm", "generator" (a language model or another generator), "judge" or "tagger"; for
            shipped names and for messages.
        name: a shipped name, a folder, or a name on the hub.
        old_names: also look on the hub for a name without an owner, such as "t5-small".

    Raises:
        MinigenError: no such folder and it cannot be downloaded, or only pickled weights.
    """
    official = (OLD_NAME if old_names else HUB_NAME).fullmatch(str(name))
    if (is_plain(name) and str(name).startswith("mini")) or Path(name).exists() or not official:
        refuse_pickles(Path(name))
        return find_weights(part, name)
    return fetch(part, str(name), FILES, lambda folder: has_weights(folder) and (folder / "config.json").is_file())


def find_weights(part: str, name: str | Path) -> Path:
    """Folder of the weights `name` of a part, as in `find_model`, on this disk.

    A shipped model takes precedence over a folder of the same name, unless that is given as ./name or as a Path.

    Raises:
        MinigenError: no such folder.
    """
    kept = [DATA / folder / name for folder in _folders(part)]
    found = [folder for folder in kept if is_plain(name) and (folder / "config.json").is_file()]
    folder = found[0] if found else Path(name)
    if not (folder / "config.json").is_file():
        raise MinigenError(
            f"no {part} weights named {str(name)!r} (looked for {folder / 'config.json'}). "
            f"Name a shipped model ({', '.join(shipped(part)) or 'none found'}) or a folder with a config.json."
        )
    return folder


def is_plain(name: str | Path) -> bool:
    """Whether `name` is a string without a path separator, as the names of shipped models are."""
    return isinstance(name, str) and not any(separator in name for separator in ("/", os.sep))


def shipped(part: str) -> list[str]:
    """Names of the shipped models of a part, in alphabetical order."""
    return sorted(path.parent.name for folder in _folders(part) for path in (DATA / folder).glob("*/config.json"))


def _folders(part: str) -> tuple[str, ...]:
    """Folders of data/ that hold the shipped models of a part."""
    return ("generators", "lm") if part == "generator" else (part,)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors weights, in one file or in shards."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def fetch(part: str, name: str, files: tuple[str, ...], complete: Callable[[Path], bool]) -> Path:
    """Folder of a model in the hub's cache; the model is downloaded if the cache does not hold it.

    Args:
        part: kind of model, for the error.
        name: "owner/model".
        files: names and patterns of the files to download; the first is requested to see whether the hub is reachable.
        complete: whether a folder of the cache holds all that is needed.

    Raises:
        MinigenError: not in the cache, and no network, no such model or no permission.
    """
    from huggingface_hub import get_session, hf_hub_url, snapshot_download

    with suppress(Exception):  # not in the cache: the client raises several types
        folder = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
        if complete(folder):
            return folder
    try:
        # One quick request first: without a network, the hub's client retries for half a minute.
        get_session().head(hf_hub_url(name, files[0]), timeout=10, follow_redirects=True).raise_for_status()
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # no network, no such model, no permission: same advice
        named = ", ".join(file for file in files if not file.startswith("*"))
        others = " and the other .json and .txt files" if "*.json" in files else ""
        raise MinigenError(
            f"the {part} {name!r} is not on disk and could not be fetched ({one_line(error)}). By hand: put {named}"
            f"{others} from https://huggingface.co/{name}/tree/main into a folder, and name that folder."
        ) from error


def refuse_pickles(place: Path) -> None:
    """Raise MinigenError for a pickle, a folder with only pickled weights, and weights that Git LFS left out."""
    found = [place] if place.is_file() else sorted(place.glob("*"))
    refuse_pointers(found)
    pickles = [file for file in found if file.suffix in PICKLES]
    if pickles and not has_weights(place):
        audiocraft = pickles[0].name in AUDIOCRAFT
        how = f"minigen convert {place}" if audiocraft else "with save_pretrained of the library that wrote it"
        raise MinigenError(
            f"{pickles[0]} is a pickle, a program that runs when it is opened. Only safetensors are read: convert "
            f"it once, where you trust it ({how}), and name the folder with {WEIGHTS}."
        )


def refuse_pointers(files: list[Path]) -> None:
    """MinigenError for a weights file that is a Git LFS pointer: a few lines of text that stand for the real file."""
    for file in files:
        if file.suffix in (*PICKLES, ".safetensors") and file.is_file():
            with file.open("rb") as opened:
                beginning = opened.read(len(LFS))
            if beginning == LFS:
                raise MinigenError(
                    f"{file} is a Git LFS pointer, not the weights: Git did not download them. Run `git lfs pull` in "
                    "its repository, or download the file itself."
                )


class HubModel:
    """Mixin for models with `save_pretrained`: `push_to_hub` as in `huggingface_hub.PyTorchModelHubMixin`."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder; each model implements this."""
        raise NotImplementedError

    def push_to_hub(
        self, repo_id: str, *, commit_message: str = "Upload a minigen model", private: bool | None = None,
        token: str | None = None, branch: str | None = None, create_pr: bool | None = None,
    ) -> str:  # fmt: skip
        """Upload the model to the hub as repo_id ("owner/model"), created if it does not exist; returns the commit.

        The options are those of the library's mixin. `from_pretrained(repo_id)` loads the model on another machine.

        Raises:
            MinigenError: not logged in, no permission, no network.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        try:
            repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if branch:
                api.create_branch(repo, branch=branch, exist_ok=True)
            with TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                (Path(folder) / "README.md").write_text(_card(type(self), repo))
                return api.upload_folder(
                    repo_id=repo, folder_path=folder, commit_message=commit_message, revision=branch,
                    create_pr=create_pr,
                )  # fmt: skip
        except Exception as error:  # no login, no permission, no network: a dozen types
            raise MinigenError(
                f"cannot upload to {repo_id!r} ({one_line(error)}). Log in once with `hf auth login`, or pass token=; "
                "save_pretrained(folder) needs no hub."
            ) from error


def _card(kind: type, repo: str) -> str:
    """README.md of the model on the hub: what the model is and how to load it."""
    return (
        "---\nlibrary_name: minigen\npipeline_tag: text-to-audio\ntags:\n- minigen\n- text-to-audio\n---\n\n"
        f"# {repo.split('/')[-1]}\n\nA `{kind.__name__}` of minigen, a small text-to-audio library.\n\n"
        f"```python\nfrom {kind.__module__} import {kind.__name__}\n\n"
        f'model = {kind.__name__}.from_pretrained("{repo}")\n```\n'
    )
