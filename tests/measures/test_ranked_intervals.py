"""Intervals of accuracy@50 and coverage@50: estimates by definition, honest ends where all of the top are alike."""

import numpy as np
import pytest
from pytest import approx

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration import accuracy_at, coverage_at
from hcl_cli.measures.intervals import wilson
from hcl_cli.measures.probe_intervals import HeldOutRows, ranked_half
from hcl_cli.measures.ranked_intervals import ranked_half_intervals


def answers(correct, n_per_question=1, n_resamples=400, seed=0):
    n_questions = len(correct) // n_per_question
    drawn = list(resample_counts(n_questions, n_resamples, seed))
    counts = np.concatenate(drawn) if drawn else np.empty((0, n_questions))
    group = np.repeat(np.arange(n_questions), n_per_question)
    return HeldOutRows(np.asarray(correct, dtype=bool), group, np.zeros(len(correct), dtype=np.int64), counts)


def test_estimates_are_those_of_the_definitions_ties_and_odd_numbers_too():
    numbers = np.random.default_rng(0)
    for n in (2, 3, 7, 40):
        prob, correct = numbers.integers(0, 6, n) / 5, numbers.random(n) < 0.6
        accuracy, coverage = ranked_half_intervals(prob, answers(correct))
        assert (accuracy.value, coverage.value) == approx((accuracy_at(prob, correct), coverage_at(prob, correct)))
        assert accuracy.low <= accuracy.value + 1e-12 and accuracy.value - 1e-12 <= accuracy.high
        assert coverage.low <= coverage.value <= coverage.high


def test_nothing_right_among_few_says_little():
    """The percentile interval said [0, 0] for 10 questions and for 1,000."""
    for n in (10, 1000):
        accuracy, coverage = ranked_half_intervals(np.linspace(0.1, 0.9, n), answers([False] * n))
        # Half of the questions, none right: Wilson's interval of 0 in n / 2.
        assert (accuracy.low, accuracy.high) == approx(wilson(0.0, n // 2))
        # Three wrong answers may still come from a source that is right more often than not, four cannot: 3 / n.
        assert wilson(0.0, 3)[1] > 0.5 > wilson(0.0, 4)[1]
        assert (coverage.low, coverage.value) == (0.0, 0.0)
        assert coverage.high == approx(3 / n)


def test_everything_right_among_few_says_little():
    accuracy, coverage = ranked_half_intervals(np.linspace(0.1, 0.9, 10), answers([True] * 10))
    assert (accuracy.low, accuracy.high) == approx((wilson(1.0, 5)[0], 1.0))
    assert (coverage.low, coverage.high) == (1.0, 1.0)  # ten of ten: more than half for sure
    _, few = ranked_half_intervals(np.array([0.5, 0.6, 0.7]), answers([True] * 3))
    assert few.low == 0.0  # three of three is no proof


def test_answers_to_the_same_question_are_not_counted_as_so_many_questions():
    alone, _ = ranked_half_intervals(np.linspace(0.1, 0.9, 40), answers([False] * 40))
    together, _ = ranked_half_intervals(np.linspace(0.1, 0.9, 40), answers([False] * 40, n_per_question=4))
    assert (together.low, together.high) == approx(wilson(0.0, 5))
    assert alone.high < together.high


def test_where_answers_differ_accuracy_keeps_the_resamples_interval():
    numbers = np.random.default_rng(1)
    prob = numbers.random(300)
    tested = answers(numbers.random(300) < prob, n_per_question=3)
    plain, coverage = ranked_half(prob[None], tested)
    ours, wider = ranked_half_intervals(prob, tested)
    assert ours == plain
    assert wider.value == coverage.value and wider.low <= coverage.low and coverage.high <= wider.high


def test_without_resamples_the_ends_are_unknown():
    accuracy, coverage = ranked_half_intervals(np.array([0.2, 0.8]), answers([False, True], n_resamples=0))
    assert np.isnan([accuracy.low, accuracy.high, coverage.low, coverage.high]).all()
    assert (accuracy.value, coverage.value) == (1.0, 0.5)


@pytest.mark.parametrize(("base", "percentile"), [(-6.0, 0.5), (5.0, 0.7)])
def test_intervals_hold_the_truth_where_resamples_alone_do_not(base, percentile):
    """Confidence and correctness share a question's difficulty; the truth is that of 100,000 questions."""

    def drawn(numbers, n_questions):
        logit = base + numbers.normal(size=(n_questions, 1))
        prob = 1 / (1 + np.exp(-logit - 0.7 * numbers.normal(size=(n_questions, 5))))
        return prob.ravel(), (numbers.random((n_questions, 5)) < 1 / (1 + np.exp(-logit))).ravel()

    numbers = np.random.default_rng(2)
    truth = accuracy_at(*drawn(numbers, 100_000))
    held = np.zeros(2)
    for trial in range(100):
        prob, correct = drawn(numbers, 20)
        tested = answers(correct, n_per_question=5, n_resamples=200, seed=trial)
        for at, found in enumerate((ranked_half(prob[None], tested)[0], ranked_half_intervals(prob, tested)[0])):
            held[at] += found.low <= truth <= found.high
    assert held[0] <= 100 * percentile
    assert held[1] >= 92


def test_folds_and_seeds_are_taken_together():
    """Two folds of 12 and 8 questions, two seeds: the top half of each fold, the mean over seeds."""
    numbers = np.random.default_rng(4)
    correct, prob = numbers.random(20) < 0.5, numbers.random((2, 20))
    tested = answers(correct)
    folds = HeldOutRows(tested.outcome, tested.group, np.repeat([0, 1], [12, 8]), tested.counts)
    accuracy, coverage = ranked_half_intervals(prob, folds)
    plain = ranked_half(prob, folds)
    assert (accuracy.value, coverage.value) == (plain[0].value, plain[1].value)
    right = [
        correct[rows][np.argsort(-one[rows])[: len(rows) // 2]].sum()
        for one in prob for rows in (np.arange(12), np.arange(12, 20))
    ]  # fmt: skip
    assert accuracy.value == approx(sum(right) / 20)
    assert coverage.low <= plain[1].low and plain[1].high <= coverage.high
    # Nothing right among the more confident ten, which both seeds take: Wilson's interval of 0 in 10.
    none = HeldOutRows(np.zeros(20, dtype=bool), tested.group, folds.fold, tested.counts)
    same = np.stack([prob[0]] * 2)
    accuracy, coverage = ranked_half_intervals(same, none)
    assert (accuracy.low, accuracy.high) == approx(wilson(0.0, 10)) and accuracy.value == 0
    assert coverage.value == 0 and coverage.high > 0.1
    # One fold and one seed are what they were.
    assert ranked_half_intervals(prob[0], tested) == ranked_half_intervals(prob[:1], tested)
