"""Rows of the layer table -> curves with names, and numbers as text. Plain dictionaries: no Polars on a cache hit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

CURVE_KEY = ("model", "dataset", "strategy", "method", "temperature", "top_p", "source")
_METHOD = CURVE_KEY.index("method")


@dataclass(frozen=True)
class CurveRows:
    """The rows of one curve.

    Attributes:
        name: everything known about the curve.
        short: only what tells it from the other curves shown with it; the name, if it is alone.
        layers: its rows of LAYERS, layers rising; of a curve over decoding methods in the order of the table.
        findings: its rows of FINDINGS, by statistic.
        over_methods: whether each row is a decoding method, and not a layer.
    """

    name: str
    short: str
    layers: list[Row]
    findings: dict[str, Row]
    over_methods: bool = False

    @property
    def noun(self) -> str:
        """What a row is: layer or method."""
        return "method" if self.over_methods else "layer"

    def label(self, row: Row) -> str:
        """What tells a row from the others of the curve."""
        return one_line(str(row["method"] if self.over_methods else row["exit_layer"]))

    @property
    def best(self) -> Row | None:
        """The row of the best layer."""
        return next((row for row in self.layers if row["is_best"]), None)


def curves_of(layers: Sequence[Row], findings: Sequence[Row] = ()) -> list[CurveRows]:
    """One entry per curve, in order of first appearance.

    Rows that differ in their method alone are one curve over methods, as `stages.curves` made it.
    """
    groups = _groups(layers)
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
        over_methods = key[_METHOD] is None and rows[0].get("method") is not None
        ordered = rows if over_methods else sorted(rows, key=lambda row: row["exit_layer"])
        curves.append(CurveRows(name, short, ordered, own, over_methods))
    return curves


def _groups(layers: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each curve by its key, which has no method for a curve over methods."""
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in layers:
        if row.get("method") is not None:
            alike.setdefault(_without_method(_key(row)), []).append(row)
    over_methods = {key for key, rows in alike.items() if 1 < len(rows) == len({row["method"] for row in rows})}
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in layers:
        key = _key(row)
        joined = row.get("method") is not None and _without_method(key) in over_methods
        groups.setdefault(_without_method(key) if joined else key, []).append(row)
    return groups


def _without_method(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*key[:_METHOD], None, *key[_METHOD + 1 :])


def common_name(layers: Sequence[Row]) -> str:
    """What all curves share, as words; empty if nothing."""
    keys = set(_groups(layers))
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
    text = counted(questions, "question")
    if per_layer:
        spread = f"{per_layer[0]:,}" if len(per_layer) == 1 else f"{per_layer[0]:,} to {per_layer[-1]:,}"
        text += f", {spread} responses per {curve.noun}"
    creative = curve.layers[0]["n_creativity_questions"]
    if creative is not None and creative != questions:
        text += f", creativity over {creative:,} questions"
    ungraded, left_out = (curve.findings.get(name) for name in ("responses_ungraded", "questions_left_out"))
    if ungraded:
        text += f"; {ungraded['estimate']:,.0f} of {ungraded['n']:,} responses could not be graded"
    if left_out and left_out["estimate"]:
        text += f"; {left_out['estimate']:,.0f} of {left_out['n']:,} questions left out (not graded "
        text += "under every method)" if curve.over_methods else "at every layer)"
    return text


def counted(number: int, noun: str) -> str:
    """1 question, 2,000 questions."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
