"""`hcl hcb`: the balance of hallucination and creativity at each exit layer."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import hcb_calibration as own
from hcl_cli.cli import hcb_comparisons as tests
from hcl_cli.cli import hcb_diversity as diverse
from hcl_cli.cli import hcb_judges as judges
from hcl_cli.cli import hcb_rejection as doubt
from hcl_cli.cli import options as opt
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import input_paths, refuse_losing
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import FINDINGS, LAYERS, SCORED
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

SCALES = ("raw", "minmax")


def hcb(
    scored: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE...", show_default=False, help="SCORED files; - or nothing reads stdin."),
    ] = None,
    weights: opt.WeightsOpt = "script",
    scale_hallucination: opt.ScaleHallucinationOpt = None,
    diversity: diverse.DiversityOpt = "clusters",
    embedder: diverse.EncoderOpt = None,
    bootstrap: opt.BootstrapOpt = 2000,
    figure: opt.FigureOpt = None,
    table: opt.TableOpt = None,
    calibration: own.CalibrationOpt = False,
    confidence: own.ConfidenceOpt = None,
    calibration_table: own.CalibrationTableOpt = None,
    calibration_figure: own.CalibrationFigureOpt = None,
    rejection: doubt.RejectionOpt = False,
    rejection_table: doubt.RejectionTableOpt = None,
    rejection_figure: doubt.RejectionFigureOpt = None,
    compare: tests.CompareOpt = False,
    all_pairs: tests.AllPairsOpt = False,
    compare_table: tests.CompareTableOpt = None,
    power: tests.PowerOpt = False,
    power_table: tests.PowerTableOpt = None,
    seed: opt.SeedOpt = 0,
    store: opt.StoreOpt = DEFAULT_STORE,
    output: opt.OutputOpt = None,
    force: opt.ForceOpt = False,
    no_cache: opt.NoCacheOpt = False,
    dry_run: opt.DryRunOpt = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Balance creativity against hallucination at each exit layer.

    Example: hcl sample | hcl score | hcl hcb --figure hcb.svg --weights 0.3
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.artifacts.store import read_source
    from hcl_cli.stages.balance import parse_weights

    session = Session("hcb", store, force, no_cache, dry_run, output, as_json, quiet, verbose)
    balance = parse_weights(weights, scale_hallucination)
    memo = None if no_cache else store / "identities.json"
    measure = diverse.parse_diversity(diversity, embedder, seed, memo)
    asked = own.asked(calibration, confidence, calibration_table, calibration_figure)
    asked_tests = tests.asked(compare, all_pairs, compare_table, power, power_table)
    asked_doubt = doubt.asked(rejection, rejection_table, rejection_figure)
    for option, drawn in (
        ("--figure", figure), ("--calibration-figure", calibration_figure), ("--rejection-figure", rejection_figure),
    ):  # fmt: skip
        check_export(option, drawn, (".png", ".svg", ".pdf"))
        if drawn is not None and find_spec("matplotlib") is None:
            raise BadOption(f"{option} {drawn}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    for option, written in (
        ("--table", table), ("--calibration-table", calibration_table), ("--rejection-table", rejection_table),
        ("--compare-table", compare_table), ("--power-table", power_table),
    ):  # fmt: skip
        check_export(option, written, (".md", ".csv", ".tex"))

    # read
    paths = input_paths(scored or [], "hcl hcb", most=None)
    refuse_losing(
        {
            "-o": output, "--table": table, "--figure": figure, "--calibration-table": calibration_table,
            "--calibration-figure": calibration_figure, "--rejection-table": rejection_table,
            "--rejection-figure": rejection_figure, "--compare-table": compare_table, "--power-table": power_table,
        },
        *paths,
    )  # fmt: skip
    sources = [read_source(path, SCORED) for path in paths]

    # recipe
    def recipe(name: str) -> Recipe:
        return Recipe(
            table=name,
            stage="hcb",
            version=VERSIONS["hcb"],
            options={
                "creativity_weight": balance.creativity, "hallucination_weight": balance.hallucination,
                "scale_hallucination": balance.scale, "diversity": diversity, "bootstrap": bootstrap, "seed": seed,
            },
            inputs=tuple(Input(source.sha256, source.key) for source in sources),
            identities=measure.identities,
        )  # fmt: skip

    # produce
    computed: list[tuple[pl.DataFrame, pl.DataFrame]] = []

    def both() -> "tuple[pl.DataFrame, pl.DataFrame]":
        from hcl_cli.stages.hcb import layer_tables

        if not computed:
            computed.append(
                layer_tables(
                    measure.inputs(sources), weights=balance, diversity=diversity, n_bootstrap=bootstrap, seed=seed
                )
            )
        return computed[0]

    layers = session.produce(recipe(LAYERS.name), LAYERS, lambda: both()[0])
    # Under --no-cache there is one file, that of -o: the findings are shown and not kept.
    also = [] if no_cache else [session.produce(recipe(FINDINGS.name), FINDINGS, lambda: both()[1])]
    rows, found = layers.rows_as_dicts(), also[0].rows_as_dicts() if also else both()[1].to_dicts()
    if asked is not None:
        calibrated, kept = own.calibrated(session, sources, asked, bootstrap=bootstrap, seed=seed)
        also += kept
    doubted = doubt.made(session, sources, asked_doubt, bootstrap=bootstrap, seed=seed)
    also += doubted.artifacts if doubted is not None else []
    tested = tests.made(session, sources, asked_tests, balance, diversity=measure, bootstrap=bootstrap, seed=seed)
    also += tested.artifacts

    judged, kept = judges.compared(session, sources, recipe, balance, diversity=measure, bootstrap=bootstrap, seed=seed)
    also += kept

    # emit
    if not quiet:
        from hcl_cli.report.terminal import layer_report

        for renderable in layer_report(rows, found):
            session.terminal.show(renderable)
    judges.show(session, judged)
    if asked is not None:
        own.show(session, calibrated, asked)
    doubt.show(session, doubted, asked_doubt, rows)
    tests.show(session, tested, asked_tests)
    tests.warn_of_noise(session, rows, found)
    if table is not None:
        from hcl_cli.report.tables import write_table

        write_table(rows, table, found)
        session.terminal.say(f"hcb: table in {table}")
    if figure is not None:
        from hcl_cli.report.plots import write_figure

        write_figure(rows, figure, found)
        session.terminal.say(f"hcb: figure in {figure}")
    session.emit(layers, also=also)
