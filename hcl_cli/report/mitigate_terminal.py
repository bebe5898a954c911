"""Mitigation on a terminal: a section per measure, a row per choice of blocks, and whether the choice mattered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from hcl_cli.report.columns import GAP, rows_in_line, widths_of
from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.mitigate_words import mitigate_notes, mitigate_sentences
from hcl_cli.report.prune_labels import estimate, key_of, names_of, significant, spread_of
from hcl_cli.report.retained_labels import Line, Measure, lines_of, measures_of

_LEAD = 4  # the column of leads
_FORMS = ((True, (0, 1, 2, 3, _LEAD)), (False, (0, 1, 2, 3, _LEAD)), (False, (0, 2, 3, _LEAD)))  # interval, columns
_LEAST_NAME = 16  # room that is kept for names before intervals are shown


@dataclass(frozen=True)
class MitigateTable:
    """One model: what each choice of trained blocks changed, and its lead over other blocks."""

    model: str | None
    retained: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fits 80 columns; wider terminals show the intervals of the values too."""
        yield Text(one_line(self.model or "") or "mitigation", style="bold cyan")
        names = names_of(map(key_of, self.retained))
        measures = measures_of(self.retained)
        lines = [lines_of(measure, names) for measure in measures]
        for interval, columns in _FORMS:
            cells = [[_cells(line, interval) for line in own] for own in lines]
            header = ["", "n", "After", "Difference", lead_title(self.retained)]
            found = [row for own in cells for row in own]
            shown = [at for at in columns if at != _LEAD or any(row[at] != "-" for row in found)]
            everything = [[row[at] for at in shown] for row in [header, *found]]
            widths = widths_of(everything, options.max_width)
            if sum(widths_of(everything, 10_000)[1:]) + GAP * (len(shown) - 1) + _LEAST_NAME <= options.max_width:
                break
        yield rows_in_line([everything[0]], widths, "bold")
        for measure, own in zip(measures, cells, strict=True):
            before = f"before: {_before(measure)}"
            about = ", ".join(part for part in (measure.direction, before) if part)
            yield Text.assemble((measure.name, "cyan"), f"   {about}")
            yield rows_in_line([[row[at] for at in shown] for row in own], widths)
        seeds = any(len(line.rows) > 1 for own in lines for line in own)
        counted = "n: blocks trained   " if 1 in shown else ""
        yield Text(f"{counted}[ ] 95 %{'   ( ) over seeds' * seeds}", style="dim")
        yield Text("")
        for sentence in mitigate_sentences(self.retained):
            yield Text(sentence)
        noted = " ".join(mitigate_notes(self.retained))
        if noted:
            yield Text(noted, style="dim")


def _cells(line: Line, interval: bool) -> list[str]:
    n_blocks = "-" if line.n_blocks is None else f"{line.n_blocks}"
    after = line.text("after")
    return [line.name, n_blocks, after if interval else after.split(" ")[0], line.difference(), line.difference("lead")]


def _before(measure: Measure) -> str:
    """The value before; from the lowest to the highest where it depends on the trained blocks."""
    spread = spread_of(measure.rows, "before")
    if spread is None or len(set(spread.values)) == 1:
        return estimate(measure.before, "before")
    low, high = min(spread.values), max(spread.values)
    largest = max(abs(low), abs(high))
    return f"{significant(low, largest)} to {significant(high, largest)}, by blocks"


def lead_title(retained: Sequence[Row]) -> str:
    """`Lead over random-layers`, where all leads are over the same variant."""
    others = {row["lead_over"] for row in retained if row.get("lead_over") is not None}
    title = f"Lead over {one_line(str(next(iter(others))))}" if len(others) == 1 else "Lead"
    return title if len(title) <= 25 else "Lead"


def mitigate_report(retained: Sequence[Row]) -> Iterator[MitigateTable | Text]:
    """What `hcl mitigate` shows.

    Args:
        retained: rows of RETAINED: a row per measure and variant (the blocks that were trained); several seeds of a
            variant are one line.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    for model in dict.fromkeys(row.get("model") for row in retained):
        yield MitigateTable(model, [row for row in retained if row.get("model") == model])
        yield Text("")
    if not retained:
        yield Text("nothing was measured", style="dim")
