"""What each command of `minigen` does, in the order of the chain; `minigen.app.cli` reads the arguments.

    corpus ─► tokenize ─► train ─► generate, evaluate, compare        demo: all of these        train-*: the other parts

Each takes the parsed options, prints what it made, and returns nothing (or an exit status). A function imports what it
needs when it runs and looks at what can be looked at first: a mistake is answered before a model is loaded.
"""

import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.settings import TrainConfig, options_of

CORPUS = Path("build/corpus")  # made when a command needs a corpus and none is named
TOKENS = Path("build/tokens")
TOLD = Path("build/teacher")  # what the text encoder's teacher said of the captions: asked once
LISTENING = Path("build/listening")
STUDY = Path("data/study")  # rows of the study, and its table: part of the project
WEIGHTS = Path("build/weights")  # laid out as data/, so that MINIGEN_DATA=build/weights tries them
REFERENCE = 240  # real clips, at the most, that FAD compares with
STARTED = time.monotonic()  # about when the process started


def check_writable(path: Path, room: int = 0, is_file: bool = False) -> None:
    """Try whether `path` can be made, with `room` bytes in it, so that hours of work do not end in an error.

    is_file: whether a file is meant, and not a folder.

    Raises:
        MinigenError: the place cannot be written, or `path` is a folder where a file is meant, or the reverse.
    """
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
    from minigen.corpus.synthesis.builtin import build_corpus, corpus_requirements

    check_writable(options.out)
    _announce(corpus_requirements(options.out, options.clips, options.seed, options.seconds, measure=True))
    build_corpus(options.out, options.clips, options.seed, options.seconds, options.workers)
    print(f"{options.clips} clips of {options.seconds:g} s in {options.out}")


def _announce(need) -> None:
    from minigen.engine.resources import announce

    announce(need)


def default_corpus() -> Path:
    """The built-in corpus of 1000 clips, made if it is not there yet."""
    from minigen.engine.distributed import first_alone

    with first_alone():
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
    from minigen.corpus.tokens import tokenize, tokens_requirements
    from minigen.engine.distributed import device

    check_writable(out)
    codec = load_codec(codec).to(device())
    skipped = out.absolute().with_name(f"{out.absolute().name}-skipped.csv")
    clips = read_corpus(source or default_corpus(), split, audio, seconds, codec.sample_rate, skipped)
    print(f"{split}: {clips.report}")
    _announce(tokens_requirements(clips, codec, out, mix, measure=True))
    return tokenize(clips, codec, out, mix, seed)


def train(options: Namespace) -> None:
    """`minigen train`: a language model on tokens."""
    if options.start and (options.width or options.layers):
        raise MinigenError(f"--start {options.start} brings its own sizes. Leave out --width and --layers.")
    import torch

    from minigen.engine.distributed import device
    from minigen.engine.resources import check_model
    from minigen.lm import AudioLM
    from minigen.text import load_text_encoder
    from minigen.train import train

    check_writable(options.out)
    config = TrainConfig(**{field.name: getattr(options, field.name) for field in options_of(TrainConfig)})
    learn, valid = _learn_and_valid(options.tokens, options.valid, options.codec)
    encoder = load_text_encoder(options.text).to(device())
    sizes = None if options.start else _model_config(options, learn, encoder)
    if sizes:
        check_model(lambda: AudioLM(sizes), "the training", copies=6)
    torch.manual_seed(options.seed)
    model = AudioLM(sizes) if sizes else AudioLM.from_pretrained(options.start)
    if options.minutes:
        config = _fit_minutes(model, encoder, learn, config, options.minutes)
    config = replace(config, warmup=min(config.warmup, 1 + config.steps // 10))
    _say_training(model, encoder, learn, config, options)
    last = train(model, encoder, learn, valid, options.out, config, (options.codec, options.text))[-1]
    print(f"validation loss {last['valid']:.3f}, without text {last['valid_no_text']:.3f}")
    print(f'hear it: minigen generate "a dog barks" --model {_as_name(options.out)}')


def _as_name(folder: Path) -> str:
    """A folder as the name of a model: ./mini and not mini, which is shipped."""
    return f"./{folder}" if str(folder).startswith("mini") else str(folder)


def _say_training(model, encoder, tokens, config, options: Namespace) -> None:
    """What the training will take; how long, from a few steps of a copy, where the time was not given."""
    from minigen.train import seconds_per_step, training_requirements

    training_requirements(model, tokens, config, options.out).check()
    seconds = 60 * (options.minutes or 0)
    if not seconds:
        seconds = config.steps * seconds_per_step(model, encoder, tokens, config, steps=min(6, config.steps))
    _announce(training_requirements(model, tokens, config, options.out, seconds))


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

    Takes of one recording (ESC-10's 1-2-A, 1-2-B) stay together.

    Raises:
        MinigenError: nothing is left to learn from.
    """
    from minigen.corpus.readers import source_of

    sources = [[source_of(Path(file), Path(file).anchor or ".") for file in files] for files in tokens.sources]
    held = set(sorted({source for row in sources for source in row})[::10])
    valid = [row for row, of in enumerate(sources) if len(of) == 1 and of[0] in held]
    learn = [row for row, of in enumerate(sources) if not held & set(of)]
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

    streams, width = tokens.codes.shape[1], options.width or AudioLMConfig.width
    return AudioLMConfig(
        num_codebooks=streams, codebook_size=tokens.codebook_size, width=width,
        layers=options.layers or AudioLMConfig.layers,
        heads=max(1, width // 32), ffn=4 * width, memory_width=encoder.width, delays=tuple(range(streams)),
    )  # fmt: skip


def _fit_minutes(model, encoder, tokens, config, minutes: float):
    """As many steps as fit; the number is printed, because a stopped run goes on only with the same number."""
    from minigen.train import seconds_per_step

    steps = max(1, int(60 * minutes / seconds_per_step(model, encoder, tokens, config)))
    print(f"{steps} steps fit into {minutes:g} minutes (to go on after a break: --steps {steps})")
    return replace(config, steps=steps)


def generate(options: Namespace) -> None:
    """`minigen generate`: one caption as a sound file."""
    check_writable(options.out, room=round(options.seconds * 32000), is_file=True)
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
    pairs = [(model, guidance) for model in options.models for guidance in options.guidance]
    if len({_title(*pair) for pair in pairs}) < len(pairs):
        raise MinigenError(f"the same twice among {', '.join(_title(*pair) for pair in pairs)}. Name each once.")
    first, *others = _measure(options, pairs)

    from minigen.evaluation.measure import difference

    for other in others:
        for title, of in (("recall", "found"), ("CLAP", "matches")):
            mean, low, high = difference(other, first, of)
            print(f"{other.name} less {first.name}: {title} {mean:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]")


def _title(model: str, guidance: float) -> str:
    return f"{model}, guidance {guidance:g}"


def _measure(options: Namespace, models: list[tuple[str, float]]) -> list:
    """Measure (model, guidance) pairs on the same clips, print and save the table; returns the models' rows."""
    if options.csv:
        check_writable(options.csv, is_file=True)
    from minigen.evaluation.clap import load_judge, load_tagger
    from minigen.evaluation.measure import control_sounds, generate_for, save_csv, table
    from minigen.evaluation.per_caption import make_bench
    from minigen.evaluation.study.table import of_captions
    from minigen.generate import TextToAudio
    from minigen.lm import find_lm
    from minigen.metrics import caution

    for model, _ in models:
        find_lm(model)  # a wrong name is told before a corpus is made
    clips, real = _some_clips(options, options.split, options.clips)
    others, reference = _some_clips(options, "train" if options.split.startswith("val") else "validation", REFERENCE)
    judge, tagger = load_judge(options.judge), load_tagger(options.tagger)
    bench = make_bench(judge, tagger, clips, real, (others, list(reference.split(1))))
    loaded = {model: TextToAudio.from_pretrained(model) for model, _ in models}
    sounds, captions = control_sounds(real, loaded[models[0][0]].codec, options.seed), [clip.caption for clip in clips]
    for model, guidance in models:
        name = _title(model, guidance)
        sounds[name] = generate_for(loaded[model], captions, options.seconds, guidance, options.seed, label=name)
    measured = {name: bench.row(name, wavs) for name, wavs in sounds.items()}
    every = [row for row, _ in measured.values()]
    print(table(every))
    if few := caution(len(clips), *bench.yardstick.reference.shape):
        print(few)
    print("\nThe study's measures of captions, with intervals over captions:\n")
    print(of_captions({name: line for name, (_, line) in measured.items()}))
    if options.csv:
        save_csv(options.csv, every)
    return every[-len(models) :]


def _some_clips(options: Namespace, split: str, count: int):
    """Up to `count` clips of a split, always the same ones, and their sounds [n, 1, samples]."""
    import torch

    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some

    corpus = read_corpus(options.data or default_corpus(), split, seconds=options.seconds)
    clips, wavs = load_some(corpus, count)
    if len(wavs) < 2:
        raise MinigenError(f"{len(wavs)} usable clips in the {split} split. Measuring needs two or more.")
    return clips, torch.cat(wavs)


def listen(options: Namespace) -> None:
    """`minigen listen`: a blind listening test, made, served to a browser on this machine, and reported."""
    from minigen.evaluation.listening.make import REAL, RECIPE, compared_models, complete_recipe, make_test
    from minigen.evaluation.listening.results import report_of
    from minigen.evaluation.listening.server import serve

    if options.report is not None:
        return print(report_of(options.folder, options.report))
    check_writable(options.folder)
    recipe = complete_recipe(options.folder, {name: getattr(options, name) for name in RECIPE})
    named = [model for model, _ in compared_models(recipe).values() if model != REAL]

    def clips():
        from minigen.lm import find_lm

        for model in named:
            find_lm(model)  # a wrong name is told before a corpus is made
        return _some_clips(Namespace(**recipe), recipe["split"], recipe["clips"])

    def model(name: str):
        from minigen.generate import TextToAudio

        return TextToAudio.from_pretrained(name)

    serve(options.folder, make_test(options.folder, recipe, clips, model), options.port)


def study(options: Namespace) -> None:
    """`minigen study`: what is missing of the study, and its table."""
    out = options.out / "smoke" if options.smoke else options.out
    rows = options.rows or (out / "rows" if options.smoke else STUDY)
    for place in (out, rows):
        check_writable(place)
    from minigen.evaluation.study.plan import SMOKE, StudyConfig
    from minigen.evaluation.study.run import run_study
    from minigen.evaluation.study.table import make_table, summary, write_summary

    config = SMOKE if options.smoke else StudyConfig()
    if not options.table:
        done = run_study(out, rows, config, most=options.tasks)
        print(f"{len(done)} tasks done; rows in {rows}")
    print(make_table(rows, config))
    if rows == STUDY:
        write_summary(summary(rows, config), "README.md")


def demo(options: Namespace) -> None:
    """`minigen demo`: the whole chain in minutes, and a page that shows it."""
    check_writable(options.out)
    if options.data:
        from minigen.corpus import read_corpus

        read_corpus(options.data, "train", skipped_to=options.out / "skipped.csv")  # no audio: say so at once
    from minigen.app.demo.run import run_demo

    run_demo(options.out, options.minutes, options.seed, options.data)


def bench(options: Namespace) -> None:
    """`minigen bench`: how fast, beside `transformers` with the same weights and beside what the machine can do."""
    check_writable(options.out)
    from tqdm import tqdm

    from minigen.app.bench import QUICK, Sizes, run_bench

    with tqdm(desc="bench", unit="part", total=6) as bar:
        run_bench(options.out, QUICK if options.quick else Sizes(), options.threads, say=lambda _: bar.update())
    print(f"{(options.out / 'bench.md').read_text()}in {options.out / 'bench.md'} and bench.json")


def doctor(options: Namespace) -> int:
    """`minigen doctor`: does everything work?"""
    from minigen.app.doctor import run_doctor

    return run_doctor(options.mend)


def train_codec(options: Namespace) -> None:
    """`minigen train-codec`: the compact codec."""
    out = options.out or WEIGHTS / "codec/mini"
    check_writable(out)
    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some
    from minigen.engine.hub import find_model
    from minigen.recipes.codec.card import HeldOut
    from minigen.recipes.codec.data import Recordings
    from minigen.recipes.codec.train import CodecRecipe, train_codec

    if options.start:
        find_model("codec", options.start)  # a wrong name is told before a corpus is made
    recipe = CodecRecipe(**_given(options))
    real = Recordings(options.real) if options.real else None  # a wrong folder is told before a corpus is made
    corpus = options.data or default_corpus()
    learn, held_out = read_corpus(corpus, "train"), read_corpus(corpus, "validation")
    sets = {"the corpus": load_some(held_out, 48)[1]}
    sources, kinds = {f"the train split of {Path(corpus).name}": learn}, {}
    if real:
        kinds = Recordings(options.real, held_out=True).by_kind()
        sets = {"real recordings, fold 4": [wav for wavs in kinds.values() for wav in wavs]} | sets
        sources[Recordings.NAME] = real
    train_codec(out, sources, recipe, tested=HeldOut(sets, kinds, options.real), start=options.start)
    print(f"{out / 'card.md'} tells how good it is")


def train_text(options: Namespace) -> None:
    """`minigen train-text`: the text encoder."""
    out = options.out or WEIGHTS / "text/mini"
    check_writable(out)
    if options.start:
        from minigen.recipes.text.order import teach_order

        teach_order(out, options.start, audiocaps=options.audiocaps, **_given(options))
    else:
        from minigen.recipes.text.train import train_text

        train_text(out, audiocaps=options.audiocaps, teacher=options.teacher, kept=TOLD, **_given(options))
    print(f"{out / 'card.md'} tells how good it is")


def train_judge(options: Namespace) -> None:
    """`minigen train-judge`: the audio-text model or the event classifier of the metrics."""
    out = options.out or WEIGHTS / options.part / "mini"
    check_writable(out)
    from minigen.recipes.judge import train as judge
    from minigen.recipes.judge.data import class_files

    if options.real:
        class_files(options.real, judge.Training().test_fold)  # a wrong folder is told before clips are made
    if options.part == "tagger":
        judge.train_tagger(out, options.real, replace(judge.Training(), **_given(options)), start=options.start)
    else:
        training = replace(judge.JUDGE_TRAINING, **_given(options))
        judge.train_judge(out, options.real, training, tagger=options.start or "mini")
    print(f"{out / 'card.md'} tells how good it is")


def corpus_card(options: Namespace) -> None:
    """`minigen corpus-card`: one picture a kind, and whether a listener who knows only real recordings names it."""
    check_writable(options.out)
    from minigen.recipes.corpus.card import make_card

    for name, value in make_card(options.out, options.real, options.audiocaps).items():
        print(f"{name}: {value:.4f}")
    print(f"{options.out / 'card.md'} shows the corpus")


def _given(options: Namespace) -> dict:
    """Minutes and seed where they were named; a recipe has its own."""
    return {name: value for name in ("minutes", "seed") if (value := getattr(options, name)) is not None}


def convert(options: Namespace) -> None:
    """`minigen convert`: AudioGen or MusicGen as audiocraft stores it, into what every other command reads."""
    from minigen.interop.audiocraft import convert_audiocraft

    check_writable(options.out)
    convert_audiocraft(options.checkpoint, options.out)
    print(f'{options.out}; hear it: minigen generate "a dog barks" --model {_as_name(options.out)}')
