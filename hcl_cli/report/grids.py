"""Tables of text as Markdown and LaTeX: cells are escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.report.tables import TABLE_ENDINGS, comment_line, latex_escaped, markdown_escaped


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        header: a title per column.
        rows: as they are shown, unescaped.
        n_left: how many columns, from the first, begin in line; the others end in line.
        bold: (row, column) of emphasised cells.
        gaps: rows before which LaTeX leaves some space.
    """

    header: list[str]
    rows: list[list[str]]
    n_left: int = 1
    bold: frozenset[tuple[int, int]] = field(default=frozenset())
    gaps: frozenset[int] = field(default=frozenset())

    def markdown(self) -> list[str]:
        """Lines of Markdown."""
        kinds = ["---"] * self.n_left + ["---:"] * (len(self.header) - self.n_left)
        lines = ["| " + " | ".join(map(markdown_escaped, self.header)) + " |", "| " + " | ".join(kinds) + " |"]
        for at, row in enumerate(self.rows):
            cells = [
                f"**{markdown_escaped(cell)}**" if cell and (at, column) in self.bold else markdown_escaped(cell)
                for column, cell in enumerate(row)
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return [*lines, ""]

    def latex(self) -> list[str]:
        """Lines of LaTeX, with booktabs."""
        kinds = "l" * self.n_left + "r" * (len(self.header) - self.n_left)
        lines = [f"\\begin{{tabular}}{{{kinds}}}", "\\toprule"]
        lines += [" & ".join(map(latex_escaped, self.header)) + r" \\", "\\midrule"]
        for at, row in enumerate(self.rows):
            if at in self.gaps:
                lines.append("\\addlinespace")
            cells = [
                f"\\textbf{{{latex_escaped(cell)}}}" if cell and (at, column) in self.bold else latex_escaped(cell)
                for column, cell in enumerate(row)
            ]
            lines.append(" & ".join(cells) + r" \\")
        return [*lines, "\\bottomrule", "\\end{tabular}", ""]


def page(title: str, grids: Sequence[Grid], sentences: Sequence[str], ending: str) -> str:
    """A title, its grids and sentences, in Markdown (".md") or LaTeX (".tex")."""
    if ending == ".md":
        lines = [f"**{markdown_escaped(title)}**", "", *(line for grid in grids for line in grid.markdown())]
        said = " ".join(map(markdown_escaped, sentences))
    else:
        lines = [f"% {comment_line(title)}", *(line for grid in grids for line in grid.latex())]
        said = " ".join(map(latex_escaped, sentences))
        said = f"\\par {said}" if said else ""
    return "\n".join([*lines, said, ""] if said else lines)


def table_ending(path: Path) -> str:
    """The ending of a table's file in lower case.

    Raises:
        BadOption: for another ending than TABLE_ENDINGS.
    """
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise BadOption(f"--table {path}: the ending says the format; expected one of {', '.join(TABLE_ENDINGS)}")
    return path.suffix.lower()


def check_table_ending(ending: str) -> None:
    """Refuse an ending that names no format.

    Raises:
        BadOption: for another ending than TABLE_ENDINGS.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(f"--table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}")
