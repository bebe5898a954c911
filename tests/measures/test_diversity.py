"""Clusters, rarefied clusters and entropy of cluster sizes: by hand, against enumeration, and laws."""

from itertools import combinations
from math import isnan, log

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.measures.diversity import (
    cluster_count,
    cluster_entropy,
    coverage_count,
    rarefied_count,
    spectrum_score,
)

# Three cells: clusters of 2 and 2; none; clusters of 4, 1 and 1.
CELL, SIZE = np.array([0, 0, 2, 2, 2]), np.array([2, 2, 4, 1, 1])

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def one(measure, cluster_sizes, **options):
    return measure(np.zeros(len(cluster_sizes), dtype=int), np.array(cluster_sizes), 1, **options)[0]


def test_by_hand():
    assert list(cluster_count(CELL, SIZE, 3)) == [2, 0, 3]
    third = -(4 / 6 * log(4 / 6) + 2 * (1 / 6) * log(1 / 6))
    assert list(cluster_entropy(CELL, SIZE, 3)) == approx([log(2), 0, third])
    # two of (2, 2): both clusters unless the pair is one of 2 same pairs of 6
    rarefied = rarefied_count(CELL, SIZE, 3, m=2)
    assert rarefied[0] == approx(2 - 2 / 6)
    assert isnan(rarefied[1])
    assert rarefied[2] == approx(2 - 6 / 15)  # 6 of 15 pairs lie within the cluster of 4


def test_no_cluster_at_all():
    nothing = np.zeros(0, dtype=int)
    assert list(cluster_count(nothing, nothing, 2)) == [0, 0]
    assert list(cluster_entropy(nothing, nothing, 2)) == [0, 0]
    assert np.isnan(rarefied_count(nothing, nothing, 2)).all()


@settings(deadline=None)
@given(sizes, st.integers(1, 5))
def test_rarefied_count_is_the_mean_over_all_draws(cluster_sizes, m):
    answers = [cluster for cluster, size in enumerate(cluster_sizes) for _ in range(size)]
    if len(answers) < m:
        assert isnan(one(rarefied_count, cluster_sizes, m=m))
        return
    draws = [len({answers[at] for at in drawn}) for drawn in combinations(range(len(answers)), m)][:200_000]
    assert one(rarefied_count, cluster_sizes, m=m) == approx(np.mean(draws), rel=1e-9)


@settings(deadline=None)
@given(sizes)
def test_entropy_is_at_most_the_logarithm_of_the_count(cluster_sizes):
    entropy, count = one(cluster_entropy, cluster_sizes), one(cluster_count, cluster_sizes)
    assert 0 <= entropy <= log(count) + 1e-12


@settings(deadline=None)
@given(sizes)
def test_rarefying_to_everything_is_the_count(cluster_sizes):
    assert one(rarefied_count, cluster_sizes, m=sum(cluster_sizes)) == approx(len(cluster_sizes))


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(1, 8))
def test_rarefied_count_falls_to_that_of_draws_with_replacement(kinds, times):
    """k meanings, equally often: the count is k; the rarefied one falls to k (1 - (1 - 1/k)^5) as answers grow."""
    limit = kinds * (1 - (1 - 1 / kinds) ** 5)
    assert one(rarefied_count, [5 * times] * kinds) >= limit - 1e-12
    assert one(rarefied_count, [5000] * kinds) == approx(limit, rel=1e-3)


# --- coverage ---


def good(cluster_sizes, m):
    """Coverage of m of n answers: the mean, over draws of m and one more, of whether that one's cluster was drawn."""
    answers = [cluster for cluster, size in enumerate(cluster_sizes) for _ in range(size)]
    found = [
        answers[one] in {answers[at] for at in drawn}
        for drawn in combinations(range(len(answers)), m)
        for one in set(range(len(answers))) - set(drawn)
    ]
    return np.mean(found)


def test_coverage_by_hand():
    """Clusters of 3 and 2: one answer covers 4 of 10 pairs, two cover 1 - (6 + 3) / 30 of them, whole numbers between.

    At .4 one answer is enough; halfway from .4 to .7 the count is halfway from 1 to 1.6; two meet .7.
    """
    assert good([3, 2], 1) == approx(0.4) and good([3, 2], 2) == approx(0.7)
    two = one(rarefied_count, [3, 2], m=2)
    assert two == approx(1.6)
    for target, expected in ((0.3, 1.0), (0.4, 1.0), (0.55, 1.3), (0.7, 1.6)):
        assert one(coverage_count, [3, 2], target=target) == approx(expected)
    assert one(coverage_count, [9]) == 1.0  # one answer covers everything
    assert isnan(one(coverage_count, [2, 2])) and isnan(one(coverage_count, [4]))  # fewer than 5 answers


@settings(deadline=None, max_examples=40)
@given(sizes.filter(lambda found: 5 <= sum(found) <= 9), st.floats(0.05, 0.98))
def test_coverage_count_is_read_off_the_curve_of_all_draws(cluster_sizes, target):
    n = sum(cluster_sizes)
    covered = [good(cluster_sizes, m) for m in range(1, n)]
    counts = [one(rarefied_count, cluster_sizes, m=m) for m in range(1, n)]
    found = one(coverage_count, cluster_sizes, target=target)
    if target <= covered[0]:
        assert found == approx(1.0)
    elif target <= covered[-1]:
        assert found == approx(np.interp(target, covered, counts), rel=1e-9)
    else:
        assert found >= counts[-1] - 1e-9  # between n - 1 and n, or beyond


def test_beyond_what_was_seen_the_count_is_extrapolated_to_twice_the_answers_at_most():
    """Five answers, each new (f1 = 5, f2 = 0): 8 unseen by Chao's estimate, coverage 1 - 16 / 18."""
    unseen = 4 / 5 * 5 * 4 / 2
    most = 5 + unseen * (1 - (1 - 5 / (5 * unseen + 5)) ** 5)
    assert one(coverage_count, [1] * 5, target=0.99) == approx(most)
    # Of (3, 1, 1): f2 = 0, A = 4 / 6; the coverage of all five is 1 - 2 / 5 * 4 / 6.
    whole, unseen = 1 - 2 / 5 * 4 / 6, 4 / 5 * 2 * 1 / 2
    assert one(coverage_count, [3, 1, 1], target=whole) == approx(3.0)
    further = log(5 / 2 * (1 - 0.8)) / log(4 / 6) - 1
    expected = 3 + unseen * (1 - (1 - 2 / (5 * unseen + 2)) ** further)
    assert one(coverage_count, [3, 1, 1], target=0.8) == approx(expected)


def test_cells_do_not_touch_each_other_and_order_does_not_matter():
    rng = np.random.default_rng(3)
    cell, size = rng.integers(0, 40, 160), rng.integers(1, 9, 160)
    together = coverage_count(cell, size, 41)
    for at in range(41):
        mine = size[cell == at]
        alone = one(coverage_count, list(mine)) if len(mine) else np.nan
        assert together[at] == approx(alone, nan_ok=True)
    order = rng.permutation(160)
    np.testing.assert_allclose(coverage_count(cell[order], size[order], 41), together, rtol=1e-12)


# --- spectrum ---


def test_spectrum_by_hand():
    alpha = 1e-3
    alike = np.ones((5, 5))
    assert spectrum_score(alike) == approx((log(5 + alpha) + 4 * log(alpha)) / 5)
    assert spectrum_score(np.eye(5)) == approx(log(1 + alpha))
    two = np.kron(np.eye(2), np.ones((2, 2)))
    assert spectrum_score(two) == approx((2 * log(2 + alpha) + 2 * log(alpha)) / 4)


def test_spectrum_is_the_mean_logarithm_of_the_eigenvalues_as_eigenscore_has_it():
    """K answers of d numbers: Sigma = Z J Z' with J = I - 11'/d (Chen et al. 2024)."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 20))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centring = np.eye(20) - np.ones((20, 20)) / 20
    values = np.linalg.eigvalsh(vectors @ centring @ vectors.T + 1e-3 * np.eye(7))
    centred = vectors - vectors.mean(1, keepdims=True)
    assert spectrum_score(centred @ centred.T) == approx(np.log(values).mean())
    assert spectrum_score(np.stack([centred @ centred.T] * 3)).tolist() == approx([np.log(values).mean()] * 3)
