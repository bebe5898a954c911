"""Quality over the number of removed blocks: a panel per measure, a curve with its band per criterion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.report.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    WIDTH,
    check_ending,
    figure_style,
    furnish,
    save_figure,
    scale,
    wrapped,
)
from hcl_cli.report.labels import Row
from hcl_cli.report.probe_labels import joined
from hcl_cli.report.prune_labels import Key, PruneRows, prune_rows, spread_of
from hcl_cli.report.retained_labels import Line, Measure, lines_of, measures_of, units_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_SEED, _MEAN = "0.78", "0.35"  # greys of the seeds of `random` and of their mean
_FAINT = 4  # more bands than these would hide each other

_Curves = dict[Key, list[Line]]


def quality_figure(retained: Sequence[Row]) -> Figure:
    """What is left of each measure after so many blocks went; at 0 the whole model.

    Several seeds of a criterion are thin grey lines with their mean.

    Args:
        retained: rows of RETAINED, of one or several numbers of blocks.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        runs = prune_rows((), (), retained)
        several = len(runs) > 1
        panels = [(run, measure) for run in runs for measure in measures_of(run.retained)]
        # One look per criterion in all panels.
        curves = [(run, key) for run, measure in panels for key in _curves(run, measure)]
        order = list(dict.fromkeys(key for run, key in curves if not _is_family(run, key)))
        columns = 2 if len(panels) == 4 else min(3, max(1, len(panels)))
        n_rows = math.ceil(len(panels) / columns)
        height = (2.5 if columns == 3 else 3.3) * max(1, n_rows)
        figure = Figure(figsize=(WIDTH, height))
        for at, (run, measure) in enumerate(panels):
            axis = figure.add_subplot(n_rows, columns, at + 1)
            _draw(axis, run, measure, order)
            title = f"{run.name}: {measure.name}" if several and run.name else measure.name
            axis.set_title(wrapped(title, 104 // columns), loc="left", fontsize=10, parse_math=False)
        if not panels:
            figure.text(0.5, 0.5, "nothing was measured", ha="center", color="0.35")
        furnish(
            figure,
            title="" if several or not runs else runs[0].name,
            handles=_handles(runs, order),
            note=_note(panels),
            height=height + 0.4,
        )
    return figure


def write_quality_figure(path: Path, retained: Sequence[Row]) -> None:
    """Draw `quality_figure` into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(quality_figure(retained), path)


def _curves(run: PruneRows, measure: Measure) -> _Curves:
    curves: _Curves = {}
    for line in lines_of(measure, run.names):
        if line.n_blocks is not None and any(row.get("after") is not None for row in line.rows):
            curves.setdefault(line.key, []).append(line)
    return curves


def _is_family(run: PruneRows, key: Key) -> bool:
    return key[0] in run.names.several_seeds


def _draw(axis: Any, run: PruneRows, measure: Measure, order: Sequence[Key]) -> None:
    curves = _curves(run, measure)
    values = [
        row[key] for row in measure.rows if row.get("n_blocks") is not None
        for key in ("before", "after", "before_low", "before_high", "after_low", "after_high")
        if row.get(key) is not None
    ]  # fmt: skip
    if not curves:
        axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
        axis.set_yticks([])
    else:
        scale(axis, values)
        axis.yaxis.set_tick_params(labelsize=8)
    for key, lines in curves.items():
        if _is_family(run, key):
            _draw_family(axis, lines)
        else:
            _draw_curve(axis, lines, order.index(key), faint=len(order) > _FAINT)
    sizes = {0, *(line.n_blocks for lines in curves.values() for line in lines if line.n_blocks is not None)}
    axis.set_xlim(-0.03 * max(1, *sizes), 1.03 * max(1, *sizes))
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("blocks removed", fontsize=8)
    if measure.direction:
        axis.set_ylabel(measure.direction, fontsize=8)


def _points(rows: Sequence[Row]) -> tuple[list[int], list[float], list[tuple[int, float, float]]]:
    """Places and values, from the whole model on, and the intervals that are known."""
    first = rows[0]
    steps = [(0, first.get("before"), first.get("before_low"), first.get("before_high"))]
    steps += [(row["n_blocks"], row.get("after"), row.get("after_low"), row.get("after_high")) for row in rows]
    known = [step for step in steps if step[1] is not None]
    band = [(at, low, high) for at, _, low, high in known if low is not None and high is not None]
    return [at for at, *_ in known], [value for _, value, *_ in known if value is not None], band


def _draw_curve(axis: Any, lines: Sequence[Line], place: int, faint: bool) -> None:
    look = _look(place)
    at, values, band = _points([line.rows[0] for line in lines])
    if len(band) > 1:
        lows, highs = [low for _, low, _ in band], [high for *_, high in band]
        axis.fill_between([n for n, *_ in band], lows, highs, color=look["color"], alpha=0.06 if faint else 0.16, lw=0,
                          zorder=2)  # fmt: skip
    elif band:
        axis.vlines(*band[0], color=look["color"], lw=1.8, alpha=0.4, zorder=2)
    axis.plot(at, values, lw=1.5, ms=4, mfc="white", mew=1.0, zorder=4, **look)


def _draw_family(axis: Any, lines: Sequence[Line]) -> None:
    seeds: dict[Any, list[Row]] = {}
    for line in lines:
        for row in line.rows:
            seeds.setdefault(row.get("seed"), []).append(row)
    for rows in seeds.values():
        at, values, _ = _points(rows)
        axis.plot(at, values, color=_SEED, lw=0.7, zorder=1)
    before = spread_of((row for line in lines for row in line.rows), "before")
    means = [(0, before)] + [(line.n_blocks, line.spread("after")) for line in lines]
    known = [(at, spread.mean) for at, spread in means if spread is not None]
    axis.plot(*zip(*known, strict=True), color=_MEAN, lw=2.2, ls=(0, (1.5, 1)), zorder=3)


def _look(at: int) -> dict[str, Any]:
    """Colour, marker and dashes of a criterion by its place; the eighth has the first one's colour and another dash."""
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[(at + at // len(COLOURS)) % len(MARKERS)],
        "ls": DASHES[at // len(COLOURS) % len(DASHES)],
    }


def _handles(runs: Sequence[PruneRows], order: Sequence[Key]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = []
    for at, key in enumerate(order):
        name = next((run.names(key) for run in runs if any(row.get("variant") == key[0] for row in run.retained)), "")
        # A label that begins with an underscore would be left out of the legend.
        label = wrapped(f" {name}" if name.startswith("_") else name, 60)
        handles.append(Line2D([], [], label=label, lw=1.5, ms=5, mfc="white", **_look(at)))
    families = {name: run for run in runs for name in sorted(run.names.several_seeds, key=str)}
    for name, run in families.items():
        n_seeds = len({row.get("seed") for row in run.retained if row.get("variant") == name})
        label = run.names((name, None, None))
        handles.append(Line2D([], [], color=_MEAN, lw=2.2, ls=(0, (1.5, 1)), label=f"{label}, mean"))
        handles.append(Line2D([], [], color=_SEED, lw=0.7, label=f"{label}, each of {n_seeds} seeds"))
    return handles


def _note(panels: Sequence[tuple[PruneRows, Measure]]) -> str:
    said = []
    rows = [row for _, measure in panels for row in measure.rows]
    if any(row.get("after_low") is not None for row in rows):
        said.append("Bands: 95 % intervals, each number of blocks for itself; not paired.")
    units = units_of(rows)
    if units:
        said.append(f"n = {joined(units)}.")
    return " ".join(said)
