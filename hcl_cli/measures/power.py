"""How many questions, and samples of each, tell two layers apart.

The paired difference of two layers' shares on question q, each from n samples, is D_q = d_q + noise, where d_q is what
infinitely many samples would give. Over questions

    Var(mean of D) = (between + within / n) / Q,
    between = Var(d_q),   within = E[p_1q (1 - p_1q) + p_2q (1 - p_2q)].

Both are estimated without bias from the graded answers: with h the wrong share of m answers, h (1 - h) m / (m - 1)
estimates p (1 - p), and h (1 - h) / (m - 1) the noise in h, whose mean is taken from the observed variance. What
remains may fall below 0 by chance and is then 0.

Q for a two-sided test at level alpha to find a difference delta with a given power is

    Q = (z_(1 - alpha/2) + z_power)^2 (between + within / n) / delta^2 + z_(1 - alpha/2)^2 / 2,

the last term for the spread being estimated (Guenther 1981). The least difference that is found with that power is the
same formula solved for delta.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ALPHA = 0.05
POWERS = (0.8, 0.9)
SAMPLES = (1, 5, 10, 20, 50)
_LEAST = 1e-12


class Components(NamedTuple):
    """Variance of the paired difference of one question.

    Attributes:
        between: of what infinitely many samples would give; NaN if unknown.
        within: of one sample of both layers; NaN if some question has one sample only.
        total: as observed, with the samples there are.
    """

    between: float
    within: float
    total: float

    def at(self, n_samples: float) -> float:
        """The variance with n samples of every question and layer."""
        return self.between + self.within / n_samples


def components(one: Floats, other: Floats, n_one: Floats, n_other: Floats) -> Components:
    """Between and within variance of two layers' difference in the share of wrong answers.

    Args:
        one, other: [question], shares in [0, 1].
        n_one, n_other: [question], graded answers behind them, >= 1.
    Returns:
        all NaN with fewer than two questions.
    """
    if len(one) < 2:
        return Components(math.nan, math.nan, math.nan)
    total = float((one - other).var(ddof=1))
    if min(n_one.min(), n_other.min()) < 2:
        return Components(math.nan, math.nan, total)
    spread = [share * (1 - share) / (number - 1) for share, number in ((one, n_one), (other, n_other))]
    noise = float(sum(part.mean() for part in spread))
    within = float(sum((part * number).mean() for part, number in zip(spread, (n_one, n_other), strict=True)))
    return Components(max(0.0, total - noise), within, total)


def questions_needed(difference: float, variance: float, power: float = 0.8, alpha: float = ALPHA) -> float:
    """Questions that find the difference with that power, a whole number >= 2.

    Args:
        difference: the mean to find.
        variance: of a question's difference.
        power: in (0, 1).
        alpha: level of the two-sided test.
    Returns:
        NaN if the difference is 0 (no number finds it) or the variance is unknown.
    """
    if math.isnan(variance) or math.isnan(difference) or abs(difference) <= _LEAST:
        return math.nan
    critical, reach = _quantiles(power, alpha)
    return max(2.0, math.ceil(reach**2 * variance / difference**2 + critical**2 / 2 - 1e-9))


def detectable_difference(variance: float, n_questions: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """The least difference that so many questions find with that power; NaN if they are too few for any."""
    critical, reach = _quantiles(power, alpha)
    room = n_questions - critical**2 / 2
    return reach * math.sqrt(variance / room) if room > 0 and not math.isnan(variance) else math.nan


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    """(z of the level, z of the level plus z of the power)."""
    from scipy.special import ndtri

    critical = float(ndtri(1 - alpha / 2))
    return critical, critical + float(ndtri(power))
