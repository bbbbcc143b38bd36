"""Generation: from a caption to sound, one column of codes at a time. The whole chain meets here.

    captions ─► text encoder ─► states ─► AudioLM + KV cache ─► logits with text ──┐      (`minigen.decoding`)
                                             ▲                  logits without ────┴► guide ─► sample ─► column of codes
                                             └──────────────────── fed back as the next input ◄──────────────┘
    waveform [B, 1, samples] ◄── codec.decode ◄── pattern.revert ◄── all columns [B, K, S]

A cell of a column is one of three things: a gap of the delay pattern, which holds the special token V; a code of the
prompt, which is kept; or a code to draw. The heads have V outputs, so the special token is never drawn.

    prompt of 2 frames, 4 to make     p prompt   ? drawn   . the special token V
    k0  p p ? ? . .        column 2 is the first with a cell to draw: columns 0 and 1 are fed at once, then one by one
    k1  . p p ? ? .

Sources: AudioGen (arXiv 2209.15352) for guidance, audiocraft's LMModel.generate for the order of the sampling options.
"""

import json
import math
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from minigen.codec import load_codec
from minigen.decoding.torch_step import make_decoder
from minigen.engine.errors import MinigenError
from minigen.engine.files import write_atomically
from minigen.engine.hub import HubModel
from minigen.engine.settings import MAX_GUIDANCE, MAX_SECONDS
from minigen.engine.weights import read_config
from minigen.interop.musicgen import pipeline_from_musicgen
from minigen.lm import AudioLM, find_lm
from minigen.patterns import DelayPattern
from minigen.text import load_text_encoder

LEAST_TEMPERATURE = 1e-30  # float32 ends below it
UNKNOWN = -1  # marks a cell still to be drawn


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """Keep the k most likely codes of [..., V], set the others to 0 and scale to a sum of 1.

    Those as likely as the k-th stay too, as in audiocraft's sample_top_k.
    """
    weakest = probs.topk(min(k, probs.shape[-1]), sorted=False).values.amin(-1, keepdim=True)
    kept = probs * (probs >= weakest)
    return kept / kept.sum(-1, keepdim=True)


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """Keep the nucleus of [..., V]: the fewest most likely codes that together have a probability of at least p.

    A code stays when those more likely than it do not reach p by themselves. Source: Holtzman et al., arXiv 1904.09751.
    """
    ordered, order = probs.sort(descending=True, dim=-1)
    before = ordered.cumsum(-1) - ordered
    kept = torch.zeros_like(probs).scatter(-1, order, ordered * (before < max(p, 1e-9)))  # the first one always
    return kept / kept.sum(-1, keepdim=True)


def sample(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 250,
    top_p: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one code for each row: logits [..., V] -> int64 [...], from softmax(logits / temperature).

    temperature 0 takes the most likely code. Otherwise top_p, where above 0, rules; else top_k, where above 0; else
    every code may be drawn. A generator must live on the device of the logits.

    Raises:
        MinigenError: a negative temperature or top_k, top_p outside [0, 1].
    """
    _check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    probs = (logits.float() / max(temperature, LEAST_TEMPERATURE)).softmax(-1)
    if top_p > 0:
        probs = keep_top_p(probs, top_p)
    elif top_k > 0:
        probs = keep_top_k(probs, top_k)
    return torch.multinomial(probs.view(-1, probs.shape[-1]), 1, generator=generator).view(logits.shape[:-1])


@torch.no_grad()
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
    """Write codes [B, K, frames] (int64, 0 to V - 1) for the texts memory [B, N, M], memory_mask [B, N].

    guidance w: logits = uncond + w (cond - uncond). 0 (or memory=None) runs only the model without text, 1 only the
    one with it, any other value both in one batch of 2B. prompt: codes [B, K, P] or [1, K, P], P < frames, to go on
    from; they are the first P frames of the answer. Without memory, B is the prompt's, or 1. Dropout is always off.
    The random draws of a batch come from one generator, so a clip's noise depends on the batch it is made in; at
    temperature 0 it does not. Source: audiocraft, LMModel.generate.

    Raises:
        MinigenError: frames below 1, a prompt that does not fit, sampling options out of range (see `sample`), shapes.
    """
    _check_sampling(temperature, top_k, top_p)
    if not abs(guidance) <= MAX_GUIDANCE:
        raise MinigenError(f"guidance is {guidance}. Give a number up to {MAX_GUIDANCE:g}, such as 3.")
    rows = len(memory) if memory is not None else len(prompt) if prompt is not None else 1
    if not rows:
        raise MinigenError("no texts and no prompts. Give one or more, or neither.")
    special, pattern = lm.config.codebook_size, DelayPattern(lm.config.delays)
    known = pattern.apply(_canvas(lm, rows, frames, prompt), fill=special)
    sequence = torch.cat([torch.full_like(known[..., :1], special), known], dim=2)  # column s + 1 follows column s
    if guidance == 0:
        memory = memory_mask = None
    branches = 1 if memory is None or guidance == 1 else 2
    was_training, free = lm.training, known == UNKNOWN
    first = int(free.any(0).any(0).nonzero()[0])
    cache = lm.eval().start(branches * rows, known.shape[-1], memory, memory_mask)
    decoder = make_decoder(lm, cache, guidance if branches == 2 else None)
    try:
        if first:  # the prompt, all of its columns at once
            lm.step(sequence[..., :first].repeat(branches, 1, 1), cache)
        for s in _bar(range(first, known.shape[-1]), progress):
            drawn = sample(decoder.step(sequence[..., s]), temperature, top_k, top_p, generator)
            sequence[..., s + 1] = torch.where(free[..., s], drawn, known[..., s])
    finally:
        lm.train(was_training)
    return pattern.revert(sequence[..., 1:])


class TextToAudio(HubModel):
    """Codec, text encoder and language model as one: captions in, sound out.

    Raises:
        MinigenError: parts that do not speak the same codes or the same width.
    """

    def __init__(self, codec, encoder, lm: AudioLM):
        self.codec, self.encoder, self.lm = codec, encoder, lm
        for name, found, wanted in (
            ("codebooks (codec)", codec.num_codebooks, lm.config.num_codebooks),
            ("entries in a codebook (codec)", codec.codebook_size, lm.config.codebook_size),
            ("width of the text states (encoder)", encoder.width, lm.config.memory_width),
        ):
            if found != wanted:
                raise MinigenError(f"{name}: {found}, but the language model was made for {wanted}. Pair what belongs.")

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: torch.dtype = torch.float32) -> "TextToAudio":
        """Load all three parts by one name.

        name_or_folder: "mini" (the best shipped model), "mini-no-dropout", "mini-dropout", "mini-regularized"; an
            official MusicGen such as "facebook/musicgen-small", by name or folder; or a folder (or hub name) with a
            language model and pipeline.json, {"codec": name, "text": name}, where a name may be that of a folder
            inside it.
        dtype: of the language model's weights and the text encoder's; float16 or bfloat16 take half the memory.

        Raises:
            MinigenError: a part that is missing, damaged or cannot be fetched; parts that do not belong together.
        """
        folder = find_lm(name_or_folder)
        if "model_type" in read_config(folder):
            return cls(*pipeline_from_musicgen(folder, dtype))
        codec, text = (_inside(folder, name) for name in _part_names(folder))
        encoder = load_text_encoder(text) if dtype == torch.float32 else load_text_encoder(text, dtype)
        return cls(load_codec(codec), encoder, AudioLM.from_pretrained(folder, dtype))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write everything to one folder: the language model (floats in `dtype`), codec/, text/ and pipeline.json."""
        self.lm.save_pretrained(folder, dtype)
        self.codec.save_pretrained(Path(folder) / "codec")
        self.encoder.save_pretrained(Path(folder) / "text")
        write_atomically(Path(folder) / "pipeline.json", json.dumps({"codec": "codec", "text": "text"}) + "\n")

    def generate(
        self,
        captions: str | list[str],
        seconds: float = 4.0,
        guidance: float = 3.0,
        temperature: float = 1.0,
        top_k: int = 250,
        top_p: float = 0.0,
        prompt: Tensor | None = None,
        seed: int | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Sound for each caption: float32 [B, 1, samples] at codec.sample_rate, seconds rounded to whole codec frames.

        prompt: a waveform [B, 1, samples] or [1, 1, samples] at that rate to go on from, shorter than the clip; its
        part of the answer is its reconstruction by the codec. seed: the same seed and the same list of captions give
        the same sound; in another list a caption is drawn other noise, unless temperature is 0. The rest is as in
        generate_codes.

        Raises:
            MinigenError: an empty caption, seconds outside (0, 30], a prompt that does not fit, options out of range.
        """
        captions = [captions] if isinstance(captions, str) else list(captions)
        if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
            raise MinigenError(f"captions are {captions!r}. Give one or more, each with at least a word.")
        if not 0 < seconds <= MAX_SECONDS:
            raise MinigenError(f"seconds is {seconds}. Give more than 0 and at most {MAX_SECONDS:g}.")
        frames = max(1, round(seconds * self.codec.frame_rate))
        codes = None if prompt is None else self._encode(prompt, frames)
        states, mask = self.encoder(captions)
        device = self.lm.norm.weight.device
        generator = None if seed is None else torch.Generator(device).manual_seed(int(seed))
        codes = generate_codes(
            self.lm, states.to(device), mask.to(device), frames, guidance, temperature, top_k, top_p,
            None if codes is None else codes.to(device), generator, progress,
        )  # fmt: skip
        return self.codec.decode(codes.to(states.device))

    def _encode(self, prompt: Tensor, frames: int) -> Tensor:
        """Codes of the prompt's whole frames."""
        if prompt.ndim != 3 or prompt.shape[1] != 1:
            raise MinigenError(f"prompt has shape {list(prompt.shape)}. Give a waveform [B, 1, samples].")
        hop = round(self.codec.sample_rate / self.codec.frame_rate)
        whole = prompt.shape[-1] // hop
        if not 1 <= whole < frames:
            given, least, most = (n / self.codec.sample_rate for n in (prompt.shape[-1], hop, frames * hop))
            raise MinigenError(f"prompt lasts {given:g} s. Give at least {least:g} s, less than the clip's {most:g} s.")
        return self.codec.encode(prompt[..., : whole * hop])


def _part_names(folder: Path) -> tuple[str, str]:
    """Names of the codec and the text encoder that a language model was trained with."""
    try:
        parts = json.loads((folder / "pipeline.json").read_text("utf-8"))
        return parts["codec"], parts["text"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MinigenError(
            f"{folder / 'pipeline.json'} does not name the codec and the text encoder ({error!r}). "
            'Write {"codec": "mini", "text": "mini"} with the names that the model was trained with.'
        ) from error


def _inside(folder: Path, name: str) -> str | Path:
    """The folder of that name inside `folder`, where there is one; else the name."""
    return folder / name if (folder / name / "config.json").is_file() else name


def _canvas(lm: AudioLM, rows: int, frames: int, prompt: Tensor | None) -> Tensor:
    """Codes [rows, K, frames] before generation: the prompt, and UNKNOWN after it."""
    if not isinstance(frames, Integral) or frames < 1:
        raise MinigenError(f"frames is {frames!r}. Give a whole number of at least 1.")
    streams, size = lm.config.num_codebooks, lm.config.codebook_size
    codes = torch.full((rows, streams, frames), UNKNOWN, device=lm.norm.weight.device)
    if prompt is None:
        return codes
    if prompt.ndim != 3 or prompt.shape[1] != streams or len(prompt) not in (1, rows) or prompt.shape[2] >= frames:
        raise MinigenError(
            f"prompt has shape {list(prompt.shape)}. Give [{rows}, {streams}, P], P below the {frames} frames to make."
        )
    if prompt.numel() and (prompt.min() < 0 or prompt.max() >= size):
        raise MinigenError(f"prompt has codes from {prompt.min()} to {prompt.max()}. Give 0 to {size - 1}.")
    codes[..., : prompt.shape[2]] = prompt
    return codes


def _check_sampling(temperature: float, top_k: int, top_p: float) -> None:
    if not 0 <= temperature < math.inf:
        raise MinigenError(f"temperature is {temperature}. Give 0 (always the most likely code) or more; 1 is usual.")
    if not isinstance(top_k, Integral) or top_k < 0:
        raise MinigenError(f"top_k is {top_k!r}. Give a whole number, 0 for no limit.")
    if not 0 <= top_p <= 1:
        raise MinigenError(f"top_p is {top_p}. Give a probability, 0 to use top_k instead.")


def _bar(steps: range, progress: bool):
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, desc="columns", unit="")
