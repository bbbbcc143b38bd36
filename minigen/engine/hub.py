"""A model by its name: found on disk, fetched from the Hugging Face hub, shared with others.

    "mini"                      data/<part>/mini     shipped with the project
    "my/folder"                 that folder          written by `save_pretrained`
    "facebook/musicgen-small"   the hub's cache, and where it is not there, the hub

Every model of the chain is found here, so that a name means the same everywhere and a missing file is explained once.
A classroom without a network is normal: what cannot be fetched is named, with the way to place it by hand.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from minigen.engine.errors import MinigenError, one_line

ROOT = Path(__file__).resolve().parents[2]  # the repository, where minigen is not installed as a package
DATA = Path(os.environ.get("MINIGEN_DATA", ROOT / "data"))
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # "owner/model"
OLD_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # or one without an owner, such as "t5-small"
FILES = (
    "config.json",
    WEIGHTS,
    "*.safetensors",
    "*.json",
    "*.txt",
    "spiece.model",
)  # every model has the first
PICKLES = (".bin", ".pt", ".pth", ".th", ".ckpt", ".pkl")
LFS = b"version https://git-lfs.github.com/spec/"  # how a Git LFS pointer begins
AUDIOCRAFT = ("state_dict.bin", "compression_state_dict.bin")


def find_model(part: str, name: str | Path, old_names: bool = False) -> Path:
    """Folder of a model, with its config.json: shipped, on disk, in the hub's cache, or fetched into it.

    part: "codec", "text", "lm", "judge" or "tagger", for shipped names and messages. old_names: whether a name without
    an owner, such as "t5-small", may lie on the hub.

    Raises:
        MinigenError: no such folder and no way to fetch it, or only pickled weights.
    """
    official = (OLD_NAME if old_names else HUB_NAME).fullmatch(str(name))
    if (is_plain(name) and name.startswith("mini")) or Path(name).exists() or not official:
        refuse_pickles(Path(name))
        folder = find_weights(part, name)
    else:
        folder = fetch(
            part, str(name), FILES, lambda folder: has_weights(folder) and (folder / "config.json").is_file()
        )
    return folder


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


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors, whole or in shards."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def fetch(part: str, name: str, files: tuple[str, ...], complete: Callable[[Path], bool]) -> Path:
    """Folder of a model of the hub: in its cache where that is `complete`, else fetched into it.

    files: names and patterns of what is fetched; the first is asked for to see whether the hub can be reached.

    Raises:
        MinigenError: not in the cache, and no network, no such model or no permission.
    """
    from huggingface_hub import get_session, hf_hub_url, snapshot_download

    with suppress(Exception):  # not in the cache: the client has several ways to say so
        folder = Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
        if complete(folder):
            return folder
    try:
        # One quick request first: the hub's own client retries for half a minute where there is no network.
        get_session().head(hf_hub_url(name, files[0]), timeout=10, follow_redirects=True).raise_for_status()
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # no network, no such model, no permission: the advice is the same
        named = ", ".join(file for file in files if not file.startswith("*"))
        others = " and the other .json and .txt files" if "*.json" in files else ""
        raise MinigenError(
            f"the {part} {name!r} is not on disk and could not be fetched ({one_line(error)}). By hand: put {named}"
            f"{others} from https://huggingface.co/{name}/tree/main into a folder, and name that folder."
        ) from error


def refuse_pickles(place: Path) -> None:
    """MinigenError for a pickled file, a folder whose only weights are pickled, and weights that Git LFS left out."""
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
    """What `save_pretrained` writes, others can have: `push_to_hub`, as in `huggingface_hub.PyTorchModelHubMixin`."""

    def push_to_hub(
        self, repo_id: str, *, commit_message: str = "Upload a minigen model", private: bool | None = None,
        token: str | None = None, branch: str | None = None, create_pr: bool | None = None,
    ) -> str:  # fmt: skip
        """Upload the model to the hub as repo_id ("owner/model"), made where it does not exist; returns the commit.

        The options are the mixin's. On another machine, `from_pretrained(repo_id)` loads it.

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
                options = {"commit_message": commit_message, "revision": branch, "create_pr": create_pr}
                return api.upload_folder(repo_id=repo, folder_path=folder, **options)
        except Exception as error:  # the client raises a dozen types for no login, no permission and no network
            raise MinigenError(
                f"cannot upload to {repo_id!r} ({one_line(error)}). Log in once with `hf auth login`, or pass token=; "
                "save_pretrained(folder) needs no hub."
            ) from error


def _card(kind: type, repo: str) -> str:
    """The hub's model card, README.md: what it is and how to load it."""
    return (
        "---\nlibrary_name: minigen\npipeline_tag: text-to-audio\ntags:\n- minigen\n- text-to-audio\n---\n\n"
        f"# {repo.split('/')[-1]}\n\nA `{kind.__name__}` of minigen, a small text-to-audio library.\n\n"
        f"```python\nfrom {kind.__module__} import {kind.__name__}\n\n"
        f'model = {kind.__name__}.from_pretrained("{repo}")\n```\n'
    )
