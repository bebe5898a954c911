"""How far two orders of the same few things agree: Spearman's rank correlation, its interval and a permutation test."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
EPSILON = 1e-12


class RankCorrelation(NamedTuple):
    """Spearman's rho in [-1, 1], its 95 % interval, and a two-sided p-value in (0, 1]; NaN for unknown."""

    rho: float
    low: float
    high: float
    p_value: float


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike, *, n_permutations: int, seed: int) -> RankCorrelation:
    """Spearman's rank correlation; ties have their mean rank.

    The interval is that of Bonett and Wright (2000): Fisher's z with standard error sqrt((1 + rho^2 / 2) / (n - 3)).
    It takes the n things as drawn from many like them. The p-value permutes one of the orders: (1 + number of
    permutations with |rho*| >= |rho|) / (1 + n_permutations).

    Args:
        a, b: [n], no NaN.
        n_permutations: 0 gives no p-value.
        seed: key of the counter-based generator (Philox).
    Returns:
        all NaN if one of them is constant; no interval for n < 4 or where |rho| = 1, which Fisher's z does not know.
    """
    x, y = _standardised(a), _standardised(b)
    nothing = RankCorrelation(math.nan, math.nan, math.nan, math.nan)
    if x is None or y is None:
        return nothing
    n, rho = len(x), float(np.clip(x @ y, -1.0, 1.0))
    low = high = math.nan
    if n > 3 and abs(rho) < 1 - EPSILON:
        half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
        low, high = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
    p_value = math.nan
    if n_permutations:
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, n], dtype=np.uint64)))
        order = np.argsort(generator.random((n_permutations, n)), axis=1)
        reached = np.abs(y[order] @ x) >= abs(rho) - EPSILON
        p_value = float((1 + reached.sum()) / (1 + n_permutations))
    return RankCorrelation(rho, low, high, p_value)


def _standardised(values: npt.ArrayLike) -> Floats | None:
    """Ranks with mean 0 and length 1; None if all are equal or there are fewer than two."""
    ranks = rankdata(np.asarray(values, dtype=np.float64))
    centred = ranks - ranks.mean() if len(ranks) else ranks
    length = float(np.sqrt(centred @ centred))
    return None if length < EPSILON else np.asarray(centred / length)
