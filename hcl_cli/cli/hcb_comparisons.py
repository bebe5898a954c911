"""`hcl hcb --compare` and `--power`: which layers and models differ, and how much data tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.cli.session import Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import COMPARISONS, POWER, Table
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.sources import Source
    from hcl_cli.measures.hcb import Weights

_PANEL = "Significance"

CompareOpt = Annotated[
    bool,
    typer.Option(
        "--compare", rich_help_panel=_PANEL,
        help="Also paired tests: each layer against the last and the best one, and models on the same questions.",
    ),
]  # fmt: skip
AllPairsOpt = Annotated[
    bool, typer.Option("--all-pairs", rich_help_panel=_PANEL, help="With --compare: every two layers too.")
]
CompareTableOpt = Annotated[
    Path | None,
    typer.Option("--compare-table", metavar="FILE", rich_help_panel=_PANEL, help="The tests: .md, .csv or .tex."),
]
PowerOpt = Annotated[
    bool,
    typer.Option("--power", rich_help_panel=_PANEL, help="Also how many questions and samples tell two layers apart."),
]
PowerTableOpt = Annotated[
    Path | None,
    typer.Option("--power-table", metavar="FILE", rich_help_panel=_PANEL, help="The same: .md, .csv or .tex."),
]


@dataclass(frozen=True)
class Asked:
    """What the options of this module ask for."""

    compare: bool
    all_pairs: bool
    compare_table: Path | None
    power: bool
    power_table: Path | None


@dataclass(frozen=True)
class Made:
    """Rows of COMPARISONS and POWER, None where not asked for; the artifacts that hold them (none under --no-cache)."""

    comparisons: list[dict[str, Any]] | None
    power: list[dict[str, Any]] | None
    artifacts: "list[Artifact]"


def asked(compare: bool, all_pairs: bool, compare_table: Path | None, power: bool, power_table: Path | None) -> Asked:
    """The options, checked against each other and their files' endings.

    Raises:
        BadOption: one of them says nothing without --compare or --power.
    """
    if all_pairs and not compare:
        raise BadOption("--all-pairs: speaks of what --compare computes; add --compare")
    for option, path, switch, on in (
        ("--compare-table", compare_table, "--compare", compare),
        ("--power-table", power_table, "--power", power),
    ):
        if path is not None and not on:
            raise BadOption(f"{option} {path}: speaks of what {switch} computes; add {switch}")
    return Asked(compare, all_pairs, compare_table, power, power_table)


def made(
    session: Session, sources: "Sequence[Source]", asked: Asked, balance: "Weights", *, diversity: str, bootstrap: int,
    seed: int,
) -> Made:  # fmt: skip
    """The tables that were asked for: found, or computed and kept."""

    def inputs() -> "list[Any]":
        from hcl_cli.stages.curves import ScoredInput

        return [ScoredInput(source.frame().collect(), source.sha256) for source in sources]

    def compared() -> "pl.DataFrame":
        from hcl_cli.stages.comparisons import comparisons

        return comparisons(
            inputs(), weights=balance, diversity=diversity, all_pairs=asked.all_pairs, n_bootstrap=bootstrap, seed=seed
        )

    def powered() -> "pl.DataFrame":
        from hcl_cli.stages.power import power_table

        return power_table(inputs(), weights=balance, diversity=diversity)

    of_balance = {
        "creativity_weight": balance.creativity, "hallucination_weight": balance.hallucination,
        "scale_hallucination": balance.scale, "diversity": diversity,
    }  # fmt: skip
    artifacts: list[Artifact] = []

    def rows_of(table: Table, options: dict[str, Any], compute: Any) -> list[dict[str, Any]]:
        from hcl_cli.artifacts.recipe import Input, Recipe

        if session.no_cache:
            rows: list[dict[str, Any]] = compute().to_dicts()
            return rows
        recipe = Recipe(
            table=table.name,
            stage="hcb",
            version=VERSIONS["hcb"],
            options=of_balance | options,
            inputs=tuple(Input(source.sha256, source.key) for source in sources),
        )
        artifacts.append(session.produce(recipe, table, compute))
        return artifacts[-1].rows_as_dicts()

    options = {"all_pairs": asked.all_pairs, "bootstrap": bootstrap, "seed": seed}
    return Made(
        rows_of(COMPARISONS, options, compared) if asked.compare else None,
        rows_of(POWER, {}, powered) if asked.power else None,
        artifacts,
    )


def show(session: Session, made: Made, asked: Asked) -> None:
    """The tables on stderr, and in the files that were asked for."""
    if made.comparisons is not None:
        if not session.quiet:
            from hcl_cli.report.comparison_terminal import comparison_report

            for renderable in comparison_report(made.comparisons):
                session.terminal.show(renderable)
        if asked.compare_table is not None:
            from hcl_cli.report.comparison_tables import write_comparison_table

            write_comparison_table(made.comparisons, asked.compare_table)
            session.terminal.say(f"hcb: comparisons in {asked.compare_table}")
    if made.power is not None:
        if not session.quiet:
            from hcl_cli.report.power_terminal import power_report

            for shown in power_report(made.power):
                session.terminal.show(shown)
        if asked.power_table is not None:
            from hcl_cli.report.comparison_tables import write_power_table

            write_power_table(made.power, asked.power_table)
            session.terminal.say(f"hcb: power table in {asked.power_table}")


def warn_of_noise(session: Session, layers: Sequence[dict[str, Any]], findings: Sequence[dict[str, Any]]) -> None:
    """One line for each curve whose best layer cannot be told apart from another."""
    from hcl_cli.report.labels import curves_of

    curves = curves_of(layers, findings)
    for curve in curves:
        if "best_within_noise" in curve.findings:
            name = f"{curve.short}: " if len(curves) > 1 else ""
            said = curve.findings["best_within_noise"]["sentence"].rstrip(".")
            session.terminal.warn(f"{name}{said[0].lower()}{said[1:]}")
