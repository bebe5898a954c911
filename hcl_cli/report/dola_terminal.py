"""Decoding methods on a terminal: measure by measure, each with its difference from vanilla, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.dola_settings import settings_sentences
from hcl_cli.report.dola_words import (
    DECIMALS,
    Comparison,
    cell_name,
    comparison_sentences,
    comparisons_of,
    count_sentences,
    difference,
    kinds_of,
    method_name,
    told_apart,
)
from hcl_cli.report.labels import Row, one_line, with_interval

NAME_WIDTH = 14  # of a method, at least; with less room it has a line of its own
_DIFFERENCE_WIDTH = 24  # of its heading
_GAP = 2  # between columns


@dataclass(frozen=True)
class DolaTable:
    """One model and dataset: a section per measure, a row per method, its sentences below."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fits 60 columns; a name that has no room beside its numbers stands above them."""
        main, baseline = self.comparison.main, one_line(self.comparison.baseline)
        yield Text(self.comparison.name or "decoding", style="bold cyan")
        blocks = [(cell_name(cell), [self._cells(row) for row in rows]) for cell, rows in main.items()]
        header = ["", "Method", "Value", f"minus {baseline}"[:_DIFFERENCE_WIDTH], "n"]
        everything = [header, *(cells for _, lines in blocks for cells in lines)]
        widths = [max(cell_len(cells[at]) for cells in everything) for at in range(len(header))]
        room = options.max_width - sum(widths) + widths[1] - _GAP * len(widths)
        stacked = room < min(widths[1], NAME_WIDTH)
        widths[1] = 0 if stacked else min(widths[1], room)
        for _, lines in blocks if not stacked else ():
            for cells in lines:
                cells[1] = _broken(cells[1], widths[1])
        yield self._rows([header], widths, ["bold"])
        for (title, lines), rows in zip(blocks, main.values(), strict=True):
            yield Text(title, style="cyan")
            styles = ["bold green" if told_apart(row) else "" for row in rows]
            if not stacked:
                yield self._rows(lines, widths, styles)
                continue
            for cells, style in zip(lines, styles, strict=True):
                yield Text(f"  {cells[1]}", style=style)
                yield self._rows([cells], widths, [style])
        hidden = len(self.comparison.cells) - len(main)
        if hidden:
            yield Text(f"{hidden} more measures are in the table; --table FILE.csv has all", style="dim")
        if any(told_apart(row) for rows in main.values() for row in rows):
            yield Text(f"+ higher, - lower than {baseline}: the paired interval excludes 0   [ ] 95 %", style="dim")
        else:
            yield Text("[ ] 95 % bootstrap", style="dim")
        yield Text("")
        for sentence in comparison_sentences(self.comparison):
            yield Text(sentence)
        counted = " ".join(count_sentences(self.comparison))
        if counted:
            yield Text(counted, style="dim")

    def _cells(self, row: Row) -> list[str]:
        n = row.get("n_questions")
        return [
            {1: "+", 0: "", -1: "-"}[told_apart(row)],
            method_name(row),
            with_interval(row, "value", DECIMALS),
            "" if row["method"] == self.comparison.baseline else difference(row),
            "-" if n is None else f"{n:,}",
        ]

    def _rows(self, lines: Sequence[Sequence[str]], widths: Sequence[int], styles: Sequence[str]) -> Table:
        """Rows of a table without a head; the same widths in every measure keep the columns in line."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        for at, width in enumerate(widths):
            is_name = at == 1
            if not width and is_name:
                continue
            table.add_column(
                width=width, justify="left" if at < 2 else "right", no_wrap=not is_name,
                overflow="fold" if is_name else "ellipsis",
            )  # fmt: skip
        for cells, style in zip(lines, styles, strict=True):
            shown = [cell for at, cell in enumerate(cells) if at != 1 or widths[1]]
            table.add_row(*(Text(cell, style=style) for cell in shown))
        return table


def _broken(name: str, width: int) -> str:
    """A method's name in lines of that width, if it can be, broken before its variants."""
    lines = [""]
    for at, part in enumerate(name.split("@")):
        piece = f"@{part}" if at else part
        if lines[-1] and cell_len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def dola_report(rows: Sequence[Row], settings: Sequence[Row] = ()) -> Iterator[DolaTable | Text]:
    """What `hcl dola` shows.

    Args:
        rows: of COMPARED, and of multiple choice in the same form, see `comparisons_of`.
        settings: how each method decodes, see `settings_sentences`.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    found = comparisons_of(rows)
    for comparison in found:
        yield DolaTable(comparison)
        yield Text("")
    if not found:
        yield Text("nothing to compare", style="dim")
    for sentence in settings_sentences(settings, **kinds_of(found)):
        yield Text(sentence, style="dim")
