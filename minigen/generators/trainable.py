"""The generators that can be trained by name: for each, a model and its objective.

Users: `minigen train --generator NAME`, and the study of the families (`minigen.evaluation.study.families`).

    sizes, or a model to begin from ─► function of the generator ─► model, objective ─► `minigen.train.train`

A generator is one function and its entry in `TRAINABLE`. The function takes

    sizes       AudioLMConfig: sizes of a model with random weights
    start       name or folder of the model whose weights it begins with; None: random weights
    encoder     the frozen text encoder
    config      TrainConfig
    tokens      clips to learn from: a `LatentSet` for the generators in LATENT, which learn from latents

and returns the model and the objective. Random weights are those that a language model begins with, in every generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minigen.engine.errors import MinigenError

if TYPE_CHECKING:  # the command line reads the names before PyTorch is loaded
    from torch import nn

    from minigen.corpus import TokenSet
    from minigen.generators.denoiser import Denoiser
    from minigen.generators.latent_diffusion import LatentDenoiser
    from minigen.lm import AudioLM, AudioLMConfig
    from minigen.text import TextEncoder
    from minigen.train import Objective, TrainConfig


def language_model(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A language model, and the cross-entropy of its codes."""
    from minigen.train import CrossEntropyObjective

    lm = _language_model(sizes, start)
    return lm, CrossEntropyObjective(lm.config, encoder, config)


def masked(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A denoiser that fills masked cells, begun from a masked model or a language model."""
    from minigen.generators.masked import MaskedObjective

    model = _denoiser(sizes, start, "masked")
    return model, MaskedObjective(model.config, encoder, config)


def discrete(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A denoiser of masked and replaced codes, begun from a discrete, a masked or a language model."""
    from minigen.generators.discrete_diffusion import DiscreteObjective

    model = _denoiser(sizes, start, "discrete", "masked")
    if not model.config.timed:
        model = model.for_diffusion("mask_uniform")
    return model, DiscreteObjective(model.config, encoder, config)


def style(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A language model with a style conditioner, begun from such a model or from a language model."""
    from minigen.conditioning.styled_lm import StyledLM, StyleObjective
    from minigen.generators.base import generator_name

    if start is not None and generator_name(start) == "style":
        model = StyledLM.from_pretrained(start)
    else:
        if start is not None:
            _check_start(start, "language_model", "style")
        some = tokens.batch(range(min(256, len(tokens))))[0]  # [n, K, T], for the k-means start
        model = StyledLM.from_language_model(_language_model(sizes, start), some, config.seed)
    return model, StyleObjective(model, encoder, config)


def latent(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A denoiser of latents, begun from itself, or with the layers of a language model."""
    from minigen.corpus import LatentSet
    from minigen.generators.latent_diffusion import LatentObjective

    assert isinstance(tokens, LatentSet)
    model = _latent_denoiser(sizes, start)
    model.measure(tokens.latents)
    return model, LatentObjective(model, encoder, config)


TRAINABLE = {"language_model": language_model, "masked": masked, "discrete": discrete, "style": style,
             "latent": latent}  # fmt: skip
LATENT = ("latent",)


def _language_model(sizes: AudioLMConfig, start: str | None) -> AudioLM:
    """A language model: that of the name `start`, which may be an official MusicGen, or one with random weights."""
    from minigen.engine.weights import read_config
    from minigen.lm import AudioLM, find_lm

    if start is None:
        return AudioLM(sizes)
    _check_start(start, "language_model")
    if "model_type" in read_config(find_lm(start)):  # a folder of transformers
        from minigen.interop import lm_from_musicgen

        return lm_from_musicgen(start)
    return AudioLM.from_pretrained(start)


def _denoiser(sizes: AudioLMConfig, start: str | None, *generators: str) -> Denoiser:
    """A denoiser of codes: that of `start`, if it is one of these generators, or one made of a language model."""
    from minigen.generators.base import generator_name
    from minigen.generators.denoiser import Denoiser

    if start is not None and generator_name(start) in generators:
        return Denoiser.from_pretrained(start)
    if start is not None:
        _check_start(start, "language_model", *generators)
    return Denoiser.from_language_model(_language_model(sizes, start))


def _latent_denoiser(sizes: AudioLMConfig, start: str | None) -> LatentDenoiser:
    """A denoiser of latents: that of `start`; one with the layers of the language model `start`; or a random one."""
    from minigen.generators.base import generator_name
    from minigen.generators.latent_diffusion import LatentConfig, LatentDenoiser
    from minigen.lm import find_generator_folder

    if start is not None and generator_name(start) == "latent":
        return LatentDenoiser.from_pretrained(find_generator_folder(start))
    if start is not None:
        _check_start(start, "language_model", "latent")
    lm = _language_model(sizes, start)
    given = lm.config
    model = LatentDenoiser(
        LatentConfig(
            num_codebooks=given.num_codebooks, codebook_size=given.codebook_size, width=given.width, heads=given.heads,
            layers=LatentConfig.layers if start else given.layers, ffn=given.ffn, memory_width=given.memory_width,
        )
    )  # fmt: skip
    if start is not None:
        model.copy_fitting(lm)
    return model


def _check_start(start: str, *allowed: str) -> None:
    """Check that the folder `start` holds a generator that a training can begin from."""
    from minigen.generators.base import generator_name

    found = generator_name(start)
    if found not in allowed:
        raise MinigenError(f"--from {start} is a {found} generator. Begin from a {' or '.join(allowed)} generator.")
