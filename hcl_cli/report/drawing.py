"""What all figures share: colours, style, legend, and the way into a file."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadOption
from hcl_cli.report.files import write_file

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
_FAR = 30  # a highest value so many times the lowest is drawn on a logarithmic axis


def furnish(figure: Figure, *, title: str, handles: list[Line2D], note: str, height: float) -> None:
    """Title above the panels, legend and note below them, in room that is added to the page.

    Args:
        figure: drawn, WIDTH inches wide.
        title: may be empty, as may be the note.
        handles: of the legend; none, no legend.
        note: small print.
        height: of the panels and the title, in inches.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if title:
        figure.suptitle(wrapped(title, 80), x=0.012, ha="left", fontweight="bold", parse_math=False)
    note = wrapped(note, 165) if note else ""
    below = below_legend = 0.08 + (0.17 * (note.count("\n") + 1) + 0.08 if note else 0.0)  # inches
    if handles:
        legend, legend_height = _legend(figure, handles)
        below += legend_height + 0.1
    height = height + below
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


def wrapped(text: str, width: int) -> str:
    """The text in lines of at most so many letters."""
    return "\n".join(textwrap.wrap(text, width)) or text


def scale(axis: Any, values: Sequence[float], may_be_log: bool = True) -> None:
    """Limits of a vertical axis of values of any size, and numbers that need no factor beside the axis.

    Logarithmic for positive values that are far apart; else linear, from 0 where that costs little.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = min(values), max(values)
    if may_be_log and low > 0 and high >= _FAR * low:
        axis.set_yscale("log")
        axis.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_locator(NullLocator())
        return
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    from_zero = 0 <= low <= 0.5 * high
    axis.set_ylim(-0.06 * high if from_zero else low - pad, high + pad)
    if low < 0 < high:
        axis.axhline(0, color="0.55", lw=0.8, zorder=1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}" if abs(value) < 1e5 else f"{value:.4g}")


def check_ending(path: Path) -> None:
    """Refuse a figure file whose ending names no format that is written.

    Raises:
        BadOption: for another ending than FIGURE_ENDINGS.
    """
    if path.suffix.lower() not in FIGURE_ENDINGS:
        raise BadOption(f"--figure {path}: the ending says the format; expected one of {', '.join(FIGURE_ENDINGS)}")


def save_figure(figure: Figure, path: Path) -> None:
    """Draw the figure into a file; its ending says the format. The same figure gives the same bytes.

    Raises:
        BadOption: for another ending, or if matplotlib is not installed.
        EnvironmentRefused: if the file cannot be written.
    """
    check_ending(path)
    ending = path.suffix.lower()
    # No date and no program version: they would change the bytes of the same figure.
    unstamped: dict[str, Any] = {
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        ".png": {"Software": None},
    }
    drawn = io.BytesIO()
    with figure_style():
        _settle(figure)
        figure.savefig(drawn, format=ending[1:], dpi=160, metadata=unstamped[ending])
    content = drawn.getvalue()
    write_file("--figure", path, _renamed_clips(content) if ending == ".svg" else content)


def _settle(figure: Figure) -> None:
    """Lay the panels out once, to a millionth of the page: the solver's last bits differ from run to run."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        left, bottom, width, height = axis.get_position(original=True).bounds
        axis.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))


def _renamed_clips(svg: bytes) -> bytes:
    """The same picture with its clip paths numbered in order: their names hash the layout's last bits, which differ
    from run to run."""
    names: dict[bytes, bytes] = {}
    return re.sub(
        rb"(?<=[\"#])p[0-9a-f]{10}(?=[\")])", lambda found: names.setdefault(found[0], b"clip%d" % len(names)), svg
    )


@contextmanager
def figure_style() -> Iterator[None]:
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
