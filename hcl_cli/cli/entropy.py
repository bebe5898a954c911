"""`hcl entropy`: what the layers and the attention heads are unsure about."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hcl_cli.cli import entropy_options as own
from hcl_cli.cli import options as opt
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import optional_input, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import ENTROPY
from hcl_cli.stages.versions import ENTROPY_BLOCK, ENTROPY_GROWS, VERSIONS

DEFAULT_MEASURED_TOKENS = 1 << 14
SAMPLED_TOKENS = 1 << 20  # models.decode.DEFAULT_BATCH_TOKENS, which would import torch


def entropy(
    source: own.InputArg = None,
    model: own.ModelOpt = None,
    dataset: opt.DatasetOpt = None,
    columns: opt.ColumnsOpt = "",
    of: own.OfOpt = None,
    norm: own.NormOpt = True,
    varentropy: own.VarentropyOpt = "surprisal-variance",
    aggregate: own.AggregateOpt = None,
    answers_of: own.AnswersOfOpt = "last",
    limit: opt.LimitOpt = None,
    long_texts: own.LongTextsOpt = "refuse",
    max_tokens: own.MaxTokensOpt = None,
    prompt: own.PromptOpt = None,
    bits: own.BitsOpt = False,
    figure: opt.FigureOpt = None,
    table: opt.TableOpt = None,
    group_by: own.GroupByOpt = None,
    weights: own.WeightsOpt = "group",
    permutations: own.PermutationsOpt = 2000,
    bootstrap: opt.BootstrapOpt = 2000,
    confidence: own.ConfidenceOpt = False,
    save: own.SaveOpt = None,
    apply: own.ApplyOpt = None,
    html: own.HtmlOpt = None,
    critic: own.CriticOpt = None,
    critic_model: own.CriticModelOpt = None,
    samples: own.GeneratedSamplesOpt = 1,
    temperature: own.GeneratedTemperatureOpt = 0.6,
    top_p: own.GeneratedTopPOpt = 0.9,
    top_k: own.GeneratedTopKOpt = 0,
    max_new_tokens: own.GeneratedTokensOpt = 50,
    stop: own.GeneratedStopOpt = None,
    batch_tokens: own.MeasuredTokensOpt = DEFAULT_MEASURED_TOKENS,
    attention: opt.AttentionOpt = "auto",
    trust_remote_code: opt.TrustRemoteCodeOpt = None,
    seed: opt.SeedOpt = 0,
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
    """Measure how unsure layers and attention heads are, and compare groups.

    Example: hcl sample | hcl score | hcl entropy --of layers,attention --figure entropy.svg
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.cli.answers import named_model, named_prompt
    from hcl_cli.cli.entropy_inputs import read_given
    from hcl_cli.cli.entropy_plan import SPANS, Plan
    from hcl_cli.cli.entropy_products import Products
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.data.questions import parse_columns

    session = Session("entropy", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    judged = confidence or apply is not None
    kinds = own.parse_kinds(("layers,attention,tokens" if judged else "layers") if of is None else of)
    whose = own.parse_answers_of(answers_of)
    opt.one_of("--varentropy", varentropy, own.VARENTROPIES)
    opt.one_of("--weights", weights, own.WEIGHTS)
    opt.one_of("--long-texts", long_texts, ("refuse", "truncate"))
    aggregate_kinds = own.aggregated(kinds, aggregate, judged)
    own.check_together(confidence, save, apply, html, critic, critic_model, group_by)
    stops = opt.parse_stops(["\\n"] if stop is None else stop)
    check_export("--figure", figure, (".png", ".svg", ".pdf"))
    if figure is not None and find_spec("matplotlib") is None:
        raise BadOption(f"--figure {figure}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    check_export("--table", table, (".md", ".csv", ".tex"))
    check_export("--html", html, (".html",))

    # read
    memo = None if no_cache else store / "identities.json"
    mapping = parse_columns(columns, own.COLUMNS) if columns else None
    path = optional_input(source, dataset, "hcl entropy")
    refuse_losing({"-o": output, "--table": table, "--figure": figure, "--html": html}, path, dataset, prompt)
    given = read_given(path, dataset, mapping, memo, session.terminal)
    groups_asked = group_by is not None or critic is not None
    group_by = SPANS if critic is not None else group_by or ("correct" if given.graded else None)
    # What cannot work is refused before anything is measured, which may take hours.
    if confidence and not given.graded:
        raise BadOption("--confidence: learns from verdicts, so it needs scored answers: hcl score | hcl entropy")
    if apply is not None:
        from hcl_cli.stages.instrument_files import load_instrument

        load_instrument(apply)
    model = model or named_model(given.answers)
    check_model_options(model, attention, trust_remote_code)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    template = open_prompt(named_prompt(given.answers, prompt, store, session.terminal))
    plan = Plan(
        given, choice, template, kinds, norm=norm, varentropy=varentropy, aggregate=aggregate_kinds,
        batch_tokens=batch_tokens, group_by=group_by, groups_asked=groups_asked, answers_of=whose,
        limit=limit, samples=samples,
        sampling={
            "temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens,
            "stop": stops, "seed": seed, "batch_tokens": SAMPLED_TOKENS,
        },
        truncate=long_texts == "truncate", max_tokens=max_tokens, terminal=session.terminal,
    )  # fmt: skip
    marked = None
    if critic is not None:
        from hcl_cli.cli.entropy_critic import criticised

        marked = criticised(session, plan, critic, str(critic_model))

    # recipe
    inputs = [] if given.answers is None else [Input(given.answers.sha256, given.answers.key)]
    recipe = Recipe(
        table=ENTROPY.name,
        stage="entropy",
        version=VERSIONS["entropy"],
        options={
            "of": list(kinds), "norm": norm, "varentropy": varentropy, "aggregate": sorted(aggregate_kinds),
            "group_by": group_by, "spans": plan.marks,
            "answers_of": "last" if given.answers is None else list(whose) if isinstance(whose, tuple) else whose,
            "limit": limit, "truncate": plan.truncate, "max_tokens": max_tokens, "batch_tokens": batch_tokens,
            "prompt": template.identity if given.kind != "texts" else None, "block": ENTROPY_BLOCK,
            "columns": opt.spelled(mapping or {}), "trust_remote_code": trust_remote_code is not None,
            "generated": {**plan.sampling, "stop": list(stops), "samples": samples} if given.questions else None,
        },
        inputs=(*inputs, *([] if marked is None else [Input(marked.sha256, marked.key)])),
        identities={**choice.identities, **given.identities},
        dtype=choice.dtype,
        attention=f"{choice.attention}, measured by rows" if "attention" in kinds else choice.attention,
        grows=ENTROPY_GROWS,
    )  # fmt: skip

    # produce
    measured = session.produce_cells(
        recipe, ENTROPY, plan.blocks, plan.compute, cell_columns=("text_id",), index_column=None, finish=plan.finish
    )
    products = Products(session, measured, seed, bootstrap)
    found = (
        []
        if group_by is None
        else products.groups(
            permutations=permutations, published=weights == "published", group_by=group_by, asked=groups_asked
        )
    )
    curves = products.curves()
    session.terminal.say(
        f"entropy: {measured.rows} rows of {', '.join(kinds)} by {choice.reference.name} on {given.shown_name}"
        f"{', from the store' if measured.cached else ''}"
    )
    _show(session, curves, found, varentropy, figure, table, bits)
    if judged:
        from hcl_cli.cli.entropy_confidence import fit, use

        if apply is None:
            fit(products, plan, save, html)
        else:
            use(products, plan, apply, html)

    # emit
    session.emit(measured, also=[*([] if marked is None else [marked]), *products.also])


def _show(
    session: Session,
    curves: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    varentropy: str,
    figure: Path | None,
    table: Path | None,
    bits: bool,
) -> None:
    """The tables on the terminal, and the figure and the table that were asked for."""
    from hcl_cli.cli.entropy_products import counts_of, of_view

    summary = counts_of(curves) | {"varentropy": varentropy}
    layers = of_view(curves, "layers")
    if not session.quiet:
        from hcl_cli.report.entropy_terminal import entropy_report

        for renderable in entropy_report(layers, groups, summary, bits):
            session.terminal.show(renderable)
    if table is not None:
        if groups:
            from hcl_cli.report.entropy_tables import write_group_table

            write_group_table(groups, table, summary, bits)
        else:
            from hcl_cli.report.entropy_curve_tables import write_curve_table

            write_curve_table(layers, table, bits)
        session.terminal.say(f"entropy: table in {table}")
    if figure is not None:
        from hcl_cli.report.entropy_plots import write_entropy_figure

        write_entropy_figure(figure, layers, of_view(curves, "steps"), of_view(curves, "heads"), groups, bits)
        session.terminal.say(f"entropy: figure in {figure}")
