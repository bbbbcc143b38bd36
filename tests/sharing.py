"""Work for one process or several: `accelerate launch ... sharing.py FOLDER CLIPS`.

In FOLDER: trainings in float64, `exact` with the regulariser, `masked`, `discrete`, `latent` and `cascader` of these
generators, `style` of a language model with a style, `lora` and `prefer` of an adapter; `tokens` and `model`, made by
the command line.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from latents import denoiser, latent_set
from test_train import SIZES, Words, tokens

from minigen import train as training
from minigen.app import cli
from minigen.conditioning.styled_lm import AlignObjective, StyledLM, StyleObjective
from minigen.generators.cascade import CascadeObjective
from minigen.generators.denoiser import Denoiser
from minigen.generators.discrete_diffusion import DiscreteObjective
from minigen.generators.latent_diffusion import LatentObjective
from minigen.generators.masked import MaskedObjective
from minigen.lm import AudioLM
from minigen.train import CrossEntropyObjective, TrainConfig, train
from minigen.tuning.lora import add_lora, without_adapter
from minigen.tuning.preference import PreferenceObjective

EXACT = TrainConfig(steps=12, batch_size=8, warmup=3, valid_every=4, save_minutes=0, similarity=1.0, text_dropout=0.5,
                    ema_every=2)  # fmt: skip


class Words64(Words):
    """The stand-in encoder in float64."""

    def forward(self, captions):
        states, mask = super().forward(captions)
        return states.double(), mask


def work(folder: Path, clips: Path) -> None:
    """Do everything that the test compares."""
    torch.manual_seed(0)
    training.fast_bf16 = lambda: False
    train(AudioLM(SIZES).double(), Words64(), tokens(), tokens(16, seed=1), folder / "exact", EXACT, progress=False)
    plain = Denoiser.from_language_model(AudioLM(SIZES)).double()
    timed = plain.for_diffusion("mask").double()
    for model, kind in ((plain, MaskedObjective), (timed, DiscreteObjective)):
        objective = kind(model.config, Words64(), EXACT)
        train(model, Words64(), tokens(frames=60), tokens(16, 60, seed=1), folder / objective.generator, EXACT,
              progress=False, objective=objective)  # fmt: skip
    for kind, changes in ((LatentObjective, {}), (CascadeObjective, {"conditioned": True})):
        model = denoiser(num_codebooks=2, codebook_size=16, **changes).double()
        objective = kind(model, Words64(), EXACT)
        train(model, Words64(), latent_set(), latent_set(16, 1), folder / objective.generator, EXACT, progress=False,
              objective=objective)  # fmt: skip
    styled = StyledLM.from_language_model(AudioLM(SIZES), tokens(frames=60).batch(range(16))[0]).double()
    objective = StyleObjective(styled, Words64(), EXACT)
    train(styled, Words64(), tokens(frames=60), tokens(16, 60, seed=1), folder / "style", EXACT, progress=False,
          objective=objective)  # fmt: skip
    alone = StyledLM.from_language_model(AudioLM(SIZES), tokens(frames=60).batch(range(16))[0]).double()
    objective = AlignObjective(alone, Words64(), EXACT)
    train(alone, Words64(), tokens(frames=60), tokens(16, 60, seed=1), folder / "conditioner", EXACT, progress=False,
          objective=objective)  # fmt: skip
    for name in ("lora", "prefer"):
        adapted, config = add_lora(AudioLM(SIZES).double(), 2), replace(EXACT, accumulate=2, checkpointing=True)
        objective = CrossEntropyObjective(SIZES, Words64(), config)
        if name == "prefer":  # each row of the tokens counts as a pair of clips of half its length
            objective = PreferenceObjective(SIZES, Words64(), without_adapter(adapted))
        train(adapted, Words64(), tokens(), tokens(16, seed=1), folder / name, config, progress=False,
              objective=objective)  # fmt: skip
    for line in (
        f"tokenize {clips} --out {folder}/tokens --seconds 1 --mix 1",
        f"train {folder}/tokens --valid {folder}/tokens --out {folder}/model --steps 2 --batch-size 4 --width 32 "
        "--layers 1 --similarity 1 --text-dropout 0.5",
    ):
        if cli.main(line.split()):
            raise SystemExit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Path(sys.argv[1]), Path(sys.argv[2]))
