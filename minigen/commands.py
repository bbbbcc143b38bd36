"""What each command of `minigen` does, in the order of the chain; `minigen.cli` reads the arguments.

    corpus ─► tokenize ─► train ─► generate, evaluate, compare        demo: all of these        train-*: the other parts

Each takes the parsed options, prints what it made, and returns nothing (or an exit status). A function imports what it
needs when it runs and looks at what can be looked at first: a mistake is answered before a model is loaded.
"""

import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from minigen.errors import MinigenError

CORPUS = Path("build/corpus")  # made when a command needs a corpus and none is named
TOKENS = Path("build/tokens")
WEIGHTS = Path("build/weights")  # laid out as data/, so that MINIGEN_DATA=build/weights tries them
REFERENCE = 240  # real clips, at the most, that FAD compares with
FILE_SUFFIXES = (".wav", ".flac", ".csv")
STARTED = time.monotonic()  # about when the process started


def check_writable(path: Path, room: int = 0) -> None:
    """Try whether `path` can be made, with `room` bytes in it, so that hours of work do not end in an error.

    Raises:
        MinigenError: the place cannot be written, or `path` is a folder where a file is meant, or the reverse.
    """
    is_file = path.suffix in FILE_SUFFIXES
    if path.exists() and path.is_dir() == is_file:
        raise MinigenError(f"{path} is a {'folder' if is_file else 'file'}. Name another place.")
    places = (path, *path.absolute().parents)
    place = next(place for place in places[is_file:] if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(room))
    except OSError as error:
        raise MinigenError(f"cannot write {path} ({error.strerror}). Choose a place you may write to.") from error


def corpus(options: Namespace) -> None:
    """`minigen corpus`: the built-in corpus."""
    from minigen.corpus.builtin import build_corpus

    check_writable(options.out)
    build_corpus(options.out, options.clips, options.seed, options.seconds, options.workers)
    print(f"{options.clips} clips of {options.seconds:g} s in {options.out}")


def default_corpus() -> Path:
    """The built-in corpus of 1000 clips, made if it is not there yet."""
    if not (CORPUS / "test.csv").is_file():
        corpus(Namespace(out=CORPUS, clips=1000, seed=0, seconds=4.0, workers=None))
    return CORPUS


def tokenize(options: Namespace) -> None:
    """`minigen tokenize`: a corpus, and mixtures of its clips, as codes."""
    out = options.out or TOKENS / options.split
    tokens = make_tokens(
        options.corpus, options.split, out, options.codec, options.mix, options.audio, options.seconds, options.seed
    )
    print(f"{len(tokens)} clips, each as codes {list(tokens.codes.shape[1:])}, in {out}")


def make_tokens(
    source: str | None, split: str, out: Path, codec: str, mix: float = 0.0, audio: str | None = None,
    seconds: float = 4.0, seed: int = 0,
):  # fmt: skip
    """Tokens of one split of a corpus (of the built-in one unless named); what is skipped is listed beside `out`."""
    from minigen.codec import load_codec
    from minigen.corpus import read_corpus
    from minigen.corpus.tokens import tokenize

    check_writable(out)
    codec = load_codec(codec)
    skipped = out.with_name(f"{out.name}-skipped.csv")
    clips = read_corpus(source or default_corpus(), split, audio, seconds, codec.sample_rate, skipped)
    print(f"{split}: {clips.report}")
    return tokenize(clips, codec, out, mix, seed)


def train(options: Namespace) -> None:
    """`minigen train`: a language model on tokens."""
    import torch

    from minigen.lm import AudioLM
    from minigen.text import load_text_encoder
    from minigen.train import TrainConfig, train

    check_writable(options.out)
    names = ("steps", "batch_size", "learning_rate", "text_dropout", "similarity", "pooling", "seed")
    config = TrainConfig(**{name: getattr(options, name) for name in names})
    learn, valid = _learn_and_valid(options.tokens, options.valid, options.codec)
    encoder = load_text_encoder(options.text)
    torch.manual_seed(options.seed)
    model = AudioLM.from_pretrained(options.start) if options.start else AudioLM(_model_config(options, learn, encoder))
    if options.minutes:
        config = _fit_minutes(model, encoder, learn, config, options.minutes)
    last = train(model, encoder, learn, valid, options.out, config, (options.codec, options.text))[-1]
    print(f"validation loss {last['valid']:.3f}, without text {last['valid_no_text']:.3f}")
    print(f'hear it: minigen generate "a dog barks" --model {options.out}')


def _learn_and_valid(tokens: str | None, valid: str | None, codec: str):
    """Tokens to learn from and to measure on; those of the built-in corpus where none are named."""
    from minigen.corpus import TokenSet

    if tokens is None:
        learn = make_tokens(None, "train", TOKENS / "train", codec, mix=0.5)
        return learn, TokenSet.open(valid) if valid else make_tokens(None, "validation", TOKENS / "validation", codec)
    learn = TokenSet.open(tokens)
    return (learn, TokenSet.open(valid)) if valid else hold_back(learn)


def hold_back(tokens):
    """Every tenth recording to measure on; what holds none of them, not even in a mixture, to learn from.

    Raises:
        MinigenError: nothing is left to learn from.
    """
    held = sorted({source for sources in tokens.sources for source in sources})[::10]
    rows = range(len(tokens))
    valid = [row for row in rows if len(tokens.sources[row]) == 1 and tokens.sources[row][0] in held]
    learn = [row for row in rows if not set(held) & set(tokens.sources[row])]
    if not valid or not learn:
        raise MinigenError(
            f"{len(tokens)} clips are too few to hold some back. Name others to measure on with --valid."
        )
    return _subset(tokens, learn), _subset(tokens, valid)


def _subset(tokens, rows: list[int]):
    lists = {name: [getattr(tokens, name)[row] for row in rows] for name in ("captions", "events", "sources")}
    return replace(tokens, codes=tokens.codes[rows], **lists)


def _model_config(options: Namespace, tokens, encoder):
    from minigen.lm import AudioLMConfig

    streams, width = tokens.codes.shape[1], options.width
    return AudioLMConfig(
        num_codebooks=streams, codebook_size=tokens.codebook_size, width=width, layers=options.layers,
        heads=max(1, width // 32), ffn=4 * width, memory_width=encoder.width, delays=tuple(range(streams)),
    )  # fmt: skip


def _fit_minutes(model, encoder, tokens, config, minutes: float):
    """As many steps as fit; the number is printed, because a stopped run goes on only with the same number."""
    from minigen.train import seconds_per_step

    steps = max(1, int(60 * minutes / seconds_per_step(model, encoder, tokens, config)))
    print(f"{steps} steps fit into {minutes:g} minutes (to go on after a break: --steps {steps})")
    return replace(config, steps=steps, warmup=min(config.warmup, 1 + steps // 10))


def generate(options: Namespace) -> None:
    """`minigen generate`: one caption as a sound file."""
    check_writable(options.out, room=round(options.seconds * 32000))
    if options.prompt:
        _check_prompt(options.prompt, options.seconds)
    import torch

    from minigen.audio import load_audio, save_audio
    from minigen.generate import TextToAudio

    torch.set_num_threads(1)  # a column of one clip is too little work to share: threads would wait for each other
    tta = TextToAudio.from_pretrained(options.model)
    rate = tta.codec.sample_rate
    prompt = load_audio(options.prompt, rate) if options.prompt else None
    wav = tta.generate(
        options.caption, options.seconds, options.guidance, options.temperature, options.top_k, options.top_p,
        prompt, options.seed, progress=True,
    )  # fmt: skip
    save_audio(options.out, wav[0], rate)
    print(f"{options.out}: {wav.shape[-1] / rate:g} s of sound, made in {time.monotonic() - STARTED:.1f} s")


def _check_prompt(path: str, seconds: float) -> None:
    from minigen.audio import check_audio

    rate, frames = check_audio(path)
    if frames / rate >= seconds:
        raise MinigenError(
            f"the prompt {path} lasts {frames / rate:.2f} s, the whole clip {seconds:g} s. Ask for more --seconds."
        )


def evaluate(options: Namespace) -> None:
    """`minigen evaluate`: one model between its controls."""
    _measure(options, [(options.model, options.guidance)])


def compare(options: Namespace) -> None:
    """`minigen compare`: several models, each at several strengths of guidance, and how far each is from the first."""
    first, *others = _measure(options, [(model, guidance) for model in options.models for guidance in options.guidance])

    from minigen.evaluate import difference

    for other in others:
        for title, of in (("recall", "found"), ("CLAP", "matches")):
            mean, low, high = difference(other, first, of)
            print(f"{other.name} less {first.name}: {title} {mean:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]")


def _measure(options: Namespace, models: list[tuple[str, float]]) -> list:
    """Measure (model, guidance) pairs on the same clips, print and save the table; returns the models' rows."""
    if options.csv:
        check_writable(options.csv)
    from minigen.evaluate import Yardstick, controls, generate_for, save_csv, table
    from minigen.generate import TextToAudio
    from minigen.judge import load_judge, load_tagger
    from minigen.lm import find_lm

    for model, _ in models:
        find_lm(model)  # a wrong name is told before a corpus is made
    clips, real = _some_clips(options, options.split, options.clips)
    _, reference = _some_clips(options, "train" if options.split.startswith("val") else "validation", REFERENCE)
    yardstick = Yardstick(load_judge(options.judge), load_tagger(options.tagger), list(reference.split(1)))
    loaded = {model: TextToAudio.from_pretrained(model) for model, _ in models}
    rows, captions = [], [clip.caption for clip in clips]
    for model, guidance in models:
        name = f"{model}, guidance {guidance:g}"
        wavs = generate_for(loaded[model], captions, options.seconds, guidance, options.seed, label=name)
        rows.append(yardstick.measure(name, wavs, clips, real))
    every = controls(yardstick, clips, real, loaded[models[0][0]].codec, options.seed) + rows
    print(table(every))
    if options.csv:
        save_csv(options.csv, every)
    return rows


def _some_clips(options: Namespace, split: str, count: int):
    """Up to `count` clips of a split, always the same ones, and their sounds [n, 1, samples]."""
    import torch

    from minigen.corpus import read_corpus
    from minigen.live import load_some

    corpus = read_corpus(options.data or default_corpus(), split, seconds=options.seconds)
    clips, wavs = load_some(corpus, count)
    if len(wavs) < 2:
        raise MinigenError(f"{len(wavs)} usable clips in the {split} split. Measuring needs two or more.")
    return clips, torch.cat(wavs)


def demo(options: Namespace) -> None:
    """`minigen demo`: the whole chain in minutes, and a page that shows it."""
    check_writable(options.out)
    if options.data:
        from minigen.corpus import read_corpus

        read_corpus(options.data, "train", skipped_to=options.out / "skipped.csv")  # no audio: say so at once
    from minigen.demo import run_demo

    run_demo(options.out, options.minutes, options.seed, options.data)


def doctor(options: Namespace) -> int:
    """`minigen doctor`: does everything work?"""
    from minigen.doctor import run_doctor

    return run_doctor(options.mend)


def train_codec(options: Namespace) -> None:
    """`minigen train-codec`: the compact codec."""
    out = options.out or WEIGHTS / "codec/mini"
    check_writable(out)
    from minigen.corpus import read_corpus
    from minigen.recipes.codec import CodecRecipe, train_codec

    folders = options.data or [default_corpus()]
    corpora = [read_corpus(folder, "train") for folder in folders]
    held_out = read_corpus(folders[0], "validation")
    clips = [held_out.load(index) for index in range(min(32, len(held_out)))]
    train_codec(out, corpora, CodecRecipe(**_given(options)), held_out=clips)
    print(f"{out / 'card.md'} tells how good it is")


def train_text(options: Namespace) -> None:
    """`minigen train-text`: the text encoder."""
    out = options.out or WEIGHTS / "text/mini"
    check_writable(out)
    from minigen.recipes.text import train_text

    train_text(out, audiocaps=options.audiocaps, **_given(options))
    print(f"{out / 'card.md'} tells how good it is")


def train_judge(options: Namespace) -> None:
    """`minigen train-judge`: the audio-text model or the event classifier of the metrics."""
    out = options.out or WEIGHTS / options.part / "mini"
    check_writable(out)
    from minigen.recipes import judge

    if options.part == "tagger":
        judge.train_tagger(out, options.real, replace(judge.Training(), **_given(options)))
    else:
        judge.train_judge(out, options.real, replace(judge.JUDGE_TRAINING, **_given(options)))
    print(f"{out / 'card.md'} tells how good it is")


def _given(options: Namespace) -> dict:
    """Minutes and seed where they were named; a recipe has its own."""
    return {name: value for name in ("minutes", "seed") if (value := getattr(options, name)) is not None}
