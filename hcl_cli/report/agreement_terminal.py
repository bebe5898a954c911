"""How far judges, and clusterings, agree, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from hcl_cli.report.labels import Row, number, one_line

_CASES = {
    "judge": ("response", "responses"),
    "clustering": ("pair of distinct answers", "pairs of distinct answers"),
}
_DOES = {"judge": "right", "clustering": "together"}
_CURVE = ("model", "dataset", "strategy", "method", "temperature", "top_p")
_WORDS = {"temperature": "T {:g}", "top_p": "top-p {:g}"}


def agreement_report(rows: Sequence[Row]) -> Iterator[Table | Text]:
    """What `hcl score` shows of AGREEMENT: a row per pair, all layers together.

    Args:
        rows: of AGREEMENT.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    whole = [row for row in rows if row["exit_layer"] is None]
    for key in dict.fromkeys((*(row[name] for name in _CURVE), row["kind"]) for row in whole):
        kind = key[-1]
        here = [row for row in whole if (*(row[name] for name in _CURVE), row["kind"]) == key]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        table.add_column(f"Two {kind}s", overflow="fold", min_width=14)
        for title in ("Equal, %", "Cohen's kappa", "1st", "2nd", "Q"):
            table.add_column(title, justify="right", no_wrap=True)
        for row in here:
            cells = [
                f"{row['one']}, {row['other']}", _percent(row), _kappa(row), f"{row['n_only_one']:,}",
                f"{row['n_only_other']:,}", f"{row['n_questions_differing']:,}",
            ]  # fmt: skip
            table.add_row(*map(Text, cells))
        values = zip(_CURVE, key[:-1], strict=True)
        named = [_WORDS.get(name, "{}").format(value) for name, value in values if value is not None]
        yield Text(one_line(", ".join(named)) or "scored", style="bold cyan")
        yield table
        cases = f"{_count(here, 'n', *_CASES[kind])} to {_count(here, 'n_questions', 'question', 'questions')}"
        yield Text(
            f"{cases}; 1st, 2nd: {_DOES[kind]} by that one alone; Q: questions on which they differ; [ ] 95 % over "
            "questions", style="dim",
        )  # fmt: skip


def where_they_differ(rows: Sequence[Row]) -> str | None:
    """The condition that lists what the first pair that differs differs on; None if none does."""
    differing = (row for row in rows if row["exit_layer"] is None and (row["n_only_one"] or row["n_only_other"]))
    return next((row["where"] for row in differing), None)


def _percent(row: Row) -> str:
    value, low, high = (row[f"share_equal{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + ("" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]")


def _kappa(row: Row) -> str:
    if row["kappa"] is None:
        return "-"
    ends = "" if row["kappa_low"] is None else f" [{number(row['kappa_low'])}, {number(row['kappa_high'])}]"
    return number(row["kappa"]) + ends


def _count(rows: Sequence[Row], name: str, one: str, several: str) -> str:
    counts = [row[name] for row in rows]
    number = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    return f"{number} {one if number == '1' else several}"
