"""The commands of the chain, one function each: corpus, tokenize, train, generate; and demo, bench, doctor, convert.

    corpus ─► tokenize ─► train ─► generate          here
                             └───► evaluate, compare, study, listen     `minigen.app.measuring`
    train-codec, train-text, train-judge, corpus-card                   `minigen.app.remaking`

A command takes the parsed options of `minigen.app.cli`, prints what it made, and returns nothing or an exit status. It
imports what it needs when it runs. It checks names, places and files first, so that a mistake is reported before a
model is loaded.
"""

import re
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from minigen.app.conditions import add_words, check_conditions, style_options
from minigen.app.preflight import STARTED, check_prompt, check_writable
from minigen.engine.errors import MinigenError
from minigen.engine.settings import TrainConfig, options_of
from minigen.generators.trainable import LATENT, TRAINABLE

CORPUS = Path("build/corpus")  # made when a command needs a corpus and none is given
TOKENS = Path("build/tokens")


def corpus(options: Namespace) -> None:
    """`minigen corpus`: make the built-in corpus, or tell how another data set is understood."""
    if options.look is not None:
        return _look(options)
    from minigen.corpus.synthesis.builtin import build_corpus, corpus_requirements

    check_writable(options.out)
    _announce(corpus_requirements(options.out, options.clips, options.seed, options.seconds, measure=True))
    build_corpus(options.out, options.clips, options.seed, options.seconds, options.workers)
    print(f"{options.clips} clips of {options.seconds:g} s in {options.out}")


def _look(options: Namespace) -> None:
    """Print how a data set is read: table, columns, splits, captions, and what is left out and why."""
    from minigen.corpus import read_corpus

    corpus = read_corpus(options.look, options.split, options.audio, options.seconds)
    print(f"{options.split}: {corpus.described()}")


def _announce(need) -> None:
    from minigen.engine.resources import announce

    announce(need)


def default_corpus() -> Path:
    """Folder of the built-in corpus of 1000 clips, which is made if it is not there yet."""
    from minigen.engine.distributed import first_alone

    with first_alone():
        if not (CORPUS / "test.csv").is_file():
            corpus(Namespace(look=None, out=CORPUS, clips=1000, seed=0, seconds=4.0, workers=None))
    return CORPUS


def tokenize(options: Namespace) -> None:
    """`minigen tokenize`: turn a corpus, and mixtures of its clips, into codes."""
    out = options.out or TOKENS / options.split
    tokens = make_tokens(
        options.corpus, options.split, out, options.codec, options.mix, options.audio, options.seconds, options.seed,
        options.latents,
    )  # fmt: skip
    latents = f" and latents {list(tokens.latents.shape[1:])}" if options.latents else ""
    print(f"{len(tokens)} clips, each as codes {list(tokens.codes.shape[1:])}{latents}, in {out}")


def make_tokens(
    source: str | None, split: str, out: Path, codec: str, mix: float = 0.0, audio: str | None = None,
    seconds: float = 4.0, seed: int = 0, latents: bool = False,
):  # fmt: skip
    """Tokenise one split of a corpus, by default the built-in one. Skipped files are listed in a CSV beside `out`."""
    from minigen.codec import load_codec
    from minigen.corpus import read_corpus
    from minigen.corpus.tokens import tokenize, tokens_requirements
    from minigen.engine.distributed import device

    check_writable(out)
    codec = load_codec(codec).to(device())
    skipped = out.absolute().with_name(f"{out.absolute().name}-skipped.csv")
    clips = read_corpus(source or default_corpus(), split, audio, seconds, codec.sample_rate, skipped)
    print(f"{split}: {clips.described() if source else clips.report}", flush=True)
    _announce(tokens_requirements(clips, codec, out, mix, measure=True, latents=latents))
    return tokenize(clips, codec, out, mix, seed, latents=latents)


def train(options: Namespace) -> None:
    """`minigen train`: train a generator on codes."""
    if options.start and (options.width or options.layers):
        raise MinigenError(f"--from {options.start} brings its own sizes. Leave out --width and --layers.")
    if options.similarity and options.generator != "language_model":
        raise MinigenError(f"--similarity is for language models. Leave it out with --generator {options.generator}.")
    if options.lora and (options.generator != "language_model" or not options.start):
        raise MinigenError("--lora adapts a trained language model. Name it with --from, such as --from mini.")
    import torch

    from minigen.engine.resources import check_model
    from minigen.lm import AudioLM
    from minigen.train import train

    check_writable(options.out)
    config = TrainConfig(**{field.name: getattr(options, field.name) for field in options_of(TrainConfig)})
    learn, valid = _learn_and_valid(options.tokens, options.valid, options.codec, options.generator in LATENT)
    encoder, names = _encoder_and_names(options)
    sizes = _model_config(options, learn, encoder)
    if not options.start:
        check_model(lambda: AudioLM(sizes), "the training", copies=6)
    torch.manual_seed(options.seed)
    model, objective = TRAINABLE[options.generator](sizes, options.start or None, encoder, config, learn)
    if options.lora:
        from minigen.tuning.lora import add_lora

        add_lora(model, options.lora, options.start, options.seed)
    if options.minutes:
        config = _fit_minutes(model, encoder, learn, config, options.minutes, objective)
    config = replace(config, warmup=min(config.warmup, 1 + config.steps // 10))
    _say_training(model, encoder, learn, config, options, objective)
    last = train(model, encoder, learn, valid, options.out, config, names, objective=objective)[-1]
    print(f"validation loss {last['valid']:.3f}, without text {last['valid_no_text']:.3f}")
    _say_next(options)


def _say_next(options: Namespace) -> None:
    """Print the command that makes sound with a trained model, or that trains the second model of a cascade."""
    folder = options.out.parent if options.generator == "cascader" else options.out
    place = f"{options.start} --adapter {folder}" if options.lora else as_name(folder)
    if options.generator == "coarse":
        print(f"next: minigen train {options.tokens or ''} --generator cascader --from {place} --out {place}/cascader")
    else:
        print(f'hear it: minigen generate "a dog barks" --model {place}')


def _encoder_and_names(options: Namespace):
    """The frozen text encoder on this process's device, and the names of codec and encoder for pipeline.json.

    An official MusicGen brings both. They are saved beside a model that is trained from it; an adapter needs no copy.
    """
    from minigen.engine.distributed import device, is_first
    from minigen.text import load_text_encoder

    if not options.start or not _is_musicgen(options.start):
        return load_text_encoder(options.text).to(device()), (options.codec, options.text)
    from minigen.generate import TextToAudio

    base = TextToAudio.from_pretrained(options.start)
    if not options.lora and is_first():
        base.codec.save_pretrained(options.out / "codec")
        base.encoder.save_pretrained(options.out / "text")
    return base.encoder.to(device()), ("codec", "text")


def _is_musicgen(name: str) -> bool:
    from minigen.engine.weights import read_config
    from minigen.lm import find_generator_folder

    return "model_type" in read_config(find_generator_folder(name))


def as_name(folder: Path) -> str:
    """A folder as the name of a model: `./mini`, because `mini` is the shipped one."""
    return f"./{folder}" if str(folder).startswith("mini") else str(folder)


def _say_training(model, encoder, tokens, config, options: Namespace, objective) -> None:
    """Print what the training will take. Without --minutes, the time is estimated from a few steps of a copy."""
    from minigen.train import seconds_per_step, training_requirements

    training_requirements(model, tokens, config, options.out).check()
    seconds = 60 * (options.minutes or 0)
    if not seconds:
        pace = seconds_per_step(model, encoder, tokens, config, min(6, config.steps), objective)
        seconds = config.steps * pace
    _announce(training_requirements(model, tokens, config, options.out, seconds))


def _learn_and_valid(tokens: str | None, valid: str | None, codec: str, latents: bool):
    """Tokens to learn from and tokens to measure on, by default those of the built-in corpus; with latents if asked."""
    from minigen.corpus import LatentSet, TokenSet

    kind, end = (LatentSet, "-latents") if latents else (TokenSet, "")
    if tokens is None:
        learn = make_tokens(None, "train", TOKENS / f"train{end}", codec, mix=0.5, latents=latents)
        if valid:
            return learn, kind.open(valid)
        return learn, make_tokens(None, "validation", TOKENS / f"validation{end}", codec, latents=latents)
    learn = kind.open(tokens)
    return (learn, kind.open(valid)) if valid else hold_back(learn)


def hold_back(tokens):
    """Split tokens into (to learn from, to measure on): every tenth recording is held back.

    Mixtures that contain a recording held back are left out. Takes of one recording (ESC-10's 1-2-A, 1-2-B) stay
    together.

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
    return subset(tokens, learn), subset(tokens, valid)


def subset(tokens, rows: list[int]):
    """Some rows of a token set, in the given order."""
    lists = {name: [getattr(tokens, name)[row] for row in rows] for name in ("captions", "events", "sources")}
    arrays = {name: getattr(tokens, name)[rows] for name in ("codes", "latents") if hasattr(tokens, name)}
    return replace(tokens, **arrays, **lists)


def _model_config(options: Namespace, tokens, encoder):
    from minigen.lm import AudioLMConfig

    usual = AudioLMConfig
    if options.generator in LATENT:
        from minigen.generators.latent_diffusion import LatentConfig as usual

    streams, width = tokens.codes.shape[1], options.width or AudioLMConfig.width
    return AudioLMConfig(
        num_codebooks=streams, codebook_size=tokens.codebook_size, width=width, layers=options.layers or usual.layers,
        heads=max(1, width // 32), ffn=4 * width, memory_width=encoder.width, delays=tuple(range(streams)),
    )  # fmt: skip


def _fit_minutes(model, encoder, tokens, config, minutes: float, objective=None):
    """Set the number of steps that fit into the time. It is printed: a stopped run continues only with this number."""
    from minigen.train import seconds_per_step

    steps = max(1, int(60 * minutes / seconds_per_step(model, encoder, tokens, config, objective=objective)))
    print(f"{steps} steps fit into {minutes:g} minutes (to go on after a break: --steps {steps})")
    return replace(config, steps=steps)


def generate(options: Namespace) -> int | None:
    """`minigen generate`: write the sound of one caption, or of each line of standard input, to a file."""
    if options.stdin and options.caption is not None or not (options.stdin or options.caption or options.style):
        raise MinigenError('give either a caption in quotes or --stdin: minigen generate "a dog barks".')
    if options.stdin:
        from minigen.app.many import generate_lines

        return generate_lines(options)
    _generate_one(options)


def play(options: Namespace) -> None:
    """`minigen play`: write the sound of one caption to a file and play it."""
    from minigen.app.player import play_file

    if not (options.caption or options.style):
        raise MinigenError('give a caption in quotes: minigen play "a dog barks".')
    _generate_one(options)
    play_file(options.out)


def _generate_one(options: Namespace) -> None:
    check_writable(options.out, room=round(options.seconds * 32000), is_file=True)
    if options.prompt:
        check_prompt(options.prompt, options.seconds)
    check_conditions(options, [options.caption or ""])
    import torch

    from minigen.audio import load_audio, save_audio
    from minigen.generate import TextToAudio

    tta = TextToAudio.from_pretrained(options.model, adapter=options.adapter)
    add_words(tta, options.words)
    if tta.generator.name in ("language_model", "style"):
        torch.set_num_threads(1)  # a column of one clip is too little work for several threads
    if options.caption:
        _note_language(tta.encoder, options.caption)
    rate = tta.codec.sample_rate
    prompt = load_audio(options.prompt, rate) if options.prompt else None
    wav = tta.generate(
        options.caption, options.seconds, options.guidance, options.temperature, options.top_k, options.top_p,
        prompt, options.seed, progress=True, **own_options(options), **style_options(options, rate),
    )  # fmt: skip
    save_audio(options.out, wav[0], rate)
    print(f"{options.out}: {wav.shape[-1] / rate:g} s of sound, made in {time.monotonic() - STARTED:.1f} s")


def own_options(options: Namespace) -> dict:
    """Options of `minigen generate` that only some generators have, by name: those that were given."""
    return {} if options.steps is None else {"steps": options.steps}


def _note_language(encoder, caption: str) -> None:
    """Print a note if most of the caption is bytes or unknown pieces: the text is in no language that was learned."""
    pieces = [piece for piece in encoder.tokens(caption) if piece not in ("▁", "</s>")]
    unread = [piece for piece in pieces if re.fullmatch(r"<0x[0-9A-F]{2}>|<unk>", piece)]
    if 2 * len(unread) > len(pieces):
        print("note: the model learned English captions only and cannot read most of this one. Describe it in English.")


def demo(options: Namespace) -> None:
    """`minigen demo`: run the whole chain in minutes and write a page that shows it."""
    check_writable(options.out)
    if options.data:
        from minigen.corpus import read_corpus

        data = read_corpus(options.data, "train", skipped_to=options.out / "skipped.csv")
        print(f"train: {data.described()}", flush=True)
    from minigen.app.demo.run import run_demo

    run_demo(options.out, options.minutes, options.seed, options.data)


def bench(options: Namespace) -> None:
    """`minigen bench`: measure speed beside `transformers` with the same weights, and the machine's own speed."""
    check_writable(options.out)
    from tqdm import tqdm

    from minigen.app.bench import QUICK, Sizes, run_bench

    with tqdm(desc="bench", unit="part", total=6) as bar:
        run_bench(options.out, QUICK if options.quick else Sizes(), options.threads, say=lambda _: bar.update())
    page = options.out / "bench.md"
    print(f"{page.read_text('utf-8')}in {page} and bench.json")


def doctor(options: Namespace) -> int:
    """`minigen doctor`: check whether everything works."""
    from minigen.app.doctor import run_doctor

    return run_doctor(options.mend)


def interop(options: Namespace) -> None:
    """`minigen interop`: compare official models with this library's, with the same random weights."""
    from minigen.app.interop_report import print_report

    print_report()


def convert(options: Namespace) -> None:
    """`minigen convert`: turn AudioGen or MusicGen, as audiocraft stores it, into a model that all commands read."""
    from minigen.interop.audiocraft import convert_audiocraft

    check_writable(options.out)
    convert_audiocraft(options.checkpoint, options.out)
    print(f'{options.out}; hear it: minigen generate "a dog barks" --model {as_name(options.out)}')
