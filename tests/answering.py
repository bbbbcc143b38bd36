"""A listening test of two models that hum and hiss, and listeners who answer it."""

from pathlib import Path

import torch

from minigen.audio import save_audio
from minigen.evaluation.listening.answers import store
from minigen.evaluation.listening.plan import NOISE_CHECK, REAL_CHECK, Plan, clip_file, new_plan, write_plan


def hum(row: int) -> torch.Tensor:
    """One second of the sound of model "a" for the caption of a row."""
    return 0.3 * torch.sin(torch.arange(16000) * 0.05 * (row + 1))


def make_test(folder: Path, *captions: str) -> Plan:
    """Write a test with its clips: model "a" hums, model "b" hisses; one attention check."""
    plan = new_plan("ab", 0, ("a", "b"), captions, checks=1)
    write_plan(folder, plan)
    chance = torch.Generator().manual_seed(0)
    for row in range(len(captions)):
        for model, name in plan.files(row).items():
            wav = hum(row) if model in ("a", REAL_CHECK) else 0.1 * torch.randn(16000, generator=chance)
            save_audio(clip_file(folder, name), wav[None], 16000)
    return plan


def answer(folder: Path, plan: Plan, listener: str, favourite: str, honest: bool = True) -> None:
    """Answer every trial: for the favourite model, and in a check for the real clip, or else for the noise."""
    for shown in plan.shown_to(listener):
        trial = plan.trials[shown.trial]
        best = favourite if favourite in trial.models else (REAL_CHECK if honest else NOISE_CHECK)
        side = "left" if shown.left == trial.files[trial.models.index(best)] else "right"
        store(folder, plan, listener, shown.trial, side)
