"""Clusters, rarefied clusters and entropy of cluster sizes: by hand, against enumeration, and laws."""

from itertools import combinations
from math import isnan, log

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.measures.diversity import cluster_count, cluster_entropy, rarefied_count

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
