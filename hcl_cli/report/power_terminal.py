"""How much data tells two layers apart, on a terminal: a row per pair and metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.comparison_words import TITLES, signed
from hcl_cli.report.labels import CurveRows, Row, counted, curves_of, number
from hcl_cli.report.power_words import MEANING, needed, pair_label, pairs_of


@dataclass(frozen=True)
class PowerTable:
    """One curve: the pairs at the samples there are, then the questions by samples for the best layer."""

    curve: CurveRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Two tables of at most 80 columns."""
        pairs = pairs_of(self.curve.layers)
        yield Text(f"Power: {self.curve.name}", style="bold cyan")
        table = _table("Pair", "Metric")
        for title in ("Difference", "Questions", "corrected", "Least found"):
            table.add_column(f" {title}", justify="right", no_wrap=True)
        for pair in pairs:
            row = next(row for row in pair if row["is_present"])
            cells = [
                f" {TITLES[row['metric']]}", signed(row["difference"], 3), needed(row["questions_80"]),
                needed(row["questions_80_corrected"]), number(row["detectable_80"], 3),
            ]  # fmt: skip
            table.add_row(Text(pair_label(row)), *map(Text, cells))
        yield table
        first = self.curve.layers[0]
        present = next(row["n_samples"] for row in self.curve.layers if row["is_present"])
        there = f"{counted(first['n_questions'], 'question')}, {counted(present, 'sample')} of each per layer"
        yield Text(there, style="dim")
        varied = [pair for pair in pairs if len(pair) > 1 and pair[0]["kind"] != "neighbours"]
        if varied:
            yield Text("")
            yield Text("Questions that find the difference, 80 % power, by samples per question and layer")
            table = _table("Pair", "Metric")
            grid = sorted({row["n_samples"] for pair in varied for row in pair})
            for n_samples in grid:
                table.add_column(f" n = {n_samples}", justify="right")
            for pair in varied:
                of = {row["n_samples"]: needed(row["questions_80"]) for row in pair}
                cells = [f" {TITLES[pair[0]['metric']]}", *(of.get(n_samples, "") for n_samples in grid)]
                table.add_row(Text(pair_label(pair[0])), *map(Text, cells))
            yield table


def _table(*left: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for at, title in enumerate(left):
        table.add_column(title if at == 0 else f" {title}", overflow="fold", min_width=14 if at else 0)
    return table


def power_report(rows: Sequence[Row]) -> Iterator[PowerTable | Text]:
    """What `hcl hcb --power` shows below the layer table.

    Args:
        rows: of POWER.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    if not rows:
        yield Text("No power can be told: it needs two layers and two questions.")
        return
    for curve in curves_of(rows):
        yield PowerTable(curve)
        yield Text("")
    yield Text(MEANING, style="dim")
