"""How good each judge is against people, on a terminal and as a file. Formats; never computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from hcl_cli.report.files import write_file
from hcl_cli.report.labels import Row, counted, number, one_line
from hcl_cli.report.tables import csv_text, latex_escaped, markdown_escaped
from hcl_cli.schemas import JUDGE_CALIBRATION

_COLUMNS = (("Precision", "precision"), ("Recall", "recall"), ("Cohen's kappa", "kappa"))
_MORE = (("F1", "f1"), ("Specificity", "specificity"), ("Debatable accepted", "debatable_accepted"))


def people_report(rows: Sequence[Row]) -> Iterator[Table | Text]:
    """What `hcl score` shows of JUDGE_CALIBRATION.

    Yields:
        renderables for rich. Names are never read as markup.
    """
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("Judge", overflow="fold", min_width=9)
    for title, _ in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, (_judge(row, rows), *(_estimate(row, name) for _, name in _COLUMNS))))
    yield Text("Judges against people", style="bold cyan")
    yield table
    yield Text(_counts(rows), style="dim")


def people_text(rows: Sequence[Row], ending: str) -> str:
    """The table as text: ".md" and ".tex" rounded with intervals, ".csv" every column unrounded."""
    if ending == ".csv":
        return csv_text(rows, JUDGE_CALIBRATION.columns)
    header = ["Judge", *(title for title, _ in (*_COLUMNS, *_MORE))]
    lines = [[_judge(row, rows), *(_estimate(row, name) for _, name in (*_COLUMNS, *_MORE))] for row in rows]
    if ending == ".md":
        text = ["| " + " | ".join(header) + " |", "| --- | " + " | ".join(["---:"] * (len(header) - 1)) + " |"]
        text += ["| " + " | ".join(map(markdown_escaped, line)) + " |" for line in lines]
        return "\n".join([*text, "", markdown_escaped(_counts(rows)), ""])
    text = [f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", "\\toprule"]
    text += [" & ".join(map(latex_escaped, header)) + r" \\", "\\midrule"]
    text += [" & ".join(map(latex_escaped, line)) + r" \\" for line in lines]
    return "\n".join([*text, "\\bottomrule", "\\end{tabular}", "", "\\par " + latex_escaped(_counts(rows)), ""])


def write_people_table(rows: Sequence[Row], path: Path) -> None:
    """Write `people_text` to a file; its ending says the format.

    Raises:
        EnvironmentRefused: if the file cannot be written.
    """
    write_file("--people-table", path, people_text(rows, path.suffix.lower()).encode())


def _judge(row: Row, rows: Sequence[Row]) -> str:
    sets = {one["dataset"] for one in rows}
    return one_line(row["judge"] if len(sets) == 1 else f"{row['judge']}, {row['dataset'] or 'no name'}")


def _estimate(row: Row, name: str) -> str:
    if row[name] is None:
        return "-"
    ends = "" if row[f"{name}_low"] is None else f" [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"
    return number(row[name]) + ends


def _counts(rows: Sequence[Row]) -> str:
    first = max(rows, key=lambda row: row["n"])
    sets = sorted({one_line(row["dataset"]) for row in rows if row["dataset"]})
    of = f" of {', '.join(sets)}" if sets else ""
    ungraded = sum(row["n_ungraded"] for row in rows)
    return (
        f"{counted(first['n'], 'answer')}{of} to {counted(first['n_questions'], 'question')}, {first['n_right']:,} of "
        f"them right by people; {first['n_debatable']:,} debatable apart; intervals are 95 %, over questions"
        + (f"; lacking {counted(ungraded, 'verdict')}" if ungraded else "")
    )
