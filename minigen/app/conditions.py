"""Conditions beside the caption, for `minigen generate` and `play`: a style excerpt and learnt words; `learn-word`.

`check_conditions` looks at the options and the headers of the files, before a model is loaded. `style_options` gives
the options of `TextToAudio.generate`; `add_words` gives the pipeline a text encoder that knows the words.
"""

from argparse import Namespace
from pathlib import Path

from minigen.app.preflight import check_writable
from minigen.engine.errors import MinigenError

SHORTEST, READ = 0.5, 2.0  # seconds of an excerpt: the least, and what is read of a longer one
LEARNT = 4.0  # seconds of a recording that a word is learnt from: the length of the clips that the models know


def check_conditions(options: Namespace, captions: list[str]) -> None:
    """Check the options about words and a style, and say how the file of a style is read.

    Raises:
        MinigenError: a file that is no learnt word, or whose word no caption uses; options of a style without a style,
            a file that is not a sound, or one that is too short or longer than the clip.
    """
    _check_words(options.words, captions)
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


def _check_words(paths: list[str], captions: list[str]) -> None:
    if not paths:
        return
    from minigen.conditioning.inversion import LearntWord

    for path in paths:
        word = LearntWord.load(path).word
        if not any(word in caption for caption in captions):
            raise MinigenError(f'no caption uses {word}, the word of {path}. Write it: "{word} while rain falls".')


def add_words(tta, paths: list[str]) -> None:
    """Give a pipeline a text encoder that knows the words of some files.

    Raises:
        MinigenError: a word that was learnt with other models, or a generator that is no language model.
    """
    if paths:
        from minigen.conditioning.inversion import load_words

        tta.encoder = load_words(paths, language_model_of(tta), tta.encoder)


def language_model_of(tta):
    """The language model of a pipeline.

    Raises:
        MinigenError: its generator has none.
    """
    from minigen.lm import AudioLM

    lm = getattr(tta.generator, "lm", None)
    if not isinstance(lm, AudioLM):
        raise MinigenError(f"learnt words are for language models. This is a {tta.generator.name} generator: use mini.")
    return lm


def learn_word(options: Namespace) -> None:
    """`minigen learn-word`: learn a word that stands for the sound of a file."""
    out = options.out or Path(f"{options.word.strip('<>')}.safetensors")
    check_writable(out, room=20_000, is_file=True)
    from minigen.audio import check_audio, load_audio
    from minigen.conditioning.inversion import check_word, closest_caption, invert
    from minigen.corpus.corpus import SILENT
    from minigen.evaluation.clap import load_judge
    from minigen.generate import TextToAudio

    rate, frames = check_audio(options.sound)
    if frames / rate < SHORTEST:
        raise MinigenError(f"{options.sound} lasts {frames / rate:.2f} s. Give at least {SHORTEST:g} s.")
    tta = TextToAudio.from_pretrained(options.model)
    lm = language_model_of(tta)
    check_word(options.word, tta.encoder)
    wav = load_audio(options.sound, tta.codec.sample_rate, seconds=LEARNT)
    if wav.abs().max() < SILENT:
        raise MinigenError(f"{options.sound} is silent. Use a recording in which something is heard.")
    like = options.like or closest_caption(load_judge(), wav, tta.codec.sample_rate)
    word = invert(lm, tta.encoder, tta.codec.encode(wav), options.word, options.space, like, seed=options.seed)
    word.save(out)
    before, after = word.loss
    print(f'{out}: {word.word} began as "{word.like}"; loss on held-out frames {before:.3f}, now {after:.3f}')
    print(f'hear it: minigen generate "{word.word} while rain falls" --words {out}')


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
