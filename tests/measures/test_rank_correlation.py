"""Spearman's rank correlation against scipy, by hand, and its p-value against all permutations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hcl_cli.measures.rank_correlation import rank_correlation


def rho(a, b):
    return rank_correlation(a, b, n_permutations=0, seed=0).rho


def test_by_hand():
    assert rho([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rho([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rho([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_equals_scipy_with_ties(pairs):
    a, b = zip(*pairs, strict=True)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert math.isnan(rho(a, b))
    else:
        assert rho(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_the_p_value_is_the_share_of_permutations():
    a, b = np.arange(5), np.array([0, 2, 1, 3, 4])
    found = rank_correlation(a, b, n_permutations=20000, seed=1)
    exact = np.mean([abs(rho(a, order)) >= found.rho - 1e-9 for order in itertools.permutations(b)])
    assert found.p_value == pytest.approx(exact, abs=0.01)


def test_the_interval_holds_the_truth():
    """Bivariate normal with correlation .5: Spearman's is 6 / pi asin(.25)."""
    truth = 6 / math.pi * math.asin(0.25)
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        x = generator.normal(size=32)
        y = 0.5 * x + math.sqrt(0.75) * generator.normal(size=32)
        found = rank_correlation(x, y, n_permutations=0, seed=0)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_no_interval_where_it_is_not_known():
    assert math.isnan(rank_correlation([1, 2, 3], [1, 3, 2], n_permutations=0, seed=0).low)
    assert math.isnan(rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], n_permutations=0, seed=0).low)
    assert math.isnan(rank_correlation([], [], n_permutations=9, seed=0).rho)
