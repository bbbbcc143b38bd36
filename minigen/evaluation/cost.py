"""Cost of a generator: evaluations of its network for a clip, and processor time of one thread.

    language model, style   2 for each column of codes: with the text and without, T + 3 columns
    masked, discrete        2 for each step
    latent                  2 for each step
    cascade                 2 for each step of the coarse model, and 1 for each step of the cascader

An evaluation of a language model works out one column, the others' a whole clip. So evaluations compare samplers of one
kind, and seconds compare kinds. Symbols: T frames.
"""

import time
from inspect import signature

import torch

ROUNDS = 2  # of a measurement of time, of which the shorter counts


def makes_columns(generator) -> bool:
    """Whether a generator makes one column of codes after the other, so that it has no steps to choose."""
    return hasattr(generator, "lm")


def default_steps(generator) -> int:
    """Steps that a generator takes if none are asked for."""
    method = generator.fill if hasattr(generator, "fill") else generator.generate
    return signature(method).parameters["steps"].default


def evaluations(generator, frames: int, steps: int | None = None, refine_steps: int | None = None) -> int:
    """Evaluations of the network for one guided clip of T `frames`. Steps: None for the generator's own number."""
    if makes_columns(generator):
        return 2 * (frames + max(generator.config.delays))
    coarse = 2 * (steps or default_steps(generator))
    if not is_cascade(generator):
        return coarse
    return coarse + (refine_steps or signature(generator.generate).parameters["refine_steps"].default)


def steps_for(generator, count: int) -> dict[str, int]:
    """Options of a generator with steps that make it evaluate its networks about `count` times for a clip.

    A cascade spends a quarter on its second model, which is not guided, and three quarters on its first.
    """
    if not is_cascade(generator):
        return {"steps": max(1, count // 2)}
    steps = max(2, 3 * count // 8)
    return {"steps": steps, "refine_steps": max(1, count - 2 * steps)}


def is_cascade(generator) -> bool:
    """Whether a generator consists of a coarse model and a cascader."""
    return hasattr(generator, "cascader")


def processor_seconds(tta, captions: list[str], seconds: float, guidance: float, rounds: int = ROUNDS, **how) -> float:
    """Processor time of one thread from captions to waveforms, the least of some rounds.

    Other processes on the machine hardly change it. tta: a `minigen.generate.TextToAudio` on the processor. how:
    options of its generator.
    """
    times, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds):
            began = time.process_time()
            tta.generate(captions, seconds, guidance, seed=0, **how)
            times.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    return min(times)
