"""Decoding by contrasting layers as a figure: which layers were chosen for which tokens, and differences to vanilla."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.report.dola_words import (
    Comparison,
    cell_name,
    comparisons_of,
    count_sentences,
    difference,
    is_choice,
    method_name,
    told_apart,
    unknown_sentence,
)
from hcl_cli.report.drawing import COLOURS, MARKERS, WIDTH, check_ending, figure_style, furnish, save_figure, wrapped
from hcl_cli.report.labels import Row, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_KIND_HEIGHT, _MAP_FRAME = 0.27, 0.95  # inches: a kind of token; title and axis of a heat map
_LINE_HEIGHT, _FOREST_FRAME = 0.165, 0.95  # inches: a method in a forest plot; its title and axis
_GAP = 0.6  # lines between two measures
_WIDE = 18  # layers above which a heat map takes the page's width


@dataclass(frozen=True)
class _Map:
    of: tuple[Any, ...]
    method: str
    kinds: list[tuple[str, int]]  # and how many tokens
    layers: list[int]
    shares: dict[tuple[str, int], float]

    @property
    def is_wide(self) -> bool:
        return len(self.layers) > _WIDE

    @property
    def height(self) -> float:
        return _MAP_FRAME + _KIND_HEIGHT * len(self.kinds)


@dataclass(frozen=True)
class _Forest:
    comparison: Comparison
    title: str
    cells: dict[tuple[Any, ...], list[Row]]  # rows with a difference

    @property
    def n_lines(self) -> float:
        return sum(len(rows) for rows in self.cells.values()) + _GAP * (len(self.cells) - 1)

    @property
    def height(self) -> float:
        return _FOREST_FRAME + max(0.6, _LINE_HEIGHT * self.n_lines)


def dola_figure(histogram: Sequence[Row], compared: Sequence[Row], settings: Sequence[Row] = ()) -> Figure:
    """A heat map of chosen premature layers per method, and the differences to vanilla with paired intervals.

    Each row of a heat map is a kind of token and adds up to 1. A method with one premature layer has no map: nothing is
    chosen. A filled point's interval excludes 0.

    Args:
        histogram: rows of `chosen_layers`: model, dataset, method, token_kind, exit_layer, share, n_of_kind.
        compared: rows as for `dola_report`.
        settings: how each method decodes; their candidates show layers that were never chosen.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        maps, forests = _maps(histogram, settings), _forests(comparisons_of(compared))
        rows = _arranged(maps, forests)
        # One scale for all maps, up to the next tenth.
        highest = math.ceil(10 * max((share for one in maps for share in one.shares.values()), default=1) - 1e-9) / 10
        heights = [max(panel.height for panel in row) for row in rows]
        names = dict.fromkeys(_name(one.of) for one in maps) | dict.fromkeys(one.comparison.name for one in forests)
        several = len(names) > 1
        methods = [name for one in forests for name in one.comparison.methods if name != one.comparison.baseline]
        order = list(dict.fromkeys(methods))
        figure = Figure(figsize=(WIDTH, sum(heights) or 3.0), layout="constrained")  # a colour bar asks for it
        grid = figure.add_gridspec(max(1, len(rows)), 1, height_ratios=heights or None)
        for at, row in enumerate(rows):
            inner = grid[at, 0].subgridspec(1, len(row))
            for column, panel in enumerate(row):
                axis = figure.add_subplot(inner[0, column])
                if isinstance(panel, _Map):
                    _draw_map(figure, axis, panel, WIDTH / len(row) - 2.3, highest)
                    title = f"Layers chosen by {one_line(panel.method)}"
                    name = _name(panel.of)
                else:
                    _draw_forest(axis, panel, order)
                    title, name = panel.title, panel.comparison.name
                title = f"{name}: {title}" if several and name else title
                axis.set_title(wrapped(title, 105 // len(row)), loc="left", parse_math=False)
        if not rows:
            figure.text(0.5, 0.5, "no layers chosen and nothing to compare", ha="center", color="0.35")
        furnish(
            figure,
            title="" if several else next(iter(names), ""),
            handles=_handles(order),
            note=_note(maps, forests, comparisons_of(compared)),
            height=(sum(heights) or 3.0) + 0.4,
        )
    return figure


def write_dola_figure(
    path: Path, histogram: Sequence[Row], compared: Sequence[Row], settings: Sequence[Row] = ()
) -> None:
    """Draw `dola_figure` into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(dola_figure(histogram, compared, settings), path)


def _name(of: tuple[Any, ...]) -> str:
    return ", ".join(one_line(str(part)) for part in of if part is not None)


def _maps(histogram: Sequence[Row], settings: Sequence[Row]) -> list[_Map]:
    candidates = {str(row.get("name", row.get("method"))): list(row.get("candidates") or ()) for row in settings}
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in histogram:
        found.setdefault((row.get("model"), row.get("dataset"), row["method"]), []).append(row)
    maps = []
    for (*of, method), rows in found.items():
        offered = candidates.get(method, [])
        if len(offered) == 1 or (not offered and method.startswith("static:")):
            continue
        kinds = {row["token_kind"]: row["n_of_kind"] for row in rows}
        layers = sorted({*offered, *(row["exit_layer"] for row in rows)})
        shares = {(row["token_kind"], row["exit_layer"]): row["share"] for row in rows}
        maps.append(_Map(tuple(of), method, list(kinds.items()), layers, shares))
    return maps


def _forests(comparisons: Sequence[Comparison]) -> list[_Forest]:
    """Text metrics and multiple choice apart: their differences have other sizes."""
    forests = []
    for comparison in comparisons:
        known = {
            cell: [row for row in rows if row.get("difference") is not None] for cell, rows in comparison.main.items()
        }
        baseline = one_line(comparison.baseline)
        for title, of_choice in (("Text metrics", False), ("Multiple choice", True)):
            cells = {cell: rows for cell, rows in known.items() if rows and is_choice(cell[0]) == of_choice}
            if cells:
                forests.append(_Forest(comparison, f"{title}: difference to {baseline}", cells))
    return forests


def _arranged(maps: Sequence[_Map], forests: Sequence[_Forest]) -> list[list[_Map | _Forest]]:
    """Two narrow heat maps in a row, everything else alone."""
    rows: list[list[_Map | _Forest]] = []
    open_row = False
    for panel in maps:
        if open_row and not panel.is_wide:
            rows[-1].append(panel)
            open_row = False
        else:
            rows.append([panel])
            open_row = not panel.is_wide
    rows += [[panel] for panel in forests]
    return rows


def _draw_map(figure: Figure, axis: Any, panel: _Map, width: float, highest: float) -> None:
    """A cell per layer and kind of token, from 0 to the `highest` share; `width` in inches says if numbers fit."""
    import numpy as np

    cells = np.array([[panel.shares.get((kind, layer), 0.0) for layer in panel.layers] for kind, _ in panel.kinds])
    image = axis.imshow(cells, aspect="auto", cmap="cividis", interpolation="none", vmin=0.0, vmax=highest)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    every = max(1, round(0.24 * len(panel.layers) / width + 0.49))
    axis.set_xticks(range(0, len(panel.layers), every), panel.layers[::every])
    names = [f"{one_line(kind)} ({n:,})" for kind, n in panel.kinds]
    axis.set_yticks(range(len(names)), names, fontsize=8.5, parse_math=False)
    axis.tick_params(length=0)
    axis.set_xlabel("premature layer (after so many blocks)")
    bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.015, aspect=_KIND_HEIGHT * len(names) / 0.12)
    bar.outline.set_visible(False)
    bar.set_label("share of tokens")
    letters = min(8.0, 72 * width / len(panel.layers) / 2.4)
    if letters < 4.5:
        return
    for kind, layer in zip(*np.nonzero(cells), strict=True):
        share = cells[kind, layer]
        text = f"{share:.2f}"
        if text == "0.00":
            continue
        text = text.removeprefix("0").removesuffix(".00")
        colour = "white" if share < 0.5 * highest else "black"
        axis.text(layer, kind, text, ha="center", va="center", fontsize=letters, color=colour)


def _draw_forest(axis: Any, panel: _Forest, order: Sequence[str]) -> None:
    """A line per method within each measure, names at the left and numbers at the right."""
    axis.axvline(0, color="0.35", lw=1.0, zorder=1)
    place, middles = 0.0, []
    for cell, rows in panel.cells.items():
        first = place
        for row in rows:
            at = order.index(row["method"])
            look, told = _look(at), told_apart(row)
            colour = look["color"]
            low, high = row.get("difference_low"), row.get("difference_high")
            if low is not None and high is not None:
                axis.hlines(place, low, high, color=colour, lw=1.8, alpha=0.65, zorder=3)
            face = colour if told else "white"
            axis.plot(row["difference"], place, **look, ls="none", ms=4.5, mfc=face, mec=colour, mew=1.1, zorder=4)
            axis.text(
                1.01, place, difference(row), transform=axis.get_yaxis_transform(), fontsize=7, color=colour,
                va="center", ha="left", fontweight="bold" if told else "normal", parse_math=False,
            )  # fmt: skip
            place += 1
        middles.append(((first + place - 1) / 2, cell_name(cell)))
        if len(middles) < len(panel.cells):
            axis.axhline(place - 1 + (1 + _GAP) / 2, color="0.88", lw=0.8, zorder=0)
        place += _GAP
    axis.set_ylim(place - _GAP - 0.3, -0.7)
    names = [
        wrapped(name, 38) if len(rows) > 1 else name
        for (_, name), rows in zip(middles, panel.cells.values(), strict=True)
    ]
    axis.set_yticks([at for at, _ in middles], names, fontsize=8, parse_math=False)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel(f"method minus {one_line(panel.comparison.baseline)}", parse_math=False)


def _look(at: int) -> dict[str, Any]:
    """Colour and marker of a method by its place; the eighth has the first one's colour and another marker."""
    return {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[(at + at // len(COLOURS)) % len(MARKERS)]}


def _handles(order: Sequence[str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = []
    for at, method in enumerate(order):
        label = wrapped(method_name({"method": method}), 60)
        # A label that begins with an underscore would be left out of the legend.
        label = f" {label}" if label.startswith("_") else label
        handles.append(Line2D([], [], label=label, mfc="white", lw=1.8, ms=5, **_look(at)))
    return handles


def _note(maps: Sequence[_Map], forests: Sequence[_Forest], comparisons: Sequence[Comparison]) -> str:
    said = []
    if maps:
        said.append("Shares of each kind of token add up to 1 over layers; in brackets: tokens.")
    if forests:
        said.append("Bars: 95 % intervals of the paired difference; filled points: the interval excludes 0.")
        for one in dict.fromkeys(forest.comparison.name for forest in forests):
            own = next(forest.comparison for forest in forests if forest.comparison.name == one)
            said += [f"{one}:"] * (len({forest.comparison.name for forest in forests}) > 1)
            said += [sentence for sentence in count_sentences(own) if not sentence.startswith("Intervals")]
    for comparison in comparisons:
        if (unknown := unknown_sentence(comparison)) is not None:
            said.append(f"{comparison.name}: {unknown}" if len(comparisons) > 1 else unknown)
    if any(cell[2] is False for forest in forests for cell in forest.cells):
        said.append("Gains that are seen only without the plausibility constraint may be an artefact.")
    return " ".join(said)
