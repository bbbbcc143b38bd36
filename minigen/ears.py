"""What the judge and the tagger share: finding weights by name, checking waveforms, half precision on disk."""

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from minigen.errors import MinigenError
from minigen.paths import find_weights

BATCH = 32  # clips that go through a model at once


def check_wav(wav: Tensor) -> Tensor:
    """The waveforms as float32; MinigenError unless they are [B, 1, samples] and not empty."""
    if wav.ndim != 3 or wav.shape[1] != 1 or wav.numel() == 0:
        raise MinigenError(f"the judge hears waveforms [B, 1, samples], not {list(wav.shape)}. Reshape them.")
    return wav.float()


def half(value: Tensor) -> Tensor:
    """A weight as it is stored: float16, unless it counts something."""
    return (value.half() if value.is_floating_point() else value).contiguous()


def full(value: Tensor) -> Tensor:
    """A stored weight as it is used: float32, unless it counts something."""
    return value.float() if value.is_floating_point() else value


def model_folder(part: str, name: str) -> Path:
    """A shipped model or a folder on disk; an owner/name that is neither is fetched, or found in the hub's cache.

    Raises:
        MinigenError: no such folder, no safetensors in it, or an official model that cannot be fetched.
    """
    official = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
    folder = _fetch(part, name) if official else find_weights(part, name)
    if not (folder / "model.safetensors").is_file():
        raise MinigenError(f"no {folder / 'model.safetensors'}. Only safetensors are read: place that file there.")
    return folder


def _fetch(part: str, name: str) -> Path:
    """Folder of an official model: in the hub's cache, or fetched into it."""
    from huggingface_hub import get_session, hf_hub_url, snapshot_download

    files = ["*.json", "*.txt", "model.safetensors"]
    try:
        with suppress(OSError):  # not in the cache
            folder = Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
            if (folder / "model.safetensors").is_file():
                return folder
        # One quick request first: the hub's own client retries for half a minute where there is no network.
        get_session().head(hf_hub_url(name, "config.json"), timeout=10, follow_redirects=True).raise_for_status()
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # no network, no such model, no permission: the advice is the same
        raise MinigenError(
            f"the {part} {name!r} is not on this machine and could not be fetched ({first_line(error)}). Where there "
            f"is a network, download model.safetensors and the .json and .txt files of https://huggingface.co/{name} "
            "into a folder, bring it here, and give the folder's path instead of the name."
        ) from error


def first_line(error: Exception) -> str:
    """What another library's error says first."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
