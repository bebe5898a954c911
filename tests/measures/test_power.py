"""Questions and samples that tell two layers apart: variances by hand, and the power that is reached."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy import stats

from hcl_cli.measures.power import components, detectable_difference, questions_needed


def test_variances_by_hand():
    """Question 1: 1 of 2 and 0 of 2 wrong; question 2: 2 of 2 and 1 of 2."""
    n = np.array([2.0, 2.0])
    found = components(np.array([0.5, 1.0]), np.array([0.0, 0.5]), n, n)
    # h (1 - h) / (n - 1): .25 and 0 of the first layer, 0 and .25 of the second; differences .5 and .5
    assert found.total == 0 and found.between == 0  # less noise than expected is none, not less than none
    assert found.within == approx(0.25 + 0.25)
    assert found.at(5) == approx(0.1)


def test_one_sample_says_nothing_of_the_noise_within_and_one_question_nothing_at_all():
    one = components(np.array([0.0, 1.0]), np.array([0.0, 0.0]), np.ones(2), np.ones(2))
    assert math.isnan(one.between) and math.isnan(one.within) and one.total == 0.5
    assert all(map(math.isnan, components(np.zeros(1), np.zeros(1), np.full(1, 4.0), np.full(1, 4.0))))


def layers(rng, n_questions, n_samples, shift=0.0):
    """Shares wrong of two layers: true rates that differ by question, each from its own samples."""
    base = rng.uniform(0.2, 0.7, n_questions)
    other = np.clip(base + shift + rng.normal(0, 0.1, n_questions), 0, 1)
    shares = [rng.binomial(n_samples, rate) / n_samples for rate in (base, other)]
    return shares, base, other


def test_both_variances_are_unbiased_whatever_the_samples():
    rng = np.random.default_rng(0)
    found = []
    for n_samples in (3, 20):
        n = np.full(4000, float(n_samples))
        (one, other), base, true = layers(rng, 4000, n_samples)
        parts = components(one, other, n, n)
        within = (base * (1 - base) + true * (1 - true)).mean()
        assert parts.within == approx(within, rel=0.03)
        assert parts.between == approx((true - base).var(), abs=0.25 * 0.01 + 0.02 / n_samples)
        found.append(parts)
    # three samples foretell the variance with twenty
    assert found[0].at(20) == approx(found[1].total, rel=0.25)


@pytest.mark.parametrize(("n_samples", "shift", "power"), [(1, 0.15, 0.8), (5, 0.06, 0.8), (20, 0.05, 0.9)])
def test_the_questions_it_asks_for_give_the_power(n_samples, shift, power):
    """Variances from a pilot, then that many questions, 1500 times, each with a paired t-test."""
    rng = np.random.default_rng(1)
    pilot = np.full(20_000, 10.0)
    (one, other), base, true = layers(rng, 20_000, 10, shift)
    parts = components(one, other, pilot, pilot)
    needed = int(questions_needed(float((true - base).mean()), parts.at(n_samples), power))
    shares = [layers(rng, needed, n_samples, shift)[0] for _ in range(1500)]
    differences = np.stack([b - a for a, b in shares])
    reached = stats.ttest_1samp(differences, 0.0, axis=1).pvalue <= 0.05
    assert reached.mean() == approx(power, abs=0.035)


def test_as_the_noncentral_t_distribution_has_it():
    """Peer: exact power of the paired t-test for normal differences."""
    for delta, variance, power, alpha in ((0.3, 1.0, 0.8, 0.05), (0.5, 1.0, 0.9, 0.005), (0.1, 0.04, 0.8, 0.05)):
        n = questions_needed(delta, variance, power, alpha)
        bound = stats.t.ppf(1 - alpha / 2, n - 1)
        assert 1 - stats.nct.cdf(bound, n - 1, delta * math.sqrt(n / variance)) == approx(power, abs=0.012)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 1), st.floats(0.001, 2), st.sampled_from([0.8, 0.9]), st.sampled_from([0.05, 0.001]))
def test_laws(delta, variance, power, alpha):
    n = questions_needed(delta, variance, power, alpha)
    assert n == questions_needed(-delta, variance, power, alpha) >= 2
    assert questions_needed(delta / 2, variance, power, alpha) >= n
    assert questions_needed(delta, variance, power, alpha / 10) >= n
    # what n questions find is no more than the difference that asked for them
    if n > 2:
        assert detectable_difference(variance, int(n), power, alpha) <= delta + 1e-9
        assert detectable_difference(variance, int(n) - 1, power, alpha) >= delta - 1e-9 or n - 1 <= 8


def test_no_number_of_questions_tells_equal_layers_apart():
    assert math.isnan(questions_needed(0.0, 1.0)) and math.isnan(questions_needed(0.1, math.nan))
    assert math.isnan(detectable_difference(1.0, 1)) and math.isnan(detectable_difference(math.nan, 100))
