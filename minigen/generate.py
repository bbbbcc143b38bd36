"""Generation: from a caption to sound, one column of codes at a time. The whole chain meets here.

    captions ─► text encoder ─► states ─► AudioLM + KV cache ─► logits of each branch ─► combine ─► sample ─► column
                                             ▲                  (`minigen.decoding`)                            │
                                             └──────────────────── fed back as the next input ◄─────────────────┘
    waveform [B, 1, samples] ◄── codec.decode ◄── pattern.revert ◄── all columns [B, K, S]

`generate_guided` is the loop, for any list of guidance branches (`minigen.guidance.Branches`); `generate_codes` runs it
for one text. A cell of a column is one of three things: a gap of the delay pattern, which holds the special token V; a
code of the prompt, which is kept; or a code to draw. The heads have V outputs, so the special token is never drawn.

    prompt of 2 frames, 4 to make     p prompt   ? drawn   . the special token V
    k0  p p ? ? . .        column 2 is the first with a cell to draw: columns 0 and 1 are fed at once, then one by one
    k1  . p p ? ? .

`TextToAudio` is the pipeline: a codec, a text encoder, and a generator that the folder's pipeline.json names. The
language model is one generator; `minigen.generators` holds the protocol and the others.

Sources: AudioGen (arXiv 2209.15352) for guidance, audiocraft's LMModel.generate for the order of the sampling options.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minigen.audio import check_waveform
from minigen.codec import load_codec
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import HubModel
from minigen.engine.settings import COUNT, NATURAL, NOT_NEGATIVE, SECONDS, SHARE, TORCH_SEED, check_number
from minigen.engine.weights import read_config
from minigen.guidance import Branches, Condition, text_branches
from minigen.lm import AudioLM, find_generator_folder
from minigen.patterns import DelayPattern
from minigen.text import load_text_encoder

LEAST_TEMPERATURE = 1e-30  # dividing by less overflows float32
SHORTEST_STYLE = 0.5  # seconds of a style excerpt
SILENT = 1e-4  # peak of a silent excerpt
UNKNOWN = -1  # marks a cell still to be drawn


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """Keep the k most likely codes of [..., V], set the others to 0 and scale to a sum of 1.

    Codes as likely as the k-th are kept too, as in audiocraft's sample_top_k.
    """
    weakest = probs.topk(min(k, probs.shape[-1]), sorted=False).values.amin(-1, keepdim=True)  # [..., 1]
    kept = probs * (probs >= weakest)  # [..., V]
    return kept / kept.sum(-1, keepdim=True)


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """Keep the nucleus of [..., V]: the fewest most likely codes that together have a probability of at least p.

    A code is kept if the more likely codes sum to less than p. Source: Holtzman et al., arXiv 1904.09751.
    """
    ordered, order = probs.sort(descending=True, dim=-1)  # each [..., V]
    before = ordered.cumsum(-1) - ordered  # sum of the more likely codes
    nucleus = ordered * (before < max(p, 1e-9))  # always includes the most likely code
    kept = torch.zeros_like(probs).scatter(-1, order, nucleus)  # back to the order of the codes
    return kept / kept.sum(-1, keepdim=True)


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one code for each row: logits [..., V] -> int64 [...], from softmax(logits / temperature).

    Args:
        logits: [..., V].
        temperature: 0 takes the most likely code; 1 samples from the model's distribution.
        top_k: draw among the k most likely codes; 0: among all.
        top_p: draw from the nucleus of probability p; 0: use top_k. It overrides top_k.
        generator: source of randomness, on the device of the logits.

    Raises:
        MinigenError: a negative temperature or top_k, top_p outside [0, 1].
    """
    _check_sampling(temperature, top_k, top_p)
    return _draw(logits, temperature, top_k, top_p, generator)


def _draw(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None) -> Tensor:
    """`sample` without its checks, which a generation makes once and not at every column."""
    if temperature == 0:
        return logits.argmax(-1)
    probs = (logits.float() / max(temperature, LEAST_TEMPERATURE)).softmax(-1)
    if top_p > 0:
        probs = keep_top_p(probs, top_p)
    elif top_k > 0:
        probs = keep_top_k(probs, top_k)
    rows = probs.view(-1, probs.shape[-1])  # [product of ..., V]: multinomial takes two dimensions
    return torch.multinomial(rows, 1, generator=generator).view(logits.shape[:-1])


def generate_codes(
    lm: AudioLM,
    memory: Tensor | None = None,
    memory_mask: Tensor | None = None,
    frames: int = 200,
    guidance: float = 3.0,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    prompt: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Generate codes for one text per clip: int64 [B, K, frames], values 0 to V - 1.

    Dropout is off. All random draws of a batch come from one generator, so a clip's noise depends on the batch that it
    is made in; at temperature 0 it does not.

    Args:
        lm: the language model.
        memory: text states [B, N, M]; None: no text.
        memory_mask: bool [B, N], True = a token; None: all are.
        frames: T, length of the clips with the prompt.
        guidance: w in logits = uncond + w (cond - uncond). 0 (or memory=None) runs the model without text only, 1 with
            text only, any other value both in one batch of 2B rows.
        temperature: see `sample`.
        top_k: see `sample`.
        top_p: see `sample`.
        prompt: codes [B, K, P] or [1, K, P] with P < frames, which become the first P frames of the answer. Without
            memory, B is the prompt's, or 1.
        generator: source of randomness on the device of the model; None: PyTorch's.
        progress: whether to show a bar on stderr.

    Raises:
        MinigenError: frames below 1, a prompt that does not fit, sampling options out of range (see `sample`), shapes.
    """
    batch = 1
    if memory is not None:
        batch = len(memory)
    elif prompt is not None:
        batch = len(prompt)
    if not batch:
        raise MinigenError("no texts and no prompts. Give one or more, or neither.")
    branches = text_branches(Condition(memory, memory_mask), guidance)
    return generate_guided(lm, branches, batch, frames, temperature, top_k, top_p, prompt, generator, progress)


@torch.no_grad()
def generate_guided(
    lm: AudioLM,
    branches: Branches,
    batch: int,
    frames: int = 200,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    prompt: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Generate codes int64 [B, K, frames] under any list of conditions, such as a text and a style.

    Each branch is B rows of one batch and is fed the same codes; the combined logits are sampled. branches: conditions,
    each with a memory of B rows or none, and the function that combines their logits. batch: B, number of clips. The
    other arguments are those of `generate_codes`. Source: audiocraft, LMModel.generate.

    Raises:
        MinigenError: memories of another batch size than B; else as `generate_codes`.
    """
    from minigen.decoding.torch_step import make_decoder
    from minigen.tuning.lora import is_adapted, merged

    if is_adapted(lm):  # the decoders read the matrices of a plain model
        lm = merged(lm)
    _check_sampling(temperature, top_k, top_p)
    special, pattern, count = lm.config.codebook_size, DelayPattern(lm.config.delays), len(branches.conditions)
    known = pattern.apply(canvas(lm.config, lm.norm.weight.device, batch, frames, prompt), fill=special)  # [B, K, S]
    start = torch.full_like(known[..., :1], special)  # [B, K, 1]
    sequence = torch.cat([start, known], dim=2)  # [B, K, 1 + S]: column s + 1 follows column s
    free = known == UNKNOWN  # [B, K, S]
    first = int(free.any(0).any(0).nonzero()[0])  # the first column with a cell to draw
    if branches.batch not in (None, batch):
        raise MinigenError(f"memories of {branches.batch} clips for a batch of {batch}. Give one row for each clip.")
    text, was_training = branches.joined(), lm.training
    try:
        cache = lm.eval().start(count * batch, known.shape[-1], text.memory, text.memory_mask)
        decoder = make_decoder(lm, cache, count, branches.combine)
        if first:  # the prompt, all of its columns at once
            lm.step(sequence[..., :first].repeat(count, 1, 1), cache)
        for s in progress_bar(range(first, known.shape[-1]), "columns", progress):
            logits = decoder.step(sequence[..., s])  # [B, K, V], combined
            drawn = _draw(logits, temperature, top_k, top_p, generator)  # [B, K]
            sequence[..., s + 1] = torch.where(free[..., s], drawn, known[..., s])
    finally:
        lm.train(was_training)
    return pattern.revert(sequence[..., 1:])  # [B, K, frames]


class TextToAudio(HubModel):
    """The pipeline: a text encoder, a generator and a codec. Captions in, sound out.

    Attributes:
        codec: waveform to codes and back.
        encoder: captions to text states.
        generator: text states to codes or latents, see `minigen.generators.base.Generator`.

    Raises:
        MinigenError: parts made for different codes or text states.
    """

    def __init__(self, codec, encoder, generator):
        """generator: an `AudioLM`, or any other `Generator`."""
        from minigen.generators.language_model import LanguageModelGenerator

        if isinstance(generator, AudioLM):
            generator = LanguageModelGenerator(generator)
        self.codec, self.encoder, self.generator = codec, encoder, generator
        for name, found, wanted in (
            ("codebooks (codec)", codec.num_codebooks, generator.config.num_codebooks),
            ("entries in a codebook (codec)", codec.codebook_size, generator.config.codebook_size),
            ("width of the text states (encoder)", encoder.width, generator.config.memory_width),
        ):
            if found != wanted:
                raise MinigenError(
                    f"{name}: {found}, but the {generator.name} generator was made for {wanted}. Use the codec and the "
                    "text encoder that it was trained with."
                )
        latent = getattr(generator.config, "latent", None)  # of a generator of latents
        if latent is not None and getattr(getattr(codec, "config", None), "latent", None) != latent:
            raise MinigenError(
                f"the {generator.name} generator makes latents {latent} wide, and this codec has no such ones. Use the "
                "codec that it was trained with."
            )

    @property
    def lm(self) -> AudioLM:
        """The language model, where it is the generator or a part of it."""
        return self.generator.lm

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, dtype: torch.dtype = torch.float32, adapter: str | Path | None = None
    ) -> "TextToAudio":
        """Load all three parts by one name, and merge a LoRA adapter into the language model.

        Args:
            name_or_folder: "mini" (the best shipped language model) or the name of another shipped model; an
                official MusicGen such as "facebook/musicgen-small", by name or folder; or a folder (or hub name) with
                a generator and pipeline.json, {"codec": name, "text": name, "generator": name}. A codec or text
                encoder may be a folder inside it; without "generator" it is the language model.
            dtype: of the generator's weights and the text encoder's; float16 and bfloat16 take half the memory.
            adapter: folder of an adapter for this model in the format of `peft` (`minigen.tuning.lora`).

        Raises:
            MinigenError: a part that is missing, damaged or cannot be fetched; an unknown generator; parts that do not
                belong together; an adapter of another model.
        """
        tta = cls._load(name_or_folder, dtype)
        if adapter is not None:
            from minigen.tuning.lora import merge_adapter

            merge_adapter(tta.lm, adapter)
        return tta

    @classmethod
    def _load(cls, name_or_folder: str | Path, dtype: torch.dtype) -> "TextToAudio":
        from minigen.generators.base import find_generator

        folder = find_generator_folder(name_or_folder)
        if "model_type" in read_config(folder):  # a folder of transformers
            from minigen.interop.musicgen import pipeline_from_musicgen

            return cls(*pipeline_from_musicgen(folder, dtype))
        codec, text, name = _read_pipeline(folder)
        kind = find_generator(name, folder)
        encoder = load_text_encoder(text, dtype)
        return cls(load_codec(codec), encoder, kind.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write everything to one folder: the generator (floats in `dtype`), codec/, text/ and pipeline.json."""
        self.generator.save_pretrained(folder, dtype)
        self.codec.save_pretrained(Path(folder) / "codec")
        self.encoder.save_pretrained(Path(folder) / "text")
        parts = {"codec": "codec", "text": "text", "generator": self.generator.name}
        write_atomically(Path(folder) / "pipeline.json", json.dumps(parts) + "\n")

    def generate(
        self,
        captions: str | list[str] | None,
        seconds: float = 4.0,
        guidance: float | Callable[[float], float] = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        top_p: float = 0.0,
        prompt: Tensor | None = None,
        seed: int | None = None,
        progress: bool = False,
        style: Tensor | None = None,
        **options,
    ) -> Tensor:
        """Generate sound for each caption: float32 [B, 1, samples] at codec.sample_rate.

        Args:
            captions: one caption or a list of B; None: no captions, where a style is given.
            seconds: length of the clips, rounded to whole codec frames; above 0 and at most 30.
            guidance: strength of the text, see `minigen.guidance.guide`. Generators with steps also take a function of
                the progress from 0 to 1.
            temperature: see `sample`. Of use to generators that sample codes, like top_k and top_p.
            top_k: see `sample`.
            top_p: see `sample`.
            prompt: waveform [B, 1, samples] or [1, 1, samples] at codec.sample_rate to continue, shorter than the clip.
                Its part of the answer is its reconstruction by the codec.
            seed: the same seed and list of captions give the same sound. In another list a caption gets other noise,
                unless temperature is 0. None: another sound every time.
            progress: whether to show a bar on stderr.
            style: waveform [B, 1, samples] or [1, 1, samples] at codec.sample_rate that the clips are to be like, from
                0.5 s to the length of the clip. For generators with a style conditioner.
            options: options of the generator beyond these, by name, such as `steps` of a masked generator, or codebooks
                and style_guidance with a style.

        Raises:
            MinigenError: an empty caption, neither captions nor a style, seconds outside (0, 30], a prompt or a style
                that does not fit, a silent style, options that are out of
                range or that the generator does not have.
        """
        from minigen.generators.base import choose_options

        if captions is not None or style is None:
            captions = check_captions(captions)
        check_number("seconds", seconds, SECONDS)
        frames, device = max(1, round(seconds * self.codec.frame_rate)), self.generator.device
        chance = seeded(seed, device)
        if prompt is not None:
            options["prompt"] = self._encode(prompt, frames).to(device)  # [B, K, P]
        if style is not None:
            options["style"] = self._encode_style(style, frames).to(device)  # [B, K, F]
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        options = choose_options(self.generator, options, sampling)
        text, codec_device = Condition(), device
        if captions is not None:
            states, mask = self.encoder(captions)  # [B, N, M], [B, N]
            text, codec_device = Condition(states.to(device), mask.to(device)), states.device
        elif style is not None:
            codec_device = style.device
        made = self.generator.generate(text, frames, guidance, chance, progress, **options)
        return self.sound(made.to(codec_device))  # [B, 1, samples]

    def sound(self, made: Tensor) -> Tensor:
        """Waveform [B, 1, samples] of what a generator makes: codes int64 [B, K, T], or latents float [B, T, D]."""
        if not made.is_floating_point():
            return self.codec.decode(made)
        with torch.no_grad():
            return self.codec.synthesize(made).clamp(-1, 1)

    def inpaint(self, wav: Tensor, captions: str | list[str], start: float, end: float, **how) -> Tensor:
        """Make a part of a recording anew, so that it fits what stands before and after it.

        Args:
            wav: waveform [B, 1, samples] at codec.sample_rate, of at most 30 s.
            captions: description of the whole sound; one, or a list of B.
            start: seconds where the hole begins.
            end: seconds where it ends. The hole is rounded outwards to whole codec frames.
            how: by name: guidance (3.0), seed, progress, and options of the generator such as steps, as in `generate`.

        Returns:
            Waveform of the same shape. Outside the hole it is the recording itself, but for 0.1 s to either side, in
            which it is faded into the codec's version of it.

        Raises:
            MinigenError: a generator that cannot edit, such as a language model; a hole without length or outside the
                sound; a sound shorter than a frame or longer than 30 s; more steps than cells; other options as in
                `generate`.
        """
        from minigen.generators import editing

        return editing.inpaint(self, wav, captions, start, end, **how)

    def inpaint_codes(self, codes: Tensor, captions: str | list[str], hole: Tensor, **how) -> Tensor:
        """Make the frames of codes anew that a hole marks: int64 [B, K, T] -> int64 [B, K, T].

        Every cell outside the hole stays as it was. hole: bool [T], True = made anew. captions, how, errors: as in
        `inpaint`.
        """
        from minigen.generators import editing

        return editing.inpaint_codes(self, codes, captions, hole, **how)

    def extend(self, wav: Tensor, captions: str | list[str], before: float = 0.0, after: float = 0.0, **how) -> Tensor:
        """Continue a recording backwards by `before` and forwards by `after` seconds, rounded to whole codec frames.

        The recording stays as it is, but for 0.1 s beside what is made; its last samples that fill no frame are cut off
        where something follows. The whole lasts at most 30 s. wav, captions, how, errors: as in `inpaint`.
        """
        from minigen.generators import editing

        return editing.extend(self, wav, captions, before, after, **how)

    def vary(self, wav: Tensor, captions: str | list[str], share: float = 0.5, **how) -> Tensor:
        """Make a variation of a recording that keeps a random share of its cells: [B, 1, samples], the same shape.

        share: 0 keeps none, 1 all of them. The seed also chooses the cells. The sound is the codec's throughout. wav,
        captions, how, errors: as in `inpaint`.
        """
        from minigen.generators import editing

        return editing.vary(self, wav, captions, share, **how)

    def refine(self, wav: Tensor, captions: str | list[str], codebooks: int = 1, **how) -> Tensor:
        """Keep the first codebooks of a recording, its outline, and make the finer ones: [B, 1, samples], same shape.

        codebooks: number that is kept, 1 to K - 1. The sound is the codec's throughout. wav, captions, how, errors: as
        in `inpaint`.
        """
        from minigen.generators import editing

        return editing.refine(self, wav, captions, codebooks, **how)

    def _encode(self, prompt: Tensor, frames: int) -> Tensor:
        """Codes of the prompt's whole frames."""
        _check_tensor("prompt", prompt)
        if prompt.ndim != 3 or prompt.shape[1] != 1:
            raise MinigenError(f"prompt has shape {list(prompt.shape)}. Give a waveform [B, 1, samples].")
        hop = round(self.codec.sample_rate / self.codec.frame_rate)
        whole = prompt.shape[-1] // hop
        if not 1 <= whole < frames:
            given, least, most = (n / self.codec.sample_rate for n in (prompt.shape[-1], hop, frames * hop))
            raise MinigenError(f"prompt lasts {given:g} s. Give at least {least:g} s, less than the clip's {most:g} s.")
        return self.codec.encode(prompt[..., : whole * hop])

    def _encode_style(self, style: Tensor, frames: int) -> Tensor:
        """Codes of a style excerpt."""
        _check_tensor("style", style)
        check_waveform(style)
        lasts, most = style.shape[-1] / self.codec.sample_rate, frames / self.codec.frame_rate
        if not SHORTEST_STYLE <= lasts <= most:
            raise MinigenError(
                f"style lasts {lasts:.2f} s. Give at least {SHORTEST_STYLE:g} s, and at most the clip's {most:g} s."
            )
        if style.abs().amax(-1).min() < SILENT:
            raise MinigenError("style is silent. Give an excerpt in which something is heard.")
        return self.codec.encode(style)


def check_captions(captions: str | list[str] | None) -> list[str]:
    """List of the captions; raises MinigenError where there is none, or one without a word."""
    if captions is None:
        captions = []
    captions = [captions] if isinstance(captions, str) else list(captions)
    if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise MinigenError(f"captions are {captions!r}. Give one or more, each with at least a word.")
    return captions


def seeded(seed: int | None, device: torch.device) -> torch.Generator | None:
    """Source of randomness for a seed, None without one; raises MinigenError for a seed that PyTorch does not take."""
    if seed is None:
        return None
    check_number("seed", seed, TORCH_SEED)
    return torch.Generator(device).manual_seed(int(seed))


def _read_pipeline(folder: Path) -> tuple[str | Path, str | Path, str]:
    """Names or folders of the codec and the text encoder, and the generator's name, as pipeline.json has them."""
    path = folder / "pipeline.json"
    reason, parts = "", {}
    try:
        found = json.loads(path.read_text("utf-8"))
        parts = found if isinstance(found, dict) else {}
    except OSError as error:
        reason = f" ({error.strerror})"
    except ValueError:
        reason = " (not JSON)"
    codec, text = parts.get("codec"), parts.get("text")
    if not isinstance(codec, str) or not isinstance(text, str):
        raise MinigenError(
            f"{path} does not name the codec and the text encoder{reason}. "
            'Write {"codec": "mini", "text": "mini"} with the names that the model was trained with.'
        )
    return _inside(folder, codec), _inside(folder, text), parts.get("generator", "language_model")


def _inside(folder: Path, name: str) -> str | Path:
    """Path of a part that lies inside `folder`; else its name."""
    return folder / name if (folder / name / "config.json").is_file() else name


def canvas(sizes, device: torch.device, batch: int, frames: int, prompt: Tensor | None, unknown=UNKNOWN) -> Tensor:
    """Codes [B, K, frames] before generation: the prompt, and `unknown` after it.

    sizes: a configuration with num_codebooks and codebook_size.

    Raises:
        MinigenError: frames below 1, a prompt of another shape or as long as the clip, codes outside 0 … V - 1.
    """
    check_number("frames", frames, COUNT)
    streams, size = sizes.num_codebooks, sizes.codebook_size
    codes = torch.full((batch, streams, frames), unknown, device=device)
    if prompt is None:
        return codes
    _check_tensor("prompt", prompt)
    if prompt.is_floating_point():
        raise MinigenError(f"prompt is {prompt.dtype}. Give integer codes.")
    if prompt.ndim != 3 or prompt.shape[1] != streams or len(prompt) not in (1, batch) or prompt.shape[2] >= frames:
        raise MinigenError(
            f"prompt has shape {list(prompt.shape)}. Give [{batch}, {streams}, P], P below the {frames} frames to make."
        )
    if prompt.numel() and not 0 <= int(prompt.min()) <= int(prompt.max()) < size:  # compared as integers of any size
        raise MinigenError(f"prompt has codes from {prompt.min()} to {prompt.max()}. Give 0 to {size - 1}.")
    codes[..., : prompt.shape[2]] = prompt
    return codes


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise MinigenError(f"{name} is a {type(value).__name__}. Give a tensor: torch.as_tensor({name}).")


def _check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    check_number("temperature", temperature, NOT_NEGATIVE)
    check_number("top_k", top_k, NATURAL)
    check_number("top_p", top_p, SHARE)


def progress_bar(steps: Sequence, name: str, progress: bool):
    """The steps, shown as a progress bar on stderr if `progress`."""
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, desc=name, unit="")
