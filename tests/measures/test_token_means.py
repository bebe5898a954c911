"""Means over tokens with intervals over texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.intervals import bca_interval
from hcl_cli.measures.token_means import token_means


def test_long_texts_count_for_more() -> None:
    """(6 + 2) / (3 + 1) = 2 and not the mean 2 of 2 and 2; (6 + 4) / 4 = 2.5 where the mean of means is 3."""
    mean, _, _ = token_means([[6.0, 6.0], [2.0, 4.0]], [3, 1], 100, seed=0)
    assert mean.tolist() == [2.0, 2.5]


def test_texts_of_one_length_are_plain_means() -> None:
    """The bootstrap of a mean over units, which is tested by itself."""
    values = np.random.default_rng(3).gamma(2.0, size=(40, 3))
    mean, low, high = token_means(values * 7, np.full(40, 7), 500, seed=5)
    drawn = resampled_means(values, 500, 5)
    expected_low, expected_high = bca_interval(values.mean(axis=0), drawn, values - values.mean(axis=0))
    np.testing.assert_allclose(mean, values.mean(axis=0))
    np.testing.assert_allclose(low, expected_low, rtol=1e-9)
    np.testing.assert_allclose(high, expected_high, rtol=1e-9)


def test_a_quantity_that_is_the_same_per_token_has_no_spread() -> None:
    """Lengths differ, the mean per token does not: a bootstrap of sums instead of ratios would spread."""
    n = np.array([3.0, 10.0, 50.0, 1.0])
    mean, low, high = token_means(np.stack([n * 0.5, n * 0.0], 1), n, 200, seed=0)
    np.testing.assert_allclose([mean, low, high], [[0.5, 0.0]] * 3, atol=1e-12)


@pytest.mark.parametrize(("n_texts", "lowest"), [(20, 0.89), (60, 0.92)])
def test_the_interval_covers_the_truth(n_texts: int, lowest: float) -> None:
    """400 sets of texts of 20 to 128 tokens, each with a skewed loss of its own that grows with its length; 95 % asked.
    The truth is the ratio of the expectations. In 1,000 sets 92 % were found with 20 texts and 95 % with 60."""
    generator = np.random.default_rng(11)
    lengths = np.arange(20, 129)
    truth = 0.5 * (lengths * (1 + lengths / 128)).mean() / lengths.mean()
    covered = 0
    for trial in range(400):
        n = generator.integers(20, 129, n_texts).astype(float)
        sums = n * (1 + n / 128) * generator.gamma(4, 0.125, n_texts)
        _, low, high = token_means(sums[:, None], n, 400, seed=trial)
        covered += bool(low[0] <= truth <= high[0])
    assert lowest <= covered / 400 <= 0.98


@given(
    st.lists(st.tuples(st.integers(-40, 400), st.integers(1, 100)), min_size=2, max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_the_mean_lies_in_its_interval(texts: list[tuple[int, int]], seed: int) -> None:
    mean, low, high = token_means([[value / 8] for value, _ in texts], [n for _, n in texts], 50, seed)
    assert low[0] <= mean[0] <= high[0]


def test_one_text_has_no_interval() -> None:
    mean, low, high = token_means([[3.0]], [2], 100, seed=0)
    assert mean.tolist() == [1.5] and np.isnan(low[0]) and np.isnan(high[0])
    for n_tokens in ([], [0]):
        with pytest.raises(ValueError, match="expected one token at least"):
            token_means(np.zeros((len(n_tokens), 1)), n_tokens, 10, seed=0)
