"""The EAVSS contrast: by hand, a planted block, and p-values that are uniform where nothing is planted."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kstest

from hcl_cli.measures.eavss import EavssContrast, eavss_of_answers, permuted_p_values

N_BLOCKS = 4


def made(generator: np.random.Generator, n_questions: int = 12, planted: float = 1.0) -> tuple[np.ndarray, ...]:
    """Answers whose variance and sparsity depend on the question, and hard questions have more wrong answers.

    Block 3 of hallucinated answers has `planted` times the variance.
    """
    question = np.repeat(np.arange(n_questions), 5)
    hard = generator.uniform(size=n_questions)
    wrong = generator.uniform(size=len(question)) < hard[question]
    level = np.exp(2 * hard[question][:, None] * np.arange(N_BLOCKS))
    variance = level * generator.gamma(8.0, 1.0, size=(len(question), N_BLOCKS))
    variance[wrong, 2] *= planted
    sparsity = generator.uniform(0.1, 0.3, size=variance.shape) / level
    return variance, sparsity, generator.integers(2, 9, size=len(question)), wrong, question


def analysed(of: tuple[np.ndarray, ...], seed: int = 0, n_permutations: int = 199, resamples: int = 0) -> EavssContrast:
    return eavss_of_answers(*of, n_permutations=n_permutations, n_resamples=resamples, seed=seed)


def test_the_groups_by_hand() -> None:
    """Two wrong answers of 1 and 3 tokens with variances 5 and 1: HSAV (5 + 3) / 4 = 2; one right answer stands."""
    found = eavss_of_answers(
        np.array([[5.0, 1.0], [1.0, 1.0], [3.0, 1.0]]), np.array([[0.1, 0.2], [0.5, 0.2], [0.25, 0.25]]),
        [1, 3, 7], np.array([True, True, False]), np.array([0, 1, 1]), n_permutations=9, n_resamples=20, seed=0,
    )  # fmt: skip
    np.testing.assert_allclose(found.hsav, [2.0, 1.0])
    np.testing.assert_allclose(found.hss, [0.4, 0.2])
    np.testing.assert_allclose([found.factual_variance, found.factual_sparsity], [[3.0, 1.0], [0.25, 0.25]])
    np.testing.assert_allclose(found.eavss, [1.0, 1.0])  # 2/3 over 2/3, 1/3 over 1/3
    np.testing.assert_allclose(found.factual_eavss, [1.5, 0.5])
    np.testing.assert_allclose(found.contrast, [math.log(1 / 1.5), math.log(2)])
    assert (found.n_questions, found.n_one_kind) == (1, 1)


def test_p_values_are_those_of_every_labelling() -> None:
    """Two questions with one wrong answer of three, and one all wrong: nine labellings, each once in nine draws on
    average; 20,000 draws give the shares of the whole list."""
    generator = np.random.default_rng(3)
    sums = generator.gamma(3.0, 1.0, size=(8, 2 * N_BLOCKS))
    question = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    wrong = np.array([True, False, False, False, True, False, True, True])
    contrasts = []
    for one, two in itertools.product(range(3), range(3, 6)):
        labels = np.isin(np.arange(8), [one, two, 6, 7])
        parts = [sums[group][:, half].sum(axis=0) for group in (labels, ~labels) for half in
                 (slice(None, N_BLOCKS), slice(N_BLOCKS, None))]  # fmt: skip
        shares = [part / part.sum() for part in parts]
        contrasts.append(np.log(shares[0] / shares[1]) - np.log(shares[2] / shares[3]))
    every = np.array(contrasts)
    size = np.abs((every - every.mean(axis=0)) / every.std(axis=0))
    reached = size[1] * (1 - 1e-9)  # (0, 4) is the second
    alone, together = permuted_p_values(sums, wrong, question, 20_000, seed=1)
    np.testing.assert_allclose(alone, (size >= reached).mean(axis=0), atol=0.015)
    np.testing.assert_allclose(together, (size.max(axis=1, keepdims=True) >= reached).mean(axis=0), atol=0.015)


def test_p_values_are_uniform_where_nothing_is_planted() -> None:
    """500 simulations in which questions differ and wrong answers come from the hard ones: permuting labels among all
    answers would call every block significant. Each block's p-value is uniform, and some block of the four is below
    .05 after correction in 5 % (2 to 8 %)."""
    generator = np.random.default_rng(0)
    found = [analysed(made(generator), seed) for seed in range(500)]
    for block in range(N_BLOCKS):
        assert kstest([each.p_value[block] for each in found], "uniform").pvalue > 0.01
    smallest = np.array([each.p_adjusted.min() for each in found])
    assert 0.02 <= (smallest <= 0.05).mean() <= 0.08
    assert all((each.p_adjusted >= each.p_value).all() for each in found)
    # The contrast itself is far from 0 there: what differs is the questions.
    assert np.mean([each.contrast[-1] for each in found]) > 0.5


def test_a_planted_block_is_found() -> None:
    """Three times the variance in block 3: the contrast less that of the same answers without it is ln 3 against the
    other blocks, whose shares fall as its share rises, and this block is the surest."""
    plain, planted = (made(np.random.default_rng(5), 30, factor) for factor in (1.0, 3.0))
    found, before = analysed(planted, n_permutations=999), analysed(plain)
    rise = found.contrast - before.contrast
    np.testing.assert_allclose(rise[2] - rise[[0, 1, 3]], math.log(3), rtol=1e-9)
    assert found.p_adjusted[2] == 0.001 < found.p_adjusted[[0, 1, 3]].min()


def test_the_order_of_answers_does_not_matter() -> None:
    """But for which random labelling is drawn: the contrast and its interval are the same, p-values close."""
    of = made(np.random.default_rng(7))
    order = np.random.default_rng(8).permutation(len(of[0]))
    one, other = (analysed(each, n_permutations=4000, resamples=200) for each in (of, tuple(x[order] for x in of)))
    np.testing.assert_allclose(other.contrast, one.contrast, rtol=1e-9)
    np.testing.assert_allclose([other.low, other.high], [one.low, one.high], rtol=1e-9)
    np.testing.assert_allclose(other.p_value, one.p_value, atol=0.05)
    assert (one.low < one.contrast).all() and (one.contrast < one.high).all()


def test_what_cannot_be_tested_is_unknown() -> None:
    """A block that is never sparse has no contrast; questions with one kind of answer, no permutation."""
    variance, sparsity, n_tokens, wrong, question = made(np.random.default_rng(9))
    sparsity[:, 1] = 0.0
    found = analysed((variance, sparsity, n_tokens, wrong, question))
    assert np.isnan([found.contrast[1], found.p_value[1], found.p_adjusted[1]]).all()
    assert not np.isnan(found.p_value[[0, 2, 3]]).any()
    apart = analysed((variance, sparsity, n_tokens, question < 6, question))
    assert apart.n_questions == 0 and np.isnan(apart.p_value).all() and not np.isnan(apart.contrast[0])
    assert np.isnan(analysed((variance, sparsity, n_tokens, wrong, question), n_permutations=0).p_value).all()
    for same in (np.ones_like(wrong), np.zeros_like(wrong)):
        with pytest.raises(ValueError, match="expected hallucinated and factual answers"):
            analysed((variance, sparsity, n_tokens, same, question))
