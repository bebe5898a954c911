"""`hcl hcb --calibration`: whether the confidence of each exit layer tells which of its answers are correct."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.cli.session import Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import LAYER_CALIBRATION
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.sources import Source
    from hcl_cli.stages.layer_calibration import Confidence

_PANEL = "Calibration"

CalibrationOpt = Annotated[
    bool,
    typer.Option(
        "--calibration", rich_help_panel=_PANEL,
        help="Also accuracy@50, coverage@50, ECE, Brier score and AUROC of the confidence, per exit layer.",
    ),
]  # fmt: skip
ConfidenceOpt = Annotated[
    str | None,
    typer.Option(
        "--confidence", metavar="C", show_default="mean-logprob", rich_help_panel=_PANEL,
        help="Of an answer: mean-logprob (its exponential), mean-prob, mean-max-prob, or a column in \\[0, 1].",
    ),
]  # fmt: skip
CalibrationTableOpt = Annotated[
    Path | None,
    typer.Option("--calibration-table", metavar="FILE", rich_help_panel=_PANEL, help="As a table: .md, .csv or .tex."),
]
CalibrationFigureOpt = Annotated[
    Path | None,
    typer.Option(
        "--calibration-figure", metavar="FILE", rich_help_panel=_PANEL, help="Four panels: .png, .svg or .pdf."
    ),
]


@dataclass(frozen=True)
class Asked:
    """What the options of this module ask for."""

    confidence: "Confidence"
    table: Path | None
    figure: Path | None


def asked(calibration: bool, confidence: str | None, table: Path | None, figure: Path | None) -> Asked | None:
    """The options, checked against each other; None without --calibration.

    Raises:
        BadOption: one of them says nothing without --calibration.
    """
    named = (("--confidence", confidence), ("--calibration-table", table), ("--calibration-figure", figure))
    for option, value in named:
        if value is not None and not calibration:
            raise BadOption(f"{option} {value}: speaks of what --calibration computes; add --calibration")
    if not calibration:
        return None
    from hcl_cli.stages.layer_calibration import parse_confidence

    return Asked(parse_confidence("mean-logprob" if confidence is None else confidence), table, figure)


def calibrated(
    session: Session, sources: "Sequence[Source]", asked: Asked, *, bootstrap: int, seed: int
) -> "tuple[list[dict[str, Any]], list[Artifact]]":
    """Rows of LAYER_CALIBRATION, and the artifact that holds them (none under --no-cache)."""
    from hcl_cli.artifacts.recipe import Input, Recipe

    def compute() -> "pl.DataFrame":
        from hcl_cli.stages.layer_calibration import ScoredInput, layer_calibration

        inputs = [ScoredInput(source.frame().collect(), source.sha256) for source in sources]
        return layer_calibration(inputs, confidence=asked.confidence, n_bootstrap=bootstrap, seed=seed)

    if session.no_cache:
        return compute().to_dicts(), []
    recipe = Recipe(
        table=LAYER_CALIBRATION.name,
        stage="hcb",
        version=VERSIONS["hcb"],
        options={"confidence": asked.confidence.definition, "bootstrap": bootstrap, "seed": seed},
        inputs=tuple(Input(source.sha256, source.key) for source in sources),
    )
    artifact = session.produce(recipe, LAYER_CALIBRATION, compute)
    return artifact.rows_as_dicts(), [artifact]


def show(session: Session, rows: Sequence[dict[str, Any]], asked: Asked) -> None:
    """The table on stderr, and in the files that were asked for."""
    if not session.quiet:
        from hcl_cli.report.calibration_terminal import calibration_report

        for renderable in calibration_report(rows):
            session.terminal.show(renderable)
    if asked.table is not None:
        from hcl_cli.report.calibration_tables import write_calibration_table

        write_calibration_table(rows, asked.table)
        session.terminal.say(f"hcb: calibration table in {asked.table}")
    if asked.figure is not None:
        from hcl_cli.report.calibration_plots import write_calibration_figure

        write_calibration_figure(rows, asked.figure)
        session.terminal.say(f"hcb: calibration figure in {asked.figure}")
