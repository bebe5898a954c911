"""`hcl dola`: decoding by contrasting layers."""

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hcl_cli.cli import dola_options as own
from hcl_cli.cli import options as opt
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import optional_input, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import DOLA

if TYPE_CHECKING:
    from hcl_cli.artifacts.store import Block

DEFAULT_BATCH_TOKENS = 1 << 20  # models.decode.DEFAULT_BATCH_TOKENS, which would import torch


def dola(
    questions: own.InputArg = None,
    model: opt.ModelOpt = "lab",
    dataset: opt.DatasetOpt = None,
    columns: opt.ColumnsOpt = "",
    methods: own.MethodsOpt = "vanilla,dola-low,dola-high",
    baseline: own.BaselineOpt = "vanilla",
    divergence: own.DivergenceOpt = "jsd",
    norm: own.NormOpt = True,
    alpha: own.AlphaOpt = 0.1,
    penalty: own.PenaltyOpt = 1.2,
    penalty_on: own.PenaltyOnOpt = "contrasted",
    prompt: own.PromptOpt = "plain",
    n_shots: own.ShotsOpt = None,
    metrics: own.MetricsOpt = "f1,exact",
    encoder: own.EncoderOpt = None,
    choices: own.ChoicesOpt = False,
    factor: own.FactorOpt = None,
    published_choices: own.PublishedChoicesOpt = False,
    bootstrap: opt.BootstrapOpt = 2000,
    figure: opt.FigureOpt = None,
    table: opt.TableOpt = None,
    published_table: own.PublishedTableOpt = None,
    samples: own.SamplesOpt = 1,
    limit: opt.LimitOpt = None,
    temperature: opt.TemperatureOpt = 0.0,
    top_p: opt.TopPOpt = 1.0,
    top_k: opt.TopKOpt = 0,
    max_new_tokens: opt.MaxNewTokensOpt = 50,
    stop: opt.StopOpt = None,
    clean: opt.CleanOpt = "plain",
    batch_tokens: opt.BatchTokensOpt = DEFAULT_BATCH_TOKENS,
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
    """Answer questions by contrasting the last layer with an earlier one.

    With --metrics none and --choices or --factor nothing is decoded, and the path is that of the comparison.

    Example: hcl dola -m gpt2 -d truthfulqa --prompt truthfulqa --methods vanilla,dola-high | hcl score
    """
    from hcl_cli.cli.dola_choices import ChoicePlan
    from hcl_cli.cli.dola_plan import AnswerPlan, check_views, parse_columns_of_dola
    from hcl_cli.cli.dola_products import Products
    from hcl_cli.data.completions import open_choices, open_completions
    from hcl_cli.data.questions import open_questions
    from hcl_cli.data.truthfulqa_prompt import open_shots
    from hcl_cli.models.contrast_methods import Method, parse_methods, tied_in_config
    from hcl_cli.stages.text_scores import parse_metrics

    session = Session("dola", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    opt.one_of("--clean", clean, ("plain", "published"))
    check_model_options(model, attention, trust_remote_code)
    stops = opt.parse_stops(["\\n"] if stop is None else stop)
    if published_choices and not choices and factor is None:
        raise BadOption("--published-choices: says how multiple choice is scored; add --choices or --factor")
    check_export("--figure", figure, (".png", ".svg", ".pdf"))
    if figure is not None and find_spec("matplotlib") is None:
        raise BadOption(f"--figure {figure}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    check_export("--table", table, (".md", ".csv", ".tex"))
    check_export("--published-table", published_table, (".md", ".csv", ".tex"))
    wanted = None if metrics == "none" else parse_metrics(metrics)
    scored = choices or factor is not None
    check_views(table, published_table, wanted is not None or scored)
    has_bertscore = wanted is not None and "bertscore" in wanted.own
    if encoder is not None and not has_bertscore:
        raise BadOption(f"--encoder {encoder}: reads texts for BERTScore alone; add --metrics bertscore")
    defaults = Method("", divergence=divergence, norm=norm, alpha=alpha, penalty=penalty, penalty_on=penalty_on)

    # read
    memo = None if no_cache else store / "identities.json"
    named_columns = parse_columns_of_dola(columns, factor=factor is not None)
    path = optional_input(questions, dataset, "hcl dola")
    data = str(path) if path is not None else dataset or "lab"
    written = {"-o": output, "--table": table, "--published-table": published_table, "--figure": figure}
    refuse_losing(written, data, factor, prompt, *(() if wanted is None else wanted.foreign))
    source = open_questions(data, columns=named_columns.questions, memo=memo, warn=session.terminal.warn)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    reference = choice.reference
    named = parse_methods(methods, reference.n_layers, tied=tied_in_config(reference.folder), defaults=defaults)
    base = own.baseline_of(baseline, [method.name for method in named])
    template = open_shots(prompt, n_shots)
    given: list[ChoicePlan] = []
    if choices:
        asked = open_choices(data, columns=named_columns.choices, memo=memo, warn=session.terminal.warn)
        given.append(
            ChoicePlan(
                session, choice, asked, "mc", named, defaults, limit, published_choices, named_columns.choices, template
            )
        )
    if factor is not None:
        continued = open_completions(factor, columns=named_columns.completions, memo=memo, warn=session.terminal.warn)
        given += [
            ChoicePlan(
                session, choice, continued, "factor", named, defaults, limit, published_choices,
                named_columns.completions, tidy=tidy,
            )
            for tidy in (False, True)
        ]  # fmt: skip
    products = Products(session, source, named_columns.references, choice, named, None, seed, bootstrap, base)
    if has_bertscore:
        from hcl_cli.models.encoders import find_encoder
        from hcl_cli.models.identity import remembered_sha256

        products.encoder = find_encoder(
            encoder, sha256=lambda file: remembered_sha256(file, memo), needed_by="--metrics bertscore",
            option="--encoder",
        )  # fmt: skip

    if wanted is not None or not scored:
        # recipe
        n_questions = source.n_questions if limit is None else min(limit, source.n_questions)
        plan = AnswerPlan(
            source, choice, named, template, n_questions, samples, named_columns.questions,
            {
                "divergence": divergence, "norm": norm, "alpha": alpha, "penalty": penalty, "penalty_on": penalty_on,
                "temperature": temperature, "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens,
                "stop": list(stops), "clean": clean, "seed": seed, "batch_tokens": batch_tokens,
                "trust_remote_code": trust_remote_code is not None,
            },
        )  # fmt: skip

        # produce
        def blocks() -> "list[Block]":
            # A miss: what cannot work is refused before anything is decoded, which may take hours.
            if wanted is not None:
                products.check(wanted, n_questions)
            for one in given:
                one.check()
            return plan.blocks()

        artifact = session.produce_cells(
            plan.recipe(), DOLA, blocks, plan.compute, cell_columns=("question_id", "method"),
            index_column="sample_index",
        )  # fmt: skip
        products.answers = artifact
        session.terminal.say(
            f"dola: {artifact.rows} answers of {reference.name} on {source.name} ({n_questions} questions x "
            f"{len(named)} methods x {samples} samples){', from the store' if artifact.cached else ''}"
        )

    # emit
    rows = [] if wanted is None else products.text(wanted)
    for one in given:
        rows += products.compared(one)
    settings = [asdict(method) for method in named]
    if not quiet:
        from hcl_cli.report.dola_terminal import dola_report

        for renderable in dola_report(rows, settings=settings):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.dola_tables import write_dola_table

        write_dola_table(rows, table, settings)
        session.terminal.say(f"dola: table in {table}")
    if published_table is not None:
        from hcl_cli.report.dola_published import write_published_dola

        write_published_dola(rows, published_table)
        session.terminal.say(f"dola: beside the published numbers in {published_table}")
    if figure is not None:
        from hcl_cli.report.dola_plots import write_dola_figure

        write_dola_figure(figure, products.histogram(), rows, settings)
        session.terminal.say(f"dola: figure in {figure}")
    main = products.answers or products.main
    assert main is not None
    session.emit(main, also=products.also)
