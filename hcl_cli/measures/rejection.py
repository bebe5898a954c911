"""Whether an uncertainty tells wrong answers from right ones: AUROC, and accuracy once the uncertain ones are rejected.

Every question counts 1, which its answers share. A measure of a question (semantic entropy) gives all of its answers
the same value and rejects them together; a measure of a single answer may keep some of them.

At a share q that part of the answers is kept which is least uncertain, up to the q-quantile of the uncertainty and with
everything that ties with it. As published, the quantile interpolates between order statistics k and k + 1, so that
what is kept is all up to the statistic number floor((n - 1) q) + 1 of n questions. AURAC is the mean accuracy over 20
shares from .1 to 1; the published area is its sum times the step, 18/19 of it (`AREA`).

Intervals are 95 %, over questions, the quantiles found again in every resample (published: 90 %): of AUROC as in
`calibration_intervals`; of accuracies percentiles, but Wilson's where fewer than 10 of the kept questions differ from
all right (or all wrong); of AURAC the bias-corrected and accelerated bootstrap (percentiles held the truth in 92 to
95 % of simulations, this in 93 to 96 %), but the mean of the accuracies' ends where that holds at share 1.
Measured coverage: tests/measures/test_rejection.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.calibration_intervals import Estimate, ResampledAuroc
from hcl_cli.measures.intervals import bca_interval, percentile_interval
from hcl_cli.measures.ranked_intervals import almost_alike, wilson_of_groups

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHARES: Floats = np.linspace(0.1, 1, 20)
AREA = float(len(SHARES) * (SHARES[1] - SHARES[0]))  # published area of an accuracy of 1

_WHOLE = 1e-7  # a number of questions this far below a whole one is rounding
_BLOCK = 1 << 16  # numbers worked on at once; only speed and memory depend on it


@dataclass(frozen=True)
class JudgedAnswers:
    """Answers with a verdict and an uncertainty; answers of a question with the same uncertainty may be one row.

    Attributes:
        question: [row], 0..n_questions-1, every question at least once.
        uncertainty: [row], finite; only its order matters.
        right, wrong: [row], weight of the right and of the wrong answers, >= 0; 1 in all for each question.
        n_questions: the number of questions.
    """

    question: Ints
    uncertainty: Floats
    right: Floats
    wrong: Floats
    n_questions: int


@dataclass(frozen=True)
class Rejection:
    """What an uncertainty is worth, as observed and in every resample of the questions.

    Attributes:
        auroc: of "more uncertain means wrong"; see `calibration_intervals`.
        accuracy: [share], of what is kept.
        drawn: [resample, share], the same, rounded to 12 decimals.
        cutoff: [share], largest uncertainty that is kept.
        taken, right: [share, question], weight of what is kept and of the right answers in it.
    """

    auroc: ResampledAuroc
    accuracy: Floats
    drawn: Floats
    cutoff: Floats
    taken: Floats
    right: Floats

    @property
    def influence(self) -> Floats:
        """[question, share]: effect of the question on the accuracy, with the cutoff held, in units of a mean."""
        of_share = self.taken.sum(axis=1, keepdims=True) / self.taken.shape[1]
        return ((self.right - self.accuracy[:, None] * self.taken) / of_share).T


def rejection(answers: JudgedAnswers, counts: Floats) -> Rejection:
    """AUROC and accuracy after rejection.

    Args:
        answers: at least one.
        counts: [resample, question], how often each question was drawn (`bootstrap.resample_counts`).
    Source: jlko/semantic_uncertainty, eval_utils.py, `auroc`, `accuracy_at_quantile`.
    """
    order = np.lexsort((answers.question, answers.uncertainty))
    question, right, wrong = answers.question[order], answers.right[order], answers.wrong[order]
    rising = answers.uncertainty[order]
    starts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    sorted_rows = (question, right, wrong, starts)
    everyone = np.ones((1, answers.n_questions))
    _, observed, edge = _walk(sorted_rows, everyone)
    won, drawn, _ = _walk(sorted_rows, counts)
    n_kept = np.append(starts[1:], len(rising))[edge[0]]  # [share], rows
    kept = np.arange(len(rising)) < n_kept[:, None]

    def of_questions(weight: Floats) -> Floats:
        return np.stack([np.bincount(question[rows], weight[rows], answers.n_questions) for rows in kept])

    return Rejection(
        auroc=_auroc(sorted_rows, won, counts),
        accuracy=observed[0],
        drawn=np.round(drawn, 12),
        cutoff=rising[n_kept - 1],
        taken=of_questions(right + wrong),
        right=of_questions(right),
    )


def _walk(rows: tuple[Ints, Floats, Floats, Ints], counts: Floats) -> tuple[Floats, Floats, Ints]:
    """Of every resample: weight of the pairs won [resample]; accuracy, and the last distinct value kept, by share."""
    question, right, wrong, starts = rows
    n_questions = counts.shape[1]
    needed = np.floor((n_questions - 1) * SHARES + _WHOLE) + 1 - _WHOLE  # [share], questions kept
    won = np.empty(len(counts))
    accuracy, edge = np.empty((len(counts), len(SHARES))), np.empty((len(counts), len(SHARES)), dtype=np.int64)
    has_ties = len(starts) < len(question)
    width = max(16, _BLOCK // len(question))
    for start in range(0, len(counts), width):
        block = slice(start, start + width)
        drawn = np.take(counts[block], question, axis=1)  # [resample, row]
        good, bad = drawn * right, drawn * wrong
        if has_ties:
            good, bad = np.add.reduceat(good, starts, axis=1), np.add.reduceat(bad, starts, axis=1)
        below = np.cumsum(good, axis=1)  # [resample, value]
        kept = below + np.cumsum(bad, axis=1)
        good *= -0.5
        good += below  # weight of what is right and less uncertain, ties half
        won[block] = np.einsum("rv,rv->r", bad, good)
        # One search in all resamples, which are laid end to end.
        offset = (np.arange(len(kept)) * (n_questions + 1.0))[:, None]
        place = np.searchsorted((kept + offset).ravel(), (needed + offset).ravel()).reshape(len(kept), -1)
        found = place - np.arange(len(kept))[:, None] * kept.shape[1]
        edge[block] = found = np.minimum(found, kept.shape[1] - 1)
        accuracy[block] = np.take_along_axis(below, found, axis=1) / np.take_along_axis(kept, found, axis=1)
    return won, accuracy, edge


def _auroc(rows: tuple[Ints, Floats, Floats, Ints], won: Floats, counts: Floats) -> ResampledAuroc:
    """As `calibration_intervals.resampled_auroc` defines it, of rows that are sorted already."""
    question, right, wrong, starts = rows
    n_questions = counts.shape[1]
    good, bad = (np.bincount(question, weight, n_questions) for weight in (right, wrong))
    pairs = good * bad.sum() + bad * good.sum()  # [question], of its answers with any other
    total = float(pairs.sum() / 2)
    counted = int((bad > 0).sum()), int((good > 0).sum())
    if total <= 0:
        nothing = np.full(n_questions, np.nan)
        return ResampledAuroc(math.nan, np.full(len(counts), np.nan), nothing, nothing, *counted)
    tied_good, tied_bad = np.add.reduceat(right, starts), np.add.reduceat(wrong, starts)
    sizes = np.diff(np.append(starts, len(question)))
    lower = np.repeat(np.cumsum(tied_good) - tied_good / 2, sizes)
    higher = np.repeat(bad.sum() - np.cumsum(tied_bad) + tied_bad / 2, sizes)
    of_question = np.bincount(question, wrong * lower + right * higher, n_questions)
    area = float(of_question.sum() / 2 / total)
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = np.round(won / ((counts @ good) * (counts @ bad)), 12)
    slips = pairs - of_question if area >= 0.5 else of_question
    influence = (of_question - area * pairs) / total * n_questions
    return ResampledAuroc(round(area, 12), draws, influence, np.round(slips / total, 12), *counted)


def accuracy_estimates(found: Rejection) -> list[Estimate]:
    """Accuracy of what is kept at each of SHARES, with its interval."""
    low, high = percentile_interval(found.accuracy, found.drawn)
    estimates = []
    for share, accuracy in enumerate(found.accuracy):
        ends = float(low[share]), float(high[share])
        held = found.taken[share] > 0
        taken, right = found.taken[share][held], found.right[share][held]
        if len(found.drawn) and almost_alike(taken, right):
            ends = wilson_of_groups(taken, right)
        estimates.append(Estimate(float(accuracy), *ends))
    return estimates


def aurac(found: Rejection) -> Estimate:
    """Mean accuracy over SHARES, in [0, 1], with its interval; times AREA it is the published area.

    Source: jlko/semantic_uncertainty, eval_utils.py, `area_under_thresholded_accuracy`; Farquhar et al. 2024.
    """
    value = float(found.accuracy.mean())
    if not len(found.drawn):
        return Estimate(value, math.nan, math.nan)
    if almost_alike(found.taken[-1], found.right[-1]):
        ends = accuracy_estimates(found)
        return Estimate(value, float(np.mean([e.low for e in ends])), float(np.mean([e.high for e in ends])))
    drawn = np.round(found.drawn.mean(axis=1, keepdims=True), 12)
    low, high = bca_interval(np.array([value]), drawn, found.influence.mean(axis=1, keepdims=True))
    return Estimate(value, float(low[0]), float(high[0]))
