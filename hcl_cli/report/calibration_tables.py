"""Calibration of exit layers as a file: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.report.calibration_words import ALL, MEANING, counts, definition
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import CurveRows, Row, curves_of, with_interval
from hcl_cli.report.tables import TABLE_ENDINGS, comment_line, csv_text, latex_escaped, markdown_escaped
from hcl_cli.schemas import LAYER_CALIBRATION


def calibration_table_text(rows: Sequence[Row], ending: str) -> str:
    """The calibration of every layer as text.

    Args:
        rows: of LAYER_CALIBRATION.
        ending: ".md" and ".tex" give one table per curve, rounded, with intervals; ".csv" gives every column
            unrounded.
    Raises:
        BadOption: for another ending.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(
            f"--calibration-table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}"
        )
    if ending == ".csv":
        return csv_text(rows, LAYER_CALIBRATION.columns)
    parts = [(_markdown if ending == ".md" else _latex)(curve) for curve in curves_of(rows)]
    return "\n".join([*parts, f"{(markdown_escaped if ending == '.md' else latex_escaped)(MEANING)}\n"])


def write_calibration_table(rows: Sequence[Row], path: Path) -> None:
    """Write `calibration_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    write_file("--calibration-table", path, calibration_table_text(rows, path.suffix.lower()).encode())


def _header(curve: CurveRows) -> list[str]:
    return [curve.noun.capitalize(), *(title for title, _ in ALL)]


def _cells(curve: CurveRows, row: Row) -> list[str]:
    return [curve.label(row), *(with_interval(row, name) for _, name in ALL)]


def _markdown(curve: CurveRows) -> str:
    lines = [f"**{markdown_escaped(curve.name)}**", "", "| " + " | ".join(_header(curve)) + " |"]
    lines.append("| " + " | ".join(["---:"] * (len(ALL) + 1)) + " |")
    lines += ["| " + " | ".join(markdown_escaped(cell) for cell in _cells(curve, row)) + " |" for row in curve.layers]
    return "\n".join([*lines, "", f"{markdown_escaped(definition(curve))} {markdown_escaped(counts(curve))}", ""])


def _latex(curve: CurveRows) -> str:
    lines = [f"% {comment_line(curve.name)}", f"\\begin{{tabular}}{{{'r' * (len(ALL) + 1)}}}", "\\toprule"]
    lines += [" & ".join(latex_escaped(title) for title in _header(curve)) + r" \\", "\\midrule"]
    lines += [" & ".join(latex_escaped(cell) for cell in _cells(curve, row)) + r" \\" for row in curve.layers]
    said = latex_escaped(f"{curve.name}. {definition(curve)} {counts(curve)}")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "", f"\\par {said}", ""])
