"""The commands that compare models: evaluate, compare and study measure them, listen asks people.

    clips of a corpus ─► controls and models make the same clips ─► evaluate, compare: tables      listen: a blind test

`minigen.evaluation` does the measuring. As in `minigen.app.commands`, mistakes are reported before a model is loaded.
"""

from argparse import Namespace
from itertools import product
from pathlib import Path

from minigen.app.commands import default_corpus
from minigen.app.preflight import check_writable
from minigen.engine.errors import MinigenError
from minigen.evaluation import title_of

LISTENING = Path("build/listening")
STUDY = Path("data/study")  # rows of the first study and its table, part of the repository
SECOND_STUDY = STUDY / "second"
FAMILIES = STUDY / "families"
REFERENCE = 240  # largest number of real clips that FAD compares with


def evaluate(options: Namespace) -> None:
    """`minigen evaluate`: measure one model beside its controls."""
    _measure(options, [(options.model, options.guidance, options.steps)])


def compare(options: Namespace) -> None:
    """`minigen compare`: measure models at guidances and numbers of steps, and their distance from the first."""
    asked = list(product(options.models, options.guidance, options.steps or [None]))
    if len({title_of(*each) for each in asked}) < len(asked):
        raise MinigenError(f"the same twice among {', '.join(title_of(*each) for each in asked)}. Give each once.")
    first, *others = _measure(options, asked)

    from minigen.evaluation.measure import difference

    for other in others:
        for title, of in (("recall", "found"), ("CLAP", "matches")):
            mean, low, high = difference(other, first, of)
            print(f"{other.name} less {first.name}: {title} {mean:+.3f}, 95 % interval [{low:+.3f}, {high:+.3f}]")


def _measure(options: Namespace, models: list[tuple[str, float, int | None]]) -> list:
    """Measure (model, guidance, steps) on the same clips, print and save the table; returns the models' rows.

    Steps are None where the generator's own number is taken.
    """
    if options.csv:
        check_writable(options.csv, is_file=True)
    from minigen.evaluation.measure import control_sounds, generate_for, save_csv, table
    from minigen.evaluation.study.table import of_captions
    from minigen.generate import TextToAudio
    from minigen.generators.base import generator_name
    from minigen.lm import find_generator_folder
    from minigen.metrics import caution

    for model, _, steps in models:
        find_generator_folder(model)  # reports a wrong name before a corpus is made
        if steps and (kind := generator_name(model)) in ("language_model", "style"):
            raise MinigenError(f"{model} makes one column after the other ({kind}), not steps. Leave out --steps.")
    evaluator = evaluator_of(options)
    clips, real = evaluator.clips, evaluator.real
    loaded = {model: TextToAudio.from_pretrained(model) for model, _, _ in models}
    captions = [clip.caption for clip in clips]
    sounds = control_sounds(real, loaded[models[0][0]].codec, options.seed)
    for model, guidance, steps in models:
        name, how = title_of(model, guidance, steps), {} if steps is None else {"steps": steps}
        sounds[name] = generate_for(loaded[model], captions, options.seconds, guidance, options.seed, label=name, **how)
    measured = {name: evaluator.row(name, wavs) for name, wavs in sounds.items()}
    every = [row for row, _ in measured.values()]
    print(table(every))
    if few := caution(len(clips), *evaluator.yardstick.reference.shape):
        print(few)
    print("\nThe study's measures that are sums over captions, with intervals over captions:\n")
    print(of_captions({name: scores for name, (_, scores) in measured.items()}))
    if options.csv:
        save_csv(options.csv, every)
    return every[-len(models) :]


def evaluator_of(options: Namespace):
    """An `Evaluator` of clips of a split, beside real clips of another one; options are those of `minigen compare`."""
    from minigen.evaluation.clap import load_judge, load_tagger
    from minigen.evaluation.per_caption import make_evaluator

    clips, real = some_clips(options, options.split, options.clips)
    others, reference = some_clips(options, "train" if options.split.startswith("val") else "validation", REFERENCE)
    judge, tagger = load_judge(options.judge), load_tagger(options.tagger)
    return make_evaluator(judge, tagger, clips, real, (others, list(reference.split(1))))


def some_clips(options: Namespace, split: str, count: int):
    """Choose up to `count` clips of a split, always the same ones: -> (clips, their sounds [n, 1, samples])."""
    import torch

    from minigen.corpus import read_corpus
    from minigen.corpus.subsets import load_some

    audio = getattr(options, "audio", None)  # only `evaluate` and `compare` have this option
    corpus = read_corpus(options.data or default_corpus(), split, audio, options.seconds)
    clips, wavs = load_some(corpus, count)
    if len(wavs) < 2:
        raise MinigenError(f"{len(wavs)} usable clips in the {split} split. Measuring needs two or more.")
    return clips, torch.cat(wavs)


def study(options: Namespace) -> None:
    """`minigen study`: run the trainings that are missing, and make the table."""
    if options.first and options.families:
        raise MinigenError("--first and --families are two studies. Give one of them.")
    out = options.out / "smoke" if options.smoke else options.out
    rows = options.rows or _rows_of_study(options, out)
    for place in (out, rows):
        check_writable(place)
    if options.families:
        return _families(options, out, rows)
    from minigen.evaluation.study.plan import FIRST, SECOND, SMOKE
    from minigen.evaluation.study.run import run_study
    from minigen.evaluation.study.table import conclusion, make_table, summary, write_between_marks

    config = SMOKE if options.smoke else FIRST if options.first else SECOND
    if not (options.table or options.first):
        done = run_study(out, rows, config, most=options.tasks)
        print(f"{len(done)} tasks done; rows in {rows}")
    print(make_table(rows, config))
    if rows == STUDY:
        write_between_marks(conclusion(rows, config), "README.md")
        write_between_marks(summary(rows, config), "docs/study.md")
    if rows == SECOND_STUDY:
        write_between_marks(summary(rows, config), "docs/study.md", "second study")


def _families(options: Namespace, out: Path, rows: Path) -> None:
    """`minigen study --families`: as `study`, for the study of the families."""
    from minigen.evaluation.study.families import FAMILIES_SMOKE, FamiliesConfig, FamilyStudy
    from minigen.evaluation.study.families_table import conclusion, make_table, summary
    from minigen.evaluation.study.run import run_study
    from minigen.evaluation.study.table import write_between_marks

    config = FAMILIES_SMOKE if options.smoke else FamiliesConfig()
    if not options.table:
        done = run_study(out, rows, config, most=options.tasks, kind=FamilyStudy)
        print(f"{len(done)} tasks done; rows in {rows}")
    print(make_table(rows, config))
    if rows == FAMILIES:
        write_between_marks(conclusion(rows, config), "README.md", "families")
        write_between_marks(summary(rows, config), "docs/study.md", "families")


def _rows_of_study(options: Namespace, out: Path) -> Path:
    if options.smoke:
        return out / ("families" if options.families else "rows")
    return FAMILIES if options.families else STUDY if options.first else SECOND_STUDY


def listen(options: Namespace) -> None:
    """`minigen listen`: make a blind listening test and serve it to browsers, or report on it."""
    from minigen.evaluation.listening.make import REAL, RECIPE, compared_models, complete_recipe, make_test
    from minigen.evaluation.listening.results import report_of
    from minigen.evaluation.listening.server import check_port, serve

    if options.report is not None:
        return print(report_of(options.folder, options.report))
    check_writable(options.folder)
    check_port(options.port, options.host)
    recipe = complete_recipe(options.folder, {name: getattr(options, name) for name in RECIPE})
    named = [model for model, _ in compared_models(recipe).values() if model != REAL]

    def clips():
        from minigen.lm import find_generator_folder

        for model in named:
            find_generator_folder(model)  # reports a wrong name before a corpus is made
        return some_clips(Namespace(**recipe), recipe["split"], recipe["clips"])

    def model(name: str):
        from minigen.generate import TextToAudio

        return TextToAudio.from_pretrained(name)

    serve(options.folder, make_test(options.folder, recipe, clips, model), options.port, options.host)
