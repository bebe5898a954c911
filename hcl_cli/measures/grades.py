"""Ratios of the three grades correct, incorrect and not attempted, with 95 % intervals over questions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.intervals import bca_interval, few_differ, wilson

Floats = npt.NDArray[np.float64]
Ratio = Callable[
    [Floats], Floats
]  # means [..., (correct, attempted)] -> [...]; rises with correct / attempted and attempted
Estimate = tuple[float | None, float | None, float | None]  # value, low, high


def correct_given_attempted(means: Floats) -> Floats:
    """Correct among what was attempted; 0 if nothing was.

    Args:
        means: [..., (correct, attempted)], shares in [0, 1].
    Returns:
        [...], in [0, 1].
    Source: Wei et al. 2024 (SimpleQA).
    """
    correct, attempted = means[..., 0], means[..., 1]
    return np.asarray(np.where(attempted > 0, correct / np.where(attempted > 0, attempted, 1.0), 0.0))


def grades_f1(means: Floats) -> Floats:
    """The harmonic mean of correct / attempted and correct, 2 correct / (1 + attempted); 0 if nothing is correct.

    Args:
        means: [..., (correct, attempted)], shares in [0, 1].
    Returns:
        [...], in [0, 1].
    Source: Wei et al. 2024 (SimpleQA).
    """
    return np.asarray(2 * means[..., 0] / (1 + means[..., 1]))


def ratio_estimate(ratio: Ratio, shares: Floats, resampled: Floats) -> Estimate:
    """A ratio of means over questions and its interval.

    Bias-corrected and accelerated with the jackknife's acceleration (Efron 1987). Where so few questions differ that
    the resamples say nothing, the ends are the ratio's at the ends of Wilson's intervals of accuracy and of the share
    attempted, which is rather too wide (ours).

    Args:
        ratio: of the means.
        shares: [question, (correct, attempted)], no NaN.
        resampled: [resample, (correct, attempted)], means over questions.
    Returns:
        value, low, high; the ends are null with fewer than two questions, or if nothing was attempted.
    """
    if not _is_thin(shares):
        return _bca(ratio, shares, resampled)
    value = float(ratio(shares.mean(axis=0)))
    attempted = shares[shares[:, 1] > 0]
    if len(shares) < 2 or not len(attempted):
        return value, None, None
    accuracy = wilson(float((attempted[:, 0] / attempted[:, 1]).mean()), len(attempted))
    share = wilson(float(shares[:, 1].mean()), len(shares))
    low, high = (float(ratio(np.array([rate * part, part]))) for rate, part in zip(accuracy, share, strict=True))
    return value, min(value, low), max(value, high)


def ratio_difference(ratio: Ratio, shares: Floats, resampled: Floats) -> Estimate:
    """A ratio less another's on the same questions, and the interval of the difference.

    As `ratio_estimate`, paired; where few questions differ, the two intervals are joined as those of independent
    estimates (MOVER, Zou and Donner 2008).

    Args:
        shares: [question, (correct, attempted, the other's correct, the other's attempted)], no NaN.
        resampled: the same by resample.
    """
    if not _is_thin(shares[:, :2]) and not _is_thin(shares[:, 2:]):
        return _bca(lambda means: ratio(means[..., :2]) - ratio(means[..., 2:]), shares, resampled)
    a, a_low, a_high = ratio_estimate(ratio, shares[:, :2], resampled[:, :2])
    b, b_low, b_high = ratio_estimate(ratio, shares[:, 2:], resampled[:, 2:])
    assert a is not None and b is not None
    if a_low is None or a_high is None or b_low is None or b_high is None:
        return a - b, None, None
    return a - b, a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def _is_thin(shares: Floats) -> bool:
    """Whether so few questions differ that all resamples are nearly the same."""
    attempted = shares[shares[:, 1] > 0]
    given = attempted[:, 0] / attempted[:, 1]
    return len(attempted) < 2 or few_differ(given) or (few_differ(shares[:, 1]) and bool((shares[:, 1] < 1).any()))


def _bca(statistic: Ratio, shares: Floats, resampled: Floats) -> Estimate:
    value = statistic(shares.mean(axis=0))
    without = statistic((shares.sum(axis=0) - shares) / (len(shares) - 1))
    influence = (without.mean() - without)[:, None]
    low, high = bca_interval(value[None], np.round(statistic(resampled), 12)[:, None], influence)
    return float(value), float(low[0]), float(high[0])
