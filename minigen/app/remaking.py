"""The commands that make the shipped parts again: train-codec, train-text, train-judge, and corpus-card.

Each runs a recipe of `minigen.recipes`, writes weights and a card below build/weights, and leaves data/ as it is. With
MINIGEN_DATA=build/weights every other command uses the new parts.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from minigen.app.commands import default_corpus
from minigen.app.preflight import check_writable

WEIGHTS = Path("build/weights")  # laid out as data/
TEACHER = Path("build/teacher")  # the teacher's vectors of the captions, computed once


def train_codec(options: Namespace) -> None:
    """`minigen train-codec`: train the compact codec."""
    out = options.out or WEIGHTS / "codec/mini"
    check_writable(out)
    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some
    from minigen.engine.hub import find_model
    from minigen.recipes.codec.card import HeldOut
    from minigen.recipes.codec.data import Recordings
    from minigen.recipes.codec.train import CodecRecipe, train_codec

    if options.start:
        find_model("codec", options.start)  # reports a wrong name before a corpus is made
    recipe = CodecRecipe(**_given(options))
    real = Recordings(options.real) if options.real else None  # reports a wrong folder before a corpus is made
    corpus = options.data or default_corpus()
    learn, held_out = read_corpus(corpus, "train"), read_corpus(corpus, "validation")
    sets = {"the corpus": load_some(held_out, 48)[1]}
    sources, kinds = {f"the train split of {Path(corpus).name}": learn}, {}
    if real:
        kinds = Recordings(options.real, held_out=True).by_kind()
        sets = {"real recordings, fold 4": [wav for wavs in kinds.values() for wav in wavs]} | sets
        sources[Recordings.NAME] = real
    train_codec(out, sources, recipe, tested=HeldOut(sets, kinds, options.real), start=options.start)
    print(f"the measurements are in {out / 'card.md'}")


def train_text(options: Namespace) -> None:
    """`minigen train-text`: train the text encoder, or teach one that exists the order of events."""
    out = options.out or WEIGHTS / "text/mini"
    check_writable(out)
    if options.start:
        from minigen.recipes.text.order import teach_order

        teach_order(out, options.start, audiocaps=options.audiocaps, **_given(options))
    else:
        from minigen.recipes.text.train import train_text

        train_text(out, audiocaps=options.audiocaps, teacher=options.teacher, kept=TEACHER, **_given(options))
    print(f"the measurements are in {out / 'card.md'}")


def train_judge(options: Namespace) -> None:
    """`minigen train-judge`: train the audio-text model or the event classifier of the metrics."""
    out = options.out or WEIGHTS / options.part / "mini"
    check_writable(out)
    from minigen.recipes.judge import train as judge
    from minigen.recipes.judge.data import training_recordings

    if options.real:
        training_recordings(options.real, judge.Training().test_fold)  # reports a wrong folder before clips are made
    if options.part == "tagger":
        judge.train_tagger(out, options.real, replace(judge.Training(), **_given(options)), start=options.start)
    else:
        training = replace(judge.JUDGE_TRAINING, **_given(options))
        judge.train_judge(out, options.real, training, tagger=options.start or "mini")
    print(f"the measurements are in {out / 'card.md'}")


def corpus_card(options: Namespace) -> None:
    """`minigen corpus-card`: draw a clip of each kind, and test a classifier of real recordings on the corpus."""
    check_writable(options.out)
    from minigen.recipes.corpus.card import make_card

    for name, value in make_card(options.out, options.real, options.audiocaps).items():
        print(f"{name}: {value:.4f}")
    print(f"the card is {options.out / 'card.md'}")


def _given(options: Namespace) -> dict:
    """Minutes and seed, if they were given; otherwise the recipe's own apply."""
    values = {"minutes": options.minutes, "seed": options.seed}
    return {name: value for name, value in values.items() if value is not None}
