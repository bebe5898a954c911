"""The best layer: how often an identical one is called better, how often a better one is found."""

import numpy as np
import pytest
from pytest import approx
from scipy import stats

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.hcb import PRESETS, linear_part
from hcl_cli.measures.selection import best_set, better_than

N_QUESTIONS, N_LAYERS, N_SAMPLES, RESAMPLES = 80, 8, 20, 500


def simulated(n_curves, gain, seed):
    """(diversity, wrong) of [curve, question, layer]: layers share a question's difficulty, nothing else.

    `gain` [layer] is added to the mean number of meanings that a question's right answers fall into.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1.5, (n_curves, N_QUESTIONS, 1))
    right = rng.binomial(N_SAMPLES, 1 / (1 + np.exp(difficulty)), (n_curves, N_QUESTIONS, N_LAYERS))
    meanings = 1 + rng.poisson(2 + gain, right.shape)
    found = np.minimum(rng.binomial(meanings, 1 - (1 - 1 / meanings) ** right), right)
    return found.astype(float), 1 - right / N_SAMPLES


def scores(diversity, wrong, weights):
    """For each curve (score [layer], resampled [resample, layer]), the scales of each curve held."""
    flat = np.concatenate([diversity, wrong], axis=2).transpose(1, 0, 2).reshape(N_QUESTIONS, -1)
    drawn = resampled_means(flat, RESAMPLES, seed=0).reshape(RESAMPLES, len(diversity), 2, N_LAYERS)
    for curve in range(len(diversity)):
        observed = diversity[curve].mean(axis=0), wrong[curve].mean(axis=0)
        yield (
            linear_part(*observed, weights, observed),
            linear_part(drawn[:, curve, 0], drawn[:, curve, 1], weights, observed),
        )


@pytest.mark.parametrize("preset", ["script", "figure"])
def test_identical_layers_are_rarely_called_better_than_the_last(preset):
    """Choosing and testing on the same data rejects in 27 % of such runs; with the choice inside, about 5 %."""
    curves = scores(*simulated(1000, np.zeros(N_LAYERS), seed=1), PRESETS[preset])
    p_values = np.array([better_than(score, drawn, N_QUESTIONS)[3] for score, drawn in curves])
    assert 0.02 <= (p_values <= 0.05).mean() <= 0.07


def test_choosing_first_and_testing_the_choice_would_reject_far_too_often():
    rejected = 0
    for score, drawn in scores(*simulated(300, np.zeros(N_LAYERS), seed=1), PRESETS["script"]):
        best = int(np.argmax(score))
        rejected += ((drawn[:, best] - drawn[:, -1]) <= 0).mean() <= 0.05 and best != N_LAYERS - 1
    assert rejected / 300 > 0.2


def test_a_truly_better_layer_is_found():
    gain = np.zeros(N_LAYERS)
    gain[4] = 1.0
    found = [better_than(score, drawn, N_QUESTIONS) for score, drawn in
             scores(*simulated(200, gain, seed=2), PRESETS["script"])]  # fmt: skip
    assert np.mean([p <= 0.05 for _, _, _, p in found]) > 0.65


def test_the_truly_best_layer_stays_in_the_set_and_poor_ones_leave():
    gain = np.array([0.0, 0, 0.8, 1.0, 1.0, 0.8, -1, -1.5])
    kept = [best_set(score, drawn, N_QUESTIONS) for score, drawn in
            scores(*simulated(300, gain, seed=3), PRESETS["figure"])]  # fmt: skip
    shares = np.mean(kept, axis=0)
    assert min(shares[3], shares[4]) >= 0.93
    assert shares[6] < 0.1 and shares[7] < 0.02


def test_the_last_layer_as_the_best_has_p_one():
    score = np.array([0.1, 0.2, 0.3])
    noise = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    lead, low, high, p_value = better_than(score, score + noise, 40)
    assert (lead, p_value) == (0.0, 1.0) and np.isnan([low, high]).all()


def test_layers_are_told_apart_by_their_paired_difference():
    """Noise that all layers share cancels; the same amount of each layer's own does not."""
    rng = np.random.default_rng(1)
    score = np.array([1.0, 0.9, 0.5])
    shared, own = rng.normal(0, 1, (400, 1)), rng.normal(0, 1, (400, 3))
    assert list(best_set(score, score + shared + 0.01 * own, 100)) == [True, False, False]
    assert list(best_set(score, score + 0.01 * shared + own, 100)) == [True, True, True]


def test_a_certain_lead_and_a_certain_tie():
    """Nothing varies over the resamples: the lead is exact, and layers that are equal stay together."""
    score = np.array([0.5, 0.9, 0.9, 0.2])
    still = np.tile(score, (99, 1))
    assert better_than(score, still, 40) == (approx(0.7), approx(0.7), approx(0.7), approx(1 / 100))
    assert list(best_set(score, still, 40)) == [False, True, True, False]


def test_the_p_value_is_the_named_layer_s():
    """A bug: layer 2 leads by little but surely, layer 1 by more but within its noise. The p-value of the surest
    lead was printed as that of the largest."""
    rng = np.random.default_rng(0)
    score = np.array([0.30, 0.10, 0.0])
    drawn = score + rng.normal(0, 1, (999, 3)) * [0.25, 0.01, 0.0]
    lead, low, _, p_value = better_than(score, drawn, 1000)
    assert lead == approx(0.30) and low < 0
    # two independent leads, the largest of them at least 1.2: 1 - Phi(1.2)^2
    assert p_value == approx(1 - stats.norm.cdf(1.2) ** 2, abs=0.04)


def test_the_lead_s_interval_by_hand():
    """Two layers, noise +-1 with equal chances: s = 1 and the 95 % quantile of |noise| / s is 1."""
    drawn = np.array([[2.0, 0.0], [0.0, 0.0]] * 50)
    lead, low, high, p_value = better_than(np.array([1.0, 0.0]), drawn, 10**6)
    assert (lead, low, high) == (approx(1), approx(0, abs=1e-5), approx(2, abs=1e-5))
    assert p_value == approx(51 / 101)
