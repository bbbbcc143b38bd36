"""Plans of the two studies of the regulariser: their trainings in order, and what each is measured on.

    first    controls ─► seed 0: no dropout, dropout ─► weights of the regulariser ─► seed 0: regulariser, in every step
             ─► the other seeds of all four ─► questions at one seed ─► the shipped models, which were trained longer
    second   controls ─► seed 0: dropout, regulariser, alike texts ─► weights of the centred regulariser
             ─► seed 0: centred ─► the other seeds of all four ─► the shipped models

In this order a study that is stopped early already has a readable table. The weight of the regulariser (the paper's
lambda) is chosen on validation clips. Tasks that need it wait until it is chosen.

The first study asks whether the regulariser helps. It was measured through the codec's first decoder, so it cannot be
continued. The second asks why it did not help (`minigen.evaluation.study.variants` has the two new objectives). It is
measured through the present decoder, and takes the weight that the first study chose for the plain regulariser. A
third study compares families of generators and has a plan of its own (`minigen.evaluation.study.families`).

Budgets are counted in steps, not in time: 12 · 1500 + 11 · 750 steps of 16 clips, and about a hundred measurements of
200 captions (docs/study.md gives the times).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from minigen.evaluation.measure import CODEC, NOISE, REAL, SHUFFLED, SILENCE

VALIDATION, TEST = "validation", "test"
CONTROLS, NO_DROPOUT, DROPOUT, REGULARIZED, EVERY_STEP = (
    "controls", "no-dropout", "dropout", "regularised", "every-step",
)  # fmt: skip
CENTRED, ALIKE_TEXTS = "centred", "alike-texts"
MODELS = (NO_DROPOUT, DROPOUT, REGULARIZED, EVERY_STEP)  # of the first study
CHANGES = {
    NO_DROPOUT: {"text_dropout": 0.0}, EVERY_STEP: {"every_step": True}, CENTRED: {"centred": True},
    ALIKE_TEXTS: {"text_shift": 0.85},
}  # fmt: skip
OTHER_SPLIT = "another split"  # real clips of the training split, beside their own captions
CONTROL_ROWS = (REAL, OTHER_SPLIT, CODEC, NOISE, SILENCE, SHUFFLED)
ROWS, CAPTIONS = "rows.csv", "captions.csv"
CHOSEN_AT = 3.0  # the guidance at which the weight of the regulariser is chosen


@dataclass(frozen=True)
class StudyConfig:
    """Sizes of the study.

    Args:
        clips: of the corpus, all splits together.
        seconds: of a clip.
        mix: share of mixtures added to the training clips.
        width, layers, heads: of the language model.
        batch_size, learning_rate, warmup: of each training.
        steps: of a training for the table.
        question_steps: of a training for a question, at one seed.
        seeds: of the trainings.
        weights: of the regulariser, to choose from; 0 is measured as well.
        guidances: guidance scales of the models in the table.
        question_guidances: guidance scales of the questions.
        captions: test captions that each row is measured on.
        validation: validation captions that choices are made on.
        reference: real clips, at most, that FAD compares with.
        at_once: clips generated together.
        shipped: models that are measured but not trained.
        models: that are trained at every seed.
        chooses: the model whose weight is chosen among `weights`.
        similarity: weight of the other models with a regulariser; None: the chosen one.
        questions: whether single settings are changed at one seed.
    """

    clips: int = 11000
    seconds: float = 4.0
    mix: float = 0.2
    width: int = 192
    layers: int = 6
    heads: int = 6
    batch_size: int = 16
    learning_rate: float = 5e-3
    warmup: int = 75
    steps: int = 1500
    question_steps: int = 750
    seeds: tuple[int, ...] = (0, 1, 2)
    weights: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    guidances: tuple[float, ...] = (1.0, 2.0, 3.0, 5.0, 7.0)
    question_guidances: tuple[float, ...] = (1.0, 3.0)
    captions: int = 200
    validation: int = 100
    reference: int = 1000
    at_once: int = 50
    shipped: tuple[str, ...] = ("mini-no-dropout", "mini-dropout", "mini-regularized")
    models: tuple[str, ...] = MODELS
    chooses: str = REGULARIZED
    similarity: float | None = None
    questions: bool = True

    def tasks(self, rows: list[dict]) -> list["Task"]:
        """All tasks, in the order in which they are done. rows: those of rows.csv, which later tasks may depend on."""
        return plan(self)

    def waits(self, task: "Task", rows: list[dict]) -> bool:
        """Whether a task must wait for a choice that other tasks make."""
        return task.weighted and chosen_weight(rows, self) is None


FIRST = StudyConfig()
SECOND = StudyConfig(
    weights=(0.1, 1.0, 10.0), models=(DROPOUT, REGULARIZED, ALIKE_TEXTS, CENTRED), chooses=CENTRED, similarity=0.1,
    questions=False,
)  # fmt: skip
SMOKE = StudyConfig(
    clips=60, seconds=1.0, width=32, layers=1, heads=1, batch_size=4, warmup=2, steps=4, question_steps=2,
    seeds=(0, 1), guidances=(1.0, 3.0), captions=6, validation=4, reference=6, at_once=6,
    shipped=(),
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One training and its measurements, or the measurement of the controls.

    Args:
        name: of the run.
        model: one of MODELS, a question, a shipped model, or the controls.
        seed: of the training.
        steps: of the training; 0 where nothing is trained.
        changes: settings that differ from the usual ones.
        weighted: whether it uses the chosen weight of the regulariser, and so waits for it.
        splits: (split, guidance scale) of each measurement; None for a scale that is not chosen yet.
    """

    name: str
    model: str
    seed: int = 0
    steps: int = 0
    changes: dict = field(default_factory=dict, hash=False)
    weighted: bool = False
    splits: tuple[tuple[str, float | None], ...] = ()

    def rows(self) -> set[tuple[str, str, float | None]]:
        """Rows that the finished task has written: (run, split, guidance)."""
        return {(self.name, *where) for where in self.splits}


def plan(config: StudyConfig) -> list[Task]:
    """All tasks, in the order in which they are done."""
    first, *others = config.seeds
    main = [_model(config, model, first) for model in config.models]
    further = [_model(config, model, seed) for seed in others for model in config.models]
    return [
        Task(CONTROLS, CONTROLS, splits=((TEST, 0.0),)), *(task for task in main if not task.weighted),
        *_weights(config), *(task for task in main if task.weighted), *further,
        *(_questions(config) if config.questions else []), *_shipped(config),
    ]  # fmt: skip


def missing(tasks: Iterable[Task], rows: Iterable[dict]) -> list[Task]:
    """Tasks without all of their rows."""
    there = done_rows(rows)
    return [task for task in tasks if not task.rows() <= there]


def done_rows(rows: Iterable[dict]) -> set[tuple[str, str, float]]:
    """(run, split, guidance) of rows of rows.csv. The last row of the controls stands for all of them."""
    return {(row["run"], row["split"], float(row["guidance"])) for row in rows}


def chosen_weight(rows: list[dict], config: StudyConfig) -> float | None:
    """Weight of the regulariser with the highest CLAP score on validation clips; None until all are measured.

    The CLAP score varies less than recall over a hundred clips, since every clip has a cosine. The weight 0 is no
    candidate, because the study asks what the regulariser does where it is used.
    """
    wanted = [weight_run(weight, config) for weight in config.weights]
    found = [row for row in rows if row["split"] == VALIDATION and float(row["guidance"]) == CHOSEN_AT]
    scores = {row["run"]: float(row["clap"]) for row in found if row["run"] in wanted}
    if len(scores) < len(wanted):
        return None
    return max(config.weights, key=lambda weight: scores[weight_run(weight, config)])


def chosen_guidance(rows: list[dict], model: str, config: StudyConfig) -> float | None:
    """Guidance scale with a model's highest CLAP score on validation clips, at the first seed; None until measured.

    "masked@8", a model sampled with 8 evaluations, takes the scale of "masked".
    """
    run = f"{model.partition('@')[0]}-{config.seeds[0]}"
    scores = {float(r["guidance"]): float(r["clap"]) for r in rows if r["run"] == run and r["split"] == VALIDATION}
    return max(scores, key=scores.get) if set(scores) == set(config.guidances) else None


def weight_run(weight: float, config: StudyConfig) -> str:
    """Name of the training with a weight."""
    plain = f"weight-{weight:g}-{config.seeds[0]}"
    return plain if config.chooses == REGULARIZED else f"{config.chooses}-{plain}"


def _model(config: StudyConfig, model: str, seed: int) -> Task:
    changes, regularised = dict(CHANGES.get(model, {})), model not in (NO_DROPOUT, DROPOUT)
    weighted = regularised and (model == config.chooses or config.similarity is None)
    if regularised and not weighted:
        changes["similarity"] = config.similarity
    splits = [TEST] if seed != config.seeds[0] else [VALIDATION, TEST]
    splits = tuple((split, guidance) for split in splits for guidance in config.guidances)
    return Task(f"{model}-{seed}", model, seed, config.steps, changes, weighted, splits)


def _weights(config: StudyConfig) -> list[Task]:
    tasks = []
    for weight in (0.0, *config.weights):
        name = weight_run(weight, config).rsplit("-", 1)[0]  # without the seed
        tasks.append(_question(config, name, {**CHANGES.get(config.chooses, {}), "similarity": weight}, choose=True))
    return tasks


def _questions(config: StudyConfig) -> list[Task]:
    """One setting changed in each, compared with the training of the same length with the chosen weight, or with 0."""
    return [
        _question(config, "mean-pooling", {"pooling": "mean"}, weighted=True),
        _question(config, "dropout-0.2", {"text_dropout": 0.2}),
        _question(config, "dropout-0.3", {"text_dropout": 0.3}),
        _question(config, "per-clip", {"per_clip": True}),
        _question(config, "per-clip-regularised", {"per_clip": True}, weighted=True),
        _question(config, "no-mixing", {"mix": False}),
    ]


def _shipped(config: StudyConfig) -> list[Task]:
    splits = tuple((split, guidance) for split in (VALIDATION, TEST) for guidance in config.guidances)
    return [Task(f"{name}-{config.seeds[0]}", name, config.seeds[0], splits=splits) for name in config.shipped]


def _question(config: StudyConfig, name: str, changes: dict, weighted: bool = False, choose: bool = False) -> Task:
    splits = tuple((TEST, guidance) for guidance in config.question_guidances)
    splits = ((VALIDATION, CHOSEN_AT),) + splits if choose else splits
    seed = config.seeds[0]
    return Task(f"{name}-{seed}", name, seed, config.question_steps, changes, weighted, splits)
