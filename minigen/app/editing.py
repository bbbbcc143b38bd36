"""The commands that edit a recording: inpaint, extend, vary, refine.

    sound file ─► checks ─► model ─► method of the same name of `minigen.generate.TextToAudio` ─► sound file

A recording of another rate is resampled to the codec's, and several channels become one, as for a prompt. As in
`minigen.app.commands`, mistakes are reported before a model is loaded.
"""

import time
from argparse import Namespace

from minigen.app.preflight import STARTED, check_writable
from minigen.engine.errors import MinigenError
from minigen.engine.settings import MAX_SECONDS


def inpaint(options: Namespace) -> None:
    """`minigen inpaint`: make a part of a recording anew."""
    if options.start >= options.end:
        raise MinigenError(f"--start {options.start:g} is not before --end {options.end:g}. Give a hole with a length.")
    lasts = _check_files(options)
    if options.end > lasts:
        raise MinigenError(f"{options.sound} lasts {lasts:.2f} s, the hole ends at {options.end:g} s. End it inside.")
    _edit(options, start=options.start, end=options.end)


def extend(options: Namespace) -> None:
    """`minigen extend`: continue a recording backwards, forwards, or both."""
    if not options.before and not options.after:
        raise MinigenError("nothing to add. Give --before or --after in seconds.")
    lasts = _check_files(options)
    if lasts + options.before + options.after > MAX_SECONDS:
        raise MinigenError(f"{options.sound} lasts {lasts:.2f} s. Make at most {MAX_SECONDS} s in all.")
    _edit(options, before=options.before, after=options.after)


def vary(options: Namespace) -> None:
    """`minigen vary`: make a variation of a recording."""
    _check_files(options)
    _edit(options, share=options.share)


def refine(options: Namespace) -> None:
    """`minigen refine`: keep the outline of a recording and make the details."""
    _check_files(options)
    _edit(options, codebooks=options.codebooks)


def _check_files(options: Namespace) -> float:
    """Seconds of the recording.

    Raises:
        MinigenError: it cannot be read or is too long, or the output cannot be written.
    """
    from minigen.audio import check_audio

    rate, frames = check_audio(options.sound)
    if frames > MAX_SECONDS * rate:
        raise MinigenError(f"{options.sound} lasts {frames / rate:.2f} s. Give at most {MAX_SECONDS} s.")
    check_writable(options.out, room=2 * frames, is_file=True)
    return frames / rate


def _edit(options: Namespace, **what) -> None:
    """Call the method that is named as the command, and write the file."""
    from minigen.audio import load_audio, save_audio
    from minigen.generate import TextToAudio

    tta = TextToAudio.from_pretrained(options.model)
    rate = tta.codec.sample_rate
    given = {name: getattr(options, name) for name in ("steps", "temperature") if getattr(options, name) is not None}
    method = getattr(tta, options.run.__name__)
    wav = method(
        load_audio(options.sound, rate), options.caption, **what, guidance=options.guidance, seed=options.seed,
        progress=True, **given,
    )  # fmt: skip
    save_audio(options.out, wav[0], rate)
    print(f"{options.out}: {wav.shape[-1] / rate:g} s of sound, made in {time.monotonic() - STARTED:.1f} s")
