"""The study of the families: four ways to write a sound, on the same clips, steps and captions, measured alike.

    language_model  codes, column after column            masked  codes, many at a time, in any order
    discrete        codes, revised step by step           latent  latents of the codec, out of noise

    controls ─► seed 0 of all four ─► the shipped models ─► seed 0 with other evaluations ─► the other seeds
             ─► the shipped models with other evaluations

In this order a study that is stopped early already has a readable table. All four begin with random weights, have the
same width and layers, and see the same number of clips. The shipped models, which were trained longer, stand beside
them.

A sampler evaluates the network as often as it is told: `evaluations` times in the table, and `others` times for the
figure. A guided step takes two evaluations, with the text and without. The language model has no choice: it takes two
for each column of codes. Each model's guidance is chosen by the CLAP score on validation clips, at the first seed and
with `evaluations`. Its other rows wait until it is chosen.

Seconds are processor time of one thread, from captions to waveforms, the least of two rounds. Other processes on the
machine hardly change them, so the queue may be shared. `minigen.evaluation.study.run` is the queue, which this study
shares with the others; `families_table` makes the table.
"""

import copy
import json
from dataclasses import dataclass, fields, replace
from itertools import cycle, islice
from pathlib import Path

import torch

from minigen.corpus import tokenize
from minigen.corpus.token_cache import LatentSet, TokenSet
from minigen.engine.checkpoint import CHECKPOINT
from minigen.engine.distributed import device
from minigen.engine.files import exclusive, read_rows
from minigen.engine.hub import has_weights
from minigen.engine.resources import Requirements, memory_held
from minigen.evaluation.cost import evaluations, is_cascade, makes_columns, processor_seconds, steps_for
from minigen.evaluation.study.plan import (
    CONTROLS,
    ROWS,
    TEST,
    VALIDATION,
    StudyConfig,
    Task,
    chosen_guidance,
    done_rows,
)
from minigen.evaluation.study.run import MEASURED, Study
from minigen.generate import TextToAudio
from minigen.generators.base import load_generator
from minigen.generators.trainable import LATENT, TRAINABLE
from minigen.lm import BEST, find_generator_folder
from minigen.train import SETTINGS_FILE, seconds_per_step, train, training_requirements

FAMILIES = ("language_model", "masked", "discrete", "latent")
COSTS = ("evaluations", "seconds_one", "seconds_eight")
STAGES = "stages.json"  # trainings of a shipped model, one after the other (`minigen.recipes.generators.ship`)


@dataclass(frozen=True)
class FamiliesConfig(StudyConfig):
    """Sizes of the study of the families; further fields are those of `StudyConfig`.

    Args:
        evaluations: of the network for each clip in the table, by models that have the choice.
        others: further numbers of evaluations, at the first seed.
    """

    steps: int = 750
    guidances: tuple[float, ...] = (2.0, 3.0, 5.0)
    at_once: int = 25
    shipped: tuple[str, ...] = (BEST, "mini-masked", "mini-discrete", "mini-latent", "mini-cascade")
    models: tuple[str, ...] = FAMILIES
    evaluations: int = 64
    others: tuple[int, ...] = (4, 8, 16, 32, 128)

    def tasks(self, rows: list[dict]) -> list[Task]:
        """All tasks, in the order of the module. A guidance that is not chosen yet is None."""
        first, *others = self.seeds
        iterative, shipped = self.models[1:], self.shipped[1:]
        return [
            Task(CONTROLS, CONTROLS, splits=((TEST, 0.0),)),
            *(self._task(rows, model, first) for model in self.models + self.shipped),
            *(self._task(rows, model, first, count) for model in iterative for count in self.others),
            *(self._task(rows, model, seed) for seed in others for model in self.models),
            *(self._task(rows, model, first, count) for model in shipped for count in self.others),
        ]

    def waits(self, task: Task, rows: list[dict]) -> bool:
        """Whether the guidance of a task is not chosen yet and is not chosen by the task itself."""
        return all(guidance is None for _, guidance in task.splits)

    def _task(self, rows: list[dict], model: str, seed: int, count: int = 0) -> Task:
        """Training and measurement of a model; with `count`, only its measurement with that many evaluations."""
        chooses = seed == self.seeds[0] and not count
        splits = [(VALIDATION, guidance) for guidance in self.guidances] if chooses else []
        splits.append((TEST, chosen_guidance(rows, model, self)))
        steps = self.steps if model in self.models and not count else 0
        name = f"{model}@{count}-{seed}" if count else f"{model}-{seed}"
        changes = {"evaluations": count} if count else {}
        return Task(name, model, seed, steps, changes, splits=tuple(splits))


FAMILIES_SMOKE = FamiliesConfig(
    clips=60, seconds=1.0, width=32, layers=1, heads=1, batch_size=4, warmup=2, steps=4, seeds=(0, 1),
    guidances=(2.0, 3.0), captions=6, validation=4, reference=6, at_once=6, shipped=(), evaluations=8, others=(4, 16),
)  # fmt: skip


class FamilyStudy(Study):
    """One process of the study of the families."""

    columns = ("steps", "hours", "valid", "valid_no_text", *COSTS, *MEASURED)
    config: FamiliesConfig

    def tokenized(self, split: str, mix: float) -> TokenSet:
        """Codes and latents of a split, made once."""
        place = self.folder / "tokens" / f"{split}-latents"
        return tokenize(self.splits[split], self.parts.codec, place, mix, progress=self.progress, latents=True)

    def requirements(self) -> Requirements:
        """Resources of the missing trainings, for which a few steps of each kind are made."""
        left = [task for task in self.left() if task.steps]
        held = memory_held()
        needs, seconds = [Requirements("", memory=held, held=held, folder=self.folder)], 0.0
        for family in dict.fromkeys(task.model for task in left):
            model, objective, settings, clips = self._beginning(family, 0)
            needs.append(training_requirements(model, clips["train"], settings, self.folder))
            steps = sum(task.steps for task in left if task.model == family)
            seconds += steps * seconds_per_step(model, self.parts.encoder, clips["train"], settings, 3, objective)
        most = max(needs, key=lambda need: need.memory)
        disk = most.disk + 2 * most.parameters * len(left)  # one checkpoint at a time, and every model
        return replace(most, what="the study", disk=disk, seconds=seconds)

    def model(self, task: Task) -> None:
        """Train or load a model, measure it, and add its rows."""
        folder = self._folder(task)
        generator = load_generator(folder)
        for weights in _networks(generator):
            weights.to(device())
        tta, there = TextToAudio(self.parts.codec, self.parts.encoder, generator), done_rows(self._rows())
        used, options = self._budget(generator, task)
        told = {**_training(folder), "evaluations": used}
        for split, guidance in task.splits:
            if guidance is None:  # its choice needs the rows that this loop has added
                guidance = chosen_guidance(self._rows(), task.model, self.config)
            if (task.name, split, guidance) in there:
                continue
            numbers, scores = self.measure(tta, task, split, guidance, **options)
            if split == TEST:
                numbers |= self._seconds(tta, folder, guidance, options)
            self.add(task, task.name, split, guidance, {**told, **numbers}, scores if split == TEST else None)

    def _rows(self) -> list[dict]:
        return read_rows(self.rows / ROWS)

    def _budget(self, generator, task: Task) -> tuple[int, dict]:
        """Evaluations of the network for a clip, and the options of the generator that make it so many."""
        if makes_columns(generator):
            return evaluations(generator, round(self.config.seconds * self.parts.codec.frame_rate)), {}
        options = steps_for(generator, task.changes.get("evaluations", self.config.evaluations))
        return evaluations(generator, 0, **options), options

    # the trainings

    def _folder(self, task: Task) -> Path:
        """Folder of a task's model, which is trained if it is not there. Tasks that share it wait for each other."""
        if task.model in self.config.shipped:
            return find_generator_folder(task.model)
        folder = self.folder / f"{task.model}-{task.seed}"
        with exclusive(folder / "training"):
            if not has_weights(folder):
                model, objective, settings, clips = self._beginning(task.model, task.seed)
                train(model, self.parts.encoder, clips["train"], clips[VALIDATION], folder, settings,
                      self.parts.names, self.progress, objective)  # fmt: skip
            (folder / CHECKPOINT).unlink(missing_ok=True)  # 80 MB; the model stays
        return folder

    def _beginning(self, family: str, seed: int):
        """Model before its training, objective, settings, and the clips of each split."""
        clips = self.tokens if family in LATENT else {split: _codes(own) for split, own in self.tokens.items()}
        settings = self.settings(Task(family, family, seed, self.config.steps))
        torch.manual_seed(seed)
        model, objective = TRAINABLE[family](self.sizes(), None, self.parts.encoder, settings, clips["train"])
        return model, objective, settings, clips

    # time

    def _seconds(self, tta: TextToAudio, folder: Path, guidance: float, options: dict) -> dict[str, float]:
        """Processor time of one thread for one clip and for eight, from captions to waveforms."""
        if device().type != "cpu":
            codec, encoder = (copy.deepcopy(part).to("cpu") for part in (tta.codec, tta.encoder))
            tta = TextToAudio(codec, encoder, load_generator(folder))
        captions = list(islice(cycle(clip.caption for clip in self.evaluator(TEST).clips), 8))
        return {
            name: processor_seconds(tta, some, self.config.seconds, guidance, **options)
            for name, some in (("seconds_one", captions[:1]), ("seconds_eight", captions))
        }


def _networks(generator) -> list[torch.nn.Module]:
    """The networks of a generator: one, or the two of a cascade."""
    if is_cascade(generator):
        return [generator.coarse.model, generator.cascader]
    return [generator.lm if makes_columns(generator) else generator.model]


def _codes(tokens: LatentSet | TokenSet) -> TokenSet:
    """The same clips, as codes without latents."""
    return TokenSet(**{field.name: getattr(tokens, field.name) for field in fields(TokenSet)})


def _training(folder: Path) -> dict:
    """Columns about the training of a model in a folder, as far as its files tell; of a shipped one, of all stages."""
    found = [folder / name for name in (STAGES, SETTINGS_FILE) if (folder / name).is_file()]
    told = json.loads(found[0].read_text("utf-8")) if found else []
    steps = sum(stage.get("steps", 0) for stage in (told if isinstance(told, list) else [told]))
    log = read_rows(folder / "log.csv")
    last = {name: float(log[-1][name]) for name in ("valid", "valid_no_text")} if log else {}
    return {"steps": steps or "", "hours": round(float(log[-1]["minutes"]) / 60, 3) if log else "", **last}
