"""Uncertainty of exit layers as a file: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.report.files import write_file
from hcl_cli.report.labels import Row, number, share, with_interval
from hcl_cli.report.rejection_words import MEANING, MEASURES, Uncertainty, counts, key, uncertainties
from hcl_cli.report.tables import TABLE_ENDINGS, comment_line, csv_text, latex_escaped, markdown_escaped
from hcl_cli.schemas import UNCERTAINTY

_KEPT = (0.25, 0.5, 0.75, 1.0)  # columns of accuracy, at the nearest share there is
_COLUMNS = (("AUROC", "auroc"), ("Lead", "auroc_lead"), ("AURAC", "aurac"))


def rejection_table_text(uncertainty: Sequence[Row], rejection: Sequence[Row], ending: str) -> str:
    """Every measure at every layer as text.

    Args:
        uncertainty: rows of UNCERTAINTY.
        rejection: rows of REJECTION.
        ending: ".md" and ".tex" give one table per curve, rounded, with intervals and with the accuracy at four shares
            kept; ".csv" gives every column of UNCERTAINTY unrounded.
    Raises:
        BadOption: for another ending.
    """
    if ending not in TABLE_ENDINGS:
        raise BadOption(
            f"--rejection-table: the ending {ending!r} is not known; expected one of {', '.join(TABLE_ENDINGS)}"
        )
    if ending == ".csv":
        return csv_text(uncertainty, UNCERTAINTY.columns)
    escaped = markdown_escaped if ending == ".md" else latex_escaped
    shares = sorted({row["share_kept"] for row in rejection})
    shown = [min(shares, key=lambda one: abs(one - wanted)) for wanted in _KEPT] if shares else []
    kept = {(*key(row), row["measure"], row["share_kept"]): row for row in rejection}
    layout = _markdown if ending == ".md" else _latex
    parts = [layout(found, shown, kept, escaped) for found in uncertainties(uncertainty)]
    return "\n".join([*parts, f"{escaped(MEANING)}\n"])


def write_rejection_table(uncertainty: Sequence[Row], rejection: Sequence[Row], path: Path) -> None:
    """Write `rejection_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    content = rejection_table_text(uncertainty, rejection, path.suffix.lower()).encode()
    write_file("--rejection-table", path, content)


_Kept = Mapping[tuple[object, ...], Row]


def _header(found: Uncertainty, shares: Sequence[float]) -> list[str]:
    titles = [found.curve.noun.capitalize(), "Uncertainty", "Mean, nats", *(title for title, _ in _COLUMNS)]
    return [*titles, *(f"Accuracy, {share(one)} kept" for one in shares)]


def _rows(found: Uncertainty, shares: Sequence[float], kept: _Kept) -> Iterator[list[str]]:
    for of_layer in found.curve.layers:
        for measure, words in MEASURES.items():
            row = found.of(of_layer, measure)
            cells = [found.curve.label(of_layer), words, number(row["mean"])]
            cells += [with_interval(row, name) for _, name in _COLUMNS]
            yield cells + [with_interval(kept.get((*key(row), measure, one), {}), "accuracy") for one in shares]


def _markdown(found: Uncertainty, shares: Sequence[float], kept: _Kept, escaped: Callable[[str], str]) -> str:
    header = _header(found, shares)
    lines = [f"**{escaped(found.curve.name)}**", "", "| " + " | ".join(header) + " |"]
    lines.append("| ---: | --- | " + " | ".join(["---:"] * (len(header) - 2)) + " |")
    lines += ["| " + " | ".join(map(escaped, cells)) + " |" for cells in _rows(found, shares, kept)]
    return "\n".join([*lines, "", escaped(counts(found.curve, found.leading)), ""])


def _latex(found: Uncertainty, shares: Sequence[float], kept: _Kept, escaped: Callable[[str], str]) -> str:
    header = _header(found, shares)
    lines = [f"% {comment_line(found.curve.name)}", f"\\begin{{tabular}}{{rl{'r' * (len(header) - 2)}}}", "\\toprule"]
    lines += [" & ".join(map(escaped, header)) + r" \\", "\\midrule"]
    lines += [" & ".join(map(escaped, cells)) + r" \\" for cells in _rows(found, shares, kept)]
    said = escaped(f"{found.curve.name}. {counts(found.curve, found.leading)}")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "", f"\\par {said}", ""])
