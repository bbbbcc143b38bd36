"""Making a listening test: real and generated clips of each caption, written at one loudness.

    recipe (models, guidance, number of clips) ──make_test──► plan.json, clips/3f09….flac

An interrupted `make_test` continues where it stopped, batch by batch, and ends with the same clips.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from minigen.audio import SAMPLE_RATE, save_audio
from minigen.engine.errors import MinigenError
from minigen.evaluation import measure, title_of
from minigen.evaluation.listening.loudness import match_loudness
from minigen.evaluation.listening.plan import (
    NOISE_CHECK,
    REAL_CHECK,
    Plan,
    clip_file,
    missing_rows,
    new_plan,
    read_plan,
    write_plan,
)

BATCH = 8  # captions that are generated at once
REAL = "real"  # as the name of a model: the true clips of the captions
RECIPE = {"models": ["mini-dropout", "mini-regularized"], "guidance": [3.0], "clips": 12, "checks": 4, "seconds": 4.0,
          "data": None, "split": "test", "seed": 0}  # fmt: skip


def complete_recipe(folder: str | Path, given: dict) -> dict:
    """The settings in `given`, completed from the test in the folder, else from RECIPE. None means: not given.

    Raises:
        MinigenError: the folder holds a test with other settings, or `guidance` does not fit `models`.
    """
    plan = read_plan(folder)
    given = {name: value for name, value in given.items() if value is not None}
    earlier = {**RECIPE, **plan.recipe} if plan else RECIPE
    recipe = {**earlier, **given}
    if plan and plan.recipe and recipe != earlier:
        name = next(name for name, value in given.items() if value != plan.recipe.get(name))
        raise MinigenError(
            f"{folder} holds a test with {name} {plan.recipe.get(name)}, not {given[name]}. Name another folder."
        )
    if len(recipe["guidance"]) not in (1, len(recipe["models"])):
        count = f"{len(recipe['guidance'])} guidance scales for {len(recipe['models'])} models"
        raise MinigenError(f"{count}. Give one, or one for each model.")
    return recipe


def compared_models(recipe: dict) -> dict[str, tuple[str, float]]:
    """Name in the report -> (model, guidance scale). One model may be compared with itself at two scales.

    Raises:
        MinigenError: fewer than two, or one twice.
    """
    models, scales = recipe["models"], recipe["guidance"]
    if len(scales) == 1:
        scales = scales * len(models)
    pairs = list(zip(models, scales, strict=True))
    names = [measure.REAL if model == REAL else title_of(model, scale) for model, scale in pairs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise MinigenError(f"the models are {', '.join(names)}. Give two or more different ones.")
    return dict(zip(names, pairs, strict=True))


def make_test(folder: str | Path, recipe: dict, load_clips: Callable, load_model: Callable) -> Plan:
    """Make the test of a folder, or complete an interrupted one; a complete test is left as it is.

    Args:
        folder: of the test.
        recipe: of `complete_recipe`.
        load_clips: () -> (clips, real waveforms [n, 1, samples]); called only if clips are missing.
        load_model: name -> `TextToAudio`; called only if clips are missing.

    Raises:
        MinigenError: the captions differ from those the test began with, or the folder cannot be written.
    """
    plan, names = read_plan(folder), compared_models(recipe)
    if plan and not missing_rows(folder, plan):
        return plan
    clips, real = load_clips()
    captions = tuple(clip.caption for clip in clips)
    if plan is None:
        plan = new_plan(secrets.token_hex(16), recipe["seed"], names, captions, recipe["checks"], recipe)
        write_plan(folder, plan)
    if plan.captions != captions:
        raise MinigenError(f"{folder} was begun with other captions than its corpus has now. Name another folder.")
    models = {model: load_model(model) for model in {model for model, _ in names.values()} - {REAL}}
    for start in range(0, len(captions), BATCH):
        if set(missing_rows(folder, plan)) & set(range(start, start + BATCH)):
            _make_batch(folder, plan, start, names, models, real)
    return plan


def _make_batch(folder: str | Path, plan: Plan, start: int, names: dict, models: dict, real: Tensor) -> None:
    """Make the clips of up to BATCH captions, generated with the seed `plan.seed` + number of the batch."""
    rows = range(start, min(start + BATCH, len(plan.captions)))
    captions, seconds, seed = [plan.captions[row] for row in rows], plan.recipe["seconds"], plan.seed + start // BATCH
    sounds = {}
    for name, (model, guidance) in names.items():
        if model == REAL:
            sounds[name] = real[start : start + BATCH]
        else:
            sounds[name] = measure.generate_for(models[model], captions, seconds, guidance, seed, BATCH, label=name)
    for i, row in enumerate(rows):
        write_clips(folder, plan, row, {name: wavs[i] for name, wavs in sounds.items()}, real[row])


def write_clips(
    folder: str | Path, plan: Plan, row: int, sounds: Mapping[str, Tensor], real: Tensor, sample_rate: int = SAMPLE_RATE
) -> None:
    """Write all clips of one caption at one loudness, those of its attention check included.

    sounds: model -> waveform [1, samples]; real: the true clip of the caption, for the attention check.

    Raises:
        MinigenError: the folder cannot be written, or a waveform is not finite.
    """
    noise = np.random.default_rng([plan.seed, row]).normal(0, 0.1, real.shape)
    every = {**sounds, REAL_CHECK: real, NOISE_CHECK: real.new_tensor(noise)}
    files = plan.files(row)
    matched = match_loudness([every[model] for model in files], sample_rate)
    for name, wav in zip(files.values(), matched, strict=True):
        save_audio(clip_file(folder, name), wav, sample_rate)
