"""Figures of `hcl prune`: scores of blocks with the removed ones marked, and what blocks do to the residual stream."""

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
from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.prune_labels import HALLUCINATION, OF_NOTHING, RANDOM, PruneRows, Ranking, prune_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

KEPT, REMOVED = COLOURS[0], COLOURS[1]
_PANEL = 2.15  # inches, with its title and axis
_COLUMNS = 3

_STATISTICS = (
    ("Activation variance", "variance"), ("L1 norm of activations", "l1_norm"), ("L2 norm of activations", "l2_norm"),
    ("Frobenius norm of weights", "weight_norm"), ("Sparsity", "sparsity"),
)  # fmt: skip


def blocks_figure(blocks: Sequence[Row]) -> Figure:
    """The score of every block, a panel per criterion, with the removed blocks marked; at the end the true damage.

    Seeds of `random` are one panel: which blocks each seed removes. A title names the block that goes first and the
    one that would go last. Scores that are all positive and far apart are drawn on a logarithmic axis.

    Args:
        blocks: rows of BLOCKS.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        runs = prune_rows(blocks)
        several = len(runs) > 1
        panels = [(run, draw) for run in runs for draw in _panels(run)]
        columns = 2 if len(panels) == 4 else min(_COLUMNS, max(1, len(panels)))
        height = (2.9 if columns < _COLUMNS else _PANEL) * math.ceil(len(panels) / columns) or _PANEL
        figure = Figure(figsize=(WIDTH, height))
        for at, (run, (title, draw)) in enumerate(panels):
            axis = figure.add_subplot(math.ceil(len(panels) / columns), columns, at + 1)
            draw(axis)
            _number_blocks(axis, run.blocks)
            name = f"{run.name}: {title}" if several and run.name else title
            axis.set_title(wrapped(name, 130 // columns), loc="left", fontsize=9.5, parse_math=False)
        if not panels:
            figure.text(0.5, 0.5, "no blocks to show", ha="center", color="0.35")
        furnish(
            figure,
            title="" if several or not runs else runs[0].name,
            handles=_block_handles(runs),
            note=_block_note(runs) if panels else "",
            height=height + 0.4,
        )
    return figure


def write_blocks_figure(path: Path, blocks: Sequence[Row]) -> None:
    """Draw `blocks_figure` into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(blocks_figure(blocks), path)


def _panels(run: PruneRows) -> list[tuple[str, Any]]:
    """A title and a way to draw for each panel."""
    made: list[tuple[str, Any]] = [
        (_title(ranking), lambda axis, own=ranking: _draw_scores(axis, own)) for ranking in run.shown
    ]
    family = run.seeds_of_random
    if family:
        made.append((f"{RANDOM}, {len(family)} seeds", lambda axis: _draw_seeds(axis, family)))
    for dataset, rows in run.damages.items():
        where = f" on {one_line(str(dataset))}" if len(run.damages) > 1 else ""
        made.append((f"True damage{where}, nats per token", lambda axis, own=rows: _draw_damage(axis, own)))
    return made


def _title(ranking: Ranking) -> str:
    ranked = {row["rank"]: row["block"] for row in ranking.rows if row.get("rank") is not None}
    if not ranked:
        return ranking.name
    return f"{ranking.name}: {ranked[min(ranked)]} first, {ranked[max(ranked)]} last"


def _draw_scores(axis: Any, ranking: Ranking) -> None:
    known = [row for row in ranking.rows if row.get("score") is not None]
    _draw_points(
        axis, known, "score", [bool(row.get("removed")) for row in known], counted=ranking.criterion in OF_NOTHING
    )
    missing = [row for row in ranking.rows if row.get("score") is None]
    for row in missing:
        look = REMOVED if row.get("removed") else "0.45"
        axis.text(row["block"], 0.02, "?", transform=axis.get_xaxis_transform(), ha="center", fontsize=8, color=look)


def _draw_damage(axis: Any, rows: dict[int, Row]) -> None:
    known = [rows[block] for block in sorted(rows)]
    _draw_points(axis, known, "damage", [False] * len(known), colour="0.25")


def _draw_points(
    axis: Any, rows: Sequence[Row], name: str, removed: Sequence[bool], colour: str = KEPT, counted: bool = False
) -> None:
    """A point per block with its interval, joined by a thin line; a cross where the block goes."""
    if not rows:
        axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
        axis.set_yticks([])
        return
    at, values = [row["block"] for row in rows], [row[name] for row in rows]
    ends = [row[key] for row in rows for key in (name, f"{name}_low", f"{name}_high") if row.get(key) is not None]
    scale(axis, ends, may_be_log=not counted)
    axis.plot(at, values, color="0.75", lw=0.9, zorder=2)
    small = len(rows) > 24
    for goes, look, marker, size in (
        (False, colour, "o", 3.2 if small else 4.5),
        (True, REMOVED, "X", 5.5 if small else 7),
    ):
        own = [row for row, gone in zip(rows, removed, strict=True) if gone == goes]
        sure = [row for row in own if row.get(f"{name}_low") is not None and row.get(f"{name}_high") is not None]
        lows, highs = ([row[f"{name}_{end}"] for row in sure] for end in ("low", "high"))
        if sure:
            axis.vlines([row["block"] for row in sure], lows, highs, color=look, lw=1.8, alpha=0.45, zorder=3)
        if own:
            axis.plot(
                [row["block"] for row in own], [row[name] for row in own], marker, ms=size, mec=look, mew=0.9, zorder=4,
                mfc=look if goes else "white",
            )  # fmt: skip


def _draw_seeds(axis: Any, family: Sequence[Ranking]) -> None:
    """Which blocks each seed removes."""
    for place, ranking in enumerate(family):
        blocks = [row["block"] for row in ranking.rows]
        axis.plot(blocks, [place] * len(blocks), "o", ms=2.2, color="0.8", zorder=2)
        axis.plot(ranking.removed, [place] * len(ranking.removed), "X", ms=5.5, color=REMOVED, mew=0, zorder=3)
    every = math.ceil(len(family) / 8)
    axis.set_yticks(range(0, len(family), every), [f"{one.key[2]}" for one in family[::every]])
    axis.set_ylim(len(family) - 0.4, -0.6)
    axis.set_ylabel("seed", fontsize=8)
    axis.grid(axis="y", visible=False)


def _number_blocks(axis: Any, blocks: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = blocks[0], blocks[-1]
    pad = max(0.5, (high - low) / 40)
    axis.set_xlim(low - pad, high + pad)
    ticks = MaxNLocator(nbins=10, integer=True, min_n_ticks=1).tick_values(low, high)
    shown = sorted({low, high, *(int(tick) for tick in ticks if low <= tick <= high)})
    step = max(1, (high - low) / 14)
    # The first and the last block are always named; a tick that is too near to them is not.
    shown = [tick for tick in shown if tick in (low, high) or min(tick - low, high - tick) >= step]
    axis.set_xticks(shown, map(str, shown))
    axis.tick_params(labelsize=8)
    axis.set_xlabel("block", fontsize=8)


def _block_handles(runs: Sequence[PruneRows]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"ls": "none", "ms": 6}
    handles = []
    if any(run.shown for run in runs):
        handles.append(Line2D([], [], marker="o", mfc="white", mec=KEPT, label="kept", **look))
    if any(ranking.removed for run in runs for ranking in run.rankings):
        handles.append(Line2D([], [], marker="X", color=REMOVED, label="removed", **look))
    if any(run.damages for run in runs):
        label = "rise of the loss without the block alone"
        handles.append(Line2D([], [], marker="o", mfc="white", mec="0.25", label=label, **look))
    return handles


def _block_note(runs: Sequence[PruneRows]) -> str:
    rankings = [ranking for run in runs for ranking in run.shown]
    said = ["In titles: the block that goes first, and the one that would go last."] if rankings else []
    if any(row.get("score_low") is not None for one in rankings for row in one.rows):
        said.append("Bars: 95 % intervals, each block for itself.")
    named = [one.name for one in rankings if one.criterion in HALLUCINATION]
    if named:
        said.append(f"{', '.join(dict.fromkeys(named))}: the likeliest to hallucinate goes first.")
    if any(row.get("score") is None for one in rankings for row in one.rows):
        said.append("?: the score is undefined.")
    return " ".join(said)


# ----------------------------------------------------------------------------------------------------- statistics


def activations_figure(blocks: Sequence[Row]) -> Figure:
    """Variance, L1 and L2 norm and sparsity of each block's activations and the Frobenius norm of its weights.

    A panel each, a curve per model, data set and kind of activations; weights have one curve per model.

    Args:
        blocks: rows of BLOCKS; the statistics that several criteria repeat are drawn once.
    Returns:
        a matplotlib figure that belongs to no window.
    Raises:
        BadOption: if matplotlib is not installed.
    """
    with figure_style():
        from matplotlib.figure import Figure

        height = 2 * 2.5
        figure = Figure(figsize=(WIDTH, height))
        curves = _curves(blocks)
        labels = _labels(list(curves))
        numbers = sorted({block for own in curves.values() for block in own})
        for at, (title, name) in enumerate(_STATISTICS):
            axis = figure.add_subplot(2, 3, at + 1)
            _draw_statistic(axis, curves, name)
            axis.set_title(title, loc="left", fontsize=10)
            if numbers:
                _number_blocks(axis, numbers)
        bounds = sorted({row["epsilon"] for row in blocks if row.get("epsilon") is not None})
        note = ""
        if bounds:
            spread = f"{bounds[0]:.3g}" + (f" to {bounds[-1]:.3g}" if len(bounds) > 1 else "")
            note = f"Sparsity: share of activations nearer to 0 than {spread}."
        furnish(
            figure,
            title=next(iter(labels.values())) if len(curves) == 1 else "",
            handles=_curve_handles(labels) if len(curves) > 1 else [],
            note=" ".join(part for part in (note, "Means over tokens.") if part),
            height=height + 0.4,
        )
    return figure


def write_activations_figure(path: Path, blocks: Sequence[Row]) -> None:
    """Draw `activations_figure` into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    save_figure(activations_figure(blocks), path)


_Curves = dict[tuple[Any, ...], dict[int, Row]]


def _curves(blocks: Sequence[Row]) -> _Curves:
    """The first row of each block that knows a statistic of activations, by model, data set and activations."""
    found: _Curves = {}
    weights_alone: _Curves = {}
    for row in blocks:
        of = (row.get("model"), row.get("dataset"), row.get("activations"))
        knows = any(row.get(name) is not None for _, name in _STATISTICS if name != "weight_norm")
        if knows:
            found.setdefault(of, {}).setdefault(row["block"], row)
        elif row.get("weight_norm") is not None:
            weights_alone.setdefault((row.get("model"), None, None), {}).setdefault(row["block"], row)
    kept: _Curves = {}
    for of, rows in found.items():
        # Criteria that read no activation may repeat the statistics of those that do.
        again = any(of[:2] == other[:2] and _statistics(rows) == _statistics(own) for other, own in kept.items())
        if not again:
            kept[of] = rows
    models = {of[0] for of in kept}
    return kept | {of: rows for of, rows in weights_alone.items() if of[0] not in models}


def _statistics(rows: dict[int, Row]) -> dict[int, list[Any]]:
    return {block: [row.get(name) for _, name in _STATISTICS] for block, row in rows.items()}


def _labels(keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    return {of: ", ".join(one_line(str(part)) for part in of if part not in (None, "")) or "unnamed" for of in keys}


def _look(at: int) -> dict[str, Any]:
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "ls": DASHES[at // len(COLOURS) % len(DASHES)],
    }


def _draw_statistic(axis: Any, curves: _Curves, name: str) -> None:
    drawn, values, models = False, [], set()
    for at, (of, rows) in enumerate(curves.items()):
        known = [rows[block] for block in sorted(rows) if rows[block].get(name) is not None]
        # The weights are the model's: data sets and kinds of activations would draw them again.
        if not known or (name == "weight_norm" and of[0] in models):
            continue
        models.add(of[0])
        own = [row[name] for row in known]
        axis.plot([row["block"] for row in known], own, lw=1.5, ms=3.6, mfc="white", mew=1.0, zorder=3, **_look(at))
        values += own
        drawn = True
    if drawn:
        scale(axis, values)
    else:
        axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
        axis.set_yticks([])


def _curve_handles(labels: dict[tuple[Any, ...], str]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = []
    for at, label in enumerate(labels.values()):
        # A label that begins with an underscore would be left out of the legend.
        label = wrapped(f" {label}" if label.startswith("_") else label, 60)
        handles.append(Line2D([], [], label=label, lw=1.5, ms=5, mfc="white", **_look(at)))
    return handles
