"""Uncertainty of exit layers on a terminal: a row per layer, and what rejecting the uncertain half gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.labels import Row, counted, number, with_interval
from hcl_cli.report.rejection_words import MEANING, Uncertainty, counts, key, uncertainties
from hcl_cli.report.terminal import WIDE


@dataclass(frozen=True)
class UncertaintyTable:
    """One curve as a table that fits the terminal's width."""

    found: Uncertainty

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The leading entropy with intervals, the peers' AUROC without; wide terminals also get predictive entropy."""
        curve, leading = self.found.curve, self.found.leading
        wide = options.max_width >= WIDE
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, show_edge=False, header_style="bold")
        if curve.over_methods:
            table.add_column("Method", overflow="fold", min_width=6)
        else:
            table.add_column("Exit", justify="right", no_wrap=True)
        peers = {"semantic_entropy_discrete": "Discr.", "answer_logprob": "Answer"}
        if wide:
            peers = {"predictive_entropy": "Predictive"} | peers
        for title in ("SE", "AUROC", "Lead", "AURAC", *peers.values()):
            table.add_column(title, justify="right", no_wrap=True)
        for of_layer in curve.layers:
            row = self.found.of(of_layer, leading)
            # Names of methods are long: they take the room of one interval.
            area = number(row["aurac"]) if curve.over_methods and not wide else with_interval(row, "aurac")
            cells = [number(row["mean"]), with_interval(row, "auroc"), with_interval(row, "auroc_lead"), area]
            cells += [number(self.found.of(of_layer, measure)["auroc"]) for measure in peers]
            label = curve.label(of_layer).replace("@", "\n@")  # a variant's name has a line of its own
            table.add_row(Text(label), *map(Text, cells))
        yield Text(f"Uncertainty: {curve.name}", style="bold cyan")
        yield table
        yield Text(counts(curve, leading), style="dim")


def rejection_report(uncertainty: Sequence[Row], rejection: Sequence[Row]) -> Iterator[UncertaintyTable | Text]:
    """What `hcl hcb --rejection` shows below the layer table.

    Args:
        uncertainty: rows of UNCERTAINTY.
        rejection: rows of REJECTION.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    for found in uncertainties(uncertainty):
        yield UncertaintyTable(found)
        sentence = _last_layer(found, rejection)
        if sentence:
            yield Text(sentence)
        yield Text("")
    yield Text(
        f"SE: semantic entropy in nats; Discr., Answer: AUROC of its discrete form and of the answer's own mean "
        f"log-probability. {MEANING}",
        style="dim",
    )


def _last_layer(found: Uncertainty, rejection: Sequence[Row]) -> str:
    """What rejecting half of the questions does at the last layer (the first method)."""
    curve = found.curve
    at = curve.layers[0 if curve.over_methods else -1]
    rows = [row for row in rejection if key(row) == key(at) and row["measure"] == found.leading]
    if not rows:
        return ""
    half, whole = min(rows, key=lambda row: abs(row["share_kept"] - 0.5)), rows[-1]
    place = f"Under {curve.label(at)}" if curve.over_methods else f"At layer {curve.label(at)}"
    kept = f"{place}, keeping the {counted(half['n_questions_kept'], 'question')} of lowest semantic entropy"
    before, after = with_interval(whole, "accuracy"), with_interval(half, "accuracy")
    if half["accuracy"] > whole["accuracy"]:
        return f"{kept} raises accuracy from {before} to {after}."
    return f"{kept} does not raise accuracy: {after} against {before}."
