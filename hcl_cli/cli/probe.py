"""`hcl probe`: does a hidden state know that a statement is false?"""

from importlib.util import find_spec

from hcl_cli.cli import entropy_options
from hcl_cli.cli import options as opt
from hcl_cli.cli import probe_options as own
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import optional_input, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import HIDDEN
from hcl_cli.stages.versions import PROBE_BLOCK, PROBE_GROWS, VERSIONS

DEFAULT_DATA = "lab-statements:unjudged"
DEFAULT_BATCH_TOKENS = 1 << 11
SHOTS = (3, 5)  # stages.baselines.SHOTS, which would import numpy


def probe(
    source: own.InputArg = None,
    model: entropy_options.ModelOpt = None,
    dataset: own.DatasetOpt = None,
    columns: opt.ColumnsOpt = "",
    limit: own.LimitOpt = None,
    answers_of: entropy_options.AnswersOfOpt = "last",
    layers: own.LayersOpt = "all",
    token: own.TokenOpt = "last",
    prompt: own.StatementPromptOpt = None,
    state_dtype: own.StateDtypeOpt = "float32",
    classifier: own.ClassifierOpt = "mlp",
    preset: own.PresetOpt = "saplma",
    hidden: own.HiddenOpt = "256,128,64",
    epochs: own.EpochsOpt = 5,
    c: own.CRateOpt = 1.0,
    split: own.SplitOpt = None,
    folds: own.FoldsOpt = 5,
    seeds: own.SeedsOpt = 10,
    temperature_scaling: own.TemperatureScalingOpt = False,
    control: own.ControlOpt = True,
    baselines: own.BaselinesOpt = True,
    bootstrap: opt.BootstrapOpt = 2000,
    figure: opt.FigureOpt = None,
    table: opt.TableOpt = None,
    published_table: own.PublishedTableOpt = None,
    save: own.SaveOpt = None,
    apply: own.ApplyOpt = None,
    batch_tokens: own.BatchTokensOpt = DEFAULT_BATCH_TOKENS,
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
    """Train truthfulness probes on the hidden states of every layer.

    Example: hcl probe -m gpt2 -d true_false:published --classifier mlp,logistic --figure probe.svg
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.cli.answers import named_model
    from hcl_cli.cli.probe_plan import Plan, open_probe_prompt, read_answers
    from hcl_cli.cli.probe_products import Products, hidden_states, kept_probes
    from hcl_cli.data.questions import parse_columns
    from hcl_cli.data.statements import COLUMNS, open_statements

    session = Session("probe", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    classifiers = own.parse_classifiers(classifier)
    widths = own.parse_widths(hidden)
    whose = entropy_options.parse_answers_of(answers_of)
    opt.one_of("--token", token, own.TOKENS)
    opt.one_of("--preset", preset, own.PRESETS)
    opt.one_of("--state-dtype", state_dtype, own.STATE_DTYPES)
    if split is not None:
        opt.one_of("--split", split, own.SPLITS)
    if save is not None and apply is not None:
        raise BadOption(f"--save {save} and --apply {apply}: one keeps probes, the other uses kept ones; drop one")
    if save is not None and save.exists() and not save.is_dir():
        raise BadOption(f"--save {save}: is a file; expected a folder, which is made if need be")
    check_export("--figure", figure, (".png", ".svg", ".pdf"))
    if figure is not None and find_spec("matplotlib") is None:
        raise BadOption(f"--figure {figure}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    check_export("--table", table, (".md", ".csv", ".tex"))
    check_export("--published-table", published_table, (".md", ".csv", ".tex"))
    shown_only = {"--figure": figure, "--table": table, "--published-table": published_table}
    if apply is not None and (useless := [option for option, target in shown_only.items() if target is not None]):
        raise BadOption(f"{useless[0]}: shows how probes do on labelled data, --apply {apply} only uses them; drop one")

    # read
    memo = None if no_cache else store / "identities.json"
    mapping = parse_columns(columns, COLUMNS) if columns else None
    path = optional_input(source, dataset, "hcl probe")
    written = {"-o": output, "--table": table, "--published-table": published_table, "--figure": figure}
    refuse_losing(written, path, dataset, prompt)
    answers = None if path is None else read_answers(path, labelled=apply is None)
    if answers is not None and mapping:
        raise BadOption("--columns: answers are read under their own names; rename the file's columns instead")
    statements = None
    if answers is None:
        name = str(path) if path is not None else dataset or DEFAULT_DATA
        if split == "published" and name == "true_false":
            name = "true_false:published"  # the statements of the published topics, under their published names
        statements = open_statements(
            name, columns=mapping, labelled=apply is None, memo=memo, warn=session.terminal.warn
        )
    model = model or named_model(answers)
    check_model_options(model, attention, trust_remote_code)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    reference = choice.reference
    asked = open_probe_prompt(prompt, answers, store, session.terminal)
    wanted = opt.parse_exit_layers(layers, reference.n_layers, reference.name, option="--layers", least=0)
    kept = None
    if apply is not None:
        kept, digests = kept_probes(apply, choice, token, asked.identity)
        wanted = tuple(sorted({layer.exit_layer for layer in kept.layers}))
    plan = Plan(
        statements, answers, choice, asked, layers=wanted, token=token, state_dtype=state_dtype,
        batch_tokens=batch_tokens, limit=limit, answers_of=whose, labelled=apply is None, terminal=session.terminal,
    )  # fmt: skip

    # recipe
    inputs = () if answers is None else (Input(answers.sha256, answers.key),)
    identities = {**choice.identities, **plan.identities}
    recipe = Recipe(
        table=HIDDEN.name,
        stage="probe",
        version=VERSIONS["probe"],
        options={
            "layers": list(wanted), "limit": limit, "answers_of": list(whose) if isinstance(whose, tuple) else whose,
            "token": token, "prompt": asked.identity, "state_dtype": state_dtype, "batch_tokens": batch_tokens,
            "block": PROBE_BLOCK, "columns": opt.spelled(mapping or {}), "labelled": plan.labelled,
            "trust_remote_code": trust_remote_code is not None,
        },
        inputs=inputs,
        identities=identities,
        dtype=choice.dtype,
        attention=choice.attention,
        grows=PROBE_GROWS,
    )  # fmt: skip
    settings = {
        "classifiers": list(classifiers), "preset": preset, "hidden": list(widths), "epochs": epochs, "c": c,
        "split": split, "folds": folds, "seeds": seeds, "seed": seed, "control": control,
        "temperature_scaling": temperature_scaling, "baselines": baselines, "shots": list(SHOTS) if baselines else [],
        "bootstrap": bootstrap,
    }  # fmt: skip

    # produce
    states = hidden_states(session, plan, recipe, settings if kept is None else None)
    if kept is not None:
        scores = Products(session, plan, states, inputs, identities, {}).apply(kept, digests)
        session.terminal.say(f"probe: {scores.rows} probabilities of {plan.name} by the probes in {apply}")
        session.emit(scores, also=[] if states is None else [states])
        return
    products = Products(session, plan, states, inputs, identities, settings)
    main = products.main()
    summary, reliability = products.rows("summary"), products.rows("reliability")
    products.rows("scores")
    if save is not None:
        products.save(save)

    # emit
    session.terminal.say(
        f"probe: {main.rows} probes and baselines of {reference.name} on {plan.name}"
        f"{', from the store' if main.cached else ''}"
    )
    probes = main.rows_as_dicts()
    if not quiet:
        from hcl_cli.report.probe_terminal import probe_report

        of_answers = ["Statements are answers here: true ones are correct, and groups of repeats are questions."]
        for renderable in probe_report(summary, probes, of_answers if answers is not None else []):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.probe_tables import write_probe_table

        write_probe_table(summary, probes, table)
        session.terminal.say(f"probe: table in {table}")
    if published_table is not None:
        from hcl_cli.report.probe_published import write_published_table

        write_published_table(probes, published_table)
        session.terminal.say(f"probe: beside the published numbers in {published_table}")
    if figure is not None:
        from hcl_cli.report.probe_plots import write_probe_figure

        write_probe_figure(figure, summary, reliability)
        session.terminal.say(f"probe: figure in {figure}")
    session.emit(main, also=[*([] if states is None else [states]), *products.also])
