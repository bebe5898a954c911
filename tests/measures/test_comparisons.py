"""Paired tests between layers and models: exact p-values, the family-wise error, power, and the choice counted in."""

import numpy as np
import pytest
from pytest import approx
from scipy import stats
from test_selection import N_LAYERS, simulated

from hcl_cli.measures.association import mean_correlation
from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.comparisons import holm, models_at_best, pair_tests
from hcl_cli.measures.hcb import PRESETS, linear_part
from hcl_cli.measures.selection import simultaneous_band

LAST = np.arange(N_LAYERS - 1), np.full(N_LAYERS - 1, N_LAYERS - 1)
ALL = np.triu_indices(N_LAYERS, k=1)


def compared(values, pairs, seed, flips=400, resamples=0):
    first, second = pairs
    differences = values[:, first] - values[:, second]
    drawn = resampled_means(differences, resamples, 0) if resamples else np.empty((0, len(first)))
    return pair_tests(differences, drawn, (-1.0, 1.0), flips, seed)


def test_a_p_value_is_that_of_all_sign_flips():
    """Peer: scipy's permutation test over all 2^9 sign flips."""
    differences = np.random.default_rng(3).normal(0.5, 1.0, (9, 1))
    exact = stats.permutation_test((differences[:, 0],), np.mean, permutation_type="samples", n_resamples=np.inf)
    ours = pair_tests(differences, np.empty((0, 1)), (-np.inf, np.inf), 40_000, seed=0)
    assert ours.p_permutation[0] == approx(exact.pvalue, abs=0.008)
    assert ours.p_adjusted[0] == ours.p_permutation[0]  # a family of one


def test_three_questions_by_hand():
    """All differences are positive: of 8 sign patterns the observed one and its opposite reach the mean."""
    found = pair_tests(np.array([[0.2], [0.1], [0.4]]), np.empty((0, 1)), (-1, 1), 40_000, seed=1)
    assert found.difference[0] == approx(0.7 / 3)
    assert found.p_permutation[0] == approx(2 / 8, abs=0.01)
    assert np.isnan([found.low, found.band_high, found.p_bootstrap]).all()  # no resample, nothing said


def test_flips_exchange_the_layers_within_a_question():
    """Swapping the two layers of some questions changes neither the spread under the null nor, here, the p-value."""
    values = np.random.default_rng(0).random((30, 2))
    swapped = values.copy()
    swapped[:30] = swapped[:30, ::-1]
    pair = np.array([0]), np.array([1])
    one, other = compared(values, pair, seed=5, resamples=300), compared(swapped, pair, seed=5, resamples=300)
    assert other.difference == approx(-one.difference) and other.p_permutation == one.p_permutation
    assert (other.band_low, other.p_bootstrap) == (approx(-one.band_high), one.p_bootstrap)


def test_one_question_or_none_says_nothing():
    for n in (0, 1):
        found = pair_tests(np.zeros((n, 2)), np.empty((0, 2)), (-1, 1), 99, seed=0)
        assert np.isnan(found.p_adjusted).all() and np.isnan(found.low).all()


def test_identical_layers_have_p_one_and_a_sure_difference_the_least_p():
    values = np.tile([0.5, 0.5, 0.9], (40, 1))
    found = compared(values, (np.array([0, 2]), np.array([1, 1])), seed=0, flips=199, resamples=200)
    assert found.p_permutation.tolist() == [1.0, approx(1 / 200)]
    assert found.p_bootstrap.tolist() == [1.0, approx(1 / 201)]
    assert found.difference.tolist() == approx([0.0, 0.4])


# ----------------------------------------------------------------------------------------- many layers, all the same


def rejections(n_curves, pairs, metric, flips, seed):
    """Shares of null curves in which (any corrected p, the p of the pair chosen as the largest) is at most .05."""
    data = simulated(n_curves, np.zeros(N_LAYERS), seed)[metric]
    found = []
    for number, values in enumerate(data):
        tests = compared(values, pairs, seed=number, flips=flips)
        chosen = int(np.argmax(np.abs(tests.difference)))
        found.append((tests.p_adjusted.min(), tests.p_permutation[chosen]))
    return (np.array(found) <= 0.05).mean(axis=0)


@pytest.mark.parametrize(("pairs", "naive_at_least"), [(LAST, 0.15), (ALL, 0.35)], ids=["last", "all"])
@pytest.mark.parametrize("metric", [0, 1], ids=["creativity", "hallucination"])
def test_corrected_for_many_layers_identical_ones_differ_in_5_percent_of_curves(metric, pairs, naive_at_least):
    """Testing the pair that looks largest as if it had been named beforehand finds one in 16 to 50 %."""
    corrected, naive = rejections(400, pairs, metric, flips=300, seed=1)
    assert corrected <= 0.085  # 400 curves: 5 % and three standard errors
    assert corrected >= 0.02
    assert naive > naive_at_least


def chosen_by_hcb(n_curves, flips, seed):
    """Shares of null curves where (any corrected p of HCB, the one-sided p of the best against the last) is <= .05."""
    found = []
    for number, (diversity, wrong) in enumerate(zip(*simulated(n_curves, np.zeros(N_LAYERS), seed), strict=True)):
        score = linear_part(diversity, wrong, PRESETS["script"], (diversity.mean(axis=0), wrong.mean(axis=0)))
        best, tests = int(np.argmax(score.mean(axis=0))), compared(score, LAST, seed=number, flips=flips)
        found.append((tests.p_adjusted.min(), tests.p_permutation[best] / 2 if best < N_LAYERS - 1 else 1.0))
    return (np.array(found) <= 0.05).mean(axis=0)


def test_hcb_with_its_scales_held_keeps_the_level_and_the_best_layer_tested_naively_does_not():
    corrected, naive = chosen_by_hcb(400, flips=300, seed=1)
    assert 0.02 <= corrected <= 0.085
    assert naive > 0.14


@pytest.mark.long
def test_the_family_wise_error_of_hcb_in_many_curves():
    corrected, naive = chosen_by_hcb(4000, flips=999, seed=7)
    assert 0.035 <= corrected <= 0.065 and naive > 0.15


@pytest.mark.long
@pytest.mark.parametrize("pairs", [LAST, ALL], ids=["last", "all"])
@pytest.mark.parametrize("metric", [0, 1], ids=["creativity", "hallucination"])
def test_the_family_wise_error_in_many_curves(metric, pairs):
    corrected, naive = rejections(4000, pairs, metric, flips=999, seed=7)
    assert 0.035 <= corrected <= 0.065
    assert naive > 0.15


def test_a_layer_that_differs_is_found_and_the_others_are_not():
    gain = np.zeros(N_LAYERS)
    gain[4] = 1.2
    data = simulated(120, gain, seed=2)[0]
    adjusted = np.stack([compared(values, LAST, seed=n, flips=300).p_adjusted for n, values in enumerate(data)])
    found = (adjusted <= 0.05).mean(axis=0)
    assert found[4] > 0.7 and np.delete(found, 4).max() < 0.05


def test_the_band_holds_all_differences_at_once():
    data = simulated(300, np.zeros(N_LAYERS), seed=5)[1]
    held = []
    for number, values in enumerate(data):
        tests = compared(values, LAST, seed=number, flips=0, resamples=400)
        held.append(((tests.band_low <= 0) & (tests.band_high >= 0)).all())
        assert (tests.band_low <= tests.low).all() and (tests.band_high >= tests.high).all()
    assert 0.91 <= np.mean(held) <= 0.985


def test_the_simultaneous_band_by_hand():
    """Two columns, noise +-1 and +-2 alike: each is +-1 in its own units, so the 95 % quantile is 1."""
    drawn = np.array([[2.0, 2.0], [0.0, -2.0]] * 50)
    low, high, p = simultaneous_band(np.array([1.0, 0.0]), drawn, 10**6)
    assert low == approx([0, -2], abs=1e-4) and high == approx([2, 2], abs=1e-4)
    assert p == approx([1.0, 1.0])
    assert np.isnan(simultaneous_band(np.array([1.0]), np.empty((0, 1)), 10)).all()


# ------------------------------------------------------------------------------------------- models at their best


def models(seed, gain=0.0, n=60):
    """(wrong, diversity) of two models, [question, layer]; the second makes `gain` more meanings at layer 2."""
    lift = np.zeros(4)
    lift[2] = gain
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1.5, (n, 1))
    right = [rng.binomial(10, 1 / (1 + np.exp(difficulty)), (n, 4)) for _ in range(2)]
    extra = [np.zeros(4), lift]
    made = [np.minimum(rng.poisson(1 + more, (n, 4)) + (r > 0), r) for more, r in zip(extra, right, strict=True)]
    return tuple(1 - r / 10 for r in right), tuple(m.astype(float) for m in made)


def at_best(wrong, diversity, flips=200, resamples=200):
    drawn = resampled_means(np.concatenate([*wrong, *diversity], axis=1), resamples, 0)
    return models_at_best(wrong, diversity, drawn, PRESETS["script"], flips, seed=1)


def test_models_of_one_law_differ_at_their_best_layers_in_5_percent_of_runs():
    found = np.stack([at_best(*models(seed), resamples=0).p_permutation for seed in range(300)])
    assert (found <= 0.05).mean(axis=0).max() <= 0.09
    assert (found <= 0.05).mean() >= 0.02


def test_a_more_creative_model_is_found_at_its_best_layer():
    found = [at_best(*models(seed, gain=2.0)) for seed in range(20)]
    assert np.mean([one.best[1] == 2 for one in found]) > 0.9
    assert np.mean([one.p_permutation[1] <= 0.05 for one in found]) > 0.8
    assert all(one.low[1] <= one.difference[1] <= one.high[1] for one in found)


def test_models_at_their_best_by_hand():
    """Two questions, two layers. The first model is best at layer 0 (2 meanings), the second at layer 1 (4)."""
    wrong = np.array([[0.5, 0.5], [0.1, 0.1]]), np.array([[0.4, 0.6], [0.4, 0.2]])
    diversity = np.array([[2.0, 1.0], [2.0, 1.0]]), np.array([[1.0, 4.0], [1.0, 4.0]])
    found = at_best(wrong, diversity)
    assert found.best == (0, 1)
    # common scale: creativity from 1 to 4; first (2 - 1) / 3 / 2 + (1 - .3) / 2, second 1 / 2 + (1 - .4) / 2
    assert found.values.tolist() == [approx([0.3, 2, 1 / 6 + 0.35]), approx([0.4, 4, 0.8])]
    assert found.difference.tolist() == approx([-0.1, -2, 1 / 6 + 0.35 - 0.8])


def test_unlike_numbers_of_layers_are_not_exchanged_and_the_bootstrap_speaks():
    wrong, diversity = models(0, gain=3.0)
    found = at_best((wrong[0][:, :3], wrong[1]), (diversity[0][:, :3], diversity[1]))
    assert np.isnan(found.p_permutation).all() and found.p_bootstrap[1] < 0.05


def test_questions_without_creativity_count_for_hallucination_alone():
    wrong, diversity = models(1)
    known = np.arange(60) % 2 == 0
    parts = tuple(np.where(known[:, None], part, np.nan) for part in diversity)
    found = at_best(wrong, parts)
    assert found.values[0, 1] == approx(diversity[0][known].mean(axis=0)[found.best[0]])
    assert found.values[0, 0] == approx(wrong[0].mean(axis=0)[found.best[0]])
    nothing = at_best(wrong, tuple(np.full_like(part, np.nan) for part in diversity))
    assert nothing.best == (-1, -1) and np.isnan(nothing.p_bootstrap).all()


def test_holm_by_hand():
    # sorted .01 .03 .04: 3 x .01, 2 x .03, then no less than the one before
    assert holm([0.01, 0.04, 0.03]).tolist() == approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]


def test_mean_correlation_by_hand():
    # artanh .5 = .5493; weights 1 and 3
    assert mean_correlation([0.5, 0.0], [1, 3]) == approx(np.tanh(0.5493061 / 4))
    assert mean_correlation([0.5, np.nan], [1, 3]) == approx(0.5)
    assert np.isnan(mean_correlation([np.nan], [1]))
    assert mean_correlation([1.0, -1.0], [2, 2]) == approx(0.0)
