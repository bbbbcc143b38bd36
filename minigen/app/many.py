"""`minigen generate --stdin`: one caption a line, one file a caption, in batches."""

import sys
import time
from argparse import Namespace
from pathlib import Path

from minigen.app.commands import own_options
from minigen.app.conditions import add_words, check_conditions, style_options
from minigen.app.preflight import STARTED, check_prompt, check_writable
from minigen.engine.errors import MinigenError


def generate_lines(options: Namespace) -> int:
    """Write the sound of each line of standard input to a file named after its number. Empty lines are skipped.

    A line that fails is named on stderr, and the others are still made. A batch draws its noise from seed + (number of
    its first line) - 1, so that the same lines with the same seed and batch size give the same sounds.

    Returns:
        exit status: 0, or 1 if a line failed.

    Raises:
        MinigenError: no captions, a model that cannot be loaded, a place that cannot be written.
    """
    lines = _read_lines()
    check_writable(options.out.parent, room=round(options.seconds * 32000))
    if options.prompt:
        check_prompt(options.prompt, options.seconds)
    check_conditions(options, list(lines.values()))
    from tqdm import tqdm

    from minigen.audio import load_audio
    from minigen.generate import TextToAudio

    tta = TextToAudio.from_pretrained(options.model, adapter=options.adapter)
    add_words(tta, options.words)
    prompt = load_audio(options.prompt, tta.codec.sample_rate) if options.prompt else None
    style = style_options(options, tta.codec.sample_rate)
    files = _file_names(options.out, max(lines))
    failed = {}
    with tqdm(total=len(lines), desc="sounds", unit="sound") as bar:
        for batch in _batches(sorted(lines), options.batch_size):
            for number, reason in _make(tta, {i: lines[i] for i in batch}, prompt, style, options, files).items():
                failed[number] = reason
                bar.write(f"minigen: line {number}: {reason}", file=sys.stderr)
            bar.update(len(batch))
    made = len(lines) - len(failed)
    files_made = "1 file" if made == 1 else f"{made} files"
    print(f"{files_made} in {options.out.parent}, made in {time.monotonic() - STARTED:.1f} s")
    if failed:
        numbers = ", ".join(str(number) for number in failed)
        print(f"minigen: {len(failed)} of {len(lines)} captions failed: line {numbers}.", file=sys.stderr)
    return 1 if failed else 0


def _read_lines() -> dict[int, str]:
    """Line number, from 1, -> caption; lines that are not UTF-8 keep their bytes as surrogates and fail later."""
    text = sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape")
    lines = {number: line.strip() for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    if not lines:
        raise MinigenError("no captions on standard input. Give one a line: minigen generate --stdin < captions.txt")
    return lines


def _file_names(out: Path, last: int) -> dict[int, Path]:
    """Line number -> file: sound-01.wav to sound-99.wav, padded so that names sort as the lines."""
    digits = len(str(last))
    return {number: out.with_stem(f"{out.stem}-{number:0{digits}}") for number in range(1, last + 1)}


def _batches(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def _make(
    tta, captions: dict[int, str], prompt, style: dict, options: Namespace, files: dict[int, Path]
) -> dict[int, str]:
    """Make some lines together; if that fails, each alone. Returns line number -> reason of those that failed."""
    from minigen.audio import save_audio

    first = min(captions)
    try:
        wavs = tta.generate(
            list(captions.values()), options.seconds, options.guidance, options.temperature, options.top_k,
            options.top_p, prompt, options.seed + first - 1, **own_options(options), **style,
        )  # fmt: skip
        for number, wav in zip(captions, wavs, strict=True):
            save_audio(files[number], wav, tta.codec.sample_rate)
    except MinigenError as error:
        if len(captions) == 1:
            return {first: str(error)}
        failed = {}
        for number, caption in captions.items():
            failed |= _make(tta, {number: caption}, prompt, style, options, files)
        return failed
    return {}
