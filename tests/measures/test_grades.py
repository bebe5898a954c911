"""Ratios of grades: by hand, against scikit-learn's harmonic mean, and how often their intervals hold the truth."""

import numpy as np
import pytest
from pytest import approx

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.grades import correct_given_attempted, grades_f1, ratio_difference, ratio_estimate

C, I, N = (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)  # noqa: E741


def estimate(ratio, shares):
    shares = np.asarray(shares)
    return ratio_estimate(ratio, shares, resampled_means(shares, 1000, seed=1))


def test_by_hand() -> None:
    """Two right, one wrong, one not attempted: 2/3 of what was attempted, and 2 (2/3)(1/2) / (2/3 + 1/2) = 4/7."""
    means = np.array([C, C, I, N]).mean(axis=0)
    assert correct_given_attempted(means) == approx(2 / 3)
    assert grades_f1(means) == approx(4 / 7)
    assert correct_given_attempted(np.array([0.0, 0.0])) == grades_f1(np.array([0.0, 0.0])) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    from sklearn.metrics import f1_score

    # An answer that is right is a true positive, a wrong one a false positive and a miss, none at all a miss.
    grades = np.array([C] * 5 + [I] * 3 + [N] * 4)
    truth = [1] * 5 + [0] * 3 + [1] * 3 + [1] * 4
    said = [1] * 5 + [1] * 3 + [0] * 3 + [0] * 4
    assert grades_f1(grades.mean(axis=0)) == approx(f1_score(truth, said))


@pytest.mark.parametrize("ratio", [correct_given_attempted, grades_f1])
@pytest.mark.parametrize(("correct", "incorrect"), [(0.4, 0.4), (0.1, 0.2), (0.85, 0.1)])
def test_intervals_hold_the_truth(ratio, correct, incorrect) -> None:
    """300 studies of 60 questions; 95 % is asked for, a binomial error of 1.3 % allows 91 to 100 %."""
    rng = np.random.default_rng(0)
    truth = float(ratio(np.array([correct, correct + incorrect])))
    drawn = rng.choice(3, p=[correct, incorrect, 1 - correct - incorrect], size=(300, 60))
    held = 0
    for study in np.array([C, I, N])[drawn]:
        value, low, high = estimate(ratio, study)
        assert low is not None and low <= value <= high
        held += low <= truth <= high
    assert 0.91 <= held / 300 <= 1.0


@pytest.mark.parametrize("ratio", [correct_given_attempted, grades_f1])
def test_where_no_question_differs_the_interval_is_not_a_point(ratio) -> None:
    value, low, high = estimate(ratio, [C] * 20)
    assert value == 1 and high == 1 and 0.6 < low < 0.9
    assert estimate(ratio, [N] * 20) == (0.0, None, None)
    assert estimate(ratio, [C]) == (1.0, None, None)


def test_differences_are_paired() -> None:
    """The same grades differ by nothing, surely; better ones on every question by the means' difference."""
    rng = np.random.default_rng(1)
    grades = np.array([C, I, N])[rng.choice(3, size=80)]
    both = np.concatenate([grades, grades], axis=1)
    assert ratio_difference(grades_f1, both, resampled_means(both, 500, seed=1)) == (0.0, 0.0, 0.0)
    better = np.array([C, C, N])[rng.choice(3, size=80)]
    both = np.concatenate([better, grades], axis=1)
    value, low, high = ratio_difference(correct_given_attempted, both, resampled_means(both, 500, seed=1))
    assert value == approx(1 - correct_given_attempted(grades.mean(axis=0)))
    assert 0 < low < value < high <= 1
