"""Scored responses -> how well each exit layer's confidence in an answer tells whether the answer is correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration_intervals import Estimate, auroc_interval, resampled_auroc
from hcl_cli.measures.probe_intervals import HeldOutRows, calibration_error, share_interval
from hcl_cli.measures.ranked_intervals import ranked_half_intervals
from hcl_cli.schemas import LAYER_CALIBRATION
from hcl_cli.stages.scored_groups import Part, ScoredInput, conformed, read_groups, stream_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Confidence", "ScoredInput", "layer_calibration", "parse_confidence"]

_ROUNDING = 1e-6  # a float32 mean of probabilities may end this far outside [0, 1]


@dataclass(frozen=True)
class Confidence:
    """What is taken for a model's confidence in an answer.

    Attributes:
        column: of the scored responses.
        is_logprob: its exponential is the confidence.
    """

    column: str
    is_logprob: bool = False

    @property
    def definition(self) -> str:
        """As a formula: exp(mean_logprob), mean_prob, ..."""
        return f"exp({self.column})" if self.is_logprob else self.column


_NAMED = {
    "mean-logprob": Confidence("mean_logprob", is_logprob=True),
    "mean-prob": Confidence("mean_prob"),
    "mean-max-prob": Confidence("mean_max_prob"),
}


def parse_confidence(text: str) -> Confidence:
    """The confidence that `--confidence` names: mean-logprob (its exponential), mean-prob, mean-max-prob or a column.

    Raises:
        BadOption: for an empty name.
    """
    name = text.strip()
    if not name:
        raise BadOption(f"--confidence {text!r}: expected {', '.join(_NAMED)} or a column with numbers in [0, 1]")
    return _NAMED.get(name.replace("_", "-"), Confidence(name))


def layer_calibration(
    inputs: Sequence[ScoredInput], *, confidence: str | Confidence = "mean-logprob", n_bootstrap: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """One row per curve and exit layer (or decoding method): how well the confidence tells what is correct.

    Curves are those of the layer table, and their layers are compared on the same questions: those with a graded
    answer that has a confidence at every layer. Every answer counts 1 (the layer table averages over questions).
    Intervals are 95 %, over questions: see `measures.probe_intervals`, `calibration_intervals`, `ranked_intervals`.

    Args:
        inputs: SCORED columns; a file from elsewhere may lack all but `correct`, the question and the confidence.
        confidence: see `parse_confidence`; also ready made.
        n_bootstrap: resamples, >= 0; with 0 there is no interval.
        seed: of the resamples, >= 0.
    Returns:
        LAYER_CALIBRATION, ordered by curve and exit layer; null where a number is undefined.
    Raises:
        BadOption, BadInput: in one line.
    Source: LitCab (arXiv 2310.19208) for the choice of numbers; of each, see `measures.calibration`.
    """
    import polars as pl

    chosen = confidence if isinstance(confidence, Confidence) else parse_confidence(confidence)
    groups = read_groups(inputs, lambda frame, number: _rated(frame, number, chosen))
    rows = [row for group, part in groups for row in _curve_rows(group, part, chosen, n_bootstrap, seed)]
    return pl.DataFrame(rows, schema=LAYER_CALIBRATION.polars_schema())


def _rated(frame: pl.DataFrame, number: int, chosen: Confidence) -> pl.DataFrame:
    """The rows with a column `rated`: the confidence of each graded answer, else null."""
    import polars as pl

    table = conformed(frame, number)
    label = f"input {number}, --confidence {shown(chosen.column)}"
    if chosen.column not in frame.columns:
        raise BadInput(f"{label}: there is no such column; name one with numbers in [0, 1], like mean-prob")
    column = frame[chosen.column]
    try:
        value = column.cast(pl.Float64)
    except pl.exceptions.PolarsError:
        raise BadInput(f"{label}: {column.dtype} cannot be read as numbers; name another column") from None
    value = value.fill_nan(None)
    value = value.exp() if chosen.is_logprob else value
    graded = pl.select(pl.when(table["correct"].is_not_null()).then(value)).to_series()
    if graded.null_count() == table.height and table["correct"].null_count() < table.height:
        raise BadInput(f"{label}: no graded answer has a value; name a column that has, like mean-prob")
    outside = ((graded < -_ROUNDING) | (graded > 1 + _ROUNDING)).fill_null(False)
    if outside.any():
        first = int(outside.arg_true()[0])
        hint = "a logprob is at most 0" if chosen.is_logprob else "expected a probability"
        raise BadInput(
            f"{label}: {shown(str(column[first]), 40)} in row {first + 1} gives a confidence outside [0, 1] ({hint}); "
            "correct the column or name another"
        )
    return table.with_columns(rated=graded.clip(0.0, 1.0))


def _curve_rows(
    group: dict[str, Any], part: Part, chosen: Confidence, n_bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    import polars as pl

    table, axis = part.frame, part.axis
    positions = part.positions()
    n_all = table["question_id"].n_unique()
    rated = table.filter(pl.col("rated").is_not_null())
    everywhere = rated.group_by("question_id").agg(n=pl.col(axis).n_unique()).filter(pl.col("n") == positions.height)
    ids = everywhere["question_id"].sort().to_list()
    place = pl.DataFrame({"question_id": ids}, schema={"question_id": pl.String}).with_row_index("place")
    # Sorted down to the value that is summed: the order of the rows in the file must not reach the last bit.
    rated = rated.join(place, on="question_id").sort(axis, "place", "rated", "correct")
    drawn = list(resample_counts(len(ids), n_bootstrap, seed, stream_of(ids))) if len(ids) > 1 else []
    counts = np.concatenate(drawn) if drawn else np.empty((0, len(ids)))
    found = []
    for position, layer in positions.select(axis, "layer").iter_rows():
        here = rated.filter(pl.col(axis) == position)
        row = {
            **group,
            **({"method": position} if part.over_methods else {}),
            "exit_layer": layer,
            "confidence_definition": chosen.definition,
            "n_questions": len(ids),
            "n_questions_left_out": n_all - len(ids),
            "n_answers": here.height,
            "n_answers_left_out": table.filter(pl.col(axis) == position).height - here.height,
        }
        found.append(row | (_numbers(here, counts) if here.height else {}))
    return [{name: row.get(name) for name in LAYER_CALIBRATION.columns} for row in found]


def _numbers(here: pl.DataFrame, counts: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float | None]:
    """Every number of one layer with the ends of its interval; None where unknown."""
    question = here["place"].to_numpy().astype(np.int64)
    prob, correct = here["rated"].to_numpy(), here["correct"].to_numpy().astype(bool)
    answers = HeldOutRows(correct, question, np.zeros(len(question), dtype=np.int64), counts)
    accuracy_at_50, coverage_at_50 = ranked_half_intervals(prob, answers)
    estimates = {
        "accuracy": share_interval(correct, answers),
        "accuracy_at_50": accuracy_at_50,
        "coverage_at_50": coverage_at_50,
        "ece": calibration_error(prob[None], answers),
        "ece_litcab": calibration_error(prob[None], answers, "litcab"),
        "brier": share_interval((prob - correct) ** 2, answers),
        "auroc": auroc_interval(resampled_auroc(prob, correct, question, None, counts)),
        "mean_confidence": share_interval(prob, answers),
    }
    return {column: value for name, found in estimates.items() for column, value in _columns(name, found).items()}


def _columns(name: str, found: Estimate) -> dict[str, float | None]:
    """Rounded, so that the order in which a machine adds does not show."""
    ends = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return {column: None if np.isnan(value) else round(float(value), 12) for column, value in ends.items()}
