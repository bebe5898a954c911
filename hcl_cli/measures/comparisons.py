"""Pairs of layers, or of models, on the same questions: differences, intervals, and tests corrected for their number.

Of every pair there is one difference per question, so that what makes a question hard cancels.

* The permutation test flips the sign of all differences of a question, which exchanges the two layers within it. If
  the two are alike in law within every question, the p-value of a pair is exact. One sign serves all pairs, so that
  the differences keep their dependence; the corrected p-value compares with the largest statistic of all pairs
  (single-step max-T, Westfall and Young 1993). As it holds for all pairs at once, it holds for the one that was chosen
  because it looked best. It is exact where all pairs' differences are jointly symmetric, else for many questions;
  its family-wise error in simulations: tests/measures/test_comparisons.py.
* The bootstrap draws questions anew: an interval of each difference alone (`intervals.mean_interval`), a band that
  holds all pairs at once, and p-values that go with the band (`selection.simultaneous_band`). With 80 questions it
  finds a difference among 8 identical layers in 6 to 8 % of curves where the sign flips do in 4 to 6 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.groups import TwoGroups
from hcl_cli.measures.hcb import Weights, best_layer, hcb
from hcl_cli.measures.intervals import mean_interval, percentile_interval
from hcl_cli.measures.permutation import permutation_test
from hcl_cli.measures.selection import simultaneous_band

Floats = npt.NDArray[np.float64]

METRICS = ("hallucination_rate", "creativity_raw", "hcb")
_BLOCK = 2_000_000  # signs held at once; only memory depends on it


@dataclass(frozen=True)
class PairTests:
    """Differences of pairs; every array is [pair], NaN where unknown.

    Attributes:
        difference: mean over questions.
        low, high: 95 % interval of each alone.
        band_low, band_high: 95 % band of all together, nowhere narrower than the interval.
        p_permutation: sign flips, two-sided, each alone.
        p_adjusted: the same corrected for all pairs.
        p_bootstrap: two-sided, corrected for all pairs.
    """

    difference: Floats
    low: Floats
    high: Floats
    band_low: Floats
    band_high: Floats
    p_permutation: Floats
    p_adjusted: Floats
    p_bootstrap: Floats


def pair_tests(
    differences: Floats,
    resampled: Floats,
    support: tuple[float, float],
    n_permutations: int,
    seed: int,
    stream: int = 0,
) -> PairTests:
    """Tests of one family of pairs.

    Args:
        differences: [question, pair], no NaN.
        resampled: [resample, pair], their means in every resample; rows with NaN are left out.
        support: lowest and highest possible difference of a question.
        n_permutations: sign flips; with 0 the p-values of the permutation are NaN.
        seed, stream: of the signs.
    """
    differences = np.round(differences, 12)
    n_questions, n_pairs = differences.shape
    mean = differences.mean(axis=0) if n_questions else np.full(n_pairs, np.nan)
    nothing = np.full(n_pairs, np.nan)
    if n_questions < 2 or not n_pairs:
        return PairTests(mean, *(nothing.copy() for _ in range(7)))
    kept = resampled[~np.isnan(resampled).any(axis=1)]
    low, high = mean_interval(differences, kept, support) if len(kept) else (nothing.copy(), nothing.copy())
    band_low, band_high, p_bootstrap = simultaneous_band(mean, kept, n_questions)
    unit = np.arange(n_questions)
    flipped = permutation_test(
        TwoGroups(np.zeros_like(differences), differences, unit, unit, n_questions),
        np.zeros(n_pairs, dtype=np.int64), n_permutations, seed, stream, paired=True,
    )  # fmt: skip
    band_low, band_high = np.fmin(band_low, low), np.fmax(band_high, high)
    return PairTests(
        mean, low, high, np.maximum(band_low, support[0]), np.minimum(band_high, support[1]),
        flipped.p_value, flipped.p_adjusted, p_bootstrap,
    )  # fmt: skip


def holm(p_values: npt.ArrayLike) -> Floats:
    """P-values corrected for their number, step down: whatever their dependence, the family-wise error is kept.

    Args:
        p_values: [test], no NaN.
    Returns:
        [test], each at least its p-value, at most 1.
    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class AtBest:
    """Two models, each at its own best layer; arrays are [metric] in the order of METRICS.

    Attributes:
        best: indices of the two best layers.
        values: [2, metric]; `hcb` is scaled over the layers of both models together.
        low, high: 95 % percentile interval of first - second, the best layers chosen anew in every resample.
        p_bootstrap: two-sided, from the same resamples.
        p_permutation: the models exchanged within questions, the best layers chosen anew; NaN where the two have
            unlike numbers of layers.
    """

    best: tuple[int, int]
    values: Floats
    low: Floats
    high: Floats
    p_bootstrap: Floats
    p_permutation: Floats

    @property
    def difference(self) -> Floats:
        """[metric], first - second."""
        return np.asarray(self.values[0] - self.values[1])


def models_at_best(
    wrong: tuple[Floats, Floats], diversity: tuple[Floats, Floats], resampled: Floats, weights: Weights,
    n_permutations: int, seed: int, stream: int = 0,
) -> AtBest:  # fmt: skip
    """Compare two models at the layers that are chosen as their best, the choice counted in.

    Args:
        wrong, diversity: of either model [question, layer], the same questions; rows of diversity with NaN do not
            count for creativity in either.
        resampled: [resample, column] means of both models' wrong, then of both models' diversity.
        weights: of HCB.
        n_permutations, seed, stream: of the exchanges.
    Returns:
        without a score of both, `best` is (-1, -1) and all numbers are NaN.
    """
    edges = np.cumsum([part.shape[1] for part in (*wrong, *diversity)])[:-1]
    counted = np.asarray(~np.isnan(np.concatenate(diversity, axis=1)).any(axis=1))
    means = [part.mean(axis=0) for part in wrong]
    means += [part[counted].mean(axis=0) if counted.any() else np.full(part.shape[1], np.nan) for part in diversity]
    nothing = np.full(3, np.nan)
    if len(wrong[0]) < 2 or any(np.isnan(part).any() for part in means):
        return AtBest((-1, -1), np.full((2, 3), np.nan), *(nothing.copy() for _ in range(4)))
    values, best = _at_best([part[None] for part in means], weights)
    difference = values[0, 0] - values[0, 1]
    kept = resampled[~np.isnan(resampled).any(axis=1)]
    low, high, p_bootstrap = nothing.copy(), nothing.copy(), nothing.copy()
    if len(kept):
        drawn_values, _ = _at_best(np.split(kept, edges, axis=1), weights)
        drawn = np.round(drawn_values[:, 0] - drawn_values[:, 1], 12)
        low, high = percentile_interval(difference, drawn)
        below, above = ((1 + (side >= 0).sum(axis=0)) / (1 + len(drawn)) for side in (-drawn, drawn))
        p_bootstrap = np.minimum(1.0, 2 * np.minimum(below, above))
    p_permutation = nothing.copy()
    if n_permutations and wrong[0].shape[1] == wrong[1].shape[1]:
        p_permutation = _exchanged(wrong, diversity, counted, difference, weights, n_permutations, seed, stream)
    return AtBest((int(best[0, 0]), int(best[0, 1])), values[0], low, high, p_bootstrap, p_permutation)


def _at_best(means: list[Floats], weights: Weights) -> tuple[Floats, npt.NDArray[np.int64]]:
    """([row, model, metric], [row, model] best layers) from wrong and diversity of both models, [row, layer] each."""
    wrong, diversity = means[:2], means[2:]
    best = np.stack([best_layer(hcb(diversity[m], wrong[m], weights)) for m in (0, 1)], axis=1)
    together = hcb(np.concatenate(diversity, axis=1), np.concatenate(wrong, axis=1), weights)
    common = np.split(together, [wrong[0].shape[1]], axis=1)
    chosen = [
        [np.take_along_axis(part[m], best[:, [m]], axis=1)[:, 0] for part in (wrong, diversity, common)] for m in (0, 1)
    ]
    return np.moveaxis(np.array(chosen), 2, 0), best


def _exchanged(
    wrong: tuple[Floats, Floats], diversity: tuple[Floats, Floats], counted: npt.NDArray[np.bool_], observed: Floats,
    weights: Weights, n_permutations: int, seed: int, stream: int,
) -> Floats:  # fmt: skip
    middle, half = [], []
    for pair, rows in ((wrong, np.ones(len(counted), dtype=bool)), (diversity, counted)):
        first, second = (np.where(rows[:, None], part, 0.0) / rows.sum() for part in pair)
        middle.append(((first + second) / 2).sum(axis=0))
        half.append((first - second) / 2)
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    reached, block = np.zeros(len(observed)), max(1, _BLOCK // len(counted))
    for start in range(0, n_permutations, block):
        rows_here = min(block, n_permutations - start)
        sign = np.where(generator.random((rows_here, len(counted))) < 0.5, -1.0, 1.0)
        moved = [sign @ part for part in half]
        means = [np.round(middle[part] + side * moved[part], 12) for part in (0, 1) for side in (1.0, -1.0)]
        values, _ = _at_best(means, weights)
        reached += (np.abs(values[:, 0] - values[:, 1]) >= np.abs(observed) - 1e-9).sum(axis=0)
    return np.asarray((1 + reached) / (1 + n_permutations))
