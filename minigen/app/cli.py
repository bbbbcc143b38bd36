"""The command line: reads the arguments and calls the function of that name.

    minigen corpus ─► minigen tokenize ─► minigen train ─► minigen generate, evaluate, compare
    minigen inpaint, extend, vary, refine                    edit a recording
    minigen demo      all of these in a few minutes          minigen doctor    does everything work?

The functions are in `commands`, `editing`, `measuring` and `remaking`. A mistake gives one line on stderr and exit
status 2. Where the arguments alone show it, PyTorch is not loaded before. MINIGEN_DEBUG=1 shows the whole traceback
instead. Options that set a field of a dataclass take their default, range and help text from it
(`minigen.engine.settings`).
"""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from minigen import __version__
from minigen.app import commands, conditions, editing, measuring, remaking
from minigen.app.tuning.finetune import finetune
from minigen.app.tuning.prefer import prefer
from minigen.engine.distributed import is_first
from minigen.engine.errors import MinigenError
from minigen.engine.hub import shipped
from minigen.engine.settings import (
    COUNT,
    GUIDANCE,
    MAX_SECONDS,
    MAX_TOKENS,
    NATURAL,
    NOT_NEGATIVE,
    POSITIVE,
    SECONDS,
    SEED,
    SHARE,
    Range,
    TrainConfig,
    options_of,
)
from minigen.generators.trainable import TRAINABLE


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        exit status: 0 done, 1 something is broken, 2 a mistake in what was asked for, 130 stopped by Ctrl-C, 141 the
        reader of the output has gone.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        _print_any_character()
        options = _parse(argv)
        with redirect_stdout(sys.stdout if is_first() else io.StringIO()):  # of several processes, the first prints
            return options.run(options) or 0
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _say("stopped.", 130)
    except BrokenPipeError:  # `minigen doctor | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("MINIGEN_DEBUG"):
            raise
        return _explain(error)


def _print_any_character() -> None:
    """Print a character that the terminal's encoding lacks as an escape, instead of ending in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _explain(error: Exception) -> int:
    """Print an error as one line. Returns the status: 2 where the user can mend it, 1 for a fault of the program."""
    if isinstance(error, MinigenError):
        return _say(str(error), 2)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return _say(f"{error.strerror or error}{place}. Check the path, its permissions and the room on the disk.", 2)
    return _say(f"unexpected {type(error).__name__}: {error}. MINIGEN_DEBUG=1 shows where it happened.", 1)


def _say(text: str, status: int) -> int:
    print("minigen:", " ".join(text.split()), file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one line instead of the usage and a line."""

    def error(self, message: str):
        raise MinigenError(f"{message.rstrip('.')}. See `{self.prog} --help`.")


class _Help(argparse.HelpFormatter):
    """Adds the default to the help of an option, unless it is None or False."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, argparse.SUPPRESS) or action.default is False:
            return action.help
        return f"{action.help} (default: %(default)s)"


def _parse(argv: list[str]) -> argparse.Namespace:
    """The options of a command line.

    Raises:
        MinigenError: a mistake, with a hint where it is a caption that the shell or argparse has split.
    """
    try:
        options, extra = _parser().parse_known_args(argv)
    except MinigenError as error:
        raise MinigenError(f"{error}{_dash_hint(argv)}") from None
    if extra:
        hint = _dash_hint(argv) or _quotes_hint(argv, extra)
        raise MinigenError(f"unrecognized arguments: {' '.join(extra)}. See `minigen {argv[0]} --help`.{hint}")
    return options


def _dash_hint(argv: list[str]) -> str:
    """Advice for `minigen generate -rain`, which reads as options."""
    dashed = [word for word in argv[1:] if re.match(r"-[^\W\d]{2}", word)]
    if argv[:1] not in (["generate"], ["play"]) or not dashed:
        return ""
    return f' A caption that begins with "-" stands at the end, after "--": minigen {argv[0]} -- "{dashed[0]} ...".'


def _quotes_hint(argv: list[str], extra: list[str]) -> str:
    """Advice for `minigen generate rain falls`, whose caption lacks quotes."""
    if argv[:1] not in (["generate"], ["play"]) or extra[0].startswith("-"):
        return ""
    return f' Put the caption in quotes: minigen {argv[0]} "a dog barks".'


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minigen", description="From a caption to sound: every link of the chain is a command.")
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    listed = parser.add_subparsers(required=True, metavar="command")
    for add in (_corpus, _tokenize, _train, _finetune, _prefer, _generate, _play, _learn_word, _inpaint, _extend, _vary,
                _refine, _evaluate, _compare, _study, _listen, _demo, _bench, _doctor, _interop, _codec, _text, _judge,
                _corpus_card, _convert):  # fmt: skip
        add(listed)
    return parser


def _command(listed, run: Callable, help: str, example: str = "") -> Callable:
    """Add a command, named after the function that runs it. Returns the function that adds an option to it."""
    name = run.__name__.replace("_", "-")
    parser = listed.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=f"Example: minigen {name} {example}",
        formatter_class=_Help,
    )  # fmt: skip
    parser.set_defaults(run=run)

    def option(*names: str, **given) -> None:
        if isinstance(given.get("type"), Range):
            given["type"] = _number(given["type"])
        parser.add_argument(*names, **given)

    return option


def _add_setting(option: Callable, config: type, name: str) -> None:
    """Add the option that sets one field of a dataclass."""
    (field,) = [field for field in options_of(config) if field.name == name]
    allowed = field.metadata["allowed"]
    takes: dict = {"type": allowed} if isinstance(allowed, Range) else {"choices": allowed}
    if field.default is False:
        takes = {"action": "store_true"}
    option(f"--{name.replace('_', '-')}", default=field.default, help=field.metadata["help"], **takes)


# types of arguments


def _number(allowed: Range) -> Callable[[str], float]:
    """The argument type of a range: text to number."""

    def read(text: str) -> float:
        try:
            value = allowed.kind(text)
        except ValueError:
            value = None
        if not allowed.holds(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
        return value

    return read


def _caption_text(text: str) -> str:
    words = len(text.split())  # a word is one token or more
    if not 1 <= words <= MAX_TOKENS:
        problem = f"has {words:,} words, the text encoder reads {MAX_TOKENS} tokens" if words else "is empty"
        raise argparse.ArgumentTypeError(f"the caption {problem}; describe a sound in a sentence or two")
    return text


def _sound_file(text: str) -> Path:
    if Path(text).suffix.lower() not in (".wav", ".flac"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .wav or .flac")
    return Path(text)


# the commands, in the order of the chain


def _corpus(listed) -> None:
    what = "make the built-in corpus, or show how another data set is understood"
    option = _command(listed, commands.corpus, what, "--out build/corpus --clips 1000 --seed 0")
    look = "only show how this folder or table is read: columns, splits, captions, gaps"
    option("--look", metavar="FOLDER", help=look)
    option("--split", default="train", help="with --look: train, validation or test")
    option("--audio", help="with --look: folder of the clips, where they do not lie with the table")
    option("--out", type=Path, default=commands.CORPUS, help="folder for audio/ and the tables of the splits")
    option("--clips", type=Range(int, 3), default=1000, help="number of clips, over all splits")
    option("--seconds", type=Range(float, 1, MAX_SECONDS), default=4.0, help="length of a clip")
    option("--seed", type=SEED, default=0, help="the same seed gives the same bytes")
    option("--workers", type=COUNT, help="number of processes (default: one for each processor)")


def _tokenize(listed) -> None:
    option = _command(listed, commands.tokenize, "turn a corpus into codes", "build/corpus --split validation --mix 0")
    option("corpus", nargs="?", help="folder, CSV or parquet file (default: the built-in corpus, made if need be)")
    option("--out", type=Path, help=f"folder for the codes (default: {commands.TOKENS}/SPLIT)")
    option("--audio", help="folder of the clips, if they are not beside the CSV")
    option("--split", default="train", help="train, validation or test")
    option("--mix", type=NOT_NEGATIVE, default=0.5, help="mixtures of two clips to add, as a share of the clips")
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip")
    option("--codec", default="mini", help="name or folder of the codec")
    option("--seed", type=SEED, default=0, help="seed of the mixtures")
    option("--latents", action="store_true", help="store the codec's latents, too, for a diffusion of latents")


def _train(listed) -> None:
    option = _command(listed, commands.train, "train a generator on codes", "--minutes 20 --similarity 0.1")
    option("tokens", nargs="?", help="codes to learn from (default: those of the built-in corpus, made if need be)")
    option("--valid", help="codes to measure on (default: a tenth of the recordings, held back)")
    option("--out", type=Path, default=Path("build/model"), help="folder for the model; a stopped run continues there")
    option("--generator", choices=list(TRAINABLE), default="language_model", help="kind of generator")
    _add_setting(option, TrainConfig, "steps")
    option("--minutes", type=POSITIVE, help="instead of --steps: as many steps as this machine makes in that time")
    for name in ("batch_size", "learning_rate", "text_dropout", "similarity", "pooling"):
        _add_setting(option, TrainConfig, name)
    start = "model whose weights and sizes to begin from, such as mini (default: random weights)"
    option("--from", dest="start", metavar="MODEL", help=start)
    rank = "train a LoRA adapter of this rank beside the frozen weights of the model of --from; 8 is usual"
    option("--lora", type=COUNT, metavar="RANK", help=rank)
    for name in ("accumulate", "checkpointing"):
        _add_setting(option, TrainConfig, name)
    layers = "number of layers of the model, 8 for a generator of latents; not with --from (default: 6)"
    option("--width", type=COUNT, help="width of the model, a multiple of 32; not with --from (default: 256)")
    option("--layers", type=COUNT, help=layers)
    option("--codec", default="mini", help="name or folder of the codec that made the codes")
    option("--text", default="mini", help="name or folder of the text encoder")
    _add_setting(option, TrainConfig, "seed")


def _finetune(listed) -> None:
    what = "teach a model your recordings, and compare it with the start by ear"
    option = _command(listed, finetune, what, "my_recordings --minutes 10")
    folder = "folder with metadata.csv or a subfolder for each sound, or a table of files and captions"
    option("recordings", help=folder)
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip: longer files are cut, shorter ones filled")
    option("--text-dropout", type=SHARE, default=0.1, help="share of the steps without text")
    known = "corpus that the model knows, for half of the training, to forget less of it (without a name: the built-in)"
    option("--rehearse", nargs="?", const="", metavar="CORPUS", help=known)
    _add_tuning(option, "build/finetuned", 8, 1e-3)


def _prefer(listed) -> None:
    option = _command(listed, prefer, "tune a model to the sounds that a judge or people prefer", "--by clap")
    option("--by", choices=("clap",), help="pairs of the model's own samples, ranked by the CLAP score")
    answers = "pairs of people's answers: folders of minigen listen, or CSVs in their folder answers"
    option("--answers", nargs="+", metavar="PLACE", help=answers)
    option("--beta", type=POSITIVE, default=0.1, help="strength of the tie to the model before the tuning")
    option("--captions", type=Range(int, 2), default=400, help="with --by: captions that samples are made for")
    option("--samples", type=Range(int, 2), default=4, help="with --by: samples of each caption at each guidance")
    stored = "with --by: pairs.safetensors of another run, whose pairs are taken instead of new samples"
    option("--pairs", metavar="FILE", help=stored)
    least = "with --by: smallest difference of the CLAP scores of a pair; pairs below it are left out"
    option("--least", type=NOT_NEGATIVE, default=0.0, help=least)
    option("--data", help="corpus of the captions (default: the built-in corpus, made if need be)")
    option("--clips", type=Range(int, 2), default=48, help="held-out captions that the model is measured on")
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip")
    option("--guidance", type=GUIDANCE, default=3.0, help="strength of guidance of the measured sounds")
    strengths = "with --by: strengths of guidance of the samples of each caption; 1 is none"
    option("--pair-guidance", type=GUIDANCE, nargs="+", default=[1.0, 3.0], help=strengths)
    option("--judge", default="mini", help="name or folder of the CLAP model")
    _add_tuning(option, "build/preferred", 8, 3e-4)


def _add_tuning(option: Callable, out: str, batch_size: int, learning_rate: float) -> None:
    """The options that finetune and prefer share."""
    option("--from", dest="start", metavar="MODEL", default="mini", help="name or folder of the model to tune")
    option("--out", type=Path, default=Path(out), help="folder for the result; a stopped run continues there")
    option("--minutes", type=POSITIVE, default=10.0, help="time for the training")
    option("--steps", type=COUNT, help="number of steps, instead of --minutes")
    option("--lora", type=COUNT, metavar="RANK", default=8, help="rank of the adapter that is trained")
    option("--all-weights", action="store_true", help="train all weights instead of an adapter")
    option("--batch-size", type=COUNT, default=batch_size, help="clips a step, over all processes")
    option("--learning-rate", type=POSITIVE, default=learning_rate, help="peak learning rate")
    for name in ("accumulate", "checkpointing", "seed"):
        _add_setting(option, TrainConfig, name)


def _generate(listed) -> None:
    option = _command(listed, commands.generate, "turn a caption into sound", '"a dog barks in the rain" -o dog.wav')
    option("caption", type=_caption_text, nargs="?", help="description of the sound, in English and in quotes")
    lines = "read captions from standard input, one a line, and write a file for each: sound-1.wav, sound-2.wav, ..."
    option("--stdin", action="store_true", help=lines)
    option("--batch-size", type=COUNT, default=8, help="with --stdin: captions that are generated together")
    _add_sampling(option)


def _play(listed) -> None:
    option = _command(listed, commands.play, "turn a caption into sound and play it", '"a dog barks in the rain"')
    option("caption", type=_caption_text, nargs="?", help="description of the sound, in English and in quotes")
    _add_sampling(option)


def _learn_word(listed) -> None:
    example = 'bark.wav --word "<my-dog>"'
    option = _command(listed, conditions.learn_word, "learn a new word that stands for the sound of a file", example)
    option("sound", help="sound file; its first 4 s are learnt from")
    option("--word", default="<x>", help="new word, in angle brackets and quotes")
    option("--like", help='plain caption to begin from, such as "a dog barks" (default: the closest one by the judge)')
    option(
        "--space", choices=("word", "memory"), default="word", help="learn vectors before the text encoder, or after it"
    )
    option("--model", default="mini", help="name or folder of the language model")
    option("--out", type=Path, help="file to write (default: the word's name with .safetensors)")
    option("--seed", type=SEED, default=0, help="seed of the training")


def _add_sampling(option: Callable) -> None:
    option("-o", "--out", type=_sound_file, default=Path("sound.wav"), help="file to write, .wav or .flac")
    option("--seconds", type=SECONDS, default=4.0, help="length of the sound")
    option("--guidance", type=GUIDANCE, default=3.0, help="0 ignores the text, 1 follows the model, 3 is usual")
    option("--temperature", type=NOT_NEGATIVE, default=1.0, help="0 always takes the most likely code")
    option("--top-k", type=NATURAL, default=250, help="draw from the k most likely codes; 0 draws from all")
    option("--top-p", type=SHARE, default=0.0, help="instead of --top-k: the fewest codes with this probability")
    option("--steps", type=COUNT, help="number of steps, for the generators that have steps (default: the generator's)")
    option("--seed", type=SEED, default=0, help="the same seed gives the same sound")
    option("--model", default="mini", help=f"{', '.join(['mini', *shipped('generator')])}, or a folder")
    option("--adapter", metavar="FOLDER", help="LoRA adapter of the model: a folder in the format of peft")
    option("--prompt", help="sound file to continue")
    option("--style", metavar="FILE", help="sound file that the sound is to be like; for models such as mini-style")
    much = "with --style: how much of it passes, 1 to 6 codebooks of the bottleneck (default: 3)"
    option("--codebooks", type=Range(int, 1, 6), help=much)
    strength = "with --style: above 1 strengthens the caption against the style (default: 5)"
    option("--style-guidance", type=GUIDANCE, help=strength)
    words = "file of a learnt word that the caption uses, see learn-word; may be given several times"
    option("--words", metavar="FILE", action="append", default=[], help=words)


def _inpaint(listed) -> None:
    what = "make a part of a recording anew, so that it fits the rest"
    option = _edit(listed, editing.inpaint, what, 'clip.wav "a dog barks" --start 1.2 --end 1.9')
    option("--start", type=NOT_NEGATIVE, required=True, help="where the part begins, in seconds")
    option("--end", type=POSITIVE, required=True, help="where it ends, in seconds")


def _extend(listed) -> None:
    what = "continue a recording forwards or backwards"
    option = _edit(listed, editing.extend, what, 'clip.wav "rain falls" --after 3')
    option("--before", type=NOT_NEGATIVE, default=0.0, help="seconds to make before the recording")
    option("--after", type=NOT_NEGATIVE, default=0.0, help="seconds to make after it")


def _vary(listed) -> None:
    option = _edit(listed, editing.vary, "make a variation of a recording", 'clip.wav "a dog barks" --share 0.5')
    option("--share", type=SHARE, default=0.5, help="share of the codes that is kept; 0 keeps none")


def _refine(listed) -> None:
    what = "keep the outline of a recording and make its details anew"
    option = _edit(listed, editing.refine, what, 'clip.wav "a dog barks" --codebooks 1')
    option("--codebooks", type=COUNT, default=1, help="number of codebooks that is kept, the coarsest first")


def _edit(listed, run: Callable, what: str, example: str) -> Callable:
    """Add a command that edits a recording, with the options that all of them have."""
    option = _command(listed, run, what, example)
    option("sound", help="sound file to edit, of at most 30 s; it stays as it is")
    option("caption", type=_caption_text, help="description of the whole sound, in English and in quotes")
    option("-o", "--out", type=_sound_file, default=Path("sound.wav"), help="file to write, .wav or .flac")
    option("--guidance", type=GUIDANCE, default=3.0, help="0 ignores the text, 1 follows the model, 3 is usual")
    option("--temperature", type=NOT_NEGATIVE, help="0 always takes the most likely code (default: the generator's)")
    option("--steps", type=COUNT, help="number of steps (default: the generator's)")
    option("--seed", type=SEED, default=0, help="the same seed gives the same sound")
    option("--model", default="mini-masked", help="name or folder of a masked generator")
    return option


def _evaluate(listed) -> None:
    example = "--model build/model --clips 48"
    option = _command(listed, measuring.evaluate, "measure a model beside its controls", example)
    option("--model", default="mini", help="name or folder of the model")
    option("--guidance", type=GUIDANCE, default=3.0, help="strength of guidance")
    option("--steps", type=COUNT, help="number of steps, for the generators that have steps (default: the generator's)")
    _add_measuring(option)


def _compare(listed) -> None:
    example = "mini-dropout build/model --guidance 1 3"
    option = _command(listed, measuring.compare, "measure several models in one table", example)
    compared = ["mini-no-dropout", "mini-dropout", "mini-regularized"]
    option("models", nargs="*", default=compared, help="names or folders of the models")
    strengths = "strengths of guidance; every model is measured at each"
    option("--guidance", type=GUIDANCE, nargs="+", default=[1.0, 3.0], help=strengths)
    counts = "numbers of steps; every model is measured at each (default: the number that each generator has)"
    option("--steps", type=COUNT, nargs="+", help=counts)
    _add_measuring(option)


def _add_measuring(option: Callable) -> None:
    option("--data", help="corpus to measure on (default: the built-in corpus, made if need be)")
    option("--audio", help="folder of the clips, if they are not beside the CSV")
    option("--split", default="test", help="train, validation or test")
    option("--clips", type=Range(int, 2), default=48, help="number of captions")
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip")
    option("--seed", type=SEED, default=0, help="seed of the sampling")
    option("--judge", default="mini", help="name or folder of the audio-text model")
    option("--tagger", default="mini", help="name or folder of the event classifier")
    option("--csv", type=Path, help="file for the table as CSV")


def _study(listed) -> None:
    what = "test the regulariser, or compare the families: three seeds, one table; a stopped study continues"
    option = _command(listed, measuring.study, what, "--out build/study")
    option("--out", type=Path, default=Path("build/study"), help="folder for corpus, codes and models, some gigabytes")
    option("--rows", type=Path, help=f"folder of rows.csv and captions.csv (default: {measuring.SECOND_STUDY})")
    families = f"compare language model, masked, discrete and latent diffusion; rows in {measuring.FAMILIES}"
    option("--families", action="store_true", help=families)
    option("--first", action="store_true", help=f"only make the table of the first study, from {measuring.STUDY}")
    option("--table", action="store_true", help="only make table.md and its figures from the rows that are there")
    option("--tasks", type=COUNT, help="stop after this number of trainings (default: when nothing is missing)")
    option("--smoke", action="store_true", help="tiny models: a test of the program in about a minute, without meaning")


def _listen(listed) -> None:
    what = "compare models by ear: a blind test in the browser, and its report"
    example = "build/listening --models mini-dropout mini-regularized --clips 12"
    option = _command(listed, measuring.listen, what, example)
    option("folder", type=Path, nargs="?", default=measuring.LISTENING, help="folder of the test: a new or a begun one")
    option(
        "--report", nargs="*", metavar="ANSWERS", help="show the report, with answers from these CSVs or folders too"
    )
    models = 'names or folders; "real" for the true clips (default: mini-dropout and mini-regularized)'
    option("--models", nargs="+", help=models)
    option("--guidance", type=GUIDANCE, nargs="+", help="one strength, or one for each model (default: 3)")
    option("--clips", type=COUNT, help="number of captions (default: 12)")
    option("--checks", type=COUNT, help="number of attention checks, a real clip against noise (default: 4)")
    option("--seconds", type=SECONDS, help="length of a clip (default: 4)")
    option("--data", help="corpus of the captions (default: the built-in corpus, made if need be)")
    option("--split", help="train, validation or test (default: test)")
    option("--seed", type=SEED, help="seed of the sounds, the orders and the sides (default: 0)")
    option("--port", type=Range(int, 0, 65535), default=8765, help="port of the page; 0 takes a free one")
    host = "address to serve a class at, behind a code, such as 0.0.0.0 (default: this machine only)"
    option("--host", default="127.0.0.1", metavar="ADDRESS", help=host)


def _demo(listed) -> None:
    what = "build, train, generate, compare: the whole chain in minutes"
    option = _command(listed, commands.demo, what, "--minutes 5")
    option("--minutes", type=POSITIVE, default=3.0, help="time for the live training")
    option("--out", type=Path, default=Path("build"), help="folder for everything; the page is report.html in it")
    option("--data", help="train on this corpus (default: the built-in one)")
    option("--seed", type=SEED, default=0, help="seed of everything random")


def _bench(listed) -> None:
    option = _command(listed, commands.bench, "measure speed beside transformers, on the same weights", "--quick")
    option("--out", type=Path, default=Path("build/bench"), help="folder for bench.md and bench.json")
    option("--quick", action="store_true", help="short clips and few rounds: a first look")
    option("--threads", type=COUNT, default=1, help="threads of generation, for both libraries")


def _doctor(listed) -> None:
    option = _command(listed, commands.doctor, "check whether everything works, and say how to repair what does not")
    option("--mend", action="store_true", help="first repair torchaudio, if it does not fit a CPU-only PyTorch")


def _interop(listed) -> None:
    _command(listed, commands.interop, "compare official models with this library, with the same random weights")


def _codec(listed) -> None:
    option = _command(listed, remaking.train_codec, "train the compact codec", "--real ESC-10 --minutes 120")
    option("--data", help="corpus to learn from (default: the built-in one, made if need be)")
    option("--real", help="folder of class folders of real recordings named as in ESC-10, used as often as the corpus")
    start = "codec whose weights to begin from; its codes stay, so language models of it stay valid (default: fit one)"
    option("--from", dest="start", metavar="CODEC", help=start)
    _add_recipe(option, "codec")


def _text(listed) -> None:
    option = _command(listed, remaking.train_text, "train the text encoder on captions", "--minutes 8")
    option("--audiocaps", help="folder with AudioCaps' train.csv and val.csv, whose captions are added")
    option("--teacher", help="folder with the files of all-MiniLM-L6-v2, whose similarities are learned")
    start = "encoder whose weights to begin from: it keeps its similarities and learns which sound comes first"
    option("--from", dest="start", metavar="ENCODER", help=start)
    _add_recipe(option, "text")


def _judge(listed) -> None:
    option = _command(listed, remaking.train_judge, "train a model of the metrics", "--part tagger --minutes 12")
    option("--part", choices=("judge", "tagger"), default="judge", help="audio-text model, or event classifier")
    option("--real", help="folder of class folders of real recordings, which are added")
    start = "tagger whose weights to begin from (default: random ones; for the audio half of the judge, mini)"
    option("--from", dest="start", metavar="TAGGER", help=start)
    _add_recipe(option, "PART")


def _corpus_card(listed) -> None:
    option = _command(listed, remaking.corpus_card, "describe the corpus beside real recordings", "--real ESC-10")
    option("--real", help="folder of class folders of real recordings, for pictures and to train a classifier on")
    option("--audiocaps", help="folder with AudioCaps' train.csv, whose vocabulary is compared")
    option("--out", type=Path, default=remaking.WEIGHTS / "corpus", help="folder for the card and its pictures")


def _convert(listed) -> None:
    what = "turn an audiocraft checkpoint into safetensors"
    option = _command(listed, commands.convert, what, "audiogen --out build/audiogen")
    option("checkpoint", help="folder with state_dict.bin and compression_state_dict.bin, or its name on the hub")
    option("--out", type=Path, default=Path("build/converted"), help="folder for the model, its codec and their names")


def _add_recipe(option: Callable, part: str) -> None:
    option("--out", type=Path, help=f"folder for the weights (default: {remaking.WEIGHTS}/{part}/mini)")
    option("--minutes", type=POSITIVE, help="time for the training (default: the recipe's)")
    option("--seed", type=SEED, help="seed of everything random (default: the recipe's)")
