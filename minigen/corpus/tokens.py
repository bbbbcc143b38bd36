"""The token cache: every clip goes through the codec once, and training reads codes from disk.

    clips, and mixtures of two --codec.encode--> codes.npy   int16 [n, K, T], memory-mapped
                                                 rows.jsonl  caption, events, source: line i describes codes[i]
                                                 skipped.jsonl, tokens.json: what was left out, settings, how far it is

Mixing (`minigen.corpus.mixing`) has to happen here, before the codec: codes are names of codebook entries, not
amplitudes, so the codes of a sum are not the sum of the codes, nor anything else that could be worked out from them.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minigen.audio import AudioError, write_aside
from minigen.corpus.clip import Event
from minigen.corpus.corpus import Corpus
from minigen.corpus.mixing import mix_captions, mix_clips, random_mixture
from minigen.errors import MinigenError

__all__ = ["TokenSet", "mix_captions", "mix_clips", "tokenize"]


@dataclass(frozen=True)
class TokenSet:
    """A finished token cache, opened: codes stay on disk until a batch asks for them.

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

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, list[str]]:
        """Rows `indices` -> (codes int64 [B, K, T], captions)."""
        rows = [int(index) for index in indices]
        return torch.from_numpy(self.codes[rows].astype(np.int64)), [self.captions[row] for row in rows]

    @classmethod
    def open(cls, folder: str | Path) -> "TokenSet":
        """Open what `tokenize` wrote.

        Raises:
            MinigenError: no token cache there, or one that is not finished.
        """
        state = _read_state(Path(folder))
        if state is None or not state["done"]:
            what = "no tokens" if state is None else f"unfinished tokens ({state['next']} of {state['jobs']} clips)"
            raise MinigenError(f"there are {what} in {folder}. Run `minigen tokenize` to make them.")
        rows = _read_lines(Path(folder) / "rows.jsonl")
        codes = _open_codes(Path(folder), "r")[: state["rows"]]
        if len(rows) != len(codes):
            raise _damaged(Path(folder) / "rows.jsonl")
        events = [tuple(Event(**event) for event in row["events"]) for row in rows]
        captions, sources = [row["caption"] for row in rows], [row["source"] for row in rows]
        return cls(codes, captions, events, sources, state["codec"]["frame_rate"], state["codec"]["codebook_size"])


def tokenize(
    corpus: Corpus,
    codec: nn.Module,
    folder: str | Path,
    mix: float = 0.0,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = True,
) -> TokenSet:
    """Encode a corpus, and `mix` times as many mixtures of two of its clips, into a folder; open the result.

    Broken off at any point, it goes on where it stopped and gives the same tokens; once finished it returns at once.
    Memory stays at one batch. Clips that turn out silent, not finite or damaged are skipped and added to
    `corpus.report`. A mixture depends on `seed` and its row alone; see `random_mixture` for which clips may meet.

    Args:
        corpus: n clips, at the codec's sample rate.
        codec: anything with encode, sample_rate, frame_rate, num_codebooks and codebook_size.
        folder: where to; made if need be.
        mix: mixtures to add, as a share of n: 0.5 gives 1.5 n rows.
        seed: of the mixtures.
        batch_size: clips encoded at a time.
        progress: show a bar.

    Raises:
        MinigenError: settings that do not fit each other or the tokens already there, no usable clip, no room on disk.
    """
    folder = Path(folder)
    state = _start(corpus, codec, folder, mix, seed)
    if not state["done"]:
        _encode_all(corpus, codec, folder, state, batch_size, progress)
    listed = set(corpus.report.skipped)
    found = [(row["file"], row["reason"]) for row in _read_lines(folder / "skipped.jsonl")]
    corpus.report.skipped.extend(row for row in found if row not in listed)
    if state["rows"] == 0:
        raise MinigenError(f"no usable sound among {len(corpus)} clips: {corpus.report}. Use other recordings.")
    return TokenSet.open(folder)


def _start(corpus: Corpus, codec: nn.Module, folder: Path, mix: float, seed: int) -> dict:
    """The state of the cache in `folder`: how far it is if it was begun with these settings, else a fresh one."""
    _check_settings(corpus, codec, mix)
    settings = _settings(corpus, codec, mix, seed)
    state = _read_state(folder)
    if state is None:
        jobs = len(corpus) + round(mix * len(corpus))
        silence = torch.zeros(1, 1, round(corpus.seconds * corpus.sample_rate), device=_device(codec))
        _allocate(folder, (jobs, *codec.encode(silence).shape[1:]))
        state = {**settings, "jobs": jobs, "next": 0, "rows": 0, "skipped": 0, "done": False}
        _write_state(folder, state)
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


def _settings(corpus: Corpus, codec: nn.Module, mix: float, seed: int) -> dict:
    """All that the tokens depend on; clips and weights as digests."""
    clips, weights = hashlib.sha256(), hashlib.sha256()
    for clip in corpus.clips:
        row = [clip.audiocap_id, Path(clip.file).name, clip.caption, [asdict(event) for event in clip.events]]
        clips.update(json.dumps(row).encode())
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


def _allocate(folder: Path, shape: tuple[int, ...]) -> None:
    """Make codes.npy at its full size. A memory map on a full disk would kill the process, hence the look ahead."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        need, free = 2 * math.prod(shape), shutil.disk_usage(folder).free
        if need > free:
            raise MinigenError(f"the tokens need {need / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB. Make room.")
        np.lib.format.open_memmap(folder / "codes.npy", "w+", np.int16, shape).flush()
    except OSError as error:
        raise MinigenError(f"cannot write tokens to {folder} ({error.strerror}). Choose another folder.") from error


def _encode_all(corpus: Corpus, codec: nn.Module, folder: Path, state: dict, batch_size: int, progress: bool) -> None:
    """Go on from `state` to the end, batch by batch: codes first, then rows, then the state that counts them."""
    from tqdm import tqdm

    for name, count in (("rows.jsonl", state["rows"]), ("skipped.jsonl", state["skipped"])):
        _keep_lines(folder / name, count)
    codes = _open_codes(folder, "r+")
    with tqdm(total=state["jobs"], initial=state["next"], unit="clip", desc="tokenize", disable=not progress) as bar:
        while state["next"] < state["jobs"]:
            jobs = range(state["next"], min(state["next"] + batch_size, state["jobs"]))
            waves, rows, skipped = _gather(corpus, jobs, state["seed"])
            if waves:
                batch = codec.encode(torch.cat(waves).to(_device(codec)))
                codes[state["rows"] : state["rows"] + len(waves)] = batch.cpu().numpy()
                codes.flush()
            _append_lines(folder / "rows.jsonl", rows)
            _append_lines(folder / "skipped.jsonl", skipped)
            state["rows"], state["skipped"] = state["rows"] + len(rows), state["skipped"] + len(skipped)
            state["next"] = jobs.stop
            state["done"] = state["next"] == state["jobs"]
            _write_state(folder, state)
            bar.update(len(jobs))


def _gather(corpus: Corpus, jobs: range, seed: int) -> tuple[list[Tensor], list[dict], list[dict]]:
    """Waveforms and rows of the jobs, and the clips that had to be skipped. Jobs from len(corpus) on are mixtures."""
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


def _open_codes(folder: Path, mode: str) -> np.ndarray:
    try:
        return np.load(folder / "codes.npy", mmap_mode=mode)
    except (OSError, ValueError) as error:
        raise _damaged(folder / "codes.npy") from error


def _read_state(folder: Path) -> dict | None:
    file = folder / "tokens.json"
    try:
        return json.loads(file.read_text("utf-8")) if file.is_file() else None
    except ValueError as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> MinigenError:
    return MinigenError(f"{file} is missing or damaged. Delete {file.parent} and tokenize again.")


def _write_state(folder: Path, state: dict) -> None:
    write_aside(folder / "tokens.json", json.dumps(state, indent=1) + "\n")


def _read_lines(file: Path) -> list[dict]:
    try:
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise _damaged(file) from error


def _append_lines(file: Path, rows: list[dict]) -> None:
    with open(file, "a", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def _keep_lines(file: Path, count: int) -> None:
    """Cut off what a break left behind the last state that was written."""
    lines = file.read_text("utf-8").splitlines(keepends=True)[:count] if file.is_file() else []
    write_aside(file, "".join(lines))
