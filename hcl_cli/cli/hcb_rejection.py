"""`hcl hcb --rejection`: whether the uncertainty at each exit layer tells which of its answers are wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.cli.session import Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import REJECTION, UNCERTAINTY
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.sources import Source

_PANEL = "Uncertainty"

RejectionOpt = Annotated[
    bool,
    typer.Option(
        "--rejection", rich_help_panel=_PANEL,
        help="Also semantic entropy and its peers per exit layer: AUROC for wrong answers, accuracy after rejection.",
    ),
]  # fmt: skip
RejectionTableOpt = Annotated[
    Path | None,
    typer.Option("--rejection-table", metavar="FILE", rich_help_panel=_PANEL, help="As a table: .md, .csv or .tex."),
]
RejectionFigureOpt = Annotated[
    Path | None,
    typer.Option(
        "--rejection-figure", metavar="FILE", rich_help_panel=_PANEL,
        help="Accuracy against the share kept, at the best, a middle and the last layer: .png, .svg or .pdf.",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What the options of this module ask for."""

    table: Path | None
    figure: Path | None


@dataclass(frozen=True)
class Made:
    """Rows of UNCERTAINTY and REJECTION, and the artifacts that hold them (none under --no-cache)."""

    uncertainty: list[dict[str, Any]]
    rejection: list[dict[str, Any]]
    artifacts: "list[Artifact]"


def asked(rejection: bool, table: Path | None, figure: Path | None) -> Asked | None:
    """The options, checked against each other; None without --rejection.

    Raises:
        BadOption: one of them says nothing without --rejection.
    """
    for option, value in (("--rejection-table", table), ("--rejection-figure", figure)):
        if value is not None and not rejection:
            raise BadOption(f"{option} {value}: speaks of what --rejection computes; add --rejection")
    return Asked(table, figure) if rejection else None


def made(
    session: Session, sources: "Sequence[Source]", asked: Asked | None, *, bootstrap: int, seed: int
) -> Made | None:
    """Both tables; None if they were not asked for."""
    if asked is None:
        return None
    from hcl_cli.artifacts.recipe import Input, Recipe

    computed: list[tuple[pl.DataFrame, pl.DataFrame]] = []

    def both() -> "tuple[pl.DataFrame, pl.DataFrame]":
        from hcl_cli.stages.semantic_entropy import ScoredInput, uncertainty_tables

        if not computed:
            inputs = [ScoredInput(source.frame().collect(), source.sha256) for source in sources]
            computed.append(uncertainty_tables(inputs, n_bootstrap=bootstrap, seed=seed))
        return computed[0]

    if session.no_cache:
        return Made(both()[0].to_dicts(), both()[1].to_dicts(), [])

    def recipe(name: str) -> Recipe:
        return Recipe(
            table=name,
            stage="hcb",
            version=VERSIONS["hcb"],
            options={"bootstrap": bootstrap, "seed": seed},
            inputs=tuple(Input(source.sha256, source.key) for source in sources),
        )

    artifacts = [
        session.produce(recipe(UNCERTAINTY.name), UNCERTAINTY, lambda: both()[0]),
        session.produce(recipe(REJECTION.name), REJECTION, lambda: both()[1]),
    ]
    uncertainty, rejection = (artifact.rows_as_dicts() for artifact in artifacts)
    return Made(uncertainty, rejection, artifacts)


def show(session: Session, made: Made | None, asked: Asked | None, layers: Sequence[dict[str, Any]]) -> None:
    """The report on stderr, and the files that were asked for; the rows of LAYERS say which layer is best."""
    if made is None or asked is None:
        return
    if not session.quiet:
        from hcl_cli.report.rejection_terminal import rejection_report

        for renderable in rejection_report(made.uncertainty, made.rejection):
            session.terminal.show(renderable)
    if asked.table is not None:
        from hcl_cli.report.rejection_tables import write_rejection_table

        write_rejection_table(made.uncertainty, made.rejection, asked.table)
        session.terminal.say(f"hcb: rejection table in {asked.table}")
    if asked.figure is not None:
        from hcl_cli.report.rejection_plots import write_rejection_figure

        write_rejection_figure(made.rejection, layers, asked.figure)
        session.terminal.say(f"hcb: rejection figure in {asked.figure}")
