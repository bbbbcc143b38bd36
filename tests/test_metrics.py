import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minigen.engine.errors import MinigenError
from minigen.metrics import (
    average_precision,
    bootstrap_interval,
    clap_score,
    diversity,
    event_recall,
    frechet_distance,
    frechet_infinity,
    is_nearest,
    kernel_distance,
    kl_divergence,
    neighbours_in_common,
    order_accuracy,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def sets(rng):
    """Real [60, 8] and fake [40, 8], of different mean and shape."""
    return rng.normal(size=(60, 8)), rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8)) + 0.5


SET_DISTANCES = [frechet_distance, frechet_infinity, kernel_distance]


# Fréchet distance


def test_frechet_distance_has_its_closed_form_on_one_axis():
    real, fake = np.array([[-1.0], [1.0], [0.0]]), np.array([[2.0], [4.0], [3.0]]) * 2
    assert frechet_distance(real, fake) == pytest.approx(6**2 + (1 - 2) ** 2)


def test_frechet_distance_agrees_with_the_complex_square_root(sets):
    from scipy.linalg import sqrtm

    (a, b), (m, n) = (np.cov(x.T) for x in sets), (x.mean(axis=0) for x in sets)
    expected = ((m - n) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_is_right_with_fewer_clips_than_dimensions(rng):
    real, fake = rng.normal(size=(10, 32)), rng.normal(size=(7, 32)) * 2 + 1
    x, y = ((s - s.mean(axis=0)) / (len(s) - 1) ** 0.5 for s in (real, fake))
    shift = real.mean(axis=0) - fake.mean(axis=0)
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum()  # the same trace without any covariance
    assert frechet_distance(real, fake) == pytest.approx(
        shift @ shift + (x**2).sum() + (y**2).sum() - 2 * overlap, abs=1e-5
    )


def test_frechet_distance_of_identical_sets_is_zero(rng, sets):
    assert frechet_distance(sets[1], sets[1]) == pytest.approx(0, abs=1e-9)
    few = rng.normal(size=(10, 32))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_of_a_shift_is_its_squared_length(sets):
    assert frechet_distance(sets[0], sets[0] + 2) == pytest.approx(8 * 2**2)


def test_frechet_distance_shrinks_with_the_sample_and_its_extrapolation_does_not(rng):
    def average(metric, n):
        return np.mean([metric(rng.normal(size=(n, 16)), rng.normal(size=(n, 16))) for _ in range(20)])

    assert average(frechet_distance, 60) > 3 * average(frechet_distance, 240) > 0.1
    assert abs(average(frechet_infinity, 120)) < 0.15 * average(frechet_distance, 120)


def test_frechet_infinity_finds_a_true_distance(rng):
    values = [frechet_infinity(rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 1, seed=i) for i in range(10)]
    assert np.mean(values) == pytest.approx(4, rel=0.1)


def test_frechet_infinity_is_the_same_for_the_same_seed(sets):
    assert frechet_infinity(*sets, seed=1) == frechet_infinity(*sets, seed=1) != frechet_infinity(*sets, seed=2)


# Kernel distance


def test_kernel_distance_is_a_double_loop(sets):
    real, fake = sets

    def kernel(x, y):
        return (sum(x * y) / len(x) + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in sets]
    across = np.mean([kernel(x, y) for x in real for y in fake])
    assert kernel_distance(real, fake) == pytest.approx(sum(within) - 2 * across, rel=1e-10)


def test_kernel_distance_of_one_distribution_averages_zero(rng):
    values = [kernel_distance(rng.normal(size=(12, 4)), rng.normal(size=(12, 4))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0 < max(values)


def test_kernel_distance_grows_with_a_shift(sets):
    real = sets[0]
    distances = [kernel_distance(real, real[::-1] + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)


@pytest.mark.parametrize("metric", [frechet_distance, kernel_distance])
def test_a_distance_of_sets_is_symmetric_and_blind_to_order_and_rotation(sets, rng, metric):
    real, fake = sets
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    expected = pytest.approx(metric(real, fake), rel=1e-8)
    assert metric(fake, real) == expected
    assert metric(rng.permutation(real), rng.permutation(fake)) == expected
    assert metric(real @ rotation, fake @ rotation) == expected


# Probabilities


def test_kl_divergence_is_what_a_hand_computes():
    real, fake = [[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]]
    by_hand = (0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75) + np.log(1 / 0.5)) / 2
    assert kl_divergence(real, fake) == pytest.approx(by_hand, abs=1e-4)


def test_kl_divergence_looks_at_proportions_and_has_a_direction():
    assert kl_divergence([[0.9, 0.3]], [[0.3, 0.1]]) == pytest.approx(0, abs=1e-5)
    assert kl_divergence([[0.9, 0.1]], [[0.5, 0.5]]) != pytest.approx(
        kl_divergence([[0.5, 0.5]], [[0.9, 0.1]]), abs=0.1
    )


probabilities = arrays(np.float64, (4, 6), elements=st.floats(0, 1))


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(probabilities, probabilities)
def test_kl_divergence_is_finite_and_never_negative(p, q):
    assert -1e-12 <= kl_divergence(p, q) < 20
    assert kl_divergence(p, p) == pytest.approx(0, abs=1e-12)


def test_event_recall_is_the_share_of_the_events_asked_for_that_are_heard():
    probs = [[0.9, 0.5, 0.9], [0.4, 0.0, 0.7]]
    true = np.array([[True, True, False], [True, False, True]])
    assert event_recall(probs, true) == 3 / 4
    assert event_recall(probs, true, threshold=0.6) == 2 / 4


def naive_average_precision(scores, true):
    ranked = [t for _, t in sorted(zip(scores, true, strict=True), key=lambda pair: -pair[0])]
    return np.mean([sum(ranked[: i + 1]) / (i + 1) for i in range(len(ranked)) if ranked[i]])


def test_average_precision_is_a_loop_down_the_ranking(rng):
    probs, true = rng.random((50, 5)), rng.random((50, 5)) < 0.3
    true[:, 4] = False  # a class that never occurs takes no part
    expected = np.mean([naive_average_precision(probs[:, c], true[:, c]) for c in range(4)])
    assert average_precision(probs, true) == pytest.approx(expected)


def test_average_precision_is_one_for_a_perfect_ranking_and_the_base_rate_for_none():
    true = np.arange(20)[:, None] < 5
    assert average_precision(true * 0.1, true) == 1
    assert average_precision(np.full((20, 1), 0.7), true) == 0.25


# Order in time


def bumps(centres, frames=100, floor=0.0):
    return floor + np.exp(-(((np.arange(frames) - np.array(centres)[:, None]) / 5) ** 2))


def test_order_accuracy_is_the_share_of_clips_in_the_order_asked_for():
    first, second = bumps([20, 70, 10, 30]), bumps([80, 40, 60, 31])
    assert order_accuracy(first, second) == 3 / 4
    assert order_accuracy(second, first) == 1 / 4


def test_a_constant_background_leaves_the_order_as_it_is():
    assert order_accuracy(bumps([20, 70], floor=0.2), bumps([80, 40], floor=0.5)) == 1 / 2


def test_an_event_that_never_sounds_is_in_no_order():
    silence = np.zeros((1, 100))
    assert order_accuracy(silence, bumps([50])) == order_accuracy(bumps([50]), silence) == 0
    assert order_accuracy(bumps([50]), bumps([50])) == 0


# Embeddings


def test_clap_score_is_the_mean_cosine_of_the_pairs():
    audio, text = [[1, 0], [3, 3], [0, -2]], [[5, 0], [1, 0], [0, 1]]
    assert clap_score(audio, text) == pytest.approx((1 + 0.5**0.5 - 1) / 3)


def test_shuffled_captions_lower_the_clap_score(rng):
    audio = rng.normal(size=(30, 16))
    text = audio + 0.3 * rng.normal(size=(30, 16))
    assert clap_score(audio, text) > 0.8 > 0.3 > clap_score(audio, text[::-1])


def test_diversity_is_a_double_loop(sets):
    rows = [x / np.linalg.norm(x) for x in sets[0]]
    pairs = [1 - x @ y for i, x in enumerate(rows) for y in rows[:i]]
    assert diversity(sets[0]) == pytest.approx(np.mean(pairs))


def test_copies_of_one_clip_have_no_diversity():
    assert diversity(np.ones((5, 3))) == pytest.approx(0)


# The interval


def test_the_interval_holds_the_true_mean_as_often_as_it_says(rng):
    intervals = [bootstrap_interval(rng.normal(3, 2, size=40), seed=i, level=0.9, resamples=200) for i in range(200)]
    assert 0.82 < np.mean([low < 3 < high for low, high in intervals]) < 0.96


def test_the_interval_repeats_for_a_seed_and_widens_with_the_level(rng):
    values = rng.normal(size=30)
    low, high = bootstrap_interval(values, seed=0)
    assert (low, high) == bootstrap_interval(values, seed=0) != bootstrap_interval(values, seed=1)
    wide = bootstrap_interval(values, seed=0, level=0.99)
    assert wide[0] < low < values.mean() < high < wide[1]


# What goes in and out


def test_tensors_of_any_kind_give_the_float_that_arrays_give(sets):
    real, fake = sets
    for metric in SET_DISTANCES:
        value = metric(torch.tensor(real, requires_grad=True), torch.tensor(fake))
        assert type(value) is float and value == metric(real, fake)
    halves = torch.tensor(real).bfloat16(), torch.tensor(fake).bfloat16()
    assert frechet_distance(*halves) == pytest.approx(frechet_distance(real, fake), rel=0.05)
    assert event_recall(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)) == 1


two = np.ones((2, 3))


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: frechet_distance(two[:1], two), r"\[1, 3\] .* at least 2 clips"),
        (lambda: frechet_infinity(two, two), "at least 4 clips"),
        (lambda: kernel_distance(two, two[:, :2]), "3 and 2 wide"),
        (lambda: frechet_distance(two * np.nan, two), "6 of 6 values are not finite"),
        (lambda: kl_divergence(two, -two), "is -1"),
        (lambda: kl_divergence(two, np.ones((3, 3))), r"\[2, 3\] and \[3, 3\]"),
        (lambda: clap_score(two, two * 0), "embedding 0 is all zeros"),
        (lambda: clap_score(two[0], two[0]), r"\[3\]"),
        (lambda: diversity(two[:1]), "at least 2 clips"),
        (lambda: event_recall(two, two * 0), "no event"),
        (lambda: average_precision(two, two * 0), "no event"),
        (lambda: bootstrap_interval([1.0], seed=0), "at least 2"),
        (lambda: bootstrap_interval([1.0, 2.0], seed=0, level=95), "level is 95"),
    ],
)
def test_mistakes_are_named_with_their_value(mistake, words):
    with pytest.raises(MinigenError, match=words):
        mistake()


# excerpts and outputs


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


@pytest.mark.parametrize("k", [1, 3, 7])
def test_neighbours_in_common_are_those_of_plain_loops(rng, k):
    excerpts, others = rng.normal(size=(8, 4)), rng.normal(size=(9, 4))
    outputs, shares = excerpts + rng.normal(size=(8, 4)), []
    for excerpt, output in zip(excerpts, outputs, strict=True):
        nearest = [
            set(sorted(range(9), key=lambda i, clip=clip: -cosine(clip, others[i]))[:k]) for clip in (excerpt, output)
        ]
        shares.append(len(nearest[0] & nearest[1]) / k)
    assert neighbours_in_common(excerpts, outputs, others, k) == pytest.approx(np.mean(shares))
    assert 0 < np.mean(shares) < 1


def test_an_excerpt_has_all_neighbours_in_common_with_itself_at_any_loudness(rng):
    excerpts, others = rng.normal(size=(5, 4)), rng.normal(size=(40, 4))
    assert neighbours_in_common(excerpts, 3 * excerpts, others) == 1.0
    assert neighbours_in_common(excerpts, -excerpts, others, 20) < 0.2
    assert neighbours_in_common(excerpts, -excerpts, others, 40) == 1.0


def test_copying_is_that_of_plain_loops(rng):
    excerpts, others = rng.normal(size=(60, 4)), rng.normal(size=(5, 4))
    outputs = excerpts + rng.normal(size=(60, 4))
    copied = 0
    for excerpt, output in zip(excerpts, outputs, strict=True):
        copied += all(cosine(excerpt, output) > cosine(excerpt, other) for other in others)
    assert is_nearest(excerpts, outputs, others) == copied / 60
    assert 5 < copied < 55


def test_copies_are_nearest_and_clips_of_the_set_are_not(rng):
    excerpts = rng.normal(size=(6, 4))
    assert is_nearest(excerpts, 2 * excerpts, rng.normal(size=(30, 4))) == 1.0
    assert is_nearest(excerpts, rng.normal(size=(6, 4)), excerpts) == 0.0


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda: neighbours_in_common(np.ones((2, 3)), np.ones((2, 3)), np.ones((4, 3)), 5), "k is 5 for 4 clips"),
        (lambda: neighbours_in_common(np.ones((2, 3)), np.ones((2, 3)), np.ones((4, 3)), 0), "k is 0"),
        (lambda: neighbours_in_common(np.ones((2, 3)), np.ones((3, 3)), np.ones((4, 3)), 2), "are no pairs"),
        (lambda: is_nearest(np.ones((2, 3)), np.ones((2, 3)), np.ones((4, 2))), "3 and 2 wide"),
        (lambda: is_nearest(np.zeros((2, 3)), np.ones((2, 3)), np.ones((4, 3))), "all zeros"),
    ],
)
def test_excerpts_that_cannot_be_compared_are_refused(mistake, words):
    with pytest.raises(MinigenError, match=words):
        mistake()
