"""Runs the study: takes a free task, trains, generates, measures, adds its rows, until no task is left.

    work folder   corpus/  tokens/  RUN/checkpoint, model, claim      may be deleted; the rows stay
    rows folder   rows.csv  captions.csv  (one line for each run, split and guidance)      rows are only added

A process that is killed loses about a minute: a training continues from its checkpoint, and a measurement without a row
in rows.csv is repeated. Several processes can work in the same folders. Each locks its task (`engine.files.try_lock`).
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minigen.corpus import build_corpus, read_corpus, tokenize
from minigen.corpus.corpus import Corpus
from minigen.corpus.subsets import load_some
from minigen.corpus.synthesis.builtin import SPLITS
from minigen.corpus.token_cache import TokenSet
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.distributed import device
from minigen.engine.errors import MinigenError
from minigen.engine.files import append_row, exclusive, read_rows, try_lock
from minigen.engine.hub import shipped
from minigen.engine.resources import Requirements, announce
from minigen.evaluation.measure import control_sounds, generate_for
from minigen.evaluation.per_caption import CaptionScores, Evaluator, make_evaluator
from minigen.evaluation.study.plan import (
    CAPTIONS,
    CONTROL_ROWS,
    CONTROLS,
    OTHER_SPLIT,
    ROWS,
    TEST,
    VALIDATION,
    StudyConfig,
    Task,
    chosen_weight,
    done_rows,
    missing,
)
from minigen.evaluation.study.similarity_parts import similarity_parts
from minigen.evaluation.study.variants import VariantConfig, objective_of
from minigen.generate import TextToAudio
from minigen.lm import AudioLM, AudioLMConfig, find_lm
from minigen.train import SETTINGS_FILE, seconds_per_step, train, training_requirements

PAUSE = 10.0  # seconds to wait for tasks of other processes
SETTINGS = ("text_dropout", "similarity", "pooling", "per_clip", "every_step", "centred", "text_shift", "mix")
MEASURED = ("fad", "fad_infinity", "kernel", "kl", "clap",
            "recall", "recall_seen", "recall_held_out", "order", "count", "diversity")  # fmt: skip
COLUMNS = (
    "steps", "hours", *SETTINGS, "valid", "valid_no_text", "level", "pattern", "correlation", *MEASURED,
)  # fmt: skip


@dataclass(frozen=True)
class StudyParts:
    """Parts that the study does not train: codec, text encoder, CLAP model and event tagger.

    names: of the codec and the text encoder, stored with the trained models.
    """

    codec: object
    encoder: object
    judge: object
    tagger: object
    names: tuple[str, str] = ("mini", "mini")

    @classmethod
    def shipped(cls) -> "StudyParts":
        """The built-in parts, on the GPU if there is one."""
        from minigen.codec import load_codec
        from minigen.evaluation.clap import load_judge, load_tagger
        from minigen.text import load_text_encoder

        loaded = load_codec("mini"), load_text_encoder("mini"), load_judge(), load_tagger()
        return cls(*(part.to(device()) for part in loaded))

    def digest(self) -> str:
        """Digest of the weights."""
        digest = hashlib.sha256()
        for part in (self.codec, self.encoder, self.judge, self.tagger):
            digest.update(type(part).__name__.encode())
            module = getattr(part, "model", part)  # a text encoder is no module, its `model` is
            state = module.state_dict() if hasattr(module, "state_dict") else {}
            for name, tensor in sorted(state.items()):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:10]


def run_study(
    folder: str | Path,
    rows: str | Path,
    config: StudyConfig | None = None,
    parts: Callable[[], StudyParts] = StudyParts.shipped,
    progress: bool = True,
    most: int | None = None,
    kind: "type[Study] | None" = None,
) -> list[str]:
    """Do the missing tasks of the study; returns the names of those that this process finished.

    Args:
        folder: of corpus, tokens and models.
        rows: folder of rows.csv and captions.csv.
        config: sizes of the study.
        parts: loads the parts; called only if a task is missing.
        progress: print what is being done.
        most: stop after this number of tasks.
        kind: class that does the tasks of this config, `Study` where None.

    Raises:
        MinigenError: the rows are of a study with other sizes or parts, a loss is not finite, or the disk is full.
    """
    config, folder, rows, finished = config or StudyConfig(), Path(folder), Path(rows), []
    study = None
    while most is None or len(finished) < most:
        task, held = _next(folder, rows, config)
        if task is None and held:  # other processes work on what is left
            time.sleep(PAUSE)
            continue
        if task is None:
            break
        try:
            study = study or (kind or Study)(folder, rows, config, parts(), progress)
            study.work(task)
            finished.append(task.name)
        finally:
            held.release()
    return finished


def _next(folder: Path, rows: Path, config: StudyConfig):
    """First missing task that can begin and is free, with its lock; else None, and whether tasks are held or wait."""
    taken = False
    there = read_rows(rows / ROWS)
    for task in missing(config.tasks(there), there):
        if task.model in config.shipped and task.model not in shipped("generator"):
            continue  # not there; the table names it as missing
        if config.waits(task, there):
            taken = True
            continue
        held = try_lock(folder / task.name / "claim")
        if held is not None:
            if not missing([task], read_rows(rows / ROWS)):  # done since the rows were read
                held.release()
                continue
            return task, held
        taken = True
    return None, taken


class Study:
    """One process of the study: loads data and parts once, and does one task at a time."""

    columns = COLUMNS

    def __init__(self, folder: Path, rows: Path, config: StudyConfig, parts: StudyParts, progress: bool):
        self.folder, self.rows, self.config, self.parts, self.progress = folder, rows, config, parts, progress
        sizes = asdict(replace(config, shipped=()))  # a further shipped model adds rows and changes none
        text = json.dumps([sizes, parts.digest()])
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:10]
        for row in read_rows(rows / ROWS):
            if row["study"] != self.identity:
                raise MinigenError(
                    f"{rows / ROWS} holds rows of another study ({row['study']}, not {self.identity}: other sizes, "
                    f"codec, text encoder, judge or tagger). Name another folder for the rows, or move this file away."
                )
        with exclusive(folder / "preparing"):
            self.splits = self._corpus()
            self.tokens = {split: self.tokenized(split, mix) for split, mix in (("train", config.mix), (VALIDATION, 0))}
        self.evaluators: dict[str, Evaluator] = {}
        announce(self.requirements(), progress)

    def requirements(self) -> Requirements:
        """Resources that the missing tasks need; the time is extrapolated from a few steps of a copy."""
        tokens, left = self.tokens["train"], self.left()
        lm, settings = self._new_model(0), self.settings(Task("none", "none", steps=3))
        each = training_requirements(lm, tokens, settings, self.folder)
        pace = seconds_per_step(lm, self.parts.encoder, tokens, settings, steps=3)
        seconds = pace * sum(task.steps for task in left)
        disk = each.disk + 2 * each.parameters * len(left)  # one checkpoint at a time, and every model
        return replace(each, what="the trainings of the study", disk=disk, seconds=seconds)

    def left(self) -> list[Task]:
        """The missing tasks."""
        there = read_rows(self.rows / ROWS)
        return missing(self.config.tasks(there), there)

    def work(self, task: Task) -> None:
        """Do what is missing of one task."""
        self.say(f"{task.name}: {task.steps} steps" if task.steps else task.name)
        if task.model == CONTROLS:
            self._controls(task)
        else:
            self.model(task)

    def _corpus(self) -> dict[str, Corpus]:
        config, place = self.config, self.folder / "corpus"
        if not (place / "test.csv").is_file():
            build_corpus(place, config.clips, 0, config.seconds, progress=self.progress)
        rate = self.parts.codec.sample_rate
        return {split: read_corpus(place, split, seconds=config.seconds, sample_rate=rate) for split in SPLITS}

    def tokenized(self, split: str, mix: float) -> TokenSet:
        """Codes of a split, made once."""
        place = self.folder / "tokens" / split
        return tokenize(self.splits[split], self.parts.codec, place, mix, progress=self.progress)

    def evaluator(self, split: str) -> Evaluator:
        """Evaluator of the clips of a split, made once."""
        if split not in self.evaluators:
            config, judge, tagger = self.config, self.parts.judge, self.parts.tagger
            clips, wavs = load_some(self.splits[split], config.captions if split == TEST else config.validation)
            other = "train" if split == VALIDATION else VALIDATION
            reference = load_some(self.splits[other], config.reference)
            self.evaluators[split] = make_evaluator(judge, tagger, clips, torch.cat(wavs), reference)
        return self.evaluators[split]

    # the controls

    def _controls(self, task: Task) -> None:
        """Add the rows of the controls. The row "controls" comes last, and means that all others are there."""
        evaluator, there = self.evaluator(TEST), done_rows(read_rows(self.rows / ROWS))
        sounds = control_sounds(evaluator.real, self.parts.codec)
        for name in CONTROL_ROWS:
            if (name, TEST, 0.0) not in there:
                self.add(task, name, TEST, 0.0, *self._control(name, evaluator, sounds))
        self.add(task, task.name, TEST, 0.0, {"clap": float("nan")}, None)

    def _control(
        self, name: str, evaluator: Evaluator, sounds: dict[str, Tensor]
    ) -> tuple[dict[str, float], CaptionScores]:
        if name != OTHER_SPLIT:
            return evaluator.measure(name, sounds[name])
        clips, wavs = load_some(self.splits["train"], len(evaluator.clips))
        other = Evaluator(evaluator.yardstick, clips, torch.cat(wavs), evaluator.counted)
        numbers, scores = other.measure(name, other.real)
        return {**numbers, "kl": float("nan")}, scores  # the divergence of clips from themselves is always 0

    # a model

    def model(self, task: Task) -> None:
        """Train or load a model, measure it, and add its rows."""
        lm, settings, last = self._shipped(task) if task.model in self.config.shipped else self._train(task)
        tta = TextToAudio(self.parts.codec, self.parts.encoder, lm)
        there = done_rows(read_rows(self.rows / ROWS))
        training = {name: settings.get(name, "") for name in SETTINGS} | {"mix": self._mix(task)}
        training |= {"steps": settings["steps"], "hours": round(float(last["minutes"]) / 60, 3)}
        training |= {name: float(last[name]) for name in ("valid", "valid_no_text")}
        training |= similarity_parts(lm, self.parts.encoder, self.tokens[VALIDATION], settings["pooling"])._asdict()
        for split, guidance in task.splits:
            if (task.name, split, guidance) not in there:
                numbers, scores = self.measure(tta, task, split, guidance)
                kept = scores if split == TEST else None
                self.add(task, task.name, split, guidance, {**training, **numbers}, kept)
        (self.folder / task.name / CHECKPOINT).unlink(missing_ok=True)  # 80 MB; the model stays

    def settings(self, task: Task) -> VariantConfig:
        """Settings of the training of a task, with the chosen weight of the regulariser if the task uses it."""
        config = self.config
        usual = VariantConfig(
            task.steps, config.batch_size, config.learning_rate, min(config.warmup, 1 + task.steps // 10),
            valid_every=max(1, task.steps // 9), ema_every=min(10, max(1, task.steps // 50)), seed=task.seed,
        )  # fmt: skip
        if task.weighted:
            usual = replace(usual, similarity=chosen_weight(read_rows(self.rows / ROWS), config))
        return replace(usual, **{name: value for name, value in task.changes.items() if name != "mix"})

    def _mix(self, task: Task) -> float:
        return self.config.mix if task.changes.get("mix", True) else 0.0

    def _train(self, task: Task) -> tuple[AudioLM, dict, dict]:
        """Train a model, or continue; returns it, its settings, and the last row of its log."""
        settings, tokens = self.settings(task), self.tokens["train"]
        if not self._mix(task):
            tokens = _unmixed(tokens)
        lm = self._new_model(task.seed)
        objective = objective_of(lm.config, self.parts.encoder, settings)
        history = train(lm, self.parts.encoder, tokens, self.tokens[VALIDATION], self.folder / task.name, settings,
                        self.parts.names, self.progress, objective)  # fmt: skip
        return lm, asdict(settings), history[-1]

    def _shipped(self, task: Task) -> tuple[AudioLM, dict, dict]:
        """As `_train`, for a model in data/lm with its settings and its log."""
        folder = find_lm(task.model)
        lm = AudioLM.from_pretrained(folder).to(device())
        return lm, json.loads((folder / SETTINGS_FILE).read_text("utf-8")), read_rows(folder / "log.csv")[-1]

    def _new_model(self, seed: int) -> AudioLM:
        """A model before training: equal weights for equal seeds, in every task."""
        torch.manual_seed(seed)
        return AudioLM(self.sizes())

    def sizes(self) -> AudioLMConfig:
        """Sizes of every model that is trained."""
        config, tokens = self.config, self.tokens["train"]
        streams, width = tokens.codes.shape[1], config.width
        return AudioLMConfig(streams, tokens.codebook_size, width, config.layers, config.heads, 4 * width,
                             self.parts.encoder.width, tuple(range(streams)))  # fmt: skip

    def measure(
        self, tta: TextToAudio, task: Task, split: str, guidance: float, **options
    ) -> tuple[dict[str, float], CaptionScores]:
        """Generate and measure. All tasks have the same captions and, at one seed, the same random numbers.

        options: of the generator.
        """
        evaluator = self.evaluator(split)
        captions = [clip.caption for clip in evaluator.clips]
        label = f"{task.name}, {split}, guidance {guidance:g}"
        wavs = generate_for(
            tta, captions, self.config.seconds, guidance, task.seed, self.config.at_once, self.progress, label,
            **options,
        )  # fmt: skip
        return evaluator.measure(label, wavs.cpu())

    # output

    def add(
        self, task: Task, run: str, split: str, guidance: float, numbers: dict[str, float], scores: CaptionScores | None
    ) -> None:
        """Add the caption scores, then the row: a row means that both are there. One process at a time."""
        where = {"run": run, "split": split, "guidance": guidance}
        row = {**where, "model": task.model, "seed": task.seed, "study": self.identity}
        row |= {name: numbers.get(name, "") for name in self.columns}
        row = {name: "" if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
        with exclusive(self.folder / "adding"):
            if scores is not None:
                append_row(self.rows / CAPTIONS, {**where, **scores.cells()})
            append_row(self.rows / ROWS, row)

    def say(self, text: str) -> None:
        """Print what is being done, if progress is shown."""
        if self.progress:
            print(f"{text} ({len(self.left())} tasks are left)", flush=True)


def _unmixed(tokens: TokenSet) -> TokenSet:
    """The clips that are no mixtures."""
    rows = [row for row, sources in enumerate(tokens.sources) if len(sources) == 1]
    lists = {name: [getattr(tokens, name)[row] for row in rows] for name in ("captions", "events", "sources")}
    return replace(tokens, codes=tokens.codes[rows], **lists)
