"""What can be said about a layer that was chosen because it looked best.

Choosing and testing on the same data calls an identical layer better in 27 % of runs, so the choice is made again in
every resample. All functions take means over questions with the min-max scales held fixed (`hcb.linear_part`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.intervals import LEVEL

Floats = npt.NDArray[np.float64]
EPSILON = 1e-12


def best_set(score: Floats, resampled: Floats, n_questions: int) -> npt.NDArray[np.bool_]:
    """Layers that cannot be told apart from the best one.

    A layer i stays if its distance to the best, h_best - h_i, lies inside the simultaneous 95 % band of the
    distances of all layers to i: at most q_i times its standard error, where q_i is the 95 % quantile over resamples
    of the largest standardised centred difference max_j ((h*_j - h*_i) - (h_j - h_i)) / s_ij. The maximum runs over
    all layers, so it counts in that the best was chosen; the truly best layer stays in with about 95 % or more.

    Args:
        score: [layer].
        resampled: [resample, layer], no NaN.
        n_questions: questions behind the score.
    Returns:
        [layer]; the layer with the highest score is always in.
    Source: multiple comparisons with the best (Hsu 1981), its quantiles from the bootstrap.
    """
    best = int(np.argmax(np.round(score, 12)))
    inside = np.zeros(len(score), dtype=np.bool_)
    centred = resampled - score
    for layer in range(len(score)):
        standardised, error = _standardised(centred - centred[:, [layer]], n_questions)
        bound = float(np.quantile(standardised.max(axis=1), LEVEL)) if len(standardised) else 0.0
        inside[layer] = score[best] - score[layer] <= bound * error[best] + EPSILON
    return inside


def better_than(
    score: Floats, resampled: Floats, n_questions: int, reference: int = -1
) -> tuple[float, float, float, float]:
    """Does the best layer beat one that was named beforehand, the last one? Its lead, its interval and the p-value.

    The statistic is the best layer's own standardised lead over that one, (h_best - h_last) / s_best. Every
    resample chooses anew: the p-value is the share of resamples in which the largest standardised centred lead of
    any layer is at least as high. It is one-sided and speaks of the best layer alone: a small but steady lead of
    another layer does not lower it. The interval is the simultaneous two-sided 95 % band of all leads, which holds
    whichever layer is chosen; it may touch 0 where p lies between .025 and .05.

    Args:
        score: [layer].
        resampled: [resample, layer], no NaN.
        n_questions: questions behind the score.
        reference: the entry to beat; by default the last layer.
    Returns:
        (lead >= 0, low, high, p in (0, 1]); p is 1 and the interval NaN if the reference is the best, alone or with
        others (differences below 1e-12 are ties).
    Source: single-step max-T (Westfall and Young 1993), standardised as in Hansen 2005.
    """
    lead = score - score[reference]
    best = int(np.argmax(np.round(lead, 12)))
    if lead[best] <= EPSILON or not len(resampled):
        return max(0.0, float(lead[best])), math.nan, math.nan, 1.0 if len(resampled) else math.nan
    standardised, error = _standardised(resampled - resampled[:, [reference]] - lead, n_questions)
    # A lead that is the same in every resample is certain.
    observed = float(lead[best] / error[best]) if error[best] > 0 else math.inf
    p_value = (1 + int(np.count_nonzero(standardised.max(axis=1) >= observed - EPSILON))) / (1 + len(resampled))
    width = float(np.quantile(np.abs(standardised).max(axis=1), LEVEL)) * float(error[best])
    return float(lead[best]), float(lead[best]) - width, float(lead[best]) + width, p_value


def simultaneous_band(estimate: Floats, resampled: Floats, n_questions: int) -> tuple[Floats, Floats, Floats]:
    """A 95 % band that holds all estimates at once, and two-sided p-values of their being 0, corrected for all of them.

    Whichever of them is picked because it looked largest, its band and its p-value hold.

    Args:
        estimate: [column], differences.
        resampled: [resample, column], no NaN.
        n_questions: questions behind the estimates.
    Returns:
        (low, high, p), each [column]; p is (1 + number of resamples in which the largest standardised centred
        difference of any column reaches this one's) / (1 + number of resamples). All NaN without a resample.
    Source: single-step max-T (Westfall and Young 1993), its quantiles from the bootstrap.
    """
    if not len(resampled):
        nothing = np.full(len(estimate), np.nan)
        return nothing, nothing.copy(), nothing.copy()
    standardised, error = _standardised(resampled - estimate, n_questions)
    largest = np.sort(np.abs(standardised).max(axis=1))
    size = np.abs(estimate)
    still = np.where(size > EPSILON, np.inf, 0.0)
    reached = np.where(error > 0, size / np.where(error > 0, error, 1.0), still)
    at_least = len(largest) - np.searchsorted(largest, reached - EPSILON, side="left")
    width = float(np.quantile(largest, LEVEL)) * error
    return estimate - width, estimate + width, (1 + at_least) / (1 + len(resampled))


def _standardised(noise: Floats, n_questions: int) -> tuple[Floats, Floats]:
    """([resample, layer] of noise in units of its standard deviation, the standard errors [layer]).

    A resample's spread is too small by sqrt((n - 1) / n), and few questions know their own spread badly: the errors
    are widened by sqrt(n / (n - 1)) and by the ratio of Student's to the normal quantile. What does not vary has
    error 0 and noise 0.
    """
    from scipy.special import ndtri, stdtrit

    spread = np.sqrt((noise**2).mean(axis=0))
    spread = np.where(spread > EPSILON, spread, 0.0)
    moving = spread > 0
    standardised = np.where(moving, noise / np.where(moving, spread, 1.0), 0.0)
    n = max(n_questions, 2)
    grow = math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, LEVEL) / ndtri(LEVEL))
    return standardised, spread * grow
