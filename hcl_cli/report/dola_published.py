"""Our decoding methods beside the published numbers: Markdown, CSV or LaTeX.

| mark | how the number is known |
| --- | --- |
| code output | printed in a published notebook |
| paper† | of the publication, restated from knowledge of it; its tables could not be read again |

Sources: LLM Early Exit (indirected/LLM-EarlyExit), vis.ipynb: 817 questions of TruthfulQA, the best answer as the only
reference, `evaluate`'s corpus BLEU, ROUGE-L and mean BERTScore F1; which layers and penalty its DoLa had is not stated.
DoLa: Chuang et al., arXiv 2309.03883, ICLR 2024, in per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcl_cli.errors import BadOption
from hcl_cli.report.dola_words import (
    Comparison,
    comparisons_of,
    constraint_name,
    difference,
    is_choice,
    method_name,
    signed,
)
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import Row, number, one_line, with_interval
from hcl_cli.report.published import CODE_OUTPUT, PAPER_RESTATED
from hcl_cli.report.tables import TABLE_ENDINGS, comment_line, csv_text, latex_escaped, markdown_escaped

OURS = "ours"
EARLY_EXIT, DOLA_PAPER = "LLM Early Exit, vis.ipynb", "DoLa, ICLR 2024"
PUBLISHED_TEXT = {
    "Vanilla Decoding": {"bleu": 0.244445, "rouge-l": 0.409804, "bertscore": 0.900487},
    "Dynamic-DOLA": {"bleu": 0.16386, "rouge-l": 0.347001, "bertscore": 0.891913},
}
_CONTRASTED = ("Dynamic-DOLA", "DoLa")  # each below the line of its own model without it
_CHOICES = (
    "mc1", "mc2", "mc3", "factor-news", "factor-wiki", "truth", "info", "truth-info", "reject", "strategyqa", "gsm8k",
)  # fmt: skip
_FURTHER = _CHOICES[5:]  # shown where ours has them; the CSV has all that were published
_CELLS = """
    LLaMA-7B  -      25.6 40.6 19.2 58.3 58.6 30.4 96.3 26.9  2.9 60.1 10.8
    LLaMA-7B  + DoLa 32.2 63.8 32.1 62.0 62.2 42.1 98.3 40.8  0.6 64.1 10.5
    LLaMA-13B -      28.3 43.3 20.8 61.1 62.6 38.8 93.6 32.4  6.7 66.6 16.7
    LLaMA-13B + DoLa 28.9 64.9 34.8 62.5 66.2 48.8 94.9 44.6  2.1 67.6 18.0
    LLaMA-33B -      31.7 49.5 24.2 63.8 69.5 62.5 69.0 31.7 38.1 69.9 33.8
    LLaMA-33B + DoLa 30.5 62.3 34.0 65.4 70.3 56.4 92.4 49.1  8.2 72.1 35.5
    LLaMA-65B -      30.8 46.9 22.7 63.6 72.2 50.2 84.5 34.8 19.1 70.5 51.2
    LLaMA-65B + DoLa 31.1 64.6 34.3 66.2 72.4 54.3 94.7 49.2  4.8 72.9 54.0
"""
_CSV = (
    "table", "source", "mark", "model", "dataset", "method", "constrained", "normalised", "outside", "column", "value",
    "value_low", "value_high", "difference", "difference_low", "difference_high", "n_questions",
)  # fmt: skip


def _published_choices() -> list[tuple[str, str, dict[str, float]]]:
    rows = []
    for line in _CELLS.strip().splitlines():
        model, sign, *rest = line.split()
        values = rest[1:] if sign == "+" else rest
        numbers = dict(zip(_CHOICES, map(float, values), strict=True))
        rows.append((model, "DoLa" if sign == "+" else "vanilla", numbers))
    return rows


# (model, decoding, values in per cent by column)
PUBLISHED_CHOICES = _published_choices()


@dataclass(frozen=True)
class _Line:
    source: str
    mark: str
    model: str
    dataset: str
    method: str
    cells: dict[str, Row]  # by column: value, and what else is known of it
    constrained: bool | None = None
    normalised: bool | None = None
    outside: str | None = None


@dataclass(frozen=True)
class _Beside:
    title: str
    columns: tuple[tuple[str, str], ...]  # title, name
    decimals: int
    lines: list[_Line]

    @property
    def has_ours(self) -> bool:
        return any(line.source == OURS for line in self.lines)


def published_dola(rows: Sequence[Row], ending: str) -> str:
    """The published numbers of decoding by contrasting layers, and below them ours.

    Text metrics are set beside those of LLM Early Exit, multiple choice (in per cent) beside those of DoLa; where the
    rows hold only one kind, only its table is written. Ours have their intervals, and in a line of its own the paired
    difference of each method from vanilla.

    Args:
        rows: as for `dola_report`; a FACTOR row counts as of news or wiki by the name of its dataset.
        ending: ".md", ".tex", or ".csv" for one unrounded number per row (multiple choice in per cent there too).
    Raises:
        BadOption: for another ending.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(
            f"--published-table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}"
        )
    runs = comparisons_of(rows)
    kinds = {is_choice(row["metric"]) for row in rows} or {False, True}
    tables = [made(runs) for of_choice, made in ((False, _text), (True, _choices)) if of_choice in kinds]
    if ending == ".csv":
        return csv_text([row for table in tables for row in _long(table)], _CSV)
    written, escaped = (_markdown, markdown_escaped) if ending == ".md" else (_latex, latex_escaped)
    parts = []
    for table, of_choice in zip(tables, sorted(kinds), strict=True):
        said = " ".join(escaped(sentence) for sentence in _sentences(table, runs, of_choice))
        parts.append(written(table) + ("" if ending == ".md" else "\\par ") + said + "\n")
    return "\n".join(parts)


def write_published_dola(rows: Sequence[Row], path: Path) -> None:
    """Write `published_dola` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    if path.suffix.lower() not in TABLE_ENDINGS:
        raise BadOption(
            f"--published-table {path}: the ending says the format; expected one of {', '.join(TABLE_ENDINGS)}"
        )
    write_file("--published-table", path, published_dola(rows, path.suffix.lower()).encode())


def _text(runs: Sequence[Comparison]) -> _Beside:
    names = (("BLEU", "bleu"), ("ROUGE-1", "rouge-1"), ("ROUGE-2", "rouge-2"), ("ROUGE-L", "rouge-l"))
    columns = (*names, ("BERTScore", "bertscore"))
    lines = [
        _Line(EARLY_EXIT, CODE_OUTPUT, "", "TruthfulQA", name, _known(values))
        for name, values in PUBLISHED_TEXT.items()
    ]
    for run in runs:
        own = [row for (_, against, *_), rows in run.cells.items() if against == "best" for row in rows]
        lines += _ours(run, own, lambda row: row["metric"], dict(columns).values())
    return _Beside("Text metrics against the best answer", columns, 3, lines)


def _choices(runs: Sequence[Comparison]) -> _Beside:
    titles = ("MC1", "MC2", "MC3", "FACTOR news", "FACTOR wiki", "%Truth", "%Info", "%T*I", "%Reject", "StrategyQA")
    columns = tuple(zip((*titles, "GSM8K"), _CHOICES, strict=True))
    lines = [
        _Line(DOLA_PAPER, PAPER_RESTATED, model, "", method, _known(values))
        for model, method, values in PUBLISHED_CHOICES
    ]
    for run in runs:
        own = [_per_cent(row) for (metric, *_), rows in run.cells.items() if is_choice(metric) for row in rows]
        lines += _ours(run, own, _column_of, _CHOICES)
    return _Beside("Multiple choice and FACTOR, per cent", columns, 1, lines)


def _known(values: dict[str, float]) -> dict[str, Row]:
    return {name: {"value": value} for name, value in values.items()}


def _per_cent(row: Row) -> Row:
    ends = [f"{name}{end}" for name in ("value", "difference") for end in ("", "_low", "_high")]
    return {**row, **{name: 100 * row[name] for name in ends if row.get(name) is not None}}


def _column_of(row: Row) -> str:
    """DoLa scores FACTOR by the sum over tokens; by the mean it is another measure."""
    if row["metric"] != "factor-sum":
        return str(row["metric"])
    dataset = str(row.get("dataset") or "").lower()
    return next((f"factor-{part}" for part in ("news", "wiki") if part in dataset), "factor")


def _ours(
    run: Comparison, rows: Sequence[Row], column_of: Callable[[Row], str], columns: Sequence[str] | Any
) -> list[_Line]:
    """A line per method and way of scoring, the order of first appearance."""
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if column_of(row) in columns:
            key = row["method"], row.get("constrained"), row.get("normalised"), row.get("outside")
            found.setdefault(key, {})[column_of(row)] = row
    model, dataset = ("" if part is None else one_line(str(part)) for part in run.of)
    return [
        _Line(OURS, "", model, dataset, method_name({"method": method}), cells, constrained, normalised, outside)
        for (method, constrained, normalised, outside), cells in found.items()
    ]


def _sentences(table: _Beside, runs: Sequence[Comparison], of_choice: bool) -> list[str]:
    if of_choice:
        said = [
            "Marks: [paper†] of the publication, restated from knowledge of it, a target and not ground truth. "
            "Published MC1 to MC3 were scored without the plausibility constraint and not normalised, FACTOR with the "
            "constraint (alpha 0.1, -1000 for a token outside), normalised over the vocabulary (--published-choices), "
            "by the sum over tokens: compare lines of the same kind. Much of the published gain of MC2 and MC3 comes "
            "with that way of scoring [inferred]; with the constraint it may be another. Published MC2 halves all "
            "scores until none underflows; ours does not (with --published-choices that one is in --table too). The "
            "further published measures (%Truth, %Info, %T*I, %Reject, StrategyQA, GSM8K) are in the CSV."
        ]
    else:
        said = [
            "Marks: [code output] printed in a published notebook: 817 answers each, the best answer as the only "
            "reference; which layers and penalty its DoLa had is not stated. 24 of its "
            'vanilla and 4 of its DoLa answers contain "no comment" [inferred], so DoLa answers questions there that '
            "vanilla decoding declines."
        ]
    if not table.has_ours:
        return [*said, "None of our rows is of these measures."]
    said.append("Ours: intervals are 95 % bootstrap over questions, differences paired.")
    encoders = dict.fromkeys(
        row["encoder"] for run in runs for rows in run.cells.values() for row in rows if row.get("encoder")
    )
    if encoders and not of_choice:
        names = ", ".join(one_line(str(name)) for name in encoders)
        said.append(
            f"Our BERTScore is by {names}; the published one by another encoder (`evaluate`'s for English), so neither "
            "their values nor the sizes of their differences compare."
        )
    if of_choice and any(row["metric"] == "factor-mean" for run in runs for rows in run.cells.values() for row in rows):
        said.append("FACTOR by the mean over tokens is not published by DoLa, and is left out.")
    return said


def _texts(table: _Beside) -> tuple[list[str], list[tuple[bool, list[str]]]]:
    """(header, (whether ours, cells) of each line)."""
    ours = {name for line in table.lines if line.source == OURS for name in line.cells}
    columns = [(title, name) for title, name in table.columns if name in ours or name not in _FURTHER]
    lines = []
    for line in table.lines:
        source = line.source + (f" [{line.mark}]" if line.mark else "")
        model = ", ".join(part for part in (line.model, line.dataset) if part)
        is_ours = line.source == OURS
        values = [_value(line.cells.get(name), table.decimals, is_ours) for _, name in columns]
        lines.append((is_ours, [source, model, line.method + _how(line), *values]))
        if is_ours and any(cell.get("difference") is not None for cell in line.cells.values()):
            gaps = [
                "" if (line.cells.get(name) or {}).get("difference") is None
                else difference(line.cells[name], table.decimals)
                for _, name in columns
            ]  # fmt: skip
            baseline = next(cell["baseline"] for cell in line.cells.values() if cell.get("difference") is not None)
            lines.append((is_ours, ["", "", f"its difference from {one_line(str(baseline))}", *gaps]))
        lines += _published_gap(table, line, [name for _, name in columns])
    return ["Source", "Model", "Method", *(title for title, _ in columns)], lines


def _published_gap(table: _Beside, line: _Line, names: Sequence[str]) -> list[tuple[bool, list[str]]]:
    """Below a published DoLa: its difference from the published line above it, of which no interval is known."""
    at = table.lines.index(line)
    if line.source == OURS or line.method not in _CONTRASTED:
        return []
    above = table.lines[at - 1].cells
    gaps = [
        signed(line.cells[name]["value"] - above[name]["value"], table.decimals) if name in line.cells else ""
        for name in names
    ]
    return [(False, ["", "", "its difference from the line above", *gaps])]


def _how(line: _Line) -> str:
    said = []
    if line.constrained is not None:
        said.append(constraint_name(line.constrained, line.outside))
    if line.normalised is not None:
        said.append("normalised" if line.normalised else "not normalised")
    return f" ({', '.join(said)})" if said else ""


def _value(cell: Row | None, decimals: int, is_ours: bool) -> str:
    if cell is None:
        return ""
    return with_interval(cell, "value", decimals) if is_ours else number(cell["value"], decimals)


def _markdown(table: _Beside) -> str:
    header, lines = _texts(table)
    written = [f"**{markdown_escaped(table.title)}**", ""]
    written.append("| " + " | ".join(markdown_escaped(title) for title in header) + " |")
    written.append("| --- | --- | --- | " + " | ".join(["---:"] * (len(header) - 3)) + " |")
    for is_ours, cells in lines:
        texts = [markdown_escaped(cell) for cell in cells]
        if is_ours:
            texts = [f"**{text}**" if text else text for text in texts]
        written.append("| " + " | ".join(texts) + " |")
    return "\n".join([*written, "", ""])


def _latex(table: _Beside) -> str:
    header, lines = _texts(table)
    written = [f"% {comment_line(table.title)}", f"\\begin{{tabular}}{{lll{'r' * (len(header) - 3)}}}", "\\toprule"]
    written += [" & ".join(latex_escaped(title) for title in header) + r" \\", "\\midrule"]
    for is_ours, cells in lines:
        texts = [latex_escaped(cell) for cell in cells]
        if is_ours:
            texts = [f"\\textbf{{{text}}}" if text else text for text in texts]
        written.append(" & ".join(texts) + r" \\")
    return "\n".join([*written, "\\bottomrule", "\\end{tabular}", f"\\par {latex_escaped(table.title)}.", ""])


def _long(table: _Beside) -> list[Row]:
    return [
        {
            **{name: cell.get(name) for name in _CSV if name.startswith(("value", "difference", "n_"))},
            "table": table.title, "source": line.source, "mark": line.mark, "model": line.model,
            "dataset": line.dataset, "method": line.method, "constrained": line.constrained,
            "normalised": line.normalised, "outside": line.outside, "column": name,
        }
        for line in table.lines
        for name, cell in line.cells.items()
    ]  # fmt: skip
