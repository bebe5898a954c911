"""95 % intervals of a probe's held-out numbers, each the mean over seeds, from resamples of groups of rows.

Rows that repeat each other form a group and are drawn together. Several seeds of one probe judge the same rows: a
number is computed for each seed and averaged, in the data and in every resample, so an interval is about the
statements, and the spread over seeds is reported beside it.

Whatever ranks rows (AUROC, accuracy@50, coverage@50) ranks within a fold, since probabilities of different folds come
from different fits and their levels are not comparable; the folds are added up afterwards. Constructions follow
`calibration_intervals`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.calibration import N_BINS, VARIANTS, auroc, bin_of
from hcl_cli.measures.calibration_intervals import Estimate, ResampledAuroc
from hcl_cli.measures.intervals import FEW, LEVEL, bca_interval, effective_questions, percentile_interval, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BLOCK = 4_000_000  # pairs compared, or weights of rows, at once; only memory depends on it
_HALVINGS = 40
RANKED_RESAMPLES = 400  # of those, so many for accuracy@50 and coverage@50, which must be ranked anew in each


@dataclass(frozen=True)
class HeldOutRows:
    """The tested rows.

    Attributes:
        outcome: [row], true where the statement is true.
        group: [row], 0..G-1.
        fold: [row], 0..F-1.
        counts: [resample, group], how often each group was drawn; no row for no intervals.
    """

    outcome: Bools
    group: Ints
    fold: Ints
    counts: Floats

    @property
    def sizes(self) -> Floats:
        """[group]: rows."""
        return np.bincount(self.group, minlength=self.counts.shape[1]).astype(np.float64)


def resampled_share(values: npt.ArrayLike, tested: HeldOutRows) -> Floats:
    """[resample]: the mean over rows of `values` [row], rounded to 12 decimals."""
    total = np.bincount(tested.group, np.asarray(values, dtype=np.float64), tested.counts.shape[1])
    return np.asarray(np.round((tested.counts @ total) / (tested.counts @ tested.sizes), 12))


def share_interval(values: npt.ArrayLike, tested: HeldOutRows, lowest: float = 0.0) -> Estimate:
    """A mean over rows (an accuracy, a Brier score, a difference of accuracies) with its interval.

    Where fewer than 10 groups, and fewer than half, differ from 0 (or from 1), Wilson's interval on the effective
    number of groups.

    Args:
        values: [row], in [lowest, 1].
        tested: the rows.
        lowest: 0, or -1 for a difference.
    """
    x = np.asarray(values, dtype=np.float64)
    value = float(x.mean())
    if not len(tested.counts):
        return Estimate(value, math.nan, math.nan)
    total, sizes = np.bincount(tested.group, x, tested.counts.shape[1]), tested.sizes
    if lowest == 0:
        for odd in (total / sizes, 1 - total / sizes):
            differing = int(np.count_nonzero(np.round(odd, 12)))
            if differing < FEW and 2 * differing < len(odd):
                return Estimate(value, *wilson(value, effective_groups(np.round(odd, 12), sizes)))
    influence = (total - value * sizes) / sizes.sum() * len(sizes)
    low, high = bca_interval(np.array([value]), resampled_share(x, tested)[:, None], influence[:, None])
    return Estimate(value, max(lowest, float(low[0])), min(1.0, float(high[0])))


def wilson_interval(outcome: Bools, group: Ints) -> tuple[float, float]:
    """Wilson's interval of a share of rows, on the effective number of groups.

    Args:
        outcome: [row], one at least.
        group: [row], any numbers.
    """
    _, of = np.unique(group, return_inverse=True)
    sizes = np.bincount(of).astype(np.float64)
    return wilson(float(outcome.mean()), effective_groups(np.bincount(of, outcome) / sizes, sizes))


def effective_groups(shares: Floats, sizes: Floats) -> float:
    """Number of all-or-nothing groups of one size that would know the mean over rows as well as these do."""
    # Groups of unequal size know a mean over rows less well than as many equal ones (Kish 1965).
    return float(effective_questions(shares) * sizes.sum() ** 2 / (len(sizes) * (sizes**2).sum()))


def resampled_auroc(prob: Floats, tested: HeldOutRows) -> ResampledAuroc:
    """AUROC within folds, the mean over seeds; in every resample, exactly.

    For each pair of a true and a false row of a fold: the share of seeds that rank them rightly, ties half. Which
    pairs there are does not depend on the seed, so the mean over seeds of the AUROC is the mean of these shares.

    Args:
        prob: [seed, row].
        tested: the rows.
    """
    n_groups = tested.counts.shape[1]
    positive, negative = (
        np.bincount(tested.group[side], minlength=n_groups) for side in (tested.outcome, ~tested.outcome)
    )
    won, compared = np.zeros(len(tested.counts)), np.zeros(len(tested.counts))
    pairs_won, pairs = np.zeros(n_groups), np.zeros(n_groups)
    by_group = np.argsort(tested.group, kind="stable")
    for fold in np.unique(tested.fold):
        rows = by_group[tested.fold[by_group] == fold]
        true, false = rows[tested.outcome[rows]], rows[~tested.outcome[rows]]
        if not (len(true) and len(false)):
            continue
        wins, of_true, of_false = _wins(prob, true, false, tested.group)
        drawn_true, drawn_false = tested.counts[:, of_true], tested.counts[:, of_false]
        n_true, n_false = (np.unique(tested.group[side], return_counts=True)[1] for side in (true, false))
        won += np.einsum("rg,rg->r", drawn_true @ wins, drawn_false)
        compared += (drawn_true @ n_true) * (drawn_false @ n_false)
        pairs_won[of_true] += wins.sum(1)
        pairs_won[of_false] += wins.sum(0)
        pairs[of_true] += n_true * len(false)
        pairs[of_false] += n_false * len(true)
    counted = int((positive > 0).sum()), int((negative > 0).sum())
    total = float(pairs.sum() / 2)
    if total <= 0:
        nothing = np.full(n_groups, np.nan)
        return ResampledAuroc(math.nan, np.full(len(tested.counts), np.nan), nothing, nothing, *counted)
    area = float(pairs_won.sum() / 2 / total)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.round(won / compared, 12)
    slips = pairs - pairs_won if area >= 0.5 else pairs_won
    influence = (pairs_won - area * pairs) / total * n_groups
    return ResampledAuroc(area, draws, influence, np.round(slips / total, 12), *counted)


def auroc_per_seed(prob: Floats, tested: HeldOutRows) -> Floats:
    """[seed]: what `resampled_auroc` is the mean of; NaN where no fold holds both outcomes."""
    won, pairs = np.zeros(len(prob)), 0.0
    for fold in np.unique(tested.fold):
        rows = np.flatnonzero(tested.fold == fold)
        n_true = int(tested.outcome[rows].sum())
        n = n_true * (len(rows) - n_true)
        if n:
            won += [n * auroc(one[rows], tested.outcome[rows]) for one in prob]
            pairs += n
    return won / pairs if pairs else np.full(len(prob), np.nan)


def _wins(prob: Floats, true: Ints, false: Ints, group: Ints) -> tuple[Floats, Ints, Ints]:
    """Mean over seeds of the pairs won, [group of true rows, group of false rows], and which groups these are.

    Args:
        prob: [seed, row].
        true, false: rows, those of a group side by side.
        group: [row].
    """
    of_true, place = np.unique(group[true], return_inverse=True)
    of_false, starts = np.unique(group[false], return_index=True)
    wins = np.zeros((len(of_true), len(of_false)))
    step = max(1, _BLOCK // len(false))
    for start in range(0, len(true), step):
        block = true[start : start + step]
        better = np.zeros((len(block), len(false)))
        for one in prob:
            above, under = one[block][:, None], one[false]
            better += above > under
            better += 0.5 * (above == under)
        own = place[start : start + step]
        here, first = np.unique(own, return_index=True)
        wins[here] += np.add.reduceat(np.add.reduceat(better, starts, axis=1), first, axis=0)
    return wins / len(prob), of_true, of_false


def calibration_error(prob: Floats, tested: HeldOutRows, variant: str = "standard", n_bins: int = N_BINS) -> Estimate:
    """Expected calibration error, the mean over seeds, with its interval by a test inverted.

    See `calibration.ece` for the variants and `calibration_intervals` for the interval. `litcab` keeps the smallest
    and largest probability of the data in the resamples.

    Args:
        prob: [seed, row], in [0, 1].
        tested: the rows.
        variant: standard | litcab.
        n_bins: equal-width bins.
    Returns:
        NaN under `litcab` where all probabilities of a seed are equal.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r}: expected one of {', '.join(VARIANTS)}")
    values = prob
    if variant == "litcab":
        low, high = prob.min(1, keepdims=True), prob.max(1, keepdims=True)
        if (low == high).any():
            return Estimate(math.nan, math.nan, math.nan)
        values = (prob - low) / (high - low)
    n_seeds, n_groups = len(prob), tested.counts.shape[1]
    at = bin_of(values.ravel(), n_bins).reshape(values.shape)
    confidence = (at + 0.5) / n_bins if variant == "litcab" else values
    cell = (tested.group * n_seeds + np.arange(n_seeds)[:, None]) * n_bins + at
    away = (tested.outcome - confidence).ravel()
    excess = np.bincount(cell.ravel(), away, n_groups * n_seeds * n_bins).reshape(n_groups, -1)
    gaps = excess.sum(0) / len(tested.outcome)
    size = float(np.abs(gaps).sum() / n_seeds)
    if not len(tested.counts):
        return Estimate(size, math.nan, math.nan)
    noise = np.round((tested.counts @ excess) / (tested.counts @ tested.sizes)[:, None] - gaps, 12)
    tail = (1 - LEVEL) / 2

    def sizes(scale: float) -> Floats:
        return np.asarray(np.abs(scale * gaps + noise).sum(1) / n_seeds)

    def is_unusual(scale: float) -> bool:
        return bool((sizes(scale) >= size).mean() < tail)

    high_end = max(size, float(np.quantile(sizes(1.0), 1 - tail)))
    low_end = 0.0
    if is_unusual(0.0):
        under, over = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (under + over) / 2
            under, over = (middle, over) if is_unusual(middle) else (under, middle)
        low_end = min(1.0, over)
    return Estimate(size, low_end * size, min(1.0, high_end))


def ranked_half(prob: Floats, tested: HeldOutRows) -> tuple[Estimate, Estimate]:
    """accuracy@50 and coverage@50 (`calibration.accuracy_at`, `coverage_at`), the mean over seeds.

    The rows that are most confidently called true, a fold at a time: the share of true ones among half of them, and
    how many can be taken while more than half of them are true. Over folds, rows taken are added up.

    Args:
        prob: [seed, row].
        tested: the rows.
    Returns:
        two estimates with percentile intervals from the first `RANKED_RESAMPLES` resamples.
    """
    counts = np.concatenate([np.ones((1, tested.counts.shape[1])), tested.counts[:RANKED_RESAMPLES]])
    counts = counts.astype(np.float32)  # whole numbers: exact, and half the memory to walk through
    right, taken, covered, n_rows = (np.zeros((len(prob), len(counts))) for _ in range(4))
    for fold in np.unique(tested.fold):
        rows = np.flatnonzero(tested.fold == fold)
        step = max(1, _BLOCK // len(rows))
        for start in range(0, len(counts), step):
            weight = counts[start : start + step, tested.group[rows]]
            for seed, one in enumerate(prob):
                found = _ranked(one[rows], tested.outcome[rows], weight)
                for total, part in zip((right, taken, covered, n_rows), found, strict=True):
                    total[seed, start : start + step] += part
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.round(np.stack([(right / taken).mean(0), (covered / n_rows).mean(0)], axis=1), 12)
    low, high = percentile_interval(draws[0], draws[1:])
    accuracy, coverage = (Estimate(*map(float, ends)) for ends in zip(draws[0], low, high, strict=True))
    return accuracy, coverage


def _ranked(prob: Floats, outcome: Bools, weight: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats, Floats]:
    """Of one fold and seed, [resample]: right among the top half, its size; the largest coverage; all rows.

    Args:
        prob, outcome: [row].
        weight: [resample, row], whole numbers. Equal probabilities, copies among them, count with their mean.
    """
    order = np.argsort(-prob, kind="stable")
    starts = np.flatnonzero(np.diff(prob[order], prepend=np.inf) != 0)
    drawn = weight[:, order]
    n, true = drawn.cumsum(1), (drawn * outcome[order]).cumsum(1)
    if len(starts) < len(prob):  # [resample, distinct probability], from the top
        ends = np.append(starts[1:], len(prob)) - 1
        n, true = n[:, ends], true[:, ends]
    resample, total = np.arange(len(n)), n[:, -1].astype(np.float64)

    def before(at: Ints) -> tuple[Floats, Floats, Floats]:
        """Rows and true rows above block `at`, and the share of true ones inside it."""
        above = [np.where(at > 0, of[resample, at - 1].astype(np.float64), 0.0) for of in (n, true)]
        inside = n[resample, at] - above[0]
        return above[0], above[1], (true[resample, at] - above[1]) / np.where(inside > 0, inside, 1.0)

    half = np.floor(total / 2)
    first = (n >= half[:, None]).argmax(1)
    above, true_above, rate = before(first)
    right = true_above + (half - above) * rate
    reached = 2 * true > n
    some = reached.any(1)
    last = n.shape[1] - 1 - reached[:, ::-1].argmax(1)
    after = np.minimum(last + 1, n.shape[1] - 1)
    # Into the block after the last one that reaches it: (true + (k - n) rate) / k > 1/2, with rate < 1/2 there.
    above, true_above, rate = before(after)
    with np.errstate(invalid="ignore", divide="ignore"):
        most = np.ceil(np.round((true_above - above * rate) / (0.5 - rate), 9)) - 1
    k = np.where(last < n.shape[1] - 1, np.maximum(n[resample, last], most), total)
    return right, half, np.where(some, np.minimum(k, total), 0.0), total


def widened(estimate: Estimate, times: float, lowest: float = 0.0) -> Estimate:
    """The ends moved away from the estimate, within `lowest` and 1."""
    low, high = (estimate.value + times * (end - estimate.value) for end in (estimate.low, estimate.high))
    if math.isnan(low):
        return estimate
    return Estimate(estimate.value, max(lowest, low), min(1.0, high))


def all_leads_bound(lead: Floats, resampled: Floats, n_groups: int) -> Floats:
    """How low each of several leads may be: the lower ends of a simultaneous one-sided 95 % band.

    lead - q s, where s is the bootstrap's standard error of the lead and q the 95 % quantile over resamples of the
    largest standardised centred lead of all. With 95 % no lead of the whole table is called positive that is not.

    Args:
        lead: [lead].
        resampled: [resample, lead], without NaN.
        n_groups: that were resampled: few of them know their spread badly, and errors are widened for that as in
            `selection`.
    Returns:
        [lead]; minus infinity without resamples.
    Source: single-step max-T (Westfall and Young 1993).
    """
    from scipy.special import ndtri, stdtrit

    if not len(resampled):
        return np.full(len(lead), -np.inf)
    noise = resampled - lead
    spread = np.sqrt((noise**2).mean(0))
    moving = spread > 1e-12
    standardised = np.where(moving, noise / np.where(moving, spread, 1.0), 0.0)
    n = max(n_groups, 2)
    grow = math.sqrt(n / (n - 1)) * float(stdtrit(n - 1, LEVEL) / ndtri(LEVEL))
    bound = float(np.quantile(standardised.max(1), LEVEL))
    return np.asarray(np.where(moving, lead - bound * grow * spread, lead))
