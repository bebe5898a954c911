"""The layer table on a terminal: a row per exit layer (or method), and in plain words how sure the choice is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.labels import CurveRows, Row, counts, curves_of, number, of_all, share, with_interval

WIDE = 110  # columns from which there is room for more than the three rates

_SENTENCES = (
    "drafts_accepted", "best_minus_last", "best_minus_vanilla", "best_exit_saves",
    "creativity_hallucination_correlation", "best_confidence_lead",
)  # fmt: skip
# Of several curves; beside the published claims they stand in a table: `report.findings_tables`.
_OF_ALL = (
    "correlation_over_layers", "correlation_over_models", "correlation_over_curves", "best_depth_agreement",
    "best_depth", "best_confidence_lead_over_curves",
)  # fmt: skip


@dataclass(frozen=True)
class CurveTable:
    """One curve as a table that fits the terminal's width, its sentences below."""

    curve: CurveRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Wide terminals also get scaled creativity, confidence and cost."""
        star, near = ("*", "~") if options.ascii_only else ("★", "≈")
        wide = options.max_width >= WIDE
        # Names of methods are long: there the columns stand closer.
        close = self.curve.over_methods and not wide
        table = Table(
            box=box.SIMPLE_HEAD, padding=(0, 0 if close else 1), pad_edge=False, show_edge=False, header_style="bold"
        )
        table.add_column("", width=1)
        if self.curve.over_methods:
            table.add_column("Method", overflow="fold", min_width=6)
        else:
            table.add_column("Layer", justify="right", no_wrap=True, min_width=5)
        columns = [("Hallucination", "hallucination_rate"), ("Creativity", "creativity_raw")]
        columns += [("scaled", "creativity")] if wide else []
        columns += [("HCB", "hcb")]
        columns += [("Confidence", "confidence")] if wide else []
        for title, _ in columns:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("Wins", justify="right", no_wrap=True)
        costs = wide and any(row.get("relative_cost") is not None for row in self.curve.layers)
        if costs:
            table.add_column("Cost", justify="right")
        # Ten clusters and more are told with one decimal: three such intervals would not fit 80 columns.
        large = any((row["creativity_raw_high"] or row["creativity_raw"] or 0) >= 10 for row in self.curve.layers)
        for row in self.curve.layers:
            mark = star if row["is_best"] else near if row["in_best_set"] else ""
            style = "bold green" if row["is_best"] else "green" if row["in_best_set"] else ""
            # A variant's name has a line of its own: the column must stay narrow.
            cells = [mark, self.curve.label(row).replace("@", "\n@")]
            cells += [with_interval(row, name, 1 if large and name == "creativity_raw" else 2) for _, name in columns]
            cells += [share(row["p_best"])] + ([number(row["relative_cost"])] if costs else [])
            table.add_row(*(Text(cell, style=style) for cell in cells))
        yield Text(self.curve.name, style="bold cyan")
        yield table
        legend = []
        if self.curve.best is not None:
            legend.append(f"{star} best")
            if any(row["in_best_set"] and not row["is_best"] for row in self.curve.layers):
                legend.append(f"{near} cannot be told apart from it")
        legend.append("Wins: share of resamples won")
        yield Text("   ".join(legend), style="dim")
        yield Text("")
        if (best := f"best_{self.curve.noun}") in self.curve.findings:
            yield Text(self.curve.findings[best]["sentence"], style="bold")
        for name in _SENTENCES:
            if name in self.curve.findings:
                yield Text(self.curve.findings[name]["sentence"])
        yield Text(f"{counts(self.curve)}.", style="dim")


def layer_report(layers: Sequence[Row], findings: Sequence[Row] = ()) -> Iterator[CurveTable | Table | Text]:
    """What `hcl hcb` shows: each curve, then what holds for all of them, then the formula.

    Args:
        layers: rows of LAYERS.
        findings: rows of FINDINGS; without them there are no sentences.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    curves = curves_of(layers, findings)
    for curve in curves:
        yield CurveTable(curve)
        yield Text("")
    overall = of_all(findings)
    if len(curves) > 1 and any(row.get("published") for row in findings):
        from hcl_cli.report.findings_tables import claims_report

        yield from claims_report(layers, findings)
    else:
        for name in _OF_ALL:
            if name in overall:
                yield Text(overall[name]["sentence"])
    about = [overall[name]["sentence"] for name in ("formula", "resamples") if name in overall]
    if about:
        yield Text(". ".join(about) + ".", style="dim")
