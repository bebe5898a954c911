"""Calibration of exit layers in words: the columns, what they mean, and how much data stands behind a curve."""

from __future__ import annotations

from hcl_cli.report.labels import CurveRows, one_line

FOUR = (
    ("Accuracy@50", "accuracy_at_50"),
    ("Coverage@50", "coverage_at_50"),
    ("ECE", "ece"),
    ("Brier", "brier"),
)
ALL = (
    ("Accuracy", "accuracy"),
    *FOUR[:3],
    ("ECE, LitCab", "ece_litcab"),
    *FOUR[3:],
    ("AUROC", "auroc"),
    ("Confidence", "mean_confidence"),
)

MEANING = (
    "Accuracy@50: share correct among the more confident half of the answers. Coverage@50: the largest share of them, "
    "most confident first, of which more than half is correct. ECE: 10 equal-width bins. 95 % intervals over questions."
)


def definition(curve: CurveRows) -> str:
    """What confidence is."""
    return f"Confidence of an answer: {one_line(curve.layers[0]['confidence_definition'])}."


def counts(curve: CurveRows) -> str:
    """How many questions and answers, and what was left out of them."""
    first = curve.layers[0]
    text = f"{_number([first['n_questions']], 'question')}, "
    text += f"{_number([row['n_answers'] for row in curve.layers], 'answer')} per {curve.noun}"
    left_out = []
    if first["n_questions_left_out"]:
        left_out.append(_number([first["n_questions_left_out"]], "question"))
    if any(row["n_answers_left_out"] for row in curve.layers):
        answers = _number([row["n_answers_left_out"] for row in curve.layers], "response")
        left_out.append(f"{answers} per {curve.noun}")
    if left_out:
        where = "under every method" if curve.over_methods else "at every layer"
        text += f"; left out for want of a verdict or a confidence ({where}): {', '.join(left_out)}"
    return f"{text}."


def _number(values: list[int], noun: str) -> str:
    low, high = min(values), max(values)
    amount = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{amount} {noun}{'' if high == 1 else 's'}"
