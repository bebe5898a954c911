"""Accuracy of what is kept as the most uncertain is rejected: a panel for the best, a middle and the last layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.report.drawing import (
    COLOURS,
    MARKERS,
    PANEL_HEIGHT,
    WIDTH,
    check_ending,
    figure_style,
    furnish,
    save_figure,
    wrapped,
)
from hcl_cli.report.labels import CurveRows, Row, common_name, curves_of
from hcl_cli.report.rejection_words import MEASURES, key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = 3
_LEADING = ("semantic_entropy", "semantic_entropy_discrete")  # the first that is known has the band
_NOTE = (
    "Kept first: the least uncertain, ties together, so that a curve may start flat; as a share of the questions, for "
    "the answer's own log-probability of the answers. Every question counts 1. Band: 95 % interval over questions, of "
    "semantic entropy only (the others' are in the table). Dotted: nothing rejected."
)


def rejection_figure(rejection: Sequence[Row], layers: Sequence[Row]) -> Figure:
    """A row of panels per curve, a line with its band per measure.

    Args:
        rejection: rows of REJECTION.
        layers: rows of LAYERS, which say what layers there are and which is best.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        curves = curves_of(layers)
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * len(curves)))
        panels = figure.subplots(len(curves), _PANELS, squeeze=False)
        drawn = set[str]()
        for across, curve in zip(panels, curves, strict=True):
            chosen = _chosen(curve)
            rows = [[row for row in rejection if key(row) == key(at)] for _, at in chosen]
            ends = [
                row[name]
                for some in rows
                for row in some
                for name in (_ENDS if row["measure"] in _LEADING else _ENDS[:1])
                if row[name] is not None
            ]
            for axis, (words, at), some in zip(across, chosen, rows, strict=False):
                drawn |= _panel(axis, some)
                label = curve.label(at) if curve.over_methods else f"layer {curve.label(at)}"
                axis.set_title(wrapped(f"{label}{words}", 32), loc="left", parse_math=False)
                axis.set_xlabel("share kept")
                if ends:
                    axis.set_ylim(max(0.0, min(ends)) - 0.03, min(1.0, max(ends)) + 0.03)
            for axis in across[len(chosen) :]:
                axis.set_axis_off()
            name = f"{wrapped(curve.short, 34)}\n" if len(curves) > 1 else ""
            across[0].set_ylabel(f"{name}accuracy of what is kept", parse_math=False)
        handles = [
            Line2D([], [], label=words, ms=5, mew=1.2, **_look(measure))
            for measure, words in MEASURES.items()
            if measure in drawn
        ]
        title = common_name(layers)
        height = PANEL_HEIGHT * len(curves)
        furnish(figure, title="" if title == "unnamed" else title, handles=handles, note=_NOTE, height=height)
    return figure


_ENDS = ("accuracy", "accuracy_low", "accuracy_high")


def _chosen(curve: CurveRows) -> list[tuple[str, Row]]:
    """(what it is, row) of the layers shown, from the best on: best, middle, last; of methods the first three."""
    best = curve.best
    if curve.over_methods:
        first = [row for row in (best, *curve.layers) if row is not None]
        distinct = list({key(row): row for row in first}.values())[:_PANELS]
        return [(" (best HCB)" if row is best else "", row) for row in distinct]
    middle, last = curve.layers[(len(curve.layers) - 1) // 2], curve.layers[-1]
    words = {key(last): "last"} | ({key(best): "best HCB"} if best is not None else {})
    if best is not None and key(best) == key(last):
        words[key(last)] = "best HCB, last"
    words.setdefault(key(middle), "middle")
    rows = [row for row in curve.layers if key(row) in words]
    return [(f" ({words[key(row)]})", row) for row in rows]


def _look(measure: str) -> dict[str, Any]:
    place = list(MEASURES).index(measure)
    dashes = "-" if measure in _LEADING else "--"
    return {"color": COLOURS[place], "marker": MARKERS[place], "mfc": "white", "lw": 1.8, "ls": dashes}


def _panel(axis: Any, rows: Sequence[Row]) -> set[str]:
    """Draw a layer; the measures that it has."""
    axis.set_xlim(0.06, 1.04)
    if not rows:
        axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
        axis.set_yticks([])
        return set()
    found = {row["measure"] for row in rows}
    leading = next((measure for measure in _LEADING if measure in found), None)
    for place, measure in enumerate(MEASURES):
        own = [row for row in rows if row["measure"] == measure]
        if not own:
            continue
        look, x = _look(measure), [row["share_kept"] for row in own]
        # The first measure lies on top; markers take turns, so that lines on one another can be told apart.
        axis.plot(
            x, [row["accuracy"] for row in own], ms=5, mew=1.2, markevery=(place, 4), zorder=4 - place / 10, **look
        )
        if measure == leading and own[0]["accuracy_low"] is not None:
            ends = [[row[f"accuracy_{end}"] for row in own] for end in ("low", "high")]
            axis.fill_between(x, *ends, color=look["color"], alpha=0.16, lw=0, zorder=2)
    axis.axhline(rows[-1]["accuracy"], color="0.4", lw=1, ls=":", zorder=1)
    return found


def write_rejection_figure(rejection: Sequence[Row], layers: Sequence[Row], path: Path) -> None:
    """Draw the figure into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(rejection_figure(rejection, layers), path)
