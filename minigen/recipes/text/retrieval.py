"""Area under the ROC curve: do captions of one clip have a higher cosine than captions of two clips?

    cosines of pooled states   same clip    .62 .71 .88 ...     area = the probability that a pair of one clip has
                               two clips    .05 .31 .64 ...            a higher cosine than a pair of two

0.5 is guessing, 1 is perfect. 1 is not expected, since two clips may sound alike and one clip may be described in two
ways. The encoder is compared with its teacher and with tf-idf (words in common, rare words weigh more), which knows no
synonyms.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from minigen.recipes.text.paraphrase import read_captions, scene_groups
from minigen.recipes.text.teacher import Teacher, View
from minigen.regularizer import pool, similarity_matrix
from minigen.text import TextEncoder

Groups = list[tuple[str, str]]  # (clip, caption)


def paraphrase_auc(encoder: TextEncoder, groups: Groups, pooling: str) -> float:
    """Area under the ROC curve of the cosine of pooled states: do two captions describe the same clip?

    groups: (clip, caption) pairs. pooling: "max" or "mean".
    """
    return area(groups, encode_pooled(encoder, [caption for _, caption in groups], pooling))


def encode_pooled(encoder: TextEncoder, captions: list[str], pooling: str) -> Tensor:
    """Pooled states of any number of captions, [captions, D]."""
    return torch.cat([pool(*encoder(captions[i : i + 64]), pooling) for i in range(0, len(captions), 64)])


def area(groups: Groups, rows: Tensor) -> float:
    """Probability that two captions of one clip have a higher cosine than two of different clips; ties count half.

    rows: [captions, D], one vector for each caption.
    """
    clips = np.array([clip for clip, _ in groups])
    pair = np.triu_indices(len(groups), 1)
    same, cosine = (clips[:, None] == clips)[pair], similarity_matrix(rows).numpy()[pair]
    positive = int(same.sum())
    above = rankdata(cosine)[same].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(same) - positive)))


def held_out(audiocaps: str | Path | None, seed: int, scenes: int = 300) -> dict[str, Groups]:
    """Captions to measure on, none of them trained on.

    "corpus": three test wordings of each of `scenes` new scenes. "new pairs of sounds": scenes with two sounds that
    never occur together in training. "AudioCaps val": AudioCaps' val.csv, if the folder has it.
    """
    rng = np.random.default_rng([seed, 2])
    combos = {"corpus": "seen", "corpus, new pairs of sounds": "held_out"}
    sets = {name: scene_groups(rng, scenes, which) for name, which in combos.items()}
    if audiocaps and (Path(audiocaps) / "val.csv").is_file():
        sets["AudioCaps val"] = read_captions(audiocaps, "val")
    return sets


def measure(encoder: TextEncoder, sets: dict[str, Groups]) -> dict[str, float]:
    """Areas of the encoder on each set, for max and mean pooling: {"corpus, max": 0.99, ...}."""
    return {f"{name}, {how}": paraphrase_auc(encoder, sets[name], how) for name in sets for how in ("max", "mean")}


def measure_rivals(sets: dict[str, Groups], known: list[str], teacher: Teacher | None, view: View | None) -> dict:
    """Areas of tf-idf (words counted in the `known` captions) and, where there is one, of the teacher.

    view: the map that was applied to the teacher's mean-pooled vectors for the training.
    """
    areas = {}
    for name, groups in sets.items():
        captions = [caption for _, caption in groups]
        areas[f"{name}, tf-idf"] = area(groups, tf_idf(captions, known))
        if teacher:
            means = teacher.teach(captions)
            areas[f"{name}, teacher, max"] = area(groups, teacher.ask(captions, "max"))
            areas[f"{name}, teacher, mean"] = area(groups, means)
            areas[f"{name}, teacher, mean, as shown"] = area(groups, view(means))
    return areas


def tf_idf(captions: list[str], known: list[str]) -> Tensor:
    """Rows of length 1, [captions, words]: count of a word, times log(captions / captions that contain it)."""
    bags = [Counter(re.findall(r"\w+", caption.lower())) for caption in captions]
    words = {word: column for column, word in enumerate(sorted({word for bag in bags for word in bag}))}
    seen = Counter(word for caption in known for word in set(re.findall(r"\w+", caption.lower())))
    rows = torch.zeros(len(captions), len(words))
    for row, bag in enumerate(bags):
        for word, times in bag.items():
            rows[row, words[word]] = times * np.log((1 + len(known)) / (1 + seen[word]))
    return F.normalize(rows, dim=1)
