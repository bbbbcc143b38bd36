"""Labels of order for the pieces of a caption, and a probe that measures whether states contain them.

    A dog barks , then  a bell rings while it rains          a bell rings  after  a dog barks
    0 0   0     .  .    1 1    1     .     2  2              1 1    1      .      0 0   0

0 sounds first, 1 sounds after it, 2 has no place in the order; "." belongs to the words of order and has no label. All
pieces of a caption without order have the label 2. The language model attends to single states, so each state has to
contain its place in the order. Pooled states may be similar for "X, then Y" and "Y, then X"; the states of the pieces
of X may not.
"""

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.corpus.synthesis.captions import paraphrases, split_of
from minigen.corpus.synthesis.scenes import sample_scene
from minigen.text import TextEncoder

FIRST, SECOND, NEITHER, UNASKED = 0, 1, 2, -100
ORDER = re.compile(r"[\s,]*\b(?:(?:and )?(?:then )?(?:followed|then)(?: by)?|before|after which)\b\s*")
REVERSED = re.compile(r"[\s,]*\bafter\b\s*")
UNDER = re.compile(r"[\s,]*\b(?:while|as|with)\b\s*")
UNCLEAR = re.compile(r"\b(?:after|before|follow\w*|then)\b")


def places(caption: str) -> np.ndarray:
    """FIRST, SECOND, NEITHER or UNASKED for each letter, int64 [letters], by rule.

    Where the rules do not understand the words of order ("after" at the start, "following"), all letters are UNASKED.
    """
    text, place = caption.lower(), np.full(len(caption), UNASKED)
    joints, back = list(ORDER.finditer(text)), list(REVERSED.finditer(text.replace("after which", "_" * 11)))
    if not joints and not back:
        return place if UNCLEAR.search(text) else np.full(len(caption), NEITHER)
    start, end = (joints or back)[0].span()
    if (joints and back) or len(back) > 1 or start == 0 or end == len(text):
        return place
    place[:start], place[end:] = (SECOND, FIRST) if back else (FIRST, SECOND)
    for joint in joints[1:]:
        place[slice(*joint.span())] = UNASKED
    return _without_under(text, place, start, end)


def _without_under(text: str, place: np.ndarray, start: int, end: int) -> np.ndarray:
    """Label the background of an order, Z, NEITHER: "Z while X, then Y", "X, then Y while Z", "as Z, X and then Y"."""
    if under := list(UNDER.finditer(text, end)):
        place[under[0].start() :] = NEITHER
    if under := list(UNDER.finditer(text, 0, start)):
        comma = text.find(",", under[-1].end(), start) if under[-1].start() == 0 else -1
        place[: max(under[-1].start(), comma)] = NEITHER
    for joint in UNDER.finditer(text):
        place[slice(*joint.span())] = UNASKED
    return place


def turn(caption: str) -> str:
    """The same order reversed in words, "X, then Y" -> "Y after X"; other captions are returned unchanged."""
    joints = list(ORDER.finditer(caption.lower()))
    if len(joints) != 1 or UNDER.search(caption.lower()) or REVERSED.search(caption.lower()):
        return caption
    start, end = joints[0].span()
    return f"{caption[end:]} after {caption[:start]}" if start and end < len(caption) else caption


def label(tokenizer, captions: list[str]) -> list[list[int]]:
    """Label of each piece of each caption: that of its last letter; the end token is UNASKED."""
    spans = [encoding.offsets for encoding in tokenizer.encode_batch(captions)]
    return [_of_pieces(places(caption), ends) for caption, ends in zip(captions, spans, strict=True)]


def _of_pieces(place: np.ndarray, spans: list[tuple[int, int]]) -> list[int]:
    return [int(place[end - 1]) if end > start else UNASKED for start, end in spans]


def ordered_captions(rng: np.random.Generator, count: int, split: str) -> list[str]:
    """Captions of `count` corpus scenes that name an order, of a split; every second one is reversed where possible."""
    found = []
    while len(found) < count:
        words = [c for c in paraphrases(sample_scene(rng), rng, 12) if split_of(c) == split and ORDER.search(c.lower())]
        found += [turn(words[0]) if len(found) % 2 else words[0]] if words else []
    return found


def order_accuracy(encoder: TextEncoder, seed: int = 0, count: int = 200) -> float:
    """Accuracy of a linear probe that reads from a piece's state whether it sounds first or second; 0.5 is guessing.

    The probe is fitted by least squares on `count` captions of the corpus (training wordings) and measured on as many
    others (test wordings). It finds only what single states contain linearly.
    """
    rng = np.random.default_rng([seed, 3])
    fit, check = (_asked(encoder, ordered_captions(rng, count, split)) for split in ("train", "test"))
    probe = _least_squares(*fit)
    return float(((check[0] @ probe > 0) == (check[1] > 0)).double().mean())


def _asked(encoder: TextEncoder, captions: list[str]) -> tuple[Tensor, Tensor]:
    """States of all pieces that sound first or second, with a 1 appended, and their labels as -1 or 1."""
    states = torch.cat([part[mask] for part, mask in (encoder([caption]) for caption in captions)])
    place = torch.tensor(sum(label(encoder.tokenizer, captions), []))
    asked = (place == FIRST) | (place == SECOND)
    return F.pad(states[asked].double(), (0, 1), value=1.0), place[asked].double() * 2 - 1


def _least_squares(states: Tensor, sides: Tensor, ridge: float = 1e-3) -> Tensor:
    """Ridge regression: the w of the least square of states @ w - sides, with `ridge` relative to the mean square."""
    square = states.T @ states
    return torch.linalg.solve(square + ridge * square.trace() / len(square) * torch.eye(len(square)), states.T @ sides)
