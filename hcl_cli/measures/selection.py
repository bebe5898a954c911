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


def best_set(score: Floats, resampled: Floats) -> npt.NDArray[np.bool_]:
    """Layers that cannot be told apart from the best one.

    A layer i stays if its distance to the best, h_best - h_i, lies inside the simultaneous 95 % band of the
    distances of all layers to i: at most q_i times its standard error, where q_i is the 95 % quantile over resamples
    of the largest standardised centred difference max_j ((h*_j - h*_i) - (h_j - h_i)) / s_ij. The maximum runs over
    all layers, so it counts in that the best was chosen; the truly best layer stays in with about 95 %.

    Args:
        score: [layer].
        resampled: [resample, layer], no NaN.
    Returns:
        [layer]; the layer with the highest score is always in.
    Source: multiple comparisons with the best (Hsu 1981), its quantiles from the bootstrap.
    """
    best = int(np.argmax(score))
    inside = np.zeros(len(score), dtype=np.bool_)
    centred = resampled - score
    for layer in range(len(score)):
        noise = centred - centred[:, [layer]]  # [resample, layer]
        error = np.sqrt((noise**2).mean(axis=0))
        standardised = noise[:, error > EPSILON] / error[error > EPSILON]
        largest = standardised.max(axis=1) if standardised.size else np.zeros(len(noise))
        bound = float(np.quantile(largest, LEVEL)) if len(largest) else 0.0
        inside[layer] = score[best] - score[layer] <= bound * error[best] + EPSILON
    return inside


def better_than_last(score: Floats, resampled: Floats, n_questions: int) -> tuple[float, float, float, float]:
    """Does any layer beat the last one? The chosen layer's lead, its interval and its p-value.

    The statistic is the lead of the best layer, max_l (h_l - h_last). Every resample chooses anew: the p-value is the
    share of resamples in which the largest centred lead is at least as high. Layers far below the last (by more than
    s sqrt(2 ln ln n)) are not centred, so hopeless layers cost no power. The interval is the simultaneous 95 %
    band of all leads, which holds whichever layer is chosen.

    Args:
        score: [layer], the last entry is the last layer.
        resampled: [resample, layer], no NaN.
        n_questions: questions behind the score.
    Returns:
        (lead >= 0, low, high, p in (0, 1]); p is 1 if the last layer is the best.
    Source: White 2000 (reality check); Hansen 2005 (the recentring).
    """
    lead = score - score[-1]
    best = int(np.argmax(lead))
    if best == len(score) - 1 or not len(resampled):
        return 0.0, math.nan, math.nan, 1.0 if len(resampled) else math.nan
    # A resample's spread is too small by this factor.
    grow = math.sqrt(n_questions / (n_questions - 1)) if n_questions > 1 else 1.0
    noise = ((resampled - resampled[:, [-1]]) - lead) * grow
    error = np.sqrt((noise**2).mean(axis=0))
    hopeless = lead < -error * math.sqrt(2 * math.log(math.log(max(n_questions, 3))))
    largest = (noise + np.where(hopeless, lead, 0.0)).max(axis=1)
    p_value = (1 + int(np.count_nonzero(largest >= lead[best] - EPSILON))) / (1 + len(largest))
    moving = error > EPSILON
    standardised = np.abs(noise[:, moving]) / error[moving]
    width = float(np.quantile(standardised.max(axis=1), LEVEL)) * float(error[best]) if moving.any() else 0.0
    return float(lead[best]), float(lead[best]) - width, float(lead[best]) + width, p_value
