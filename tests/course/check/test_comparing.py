"""The checks of notebook 09 accept what is right in every form, and say what is wrong with typical wrong answers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from minigen.course.check import comparing as check
from minigen.metrics import frechet_distance


def sums(batches):
    count, total, products = 0, 0.0, 0.0
    for x in batches:
        count, total, products = count + len(x), total + x.sum(axis=0), products + x.T @ x
    mean = total / count
    return mean, (products - count * np.outer(mean, mean)) / (count - 1)


def by_sums(real, fake):
    (m, a), (n, b) = sums(real), sums(fake)
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum()
    return (m - n) @ (m - n) + np.trace(a) + np.trace(b) - 2 * overlap


def whole(real, fake):
    return frechet_distance(np.concatenate(real), np.concatenate(fake))


@pytest.mark.parametrize("function", [by_sums, whole])
def test_the_streamed_distance_is_accepted_however_it_is_computed(function):
    assert check.streamed(function).right


def with_moments(moments):
    def function(real, fake):
        (m, a), (n, b) = moments(real), moments(fake)
        return ((m - n) ** 2).sum() + np.trace(a + b) - 2 * np.sqrt(np.linalg.eigvals(a @ b)).real.sum()

    return function


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (lambda r, f: np.mean([frechet_distance(x, y) for x, y in zip(r, f, strict=True)]), "mean of the batches'"),
        (with_moments(lambda z: (np.concatenate(z).mean(0), np.mean([np.cov(x.T) for x in z], axis=0))), "averaged"),
        (with_moments(lambda z: (np.concatenate(z).mean(0), np.cov(np.concatenate(z).T, bias=True))), "divided by n"),
        (with_moments(lambda z: (np.concatenate(z).mean(0), np.mean([x.T @ x for x in z], 0))), "is needed|together"),
        (lambda r, f: frechet_distance(r[0], f[0]), "first batches"),
        (lambda r, f: None, "not a number"),
        (lambda r, f: r.nothing, "AttributeError"),
        (lambda r, f: ..., "no answer"),
    ],
)
def test_a_wrong_streamed_distance_gets_its_diagnosis(function, diagnosis):
    verdict = check.streamed(function)
    assert not verdict.right and any(part in verdict.text for part in diagnosis.split("|"))


@pytest.mark.parametrize("replay", ["clap", "KL", " recall "])
def test_any_metric_of_pairs_shows_a_replay(replay):
    assert check.shown_by({"replay": replay, "repeat": "diversity", "swap": "order"}).right


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        ({"replay": "fad", "repeat": "diversity", "swap": "order"}, "perfect set"),
        ({"replay": "clap", "repeat": "fad", "swap": "order"}, "does not tell which"),
        ({"replay": "clap", "repeat": "diversity", "swap": "recall"}, "same for both orders"),
        ({"replay": "clap", "repeat": "order", "swap": "order"}, "does not show it"),
        ({"replay": "clap", "repeat": "diversity", "swap": "loudness"}, "not on the list"),
        ({"replay": "clap"}, "dictionary"),
        ("clap", "dictionary"),
        ({"replay": ..., "repeat": "diversity", "swap": "order"}, "no answer"),
        (..., "no answer"),
    ],
)
def test_a_wrong_metric_gets_its_diagnosis(answer, diagnosis):
    verdict = check.shown_by(answer)
    assert not verdict.right and diagnosis in verdict.text


def of_clips(found, asked, seed=9):
    rng, values = np.random.default_rng(seed), []
    for _ in range(1000):
        rows = rng.integers(len(found), size=len(found))
        values.append(found[rows].sum() / asked[rows].sum())
    return list(np.percentile(values, [2.5, 97.5]))


def by_library(found, asked):
    from minigen.evaluation.bootstrap import Ratio, interval

    return interval(Ratio(found[None].astype(float), asked[None].astype(float)), seed=4)


def of_events(found, asked):
    heard = np.concatenate([np.repeat([1, 0], [k, n - k]) for k, n in zip(found, asked, strict=True)])
    means = np.random.default_rng(0).choice(heard, (1000, len(heard))).mean(axis=1)
    return np.quantile(means, [0.025, 0.975])


def of_rates(found, asked):
    return of_clips(found / asked, np.ones(len(asked)))


@pytest.mark.parametrize("function", [of_clips, by_library])
def test_an_interval_over_clips_is_accepted_whatever_its_random_numbers(function):
    assert check.recall_interval(function).right


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (of_events, "as independent"),
        (of_rates, "the clips' own recalls"),
        (lambda found, asked: of_clips(found, asked)[::-1], "exchanged"),
        (lambda found, asked: (0.1, 0.2), "is needed"),
        (lambda found, asked: 0.5, "two ends"),
        (lambda found, asked: found.nothing, "AttributeError"),
        (lambda found, asked: ..., "no answer"),
    ],
)
def test_a_wrong_interval_gets_its_diagnosis(function, diagnosis):
    verdict = check.recall_interval(function)
    assert not verdict.right and diagnosis in verdict.text


def symmetric(audio, text, same, temperature):
    logits = normalize(audio, dim=-1) @ normalize(text, dim=-1).T / temperature
    target = same / same.sum(-1, keepdim=True)
    return (cross_entropy(logits, target.to(logits)) + cross_entropy(logits.T, target.to(logits))) / 2


def by_loop(audio, text, same, temperature):
    total = 0.0
    for one, other in ((audio, text), (text, audio)):
        for i in range(len(one)):
            scores = torch.cosine_similarity(one[i : i + 1], other) / temperature
            total -= scores.log_softmax(0)[same[i]].mean().item() / (2 * len(one))
    return total


@pytest.mark.parametrize("function", [symmetric, by_loop])
def test_the_contrastive_loss_is_accepted_however_it_is_computed(function):
    assert check.contrastive(function).right


def shares(same):
    return same / same.sum(-1, keepdim=True).double()


def logits_of(audio, text, temperature):
    return normalize(audio, dim=-1) @ normalize(text, dim=-1).T / temperature


@pytest.mark.parametrize(
    ("function", "diagnosis"),
    [
        (
            lambda a, t, s, tau: cross_entropy(logits_of(a, t, tau), s / s.sum(-1, keepdim=True).double()),
            "one direction",
        ),
        (
            lambda a, t, s, tau: cross_entropy(logits_of(t, a, tau), s / s.sum(-1, keepdim=True).double()),
            "one direction",
        ),
        (lambda a, t, s, tau: symmetric(a, t, torch.eye(5), tau), "own caption only"),
        (lambda a, t, s, tau: symmetric(a, t, s, 1 / tau), "multiplied by the temperature"),
        (lambda a, t, s, tau: symmetric(a, t, s, 1), "does nothing"),
        (lambda a, t, s, tau: 2 * symmetric(a, t, s, tau), "added"),
        (lambda a, t, s, tau: torch.tensor(7.0), "is needed"),
        (lambda a, t, s, tau: a, "one number"),
        (lambda a, t, s, tau: a @ None, "TypeError"),
        (lambda a, t, s, tau: ..., "no answer"),
    ],
)
def test_a_wrong_contrastive_loss_gets_its_diagnosis(function, diagnosis):
    verdict = check.contrastive(function)
    assert not verdict.right and diagnosis in verdict.text
