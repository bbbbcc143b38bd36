"""Mixing augmentation: the sum of two clips with their captions joined, so that training covers more combinations.

    A dog barks       |  dog  dog      |
    Rain falls        |~~~~rain~~~~~~~~|   -->   |  dog  dog      |   A dog barks while rain falls
                                                 |    ~~~~rain~~~~|

The level of one clip relative to the other and the delay are random, as in AudioGen (Kreuk et al., arXiv 2209.15352).
Waveforms are mixed before the codec encodes them: codes are indices of codebook entries, so the codes of a sum are not
the sum of the codes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from minigen.audio import AudioError
from minigen.corpus.clip import Clip, Event
from minigen.corpus.corpus import Corpus

SNR_DB = 5.0


def mix_clips(first: Tensor, second: Tensor, rng: np.random.Generator) -> Tensor:
    """Mix two clips as AudioGen does: [1, 1, samples] twice -> [1, 1, samples].

        first + g · second delayed,   20 log10(rms(first) / (g rms(second))) uniform in [-5, 5] dB

    The delay is at most half the clip, and at least half of the energy of the second clip stays in the mixture. A sum
    that exceeds [-1, 1] is scaled back into it.
    """
    return mix_at(first, second, *draw_mix(second, rng))


def draw_mix(second: Tensor, rng: np.random.Generator) -> tuple[int, float]:
    """(delay in samples, level of the first clip over the second in dB), see `mix_clips`."""
    energy = second.flatten().double().square().cumsum(0)
    middle = int(torch.searchsorted(energy, energy[-1] / 2))  # half of the energy has sounded by this sample
    latest = min(len(energy) // 2, len(energy) - 1 - middle)
    return int(rng.integers(max(latest, 0) + 1)), float(rng.uniform(-SNR_DB, SNR_DB))


def mix_at(first: Tensor, second: Tensor, delay: int, snr_db: float) -> Tensor:
    """The mixture with a given delay in samples and level in dB, see `mix_clips`."""
    gain = _rms(first) / _rms(second).clamp(min=1e-6) * 10 ** (-snr_db / 20)
    delayed = nn.functional.pad(second, (delay, 0))[..., : second.shape[-1]]
    mixed = first + gain * delayed
    return mixed / mixed.abs().max().clamp(min=1.0)


def _rms(wav: Tensor) -> Tensor:
    return wav.square().mean().sqrt()


def mix_captions(first: str, second: str, rng: np.random.Generator) -> str:
    """Both captions as one sentence: "A dog barks." and "Rain falls" -> "A dog barks while rain falls" (or "and")."""
    join = (" and ", " while ")[int(rng.integers(2))]
    keep_capital = (second[:2].isalpha() and second[:2].isupper()) or second.split(" ")[0] == "I"  # "TV", not "A "
    second = second if keep_capital else second[:1].lower() + second[1:]
    return first.rstrip(" .!") + join + second.rstrip(" .!")


def mix_events(first: Clip, second: Clip, delay: float, seconds: float) -> tuple[Event, ...]:
    """Events of a mixture, without those delayed past its end; empty if the events of either clip are unknown."""
    if not (first.events and second.events):
        return ()
    later = [Event(e.kind, e.count, e.onset + delay, min(e.offset + delay, seconds)) for e in second.events]
    both = [*first.events, *(event for event in later if event.onset < seconds)]
    return tuple(sorted(both, key=lambda event: event.onset))


def may_mix(first: Clip, second: Clip) -> bool:
    """Whether two clips may be mixed.

    The recordings, the captions and the kinds must differ: a dog that barks twice and one that barks three times make
    five barks, which neither caption says. At most three kinds in all: more events make the joined caption ambiguous.
    No pair of kinds that the built-in corpus holds out of training to test composition.
    """
    from minigen.corpus.synthesis.scenes import has_held_out

    one, other = {event.kind for event in first.events}, {event.kind for event in second.events}
    same = first.caption == second.caption or (first.recording and first.recording == second.recording)
    clear = not same and not one & other and len(one | other) <= 3
    return clear and not has_held_out([*one, *other])


def random_mixture(corpus: Corpus, rng: np.random.Generator) -> tuple[Tensor, str, tuple[Event, ...], list[str]] | None:
    """A random mixture of two clips of a corpus: (waveform [1, 1, samples], caption, events, files).

    None if 100 draws find no pair that may be mixed (`may_mix`) and can be loaded.
    """
    for _ in range(100):
        i = int(rng.integers(len(corpus)))
        j = (i + 1 + int(rng.integers(len(corpus) - 1))) % len(corpus)
        first, second = corpus.clips[i], corpus.clips[j]
        if not may_mix(first, second):
            continue
        try:
            wav, later = corpus.load(i), corpus.load(j)
        except AudioError:  # `tokenize` lists it when it encodes the clip itself
            continue
        delay, snr_db = draw_mix(later, rng)
        events = mix_events(first, second, delay / corpus.sample_rate, corpus.seconds)
        caption = mix_captions(first.caption, second.caption, rng)
        return mix_at(wav, later, delay, snr_db), caption, events, [first.file, second.file]
    return None
