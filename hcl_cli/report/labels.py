"""Rows of the layer table -> curves with names, and numbers as text. Plain dictionaries: no Polars on a cache hit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

CURVE_KEY = ("model", "dataset", "strategy", "method", "temperature", "top_p", "source")


@dataclass(frozen=True)
class CurveRows:
    """The rows of one curve.

    Attributes:
        name: everything known about the curve.
        short: only what tells it from the other curves shown with it; the name, if it is alone.
        layers: its rows of LAYERS, layers rising.
        findings: its rows of FINDINGS, by statistic.
    """

    name: str
    short: str
    layers: list[Row]
    findings: dict[str, Row]

    @property
    def best(self) -> Row | None:
        """The row of the best layer."""
        return next((row for row in self.layers if row["is_best"]), None)


def curves_of(layers: Sequence[Row], findings: Sequence[Row] = ()) -> list[CurveRows]:
    """One entry per curve, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in layers:
        groups.setdefault(_key(row), []).append(row)
    differing = [name for at, name in enumerate(CURVE_KEY) if len({key[at] for key in groups}) > 1]
    curves = []
    for key, rows in groups.items():
        named = dict(zip(CURVE_KEY, key, strict=True))
        name = _words(named, CURVE_KEY)
        own = {row["statistic"]: row for row in findings if any(key) and _key(row) == key}
        if not any(key):
            # A file from elsewhere names nothing; a statement about all curves then has the same empty key.
            own = {row["statistic"]: row for row in findings if _key(row) == key}
        short = _words(named, differing) if differing else name
        curves.append(CurveRows(name, short, sorted(rows, key=lambda row: row["exit_layer"]), own))
    return curves


def common_name(layers: Sequence[Row]) -> str:
    """What all curves share, as words; empty if nothing."""
    keys = {_key(row) for row in layers}
    shared = [name for at, name in enumerate(CURVE_KEY) if len({key[at] for key in keys}) == 1]
    return _words(dict(zip(CURVE_KEY, next(iter(keys)), strict=True)), shared) if keys else ""


def of_all(findings: Sequence[Row]) -> dict[str, Row]:
    """The statements about the options and about several curves, by statistic."""
    return {row["statistic"]: row for row in findings if not any(value is not None for value in _key(row))}


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in CURVE_KEY)


def _words(values: Mapping[str, Any], names: Sequence[str]) -> str:
    said = {"temperature": "T {:g}", "top_p": "top-p {:g}", "source": "file {}"}
    words = [said.get(name, "{}").format(values[name]) for name in names if values[name] is not None]
    return ", ".join(one_line(word) for word in words) or "unnamed"


def one_line(text: str) -> str:
    """The text without control characters; a line break becomes a blank."""
    return "".join(
        character if character.isprintable() else " " if character.isspace() else "\ufffd" for character in text
    )


def number(value: float | None, decimals: int = 2) -> str:
    """A number, or a dash for null."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def with_interval(row: Row, name: str, decimals: int = 2) -> str:
    """An estimate and its interval: 0.82 [0.79, 0.85]."""
    text = number(row.get(name), decimals)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def share(value: float | None) -> str:
    """A share in whole per cent; what is neither none nor all never reads as such."""
    if value is None:
        return "-"
    if 0 < value < 0.005:
        return "<1 %"
    if 0.995 < value < 1:
        return ">99 %"
    return f"{100 * value:.0f} %"


def counts(curve: CurveRows) -> str:
    """How much data stands behind the curve, in words."""
    questions = curve.layers[0]["n_questions"]
    per_layer = sorted({row["n_samples"] for row in curve.layers if row["n_samples"] is not None})
    text = f"{questions:,} questions" if questions != 1 else "1 question"
    if per_layer:
        spread = f"{per_layer[0]:,}" if len(per_layer) == 1 else f"{per_layer[0]:,} to {per_layer[-1]:,}"
        text += f", {spread} responses per layer"
    creative = curve.layers[0]["n_creativity_questions"]
    if creative is not None and creative != questions:
        text += f", creativity over {creative:,} questions"
    ungraded, left_out = (curve.findings.get(name) for name in ("responses_ungraded", "questions_left_out"))
    if ungraded:
        text += f"; {ungraded['estimate']:,.0f} of {ungraded['n']:,} responses could not be graded"
    if left_out and left_out["estimate"]:
        text += f"; {left_out['estimate']:,.0f} of {left_out['n']:,} questions left out (not graded at every layer)"
    return text
