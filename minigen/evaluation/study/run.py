"""Running the study: take a task that nobody has, train, generate, measure, add its rows; until nothing is missing.

    work folder   corpus/  tokens/  RUN/checkpoint, model, claim      may be deleted; what is in the rows stays
    rows folder   rows.csv  captions.csv  (one line for each run, split and guidance)      only ever added to

Killed at any moment it loses a minute: a training goes on from its checkpoint, a measurement that is not in rows.csv is
made again. Several processes may work on the same folders; each claims the task it works on (`engine.files.try_lock`).
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
from minigen.evaluation.per_caption import Bench, Line, make_bench
from minigen.evaluation.study.plan import (
    CONTROLS,
    TEST,
    VALIDATION,
    StudyConfig,
    Task,
    chosen_weight,
    done_rows,
    missing,
    plan,
)
from minigen.evaluation.study.similarity_parts import likeness
from minigen.evaluation.study.variants import VariantConfig, objective_of
from minigen.generate import TextToAudio
from minigen.lm import AudioLM, AudioLMConfig, find_lm
from minigen.train import SETTINGS_FILE, seconds_per_step, train, training_requirements

ROWS, CAPTIONS = "rows.csv", "captions.csv"
OTHER_SPLIT = "another split"  # real clips of the training split, beside their own captions
CONTROL_ROWS = ("real clips", OTHER_SPLIT, "codec reconstruction", "noise", "silence", "shuffled captions")
PAUSE = 10.0  # seconds between two looks at what other processes have done
SETTINGS = ("text_dropout", "similarity", "pooling", "per_clip", "every_step", "mix")


@dataclass(frozen=True)
class StudyParts:
    """What the study takes as given: codec, text encoder, judge and tagger; their names go with the models."""

    codec: object
    encoder: object
    judge: object
    tagger: object
    names: tuple[str, str] = ("mini", "mini")

    @classmethod
    def shipped(cls) -> "StudyParts":
        """Load the built-in ones, onto the GPU where there is one."""
        from minigen.codec import load_codec
        from minigen.evaluation.clap import load_judge, load_tagger
        from minigen.text import load_text_encoder

        loaded = load_codec("mini"), load_text_encoder("mini"), load_judge(), load_tagger()
        return cls(*(part.to(device()) for part in loaded))

    def digest(self) -> str:
        """A word that tells these weights from others."""
        digest = hashlib.sha256()
        for part in (self.codec, self.encoder, self.judge, self.tagger):
            digest.update(type(part).__name__.encode())
            module = getattr(part, "model", part)  # a text encoder holds its network, it is none
            for name, tensor in sorted(module.state_dict().items()) if hasattr(module, "state_dict") else ():
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
) -> list[str]:
    """Do what is missing of the study, and return the names of the tasks that this process finished.

    Args:
        folder: for corpus, tokens and models.
        rows: folder of rows.csv and captions.csv.
        config: sizes; rows that were made with others, or with other parts, are refused.
        parts: makes the parts; not called where nothing is missing.
        progress: say what is being done.
        most: stop after so many tasks.

    Raises:
        MinigenError: rows of another study, a loss that is no number, a disk that is full.
    """
    config, folder, rows, finished = config or StudyConfig(), Path(folder), Path(rows), []
    study = None
    while most is None or len(finished) < most:
        task, held = _next(folder, rows, config)
        if task is None and held:  # others are at work on what is left
            time.sleep(PAUSE)
            continue
        if task is None:
            break
        try:
            study = study or Study(folder, rows, config, parts(), progress)
            study.work(task)
            finished.append(task.name)
        finally:
            held.release()
    return finished


def _next(folder: Path, rows: Path, config: StudyConfig):
    """The first task that is missing, may begin and is not taken, with its claim; (None, whether others hold any)."""
    taken = False
    there = read_rows(rows / ROWS)
    for task in missing(plan(config), there):
        if task.weighted and chosen_weight(there, config) is None:
            taken = True  # it waits for others
            continue
        if task.model in config.shipped and task.model not in shipped("lm"):
            continue  # the table will say that it is missing
        held = try_lock(folder / task.name / "claim")
        if held is not None:
            if not missing([task], read_rows(rows / ROWS)):  # done between the reading and the claim
                held.release()
                continue
            return task, held
        taken = True
    return None, taken


class Study:
    """A process's part of the study: data and parts loaded once, tasks done one at a time."""

    def __init__(self, folder: Path, rows: Path, config: StudyConfig, parts: StudyParts, progress: bool):
        self.folder, self.rows, self.config, self.parts, self.progress = folder, rows, config, parts, progress
        text = json.dumps([asdict(config), parts.digest()])
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:10]
        for row in read_rows(rows / ROWS):
            if row["study"] != self.identity:
                raise MinigenError(
                    f"{rows / ROWS} holds rows of another study ({row['study']}, not {self.identity}: other sizes, "
                    f"codec, text encoder, judge or tagger). Name another folder for the rows, or move this file away."
                )
        with exclusive(folder / "preparing"):
            self.splits = self._corpus()
            self.tokens = {split: self._tokens(split, mix) for split, mix in (("train", config.mix), (VALIDATION, 0))}
        self.benches: dict[str, Bench] = {}
        announce(self.requirements(), progress)

    def requirements(self) -> Requirements:
        """What is left of the study will take; the time from a few steps of a throw-away copy."""
        tokens, left = self.tokens["train"], missing(plan(self.config), read_rows(self.rows / ROWS))
        lm, settings = self._new_model(0), self.settings(Task("none", "none", steps=3))
        each = training_requirements(lm, tokens, settings, self.folder)
        pace = seconds_per_step(lm, self.parts.encoder, tokens, settings, steps=3)
        seconds = pace * sum(task.steps for task in left)
        disk = each.disk + 2 * each.parameters * len(left)  # one checkpoint at a time, and every model
        return Requirements("the trainings of the study", each.parameters, each.memory, disk, seconds, self.folder)

    def work(self, task: Task) -> None:
        """Do one task, as far as it is not done."""
        self._say(f"{task.name}: {task.steps} steps" if task.steps else task.name)
        if task.model == CONTROLS:
            self._controls(task)
        else:
            self._model(task)

    def _corpus(self) -> dict[str, Corpus]:
        config, place = self.config, self.folder / "corpus"
        if not (place / "test.csv").is_file():
            build_corpus(place, config.clips, 0, config.seconds, progress=self.progress)
        rate = self.parts.codec.sample_rate
        return {split: read_corpus(place, split, seconds=config.seconds, sample_rate=rate) for split in SPLITS}

    def _tokens(self, split: str, mix: float) -> TokenSet:
        place = self.folder / "tokens" / split
        return tokenize(self.splits[split], self.parts.codec, place, mix, progress=self.progress)

    def bench(self, split: str) -> Bench:
        """What the clips of a split are measured with; made once."""
        if split not in self.benches:
            config, judge, tagger = self.config, self.parts.judge, self.parts.tagger
            clips, wavs = load_some(self.splits[split], config.captions if split == TEST else config.validation)
            other = "train" if split == VALIDATION else VALIDATION
            reference = load_some(self.splits[other], config.reference)
            self.benches[split] = make_bench(judge, tagger, clips, torch.cat(wavs), reference)
        return self.benches[split]

    # the controls

    def _controls(self, task: Task) -> None:
        """The rows between which models are read; "controls" itself comes last and says that all are there."""
        bench, there = self.bench(TEST), done_rows(read_rows(self.rows / ROWS))
        sounds = control_sounds(bench.real, self.parts.codec)
        for name in CONTROL_ROWS:
            if (name, TEST, 0.0) not in there:
                self._add(task, name, TEST, 0.0, *self._control(name, bench, sounds))
        self._add(task, task.name, TEST, 0.0, {"clap": float("nan")}, None)

    def _control(self, name: str, bench: Bench, sounds: dict[str, Tensor]) -> tuple[dict[str, float], Line]:
        if name != OTHER_SPLIT:
            return bench.measure(name, sounds[name])
        clips, wavs = load_some(self.splits["train"], len(bench.clips))
        other = Bench(bench.yardstick, clips, torch.cat(wavs), bench.counted)
        numbers, line = other.measure(name, other.real)
        return {**numbers, "kl": float("nan")}, line  # a clip's divergence from itself says nothing

    # a model

    def _model(self, task: Task) -> None:
        lm, settings, last = self._shipped(task) if task.model in self.config.shipped else self._train(task)
        tta = TextToAudio(self.parts.codec, self.parts.encoder, lm)
        there = done_rows(read_rows(self.rows / ROWS))
        learnt = {name: settings.get(name, "") for name in SETTINGS} | {"mix": self._mix(task)}
        learnt |= {"steps": settings["steps"], "hours": round(float(last["minutes"]) / 60, 3)}
        learnt |= {name: float(last[name]) for name in ("valid", "valid_no_text")}
        learnt |= likeness(lm, self.parts.encoder, self.tokens[VALIDATION], settings["pooling"])._asdict()
        for split, guidance in task.splits:
            if (task.name, split, guidance) not in there:
                numbers, line = self._measure(tta, task, split, guidance)
                self._add(task, task.name, split, guidance, {**learnt, **numbers}, line if split == TEST else None)
        (self.folder / task.name / CHECKPOINT).unlink(missing_ok=True)  # 80 MB; the model itself stays

    def settings(self, task: Task) -> VariantConfig:
        """The settings of a task's training; the chosen weight of the regulariser where it takes that."""
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
        """The model, its settings, and the last row of its log."""
        settings, tokens = self.settings(task), self.tokens["train"]
        if not self._mix(task):
            tokens = _unmixed(tokens)
        lm = self._new_model(task.seed)
        objective = objective_of(lm.config, self.parts.encoder, settings)
        history = train(lm, self.parts.encoder, tokens, self.tokens[VALIDATION], self.folder / task.name, settings,
                        self.parts.names, self.progress, objective)  # fmt: skip
        return lm, asdict(settings), history[-1]

    def _shipped(self, task: Task) -> tuple[AudioLM, dict, dict]:
        """As `_train`, of a model that lies in data/lm with its settings and its log."""
        folder = find_lm(task.model)
        lm = AudioLM.from_pretrained(folder).to(device())
        return lm, json.loads((folder / SETTINGS_FILE).read_text("utf-8")), read_rows(folder / "log.csv")[-1]

    def _new_model(self, seed: int) -> AudioLM:
        """The model before training: the same weights for the same seed in every task."""
        config, tokens = self.config, self.tokens["train"]
        streams, width = tokens.codes.shape[1], config.width
        sizes = AudioLMConfig(streams, tokens.codebook_size, width, config.layers, config.heads, 4 * width,
                              self.parts.encoder.width, tuple(range(streams)))  # fmt: skip
        torch.manual_seed(seed)
        return AudioLM(sizes)

    def _measure(self, tta: TextToAudio, task: Task, split: str, guidance: float) -> tuple[dict[str, float], Line]:
        """Every task meets the same captions and, at the same seed, the same noise: models are compared in pairs."""
        bench = self.bench(split)
        captions = [clip.caption for clip in bench.clips]
        label = f"{task.name}, {split}, guidance {guidance:g}"
        wavs = generate_for(
            tta, captions, self.config.seconds, guidance, task.seed, self.config.at_once, self.progress, label
        )
        return bench.measure(label, wavs.cpu())

    # what is left behind

    def _add(
        self, task: Task, run: str, split: str, guidance: float, numbers: dict[str, float], line: Line | None
    ) -> None:
        """The captions' line first, then the row, which says that both are there; one process at a time."""
        where = {"run": run, "split": split, "guidance": guidance}
        row = {**where, "model": task.model, "seed": task.seed, "study": self.identity}
        row |= {name: numbers.get(name, "") for name in COLUMNS}
        row = {name: "" if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
        with exclusive(self.folder / "adding"):
            if line is not None:
                append_row(self.rows / CAPTIONS, {**where, **line.text()})
            append_row(self.rows / ROWS, row)

    def _say(self, text: str) -> None:
        if self.progress:
            left = len(missing(plan(self.config), read_rows(self.rows / ROWS)))
            print(f"{text} ({left} tasks are left)", flush=True)


COLUMNS = ("steps", "hours", *SETTINGS, "valid", "valid_no_text",
           "level", "pattern", "correlation", "fad", "fad_infinity", "kernel", "kl", "clap",
           "recall", "recall_seen", "recall_held_out", "order", "count", "diversity")  # fmt: skip


def _unmixed(tokens: TokenSet) -> TokenSet:
    """Only the clips that are no mixture."""
    rows = [row for row, sources in enumerate(tokens.sources) if len(sources) == 1]
    lists = {name: [getattr(tokens, name)[row] for row in rows] for name in ("captions", "events", "sources")}
    return replace(tokens, codes=tokens.codes[rows], **lists)
