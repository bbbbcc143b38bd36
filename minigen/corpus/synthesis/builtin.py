"""The built-in corpus on disk: synthesised clips with AudioCaps' columns, made from a seed at any size.

    folder/train.csv  validation.csv  test.csv      audiocap_id,youtube_id,start_time,caption, then the true events
    folder/audio/train-000000.wav ...               16 bits, 16 kHz, mono
    folder/corpus.json                              seed, seconds and first caption: a folder holds one corpus only

A clip depends on (seed, split, index, seconds) alone, not on other clips or the number of workers. Workers are started
with `python -c`, which works from notebooks and from scripts without a main guard. A build that was killed continues at
the next call: complete clips are kept, and the tables are written last.
"""

import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from minigen.corpus.synthesis.captions import caption, split_of
from minigen.corpus.synthesis.dsp import RATE
from minigen.corpus.synthesis.scenes import Scene, render_scene, sample_scene
from minigen.engine.errors import MinigenError
from minigen.engine.files import remove_stale_parts, write_atomically
from minigen.engine.resources import Requirements

if TYPE_CHECKING:
    from tqdm import tqdm

SPLITS = ("train", "validation", "test")
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption", "file", "kinds", "counts", "onsets", "offsets",
           "relation", "pitches", "held_out")  # fmt: skip
CLIPS_A_WORKER = 150  # fewer clips than this are made faster than another process starts
Row = dict[str, str]


def split_sizes(clips: int) -> dict[str, int]:
    """Clips in each split: a tenth for validation, a tenth for test (from 6 clips on at least 2), the rest to train."""
    validation = max(1, clips // 10)
    test = max(2 if clips >= 6 else 1, clips // 10)
    return {"train": clips - validation - test, "validation": validation, "test": test}


def _jobs(clips: int) -> list[tuple[str, int]]:
    """(split, index) of every clip of the corpus."""
    return [(split, index) for split, size in split_sizes(clips).items() for index in range(size)]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_clip(seed: int, split: str, index: int, seconds: float) -> tuple[Scene, str, np.random.Generator]:
    """The scene of a clip, its caption, and the generator to render it with.

    Every other test clip has a held-out pair of kinds. The caption is one of the split's (`captions.split_of`).
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index, round(seconds * 1000)])
    combos = "held_out" if split == "test" and index % 2 else "seen"
    while True:
        scene = sample_scene(rng, seconds, combos)
        for _ in range(200):
            text = caption(scene, rng)
            if split_of(text) == split:
                return scene, text, rng


def clip_row(split: str, index: int, scene: Scene, text: str) -> Row:
    """The clip's row of the CSV; lists are joined by ";" in order of onset."""
    name = f"{split}-{index:06d}"
    events = scene.events
    return {
        "audiocap_id": str(SPLITS.index(split) * 1_000_000 + index), "youtube_id": name, "start_time": "0",
        "caption": text, "file": f"audio/{name}.wav",
        "kinds": ";".join(event.kind for event in events), "counts": ";".join(str(event.count) for event in events),
        "onsets": ";".join(f"{event.onset:.3f}" for event in events),
        "offsets": ";".join(f"{event.offset:.3f}" for event in events),
        "relation": scene.relation, "pitches": ";".join(f"{event.pitch:.2f}" for event in events),
        "held_out": str(int(scene.held_out)),
    }  # fmt: skip


def _write_clip(path: Path, scene: Scene, rng: np.random.Generator) -> None:
    """Render a clip to a temporary file and rename it; a complete clip is kept.

    Clips are not flushed to the disk, which would take longer than rendering them. A clip that is incomplete after a
    loss of power is recognised by its size.
    """
    import soundfile

    samples = round(scene.seconds * RATE)
    if path.exists() and path.stat().st_size == 44 + 2 * samples:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    encoded = io.BytesIO()
    soundfile.write(encoded, render_scene(scene, rng, samples), RATE, format="WAV", subtype="PCM_16")
    try:
        aside.write_bytes(encoded.getvalue())
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise MinigenError(f"cannot write {path} ({error.strerror}). Make room, then call again to finish.") from error


def make_clips(folder: Path, clips: int, seed: int, seconds: float, part: int, parts: int) -> Iterator[Row]:
    """Write every `parts`-th clip of the corpus from number `part` on, and yield each one's row of the CSV."""
    for split, index in _jobs(clips)[part::parts]:
        scene, text, rng = describe_clip(seed, split, index, seconds)
        row = clip_row(split, index, scene, text)
        _write_clip(folder / row["file"], scene, rng)
        yield row


def _worker() -> None:
    """Main function of a worker process: reads the request as JSON from argv, prints rows as JSON lines."""
    request = json.loads(sys.argv[2])
    for row in make_clips(**{**request, "folder": Path(request["folder"])}):
        print(json.dumps(row), flush=True)


def _start_worker(request: dict, errors: IO) -> subprocess.Popen:
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "import minigen.corpus.synthesis.builtin as b; b._worker()"
    )
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(sys.path), json.dumps(request)], env={**os.environ, **one_thread},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
    )  # fmt: skip


def _make_in_processes(request: dict, workers: int, bar: "tqdm") -> list[Row]:
    """Make the clips in `workers` processes; returns the rows, and stops all processes if one fails."""
    rows: list[Row] = []

    def listen(worker: subprocess.Popen) -> None:
        for line in worker.stdout:
            rows.append(json.loads(line))
            bar.update()

    with tempfile.TemporaryFile("w+") as errors, ThreadPoolExecutor(workers) as threads:
        running = [_start_worker({**request, "part": part, "parts": workers}, errors) for part in range(workers)]
        try:
            list(threads.map(listen, running))
        finally:
            if len(rows) < request["clips"]:
                for worker in running:
                    worker.kill()
            codes = [worker.wait() for worker in running]
        if any(codes):
            errors.seek(0)
            why = (errors.read().strip().splitlines() or ["no message"])[-1]
            why = why.removeprefix("minigen.engine.errors.MinigenError: ")
            raise MinigenError(f"a worker stopped after {len(rows)} of {request['clips']} clips: {why}")
    return rows


def _prepare(folder: Path, seed: int, seconds: float) -> None:
    """Make the folder, or check that the corpus it holds is this one."""
    recipe = {"seed": seed, "seconds": seconds, "first": describe_clip(seed, "train", 0, seconds)[1]}
    note = folder / "corpus.json"
    try:
        (folder / "audio").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MinigenError(f"cannot write the corpus to {folder}: {error.strerror}. Name a writable folder.") from error
    if not note.exists():
        write_atomically(note, json.dumps(recipe) + "\n")
    for place in (folder, folder / "audio"):
        remove_stale_parts(place)
    try:
        found = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MinigenError(f"{note} is damaged ({error}). Remove {folder} or name another folder.") from error
    if found != recipe:
        raise MinigenError(f"{folder} holds another corpus ({found}, not {recipe}). Remove it or name another folder.")


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["youtube_id"]))
    write_atomically(path, text.getvalue())


def corpus_requirements(
    folder: str | Path, clips: int, seed: int, seconds: float, measure: bool = False
) -> Requirements:
    """Requirements of `build_corpus`. measure: render three clips to estimate the time."""
    took = 0.0
    if measure:
        began = time.perf_counter()
        for index in range(3):
            scene, _, rng = describe_clip(seed, "train", index, seconds)
            render_scene(scene, rng, round(seconds * RATE))
        took = (time.perf_counter() - began) / 3 * clips / min(_processors(), max(1, clips // CLIPS_A_WORKER))
    missing = max(0, clips - sum(1 for _ in Path(folder).glob("audio/*.wav")))
    return Requirements("the corpus", disk=missing * (2000 + 2 * RATE * seconds), seconds=took, folder=Path(folder))


def _check(clips: int, seed: int, seconds: float, workers: int) -> None:
    if seed < 0 or workers < 1:
        raise MinigenError(f"seed is {seed} and workers {workers}. Give a seed of 0 or more and 1 worker or more.")
    if clips < 3:
        raise MinigenError(f"clips is {clips}, but each of the three splits needs one. Ask for 3 or more.")
    if not 1 <= seconds <= 30:
        raise MinigenError(f"seconds is {seconds:g}. Ask for clips of 1 to 30 seconds.")


def build_corpus(
    folder: str | Path, clips: int = 1000, seed: int = 0, seconds: float = 4.0, workers: int | None = None,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Make the built-in corpus: audio/*.wav, train.csv, validation.csv and test.csv (about 80/10/10) in `folder`.

    Complete clips are kept, so an interrupted call continues; the tables are written last.

    Args:
        folder (str or Path): output folder.
        clips (int): number of clips in the three splits together.
        seed (int): the same seed gives the same corpus.
        seconds (float): length of the clips.
        workers (int): number of processes; None: one per processor. The files are the same for any number.
        progress (bool): show a progress bar.

    Returns:
        The folder.

    Raises:
        MinigenError: fewer than 3 clips, seconds outside 1..30, or a folder that is read-only or holds another corpus.
    """
    from tqdm.auto import tqdm

    workers = min(_processors(), max(1, clips // CLIPS_A_WORKER)) if workers is None else workers
    _check(clips, seed, seconds, workers)
    folder = Path(folder)
    corpus_requirements(folder, clips, seed, seconds).check()
    request = {"folder": str(folder.resolve()), "clips": clips, "seed": seed, "seconds": float(seconds)}
    _prepare(folder, seed, float(seconds))
    with tqdm(total=clips, desc="corpus", unit="clip", disable=not progress) as bar:
        if workers > 1:
            rows = _make_in_processes(request, workers, bar)
        else:
            rows = []
            for row in make_clips(folder, clips, seed, float(seconds), 0, 1):
                rows.append(row)
                bar.update()
    for split in SPLITS:
        _write_csv(folder / f"{split}.csv", [row for row in rows if row["youtube_id"].startswith(split)])
    return folder
