"""Editing of recordings: what generators that fill missing cells can do, and a language model cannot.

    inpaint   ▒▒▒▒░░░▒▒▒▒   a part made anew, with what stands before and after it     ▒ kept   ░ made
    extend    ░░▒▒▒▒▒▒▒░░   continued backwards, forwards, or both
    vary      ▒░▒▒░▒░░▒▒░   a random share of the cells kept
    refine                  codebook 0 kept, the finer ones made

    recording ─► codec.encode ─► codes ─► missing cells ─► generator.fill ─► codec.decode ─► joined with the recording

The functions are called by the methods of `minigen.generate.TextToAudio`, which describe the arguments.

`inpaint` and `extend` return the recording itself, sample for sample, but for what is made and for `FADE` seconds
beside it. There it is faded into the codec's version of itself, so that no seam is heard. The two versions a and b have
about the same power, but their phases may be unrelated. A linear fade of unrelated sounds loses half of the power in
its middle, so the sum is divided by its own gain:

    (1 - u) a + u b                                      u: 0 … 1 over the fade
    ─────────────────────────────────────                r: correlation of a and b in the fade, at least 0
    √((1 - u)² + u² + 2 r u (1 - u))

For r = 1 this is the linear fade. `vary` and `refine` change cells everywhere and return the codec's sound.

Sources: MaskGIT (arXiv 2202.04200), section 4.3, for inpainting; VampNet (arXiv 2307.04686) for the kinds of masks.
Symbols: B batch · K codebooks · T frames · V codebook size, and the mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigen.audio import check_waveform
from minigen.engine.errors import MinigenError
from minigen.engine.settings import COUNT, MAX_SECONDS, NOT_NEGATIVE, SHARE, check_number
from minigen.generate import check_captions, seeded
from minigen.generators.base import Filler, Generator, can_fill, check_options, options_of
from minigen.guidance import Condition

if TYPE_CHECKING:
    from minigen.generate import TextToAudio
    from minigen.generators.iterate import Guidance

FADE = 0.1  # seconds of the fade between the recording and the codec's version of it


def inpaint(tta: TextToAudio, wav: Tensor, captions, start: float, end: float, **how) -> Tensor:
    """See `TextToAudio.inpaint`."""
    check_filler(tta.generator)
    check_recording(tta, wav)
    hop, samples, rate = hop_of(tta), wav.shape[-1], tta.codec.sample_rate
    first, last = frames_of_hole(start, end, samples, rate, hop)
    codes = tta.codec.encode(wav)  # [B, K, T]
    hole = torch.zeros(codes.shape[-1], dtype=torch.bool)  # [T]
    hole[first:last] = True
    made = tta.codec.decode(inpaint_codes(tta, codes, captions, hole, **how))[..., :samples]  # [B, 1, samples]
    return join(made, wav, [(0, first * hop), (min(last * hop, samples), samples)], rate)


def inpaint_codes(tta: TextToAudio, codes: Tensor, captions, hole: Tensor, **how) -> Tensor:
    """See `TextToAudio.inpaint_codes`."""
    if codes.ndim != 3 or hole.dtype != torch.bool or hole.shape != codes.shape[-1:]:
        raise MinigenError(
            f"codes {list(codes.shape)}, hole {hole.dtype} {list(hole.shape)}. Give codes [B, K, T] and bool [T]."
        )
    if not hole.any():
        raise MinigenError("the hole is empty. Mark one frame or more with True.")
    return fill_cells(tta, codes, captions, hole, **how)


def extend(tta: TextToAudio, wav: Tensor, captions, before: float, after: float, **how) -> Tensor:
    """See `TextToAudio.extend`."""
    check_filler(tta.generator)
    check_recording(tta, wav)
    check_number("before", before, NOT_NEGATIVE)
    check_number("after", after, NOT_NEGATIVE)
    hop, rate = hop_of(tta), tta.codec.sample_rate
    earlier, later = (round(seconds * tta.codec.frame_rate) for seconds in (before, after))
    if not earlier and not later:
        raise MinigenError(f"before is {before:g} s and after {after:g} s. Give a frame of {hop / rate:g} s or more.")
    if wav.shape[-1] / rate + before + after > MAX_SECONDS:
        raise MinigenError(
            f"{wav.shape[-1] / rate:g} s of sound with {before:g} s before and {after:g} s after it. Make at most "
            f"{MAX_SECONDS} s."
        )
    if later:
        wav = wav[..., : wav.shape[-1] // hop * hop]  # what comes after begins with a frame
    codes = tta.codec.encode(wav)  # [B, K, T]
    for left, right in ((earlier, 0), (0, later)):
        if left or right:
            missing = torch.ones(left + codes.shape[-1] + right, dtype=torch.bool)  # [T']
            missing[left : left + codes.shape[-1]] = False
            codes = fill_cells(tta, torch.nn.functional.pad(codes, (left, right)), captions, missing, **how)
    begin, end = earlier * hop, earlier * hop + wav.shape[-1]
    made = tta.codec.decode(codes)[..., : end + later * hop]  # [B, 1, samples]
    placed = torch.nn.functional.pad(wav, (begin, made.shape[-1] - end))  # [B, 1, samples]
    return join(made, placed, [(begin, end)], rate)


def vary(tta: TextToAudio, wav: Tensor, captions, share: float, seed: int | None = None, **how) -> Tensor:
    """See `TextToAudio.vary`."""
    check_filler(tta.generator)
    check_recording(tta, wav)
    check_number("share", share, SHARE)
    codes = tta.codec.encode(wav)  # [B, K, T]
    cells = codes[0].numel()
    scores = torch.rand(len(codes), cells, generator=seeded(seed, torch.device("cpu")))  # [B, K T]
    missing = (scores.argsort(1).argsort(1) >= round(share * cells)).view(codes.shape)  # [B, K, T]
    codes = fill_cells(tta, codes, captions, missing, seed=seed, **how)
    return tta.codec.decode(codes)[..., : wav.shape[-1]]


def refine(tta: TextToAudio, wav: Tensor, captions, codebooks: int, **how) -> Tensor:
    """See `TextToAudio.refine`."""
    check_filler(tta.generator)
    check_recording(tta, wav)
    check_number("codebooks", codebooks, COUNT)
    streams = tta.codec.num_codebooks
    if codebooks >= streams:
        raise MinigenError(f"{codebooks} of {streams} codebooks are kept. Keep at most {streams - 1}.")
    missing = torch.arange(streams)[:, None] >= codebooks  # [K, 1]
    return tta.codec.decode(fill_cells(tta, tta.codec.encode(wav), captions, missing, **how))[..., : wav.shape[-1]]


# codes


def fill_cells(
    tta: TextToAudio,
    codes: Tensor,
    captions: str | list[str],
    missing: Tensor,
    guidance: Guidance = 3.0,
    seed: int | None = None,
    progress: bool = False,
    **options,
) -> Tensor:
    """Make the missing cells of codes int64 [B, K, T]; missing: bool, broadcast to [B, K, T]. The others stay.

    Raises:
        MinigenError: a generator that cannot fill, another number of captions than 1 or B, and as its `fill`.
    """
    generator = check_filler(tta.generator)
    check_options(generator, options, options_of(generator.fill))
    device = generator.device
    chance, captions = seeded(seed, device), check_captions(captions)
    if len(captions) not in (1, len(codes)):
        raise MinigenError(f"{len(captions)} captions for {len(codes)} sounds. Give one, or one for each.")
    states, mask = tta.encoder(captions)  # [B or 1, N, M], [B or 1, N]
    rows = len(codes)
    text = Condition(states.expand(rows, -1, -1).to(device), mask.expand(rows, -1).to(device))
    known = torch.where(missing.to(codes.device), generator.config.codebook_size, codes)  # [B, K, T]
    return generator.fill(text, known.to(device), guidance, chance, progress, **options).to(codes.device)


def check_filler(generator: Generator) -> Filler:
    """Return the generator if it can make missing cells.

    Raises:
        MinigenError: it cannot.
    """
    if not can_fill(generator):
        raise MinigenError(
            f"the {generator.name} generator cannot make a part of a clip and keep the rest. Use a masked generator, "
            "such as mini-masked."
        )
    return generator


# waveforms


def check_recording(tta: TextToAudio, wav: Tensor) -> None:
    """Check a recording to edit.

    Raises:
        MinigenError: no waveform [B, 1, samples], shorter than a codec frame, or longer than `MAX_SECONDS`.
    """
    if not isinstance(wav, Tensor):
        raise MinigenError(
            f"the sound is a {type(wav).__name__}. Give a waveform [B, 1, samples] at codec.sample_rate."
        )
    check_waveform(wav)
    samples, rate = wav.shape[-1], tta.codec.sample_rate
    if samples < hop_of(tta):
        raise MinigenError(f"the sound has {samples} samples, a frame {hop_of(tta)}. Give a frame or more.")
    if samples > MAX_SECONDS * rate:
        raise MinigenError(f"the sound lasts {samples / rate:.2f} s at {rate} Hz. Give at most {MAX_SECONDS} s.")


def hop_of(tta: TextToAudio) -> int:
    """Samples of a codec frame."""
    return round(tta.codec.sample_rate / tta.codec.frame_rate)


def frames_of_hole(start: float, end: float, samples: int, rate: int, hop: int) -> tuple[int, int]:
    """First frame of a hole and the one after its last: seconds, rounded outwards to whole frames.

    Raises:
        MinigenError: a hole without length, or outside the sound.
    """
    check_number("start", start, NOT_NEGATIVE)
    check_number("end", end, NOT_NEGATIVE)
    if start >= end:
        raise MinigenError(f"the hole begins at {start:g} s and ends at {end:g} s. Give an end after the start.")
    if end * rate > samples + 0.5:
        raise MinigenError(f"the hole ends at {end:g} s, the sound at {samples / rate:g} s. End it inside the sound.")
    slack = 1e-6  # frames: 0.58 s at 50 frames a second are 28.999999999999996
    return math.floor(start * rate / hop + slack), math.ceil(end * rate / hop - slack)


def join(made: Tensor, recording: Tensor, kept: list[tuple[int, int]], rate: int) -> Tensor:
    """Put parts of a recording into a waveform, with a fade inside each part where something made is beside it.

    made and recording: [B, 1, samples], in the same place. kept: (first sample, one after the last) of each part.
    """
    joined, samples = made.clone(), made.shape[-1]
    for begin, end in kept:
        joined[..., begin:end] = recording[..., begin:end]
        sides = (begin > 0) + (end < samples)
        length = min(round(FADE * rate), (end - begin) // max(1, sides))
        if begin > 0 and length:
            fade = slice(begin, begin + length)
            joined[..., fade] = cross_fade(made[..., fade], recording[..., fade])
        if end < samples and length:
            fade = slice(end - length, end)
            joined[..., fade] = cross_fade(recording[..., fade], made[..., fade])
    return joined


def cross_fade(old: Tensor, new: Tensor) -> Tensor:
    """Go from one waveform [B, 1, n] to another at constant power, whatever their correlation (formula above)."""
    u = (torch.arange(old.shape[-1], device=old.device) + 0.5) / old.shape[-1]  # [n]
    alike = torch.cosine_similarity(old, new, dim=-1).clamp(min=0)[..., None]  # [B, 1, 1]
    gain = ((1 - u) ** 2 + u**2 + 2 * alike * u * (1 - u)).sqrt()  # [B, 1, n]
    return (((1 - u) * old + u * new) / gain).clamp(-1, 1)
