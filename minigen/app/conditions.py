"""Conditions beside the caption, for `minigen generate` and `play`: a style excerpt.

`check_conditions` looks at the options and the headers of the files, before a model is loaded. `style_options` gives
the options of `TextToAudio.generate`.
"""

from argparse import Namespace

from minigen.engine.errors import MinigenError

SHORTEST, READ = 0.5, 2.0  # seconds of an excerpt: the least, and what is read of a longer one


def check_conditions(options: Namespace) -> None:
    """Check the options about a style, and say how its file is read.

    Raises:
        MinigenError: options of a style without a style, a file that is not a sound, or one that is too short or longer
            than the clip.
    """
    if options.style is None:
        for name in ("codebooks", "style_guidance"):
            if getattr(options, name) is not None:
                raise MinigenError(f"--{name.replace('_', '-')} belongs to a style. Give --style FILE.")
        return
    from minigen.audio import check_audio

    rate, frames = check_audio(options.style)
    seconds = frames / rate
    if not SHORTEST <= seconds <= options.seconds:
        raise MinigenError(
            f"the style {options.style} lasts {seconds:.2f} s. Give at least {SHORTEST:g} s, and at most the "
            f"{options.seconds:g} s of the clip."
        )
    if seconds > READ:
        print(f"note: the first {READ:g} s of {options.style} are read as the style.")


def style_options(options: Namespace, sample_rate: int) -> dict:
    """Options of `TextToAudio.generate` for a style: the waveform at the codec's rate, and what was given for it."""
    if options.style is None:
        return {}
    from minigen.audio import check_audio, load_audio

    rate = check_audio(options.style)[0]
    if rate != sample_rate:
        print(f"note: {options.style} is resampled from {rate} to {sample_rate} Hz.")
    given = {name: getattr(options, name) for name in ("codebooks", "style_guidance")}
    wav = load_audio(options.style, sample_rate)
    return {"style": wav, **{name: value for name, value in given.items() if value is not None}}
