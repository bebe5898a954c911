"""Semantic entropy: values by hand, laws, and the published arithmetic cell by cell."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.measures.semantic_entropy import discrete_semantic_entropy, predictive_entropy, semantic_entropy

NAN = float("nan")


def of(cell, meaning, logprob, n_cells=1):
    cell, meaning, logprob = np.array(cell), np.array(meaning, dtype=float), np.array(logprob, dtype=float)
    return (
        semantic_entropy(cell, meaning, logprob, n_cells).tolist(),
        discrete_semantic_entropy(cell, meaning, n_cells).tolist(),
        predictive_entropy(cell, logprob, n_cells).tolist(),
    )


def test_by_hand():
    # Likelihoods 1/2, 1/4 | 1/8, 1/8: the meanings weigh 3/4 and 1/4; by number 1/2 and 1/2.
    rao, discrete, naive = of([0] * 4, [0, 0, 7, 7], [log(1 / 2), log(1 / 4), log(1 / 8), log(1 / 8)])
    assert rao == [approx(-3 / 4 * log(3 / 4) - 1 / 4 * log(1 / 4))]
    assert discrete == [approx(log(2))]
    assert naive == [approx((1 + 2 + 3 + 3) * log(2) / 4)]


def test_the_sums_run_over_samples_so_a_text_drawn_twice_weighs_twice():
    """ "a" (likelihood 1/2) twice and "b" (1/2) once: 2/3 and 1/3, and not 1/2 each as a sum over texts would say."""
    rao, _, _ = of([0] * 3, [0, 0, 1], [log(1 / 2)] * 3)
    assert rao == [approx(-2 / 3 * log(2 / 3) - 1 / 3 * log(1 / 3))]


def test_one_meaning_has_entropy_0_and_no_minus():
    assert of([0, 0], [3, 3], [-1.0, -2.0])[:2] == ([0.0], [0.0])
    assert str(of([0, 0], [3, 3], [-1.0, -2.0])[0][0]) == "0.0"


def test_what_is_unknown_stays_unknown_and_only_in_its_cell():
    rao, discrete, naive = of([0, 0, 1, 1, 2, 2], [0, 1, 0, NAN, 0, 1], [-1, NAN, -1, -1, -1, -1], n_cells=4)
    assert np.isnan(rao).tolist() == [True, True, False, True]  # the fourth cell has no sample
    assert np.isnan(discrete).tolist() == [False, True, False, True]
    assert np.isnan(naive).tolist() == [True, False, False, True]
    assert (discrete[0], rao[2], naive[1]) == (approx(log(2)), approx(log(2)), 1.0)
    assert np.isnan(of([0, 0], [NAN, NAN], [-1, -1])[0]).all()


def test_likelihoods_that_underflow_on_their_own():
    rao, _, naive = of([0] * 3, [0, 0, 1], [-5000 + log(1 / 4), -5000 + log(1 / 4), -5000 + log(1 / 2)])
    assert rao == [approx(log(2))]
    assert naive == [approx(5000 + 5 / 3 * log(2))]
    # A million cells may each be at their own depth.
    far = of([0, 0, 1, 1], [0, 1, 0, 1], [-9000, -9000, -1, -1], n_cells=2)[0]
    assert far == [approx(log(2)), approx(log(2))]


def test_meanings_may_have_any_numbers():
    cell, logprob = [0, 0, 1, 1, 1], [-1.0, -2.0, -1.5, -1.0, -3.0]
    assert of(cell, [-5, 2**31 - 1, 40, 7, 7], logprob, 2) == of(cell, [0, 1, 0, 1, 1], logprob, 2)


def published(meanings, logprobs):
    """The published arithmetic of one question, term by term (jlko/semantic_uncertainty, `sum_normalized`)."""
    masses = []
    for one in sorted(set(meanings)):
        inside = [logprob for meaning, logprob in zip(meanings, logprobs, strict=True) if meaning == one]
        masses.append(np.log(np.sum(np.exp(np.array(inside) - np.log(np.sum(np.exp(logprobs)))))))
    shares = np.array([meanings.count(one) for one in sorted(set(meanings))]) / len(meanings)
    return -np.sum(np.exp(masses) * masses), -np.sum(shares * np.log(shares)), -np.sum(logprobs) / len(logprobs)


CELLS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-30, 0)), min_size=1, max_size=12), min_size=1, max_size=6
)


@given(CELLS)
@settings(max_examples=60, deadline=None)
def test_every_cell_is_the_published_one_within_its_bounds(cells):
    rows = [(number, *sample) for number, samples in enumerate(cells) for sample in samples]
    found = of(*zip(*rows, strict=True), n_cells=len(cells))
    for number, samples in enumerate(cells):
        meanings, logprobs = ([sample[at] for sample in samples] for at in (0, 1))
        rao, discrete, naive = (values[number] for values in found)
        assert (rao, discrete, naive) == approx(published(meanings, logprobs), abs=1e-9)
        assert 0 <= rao <= log(len(set(meanings))) + 1e-9
        assert 0 <= discrete <= log(len(set(meanings))) + 1e-9


@given(CELLS, st.floats(-20, 0), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_equal_likelihoods_give_the_discrete_entropy_and_order_does_not_matter(cells, logprob, random):
    rows = [(number, meaning, logprob) for number, samples in enumerate(cells) for meaning, _ in samples]
    rao, discrete, _ = of(*zip(*rows, strict=True), n_cells=len(cells))
    assert rao == approx(discrete, abs=1e-9)
    random.shuffle(rows)
    assert of(*zip(*rows, strict=True), n_cells=len(cells))[1] == discrete


def test_entropies_that_are_equal_tie_although_their_sums_run_in_another_order():
    sizes = ([1, 2, 4], [4, 1, 2], [2, 4, 1])
    rows = [
        (cell, meaning) for cell, three in enumerate(sizes) for meaning, size in enumerate(three) for _ in range(size)
    ]
    cell, meaning = zip(*rows, strict=True)
    rao, discrete, _ = of(cell, meaning, [log(exp(-1) / 3)] * len(rows), n_cells=3)
    assert len(set(discrete)) == len(set(rao)) == 1


@pytest.mark.parametrize("empty", [0, 2])
def test_no_samples_at_all(empty):
    assert np.isnan(of(np.zeros(0, int), [], [], n_cells=empty)).all()
