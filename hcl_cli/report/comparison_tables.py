"""Tests between layers and between models, and the power table, as files: Markdown, CSV or LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.report.comparison_words import TITLES, Family, difference, families, meaning, notes, p_value, signed
from hcl_cli.report.files import write_file
from hcl_cli.report.grids import Grid, check_table_ending, page
from hcl_cli.report.labels import CurveRows, Row, curves_of, number
from hcl_cli.report.power_words import MEANING as POWER_MEANING
from hcl_cli.report.power_words import needed, pair_label, pairs_of
from hcl_cli.report.tables import csv_text, latex_escaped, markdown_escaped
from hcl_cli.schemas.comparisons import COMPARISONS, POWER

_HEADER = ["Metric", "Value", "Other", "Difference [95 %]", "95 % band of all", "p", "p, corrected", "p, bootstrap"]


def comparison_table_text(rows: Sequence[Row], ending: str) -> str:
    """Every comparison as text.

    Args:
        rows: of COMPARISONS.
        ending: ".md" and ".tex" give one table per family, rounded; ".csv" gives every column unrounded.
    Raises:
        BadOption: for another ending.
    """
    check_table_ending(ending)
    if ending == ".csv":
        return csv_text(rows, COMPARISONS.columns)
    pages = [page(family.title, [_grid(family)], [f"{family.counts}."], ending) for family in families(rows)]
    escape = markdown_escaped if ending == ".md" else latex_escaped
    return "\n".join([*pages, *(f"{escape(text)}\n" for text in [*notes(rows), meaning(rows)])])


def _grid(family: Family) -> Grid:
    cells: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for label, row in _labelled(family):
        if row["p_adjusted"] is not None and row["p_adjusted"] <= 0.05:
            bold.add((len(cells), 6))
        band = "-" if row["band_low"] is None else f"[{number(row['band_low'])}, {number(row['band_high'])}]"
        cells.append(
            [
                label, TITLES[row["metric"]], number(row["value"]), number(row["other_value"]),
                difference(row, "difference"), band, p_value(row["p_permutation"]), p_value(row["p_adjusted"]),
                p_value(row["p_bootstrap"]),
            ]
        )  # fmt: skip
    first = "Layers" if family.kind == "models" else family.noun
    return Grid([first, *_HEADER], cells, n_left=2, bold=frozenset((at, column + 1) for at, column in bold))


def _labelled(family: Family) -> list[tuple[str, Row]]:
    if family.kind != "models":
        return [(label, row) for label, of in family.pairs.items() for row in of.values()]
    return [
        (f"{row['kind'].removeprefix('models_at_')}: {row['exit_layer']}, {row['other_exit_layer']}", row)
        for row in family.rows
    ]


def write_comparison_table(rows: Sequence[Row], path: Path) -> None:
    """Write `comparison_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    write_file("--compare-table", path, comparison_table_text(rows, path.suffix.lower()).encode())


def power_table_text(rows: Sequence[Row], ending: str) -> str:
    """The power table as text; endings as in `comparison_table_text`.

    Args:
        rows: of POWER.
        ending: ".md", ".tex" or ".csv".
    Raises:
        BadOption: for another ending.
    """
    check_table_ending(ending)
    if ending == ".csv":
        return csv_text(rows, POWER.columns)
    pages = [page(f"Power: {curve.name}", [_power_grid(curve)], [], ending) for curve in curves_of(rows)]
    escape = markdown_escaped if ending == ".md" else latex_escaped
    return "\n".join([*pages, f"{escape(POWER_MEANING)}\n"])


def _power_grid(curve: CurveRows) -> Grid:
    header = [
        "Pair", "Metric", "Difference", "Samples", "Questions, 80 %", "90 %", "80 %, corrected", "90 %, corrected",
        "Least found", "corrected",
    ]  # fmt: skip
    cells: list[list[str]] = []
    bold: set[tuple[int, int]] = set()
    for pair in pairs_of(curve.layers):
        for row in pair:
            if row["is_present"]:
                bold.add((len(cells), 3))
            cells.append(
                [
                    pair_label(row), TITLES[row["metric"]], signed(row["difference"], 3), f"{row['n_samples']}",
                    *(needed(row[f"questions_{name}"]) for name in ("80", "90", "80_corrected", "90_corrected")),
                    number(row["detectable_80"], 3), number(row["detectable_80_corrected"], 3),
                ]
            )  # fmt: skip
    return Grid(header, cells, n_left=2, bold=frozenset(bold))


def write_power_table(rows: Sequence[Row], path: Path) -> None:
    """Write `power_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    write_file("--power-table", path, power_table_text(rows, path.suffix.lower()).encode())
