"""Findings beside the published claims: a terminal table and Markdown. Formats; never computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from hcl_cli.report.grids import Grid
from hcl_cli.report.labels import CurveRows, Row, curves_of, number, of_all, one_line, share
from hcl_cli.report.tables import markdown_escaped

TITLE = "Findings beside the published claims"
LEGEND = (
    "Published: Shakespearean Sparks (arXiv 2503.02851), in our words. [paper]: its abstract or page; [figure]: our "
    "arithmetic on the numbers printed in its figures. Ours: 95 % intervals over questions."
)

# Of several curves (or of a data set or model among them), then of each curve.
_FINDINGS = (
    ("creativity and hallucination over layers, r", ("correlation_over_layers",),
     ("creativity_hallucination_correlation",)),
    ("creativity and hallucination over models, r", ("correlation_over_models", "correlation_over_curves"), ()),
    ("best layer", (), ("best_layer",)),
    ("HCB of the best layer less that of the last", (), ("best_minus_last",)),
    ("relative depth of the best layer",
     ("best_depth", "best_depth_of_dataset", "best_depth_of_model", "best_depth_agreement"), ()),
    ("confidence at the best layer less that at the others", ("best_confidence_lead_over_curves",),
     ("best_confidence_lead",)),
    ("what the best exit saves", (), ("best_exit_saves",)),
)  # fmt: skip
_LABELS = {
    "correlation_over_layers": "mean",
    "correlation_over_models": "last layers",
    "correlation_over_curves": "last layers of all curves",
    "best_depth": "mean",
    "best_depth_agreement": "agreement",
    "best_confidence_lead_over_curves": "mean",
}


@dataclass(frozen=True)
class Claim:
    """One finding: a line per number that was measured, and what is published (empty: nothing)."""

    name: str
    measured: list[str]
    published: str


def claims(layers: Sequence[Row], findings: Sequence[Row]) -> list[Claim]:
    """The findings that a paper speaks of, and what the best exit saves.

    Args:
        layers: rows of LAYERS; they name the curves.
        findings: rows of FINDINGS.
    """
    curves, overall = curves_of(layers, findings), of_all(findings)
    found = []
    for name, of_several, of_each in _FINDINGS:
        shared = [row for statistic in of_several for row in _of_several(overall, findings, statistic)]
        mine = [(curve, curve.findings[each]) for curve in curves for each in of_each if each in curve.findings]
        lines = [f"{_label(row)} {_told(row)}" for row in shared]
        for curve, row in mine:
            lines.append(f"{curve.short}: {_told(row, curve)}" if len(curves) > 1 else _told(row, curve))
        told = [row["published"] for row in (*shared, *(row for _, row in mine)) if row.get("published")]
        if lines:
            found.append(Claim(name, list(map(one_line, lines)), str(told[0]) if told else ""))
    return found


def _of_several(overall: Mapping[str, Row], findings: Sequence[Row], statistic: str) -> list[Row]:
    if statistic.startswith("best_depth_of_"):
        return [row for row in findings if row["statistic"] == statistic]
    return [overall[statistic]] if statistic in overall else []


def _label(row: Row) -> str:
    return _LABELS.get(row["statistic"]) or f"{row['dataset'] or row['model']}:"


def _told(row: Row, curve: CurveRows | None = None) -> str:
    """The number with its interval."""
    statistic, value = row["statistic"], row["estimate"]
    if value is None:
        return "-"
    if statistic == "best_layer":
        low, high = row["low"], row["high"]
        return f"{value:.0f}" + ("" if low is None else f" [{low:.0f}, {high:.0f}]")
    decimals = 3 if "confidence" in statistic else 2
    sign = "+" if value > 0 and "depth" not in statistic else ""
    text = sign + number(value, decimals)
    if row["low"] is not None:
        text += f" [{number(row['low'], decimals)}, {number(row['high'], decimals)}]"
    if statistic == "best_minus_last" and row.get("p_value") is not None:
        text += ", p < 0.001" if row["p_value"] < 0.001 else f", p = {row['p_value']:.3f}"
    if statistic == "best_exit_saves" and curve is not None and curve.best is not None:
        text = f"exit {row['exit_layer']} costs {share(curve.best['relative_cost'])}, hallucination {text}"
    return text


def claims_report(layers: Sequence[Row], findings: Sequence[Row]) -> Iterator[Table | Text]:
    """The findings beside the published claims on a terminal; nothing if there is none."""
    found = claims(layers, findings)
    if not found:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, header_style="bold",
                  show_lines=True)  # fmt: skip
    for title, ratio in (("Finding", 16), ("Measured here", 31), ("Published", 29)):
        table.add_column(title, ratio=ratio, overflow="fold")
    for claim in found:
        table.add_row(Text(claim.name), Text("\n".join(claim.measured)), Text(claim.published or "-"))
    yield Text(TITLE, style="bold cyan")
    yield table
    yield Text(LEGEND, style="dim")
    yield Text("")


def claims_markdown(layers: Sequence[Row], findings: Sequence[Row]) -> str:
    """The same as Markdown; empty if there is none."""
    found = claims(layers, findings)
    if not found:
        return ""
    cells = [[claim.name, "; ".join(claim.measured), claim.published or "-"] for claim in found]
    grid = Grid(["Finding", "Measured here", "Published"], cells, n_left=3)
    return "\n".join([f"**{TITLE}**", "", *grid.markdown(), markdown_escaped(LEGEND), ""])
