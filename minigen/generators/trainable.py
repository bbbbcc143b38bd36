"""The generators that can be trained by name: for each, a model and its objective.

Users: `minigen train --generator NAME`, and the study of the families (`minigen.evaluation.study.families`).

    sizes, or a model to begin from ─► function of the generator ─► model, objective ─► `minigen.train.train`

A generator is one function and its entry in `TRAINABLE`. The function takes

    sizes       AudioLMConfig: sizes of a model with random weights
    start       name or folder of the model whose weights it begins with; None: random weights
    encoder     the frozen text encoder
    config      TrainConfig
    tokens      clips to learn from: a `LatentSet` for the generators in LATENT, which learn from latents

and returns the model and the objective. Random weights are those that a language model begins with in the
generators of codes, and PyTorch's own in those of latents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from minigen.engine.errors import MinigenError

if TYPE_CHECKING:  # the command line reads the names before PyTorch is loaded
    from torch import nn

    from minigen.conditioning.styled_lm import StyledLM
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


def conditioner(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """The style conditioner alone, beside a frozen language model or style model: the training before `style`."""
    from minigen.conditioning.styled_lm import AlignObjective

    model = _styled(sizes, start, config, tokens)
    return model, AlignObjective(model, encoder, config)


def style(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A language model with a style conditioner, begun from such a model or from a language model."""
    from minigen.conditioning.styled_lm import StyleObjective

    model = _styled(sizes, start, config, tokens)
    return model, StyleObjective(model, encoder, config)


def latent(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """A denoiser of latents, begun from a model of latents, or with the layers of a language model."""
    from minigen.generators.latent_diffusion import LatentObjective

    model = _latent_denoiser(sizes, start, tokens)
    return model, LatentObjective(model, encoder, config)


def coarse(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """The coarse model of a cascade, begun as `latent`. Its folder becomes the cascade's; see `cascader`."""
    from minigen.generators.cascade import STRIDE, CoarseObjective

    model = _latent_denoiser(sizes, start, tokens, stride=STRIDE)
    return model, CoarseObjective(model, encoder, config)


def cascader(
    sizes: AudioLMConfig, start: str | None, encoder: TextEncoder, config: TrainConfig, tokens: TokenSet
) -> tuple[nn.Module, Objective]:
    """The second model of a cascade, begun as `latent`; it belongs into the folder "cascader" of the coarse model's."""
    from minigen.generators.cascade import CascadeObjective

    model = _latent_denoiser(sizes, start, tokens, conditioned=True)
    return model, CascadeObjective(model, encoder, config)


TRAINABLE = {"language_model": language_model, "masked": masked, "discrete": discrete, "style": style,
             "conditioner": conditioner, "latent": latent, "coarse": coarse, "cascader": cascader}  # fmt: skip
LATENT = ("latent", "coarse", "cascader")


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


def _styled(sizes: AudioLMConfig, start: str | None, config: TrainConfig, tokens: TokenSet) -> StyledLM:
    """A language model with a style conditioner: that of `start`, or a new conditioner beside a language model."""
    from minigen.conditioning.styled_lm import StyledLM
    from minigen.generators.base import generator_name

    if start is not None and generator_name(start) == "style":
        return StyledLM.from_pretrained(start)
    if start is not None:
        _check_start(start, "language_model", "style")
    some = tokens.batch(range(min(256, len(tokens))))[0]  # [n, K, T], for the k-means start
    return StyledLM.from_language_model(_language_model(sizes, start), some, config.seed)


def _denoiser(sizes: AudioLMConfig, start: str | None, *generators: str) -> Denoiser:
    """A denoiser of codes: that of `start`, if it is one of these generators, or one made of a language model."""
    from minigen.generators.base import generator_name
    from minigen.generators.denoiser import Denoiser

    if start is not None and generator_name(start) in generators:
        return Denoiser.from_pretrained(start)
    if start is not None:
        _check_start(start, "language_model", *generators)
    return Denoiser.from_language_model(_language_model(sizes, start))


def _latent_denoiser(sizes: AudioLMConfig, start: str | None, tokens: TokenSet, **changes: Any) -> LatentDenoiser:
    """A denoiser of these latents, with what fits of the weights of `start`: a model of latents, or a language model.

    changes: stride and conditioned of its configuration.
    """
    from minigen.corpus import LatentSet
    from minigen.generators.base import generator_name
    from minigen.generators.latent_diffusion import LatentConfig, LatentDenoiser
    from minigen.lm import find_generator_folder

    assert isinstance(tokens, LatentSet)
    if start is not None:
        _check_start(start, "language_model", *LATENT, "cascade")
    if start is None or generator_name(start) == "language_model":
        given: AudioLM | LatentDenoiser = _language_model(sizes, start)
        like, layers = given.config, LatentConfig.layers if start else sizes.layers
        config = LatentConfig(
            num_codebooks=like.num_codebooks, codebook_size=like.codebook_size, width=like.width, heads=like.heads,
            layers=layers, ffn=like.ffn, memory_width=like.memory_width, **changes,
        )  # fmt: skip
    else:
        given = LatentDenoiser.from_pretrained(find_generator_folder(start))
        config = replace(given.config, **{"stride": 1, "conditioned": False, **changes})
    model = LatentDenoiser(config)
    if start is not None:
        model.copy_fitting(given)
    model.measure(tokens.latents)
    return model


def _check_start(start: str, *allowed: str) -> None:
    """Check that the folder `start` holds a generator that a training can begin from."""
    from minigen.generators.base import generator_name

    found = generator_name(start)
    if found not in allowed:
        raise MinigenError(f"--from {start} is a {found} generator. Begin from a {' or '.join(allowed)} generator.")
