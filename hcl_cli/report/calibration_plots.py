"""Calibration of exit layers as a figure: accuracy@50, coverage@50, ECE and Brier score, each with its band."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.report.calibration_words import FOUR, MEANING, definition
from hcl_cli.report.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    WIDTH,
    check_ending,
    figure_style,
    furnish,
    save_figure,
    wrapped,
)
from hcl_cli.report.labels import CurveRows, Row, common_name, curves_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEIGHT = 6.2  # inches, of two rows of panels over layers


def calibration_figure(rows: Sequence[Row]) -> Figure:
    """Four panels over the exit layers, every curve in all four; four more over decoding methods, if there are any.

    Where curves end at different depths, the horizontal axis is the relative depth.

    Args:
        rows: of LAYER_CALIBRATION.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        curves = curves_of(rows)
        over_layers = [(n, curve) for n, curve in enumerate(curves) if not curve.over_methods]
        over_methods = [(n, curve) for n, curve in enumerate(curves) if curve.over_methods]
        methods = list(dict.fromkeys(curve.label(row) for _, curve in over_methods for row in curve.layers))
        heights = [_HEIGHT / 2] * 2 if over_layers else []
        heights += [max(2.2, 1.0 + 0.34 * len(methods))] * 2 if over_methods else []
        figure = Figure(figsize=(WIDTH, sum(heights)))
        panels = figure.subplots(len(heights), 2, squeeze=False, height_ratios=heights)
        for place, (title, name) in enumerate(FOUR):
            down, across = divmod(place, 2)
            if over_layers:
                _layer_panel(panels[down][across], over_layers, name, labelled=down == 1)
                panels[down][across].set_title(title, loc="left")
            if over_methods:
                axis = panels[len(heights) - 2 + down][across]
                _method_panel(axis, over_methods, methods, name, named=across == 0)
                axis.set_title(title, loc="left")
        _name(figure, rows, curves, sum(heights))
    return figure


def _layer_panel(axis: Any, numbered: list[tuple[int, CurveRows]], name: str, labelled: bool) -> None:
    """A line with its band per curve; the axis says what it is if `labelled`."""
    curves = [curve for _, curve in numbered]
    relative = len({curve.layers[-1]["exit_layer"] for curve in curves}) > 1
    for number, curve in numbered:
        _draw(axis, curve, name, number, relative, faint=len(curves) > 3)
    if all(row[name] is None for curve in curves for row in curve.layers):
        _unknown(axis)
    if labelled:
        axis.set_xlabel("exit layer / deepest exit layer" if relative else "exit layer")
    if not relative:
        numbers = [row["exit_layer"] for curve in curves for row in curve.layers]
        pad = max(0.5, (max(numbers) - min(numbers)) / 20)
        axis.set_xlim(min(numbers) - pad, max(numbers) + pad)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _method_panel(axis: Any, numbered: list[tuple[int, CurveRows]], methods: list[str], name: str, named: bool) -> None:
    """A line per method from the top, its interval across; several curves side by side within the line."""
    for place, (number, curve) in enumerate(numbered):
        shift = 0.16 * (place - (len(numbered) - 1) / 2)
        look = _look(number)
        for row in curve.layers:
            if row[name] is None:
                continue
            y = methods.index(curve.label(row)) + shift
            if row[f"{name}_low"] is not None:
                ends = row[f"{name}_low"], row[f"{name}_high"]
                axis.hlines(y, *ends, color=look["color"], lw=1.8, alpha=0.5, zorder=3)
            axis.plot([row[name]], [y], ms=5, mew=1.2, zorder=4, **look | {"ls": "none"})
    if all(row[name] is None for _, curve in numbered for row in curve.layers):
        _unknown(axis)
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.set_yticks(range(len(methods)), [wrapped(one, 24) for one in methods] if named else [""] * len(methods))
    for label in axis.get_yticklabels():
        label.set_parse_math(False)
    axis.margins(x=0.08)


def _unknown(axis: Any) -> None:
    axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
    axis.set_yticks([])


def _look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the number-th curve."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "ls": DASHES[number // len(COLOURS) % len(DASHES)],
        "mfc": "white",
    }


def _draw(axis: Any, curve: CurveRows, name: str, number: int, relative: bool, faint: bool) -> None:
    deepest = curve.layers[-1]["exit_layer"] if relative else 1
    known = [row for row in curve.layers if row[name] is not None]
    if not known:
        return
    x = [row["exit_layer"] / deepest for row in known]
    axis.plot(x, [row[name] for row in known], lw=1.8, ms=5, mew=1.2, zorder=3, **_look(number))
    sure = [row for row in known if row[f"{name}_low"] is not None]
    at = [row["exit_layer"] / deepest for row in sure]
    ends = [[row[f"{name}_{end}"] for row in sure] for end in ("low", "high")]
    colour = COLOURS[number % len(COLOURS)]
    if len(sure) == 1:
        axis.vlines(at, ends[0], ends[1], color=colour, lw=1.8, alpha=0.5)
    elif sure:
        axis.fill_between(at, ends[0], ends[1], color=colour, alpha=0.08 if faint else 0.16, lw=0, zorder=2)


def _name(figure: Figure, rows: Sequence[Row], curves: list[CurveRows], height: float) -> None:
    """Title above; legend and meaning below."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=wrapped(curve.short, 60), **_look(number))
        for number, curve in enumerate(curves)
        if len(curves) > 1
    ]
    title = common_name(rows)
    said = " ".join(dict.fromkeys(definition(curve) for curve in curves))
    furnish(
        figure,
        title="" if title == "unnamed" else title,
        handles=handles,
        note=f"{said} {MEANING}",
        height=height,
    )


def write_calibration_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the figure into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(calibration_figure(rows), path)
