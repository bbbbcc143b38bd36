"""Kills jobs repeatedly at random moments: `python killing.py FOLDER KILLS SEED` prints the results as JSON.

PyTorch is loaded once, and every attempt is a fork of this process: a kill costs milliseconds instead of seconds. A job
that ends before it was killed often enough begins again in another folder. What is compared is bit for bit.
"""

import json
import math
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from itertools import cycle
from pathlib import Path

import accelerate  # noqa: F401  loaded here once, not in every fork
import numpy as np
import peft  # noqa: F401  loaded here once, too
import soundfile
import torch
from latents import denoiser, latent_set
from standins import HashCodec
from test_train import SIZES, Words, tokens

from minigen.codec import CodecConfig
from minigen.corpus import build_corpus, read_corpus, tokenize
from minigen.engine import loop
from minigen.engine.checkpoint import CHECKPOINT, load_checkpoint
from minigen.evaluation.tagger import Tagger, TaggerConfig
from minigen.generators.denoiser import Denoiser
from minigen.generators.discrete_diffusion import DiscreteObjective
from minigen.generators.latent_diffusion import LatentObjective
from minigen.generators.masked import MaskedObjective
from minigen.lm import AudioLM
from minigen.recipes.codec import train as codec
from minigen.recipes.judge import train as judge
from minigen.recipes.judge.data import Examples
from minigen.train import TrainConfig, train
from minigen.tuning.lora import add_lora, without_adapter
from minigen.tuning.preference import PreferenceObjective

CLOCKS = ("minutes", "frames_per_second")  # the columns of the log that no two runs share


def train_tiny(folder: Path, kills: int) -> None:
    """A training with dropout and the regulariser, so that every random state matters; saved after every step."""
    torch.manual_seed(0)
    lm = AudioLM(type(SIZES)(**{**vars(SIZES), "dropout": 0.1}))
    config = TrainConfig(steps=5 * kills, batch_size=8, warmup=5, valid_every=7, save_minutes=0, similarity=1.0,
                         text_dropout=0.4, ema_every=3)  # fmt: skip
    train(lm, Words(), tokens(), tokens(16, seed=1), folder, config, progress=False)


def train_masked_tiny(folder: Path, kills: int) -> None:
    """A training of a masked model with dropout, crops and its own masks; saved after every step."""
    _train_denoiser(folder, kills, tiny_denoiser(), MaskedObjective)


def train_discrete_tiny(folder: Path, kills: int) -> None:
    """A training of discrete diffusion with dropout, crops and its own noise; saved after every step."""
    _train_denoiser(folder, kills, tiny_denoiser().for_diffusion("mask_uniform"), DiscreteObjective)


def tiny_denoiser() -> Denoiser:
    """A denoiser with dropout, from the seed 0."""
    torch.manual_seed(0)
    return Denoiser.from_language_model(AudioLM(type(SIZES)(**{**vars(SIZES), "dropout": 0.1})))


def _train_denoiser(folder: Path, kills: int, model: Denoiser, objective: type) -> None:
    config = TrainConfig(steps=3 * kills, batch_size=8, warmup=5, valid_every=7, save_minutes=0, text_dropout=0.4,
                         ema_every=3)  # fmt: skip
    train(model, Words(), tokens(frames=60), tokens(16, 60, seed=1), folder, config, progress=False,
          objective=objective(model.config, Words(), config))  # fmt: skip


def train_preferences_tiny(folder: Path, kills: int) -> None:
    """A training of an adapter on preferences, with dropout, the best weights kept; saved after every step."""
    torch.manual_seed(0)
    lm = add_lora(AudioLM(type(SIZES)(**{**vars(SIZES), "dropout": 0.1})), 2)
    config = TrainConfig(steps=3 * kills, batch_size=8, warmup=5, valid_every=7, save_minutes=0, ema_every=3,
                         keep_best=True, checkpointing=True)  # fmt: skip
    objective = PreferenceObjective(lm.config, Words(), without_adapter(lm))
    train(lm, Words(), tokens(), tokens(16, seed=1), folder, config, progress=False, objective=objective)


def train_latent_tiny(folder: Path, kills: int) -> None:
    """A training of latent diffusion with dropout, crops and its own noise; saved after every step."""
    model = denoiser(num_codebooks=2, codebook_size=16, dropout=0.1)
    config = TrainConfig(steps=3 * kills, batch_size=8, warmup=5, valid_every=7, save_minutes=0, text_dropout=0.4,
                         ema_every=3)  # fmt: skip
    train(model, Words(), latent_set(), latent_set(16, 1), folder, config, progress=False,
          objective=LatentObjective(model, Words(), config))  # fmt: skip


def tokenize_tiny(folder: Path, kills: int) -> None:
    """Tokenising in batches of one clip, so that the state is written as often as possible."""
    sounds = folder.parent / "sounds"
    corpus = read_corpus(sounds, seconds=0.2)
    tokenize(corpus, HashCodec(), folder, mix=2.0, batch_size=1, progress=False)


def write_sounds(folder: Path, clips: int) -> None:
    """Write clips of noise whose captions may all be mixed; one clip is silent."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(clips):
        soundfile.write(folder / f"{number}.wav", (number != 3) * rng.uniform(-0.5, 0.5, 3200), 16000)
    rows = [f"{number}.wav,Sound number {number}" for number in range(clips)]
    (folder / "train.csv").write_text("\n".join(["file,caption", *rows]))


def build_tiny(folder: Path, kills: int) -> None:
    """The built-in corpus with clips of one second."""
    build_corpus(folder, clips=3 * kills, seconds=1.0, workers=1, progress=False)


class Tones:
    """Eight tones of half a second, with the interface that the codec's recipe needs."""

    def __len__(self):
        return 8

    def load(self, i):
        return 0.5 * torch.sin(2 * torch.pi * (200 + 100 * i) * torch.arange(8000) / 16000)[None, None]


def train_codec_tiny(folder: Path, kills: int) -> None:
    """The codec's recipe: the fit, then steps; saved after every step."""
    loop.SAVE_MINUTES = 0.0
    recipe = codec.CodecRecipe(steps=kills, batch_size=2, crop=1600, clips=16)
    sizes = CodecConfig(width=16, blocks=1, latent=8, num_codebooks=2, codebook_size=8)
    codec.train_codec(folder, {"tones": Tones()}, recipe, sizes, progress=False)


def train_tagger_tiny(folder: Path, kills: int) -> None:
    """The training of the tagger, with dropout; saved after every step."""
    loop.SAVE_MINUTES = 0.0
    torch.manual_seed(0)
    tagger, chance = Tagger(TaggerConfig(channels=(2, 2, 2, 2), width=4)), torch.Generator().manual_seed(1)
    pictures = torch.randn(16, 100, 64, generator=chance)
    frames = torch.rand(16, len(tagger.kinds), 25, generator=chance) < 0.1
    data = Examples(pictures, frames.any(-1), frames, torch.ones(16, dtype=torch.bool))

    def loss(rng: torch.Generator) -> torch.Tensor:
        batch = data.rows(torch.randint(16, (4,), generator=rng))
        return judge.tagger_loss(tagger(batch.pictures.transpose(1, 2)), batch)

    judge.fit(tagger, loss, judge.Training(steps=3 * kills), folder / CHECKPOINT, progress=False)
    tagger.save_pretrained(folder)


def outcome(job: str, folder: Path) -> dict:
    """Everything that a job writes, by name, without what depends on the clock."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if job == "codec":
        del files["card.md"]  # it tells how fast it is
    if job == "tagger":
        del files[CHECKPOINT]  # it tells how long it took
    if not job.startswith("train"):
        return files
    del files[CHECKPOINT], files["log.csv"]
    state = load_checkpoint(folder / CHECKPOINT)
    del state["seconds"]
    history = [{name: value for name, value in row.items() if name not in CLOCKS} for row in state.pop("history")]
    return {**files, "history": repr(history), **flat(state)}


def flat(value, name: str = "") -> dict:
    """A nested state as {path: bytes of the tensor, or the value as text}."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for key, item in enumerate(value) for k, v in flat(item, f"{name}/{key}").items()}
    return {name: value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value)}


def die_in_a_file(size: int) -> None:
    """Have the system kill this process at the first write that makes a file longer than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would turn it into an error
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def die_in_the_act(call: int) -> None:
    """Have this process killed at the `call`-th time that a file is flushed or renamed: before it, or just after."""
    calls = []

    def fatal(act):
        def acted(*arguments):
            calls.append(act)
            if len(calls) == call // 2 + 1 and call % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            act(*arguments)
            if len(calls) == call // 2 + 1:
                os.kill(os.getpid(), signal.SIGKILL)

        return acted

    os.fsync, os.replace = fatal(os.fsync), fatal(os.replace)


def attempt(work, lifetime: float = np.inf, call: int | None = None, size: int | None = None) -> bool:
    """Run in a fork; True where it ended by itself, False where it was killed: after `lifetime` s, or as told above."""
    process = os.fork()
    if process == 0:
        try:
            if call is not None:
                die_in_the_act(call)
            if size is not None:
                die_in_a_file(size)
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    end = time.monotonic() + lifetime
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done and os.WIFSIGNALED(status):
            return False
        if done and status:
            raise SystemExit("an attempt failed")
        if done:
            return True
        if time.monotonic() >= end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return False
        time.sleep(0.001)


def kill_repeatedly(job: str, work, top: Path, kills: int, rng: np.random.Generator) -> dict:
    """Kill `job` `kills` times at moments drawn from `rng`, let it end, and compare with an uninterrupted run.

    Two times in three it is killed while it writes: at one of the next thirty or so calls that flush or rename a file,
    or in the middle of a file.
    """
    began = time.monotonic()
    attempt(lambda: work(top / job, kills))
    whole, expected = time.monotonic() - began, outcome(job, top / job)
    killed, in_the_act, ended, different = 0, 0, 0, []
    folder, largest = top / f"{job}-0", max(map(len, expected.values()))
    moments = cycle((
        lambda: {"lifetime": rng.uniform(0, 4 * whole / kills)},
        lambda: {"call": int(rng.integers(60))},
        lambda: {"size": int(math.exp(rng.uniform(0, math.log(largest))))},
    ))  # fmt: skip
    while True:
        last, moment = killed == kills, next(moments)()
        if attempt(lambda: work(folder, kills), **({} if last else moment)):
            found, ended = outcome(job, folder), ended + 1
            different += [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
            shutil.rmtree(folder)
            if last:
                break
        else:
            killed += 1
            in_the_act += any(folder.rglob("*.part"))
    return {"killed": killed, "in the act of writing": in_the_act, "ended": ended, "different": sorted(set(different)),
            "seconds": round(time.monotonic() - began, 1), "compared": len(expected)}  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    top, kills = Path(sys.argv[1]), int(sys.argv[2])
    write_sounds(top / "sounds", 2 * kills)
    jobs = {
        "train": train_tiny, "tokenize": tokenize_tiny, "corpus": build_tiny, "codec": train_codec_tiny,
        "tagger": train_tagger_tiny, "train-discrete": train_discrete_tiny, "train-preferences": train_preferences_tiny,
        "train-masked": train_masked_tiny,
        "train-latent": train_latent_tiny,
    }  # fmt: skip
    chance = [np.random.default_rng([int(sys.argv[3]), number]) for number in range(len(jobs))]
    print(
        json.dumps(
            {job: kill_repeatedly(job, jobs[job], top, kills, rng) for job, rng in zip(jobs, chance, strict=True)}
        )
    )
