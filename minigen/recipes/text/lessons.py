"""What the text encoder learns from: texts, another wording of each, and where the teacher puts them.

    AudioCaps    "A dog barks while rain falls"      "rain falls while puppy barking"   by rule (`rewording.py`)
    its parts    "a dog barks"                       "hound barks"                      by rule
    words        "downpour"                          "rainfall"                         by rule
    the corpus   "A dog barks twice while it rains"  "Rain with two barks of a dog"     two captions of one scene

Everything is worded, cut into pieces and shown to the teacher once, before training: a step only looks up numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.recipes.text.paraphrase import families, parts, prompt_words, reword, scene_pair
from minigen.recipes.text.teacher import Teacher, View

SHARES = {"captions": 0.6, "parts": 0.15, "words": 0.05, "scenes": 0.2}  # of a batch, where there are captions


@dataclass(frozen=True)
class Lessons:
    """Texts in two wordings: first[i] and second[i] describe one sound.

    sizes: how many lessons are of each kind, in their order. chance: [L], the share of each in a batch, sum 1.
    targets: [L, D] of length 1, None without a teacher: the cosine of two rows is how alike the teacher finds the
    sounds. view: how the teacher's vectors became those rows.
    """

    first: list[str]
    second: list[str]
    sizes: dict[str, int]
    chance: np.ndarray
    targets: Tensor | None = None
    view: View | None = None

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of `count` lessons, [count]."""
        return np.searchsorted(self.chance.cumsum(), rng.random(count)).clip(max=len(self.first) - 1)


def prepare(captions: list[str], scenes: int, seed: int, teacher: Teacher | None, width: int) -> Lessons:
    """Lessons from real captions (none: []) and so many scenes of the corpus; targets have `width` numbers."""
    rng = np.random.default_rng([seed, 0])
    pairs = [scene_pair(rng) for _ in range(scenes)]
    groups = {"captions": list(dict.fromkeys(captions)), "parts": parts(captions), "words": prompt_words()}
    groups = groups if captions else {}
    alone = [text for group in groups.values() for text in group]
    kin = families(captions)
    first = alone + [one for one, _ in pairs]
    second = [reword(text, kin, rng) for text in alone] + [other for _, other in pairs]
    sizes = {name: len(group) for name, group in groups.items()} | {"scenes": scenes}
    return Lessons(first, second, sizes, _chances(sizes), *(_ask(teacher, groups, pairs, width) if teacher else ()))


def _chances(sizes: dict[str, int]) -> np.ndarray:
    chance = np.concatenate([np.full(size, SHARES[name] / size) for name, size in sizes.items() if size])
    return chance / chance.sum()


def _ask(teacher: Teacher, groups: dict[str, list[str]], pairs: list, width: int) -> tuple[Tensor, View]:
    """A vector for each lesson: of the text itself, and for a scene the sum of its two captions', what they share."""
    told = [teacher.teach(group) for group in groups.values()]
    told.append(F.normalize(teacher.teach([one for one, _ in pairs]) + teacher.teach([two for _, two in pairs]), dim=1))
    view = View.of(told[0], width)
    return view(torch.cat(told)), view
