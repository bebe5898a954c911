"""Columns that are measured before they are shown, so that the richest form that fits a terminal can be chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

NAME_WIDTH = 24  # of a name that begins a row; longer ones take a second line
GAP = 2  # between two columns, unless a form is set closer


@dataclass(frozen=True)
class Column:
    """A column of text.

    Attributes:
        title: its head.
        cells: as they are shown.
        right: whether they end in line.
        fold: letters of a line of the title.
    """

    title: str
    cells: list[str]
    right: bool = True
    fold: int | None = None

    @property
    def lines(self) -> list[str]:
        """The title in lines."""
        if self.fold is None or cell_len(self.title) <= self.fold:
            return [self.title]
        return textwrap.wrap(self.title, self.fold)

    @property
    def width(self) -> int:
        """Cells of a terminal that it takes."""
        return max(map(cell_len, [*self.lines, *self.cells]), default=0)


@dataclass(frozen=True)
class Form:
    """Columns beside each other.

    Attributes:
        columns: the first one names the rows.
        gap: blanks between two.
    """

    columns: list[Column]
    gap: int = GAP

    @property
    def width(self) -> int:
        """Cells of a terminal that it takes."""
        return sum(column.width for column in self.columns) + self.gap * (len(self.columns) - 1)

    def folded(self, width: int) -> list[Form]:
        """Forms that fit, each beginning with the first column."""
        first, *rest = self.columns
        parts: list[list[Column]] = [[first]]
        for column in rest:
            if len(parts[-1]) > 1 and Form([*parts[-1], column], self.gap).width > width:
                parts.append([first])
            parts[-1].append(column)
        return [Form(part, self.gap) for part in parts]

    def table(self, styles: Sequence[str] = (), mark: str = "", marked: str = "") -> Table:
        """A table for rich.

        Args:
            styles: of the rows.
            mark: cells that hold it get the style `marked`.
            marked: see `mark`.
        """
        table = Table(box=None, padding=(0, self.gap, 0, 0), pad_edge=False, header_style="bold")
        for column in self.columns:
            table.add_column(
                Text("\n".join(column.lines)), width=column.width, justify="right" if column.right else "left",
                no_wrap=True, vertical="bottom",
            )  # fmt: skip
        for at in range(len(self.columns[0].cells)):
            row = styles[at] if styles else ""
            cells = [column.cells[at] for column in self.columns]
            table.add_row(*(Text(cell, style=marked if mark and mark in cell else row) for cell in cells))
        return table


def whole(parts: Sequence[str], width: int) -> str:
    """The parts with three blanks between them, in lines that break between parts alone."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + 3 + cell_len(part) <= width:
            lines[-1] += f"   {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def widths_of(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Of the columns; names, which come first, are folded to what is left for them."""
    widths = [max(cell_len(cells[at]) for cells in lines) for at in range(len(lines[0]))]
    widths[0] = max(8, min(widths[0], NAME_WIDTH, room - sum(widths[1:]) - GAP * (len(widths) - 1)))
    return widths


def rows_in_line(lines: Sequence[Sequence[str]], widths: Sequence[int], style: str = "") -> Table:
    """Rows without a head; the same widths in every section keep the columns in line."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=False)
    for at, width in enumerate(widths):
        table.add_column(
            width=width, justify="right" if at else "left", no_wrap=at > 0, overflow="ellipsis" if at else "fold"
        )
    for cells in lines:
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table
