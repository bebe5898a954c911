"""Tests between layers and between models on a terminal, under the layer table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.comparison_words import TITLES, Family, difference, families, meaning, notes, p_value, stars
from hcl_cli.report.labels import Row, number
from hcl_cli.report.terminal import WIDE

_METRICS = ("hallucination_rate", "creativity_raw", "hcb")


@dataclass(frozen=True)
class FamilyTable:
    """One family as a table that fits the terminal's width."""

    family: Family

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Layers: a row per pair, stars for the corrected p-value, which wide terminals print. Models: a row each."""
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False, header_style="bold")
        if self.family.kind == "models":
            self._models(table)
        else:
            self._layers(table, options.max_width >= WIDE)
        yield Text(f"Compared: {self.family.title}", style="bold cyan")
        yield table
        starred = self.family.kind != "models" and options.max_width < WIDE
        legend = "   * p <= .05, ** .01, *** .001, corrected" if starred else ""
        yield Text(f"{self.family.counts}{legend}", style="dim")

    def _layers(self, table: Table, wide: bool) -> None:
        table.add_column(self.family.noun, justify="right", overflow="fold", min_width=len(self.family.noun))
        for metric in _METRICS:
            table.add_column(TITLES[metric], justify="right", no_wrap=True)
            table.add_column("p" if wide else "", justify="right" if wide else "left", no_wrap=True)
        # Ten clusters and more are told with one decimal: the columns would not fit 80.
        large = any(abs(row[f"band_{end}"] or 0) >= 10 for row in self.family.rows for end in ("low", "high"))
        for label, of in self.family.pairs.items():
            cells = []
            for metric in _METRICS:
                row = of.get(metric)
                told = "" if row is None else p_value(row["p_adjusted"]) if wide else stars(row)
                decimals = 1 if large and metric == "creativity_raw" else 2
                cells += [Text("-" if row is None else difference(row, decimals=decimals)), Text(told)]
            table.add_row(Text(label), *cells)

    def _models(self, table: Table) -> None:
        table.add_column("Layers")
        for title in ("", "First", "Second", "Difference [95 %]", "p", "corrected"):
            table.add_column(title, justify="left" if not title else "right", no_wrap=True)
        for row in self.family.rows:
            where = "best" if row["kind"] == "models_at_best" else "last"
            by_bootstrap = row["p_permutation"] is None and row["p_bootstrap"] is not None
            cells = [
                TITLES[row["metric"]], number(row["value"]), number(row["other_value"]), difference(row, "difference"),
                f"{p_value(row['p_bootstrap'])}b" if by_bootstrap else p_value(row["p_permutation"]),
                p_value(row["p_adjusted"]),
            ]  # fmt: skip
            layers = f"{where} {row['exit_layer']}, {row['other_exit_layer']}"
            table.add_row(Text(layers), *map(Text, cells))


def comparison_report(rows: Sequence[Row]) -> Iterator[FamilyTable | Text]:
    """What `hcl hcb --compare` shows below the layer table.

    Args:
        rows: of COMPARISONS.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    found = families(rows)
    for family in found:
        yield FamilyTable(family)
        yield Text("")
    for note in notes(rows):
        yield Text(note)
    if not found:
        yield Text("Nothing to compare: one layer, and no other model on the same questions.")
        return
    exchanged = [row for row in rows if row["kind"] == "models_at_best" and row["metric"]]
    by_bootstrap = any(row["p_permutation"] is None and row["p_bootstrap"] is not None for row in exchanged)
    told = " b: from the bootstrap, as the models have unlike numbers of layers." if by_bootstrap else ""
    yield Text(meaning(rows) + told, style="dim")
