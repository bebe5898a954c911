"""The layer table as a file: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import CurveRows, Row, counts, curves_of, of_all, share, with_interval
from hcl_cli.schemas import LAYERS

TABLE_ENDINGS = (".md", ".csv", ".tex")

_COLUMNS = (
    ("Hallucination", "hallucination_rate"),
    ("Creativity", "creativity_raw"),
    ("Creativity, scaled", "creativity"),
    ("HCB", "hcb"),
)
_SENTENCES = (
    "best_layer", "best_method", "best_minus_last", "best_minus_vanilla", "best_exit_saves",
    "creativity_hallucination_correlation", "best_confidence_lead", "drafts_accepted",
)  # fmt: skip
_OF_ALL = (
    "correlation_over_layers", "correlation_over_models", "correlation_over_curves", "best_depth_agreement",
    "best_depth", "best_confidence_lead_over_curves", "formula", "resamples",
)  # fmt: skip


def table_text(layers: Sequence[Row], ending: str, findings: Sequence[Row] = ()) -> str:
    """The layer table as text.

    Args:
        layers: rows of LAYERS.
        ending: ".md" and ".tex" give one table per curve, rounded, with intervals and sentences; ".csv" gives every
            column of LAYERS unrounded.
        findings: rows of FINDINGS.
    Raises:
        BadOption: for another ending.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(f"--table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}")
    if ending == ".csv":
        return csv_text(layers, LAYERS.columns)
    curves = curves_of(layers, findings)
    overall = of_all(findings)
    said = [overall[name]["sentence"].rstrip(".") + "." for name in _OF_ALL if name in overall]
    parts = [_markdown(curve) if ending == ".md" else _latex(curve) for curve in curves]
    escape = markdown_escaped if ending == ".md" else latex_escaped
    text = "\n".join([*parts, *(f"{escape(sentence)}\n" for sentence in said)])
    if ending != ".md":
        return text
    from hcl_cli.report.findings_tables import claims_markdown

    claims = claims_markdown(layers, findings)
    return f"{text}\n{claims}" if claims else text


def write_table(layers: Sequence[Row], path: Path, findings: Sequence[Row] = ()) -> None:
    """Write `table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise BadOption(f"--table {path}: the ending says the format; expected one of {', '.join(TABLE_ENDINGS)}")
    write_file("--table", path, table_text(layers, path.suffix.lower(), findings).encode())


def csv_text(rows: Sequence[Row], columns: Iterable[str]) -> str:
    """The named columns of the rows as CSV, unrounded; null is an empty cell."""
    names = list(columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if row.get(name) is None else row[name] for name in names])
    return text.getvalue()


def _cells(curve: CurveRows, row: Row) -> list[str]:
    mark = "best" if row["is_best"] else "not told apart" if row["in_best_set"] else ""
    return [curve.label(row), *(with_interval(row, name) for _, name in _COLUMNS), share(row["p_best"]), mark]


def _header(curve: CurveRows) -> list[str]:
    return [curve.noun.capitalize(), *(title for title, _ in _COLUMNS), "Wins", ""]


def _sentences(curve: CurveRows) -> list[str]:
    said = [curve.findings[name]["sentence"] for name in _SENTENCES if name in curve.findings]
    return [*said, f"{counts(curve)}."]


def _markdown(curve: CurveRows) -> str:
    lines = [f"**{markdown_escaped(curve.name)}**", ""]
    lines.append("| " + " | ".join(_header(curve)) + " |")
    first = "---" if curve.over_methods else "---:"
    lines.append(f"| {first} | " + " | ".join(["---:"] * (len(_header(curve)) - 2)) + " | --- |")
    for row in curve.layers:
        cells = [markdown_escaped(cell) for cell in _cells(curve, row)]
        if row["is_best"]:
            cells = [f"**{cell}**" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", " ".join(markdown_escaped(sentence) for sentence in _sentences(curve)), ""]
    return "\n".join(lines)


def _latex(curve: CurveRows) -> str:
    header, first = _header(curve), "l" if curve.over_methods else "r"
    lines = [f"% {comment_line(curve.name)}", f"\\begin{{tabular}}{{{first}{'r' * (len(header) - 2)}l}}", "\\toprule"]
    lines.append(" & ".join(latex_escaped(title) for title in header) + r" \\")
    lines.append("\\midrule")
    for row in curve.layers:
        cells = [latex_escaped(cell) for cell in _cells(curve, row)]
        if row["is_best"]:
            cells = [f"\\textbf{{{cell}}}" if cell else cell for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    lines += ["\\bottomrule", "\\end{tabular}", ""]
    lines += ["\\par " + latex_escaped(" ".join([f"{curve.name}.", *_sentences(curve)])), ""]
    return "\n".join(lines)


def comment_line(text: str) -> str:
    """The text on one line, for a LaTeX comment."""
    return " ".join(text.split())


def markdown_escaped(text: str) -> str:
    """The text as Markdown shows it: no markup, no HTML, no end of a table cell."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~$!])", r"\\\1", text)


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def latex_escaped(text: str) -> str:
    """The text as LaTeX shows it."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
