"""The protocol of a generator, and how the pipeline finds one by name.

    pipeline.json  {"codec": "mini", "text": "mini", "generator": "language_model"}
                                                           │ find_generator
    captions ─► text encoder ─► Condition ─► generator.generate ─► codes [B, K, T] ───► codec.decode ─► waveform
                                                                or latents [B, T, D] ─► codec.synthesize ─► waveform

A generator is any class with these members. There is no base class: generators share the layers of
`minigen.transformer` and the guidance of `minigen.guidance`, not a way to generate. Each takes its own options, and
`TextToAudio.generate` refuses an option that the generator at hand does not have.
"""

import json
from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from minigen.engine.errors import MinigenError
from minigen.generate import sample
from minigen.guidance import Condition
from minigen.lm import find_generator_folder

# Name in pipeline.json, and module and class. A module is imported when its generator is loaded.
CLASSES = {
    "language_model": ("minigen.generators.language_model", "LanguageModelGenerator"),
    "masked": ("minigen.generators.masked", "MaskedGenerator"),
    "discrete": ("minigen.generators.discrete_diffusion", "DiscreteDiffusionGenerator"),
    "latent": ("minigen.generators.latent_diffusion", "LatentDiffusionGenerator"),
    "style": ("minigen.generators.styled", "StyleGenerator"),
    "cascade": ("minigen.generators.cascade", "CascadeGenerator"),
}


class Sizes(Protocol):
    """Sizes that the codec and the text encoder must share with a generator."""

    num_codebooks: int
    codebook_size: int
    memory_width: int


class Generator(Protocol):
    """A model that makes codes or latents under a condition.

    Attributes:
        name: its name in pipeline.json and in messages.
        config: its configuration.
        device: of its weights; conditions and prompts are given there.
    """

    name: str
    config: Sizes
    device: torch.device

    def generate(
        self,
        text: Condition,
        frames: int,
        guidance: float = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Codes int64 [B, K, frames], or latents of the codec, float [B, frames, D].

        A generator adds its own options, with defaults: steps, prompt (codes to continue), ... The options temperature,
        top_k and top_p have the meaning and the defaults of `minigen.generate.sample`, where a generator has them.

        Args:
            text: states of B captions.
            frames: T, length of the clips in codec frames.
            guidance: strength of the text, see `minigen.guidance.guide`.
            generator: source of randomness on the device of the weights; None: PyTorch's.
            progress: whether to show a bar on stderr.
        """
        ...

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write config.json and model.safetensors, floats in `dtype`."""
        ...

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "Generator":
        """Load what `save_pretrained` wrote, weights in `dtype`, in eval mode."""
        ...


class Filler(Generator, Protocol):
    """A generator that can also make the missing cells of given codes, as editing needs (`generators.editing`)."""

    def fill(
        self,
        text: Condition,
        known: Tensor,
        guidance: float = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Codes int64 [B, K, T] without missing cells; its own options, with defaults, are those of `generate`.

        known: codes [B, K, T] in which V marks a missing cell. Given cells stay as they are.
        """
        ...


def find_generator(name: str, folder: Path) -> type[Generator]:
    """Class of the generator that the pipeline.json of a folder names.

    Raises:
        MinigenError: no generator of that name.
    """
    if str(name) not in CLASSES:
        raise MinigenError(
            f"{folder / 'pipeline.json'} names the generator {name!r}. Known generators: {', '.join(CLASSES)}."
        )
    module, kind = CLASSES[name]
    return getattr(import_module(module), kind)


def load_generator(name_or_folder: str | Path, dtype: torch.dtype = torch.float32) -> Generator:
    """Load the generator of a shipped model or a folder, without codec and text encoder.

    Raises:
        MinigenError: no such model, an unknown generator, or damaged files.
    """
    folder = find_generator_folder(name_or_folder)
    return find_generator(generator_name(folder), folder).from_pretrained(folder, dtype)


def generator_name(name_or_folder: str | Path) -> str:
    """Name of the generator in a shipped model or a folder, as its pipeline.json has it.

    A folder without a pipeline.json holds a language model.

    Raises:
        MinigenError: no such model.
    """
    path = find_generator_folder(name_or_folder) / "pipeline.json"
    try:
        parts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        parts = None
    return parts.get("generator", "language_model") if isinstance(parts, dict) else "language_model"


def options_of(method: Callable) -> list[str]:
    """Names of a generator's own options: the parameters of its `generate` or `fill` beyond those of the protocol."""
    shared = {*signature(Filler.generate).parameters, *signature(Filler.fill).parameters}
    named = [each.name for each in signature(method).parameters.values() if each.kind is not each.VAR_KEYWORD]
    return [name for name in named if name not in shared]


def check_options(generator: Generator, options: Iterable[str], own: list[str]) -> None:
    """Raise MinigenError for an option that is not among a generator's own ones."""
    for name in options:
        if name not in own:
            raise MinigenError(f"the {generator.name} generator has no option {name!r}. Its options: {', '.join(own)}.")


def can_fill(generator: Generator) -> TypeGuard[Filler]:
    """Whether a generator can make the missing cells of given codes."""
    return hasattr(generator, "fill")


def choose_options(generator: Generator, options: dict, sampling: dict) -> dict:
    """Options to call a generator with.

    Args:
        generator: the generator.
        options: options that were asked for by name. The generator must have all of them.
        sampling: temperature, top_k and top_p. Where the generator has no such option, the default is left out.

    Raises:
        MinigenError: an option that the generator does not have.
    """
    defaults = signature(sample).parameters
    own = options_of(generator.generate)
    if can_fill(generator):  # whose `generate` hands its options on
        own += options_of(generator.fill)
    chosen = dict(options)
    for name, value in sampling.items():
        if name in own or value != defaults[name].default:
            chosen[name] = value
    check_options(generator, chosen, own)
    return chosen
