"""Scores of blocks: by hand, and laws that tell one formula from another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hcl_cli.measures.block_scores import (
    avss,
    cumulative,
    depth_scores,
    eavss,
    eavss_contrast,
    normalised,
    random_scores,
    score_interval,
)

NAN = math.nan
POSITIVE = arrays(np.float64, 5, elements=st.floats(0.01, 100.0))


def test_avss_by_hand() -> None:
    """Variance 1, 4, 3 over sparsity 1/2, 1/4, 0: 2, 16 and no score; shares 1/9 and 8/9."""
    scores = avss([1.0, 4.0, 3.0], [0.5, 0.25, 0.0])
    np.testing.assert_array_equal(scores, [2.0, 16.0, NAN])
    shares = normalised(scores)
    np.testing.assert_allclose(shares, [1 / 9, 8 / 9, NAN])
    np.testing.assert_allclose(cumulative(shares), [1 / 9, 1.0, NAN])


def test_shares_need_scores_that_add_up() -> None:
    """Negative scores or nothing but zeros have no shares; depth, not size, orders the sum."""
    for scores in ([1.0, -0.5], [0.0, 0.0], [NAN, NAN]):
        assert np.isnan(normalised(np.array(scores))).all()
    np.testing.assert_allclose(cumulative(normalised(np.array([3.0, 1.0, 4.0]))), [0.375, 0.5, 1.0])


def test_eavss_by_hand() -> None:
    """Variances 1 and 3 are shares 1/4 and 3/4, sparsities .2 and .2 are halves: ratios 1/2 and 3/2."""
    found = eavss(np.array([1.0, 3.0]), np.array([0.2, 0.2]))
    np.testing.assert_allclose(found, [0.5, 1.5])
    contrast = eavss_contrast(
        np.array([1.0, 3.0]), np.array([0.2, 0.2]), np.array([1.0, 1.0]), np.array([0.1, 0.3])
    )  # of the factual: halves over 1/4 and 3/4, ratios 2 and 2/3
    np.testing.assert_allclose(contrast, [math.log(0.5 / 2), math.log(1.5 / (2 / 3))])


def test_a_contrast_without_sparsity_is_unknown() -> None:
    found = eavss_contrast(np.array([1.0, 3.0]), np.array([0.0, 0.2]), np.array([1.0, 1.0]), np.array([0.1, 0.3]))
    assert math.isnan(found[0]) and math.isfinite(found[1])


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.floats(0.1, 10.0))
def test_a_contrast_turns_round_and_does_not_see_sizes(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, factor: float
) -> None:
    """Exchanging the groups changes the sign; a group's number of tokens cancels."""
    found = eavss_contrast(a, b, c, d)
    np.testing.assert_allclose(eavss_contrast(c, d, a, b), -found, atol=1e-12)
    np.testing.assert_allclose(eavss_contrast(a * factor, b * factor, c, d), found, atol=1e-12)
    np.testing.assert_allclose(eavss_contrast(a, b, a, b), 0.0, atol=1e-12)


def test_avss_of_shares_ranks_alike() -> None:
    """The abstract's normalised quantities differ by one factor from the authors' raw ones."""
    variance, sparsity = np.array([1.0, 4.0, 3.0]), np.array([0.5, 0.25, 0.3])
    ratio = avss(variance / variance.sum(), sparsity / sparsity.sum()) / avss(variance, sparsity)
    np.testing.assert_allclose(ratio, ratio[0])


def test_depth_and_chance() -> None:
    assert depth_scores(4, "last").tolist() == [3.0, 2.0, 1.0, 0.0]
    assert depth_scores(4, "first").tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="neither last nor first"):
        depth_scores(4, "middle")
    one, same, other = (random_scores(12, seed).tolist() for seed in (1, 1, 2))
    assert one == same != other and sorted(one) == [float(block) for block in range(12)]
    firsts = np.bincount([int(np.argmin(random_scores(4, seed))) for seed in range(400)])
    assert firsts.min() > 70  # 100 expected, 8.7 standard deviation


def test_an_interval_is_of_texts() -> None:
    """Texts that agree leave no room; a block without a score leaves the others theirs."""
    variance, sparsity = np.full((8, 2), 3.0), np.full((8, 2), 0.5)
    low, high = score_interval(avss, (variance, sparsity), n_resamples=50, seed=0)
    np.testing.assert_allclose([low, high], 6.0)
    sparsity[:, 0] = 0.0
    variance[:, 1] = np.arange(8)
    low, high = score_interval(avss, (variance, sparsity), n_resamples=2000, seed=0)
    assert math.isnan(low[0]) and math.isnan(high[0])
    # The mean 3.5 of 0..7 has a standard error of 0.81; the score is twice it.
    assert low[1] == pytest.approx(7 - 2 * 1.96 * 0.81, abs=0.3) and high[1] == pytest.approx(10.2, abs=0.3)
    assert np.isnan(score_interval(avss, (variance[:1], sparsity[:1]), n_resamples=9, seed=0)).all()


def test_an_interval_covers() -> None:
    """Of 200 samples of 60 texts, nine in ten and more have the true ratio in their interval."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        size = generator.gamma(2.0, 1.0, size=(60, 1))
        variance, sparsity = size * generator.gamma(3.0, 1.0, size=(60, 1)), size * generator.uniform(size=(60, 1))
        low, high = score_interval(avss, (variance, sparsity), n_resamples=200, seed=seed)
        covered += bool(low[0] <= 6.0 <= high[0])
    assert 0.88 <= covered / 200 <= 0.99
