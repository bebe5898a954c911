"""A number before and after on the same units: by hand, against plain resampling, and coverage in simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.measures import paired as module
from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration import accuracy_at, auroc, brier, coverage_at, ece
from hcl_cli.measures.paired import (
    ACCURACY_AT_50,
    AUROC,
    BRIER,
    COVERAGE_AT_50,
    ECE,
    MEDIAN,
    PERPLEXITY,
    SHARE,
    mean_of,
    paired,
    statistic_value,
)

MEAN = mean_of()
CALIBRATION = {
    "brier": (BRIER, brier),
    "ece": (ECE, ece),
    "auroc": (AUROC, auroc),
    "accuracy@50": (ACCURACY_AT_50, accuracy_at),
    "coverage@50": (COVERAGE_AT_50, coverage_at),
}


def answers(seed, n=40, ties=True):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n)
    return np.stack([np.round(confidence, 1) if ties else confidence, rng.random(n) < 0.2 + 0.5 * confidence], axis=1)


def test_by_hand():
    """Right on 3 of 4 before and 2 of 4 after; perplexity of 2 texts: exp(6 / 4) before, exp(9 / 4) after."""
    found = paired([1, 1, 1, 0], [1, 0, 1, 0], MEAN)
    assert (found.before.value, found.after.value, found.difference.value) == (0.75, 0.5, -0.25)
    assert found.share_kept.value == approx(2 / 3) and found.n_units == 4
    losses = [[2.0, 1], [4.0, 3]], [[3.0, 1], [6.0, 3]]
    found = paired(*losses, PERPLEXITY, higher_is_better=False)
    assert found.before.value == approx(math.exp(1.5)) and found.after.value == approx(math.exp(2.25))
    assert found.share_kept.value == approx(math.exp(-0.75))
    assert paired([[1, 2], [1, 2]], [[0, 2], [1, 2]], SHARE).share_kept.value == approx(0.5)
    assert statistic_value([3.0, 9.0, 1.0], MEDIAN) == 3.0


@pytest.mark.parametrize("name", CALIBRATION)
def test_every_resample_is_the_statistic_of_the_rows_drawn(name):
    """Equality with the plain functions on the rows of each resample, repeated as often as drawn, ties included."""
    statistic, plain = CALIBRATION[name]
    values = answers(3)
    (counts,) = resample_counts(len(values), 50, 7)
    expected = [plain(*np.repeat(values, row.astype(int), axis=0).T) for row in counts]
    assert statistic.of(values, counts) == approx(expected, abs=1e-12)
    assert statistic_value(values, statistic) == approx(plain(*values.T), abs=1e-12)


def test_resampled_perplexity_and_median_are_those_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    values = np.stack([rng.gamma(4.0, size=9), rng.integers(1, 6, 9)], axis=1)
    (counts,) = resample_counts(9, 40, 1)
    drawn = [np.repeat(values, row.astype(int), axis=0) for row in counts]
    assert PERPLEXITY.of(values, counts) == approx([math.exp(one[:, 0].sum() / one[:, 1].sum()) for one in drawn])
    assert MEDIAN.of(values, counts) == approx([np.median(one[:, 0]) for one in drawn])


@pytest.mark.parametrize("statistic", [MEAN, SHARE, PERPLEXITY, *(pair[0] for pair in CALIBRATION.values())])
@pytest.mark.parametrize("higher", [True, False])
def test_the_same_model_differs_by_exactly_nothing_and_keeps_all(statistic, higher):
    values = answers(5) + (statistic in (SHARE, PERPLEXITY))
    values = values[:, :1] if statistic is MEAN else values
    found = paired(values, values, statistic, higher_is_better=higher, n_resamples=200, identical=True)
    assert found.difference == module.Estimate(0.0, 0.0, 0.0)
    assert found.share_kept == module.Estimate(1.0, 1.0, 1.0)
    assert found.before == found.after and found.before.low < found.before.value < found.before.high


def test_agreement_on_all_units_is_not_yet_the_same_model():
    """None of 50 answers differs; that one in 20 does elsewhere is not excluded. What many numbers say, is certain."""
    right = np.arange(50) % 3 > 0
    found = paired(right, right, MEAN, n_resamples=500)
    assert (
        found.difference.value == 0.0 and -0.12 < found.difference.low < -0.01 and 0.01 < found.difference.high < 0.12
    )
    assert found.share_kept.value == 1.0
    assert found.share_kept.low == approx(1 + found.difference.low / found.before.value)
    losses = np.random.default_rng(0).gamma(3.0, size=(50, 1)) * [1.0, 0.0] + [0.0, 2.0]
    found = paired(losses, losses, PERPLEXITY, n_resamples=500)
    assert (found.difference.low, found.difference.high, found.share_kept.low, found.share_kept.high) == (0, 0, 1, 1)


def test_pairing_helps_and_a_constant_loss_is_known_exactly():
    """Every text costs 0.1 nats a token more: the share of the perplexity kept is exp(-0.1), whatever is drawn."""
    rng = np.random.default_rng(1)
    before = np.stack([rng.gamma(2.0, size=30) * 20, np.full(30, 10.0)], axis=1)
    found = paired(before, before + [1.0, 0.0], PERPLEXITY, higher_is_better=False, n_resamples=300)
    assert (found.share_kept.low, found.share_kept.high) == approx((math.exp(-0.1), math.exp(-0.1)))
    assert found.before.high / found.before.low > 1.5
    assert 0 < found.difference.low < found.difference.value < found.difference.high


def test_units_without_a_value_are_left_out_of_all_four_numbers():
    found = paired([1, np.nan, 0, 1], [1, 1, np.nan, 0], MEAN)
    assert found.n_units == 2 and (found.before.value, found.after.value) == (1.0, 0.5)
    nothing = paired([np.nan], [1.0], MEAN)
    assert nothing.n_units == 0 and math.isnan(nothing.before.value) and math.isnan(nothing.share_kept.value)


def test_a_share_of_nothing_is_unknown():
    found = paired(np.zeros(20), np.ones(20), MEAN)
    assert math.isnan(found.share_kept.value) and found.difference.value == 1.0
    assert math.isnan(paired(np.ones(20), np.zeros(20), MEAN, higher_is_better=False).share_kept.value)
    assert paired(np.ones(20), np.zeros(20), MEAN).share_kept.value == 0.0
    all_right = np.stack([np.linspace(0.1, 0.9, 20), np.ones(20)], axis=1)
    assert math.isnan(paired(all_right, answers(1, 20), AUROC).difference.value)
    # Before, one question of 60 scores: about a third of the resamples have none, and the high end is anywhere.
    before = np.where(np.arange(60) == 3, 0.5, 0.0)
    after = np.where(np.arange(60) % 2, 0.3, 0.1)
    found = paired(before, after, MEAN)
    assert found.share_kept.value > 1 and math.isnan(found.share_kept.low) and math.isnan(found.share_kept.high)


def test_a_perplexity_that_no_number_can_hold():
    """A loss of 1,000 nats a token, after a cut that left nothing: unknown, without a warning."""
    before = np.stack([np.arange(1.0, 9), np.full(8, 2.0)], axis=1)
    found = paired(before, before + [2000.0, 0], PERPLEXITY, higher_is_better=False, n_resamples=50)
    assert math.isinf(found.after.value) and math.isnan(found.after.low) and math.isnan(found.difference.low)
    assert math.isnan(found.share_kept.value) and found.before.low < found.before.value < found.before.high


def test_one_unit_or_no_resample_has_no_interval():
    found = paired([0.5], [0.25], MEAN)
    assert found.share_kept.value == 0.5 and math.isnan(found.before.low) and math.isnan(found.share_kept.high)
    found = paired(answers(1), answers(2), ECE, n_resamples=0)
    assert found.before.value > 0 and math.isnan(found.before.low) and math.isnan(found.difference.low)
    with pytest.raises(ValueError, match="same units"):
        paired([1.0], [1.0, 2.0], MEAN)


@given(st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 2), st.floats(0.1, 1), st.floats(0.01, 0.99), st.floats(0, 2))
def test_a_ratio_of_two_estimates_ends_where_their_difference_may_be_nothing(a, down, up, b, low, high):
    """At the low end r, MOVER's interval of part - r x whole begins at 0; at the high end it ends there.

    Found by this law: a whole without an upper margin took the wrong one of two roots.
    """
    part, whole = module.Estimate(a, a * (1 - down), a * (1 + up)), module.Estimate(b, b * low, b * (1 + high))
    found = module._mover_ratio(part, whole)
    assert found.value == approx(a / b) and 0 <= found.low <= found.value * (1 + 1e-9) <= found.high * (1 + 2e-9)
    if whole.high < 2 * b:
        r = found.low
        assert a - r * b == approx(math.hypot(a - part.low, r * (whole.high - b)), abs=1e-6)
    r = found.high
    assert r * b - a == approx(math.hypot(part.high - a, r * (b - whole.low)), rel=1e-6, abs=1e-6)
    assert math.isnan(module._mover_ratio(part, module.Estimate(b, 0.0, 2 * b)).high)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_laws(rows):
    """Intervals hold their estimate and stay inside what is possible; swapping the models mirrors the difference."""
    confidence, right, other = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    one, two = np.stack([confidence, right], axis=1), np.stack([1 - confidence, other], axis=1)
    for statistic, columns in ((MEAN, 1), (BRIER, 2), (ACCURACY_AT_50, 2), (COVERAGE_AT_50, 2), (ECE, 2)):
        x, y = one[:, -columns:], two[:, -columns:]
        found = paired(x, y, statistic, n_resamples=60)
        mirrored = paired(y, x, statistic, n_resamples=60)
        assert mirrored.difference.value == approx(-found.difference.value, abs=1e-12)
        for estimate in (found.before, found.after, found.difference, found.share_kept):
            assert not estimate.low > estimate.value + 1e-9 and not estimate.high < estimate.value - 1e-9
        assert found.difference.low >= -1 and found.difference.high <= 1 and found.n_units == len(rows)


def coverage(statistic, draw, truth, n_runs=150, **options):
    """Share of simulations whose interval of the difference, and of the share kept, holds the truth; [2].

    An interval without an end goes on without bounds; where nothing is known (NaN at both ends) nothing counts.
    """
    held, known = np.zeros(2), np.zeros(2)
    for run in range(n_runs):
        found = paired(*draw(np.random.default_rng(run)), statistic, n_resamples=400, seed=run, **options)
        for place, (estimate, true) in enumerate(zip((found.difference, found.share_kept), truth, strict=True)):
            known[place] += not (math.isnan(estimate.low) and math.isnan(estimate.high))
            held[place] += (estimate.low <= true) and not true > estimate.high
    return held / known


def test_coverage_of_means_and_perplexities():
    """95 % was asked; two standard errors of 150 runs below it are 91.4 %."""

    def right(rng):
        before = rng.random(80) < 0.8
        return before, before & (rng.random(80) < 0.75)

    def losses(rng):
        before = np.stack([rng.gamma(5.0, 4.0, 60), np.full(60, 10.0)], axis=1)
        return before, before + np.stack([rng.gamma(2.0, 1.0, 60), np.zeros(60)], axis=1)

    assert (coverage(MEAN, right, (-0.2, 0.75)) > 0.88).all()
    truth = math.exp(2.2) - math.exp(2.0), math.exp(-0.2)
    assert (coverage(PERPLEXITY, losses, truth, higher_is_better=False) > 0.88).all()


@pytest.mark.long
@pytest.mark.parametrize("name", CALIBRATION)
def test_coverage_of_calibration(name):
    """Two models, the second less often right at the same confidence; the truth from a sample of 200,000."""
    statistic, plain = CALIBRATION[name]

    def draw(rng, n=100):
        confidence = rng.random(n)
        luck = rng.random(n)
        one = np.stack([confidence, luck < 0.1 + 0.8 * confidence], axis=1)
        return one, np.stack([confidence, luck < 0.1 + 0.5 * confidence], axis=1)

    before, after = (plain(*side.T) for side in draw(np.random.default_rng(10**6), 200_000))
    truth = after - before, after / before
    found = coverage(statistic, draw, truth, n_runs=400)
    assert (found > 0.88).all(), found
