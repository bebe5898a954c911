"""How far two raters agree: shares and Cohen's kappa from the counts of each question, with intervals over questions.

A rater is a judge that calls answers right or wrong, or a clustering that puts two answers together or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.intervals import FEW, bca_interval, effective_questions, wilson

Floats = npt.NDArray[np.float64]
Estimate = tuple[float, float, float]  # value, low, high; NaN where unknown

_NOTHING: Estimate = (np.nan, np.nan, np.nan)
BOTH, ONE, OTHER, NEITHER = range(4)  # columns of the counts: yes by both, by the first alone, by the other, by none


@dataclass(frozen=True)
class Agreement:
    """Two raters on the same cases.

    Attributes:
        share_equal: of the cases, in [0, 1].
        kappa: Cohen's, in [-1, 1]; NaN where chance alone explains all (both say one and the same throughout).
        precision, recall, specificity, f1: of the first rater, the other taken for the truth; NaN where undefined.
    """

    share_equal: Estimate
    kappa: Estimate
    precision: Estimate
    recall: Estimate
    specificity: Estimate
    f1: Estimate


def kappa_of(counts: Floats) -> Floats:
    """Cohen's kappa of each row of counts.

    (p - e) / (1 - e), with p the share of equal verdicts and e the share that independent raters with the same numbers
    of yes and no would have by chance.

    Args:
        counts: [..., 4], see BOTH.
    Returns:
        [...], NaN where e is 1 or there is no case.
    Source: Cohen 1960.
    """
    total = counts.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        equal = (counts[..., BOTH] + counts[..., NEITHER]) / total
        one = (counts[..., BOTH] + counts[..., ONE]) / total
        other = (counts[..., BOTH] + counts[..., OTHER]) / total
        chance = one * other + (1 - one) * (1 - other)
        return np.asarray(np.where(1 - chance > 1e-12, (equal - chance) / (1 - chance), np.nan))


def ratio_of(counts: Floats, of: tuple[int, ...], among: tuple[int, ...]) -> Floats:
    """[...]: the share of the cells `of` among the cells `among`, NaN where these are empty."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts[..., list(of)].sum(axis=-1) / counts[..., list(among)].sum(axis=-1))


def _f1(counts: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        yes = 2 * counts[..., BOTH]
        return np.asarray(yes / (yes + counts[..., ONE] + counts[..., OTHER]))


def agreement_of(counts: npt.ArrayLike, n_bootstrap: int, seed: int, stream: int = 0) -> Agreement:
    """Agreement over all cases, every case counting 1, with 95 % intervals over questions.

    Shares: bias-corrected and accelerated bootstrap; where fewer than 10 questions, and fewer than half of those that
    have such cases, differ from 0 (or from 1), Wilson's interval on the effective number of questions. Kappa: the
    bootstrap, and where few questions show a difference at least what Wilson's interval of the share of equal verdicts
    leaves open, at the chance that is observed.

    Args:
        counts: [question, 4], cases of each question, see BOTH.
        n_bootstrap: resamples, >= 0; with 0 ends are unknown, but for Wilson's.
        seed, stream: of the resamples.
    """
    table = np.asarray(counts, dtype=np.float64)
    table = table[table.sum(axis=1) > 0]
    if not len(table):
        return Agreement(_NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING, _NOTHING)
    blocks = list(resample_counts(len(table), n_bootstrap, seed, stream)) if len(table) > 1 else []
    drawn = np.concatenate([block @ table for block in blocks]) if blocks else np.empty((0, 4))

    def share(of: tuple[int, ...], among: tuple[int, ...]) -> Estimate:
        return _share(table, drawn, of, among)

    equal = share((BOTH, NEITHER), (BOTH, ONE, OTHER, NEITHER))
    return Agreement(
        share_equal=equal,
        kappa=_kappa(table, drawn, equal),
        precision=share((BOTH,), (BOTH, ONE)),
        recall=share((BOTH,), (BOTH, OTHER)),
        specificity=share((NEITHER,), (NEITHER, ONE)),
        f1=_smooth(table, drawn, _f1, (0.0, 1.0)),
    )


def share_of(counts: npt.ArrayLike, n_bootstrap: int, seed: int, stream: int = 0) -> Estimate:
    """The share of yes among the cases of [question, 2] (yes, no), intervals as in `agreement_of`."""
    pairs = np.asarray(counts, dtype=np.float64)
    table = np.stack([pairs[:, 0], np.zeros(len(pairs)), np.zeros(len(pairs)), pairs[:, 1]], axis=1)
    table = table[table.sum(axis=1) > 0]
    if not len(table):
        return _NOTHING
    blocks = list(resample_counts(len(table), n_bootstrap, seed, stream)) if len(table) > 1 else []
    drawn = np.concatenate([block @ table for block in blocks]) if blocks else np.empty((0, 4))
    return _share(table, drawn, (BOTH,), (BOTH, NEITHER))


def _share(table: Floats, drawn: Floats, of: tuple[int, ...], among: tuple[int, ...]) -> Estimate:
    cases = table[:, list(among)].sum(axis=1)
    held = cases > 0
    if not held.any():
        return _NOTHING
    value = float(ratio_of(table.sum(axis=0), of, among))
    shares = table[held][:, list(of)].sum(axis=1) / cases[held]
    for odd in (shares, 1 - shares):
        odd = np.round(odd, 12)
        differing = int(np.count_nonzero(odd))
        if differing < FEW and 2 * differing < len(odd):
            sizes = cases[held]
            # Questions of unequal size know a mean over cases less well than as many equal ones (Kish 1965).
            n = effective_questions(odd) * sizes.sum() ** 2 / (len(sizes) * (sizes**2).sum())
            return (value, *wilson(value, n))
    return _smooth(table, drawn, lambda counts: ratio_of(counts, of, among), (0.0, 1.0))


def _smooth(
    table: Floats, drawn: Floats, statistic: Callable[[Floats], Floats], support: tuple[float, float]
) -> Estimate:
    """A smooth function of the summed counts, its acceleration from the jackknife."""
    total = table.sum(axis=0)
    value = float(statistic(total))
    if np.isnan(value) or not len(drawn):
        return (value, np.nan, np.nan)
    without = statistic(total - table)
    without = np.where(np.isnan(without), value, without)
    influence = (without.mean() - without)[:, None]
    low, high = bca_interval(np.array([value]), np.round(statistic(drawn), 12)[:, None], influence)
    return (value, max(support[0], float(low[0])), min(support[1], float(high[0])))


def _kappa(table: Floats, drawn: Floats, equal: Estimate) -> Estimate:
    value, low, high = _smooth(table, drawn, kappa_of, (-1.0, 1.0))
    differing = int(np.count_nonzero(table[:, [ONE, OTHER]].sum(axis=1)))
    agreeing = int(np.count_nonzero(table[:, [BOTH, NEITHER]].sum(axis=1)))
    if np.isnan(value) or np.isnan(equal[1]) or min(differing, agreeing) >= FEW:
        return (value, low, high)
    total = table.sum(axis=0)
    one, other = ((total[BOTH] + total[at]) / total.sum() for at in (ONE, OTHER))
    chance = one * other + (1 - one) * (1 - other)
    ends = [(end - chance) / (1 - chance) for end in equal[1:]]
    return (value, max(-1.0, float(np.nanmin([low, ends[0]]))), min(1.0, float(np.nanmax([high, ends[1]]))))
