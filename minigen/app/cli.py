"""The command line: what a person types. `minigen.app.commands` does what it says.

    minigen corpus ─► minigen tokenize ─► minigen train ─► minigen generate, evaluate, compare
    minigen demo      all of these in a few minutes          minigen doctor    does everything work?

A mistake gives one line on stderr and exit status 2, before PyTorch is loaded where the arguments alone show it.
MINIGEN_DEBUG=1 shows the whole traceback instead.
"""

import argparse
import io
import math
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from minigen import __version__
from minigen.app import commands
from minigen.engine.distributed import is_first
from minigen.engine.errors import MinigenError

MOST_SECONDS = 30  # generate.MAX_SECONDS and text.MAX_TOKENS, known here without loading PyTorch;
MOST_WORDS = 256  # a word is at least one token


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 something is broken, 2 a mistake, 130 stopped by Ctrl-C."""
    try:
        options = _parser().parse_args(argv)
        with redirect_stdout(sys.stdout if is_first() else io.StringIO()):  # of several processes, one tells
            return options.run(options) or 0
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt:
        return _say("stopped.", 130)
    except BrokenPipeError:  # `minigen doctor | head -3`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("MINIGEN_DEBUG"):
            raise
        return _explain(error)


def _explain(error: Exception) -> int:
    """One line for an error: status 2 where the user can mend it, 1 where the program is at fault."""
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
    """Shows the defaults that are values; where None stands for something else, the help says what."""

    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.default not in (None, argparse.SUPPRESS) and action.default is not False
        return action.help + " (default: %(default)s)" * shown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="minigen", description="From a caption to sound: every link of the chain is a command.")
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    listed = parser.add_subparsers(required=True, metavar="command")
    for add in (_corpus, _tokenize, _train, _generate, _evaluate, _compare, _study, _listen, _demo, _bench, _doctor,
                _codec, _text, _judge, _corpus_card, _convert):  # fmt: skip
        add(listed)
    return parser


def _command(listed, run: Callable, help: str, example: str = "") -> Callable:
    """A command named after the function that runs it; returns what adds an option to it."""
    name = run.__name__.replace("_", "-")
    parser = listed.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=f"Example: minigen {name} {example}",
        formatter_class=_Help,
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser.add_argument


# types of arguments


def _number(kind: type, low: float, high: float = math.inf, above: bool = False) -> Callable[[str], float]:
    """An argument type: a finite number from `low` (or above it) to `high`."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * (kind is int)}number") from None
        if not (low < value if above else low <= value) or value > high or math.isinf(value):
            limits = f"{'above' if above else 'at least'} {low:,}{f', at most {high:,}' * (high < math.inf)}"
            raise argparse.ArgumentTypeError(f"{text} is out of range; give a finite number, {limits}")
        return value

    return read


COUNT, NATURAL, SEED = _number(int, 1), _number(int, 0), _number(int, 0, 2**31 - 1)
POSITIVE, NOT_NEGATIVE = _number(float, 0, above=True), _number(float, 0)
SHARE, SECONDS = _number(float, 0, 1), _number(float, 0, MOST_SECONDS, above=True)
FINITE = _number(float, -(10**6), 10**6)


def _caption_text(text: str) -> str:
    words = len(text.split())
    if not 1 <= words <= MOST_WORDS:
        problem = f"has {words:,} words, the text encoder reads {MOST_WORDS} tokens" if words else "is empty"
        raise argparse.ArgumentTypeError(f"the caption {problem}; describe a sound in a sentence or two")
    return text


def _sound_file(text: str) -> Path:
    if Path(text).suffix.lower() not in (".wav", ".flac"):
        raise argparse.ArgumentTypeError(f"{text!r} does not end in .wav or .flac")
    return Path(text)


# the commands, in the order of the chain


def _corpus(listed) -> None:
    option = _command(listed, commands.corpus, "make the built-in corpus", "--out build/corpus --clips 1000 --seed 0")
    option("--out", type=Path, default=commands.CORPUS, help="folder for audio/ and the tables of the splits")
    option("--clips", type=_number(int, 3), default=1000, help="how many, over all splits")
    option("--seconds", type=_number(float, 1, MOST_SECONDS), default=4.0, help="length of a clip")
    option("--seed", type=SEED, default=0, help="the same seed gives the same bytes")
    option("--workers", type=COUNT, help="processes (default: one for each processor)")


def _tokenize(listed) -> None:
    option = _command(listed, commands.tokenize, "turn a corpus into codes", "build/corpus --split validation --mix 0")
    option("corpus", nargs="?", help="folder, CSV or parquet file (default: the built-in corpus, made if need be)")
    option("--out", type=Path, help=f"folder for the codes (default: {commands.TOKENS}/SPLIT)")
    option("--audio", help="folder of the clips, where they do not lie with the CSV")
    option("--split", default="train", help="train, validation or test")
    option("--mix", type=NOT_NEGATIVE, default=0.5, help="mixtures of two clips to add, as a share of the clips")
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip")
    option("--codec", default="mini", help="name or folder of the codec")
    option("--seed", type=SEED, default=0, help="of the mixtures")


def _train(listed) -> None:
    option = _command(listed, commands.train, "train a language model on codes", "--minutes 20 --similarity 0.1")
    option("tokens", nargs="?", help="codes to learn from (default: those of the built-in corpus, made if need be)")
    option("--valid", help="codes to measure on (default: a tenth of the recordings, held back)")
    option("--out", type=Path, default=Path("build/model"), help="folder for the model; a stopped run goes on there")
    option("--steps", type=COUNT, default=2000, help="how long to train")
    option("--minutes", type=POSITIVE, help="instead of --steps: as many as this machine makes in that time")
    option("--batch-size", type=COUNT, default=16, help="clips a step")
    option("--learning-rate", type=POSITIVE, default=5e-3, help="its peak")
    option("--text-dropout", type=SHARE, default=0.1, help="share of the steps without text")
    option("--similarity", type=NOT_NEGATIVE, default=0.0, help="weight of the similarity regulariser")
    option("--pooling", choices=("max", "mean"), default="max", help="of the regulariser")
    option("--start", help="model whose weights and sizes to begin with (default: random weights)")
    option("--width", type=COUNT, default=256, help="of the model, a multiple of 32")
    option("--layers", type=COUNT, default=6, help="of the model")
    option("--codec", default="mini", help="the codec that made the codes")
    option("--text", default="mini", help="name or folder of the text encoder")
    option("--seed", type=SEED, default=0, help="of the weights, the batches and the steps without text")


def _generate(listed) -> None:
    option = _command(
        listed, commands.generate, "turn a caption into sound", '"a dog barks while rain falls" -o dog.wav'
    )
    option("caption", type=_caption_text, help="what shall be heard")
    option("-o", "--out", type=_sound_file, default=Path("sound.wav"), help="file to write, .wav or .flac")
    option("--seconds", type=SECONDS, default=4.0, help="length")
    option("--guidance", type=FINITE, default=3.0, help="0 ignores the text, 1 follows the model, 3 is usual")
    option("--temperature", type=NOT_NEGATIVE, default=1.0, help="0 always takes the most likely code")
    option("--top-k", type=NATURAL, default=250, help="draw from so many codes; 0 from all")
    option("--top-p", type=SHARE, default=0.0, help="instead of --top-k: the fewest codes with this probability")
    option("--seed", type=SEED, default=0, help="the same seed gives the same sound")
    option("--model", default="mini", help="mini, mini-no-dropout, mini-dropout, mini-regularized, or a folder")
    option("--prompt", help="sound file to go on from")


def _evaluate(listed) -> None:
    option = _command(
        listed, commands.evaluate, "measure a model beside its controls", "--model build/model --clips 48"
    )
    option("--model", default="mini", help="name or folder")
    option("--guidance", type=FINITE, default=3.0, help="strength of guidance")
    _add_measuring(option)


def _compare(listed) -> None:
    option = _command(
        listed, commands.compare, "measure several models in one table", "mini-dropout build/model --guidance 1 3"
    )
    shipped = ["mini-no-dropout", "mini-dropout", "mini-regularized"]
    option("models", nargs="*", default=shipped, help="names or folders")
    option("--guidance", type=FINITE, nargs="+", default=[1.0, 3.0], help="strengths of guidance, each for every model")
    _add_measuring(option)


def _add_measuring(option: Callable) -> None:
    option("--data", help="corpus to measure on (default: the built-in corpus, made if need be)")
    option("--split", default="test", help="train, validation or test")
    option("--clips", type=_number(int, 2), default=48, help="how many captions")
    option("--seconds", type=SECONDS, default=4.0, help="length of a clip")
    option("--seed", type=SEED, default=0, help="of the sampling")
    option("--judge", default="mini", help="name or folder of the audio-text model")
    option("--tagger", default="mini", help="name or folder of the event classifier")
    option("--csv", type=Path, help="file for the table as CSV")


def _listen(listed) -> None:
    option = _command(
        listed, commands.listen, "compare models by ear: a blind test in the browser, and its report",
        "build/listening --models mini-dropout mini-regularized --clips 12",
    )  # fmt: skip
    option("folder", type=Path, nargs="?", default=commands.LISTENING, help="the test: made here, or gone on with")
    option("--report", nargs="*", metavar="ANSWERS", help="show the report; CSVs, or folders of them, are added to it")
    option("--models", nargs="+", help='names or folders; "real": the true clips (default: mini-dropout and '
           "mini-regularized)")  # fmt: skip
    option("--guidance", type=FINITE, nargs="+", help="one strength, or one for each model (default: 3)")
    option("--clips", type=COUNT, help="how many captions (default: 12)")
    option("--checks", type=COUNT, help="attention checks among the trials: a real clip against noise (default: 4)")
    option("--seconds", type=SECONDS, help="length of a clip (default: 4)")
    option("--data", help="corpus of the captions (default: the built-in corpus, made if need be)")
    option("--split", help="train, validation or test (default: test)")
    option("--seed", type=SEED, help="of the sounds, the orders and the sides (default: 0)")
    option("--port", type=_number(int, 0, 65535), default=8765, help="of the page on 127.0.0.1; 0 takes any free one")


def _study(listed) -> None:
    option = _command(
        listed, commands.study, "test the regulariser: four models, three seeds, one table; goes on where it stopped",
        "--out build/study",
    )  # fmt: skip
    option("--out", type=Path, default=Path("build/study"), help="folder for corpus, codes and models, some gigabytes")
    option("--rows", type=Path, help=f"folder of rows.csv and captions.csv (default: {commands.STUDY})")
    option("--table", action="store_true", help="only make table.md and its figures from the rows that are there")
    option("--tasks", type=COUNT, help="stop after so many trainings (default: when nothing is missing)")
    option("--smoke", action="store_true", help="tiny models: the whole machinery in about a minute, figures void")


def _demo(listed) -> None:
    option = _command(
        listed, commands.demo, "build, train, generate, compare: the whole chain in minutes", "--minutes 5"
    )
    option("--minutes", type=POSITIVE, default=3.0, help="time for the live training")
    option("--out", type=Path, default=Path("build"), help="folder for everything; the page is report.html in it")
    option("--data", help="train on this corpus (default: the built-in one)")
    option("--seed", type=SEED, default=0, help="of everything that is left to chance")


def _bench(listed) -> None:
    option = _command(listed, commands.bench, "measure speed beside transformers, on the same weights", "--quick")
    option("--out", type=Path, default=Path("build/bench"), help="folder for bench.md and bench.json")
    option("--quick", action="store_true", help="short clips, few rounds: a glance instead of a measurement")
    option("--threads", type=COUNT, default=1, help="of generation, ours and theirs")


def _doctor(listed) -> None:
    option = _command(listed, commands.doctor, "look whether everything works, and say how to mend what does not")
    option(
        "--mend", action="store_true", help="first mend what can be mended here: torchaudio beside a CPU-only PyTorch"
    )


def _codec(listed) -> None:
    option = _command(listed, commands.train_codec, "train the compact codec", "--real ESC-10 --minutes 120")
    option("--data", help="corpus to learn from (default: the built-in one, made if need be)")
    option("--real", help="folder of class folders of real recordings named as in ESC-10, heard as often as the corpus")
    option("--start", help="codec to go on from; its codes stay, language models of it stay valid (default: fit one)")
    _add_recipe(option, "codec")


def _text(listed) -> None:
    option = _command(listed, commands.train_text, "train the text encoder on captions", "--minutes 8")
    option("--audiocaps", help="folder with AudioCaps' train.csv and val.csv, whose captions are added")
    option("--teacher", help="folder with the files of all-MiniLM-L6-v2, whose likenesses are learned")
    option("--start", help="encoder to go on from: it keeps its likenesses and learns which sound comes first")
    _add_recipe(option, "text")


def _judge(listed) -> None:
    option = _command(listed, commands.train_judge, "train what the metrics hear with", "--part tagger --minutes 12")
    option("--part", choices=("judge", "tagger"), default="judge", help="audio-text model, or event classifier")
    option("--real", help="folder of class folders of real recordings, which are added")
    option("--start", help="tagger whose weights to begin with (default: random ones; for the judge's ears, mini)")
    _add_recipe(option, "PART")


def _corpus_card(listed) -> None:
    option = _command(listed, commands.corpus_card, "picture the corpus beside real recordings", "--real ESC-10")
    option("--real", help="folder of class folders of real recordings, for pictures and for a listener trained on them")
    option("--audiocaps", help="folder with AudioCaps' train.csv, whose vocabulary is compared")
    option("--out", type=Path, default=commands.WEIGHTS / "corpus", help="folder for the card and its pictures")


def _convert(listed) -> None:
    option = _command(
        listed, commands.convert, "turn an audiocraft checkpoint into safetensors", "audiogen --out build/audiogen"
    )
    option("checkpoint", help="folder with state_dict.bin and compression_state_dict.bin, or its name on the hub")
    option("--out", type=Path, default=Path("build/converted"), help="folder for the model, its codec and their names")


def _add_recipe(option: Callable, part: str) -> None:
    option("--out", type=Path, help=f"folder for the weights (default: {commands.WEIGHTS}/{part}/mini)")
    option("--minutes", type=POSITIVE, help="time for the training (default: the recipe's)")
    option("--seed", type=SEED, help="of everything that is left to chance (default: the recipe's)")
