"""Memory of a LoRA training of a big model: what is said before, and the peak of the process.

    python -m minigen.recipes.tuning.memory [LAYERS]

makes a language model of MusicGen-small's widths with constant weights and LAYERS layers (24 by default, as
MusicGen-small has), trains one step of two clips of 10 s with LoRA of rank 8 and checkpointing, and enters the figures
in data/tuning/memory.csv: one row for each number of layers. There is no text encoder beside it.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from minigen.app.tuning.start import peak_memory
from minigen.corpus.token_cache import TokenSet
from minigen.engine.files import read_rows, write_rows
from minigen.engine.hub import ROOT
from minigen.engine.weights import WithoutMemory
from minigen.lm import AudioLM, AudioLMConfig
from minigen.train import CrossEntropyObjective, TrainConfig, Trainer, training_requirements
from minigen.tuning.lora import add_lora

FIGURES = ROOT / "data/tuning/memory.csv"
CLIPS, FRAMES, WORDS, RANK = 2, 500, 20, 8
LAYERS = 24


class ConstantText:
    """A stand-in for T5: constant states, and no weights."""

    width = 768

    def __call__(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """States [B, N, width] and mask [B, N]."""
        states = torch.full((len(captions), WORDS, self.width), 0.1)
        return states, torch.ones(len(captions), WORDS, dtype=torch.bool)


def model(layers: int, width: int = 1024) -> AudioLM:
    """A language model of MusicGen-small's sizes, but for the number of layers; all weights are equal."""
    sizes = AudioLMConfig(num_codebooks=4, codebook_size=2048, width=width, layers=layers, heads=width // 64,
                          ffn=4 * width, memory_width=ConstantText.width)  # fmt: skip
    with WithoutMemory():
        lm = AudioLM(sizes)
    lm = lm.to_empty(device="cpu")
    for tensor in lm.state_dict().values():
        tensor.fill_(1e-3)
    return lm


def measure(layers: int, width: int = 1024) -> dict[str, float]:
    """Train one step; bytes said before and bytes at the peak, weights, and processor seconds of the step."""
    lm = add_lora(model(layers, width), RANK)
    codes = np.random.default_rng(0).integers(0, lm.config.codebook_size, (CLIPS, 4, FRAMES)).astype(np.int16)
    none: list = [() for _ in range(CLIPS)]
    tokens = TokenSet(codes, ["a sound"] * CLIPS, none, [[] for _ in range(CLIPS)], 50.0, lm.config.codebook_size)
    config = TrainConfig(steps=1, batch_size=CLIPS, checkpointing=True, keep_best=True, text_dropout=0.0)
    said = training_requirements(lm, tokens, config, Path(".")).memory
    trainer = Trainer(lm, CrossEntropyObjective(lm.config, ConstantText(), config), config)
    began = time.process_time()
    trainer.train_step(*tokens.batch(range(CLIPS)))
    seconds = round(time.process_time() - began, 1)
    weights = sum(parameter.numel() for parameter in lm.parameters())
    return {"layers": layers, "weights": weights, "said": round(said), "peak": peak_memory(), "seconds": seconds}


def main() -> None:
    """Measure and enter the row."""
    row = measure(int(sys.argv[1]) if len(sys.argv) > 1 else LAYERS)
    rows = [old for old in read_rows(FIGURES) if int(old["layers"]) != row["layers"]]
    rows = sorted([*rows, row], key=lambda each: int(each["layers"]))
    write_rows(FIGURES, rows)
    print(f"{row}\n{FIGURES}")


if __name__ == "__main__":
    main()
