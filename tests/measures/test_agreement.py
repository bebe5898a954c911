"""Cohen's kappa and shares: by hand, against scikit-learn, and whether the intervals hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from sklearn.metrics import cohen_kappa_score, f1_score, precision_score, recall_score

from hcl_cli.measures.agreement import agreement_of, kappa_of, share_of
from hcl_cli.measures.intervals import wilson


def counts_of(one, other, question, n_questions):  # type: ignore[no-untyped-def]
    table = np.zeros((n_questions, 4))
    for a, b, q in zip(one, other, question, strict=True):
        table[q, 0 if a and b else 1 if a else 2 if b else 3] += 1
    return table


def test_kappa_by_hand() -> None:
    """4 both right, 1 only the second, 5 both wrong: equal .9, by chance .4 * .5 + .6 * .5 = .5, kappa .8."""
    assert kappa_of(np.array([4.0, 0, 1, 5])) == approx(0.8)
    found = agreement_of([[4, 0, 1, 5]], 0, 0)
    assert found.share_equal[0] == approx(0.9) and found.kappa[0] == approx(0.8)
    assert found.precision[0] == 1 and found.recall[0] == approx(0.8) and found.specificity[0] == 1
    assert found.f1[0] == approx(8 / 9)


def test_where_chance_explains_all_kappa_is_unknown() -> None:
    for counts in ([[3, 0, 0, 0]], [[0, 0, 0, 3]]):
        found = agreement_of(counts, 100, 0)
        assert np.isnan(found.kappa[0]) and found.share_equal[0] == 1
    assert np.isnan(agreement_of(np.zeros((2, 4)), 100, 0).share_equal).all()
    assert np.isnan(agreement_of([[0, 0, 0, 3]], 100, 0).precision).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60))
def test_estimates_are_scikit_learns(rows) -> None:  # type: ignore[no-untyped-def]
    one, other, question = zip(*rows, strict=True)
    found = agreement_of(counts_of(one, other, question, 5), 50, 0)
    if len({*one}) == len({*other}) == 1 and one[0] == other[0]:
        assert np.isnan(found.kappa[0])
    else:
        assert found.kappa[0] == approx(cohen_kappa_score(one, other), abs=1e-12)
    for value, peer in (
        (found.precision[0], precision_score(other, one, zero_division=np.nan)),
        (found.recall[0], recall_score(other, one, zero_division=np.nan)),
        (found.f1[0], f1_score(other, one, zero_division=np.nan)),
    ):
        assert value == approx(peer, nan_ok=True)
    for estimate in (found.share_equal, found.kappa, found.precision, found.recall, found.specificity, found.f1):
        value, low, high = estimate
        assert np.isnan(low) or low <= value + 1e-12 <= high + 2e-12


def test_no_disagreement_among_few_questions_says_little() -> None:
    few = agreement_of([[1, 0, 0, 0], [0, 0, 0, 1]] * 5, 500, 0)
    assert few.share_equal[1:] == approx(wilson(1.0, 10))
    # At a chance of 1/2, kappa = 2 p - 1.
    assert few.kappa == approx((1.0, 2 * wilson(1.0, 10)[0] - 1, 1.0))
    many = agreement_of([[1, 0, 0, 0], [0, 0, 0, 1]] * 500, 500, 0)
    assert many.kappa[1] > 0.99
    assert share_of([[1, 0]] * 10, 500, 0)[1:] == approx(wilson(1.0, 10))
    assert np.isnan(share_of(np.zeros((3, 2)), 500, 0)).all()


@pytest.mark.parametrize(("agree", "n_questions"), [(0.97, 40), (0.8, 60)])
def test_intervals_hold_the_truth(agree: float, n_questions: int) -> None:
    """Ten answers a question, whose difficulty both raters share; truth from 200,000 questions; 300 samples."""
    numbers = np.random.default_rng(5)

    def drawn(n: int) -> np.ndarray:
        right = numbers.random((n, 1)) < 0.5
        truth = np.where(numbers.random((n, 10)) < 0.9, right, ~right)
        flips = numbers.random((n, 10)) > np.where(numbers.random((n, 1)) < 0.5, agree, 2 * agree - 1)
        other = truth ^ flips
        return np.stack([(truth & other).sum(1), (truth & ~other).sum(1), (~truth & other).sum(1),
                         (~truth & ~other).sum(1)], axis=1)  # fmt: skip

    whole = drawn(200_000).sum(0)
    truths = (float(kappa_of(whole)), float(whole[[0, 3]].sum() / whole.sum()))
    held = np.zeros(2)
    for number in range(300):
        found = agreement_of(drawn(n_questions), 300, number)
        for at, (estimate, truth) in enumerate(zip((found.kappa, found.share_equal), truths, strict=True)):
            held[at] += estimate[1] <= truth <= estimate[2]
    assert (held / 300 > 0.90).all(), held / 300
