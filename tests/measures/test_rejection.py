"""AUROC and accuracy after rejection: values by hand, the published arithmetic, scikit-learn, and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from sklearn.metrics import roc_auc_score

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration_intervals import auroc_interval, auroc_lead, resampled_auroc
from hcl_cli.measures.rejection import AREA, SHARES, JudgedAnswers, accuracy_estimates, aurac, rejection


def questions(uncertainty, wrong):
    """One row per question."""
    wrong = np.array(wrong, dtype=float)
    return JudgedAnswers(np.arange(len(wrong)), np.array(uncertainty, dtype=float), 1 - wrong, wrong, len(wrong))


def resamples(n, n_resamples=300, seed=0):
    return np.concatenate(list(resample_counts(n, n_resamples, seed)))


def none(n):
    return np.empty((0, n))


def published_area(accuracies, uncertainties):
    """The published arithmetic: accuracy of what is at most the quantile, at 20 quantiles, summed times the step."""
    at = np.linspace(0.1, 1, 20)
    kept = [np.mean(accuracies[uncertainties <= np.quantile(uncertainties, one)]) for one in at]
    return np.array(kept), float(np.sum(kept) * (at[1] - at[0]))


def test_by_hand():
    # Five questions: the three certain ones are right, half right and right, the uncertain ones wrong.
    found = rejection(questions([0.1, 0.2, 0.3, 0.8, 0.9], [0, 0.5, 0, 1, 1]), none(5))
    # Wrong against right pairs: .5 wrong at .2 beats 1 right at .1, ties with its own half, loses to 1 right at .3;
    # both others beat all 2.5 right: (.5 x 1 + .25 / 2 + 2 x 2.5) / (2.5 x 2.5)
    assert found.auroc.value == approx((0.5 + 0.125 + 5) / 6.25)
    # floor(4 q) + 1 questions are kept: 1 up to q < 1/4, 2 up to < 1/2, 3, 4, and 5 at 1.
    by_number = {1: 1.0, 2: 0.75, 3: 2.5 / 3, 4: 2.5 / 4, 5: 0.5}
    numbers = [math.floor(4 * share + 1e-9) + 1 for share in SHARES]
    assert found.accuracy.tolist() == approx([by_number[number] for number in numbers])
    assert found.cutoff.tolist() == [[0.1, 0.2, 0.3, 0.8, 0.9][number - 1] for number in numbers]
    assert (found.taken > 0).sum(axis=1).tolist() == numbers
    assert aurac(found).value == approx(np.mean([by_number[number] for number in numbers]))


def test_what_ties_with_the_cutoff_is_kept():
    found = rejection(questions([0, 0, 0, 0, 1], [0, 0, 0, 1, 1]), none(5))
    assert found.accuracy.tolist() == approx([0.75] * 19 + [0.6])
    assert found.auroc.value == approx((3 + 1.5) / 6)  # of the six pairs three are won and three tie


def test_no_uncertainty_says_nothing_and_perfect_uncertainty_says_all():
    same = rejection(questions([2] * 6, [0, 1, 0, 1, 0, 1]), none(6))
    assert (same.auroc.value, aurac(same).value) == (0.5, 0.5)
    perfect = rejection(questions(range(20), [0] * 10 + [1] * 10), resamples(20))
    assert perfect.auroc.value == 1
    assert auroc_interval(perfect.auroc).low < 0.95  # not [1, 1]
    assert perfect.accuracy[0] == 1
    assert math.isnan(rejection(questions(range(4), [0] * 4), resamples(4)).auroc.value)  # nothing wrong to find


SAMPLES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=40)


@given(SAMPLES)
@settings(max_examples=80, deadline=None)
def test_accuracies_and_area_are_the_published_ones_and_auroc_is_that_of_scikit_learn(drawn):
    uncertainty, wrong = np.array([u for u, _ in drawn], float), np.array([w / 4 for _, w in drawn])
    found = rejection(questions(uncertainty, wrong), none(len(drawn)))
    # Where (n - 1) q is whole, np.quantile may round to either side of it; the rest must agree.
    position = (len(drawn) - 1) * SHARES
    sure = np.abs(position - np.round(position)) > 1e-6
    accuracies, area = published_area(1 - wrong, uncertainty)
    assert found.accuracy[sure] == approx(accuracies[sure])
    if sure[:-1].all():
        assert aurac(found).value * AREA == approx(area)
    if 0 < wrong.mean() < 1:
        expected = roc_auc_score(
            [1] * len(drawn) + [0] * len(drawn), [*uncertainty, *uncertainty], sample_weight=[*wrong, *(1 - wrong)]
        )
        assert found.auroc.value == approx(expected)


def test_the_published_area_of_perfect_answers_is_18_19ths():
    assert AREA == approx(18 / 19)
    assert published_area(np.ones(10), np.arange(10.0))[1] == approx(18 / 19)


def test_every_resample_is_what_the_questions_drawn_would_give():
    numbers = np.random.default_rng(0)
    uncertainty, wrong = numbers.integers(0, 9, 23).astype(float), numbers.integers(0, 5, 23) / 4
    counts = resamples(23, 40)
    found = rejection(questions(uncertainty, wrong), counts)
    for number, count in enumerate(counts.astype(int)):
        again = rejection(questions(np.repeat(uncertainty, count), np.repeat(wrong, count)), none(23))
        assert found.drawn[number] == approx(again.accuracy)
        assert found.auroc.draws[number] == approx(again.auroc.value)


def test_answers_with_uncertainties_of_their_own_are_as_in_the_calibration():
    """The same AUROC, resamples, influence and slips as `resampled_auroc`, which ranks in another way."""
    numbers = np.random.default_rng(1)
    question = np.repeat(np.arange(30), 4)
    uncertainty = np.round(numbers.random(120), 1) + question / 50
    wrong = numbers.random(120) < 0.2 + 0.4 * uncertainty
    counts = resamples(30)
    answers = JudgedAnswers(question, uncertainty, (~wrong) / 4, wrong / 4, 30)
    found, peer = rejection(answers, counts).auroc, resampled_auroc(uncertainty, wrong, question, None, counts)
    assert found.value == approx(peer.value)
    assert found.draws == approx(peer.draws)
    assert found.influence == approx(peer.influence)
    assert found.slips == approx(peer.slips, abs=1e-11)
    assert (found.n_positive, found.n_negative) == (peer.n_positive, peer.n_negative)
    kept = rejection(answers, none(30))
    # Half of the questions' worth of answers, the least uncertain: at least floor(29 x .526) + 1 of 30.
    assert kept.taken[9].sum() == approx(math.floor(29 * SHARES[9]) + 1, abs=1)
    assert kept.accuracy[-1] == approx(1 - wrong.mean())


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(order):
    numbers = np.random.default_rng(3)
    question, uncertainty = np.repeat(np.arange(6), 2), numbers.integers(0, 4, 12).astype(float)
    wrong = numbers.integers(0, 2, 12) / 2
    counts = resamples(6, 50)

    def of(rows):
        rows = np.array(rows)
        return rejection(JudgedAnswers(question[rows], uncertainty[rows], 0.5 - wrong[rows], wrong[rows], 6), counts)

    one, other = of(order), of(range(12))
    assert one.drawn.tolist() == other.drawn.tolist()
    assert one.auroc.draws.tolist() == other.auroc.draws.tolist()
    assert one.cutoff.tolist() == other.cutoff.tolist()


def test_a_planted_auroc_is_found():
    """Uncertainty uniform, P(wrong) = u: AUROC = 1 / (1 - 1/2) / (1/2) x P(u > v, wrong, right) = 5/6."""
    # The density of u among the wrong is 2u, among the right 2(1 - u): E[1 - (1 - u)^2 under 2u] = 1 - 1/6 = 5/6.
    numbers = np.random.default_rng(5)
    uncertainty = numbers.random(4000)
    wrong = numbers.binomial(10, uncertainty) / 10
    found = rejection(questions(uncertainty, wrong), resamples(4000, 200))
    estimate = auroc_interval(found.auroc)
    assert estimate.low < 5 / 6 < estimate.high
    assert estimate.value == approx(5 / 6, abs=0.01)
    # Accuracy of the share q kept is 1 - q/2, on average over .1 .. 1 it is 1 - .55/2.
    area = aurac(found)
    assert area.low < 1 - 0.55 / 2 < area.high
    assert area.high - area.low < 0.03


def test_the_lead_is_paired():
    numbers = np.random.default_rng(6)
    uncertainty = numbers.random(200)
    wrong = numbers.binomial(10, uncertainty) / 10
    counts = resamples(200)
    good = rejection(questions(uncertainty, wrong), counts).auroc
    almost = rejection(questions(uncertainty + numbers.normal(0, 0.05, 200), wrong), counts).auroc
    lead = auroc_lead(good, almost)
    assert lead.value == approx(good.value - almost.value)
    assert lead.high - lead.low < 0.5 * (auroc_interval(good).high - auroc_interval(good).low)


def test_answers_that_are_all_alike_have_intervals_that_know_how_few_they_are():
    found = rejection(questions(np.arange(10), [0] * 10), resamples(10))
    ends = accuracy_estimates(found)
    assert [one.value for one in ends] == [1.0] * 20
    assert (ends[0].high, ends[0].low < ends[-1].low) == (1.0, True)
    assert ends[-1].low == approx(10 / (10 + 1.96**2), abs=1e-3)  # Wilson: all of 10
    assert aurac(found).low == approx(np.mean([one.low for one in ends]))


def test_without_resamples_there_is_no_interval():
    found = rejection(questions([1, 2, 3], [0, 1, 1]), none(3))
    assert all(math.isnan(one.low) and math.isnan(one.high) for one in [*accuracy_estimates(found), aurac(found)])
    assert math.isnan(auroc_interval(found.auroc).low)


def drawn_questions(numbers, n, base, slope):
    """P(wrong) is logistic in an uncertainty that is uniform; 10 answers each."""
    uncertainty = numbers.random(n)
    wrong = numbers.binomial(10, 1 / (1 + np.exp(-(base + slope * (uncertainty - 0.5))))) / 10
    return questions(uncertainty, wrong)


@pytest.mark.parametrize(("n", "base", "slope"), [(60, 0, 4), (200, 0, 4), (60, -3, 4), (60, 0, 0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n, base, slope):
    """95 % asked. Measured over 300 runs: AUROC .94 to .97, AURAC .93 to .96, accuracy of the half kept .93 to .99."""
    numbers = np.random.default_rng(1)
    truth = rejection(drawn_questions(numbers, 300_000, base, slope), none(300_000))
    held = {"auroc": 0, "aurac": 0, "half": 0}
    runs = 200
    for run in range(runs):
        found = rejection(drawn_questions(numbers, n, base, slope), resamples(n, 500, run))
        half = accuracy_estimates(found)[10]
        for name, one, value in (
            ("auroc", auroc_interval(found.auroc), truth.auroc.value),
            ("aurac", aurac(found), truth.accuracy.mean()),
            ("half", half, truth.accuracy[10]),
        ):
            held[name] += one.low <= value <= one.high
    assert all(0.9 <= count / runs for count in held.values()), held
