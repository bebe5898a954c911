"""`hcl lens`: what every layer would say next."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.cli import lens_options as own
from hcl_cli.cli import options as opt
from hcl_cli.cli.inputs import refuse_losing
from hcl_cli.cli.lens_inputs import LensInput
from hcl_cli.cli.lens_tuned import read_tuned, train_tuned_folder
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.schemas import LENS
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl


def lens(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", show_default=False, help="A question; - reads it from stdin."),
    ] = None,
    options: own.OptionsOpt = None,
    top: own.TopOpt = 5,
    position: own.PositionOpt = "last",
    scoring: own.ScoringOpt = "full",
    norm: own.NormOpt = True,
    questions: own.InputOpt = None,
    columns: opt.ColumnsOpt = "",
    limit: opt.LimitOpt = None,
    model: opt.ModelOpt = "lab",
    prompt: own.PromptOpt = "plain",
    show_layers: own.ShowLayersOpt = "all",
    figure: own.FigureOpt = None,
    html: own.HtmlOpt = None,
    table: opt.TableOpt = None,
    tuned: own.TunedOpt = None,
    train_tuned: own.TrainTunedOpt = None,
    seed: opt.SeedOpt = 0,
    attention: opt.AttentionOpt = "auto",
    trust_remote_code: opt.TrustRemoteCodeOpt = None,
    device: opt.DeviceOpt = "auto",
    dtype: opt.DtypeOpt = "auto",
    store: opt.StoreOpt = DEFAULT_STORE,
    output: opt.OutputOpt = None,
    force: opt.ForceOpt = False,
    no_cache: opt.NoCacheOpt = False,
    dry_run: opt.DryRunOpt = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Show what every layer would say next, token by token.

    Example: hcl lens "How many whiskers does a human have?" --options "none,two,four" --html lens.html
    """
    from hcl_cli.artifacts.recipe import Recipe
    from hcl_cli.data.prompts import open_prompt

    session = Session("lens", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    opt.one_of("--scoring", scoring, own.SCORINGS)
    check_model_options(model, attention, trust_remote_code)
    candidates, column = own.parse_candidates(options, questions)
    # Both may be set for all calls by a variable or a file, so the one that says nothing here is no error.
    likeliest = None if options is not None else top
    scoring = scoring if options is not None else "full"
    place = own.parse_position(position)
    own.check_tuned(tuned, train_tuned, norm, dry_run)
    own.check_views(figure, html, table)

    # read
    memo = None if no_cache else store / "identities.json"
    asked = LensInput.of(text, questions, columns, column, limit, memo, session.terminal.warn)
    written = {"-o": output, "--table": table, "--figure": figure, "--html": html}
    refuse_losing(written, questions, prompt, train_tuned)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    shown_layers = opt.parse_exit_layers(
        show_layers, choice.reference.n_layers, choice.reference.name, option="--show-layers", least=0
    )
    template = open_prompt(prompt)
    if tuned is not None and train_tuned is not None:
        train_tuned_folder(session, choice, tuned, train_tuned, seed, memo)
    readout = "tuned" if tuned is not None else "norm" if norm else "no-norm"

    # recipe
    identities = choice.identities | asked.identities
    if tuned is not None:
        from hcl_cli.models.lens_files import tuned_lens_identity

        identities["tuned"] = tuned_lens_identity(tuned)
    recipe = Recipe(
        table=LENS.name,
        stage="lens",
        version=VERSIONS["lens"],
        options={
            "text": asked.text, "options": f"column:{column}" if column else candidates,
            "top": likeliest, "position": "all" if place is None else place,
            "scoring": scoring, "readout": readout, "prompt": template.identity, "columns": asked.spelled_columns,
            "limit": asked.n_questions, "trust_remote_code": trust_remote_code is not None,
        },
        identities=identities,
        dtype=choice.dtype,
        attention=choice.attention,
    )  # fmt: skip

    # produce
    def compute() -> "pl.DataFrame":
        from hcl_cli.models.readout import Readout
        from hcl_cli.stages.lens import View, lens_table

        loaded = choice.load()
        maps = None if tuned is None else read_tuned(tuned, choice)
        prompts = asked.prompts(lambda question: template.render(question, loaded.tokenizer), candidates)
        with session.terminal.progress("lens", "prompts") as advance:
            return lens_table(
                loaded,
                prompts,
                View(position=place, top=top, scoring=scoring, special_tokens=not template.is_chat),
                Readout(loaded.anatomy, readout, maps),
                model=choice.reference.name,
                dataset=asked.name,
                progress=advance if asked.name is not None else None,
            )

    artifact = session.produce(recipe, LENS, compute)

    # emit
    if not quiet or any(file is not None for file in (figure, html, table)):
        _show(session, artifact.rows_as_dicts(), shown_layers, figure, html, table)
    session.emit(artifact)


def _show(
    session: Session,
    rows: Sequence[Mapping[str, Any]],
    layers: Sequence[int],
    figure: Path | None,
    html: Path | None,
    table: Path | None,
) -> None:
    """The views of the rows; no Polars, which a hit must not pay for."""
    from hcl_cli.report.lens_views import readings_of

    readings = readings_of(rows, layers)
    if not session.quiet:
        from hcl_cli.report.lens_terminal import lens_report

        for renderable in lens_report(readings):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.lens_table import write_lens_table

        write_lens_table(readings, table)
        session.terminal.say(f"lens: table in {table}")
    if figure is not None:
        from hcl_cli.report.lens_figure import figure_note, write_lens_figure

        write_lens_figure(readings, figure)
        session.terminal.say(f"lens: figure in {figure}{figure_note(readings)}")
    if html is not None:
        from hcl_cli.report.lens_html import write_lens_page

        write_lens_page(readings, html)
        session.terminal.say(f"lens: page in {html}")
