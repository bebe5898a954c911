"""Resamples: seeded, paired, whole questions; sums that do not depend on the machine's order."""

import numpy as np
import pytest
from pytest import approx

from hcl_cli.measures import bootstrap
from hcl_cli.measures.bootstrap import resample_counts, resampled_means


def test_every_resample_draws_as_many_questions_as_there_are():
    counts = np.concatenate(list(resample_counts(7, 500, seed=1)))
    assert counts.shape == (500, 7)
    assert set(counts.sum(axis=1)) == {7.0}
    assert counts.mean() == 1.0


def test_counts_are_multinomial():
    """Variance 1 - 1/n and covariance -1/n of draws with replacement, from 40,000 resamples of 5 questions."""
    counts = np.concatenate(list(resample_counts(5, 40_000, seed=2)))
    covariance = np.cov(counts.T)
    assert covariance == approx(np.eye(5) - 1 / 5, abs=0.03)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch):
    whole = np.concatenate(list(resample_counts(11, 100, seed=3)))
    monkeypatch.setattr(bootstrap, "CHUNK", 50)
    blocks = list(resample_counts(11, 100, seed=3))
    assert len(blocks) == 25
    assert np.array_equal(np.concatenate(blocks), whole)


def test_seed_and_stream_choose_the_draws():
    def drawn(seed, stream):
        return np.concatenate(list(resample_counts(20, 10, seed, stream))).tobytes()

    assert drawn(1, 0) == drawn(1, 0)
    assert len({drawn(seed, stream) for seed in (0, 1, 2**64 - 1) for stream in (0, 1, 2**64 - 1)}) == 9


def test_means_equal_resampling_by_index():
    values = np.random.default_rng(0).random((13, 4))
    means = resampled_means(values, 6, seed=5)
    for counts, mean in zip(np.concatenate(list(resample_counts(13, 6, seed=5))), means, strict=True):
        assert mean == approx(np.repeat(values, counts.astype(int), axis=0).mean(axis=0), abs=1e-12)


def test_layers_are_paired():
    """The same column twice has the same means; a shifted one the same deviations."""
    column = np.random.default_rng(1).random(30)
    means = resampled_means(np.stack([column, column, column + 1], axis=1), 50, seed=0)
    assert np.array_equal(means[:, 0], means[:, 1])
    assert means[:, 2] - means[:, 0] == approx(np.ones(50), abs=1e-11)


def test_questions_that_do_not_count_are_left_out_of_numerator_and_denominator():
    values = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan]])
    means = resampled_means(values, 400, seed=0)
    present = ~np.isnan(means[:, 1])
    assert set(means[present, 1]) == {5.0}
    assert (~present).mean() == approx((2 / 3) ** 3, abs=0.07)  # the first question is not drawn
    assert np.isfinite(means[:, 0]).all()
