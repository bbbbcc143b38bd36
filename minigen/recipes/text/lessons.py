"""Training data of the text encoder: texts, a second wording of each, and the teacher's vectors.

    AudioCaps    "A dog barks while rain falls"      "rain falls while puppy barking"   by rule (`paraphrase.py`)
    its parts    "a dog barks"                       "hound barks"                      by rule
    words        "downpour"                          "rainfall"                         by rule
    the corpus   "A dog barks twice while it rains"  "Rain with two barks of a dog"     two captions of one scene

All wordings, pieces and vectors are computed once, before the training; a step only looks them up.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.recipes.text.paraphrase import families, parts, prompt_words, reword, scene_pair
from minigen.recipes.text.teacher import Teacher, View

SHARES = {"captions": 0.6, "parts": 0.15, "words": 0.05, "scenes": 0.2}  # of a batch, if AudioCaps is given


@dataclass(frozen=True)
class Lessons:
    """L texts in two wordings: first[i] and second[i] describe one sound.

    sizes: number of lessons of each sort, in their order. chance: [L], probability of each to be drawn, sum 1. targets:
    [L, D] of length 1, None without a teacher; the cosine of two rows is the teacher's similarity of the two sounds.
    view: the map from the teacher's vectors to these rows.
    """

    first: list[str]
    second: list[str]
    sizes: dict[str, int]
    chance: np.ndarray
    targets: Tensor | None = None
    view: View | None = None

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the numbers of `count` lessons, int64 [count]."""
        return np.searchsorted(self.chance.cumsum(), rng.random(count)).clip(max=len(self.first) - 1)


def prepare(captions: list[str], scenes: int, seed: int, teacher: Teacher | None, width: int) -> Lessons:
    """Lessons from real captions (may be empty) and `scenes` scenes of the corpus; targets are [L, width]."""
    rng = np.random.default_rng([seed, 0])
    pairs = [scene_pair(rng) for _ in range(scenes)]
    groups = {"captions": list(dict.fromkeys(captions)), "parts": parts(captions), "words": prompt_words()}
    groups = groups if captions else {}
    alone = [text for group in groups.values() for text in group]
    kin = families(captions)
    first = alone + [one for one, _ in pairs]
    second = [reword(text, kin, rng) for text in alone] + [other for _, other in pairs]
    sizes = {name: len(group) for name, group in groups.items()} | {"scenes": scenes}
    return Lessons(first, second, sizes, _chances(sizes), *(_targets(teacher, groups, pairs, width) if teacher else ()))


def _chances(sizes: dict[str, int]) -> np.ndarray:
    chance = np.concatenate([np.full(size, SHARES[name] / size) for name, size in sizes.items() if size])
    return chance / chance.sum()


def _targets(teacher: Teacher, groups: dict[str, list[str]], pairs: list, width: int) -> tuple[Tensor, View]:
    """A vector for each lesson: that of the text, or the normalised sum of the two captions' vectors of a scene."""
    vectors = [teacher.teach(group) for group in groups.values()]
    vectors.append(
        F.normalize(teacher.teach([one for one, _ in pairs]) + teacher.teach([two for _, two in pairs]), dim=1)
    )
    view = View.of(vectors[0], width)
    return view(torch.cat(vectors)), view
