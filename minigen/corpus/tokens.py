"""Tokenising: the codec encodes every clip once, and training reads the codes from disk (`token_cache`).

    clips, and mixtures of two --codec.encode--> codes.npy, rows.jsonl, skipped.jsonl, tokens.json
                               --codec.latents-> latents.npy, if asked for: the latents before quantisation

Clips are mixed here (`minigen.corpus.mixing`), before the codec: codes are indices of codebook entries, so the codes of
a sum cannot be computed from the codes of its parts. With several processes (`accelerate launch`), each encodes a batch
and the first one writes; the files are the same as with one process.
"""

import hashlib
import json
import math
import os
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minigen.audio import AudioError
from minigen.corpus.clip import Event
from minigen.corpus.corpus import Corpus
from minigen.corpus.mixing import mix_captions, mix_clips, random_mixture
from minigen.corpus.token_cache import (
    LatentSet,
    TokenSet,
    allocate,
    keep_lines,
    open_codes,
    open_latents,
    read_lines,
    read_state,
    write_state,
)
from minigen.engine import distributed
from minigen.engine.errors import MinigenError
from minigen.engine.files import append_lines, exclusive, remove_stale_parts
from minigen.engine.resources import Requirements

__all__ = ["LatentSet", "TokenSet", "mix_captions", "mix_clips", "tokenize", "tokens_requirements"]

COMPONENTS = 64  # of the latents that are stored: those with the most variance


def tokenize(
    corpus: Corpus,
    codec: nn.Module,
    folder: str | Path,
    mix: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
    latents: bool = False,
) -> TokenSet:
    """Encode a corpus, and `mix` times as many mixtures of two of its clips, into a folder, and open the result.

    An interrupted call continues where it stopped and gives the same tokens; a finished folder is only opened. Memory
    holds one batch. Silent, damaged and non-finite clips are skipped and added to `corpus.report`. A mixture depends
    on `seed` and its row alone; `may_mix` says which clips may be mixed.

    Args:
        corpus: n clips, at the codec's sample rate.
        codec: anything with encode, sample_rate, frame_rate, num_codebooks and codebook_size.
        folder: output folder, created if it does not exist.
        mix: mixtures to add, as a share of n: 0.5 gives 1.5 n rows.
        seed: of the mixtures.
        batch_size: clips encoded at a time.
        progress: show a bar.
        latents: whether to store the first 64 components of `codec.latents`, too, and to return a `LatentSet`.

    Raises:
        MinigenError: settings that do not fit each other or the tokens already there, no usable clip, no room on disk,
            a codec without latents.
    """
    folder = Path(folder)
    if batch_size < 1:
        raise MinigenError(f"batch_size is {batch_size}. Encode at least one clip at a time.")
    _check_settings(corpus, codec, mix)
    if latents:
        _check_latents(codec)
    writes = distributed.is_first() and not (read_state(folder) or {"done": False})["done"]
    with exclusive(folder / "lock") if writes else nullcontext():  # two programs would write over each other
        with distributed.first_alone():
            state = _start(corpus, codec, folder, mix, seed, latents)
        if not state["done"]:
            _encode_all(corpus, codec, folder, state, batch_size, progress and distributed.is_first())
    listed = set(corpus.report.skipped)
    found = [(row["file"], row["reason"]) for row in read_lines(folder / "skipped.jsonl")]
    corpus.report.skipped.extend(row for row in found if row not in listed)
    if state["rows"] == 0:
        raise MinigenError(f"no usable sound among {len(corpus)} clips: {corpus.report}. Use other recordings.")
    return LatentSet.open(folder) if latents else TokenSet.open(folder)


def _start(corpus: Corpus, codec: nn.Module, folder: Path, mix: float, seed: int, latents: bool) -> dict:
    """State of the cache in `folder`; a new cache is created if there is none. MinigenError: it has other settings."""
    settings = _settings(corpus, codec, mix, seed) | ({"latents": COMPONENTS} if latents else {})
    state = read_state(folder)
    if state is None:
        jobs = _jobs(corpus, mix)
        streams, frames = codec.encode(_silence(corpus, codec)).shape[1:]
        allocate(folder, "codes.npy", (jobs, streams, frames), np.int16)
        if latents:
            components = min(COMPONENTS, codec.latents(_silence(corpus, codec)).shape[2])
            allocate(folder, "latents.npy", (jobs, frames, components), np.float16)
        state = {**settings, "jobs": jobs, "next": 0, "rows": 0, "skipped": 0, "done": False}
        write_state(folder, state)
    different = [name for name in settings if state.get(name) != settings[name]]
    if different:
        raise MinigenError(
            f"the tokens in {folder} were made with other settings ({', '.join(different)} differ). "
            f"Name another folder, or delete this one."
        )
    return state


def _check_settings(corpus: Corpus, codec: nn.Module, mix: float) -> None:
    if corpus.sample_rate != codec.sample_rate:
        raise MinigenError(
            f"the corpus is read at {corpus.sample_rate} Hz, the codec needs {codec.sample_rate} Hz. "
            f"Read the corpus with sample_rate={codec.sample_rate}."
        )
    if codec.codebook_size > 2**15:
        raise MinigenError(f"codes below {codec.codebook_size} do not fit in 16 bits. Use a codec with fewer entries.")
    if not 0 <= mix < math.inf:
        raise MinigenError(
            f"mix={mix} is no share of mixtures. Use 0 for none, 1 for as many again as there are clips."
        )
    if mix > 0 and len(corpus) < 2:
        raise MinigenError(f"mixing needs two clips, the corpus has {len(corpus)}. Use mix=0.")


def _check_latents(codec: nn.Module) -> None:
    if not hasattr(codec, "latents"):
        raise MinigenError(f"{type(codec).__name__} has no latents to store. Use the compact codec, such as mini.")


def _settings(corpus: Corpus, codec: nn.Module, mix: float, seed: int) -> dict:
    """Everything that the tokens depend on; digests stand for the weights and the clips (see `glimpse`)."""
    clips, weights = hashlib.sha256(), hashlib.sha256()
    for clip in corpus.clips:
        row = [clip.audiocap_id, Path(clip.file).name, clip.caption, [asdict(event) for event in clip.events]]
        clips.update(json.dumps(row).encode() + glimpse(clip.file))
    for name, tensor in sorted(codec.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return {
        "corpus": {"digest": clips.hexdigest(), "seconds": corpus.seconds, "sample_rate": corpus.sample_rate},
        "codec": {
            "digest": weights.hexdigest(),
            "frame_rate": float(codec.frame_rate),
            "num_codebooks": codec.num_codebooks,
            "codebook_size": codec.codebook_size,
        },
        "mix": float(mix),
        "seed": seed,
    }


def glimpse(file: str, size: int = 4096) -> bytes:
    """Identify a file without reading all of it: its length, and `size` bytes from its middle."""
    try:
        with open(os.fsencode(file), "rb") as opened:
            length = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, length // 2 - size // 2))
            return length.to_bytes(8, "big") + opened.read(size)
    except OSError:
        return b""  # the sound is in a table, or the file is gone; a missing file is skipped when it is loaded


def tokens_requirements(
    corpus: Corpus, codec: nn.Module, folder: str | Path, mix: float = 0.0, measure: bool = False, latents: bool = False
) -> Requirements:
    """Requirements of `tokenize`. measure: encode a clip to estimate the time, without that of reading the sounds."""
    jobs, frames = _jobs(corpus, mix), math.ceil(corpus.seconds * codec.frame_rate)
    took = 0.0
    for _ in range(2 * measure):  # the first call also sets things up
        began = time.perf_counter()
        codec.encode(_silence(corpus, codec))
        took = (time.perf_counter() - began) * jobs / distributed.count()
    numbers = codec.num_codebooks + (COMPONENTS if latents else 0)  # of a frame, two bytes each
    codes = 0 if (Path(folder) / "codes.npy").exists() else 2 * numbers * frames * jobs
    return Requirements("the tokens", disk=codes + 400 * jobs, seconds=took, folder=Path(folder))


def _jobs(corpus: Corpus, mix: float) -> int:
    return len(corpus) + round(mix * len(corpus))


def _silence(corpus: Corpus, codec: nn.Module) -> Tensor:
    return torch.zeros(1, 1, round(corpus.seconds * corpus.sample_rate), device=_device(codec))


def _encode_all(corpus: Corpus, codec: nn.Module, folder: Path, state: dict, batch_size: int, progress: bool) -> None:
    """Encode the clips after `state`, one batch per process at a time; the first process writes."""
    from tqdm import tqdm

    arrays = _clean_up(folder, state) if distributed.is_first() else None
    latents = "latents" in state
    with tqdm(total=state["jobs"], initial=state["next"], unit="clip", desc="tokenize", disable=not progress) as bar:
        while state["next"] < state["jobs"]:
            jobs = range(state["next"], min(state["next"] + batch_size * distributed.count(), state["jobs"]))
            own = distributed.parts_of(jobs, batch_size)[distributed.rank()]
            for found in distributed.gather_objects(_encode(corpus, codec, own, state["seed"], latents)):
                if arrays is not None:
                    _store(folder, arrays, state["rows"], *found)
                state["rows"], state["skipped"] = state["rows"] + len(found[1]), state["skipped"] + len(found[2])
            state["next"] = jobs.stop
            state["done"] = state["next"] == state["jobs"]
            if arrays is not None:
                write_state(folder, state)
            bar.update(len(jobs))
    distributed.gather_objects(None)  # the last state is written before any process reads it


def _clean_up(folder: Path, state: dict) -> list[np.ndarray]:
    """Remove rows that the state does not count, and open the codes, and the latents if there are any, for writing."""
    remove_stale_parts(folder)
    for name, count in (("rows.jsonl", state["rows"]), ("skipped.jsonl", state["skipped"])):
        keep_lines(folder / name, count)
    codes = open_codes(folder, "r+")
    return [codes, open_latents(folder, "r+")] if "latents" in state else [codes]


def _encode(
    corpus: Corpus, codec: nn.Module, jobs: range, seed: int, latents: bool
) -> tuple[list[np.ndarray], list, list]:
    """Codes int16 [n, K, T] and, if asked for, latents float16 [n, T, C]; rows and skipped clips of some jobs."""
    waves, rows, skipped = _gather(corpus, jobs, seed)
    if not waves:
        return [], rows, skipped
    wav = torch.cat(waves).to(_device(codec))
    if not latents:
        return [codec.encode(wav).cpu().numpy().astype(np.int16)], rows, skipped
    with torch.no_grad():
        values = codec.latents(wav)  # [n, T, D]; `encode` would compute them again
        codes = codec.quantizer.encode(values)
    arrays = [codes.cpu().numpy().astype(np.int16), values[..., :COMPONENTS].cpu().numpy().astype(np.float16)]
    return arrays, rows, skipped


def _store(
    folder: Path, arrays: list[np.ndarray], first: int, new: list[np.ndarray], rows: list, skipped: list
) -> None:
    """Write codes and latents, then the rows. The state that counts them is written afterwards."""
    for array, part in zip(arrays, new, strict=False):  # no new ones where all clips were skipped
        array[first : first + len(part)] = part
        array.flush()
    append_lines(folder / "rows.jsonl", map(json.dumps, rows))
    append_lines(folder / "skipped.jsonl", map(json.dumps, skipped))


def _gather(corpus: Corpus, jobs: range, seed: int) -> tuple[list[Tensor], list[dict], list[dict]]:
    """Waveforms and rows of the jobs, and the skipped clips. Jobs from len(corpus) on are mixtures."""
    made, skipped = [], []
    for job in jobs:
        try:
            made.append(_clip_row(corpus, job) if job < len(corpus) else _mixture_row(corpus, seed, job))
        except AudioError as error:
            skipped.append({"file": corpus.clips[job].file, "reason": error.reason})
    made = [pair for pair in made if pair is not None]
    return [wav for wav, _ in made], [row for _, row in made], skipped


def _clip_row(corpus: Corpus, index: int) -> tuple[Tensor, dict]:
    clip = corpus.clips[index]
    return corpus.load(index), _row(clip.caption, clip.events, [clip.file])


def _mixture_row(corpus: Corpus, seed: int, job: int) -> tuple[Tensor, dict] | None:
    mixture = random_mixture(corpus, np.random.default_rng([seed, job]))
    return mixture and (mixture[0], _row(*mixture[1:]))


def _row(caption: str, events: tuple[Event, ...], source: list[str]) -> dict:
    return {"caption": caption, "events": [asdict(event) for event in events], "source": source}


def _device(codec: nn.Module) -> torch.device:
    return next(codec.parameters(), torch.zeros(0)).device
