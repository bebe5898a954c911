"""Uncertainty and rejection in words: the measures, what the numbers mean, and how much data stands behind a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hcl_cli.report.labels import CurveRows, Row, curves_of
from hcl_cli.schemas import LAYERS

MEASURES = {
    "semantic_entropy": "semantic entropy",
    "semantic_entropy_discrete": "discrete semantic entropy",
    "predictive_entropy": "predictive entropy",
    "answer_logprob": "the answer's own mean log-probability",
}
MEANING = (
    "AUROC: chance that a wrong answer is the more uncertain of a wrong and a right one. Lead: over the AUROC of "
    "predictive entropy, paired. AURAC: mean accuracy of what is kept, over 20 shares kept from 10 to 100 %, the least "
    "uncertain first (the published area is 18/19 of it). Answers judged: the samples, each question counting 1. "
    "95 % intervals over questions."
)


@dataclass(frozen=True)
class Uncertainty:
    """The rows of UNCERTAINTY for one curve.

    Attributes:
        curve: names it; `layers` holds one row per layer or method, of the measure that leads.
        leading: semantic_entropy, or its discrete form where no likelihoods are known.
        rows: (of `key`, measure) -> row.
    """

    curve: CurveRows
    leading: str
    rows: dict[tuple[object, ...], Row]

    def of(self, row: Row, measure: str) -> Row:
        """The row of another measure at the same layer."""
        return self.rows[(*key(row), measure)]


def key(row: Row) -> tuple[object, ...]:
    """What tells a layer from all others."""
    return tuple(row.get(name) for name in LAYERS.key)


def uncertainties(rows: Sequence[Row]) -> list[Uncertainty]:
    """One entry per curve, in order of first appearance."""
    by_key = {(*key(row), row["measure"]): row for row in rows}
    found = []
    for curve in curves_of([row for row in rows if row["measure"] == "semantic_entropy"]):
        known = any(row["mean"] is not None for row in curve.layers)
        leading = "semantic_entropy" if known else "semantic_entropy_discrete"
        found.append(Uncertainty(curve, leading, by_key))
    return found


def counts(curve: CurveRows, leading: str) -> str:
    """How many questions and answers, what was left out of them, and which entropy leads."""
    first = curve.layers[0]
    everywhere = "under every method" if curve.over_methods else "at every layer"
    if not first["n_questions"]:
        return (
            f"No question has graded answers and two or more samples with a meaning {everywhere}: an entropy of one "
            "sample says nothing, so all is unknown."
        )
    text = f"{_number([first['n_questions']], 'question')}, "
    text += f"{_number([row['n_answers'] for row in curve.layers], 'answer')} per {curve.noun}"
    if first["n_questions_left_out"]:
        needed = "verdict, meaning and likelihood" if leading == "semantic_entropy" else "verdict and meaning"
        text += f"; {_number([first['n_questions_left_out']], 'question')} left out for want of "
        text += f"two samples with {needed} {everywhere}"
    if leading != "semantic_entropy":
        text += "; no likelihoods (mean_logprob), so only the discrete semantic entropy is known"
    return f"{text}."


def _number(values: list[int], noun: str) -> str:
    low, high = min(values), max(values)
    amount = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{amount} {noun}{'' if high == 1 else 's'}"
