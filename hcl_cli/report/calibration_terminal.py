"""Calibration of exit layers on a terminal: a row per layer, under the layer table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.calibration_words import FOUR, MEANING, counts, definition
from hcl_cli.report.labels import CurveRows, Row, curves_of, number, with_interval
from hcl_cli.report.terminal import WIDE

_BESIDE = (("Accuracy", "accuracy"), ("Confidence", "mean_confidence"), ("AUROC", "auroc"))


@dataclass(frozen=True)
class CalibrationTable:
    """One curve as a table that fits the terminal's width."""

    curve: CurveRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The four numbers with intervals; wide terminals also get accuracy, confidence and AUROC."""
        beside = _BESIDE if options.max_width >= WIDE else ()
        # Four intervals take 68 columns: the layers' own column and the gaps must do with 12.
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False, header_style="bold")
        if self.curve.over_methods:
            table.add_column("Method", overflow="fold", min_width=6)
        else:
            table.add_column("Exit", justify="right", no_wrap=True)
        for title, _ in (*FOUR, *beside):
            table.add_column(f" {title}", justify="right", no_wrap=True)
        # Names of methods are long: they take the room of one interval.
        bare = {"coverage_at_50"} if self.curve.over_methods and not beside else set()
        for row in self.curve.layers:
            cells = [number(row[name]) if name in bare else with_interval(row, name) for _, name in FOUR]
            cells += [number(row[name]) for _, name in beside]
            label = self.curve.label(row).replace("@", "\n@")  # a variant's name has a line of its own
            table.add_row(Text(label), *(Text(f" {cell}") for cell in cells))
        yield Text(f"Calibration: {self.curve.name}", style="bold cyan")
        yield table
        yield Text(f"{definition(self.curve)} {counts(self.curve)}", style="dim")


def calibration_report(rows: Sequence[Row]) -> Iterator[CalibrationTable | Text]:
    """What `hcl hcb --calibration` shows below the layer table.

    Args:
        rows: of LAYER_CALIBRATION.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    for curve in curves_of(rows):
        yield CalibrationTable(curve)
        yield Text("")
    yield Text(MEANING, style="dim")
