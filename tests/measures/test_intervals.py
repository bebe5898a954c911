"""Intervals: coverage in seeded simulations, against scipy, by hand, and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy import stats

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.intervals import (
    bca_interval,
    effective_questions,
    few_differ,
    few_differ_interval,
    mean_interval,
    percentile_interval,
    wilson,
)

SIMULATIONS, RESAMPLES = 1500, 1000


def coverage(values, truth, support):
    low, high = mean_interval(values, resampled_means(values, RESAMPLES, seed=1), support)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("rate", [0.003, 0.01, 0.02, 0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("spread", [None, 0.5, 2.0, 10.0], ids=["all-or-nothing", "beta-0.5", "beta-2", "beta-10"])
def test_hallucination_intervals_cover_the_truth(rate, spread):
    """200 questions x 50 samples, each question with its own rate; other sizes: benchmarks/coverage.py."""
    rng = np.random.default_rng(1)
    if spread is None:
        shares = (rng.random((200, SIMULATIONS)) < rate).astype(float)
    else:
        shares = rng.binomial(50, rng.beta(rate * spread, (1 - rate) * spread, (200, SIMULATIONS))) / 50
    assert 0.92 <= coverage(shares, rate, (0.0, 1.0)) <= 0.98


@pytest.mark.parametrize("mean", [0.02, 0.1, 0.5, 1.6, 3.2, 7.0])
@pytest.mark.parametrize("spread", [0.1, 2.0])
def test_raw_creativity_intervals_cover_the_truth(mean, spread):
    """100 questions; clusters are Poisson around a question's own Gamma-spread mean, as far apart as published ones."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.gamma(1 / spread, mean * spread, (100, SIMULATIONS))).astype(float)
    assert 0.92 <= coverage(counts, mean, (0.0, np.inf)) <= 0.98


def test_a_plain_percentile_bootstrap_would_not_cover():
    """The reason for all this: at a rate of .003 and 100 questions it holds the truth in about a quarter of cases."""
    shares = (np.random.default_rng(0).random((100, SIMULATIONS)) < 0.003).astype(float)
    low, high = percentile_interval(shares.mean(axis=0), resampled_means(shares, RESAMPLES, seed=1))
    assert ((low <= 0.003) & (0.003 <= high)).mean() < 0.35
    assert 0.92 <= coverage(shares, 0.003, (0.0, 1.0)) <= 0.98


@pytest.mark.parametrize(("wrong", "n"), [(0, 20), (3, 50), (50, 100), (99, 100)])
def test_wilson_equals_scipy(wrong, n):
    peer = stats.binomtest(wrong, n).proportion_ci(method="wilson")
    assert wilson(wrong / n, n) == approx((peer.low, peer.high), abs=1e-12)


def test_bca_equals_scipy():
    """scipy knows no widening for 25 questions, so it is asked for the widened level."""
    values = np.random.default_rng(3).exponential(size=25)
    resampled = resampled_means(values[:, None], 4000, seed=4)
    low, high = bca_interval(values.mean()[None], resampled, (values - values.mean())[:, None])
    level = 1 - 2 * stats.norm.sf(np.sqrt(25 / 24) * stats.t.ppf(0.975, 24))
    peer = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, confidence_level=level, rng=5)
    assert low[0] == approx(peer.confidence_interval.low, abs=0.03)
    assert high[0] == approx(peer.confidence_interval.high, abs=0.05)
    assert high[0] - values.mean() > values.mean() - low[0]  # skewed as the data


def test_effective_questions_by_hand():
    all_or_nothing = np.array([0.0] * 9 + [1.0])
    assert effective_questions(all_or_nothing) == approx(10)
    # variance .01 of .1 * .9: deff 1/9 from one differing question, shrunk to (1/9 + 1.5) / 2.5
    tenths = np.array([0.0] * 5 + [0.2] * 5)
    deff = tenths.var(ddof=1) / 0.09
    assert effective_questions(tenths) == approx(10 * (5 + 1.5) / (5 * deff + 1.5))
    assert effective_questions(np.zeros(10)) == 10


def test_nothing_wrong_is_not_certainty():
    """No error in 100 questions: Wilson's upper end is z^2 / (n + z^2)."""
    low, high = few_differ_interval(np.zeros(100), (0.0, 1.0), 1.0)
    z = stats.norm.ppf(0.975)
    assert (low, high) == (0.0, approx(z**2 / (100 + z**2)))
    assert few_differ_interval(np.ones(100), (0.0, 1.0), 1.0) == (approx(100 / (100 + z**2)), 1.0)
    # a count that is 1 everywhere may rise and fall
    low, high = few_differ_interval(np.ones(100), (0.0, np.inf), 1.0)
    assert (low, high) == (approx(1 - z**2 / (100 + z**2)), approx(1 + z**2 / (100 + z**2)))


def test_few_means_fewer_than_ten_and_fewer_than_half():
    assert few_differ(np.array([0.0] * 91 + [1.0] * 9))
    assert not few_differ(np.array([0.0] * 90 + [1.0] * 10))
    assert not few_differ(np.array([1.0, 2.0, 3.0, 4.0]))


matrices = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).integers(0, 3, size=(2 + seed % 40, 4)) / 2
)


@settings(deadline=None)
@given(matrices)
def test_an_interval_holds_its_estimate_and_stays_in_the_support(values):
    low, high = mean_interval(values, resampled_means(values, 60, seed=0), (0.0, 1.0))
    mean = values.mean(axis=0)
    assert (low <= mean + 1e-12).all() and (mean <= high + 1e-12).all()
    assert (low >= 0).all() and (high <= 1).all()
    assert (high > low).all()


@settings(deadline=None)
@given(matrices)
def test_rates_of_right_and_wrong_mirror_each_other(values):
    """Counting the right instead of the wrong answers turns the interval over, whichever construction is used."""
    resampled = resampled_means(values, 200, seed=0)
    low, high = mean_interval(values, resampled, (0.0, 1.0))
    mirrored = mean_interval(1 - values, np.round(1 - resampled, 12), (0.0, 1.0))
    assert low == approx(1 - mirrored[1], abs=1e-9) and high == approx(1 - mirrored[0], abs=1e-9)


def test_one_question_gives_no_bootstrap_interval():
    low, high = bca_interval(np.array([0.5]), np.full((10, 1), 0.5), np.zeros((1, 1)))
    assert np.isnan(low).all() and np.isnan(high).all()
