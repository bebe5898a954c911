"""What a language model as judge says of each layer or method, on a terminal: metric by metric, in per cent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from hcl_cli.report.labels import Row, number, one_line

_NAMES = {
    "true": "%Truth", "informative": "%Info", "true-and-informative": "%Truth*Info (both)", "correct": "% correct",
    "incorrect": "% incorrect", "not-attempted": "% not attempted",
    "correct-given-attempted": "% correct of what was attempted", "f1": "F1 of the two, x 100",
}  # fmt: skip


_NAMED = ("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer")
_WORDS = {"temperature": "T {:g}", "top_p": "top-p {:g}", "exit_layer": "layer {}"}


def judged_report(rows: Sequence[Row]) -> Iterator[Table | Text]:
    """What `hcl score --judge llm` shows of JUDGED.

    Yields:
        renderables for rich. Names are never read as markup.
    """
    if not rows:
        return
    shared = [name for name in _NAMED if len({row[name] for row in rows}) == 1]
    differing = [name for name in _NAMED if name not in shared]
    baselines = sorted({row["baseline"] for row in rows if row["baseline"] is not None})
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("Layer or method", overflow="fold")
    table.add_column("Per cent", justify="right", no_wrap=True)
    if baselines:
        table.add_column(Text(f"minus {baselines[0]}"), justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    for judge, metric in dict.fromkeys((row["judge"], row["metric"]) for row in rows):
        table.add_row(Text(f"{_NAMES[metric]}, {judge}", style="cyan"))
        for row in sorted(rows, key=lambda row: row["exit_layer"] or 0):  # methods in the order of the table
            if (row["judge"], row["metric"]) == (judge, metric):
                cells = [_words(row, differing) or "all", _percent(row, "value")]
                cells += [_percent(row, "difference") if row["baseline"] is not None else ""] if baselines else []
                table.add_row(*map(Text, (*cells, f"{row['n_questions']:,}")))
    yield Text(_words(rows[0], shared) or "judged", style="bold cyan")
    yield table
    yield Text("[ ] 95 % over questions   n: questions with a verdict", style="dim")
    asked, reported = rows[0]["asked_model"], {row["reported_model"] for row in rows} - {None}
    said = f", reported as {', '.join(sorted(reported))}" if reported else ""
    yield Text(one_line(f"judged by {asked}{said}"), style="dim")


def _words(row: Row, names: Sequence[str]) -> str:
    said = [_WORDS.get(name, "{}").format(row[name]) for name in names if row[name] is not None]
    return ", ".join(map(one_line, said))


def _percent(row: Row, name: str) -> str:
    """38.8 [35.2, 42.5]"""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    shown = [number(None if one is None else 100 * one, 1) for one in (value, low, high)]
    return shown[0] if low is None or high is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"
