"""Mitigation as a file: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.report.files import write_file
from hcl_cli.report.grids import Grid, check_table_ending, page, table_ending
from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.mitigate_terminal import lead_title
from hcl_cli.report.mitigate_words import mitigate_notes, mitigate_sentences
from hcl_cli.report.prune_labels import excludes, key_of, names_of
from hcl_cli.report.retained_labels import lines_of, measures_of
from hcl_cli.report.retained_tables import retained_csv


def mitigate_table_text(retained: Sequence[Row], ending: str) -> str:
    """Every measure before and after, under every choice of trained blocks, with its lead over other blocks.

    Args:
        retained: rows as for `mitigate_report`.
        ending: ".md" and ".tex" give a table per model, rounded, with intervals and sentences, leads whose interval
            excludes 0 in bold; ".csv" gives every column of RETAINED unrounded, trained blocks apart by blanks.
    Raises:
        BadOption: for another ending.
    """
    check_table_ending(ending)
    if ending == ".csv":
        return retained_csv(retained)
    pages = []
    for model in dict.fromkeys(row.get("model") for row in retained):
        own = [row for row in retained if row.get("model") == model]
        said = [*mitigate_sentences(own), *mitigate_notes(own)]
        pages.append(page(one_line(model or "") or "mitigation", [_grid(own)], said, ending))
    return "\n".join(pages)


def write_mitigate_table(retained: Sequence[Row], path: Path) -> None:
    """Write `mitigate_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    ending = table_ending(path)
    write_file("--table", path, mitigate_table_text(retained, ending).encode())


def _grid(retained: Sequence[Row]) -> Grid:
    names = names_of(map(key_of, retained))
    header = ["Measure", "Trained blocks", "n", "Before", "After", "Difference", lead_title(retained)]
    rows: list[list[str]] = []
    gaps, bold = [], set()
    for measure in measures_of(retained):
        gaps.append(len(rows))
        about = f"{measure.name} ({measure.direction})" if measure.direction else measure.name
        for at, line in enumerate(lines_of(measure, names)):
            if line.row is not None and excludes(line.row, "lead"):
                bold.add((len(rows), len(header) - 1))
            n_blocks = "-" if line.n_blocks is None else f"{line.n_blocks}"
            values = [line.text("before"), line.text("after"), line.difference(), line.difference("lead")]
            rows.append([about if at == 0 else "", line.name, n_blocks, *values])
    return Grid(header, rows, n_left=2, bold=frozenset(bold), gaps=frozenset(gaps[1:]))
