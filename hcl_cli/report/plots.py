"""The layer table as a figure: hallucination, creativity and HCB over exit layers, each with its band."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadOption
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import CurveRows, Row, common_name, curves_of, of_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

FIGURE_ENDINGS = (".png", ".svg", ".pdf")

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart; markers and dashes help in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")

WIDTH, PANEL_HEIGHT = 10.5, 3.9  # inches

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
    with _style():
        from matplotlib.figure import Figure

        curves = curves_of(layers, findings)
        relative = len({curve.layers[-1]["exit_layer"] for curve in curves}) > 1
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT))
        axes = figure.subplots(1, len(_PANELS), sharex=True)
        for axis, (title, name) in zip(axes, _PANELS, strict=True):
            for number, curve in enumerate(curves):
                _draw(axis, curve, name, number, relative, faint=len(curves) > 3)
            if all(row[name] is None for curve in curves for row in curve.layers):
                axis.text(0.5, 0.5, "unknown", transform=axis.transAxes, ha="center", va="center", color="0.35")
                axis.set_yticks([])
            axis.set_title(title, loc="left")
            axis.set_xlabel("exit layer / deepest exit layer" if relative else "exit layer")
            if not relative:
                numbers = [row["exit_layer"] for row in layers]
                pad = max(0.5, (max(numbers) - min(numbers)) / 20)
                axis.set_xlim(min(numbers) - pad, max(numbers) + pad)
                axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _name(figure, layers, curves, findings)
    return figure


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
        if row["is_best"]:
            axis.plot(left, height, "*", ms=15, mfc=colour, mec="white", mew=1.0, zorder=6)
        else:
            face = colour if row["in_best_set"] else "white"
            axis.plot(left, height, marker, ms=5, mfc=face, mec=colour, mew=1.2, zorder=4)


def _name(figure: Figure, layers: Sequence[Row], curves: list[CurveRows], findings: Sequence[Row]) -> None:
    """Title above; legend and formula below, in room added for them."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    title = common_name(layers)
    if title != "unnamed":
        figure.suptitle(_wrapped(title, 80), x=0.012, ha="left", fontweight="bold", parse_math=False)
    handles = [
        Line2D(
            [], [], color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], mfc="white",
            ls=DASHES[number // len(COLOURS) % len(DASHES)], label=_wrapped(curve.short, 60),
        )
        for number, curve in enumerate(curves)
        if len(curves) > 1
    ]  # fmt: skip

    def mark(marker: str, size: int, label: str) -> Line2D:
        return Line2D([], [], marker=marker, ms=size, color="0.35", ls="none", label=label)

    if any(curve.best is not None for curve in curves):
        handles.append(mark("*", 11, "best layer by HCB"))
    if any(row["in_best_set"] and not row["is_best"] for curve in curves for row in curve.layers):
        handles.append(mark("o", 6, "cannot be told apart from the best"))
    overall = of_all(findings)
    about = [overall[name]["sentence"] for name in ("formula", "resamples") if name in overall]
    note = _wrapped(". ".join(about) + ".", 165) if about else ""
    below = below_legend = 0.08 + (0.17 * (note.count("\n") + 1) + 0.08 if note else 0.0)  # inches
    if handles:
        legend, legend_height = _legend(figure, handles)
        below += legend_height + 0.1
    height = PANEL_HEIGHT + below
    figure.set_size_inches(WIDTH, height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, below / height, 1, 1 - below / height)))
    if handles:
        legend.set_bbox_to_anchor((0.008, below_legend / height), transform=figure.transSubfigure)
    if note:
        figure.text(0.012, 0.1 / height, note, ha="left", va="bottom", fontsize=8, color="0.35", parse_math=False)


def _legend(figure: Figure, handles: list[Line2D]) -> tuple[Legend, float]:
    """A legend in as many columns as fit the page, three at most, and its height in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    columns = min(3, len(handles))
    while True:
        legend = figure.legend(
            handles=handles, loc="lower left", borderaxespad=0, borderpad=0, ncols=columns, frameon=False,
            labelspacing=0.35,
        )  # fmt: skip
        legend.set_in_layout(False)
        for text in legend.get_texts():
            text.set_parse_math(False)
        extent = legend.get_window_extent(renderer)
        if columns == 1 or extent.width <= 0.98 * figure.bbox.width:
            return legend, extent.height / figure.dpi
        legend.remove()
        columns -= 1


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width)) or text


def write_figure(layers: Sequence[Row], path: Path, findings: Sequence[Row] = ()) -> None:
    """Draw the figure into a file; its ending says the format. The same rows give the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in FIGURE_ENDINGS:
        raise BadOption(f"--figure {path}: the ending says the format; expected one of {', '.join(FIGURE_ENDINGS)}")
    figure = layer_figure(layers, findings)
    # No date and no program version: they would change the bytes of the same figure.
    unstamped: dict[str, Any] = {
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".png": {"Software": None},
    }
    drawn = io.BytesIO()
    with _style():
        figure.savefig(drawn, format=ending[1:], dpi=160, metadata=unstamped[ending])
    write_file("--figure", path, drawn.getvalue())


@contextmanager
def _style() -> Iterator[None]:
    """Our own look and no one's configuration file; a name in letters the font lacks is no warning."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise BadOption("--figure needs matplotlib; install it with `pip install 'hcl-cli[figures]'`") from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "hcl",
                "pdf.compression": 6,
                "font.size": 10,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "grid.color": "0.92",
                "axes.axisbelow": True,
                "axes.edgecolor": "0.6",
                "axes.titleweight": "bold",
                "axes.titlesize": 11,
                "figure.facecolor": "white",
                "legend.fontsize": 9,
                "figure.titlesize": 12,
            }  # fmt: skip
        )
        yield
