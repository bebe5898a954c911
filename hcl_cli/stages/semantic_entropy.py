"""Scored responses -> how much the meanings of a layer's answers differ, and whether that tells which are wrong.

The published evaluation judges one further answer per question, sampled at a low temperature. Here there is none, and
the answers that are judged are the samples themselves [ours]: each graded sample is right or wrong, and its uncertainty
is that of its question at that layer. Every question counts 1, so accuracy before any rejection is 1 minus the
hallucination rate of the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures.bootstrap import resample_counts, resampled_means
from hcl_cli.measures.calibration_intervals import Estimate, auroc_interval, auroc_lead
from hcl_cli.measures.intervals import mean_interval
from hcl_cli.measures.rejection import AREA, SHARES, JudgedAnswers, Rejection, accuracy_estimates, aurac, rejection
from hcl_cli.schemas import REJECTION, UNCERTAINTY
from hcl_cli.stages.curves import Curve, counted_entropies
from hcl_cli.stages.scored_groups import Part, ScoredInput, conformed, read_groups, stream_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MEASURES", "ScoredInput", "entropy_columns", "uncertainty_tables"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

ANSWER = "answer_logprob"  # minus the mean log-probability of the answer itself
BASELINE = "predictive_entropy"  # what the others' AUROC is compared with
MEASURES = ("semantic_entropy", "semantic_entropy_discrete", BASELINE, ANSWER)
_NOTHING = Estimate(math.nan, math.nan, math.nan)


def entropy_columns(curve: Curve, n_bootstrap: int, seed: int) -> list[Row]:
    """The columns of LAYERS about semantic entropy, one entry per layer; null where unknown.

    They are over the questions that `curves.counted_entropies` counts. AUROC and AURAC are of the Rao-Blackwellised
    entropy; those of the others are in UNCERTAINTY.
    """
    both = {"semantic_entropy": curve.semantic_entropy, "semantic_entropy_discrete": curve.semantic_entropy_discrete}
    counted = np.asarray(~np.isnan(curve.semantic_entropy_discrete).any(axis=1))
    n_counted = int(counted.sum())
    columns: list[Row] = [{"n_entropy_questions": n_counted} for _ in curve.layers]
    ids = [name for name, counts in zip(curve.question_ids, counted, strict=True) if counts]
    counts = _resamples(ids, n_bootstrap, seed)
    for name, values in both.items():
        for row, estimate in zip(columns, _means(values[counted], ids, n_bootstrap, seed), strict=True):
            row |= _columns(name, estimate)
    for k, row in enumerate(columns):
        uncertainty = curve.semantic_entropy[counted, k]
        if not n_counted or np.isnan(uncertainty).any():
            row |= _columns("semantic_entropy_auroc", _NOTHING) | _columns("semantic_entropy_aurac", _NOTHING)
            continue
        wrong = curve.wrong[counted, k]
        found = rejection(JudgedAnswers(np.arange(n_counted), uncertainty, 1 - wrong, wrong, n_counted), counts)
        row |= _columns("semantic_entropy_auroc", auroc_interval(found.auroc))
        row |= _columns("semantic_entropy_aurac", aurac(found))
    return columns


def uncertainty_tables(
    inputs: Sequence[ScoredInput], *, n_bootstrap: int = 2000, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Measures of uncertainty by how well they tell wrong answers, and accuracy after rejecting by each of them.

    Curves are those of the layer table. All measures and all layers are compared on the same questions
    (`curves.counted_entropies`) and resamples. See `measures.semantic_entropy` and `measures.rejection`.

    Args:
        inputs: SCORED columns; a file from elsewhere may lack all but `correct`, `meaning_id` and the question;
            without `mean_logprob` only the discrete semantic entropy is known.
        n_bootstrap: resamples, >= 0; with 0 there is no interval.
        seed: of the resamples, >= 0.
    Returns:
        (UNCERTAINTY, REJECTION), ordered by curve, exit layer, measure and share; REJECTION has no rows for a measure
        that is unknown.
    Raises:
        BadInput: in one line.
    """
    import polars as pl

    uncertainty, rejected = list[Row](), list[Row]()
    for group, part in read_groups(inputs, _with_meanings):
        rows, curve = _part_rows(group, part, n_bootstrap, seed)
        uncertainty += rows
        rejected += curve
    return (
        pl.DataFrame(uncertainty, schema=UNCERTAINTY.polars_schema()),
        pl.DataFrame(rejected, schema=REJECTION.polars_schema()),
    )


def _with_meanings(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    table = conformed(frame, number)
    if table["meaning_id"].null_count() == table.height:
        raise BadInput(
            f"input {number}, --rejection: no answer has a meaning_id; run `hcl score` on it, which clusters them"
        )
    above = ((table["mean_logprob"] > 0) & table["mean_logprob"].is_not_nan()).fill_null(False)
    if above.any():
        first = int(above.arg_true()[0])
        raise BadInput(
            f"input {number}, --rejection: mean_logprob {shown(str(table['mean_logprob'][first]), 40)} in row "
            f"{first + 1}: a logprob is at most 0; correct the column"
        )
    return table


def _part_rows(group: Row, part: Part, n_bootstrap: int, seed: int) -> tuple[list[Row], list[Row]]:
    import polars as pl

    positions = part.positions()
    names = part.frame["question_id"].unique().sort()
    shape = len(names), positions.height
    # Sorted down to the values that are summed: the order of the rows in the file must not reach the last bit.
    table = (
        part.frame.join(pl.DataFrame({"question_id": names}).with_row_index("q"), on="question_id")
        .join(positions.select(part.axis).with_row_index("k"), on=part.axis)
        .with_columns(cell=pl.col("q").cast(pl.Int64) * shape[1] + pl.col("k").cast(pl.Int64))
        .select("cell", "correct", "meaning_id", "mean_logprob")
        .sort("cell", "mean_logprob", "meaning_id", "correct")
    )
    cell = table["cell"].to_numpy()
    graded = table["correct"].is_not_null().to_numpy()
    n_graded = np.bincount(cell[graded], minlength=shape[0] * shape[1]).reshape(shape)
    entropies = counted_entropies(table, cell, shape, np.asarray((n_graded > 0).all(axis=1)))
    counted = np.asarray(~np.isnan(entropies["semantic_entropy_discrete"]).any(axis=1))
    place = np.cumsum(counted) - 1  # of a question among those counted
    ids = names.filter(pl.Series(counted)).to_list()
    counts = _resamples(ids, n_bootstrap, seed)
    correct = table["correct"].fill_null(False).to_numpy()
    logprob = table["mean_logprob"].to_numpy()
    means = {name: _means(values[counted], ids, n_bootstrap, seed) for name, values in entropies.items()}
    layers = positions["layer"].to_list()
    rows, curve = list[Row](), list[Row]()
    for k, layer in enumerate(layers):
        of_layer = {
            **group,
            **({"method": positions["method"][k]} if part.over_methods else {}),
            "exit_layer": layer,
        }
        here = graded & (cell % shape[1] == k) & counted[cell // shape[1]]
        question = place[cell[here] // shape[1]]
        found = _rejections(
            question, correct[here], logprob[here], {n: v[counted, k] for n, v in entropies.items()}, counts
        )
        of_answers = _answer_mean(question, logprob[here], ids, n_bootstrap, seed)
        for measure in MEASURES:
            row = {
                **of_layer,
                "measure": measure,
                "n_questions": len(ids),
                "n_questions_left_out": len(names) - len(ids),
                "n_answers": int(here.sum()),
            }
            if measure in found:
                mean = of_answers if measure == ANSWER else means[measure][k]
                row |= _numbers(measure, found, mean)
                curve += [of_layer | {"measure": measure} | kept for kept in _curve(found[measure])]
            rows.append({name: row.get(name) for name in UNCERTAINTY.columns})
    return rows, [{name: row.get(name) for name in REJECTION.columns} for row in curve]


def _rejections(
    question: npt.NDArray[np.int64],
    correct: npt.NDArray[np.bool_],
    logprob: Floats,
    entropies: Mapping[str, Floats],
    counts: Floats,
) -> dict[str, Rejection]:
    """Of each measure that is known for all answers of a layer."""
    n_questions = counts.shape[1]
    if not n_questions:
        return {}
    weight = 1 / np.bincount(question, minlength=n_questions)[question]
    found = {}
    for measure in MEASURES:
        uncertainty = -np.round(logprob, 12) if measure == ANSWER else entropies[measure][question]
        if not np.isfinite(uncertainty).all():
            continue
        # Answers of a question with the same uncertainty are one row.
        alike = np.lexsort((uncertainty, question))
        q, u = question[alike], uncertainty[alike]
        starts = np.flatnonzero(np.concatenate([[True], (q[1:] != q[:-1]) | (u[1:] != u[:-1])]))
        right, wrong = (np.add.reduceat(weight[alike] * side[alike], starts) for side in (correct, ~correct))
        found[measure] = rejection(JudgedAnswers(q[starts], u[starts], right, wrong, n_questions), counts)
    return found


def _answer_mean(
    question: npt.NDArray[np.int64], logprob: Floats, ids: Sequence[str], n_bootstrap: int, seed: int
) -> Estimate:
    if not ids:
        return _NOTHING
    size = np.bincount(question, minlength=len(ids))
    values = np.abs(np.bincount(question, logprob, len(ids)) / size)
    return _means(values[:, None], ids, n_bootstrap, seed)[0]


def _numbers(measure: str, found: Mapping[str, Rejection], mean: Estimate) -> Row:
    area = aurac(found[measure])
    lead = _NOTHING
    if measure != BASELINE and BASELINE in found:
        lead = auroc_lead(found[measure].auroc, found[BASELINE].auroc)
    numbers = {"mean": mean, "auroc": auroc_interval(found[measure].auroc), "aurac": area, "auroc_lead": lead}
    columns = {column: value for name, one in numbers.items() for column, value in _columns(name, one).items()}
    return columns | {"aurac_published": _known(area.value * AREA)}


def _curve(found: Rejection) -> list[Row]:
    return [
        {
            "share_kept": round(float(share), 12),
            "cutoff": _known(float(cutoff)),
            "n_questions_kept": int(np.count_nonzero(taken)),
            **_columns("accuracy", estimate),
        }
        for share, cutoff, taken, estimate in zip(
            SHARES, found.cutoff, found.taken, accuracy_estimates(found), strict=True
        )
    ]


def _resamples(ids: Sequence[str], n_bootstrap: int, seed: int) -> Floats:
    """[resample, question]; no resample of fewer than two questions."""
    drawn = list(resample_counts(len(ids), n_bootstrap, seed, stream_of(ids))) if len(ids) > 1 else []
    return np.concatenate(drawn) if drawn else np.empty((0, len(ids)))


def _means(values: Floats, ids: Sequence[str], n_bootstrap: int, seed: int) -> list[Estimate]:
    """The mean over questions of each column of [question, column], with its interval."""
    if not len(values) or np.isnan(values).any():
        return [_NOTHING] * values.shape[1]
    mean = values.mean(axis=0)
    if len(values) < 2 or not n_bootstrap:
        return [Estimate(float(one), math.nan, math.nan) for one in mean]
    drawn = resampled_means(values, n_bootstrap, seed, stream_of(ids))
    low, high = mean_interval(values, drawn, (0.0, math.inf), math.log(2))
    return [Estimate(*map(float, ends)) for ends in zip(mean, low, high, strict=True)]


def _columns(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: _known(found.value), f"{name}_low": _known(found.low), f"{name}_high": _known(found.high)}


def _known(value: float) -> float | None:
    """None for NaN; rounded, so that the order in which a machine adds does not show."""
    return None if math.isnan(value) else round(float(value), 12)
