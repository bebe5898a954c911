"""One number of a model before and after a change, on the same units: both values, the difference, the share kept.

A unit is a text, a question or a run; what a model does on it is a row of one or more columns, and a `Statistic` makes
one number of all rows (a mean, a perplexity, a calibration error). Every resample draws the same units for both models,
so that what a unit does to both cancels. How the 95 % intervals are made:

* means: `intervals.mean_interval`, which is honest where few units differ. The share kept then takes its ends from the
  difference, which knows more than resamples that are all alike;
* smooth functions of sums (perplexity, share of tokens): the bias-corrected and accelerated bootstrap, the acceleration
  from the jackknife;
* AUROC and expected calibration error of one model, and a difference of AUROCs: `calibration_intervals`;
* a difference or share of calibration errors is that of two estimates with intervals of their own (MOVER: Zou and
  Donner 2008; Donner and Zou 2012), which is wide, but noise adds to a calibration error, to a small one most, and
  paired resamples held the true difference in 77 % and the true share in 1 to 13 % of simulations;
* what is left (accuracy@q, coverage@p, a median): percentiles. Where fewer than 10 of the most confident answers are
  wrong (or right), resamples know too little of accuracy@q: Wilson's interval joins in, and a difference is MOVER's.

Measured coverage, where 95 % was asked: tests/measures/test_paired.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration import N_BINS, bin_of
from hcl_cli.measures.calibration_intervals import (
    Estimate,
    ResampledAuroc,
    auroc_interval,
    auroc_lead,
    ece_interval,
    resampled_auroc,
)
from hcl_cli.measures.intervals import FEW, LEVEL, bca_interval, few_differ, mean_interval, percentile_interval, wilson

Floats = npt.NDArray[np.float64]

_NOTHING = Estimate(math.nan, math.nan, math.nan)
_LEAST = 1e-12  # resampled values are rounded to 12 decimals: what is smaller counts as 0
_BLOCK = 4_000_000  # leave-one-out counts held at once; only memory depends on it


@dataclass(frozen=True)
class Statistic:
    """What becomes of the units' values.

    Attributes:
        name: tells how intervals are made, see the module's first lines.
        of: (values [unit, column], counts [resample, unit]) -> [resample]; NaN where undefined.
        support: lowest and highest possible value.
        is_smooth: whether the bias-corrected and accelerated bootstrap holds for it.
    """

    name: str
    of: Callable[[Floats, Floats], Floats]
    support: tuple[float, float] = (0.0, 1.0)
    is_smooth: bool = False


@dataclass(frozen=True)
class Paired:
    """A statistic before and after, with 95 % intervals; NaN where undefined.

    Attributes:
        before, after: of each model alone.
        difference: after - before.
        share_kept: after / before, or before / after where lower is better; NaN if the denominator is 0.
        n_units: units that have a value in both; the others are left out of all four numbers.
    """

    before: Estimate
    after: Estimate
    difference: Estimate
    share_kept: Estimate
    n_units: int


# ---------------------------------------------------------------------------------------------------- statistics


def mean_of(support: tuple[float, float] = (0.0, 1.0)) -> Statistic:
    """Mean over units of the first column, whose values lie within `support`."""
    return Statistic("mean", lambda values, counts: counts @ values[:, 0] / counts.sum(axis=1), support, True)


def _ratio(values: Floats, counts: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts @ values[:, 0] / (counts @ values[:, 1]))


def _perplexity(values: Floats, counts: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(_ratio(values, counts)))


def _brier(values: Floats, counts: Floats) -> Floats:
    return np.asarray(counts @ (values[:, 0] - values[:, 1]) ** 2 / counts.sum(axis=1))


def _ece(values: Floats, counts: Floats) -> Floats:
    cell = np.eye(N_BINS)[bin_of(values[:, 0], N_BINS)]
    excess = counts @ (cell * (values[:, 1] - values[:, 0])[:, None])
    return np.asarray(np.abs(excess).sum(axis=1) / counts.sum(axis=1))


def _auroc(values: Floats, counts: Floats) -> Floats:
    return resampled_auroc(values[:, 0], values[:, 1] > 0, np.arange(len(values)), None, counts).draws


def _correct_among_top(values: Floats, counts: Floats) -> Floats:
    """[resample, k - 1]: how many of a resample's k most confident are right, ties at the edge by their mean."""
    _, rank = np.unique(-values[:, 0], return_inverse=True)
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    drawn = counts[:, order]
    held = np.add.reduceat(drawn, starts, axis=1)
    right = np.add.reduceat(drawn * values[order, 1], starts, axis=1)
    mean = np.divide(right, held, out=np.zeros_like(right), where=held > 0)
    # A resample has as many units as the sample, so the rows of units drawn, most confident first, are a matrix.
    expanded = np.repeat(mean.ravel(), held.ravel().astype(np.int64)).reshape(len(counts), -1)
    return np.asarray(np.cumsum(expanded, axis=1))


def _accuracy_at_half(values: Floats, counts: Floats) -> Floats:
    taken = len(values) // 2
    if not taken:
        return np.full(len(counts), np.nan)
    return _correct_among_top(values, counts)[:, taken - 1] / taken


def _coverage_at_half(values: Floats, counts: Floats) -> Floats:
    k = np.arange(1, len(values) + 1)
    reached = np.round(_correct_among_top(values, counts) / k, 12) > 0.5
    return np.asarray(np.where(reached, k, 0).max(axis=1) / len(values))


def _median(values: Floats, counts: Floats) -> Floats:
    order = np.argsort(values[:, 0], kind="stable")
    drawn = counts[:, order].astype(np.int64)
    return np.asarray(np.median(np.repeat(np.tile(values[order, 0], len(counts)), drawn.ravel()).reshape(
        len(counts), -1
    ), axis=1))  # fmt: skip


# (hits, trials): share of the trials of all units together.
SHARE = Statistic("share", _ratio, (0.0, 1.0), True)
# (negative log-likelihood in nats, tokens): exp of the mean over tokens.
PERPLEXITY = Statistic("perplexity", _perplexity, (1.0, math.inf), True)
# (confidence in [0, 1], 1 if right or 0): as in `measures.calibration`.
BRIER = Statistic("brier", _brier, (0.0, 1.0), True)
ECE = Statistic("ece", _ece)
AUROC = Statistic("auroc", _auroc)
ACCURACY_AT_50 = Statistic("accuracy@50", _accuracy_at_half)
COVERAGE_AT_50 = Statistic("coverage@50", _coverage_at_half)
# (value,): the middle one.
MEDIAN = Statistic("median", _median, (0.0, math.inf))


def statistic_value(values: npt.ArrayLike, statistic: Statistic) -> float:
    """The statistic of all units that have a value; NaN if it is undefined.

    Args:
        values: [unit, column], NaN where a unit has none.
        statistic: what to make of them.
    """
    rows = _matrix(values)
    rows = rows[~np.isnan(rows).any(axis=1)]
    return float(statistic.of(rows, np.ones((1, len(rows))))[0]) if len(rows) else math.nan


# -------------------------------------------------------------------------------------------------- before and after


def paired(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    statistic: Statistic,
    *,
    higher_is_better: bool = True,
    n_resamples: int = 2000,
    seed: int = 0,
    identical: bool = False,
) -> Paired:
    """A statistic of two models on the same units, compared.

    Args:
        before, after: [unit, column] (or [unit]), the same units in the same order; NaN where a unit has no value.
        statistic: what becomes of them.
        higher_is_better: which way round the share kept is.
        n_resamples: of the units; without any, only means in which few units differ have intervals.
        seed: of the resampling; the same for the same number of units.
        identical: the two are known to be the same model: the difference is 0 and the share 1 for certain. Values that
            agree on all units do not say so by themselves: of 50 answers none may differ, and one in 20 elsewhere.
    Raises:
        ValueError: tables of unlike shape.
    """
    x, y = _matrix(before), _matrix(after)
    if x.shape != y.shape:
        raise ValueError(f"values of shape {x.shape} before and {y.shape} after; expected the same units")
    known = ~np.isnan(x).any(axis=1) & ~np.isnan(y).any(axis=1)
    x, y = x[known], y[known]
    n = len(x)
    if not n:
        return Paired(_NOTHING, _NOTHING, _NOTHING, _NOTHING, 0)
    counts = np.concatenate([np.empty((0, n)), *resample_counts(n, n_resamples if n > 1 else 0, seed)])
    one, other = _Side(x, statistic, counts), _Side(y, statistic, counts)
    part, whole = (other, one) if higher_is_better else (one, other)
    if identical:
        difference = Estimate(0.0, 0.0, 0.0) if one.value == one.value else _NOTHING
        kept = Estimate(1.0, 1.0, 1.0) if one.value > _LEAST else _NOTHING
    else:
        difference = _difference(one, other)
        kept = _share(part, whole, _difference(whole, part))
    return Paired(one.estimate(), other.estimate(), difference, kept, n)


class _Side:
    """One model's values, its statistic, and what it becomes in every resample."""

    def __init__(self, values: Floats, statistic: Statistic, counts: Floats) -> None:
        self.values, self.statistic, self.counts = values, statistic, counts
        if statistic.name == "auroc":
            self.value, self.draws = self.area.value, self.area.draws
        else:
            self.value = float(statistic.of(values, np.ones((1, len(values))))[0])
            self.draws = np.round(statistic.of(values, counts), 12) if len(counts) else np.empty(0)
        known = statistic.is_smooth and math.isfinite(self.value)
        self.influence = self._influence() if known else np.zeros(len(values))

    def _influence(self) -> Floats:
        """[unit]: how the statistic moves with each unit, up to one factor for all, by leaving it out."""
        n = len(self.values)
        if n < 2 or self.statistic.name == "mean":
            return np.asarray(self.values[:, 0] - self.value)
        size = max(1, _BLOCK // n)
        parts = []
        for start in range(0, n, size):
            left = np.ones((min(size, n - start), n))
            left[np.arange(len(left)), start + np.arange(len(left))] = 0.0
            parts.append(self.statistic.of(self.values, left))
        without = np.concatenate(parts)
        return np.asarray(without.mean() - without)

    def estimate(self) -> Estimate:
        """The value with its interval."""
        name, rows = self.statistic.name, self.values
        if not math.isfinite(self.value) or len(rows) < 2:
            return Estimate(self.value, math.nan, math.nan)
        if name == "mean":
            return _mean(rows[:, 0], self.draws, self.statistic.support)
        if not len(self.draws):
            return Estimate(self.value, math.nan, math.nan)
        if name == "ece":
            return ece_interval(rows[:, 0], rows[:, 1] > 0, np.arange(len(rows)), None, self.counts)
        if name == "auroc":
            return auroc_interval(self.area)
        found = _interval(self.value, self.draws, self.influence, self.statistic)
        if (known := self.too_few()) is not None:
            return Estimate(self.value, min(found.low, known[0]), max(found.high, known[1]))
        return found

    def too_few(self) -> tuple[float, float] | None:
        """Wilson's interval of accuracy@50 where resamples know too little of the answers that decide."""
        if self.statistic.name != "accuracy@50" or math.isnan(self.value):
            return None
        taken = len(self.values) // 2
        minority = min(self.value, 1 - self.value) * taken
        return wilson(min(1.0, self.value), taken) if minority < FEW else None

    @cached_property
    def area(self) -> ResampledAuroc:
        """The resampled AUROC, with what its intervals need."""
        rows = self.values
        return resampled_auroc(rows[:, 0], rows[:, 1] > 0, np.arange(len(rows)), None, self.counts)


def _difference(one: _Side, other: _Side) -> Estimate:
    statistic, value = one.statistic, other.value - one.value
    low, high = statistic.support
    width = high - low
    if not math.isfinite(value) or len(one.values) < 2:
        return Estimate(value, math.nan, math.nan)
    if statistic.name == "mean":
        return _mean(other.values[:, 0] - one.values[:, 0], other.draws - one.draws, (-width, width))
    if not len(one.draws):
        return Estimate(value, math.nan, math.nan)
    if statistic.name == "auroc":
        return auroc_lead(other.area, one.area)
    if statistic.name == "ece" or one.too_few() is not None or other.too_few() is not None:
        return _mover(one.estimate(), other.estimate())
    with np.errstate(invalid="ignore"):
        draws = np.round(other.draws - one.draws, 12)
    return _interval(value, draws, other.influence - one.influence, statistic)


def _mover(one: Estimate, other: Estimate) -> Estimate:
    """other - one as a difference of independent estimates, within [-1, 1]."""
    lead = other.value - one.value
    down = math.hypot(other.value - other.low, one.high - one.value)
    up = math.hypot(other.high - other.value, one.value - one.low)
    return Estimate(lead, max(-1.0, lead - down), min(1.0, lead + up))


def _mover_ratio(part: Estimate, whole: Estimate) -> Estimate:
    """part / whole as a ratio of independent estimates; its high end is unknown if the whole may be 0.

    Source: Donner and Zou 2012, "Closed-form confidence intervals for functions of the normal mean and standard
        deviation", the ratio.
    """
    a, b = part.value, whole.value

    def end(near: float, far: float, sign: float) -> float:
        # The share at which part - share * whole may just be 0.
        denominator = far * (2 * b - far)
        root = math.sqrt(max(0.0, (a * b) ** 2 - near * (2 * a - near) * denominator))
        return (a * b + sign * root) / denominator if denominator > 0 else math.nan

    low = end(part.low, whole.high, -1.0)
    if math.isnan(low):
        low = part.low / whole.high
    return Estimate(a / b, max(0.0, min(low, a / b)), end(part.high, whole.low, 1.0))


def _share(part: _Side, whole: _Side, gain: Estimate) -> Estimate:
    """part / whole with its interval; `gain` is part - whole."""
    if not (whole.value > _LEAST and math.isfinite(whole.value)) or math.isnan(part.value):
        return _NOTHING
    value, is_mean = part.value / whole.value, part.statistic.name == "mean"
    if len(part.values) < 2 or not (len(part.draws) or is_mean):
        return Estimate(value, math.nan, math.nan)
    if part.statistic.name == "ece":
        return _mover_ratio(part.estimate(), whole.estimate())
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.round(part.draws / whole.draws, 12)
    draws = draws[np.isfinite(draws)]
    often_undefined = len(part.draws) - len(draws) > (1 - LEVEL) / 2 * len(part.draws)
    few = is_mean and few_differ(part.values[:, 0] - whole.values[:, 0])
    few |= part.too_few() is not None or whole.too_few() is not None
    if few or (often_undefined and part.statistic.name == "auroc"):
        # part / whole = 1 + (part - whole) / whole; that the whole is uncertain too is of second order.
        return Estimate(value, max(0.0, 1 + gain.low / whole.value), 1 + gain.high / whole.value)
    if often_undefined:
        return Estimate(value, math.nan, math.nan)  # too often a share of nothing: its end is not known
    influence = (part.influence - value * whole.influence) / whole.value
    found = _interval(value, draws, influence, part.statistic)
    return Estimate(found.value, max(0.0, found.low), found.high)


def _interval(value: float, draws: Floats, influence: Floats, statistic: Statistic) -> Estimate:
    point, column = np.array([value]), draws[np.isfinite(draws), None]
    if statistic.is_smooth:
        peak = np.abs(influence).max()  # the scale does not matter, but the cube of a small number is 0
        influence = influence / peak if peak > _LEAST else np.zeros_like(influence)
        low, high = bca_interval(point, column, influence[:, None])
    else:
        low, high = percentile_interval(point, column)
    return Estimate(value, float(low[0]), float(high[0]))


def _mean(values: Floats, draws: Floats, support: tuple[float, float]) -> Estimate:
    values = np.round(values, 12)  # the cube of a smaller number may be 0
    low, high = mean_interval(values[:, None], draws[:, None], support)
    return Estimate(float(values.mean()), float(low[0]), float(high[0]))


def _matrix(values: npt.ArrayLike) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    return rows[:, None] if rows.ndim == 1 else rows
