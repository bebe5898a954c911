"""The layer table as a figure: hallucination, creativity and HCB over exit layers, each with its band.

Curves over decoding methods have a row of panels of their own, a line per method.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.report.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    PANEL_HEIGHT,
    WIDTH,
    check_ending,
    figure_style,
    furnish,
    save_figure,
    wrapped,
)
from hcl_cli.report.labels import CurveRows, Row, common_name, curves_of, of_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = (
    ("Hallucination rate", "hallucination_rate"),
    ("Creativity", "creativity_raw"),
    ("HCB", "hcb"),
)


def layer_figure(layers: Sequence[Row], findings: Sequence[Row] = ()) -> Figure:
    """Three panels that share the exit layers; every curve in all three, best layers starred.

    Where curves end at different depths, the horizontal axis is the relative depth. Filled points mark the layers
    that cannot be told apart from the curve's best one.

    Args:
        layers: rows of LAYERS.
        findings: rows of FINDINGS; they give the formula below the panels.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        curves = curves_of(layers, findings)
        over_layers = [(n, curve) for n, curve in enumerate(curves) if not curve.over_methods]
        over_methods = [(n, curve) for n, curve in enumerate(curves) if curve.over_methods]
        methods = list(dict.fromkeys(curve.label(row) for _, curve in over_methods for row in curve.layers))
        heights = [PANEL_HEIGHT] if over_layers else []
        heights += [max(2.2, 1.0 + 0.34 * len(methods))] if over_methods else []
        figure = Figure(figsize=(WIDTH, sum(heights)))
        panels = figure.subplots(len(heights), len(_PANELS), squeeze=False, height_ratios=heights)
        for column, (title, name) in enumerate(_PANELS):
            if over_layers:
                _layer_panel(panels[0][column], over_layers, name)
            if over_methods:
                _method_panel(panels[-1][column], over_methods, methods, name, named=column == 0)
            panels[0][column].set_title(title, loc="left")
        _name(figure, layers, curves, findings, sum(heights))
    return figure


def _layer_panel(axis: Any, numbered: list[tuple[int, CurveRows]], name: str) -> None:
    curves = [curve for _, curve in numbered]
    relative = len({curve.layers[-1]["exit_layer"] for curve in curves}) > 1
    for number, curve in numbered:
        _draw(axis, curve, name, number, relative, faint=len(curves) > 3)
    if all(row[name] is None for curve in curves for row in curve.layers):
        _unknown(axis)
    axis.set_xlabel("exit layer / deepest exit layer" if relative else "exit layer")
    if not relative:
        numbers = [row["exit_layer"] for curve in curves for row in curve.layers]
        pad = max(0.5, (max(numbers) - min(numbers)) / 20)
        axis.set_xlim(min(numbers) - pad, max(numbers) + pad)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def _method_panel(axis: Any, numbered: list[tuple[int, CurveRows]], methods: list[str], name: str, named: bool) -> None:
    """A line per method from the top, its interval across; several curves side by side within the line."""
    for place, (number, curve) in enumerate(numbered):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        shift = 0.16 * (place - (len(numbered) - 1) / 2)
        for row in curve.layers:
            if row[name] is None:
                continue
            y = methods.index(curve.label(row)) + shift
            if row[f"{name}_low"] is not None:
                axis.hlines(y, row[f"{name}_low"], row[f"{name}_high"], color=colour, lw=1.8, alpha=0.5, zorder=3)
            _point(axis, row, row[name], y, colour, marker)
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


def _point(axis: Any, row: Row, x: float, y: float, colour: str, marker: str) -> None:
    if row["is_best"]:
        axis.plot(x, y, "*", ms=15, mfc=colour, mec="white", mew=1.0, zorder=6)
    else:
        axis.plot(x, y, marker, ms=5, mfc=colour if row["in_best_set"] else "white", mec=colour, mew=1.2, zorder=4)


def _draw(axis: Any, curve: CurveRows, name: str, number: int, relative: bool, faint: bool) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    known = [row for row in curve.layers if row[name] is not None]
    if not known:
        return
    deepest = curve.layers[-1]["exit_layer"] if relative else 1
    x = [row["exit_layer"] / deepest for row in known]
    y = [row[name] for row in known]
    dashes = DASHES[number // len(COLOURS) % len(DASHES)]
    axis.plot(x, y, dashes, color=colour, lw=1.8, zorder=3, label=curve.short if name == "hcb" else None)
    sure = [row for row in known if row[f"{name}_low"] is not None]
    ends = [[row[f"{name}_{end}"] for row in sure] for end in ("low", "high")]
    at = [row["exit_layer"] / deepest for row in sure]
    if len(sure) == 1:
        axis.vlines(at, ends[0], ends[1], color=colour, lw=1.8, alpha=0.5)
    elif sure:
        axis.fill_between(at, ends[0], ends[1], color=colour, alpha=0.08 if faint else 0.16, lw=0, zorder=2)
    for row, left, height in zip(known, x, y, strict=True):
        _point(axis, row, left, height, colour, marker)


def _name(
    figure: Figure, layers: Sequence[Row], curves: list[CurveRows], findings: Sequence[Row], height: float
) -> None:
    """Title above; legend and formula below."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], mfc="white",
            ls=DASHES[number // len(COLOURS) % len(DASHES)], label=wrapped(curve.short, 60),
        )
        for number, curve in enumerate(curves)
        if len(curves) > 1
    ]  # fmt: skip

    def mark(marker: str, size: int, label: str) -> Line2D:
        return Line2D([], [], marker=marker, ms=size, color="0.35", ls="none", label=label)

    if any(curve.best is not None for curve in curves):
        handles.append(mark("*", 11, f"best {_nouns(curves)} by HCB"))
    if any(row["in_best_set"] and not row["is_best"] for curve in curves for row in curve.layers):
        handles.append(mark("o", 6, "cannot be told apart from the best"))
    overall = of_all(findings)
    about = [overall[name]["sentence"] for name in ("formula", "resamples") if name in overall]
    title = common_name(layers)
    furnish(
        figure,
        title="" if title == "unnamed" else title,
        handles=handles,
        note=". ".join(about) + "." if about else "",
        height=height,
    )


def _nouns(curves: list[CurveRows]) -> str:
    return " or ".join(sorted({curve.noun for curve in curves}))


def write_figure(layers: Sequence[Row], path: Path, findings: Sequence[Row] = ()) -> None:
    """Draw the figure into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(layer_figure(layers, findings), path)
