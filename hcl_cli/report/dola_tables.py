"""Decoding methods as a file: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.report.dola_settings import settings_sentences
from hcl_cli.report.dola_words import (
    CELL,
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
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import Row, with_interval
from hcl_cli.report.tables import TABLE_ENDINGS, comment_line, csv_text, latex_escaped, markdown_escaped

COLUMNS = (
    "model", "dataset", "method", *CELL, "value", "value_low", "value_high", "baseline", "difference",
    "difference_low", "difference_high", "n_questions", "n_paired", "n_answers", "n_excluded", "n_too_long",
)  # fmt: skip
_TOLD = {1: "higher", 0: "", -1: "lower"}


def dola_table_text(rows: Sequence[Row], ending: str, settings: Sequence[Row] = ()) -> str:
    """Every measure of every method, with its difference from vanilla.

    Args:
        rows: as for `dola_report`.
        ending: ".md" and ".tex" give one table per model and dataset, rounded, with intervals and sentences; ".csv"
            gives every column unrounded.
        settings: how each method decodes, see `settings_sentences`.
    Raises:
        BadOption: for another ending.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(f"--table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}")
    if ending == ".csv":
        return csv_text(rows, COLUMNS)
    written = _markdown if ending == ".md" else _latex
    return "\n".join(written(one, settings) for one in comparisons_of(rows))


def write_dola_table(rows: Sequence[Row], path: Path, settings: Sequence[Row] = ()) -> None:
    """Write `dola_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise BadOption(f"--table {path}: the ending says the format; expected one of {', '.join(TABLE_ENDINGS)}")
    write_file("--table", path, dola_table_text(rows, path.suffix.lower(), settings).encode())


def _header(comparison: Comparison) -> list[str]:
    return ["Measure", "Method", "Value", f"Minus {comparison.baseline}", "n", ""]


def _blocks(comparison: Comparison) -> list[list[tuple[Row, list[str]]]]:
    """The rows of each measure with their cells; the first names the measure."""
    blocks = []
    for cell, rows in comparison.cells.items():
        block = []
        for at, row in enumerate(rows):
            n = row.get("n_questions")
            cells = [
                cell_name(cell) if at == 0 else "",
                method_name(row),
                with_interval(row, "value", DECIMALS),
                "" if row["method"] == comparison.baseline else difference(row),
                "-" if n is None else f"{n:,}",
                _TOLD[told_apart(row)],
            ]
            block.append((row, cells))
        blocks.append(block)
    return blocks


def _sentences(comparison: Comparison, settings: Sequence[Row]) -> list[str]:
    told = comparison_sentences(comparison)
    if len(comparison.main) < len(comparison.cells):
        told.insert(0, f"In words, of {len(comparison.main)} of the {len(comparison.cells)} measures:")
    return [*told, *count_sentences(comparison), *settings_sentences(settings, **kinds_of([comparison]))]


def _markdown(comparison: Comparison, settings: Sequence[Row]) -> str:
    written = [f"**{markdown_escaped(comparison.name or 'decoding')}**", ""]
    written.append("| " + " | ".join(markdown_escaped(title) for title in _header(comparison)) + " |")
    written.append("| --- | --- | ---: | ---: | ---: | --- |")
    for block in _blocks(comparison):
        for row, cells in block:
            texts = [markdown_escaped(cell) for cell in cells]
            if told_apart(row):
                texts[1:] = [f"**{text}**" if text else text for text in texts[1:]]
            written.append("| " + " | ".join(texts) + " |")
    said = " ".join(markdown_escaped(sentence) for sentence in _sentences(comparison, settings))
    return "\n".join([*written, "", said, ""])


def _latex(comparison: Comparison, settings: Sequence[Row]) -> str:
    written = [f"% {comment_line(comparison.name or 'decoding')}", r"\begin{tabular}{llrrrl}", "\\toprule"]
    written += [" & ".join(latex_escaped(title) for title in _header(comparison)) + r" \\", "\\midrule"]
    for at, block in enumerate(_blocks(comparison)):
        if at:
            written.append("\\addlinespace")
        for row, cells in block:
            texts = [latex_escaped(cell) for cell in cells]
            if told_apart(row):
                texts[1:] = [f"\\textbf{{{text}}}" if text else text for text in texts[1:]]
            written.append(" & ".join(texts) + r" \\")
    said = " ".join(latex_escaped(sentence) for sentence in _sentences(comparison, settings))
    return "\n".join([*written, "\\bottomrule", "\\end{tabular}", "", f"\\par {said}", ""])
