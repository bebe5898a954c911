"""`hcl prune`: which blocks matter, which make things up, and what happens without them."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from hcl_cli.cli import entropy_options
from hcl_cli.cli import options as opt
from hcl_cli.cli import prune_options as own
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import optional_input, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import BLOCKS
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

DEFAULT_BATCH_TOKENS = 1 << 11
LAB_MODELS = ("lab", "lab-base")


def prune(
    source: own.InputArg = None,
    model: entropy_options.ModelOpt = None,
    dataset: own.DatasetOpt = None,
    columns: opt.ColumnsOpt = "",
    limit: own.LimitOpt = None,
    max_tokens: own.MaxTokensOpt = 512,
    answers_of: entropy_options.AnswersOfOpt = "last",
    prompt: entropy_options.PromptOpt = None,
    criterion: own.CriterionOpt = None,
    activations: own.ActivationsOpt = "residual",
    epsilon: own.EpsilonOpt = "0.01rms",
    random_seeds: own.RandomSeedsOpt = 5,
    damage: own.DamageOpt = True,
    permutations: own.PermutationsOpt = 2000,
    fraction: own.FractionOpt = None,
    n: own.CountOpt = None,
    rule: own.RuleOpt = "lowest",
    protect: own.ProtectOpt = "",
    search: own.SearchOpt = "none",
    remove: own.RemoveOpt = None,
    keep_first: own.KeepFirstOpt = None,
    export: own.ExportOpt = None,
    export_criterion: own.ExportCriterionOpt = None,
    metrics: own.MetricsOpt = None,
    sweep: own.SweepOpt = None,
    bootstrap: opt.BootstrapOpt = 2000,
    figure: opt.FigureOpt = None,
    activations_figure: own.ActivationsFigureOpt = None,
    quality_figure: own.QualityFigureOpt = None,
    table: opt.TableOpt = None,
    retained_table: own.RetainedTableOpt = None,
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
    """Rank the blocks of a model, remove some, and measure what is kept.

    Example: hcl sample | hcl score | hcl prune --criterion eavss,avss --n 2 --export pruned
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.cli.answers import named_model, named_prompt
    from hcl_cli.cli.entropy_inputs import read_given
    from hcl_cli.cli.prune_plan import Plan
    from hcl_cli.cli.prune_products import Products
    from hcl_cli.cli.quality import Settings, open_metrics
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.data.questions import parse_columns
    from hcl_cli.stages.block_selection import selection_of
    from hcl_cli.stages.quality import default_metrics, parse_metrics
    from hcl_cli.stages.removed import GREEDY, removed_by

    session = Session("prune", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    kinds = own.parse_activations(activations)
    opt.one_of("--rule", rule, own.RULES)
    opt.one_of("--search", search, own.SEARCHES)
    whose = entropy_options.parse_answers_of(answers_of)
    figures = {"--figure": figure, "--activations-figure": activations_figure, "--quality-figure": quality_figure}
    tables = {"--table": table, "--retained-table": retained_table}
    for option, target in figures.items():
        check_export(option, target, (".png", ".svg", ".pdf"))
        if target is not None and find_spec("matplotlib") is None:
            raise BadOption(f"{option} {target}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    for option, target in tables.items():
        check_export(option, target, (".md", ".csv", ".tex"))
    if metrics == "none" and (sweep or quality_figure or retained_table):
        raise BadOption(
            "--metrics none: measures no quality, so --sweep, --quality-figure and --retained-table are empty"
        )
    if export_criterion is not None and export is None:
        raise BadOption(f"--export-criterion {export_criterion}: says what --export writes; add --export DIR")

    # read
    memo = None if no_cache else store / "identities.json"
    mapping = parse_columns(columns, entropy_options.COLUMNS) if columns else None
    path = optional_input(source, dataset, "hcl prune")
    sets = [name.partition(":")[2] or None for name in (metrics or "").split(",")]
    refuse_losing({"-o": output, **figures, **tables}, path, dataset, prompt, *sets)
    if path is None and dataset is None:
        dataset = "lab" if model is None or model in LAB_MODELS else "wikitext2"
    given = read_given(path, dataset, mapping, memo, session.terminal)
    criteria = own.parse_criteria(criterion, given.graded)
    model = model or named_model(given.answers)
    check_model_options(model, attention, trust_remote_code)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    reference = choice.reference
    if fraction is not None and n is not None:
        raise BadOption(f"--fraction {fraction:g} and --n {n}: say once how much is removed")
    selection = selection_of(
        reference.n_layers, rule=rule, fraction=0.25 if fraction is None else fraction, n=n, protect=protect
    )
    if search == GREEDY:  # goes by the number of blocks, whatever the rule
        selection_of(reference.n_layers, fraction=selection.fraction, n=selection.n, protect=protect)
    by_hand = own.parse_removed(remove, keep_first, reference.n_layers, reference.name)
    if by_hand is not None and criterion is None:
        criteria = ()
    bound = own.parse_bound(epsilon)
    sizes = own.parse_sweep(sweep, reference.n_layers, len(selection.protected))
    exported = None
    if export is not None:
        from hcl_cli.models.checkpoints import check_export_folder

        check_export_folder(export)
        exported = _exported(
            export_criterion, [*criteria, *([GREEDY] if search == GREEDY else [])], by_hand, random_seeds, kinds
        )
    wanted = []
    if metrics != "none":
        names = default_metrics(reference.name) if metrics is None else parse_metrics(metrics)
        wanted = open_metrics(names, Settings(memo=memo, warn=session.terminal.warn, seed=seed))
    template = open_prompt(named_prompt(given.answers, prompt, store, session.terminal))
    plan = Plan(given, choice, template, whose, limit, max_tokens, session.terminal)

    # recipe
    recipe = Recipe(
        table=BLOCKS.name,
        stage="prune",
        version=VERSIONS["prune"],
        options={
            **plan.options, "criteria": list(criteria), "activations": list(kinds), "epsilon": epsilon,
            "random_seeds": random_seeds, "damage": damage, "permutations": permutations, "rule": rule,
            "fraction": selection.fraction, "n": selection.n, "protected": sorted(selection.protected),
            "search": search, "removed": None if by_hand is None else list(by_hand), "bootstrap": bootstrap,
            "seed": seed, "batch_tokens": batch_tokens, "columns": opt.spelled(mapping or {}),
            "trust_remote_code": trust_remote_code is not None,
        },
        inputs=() if given.answers is None else (Input(given.answers.sha256, given.answers.key),),
        identities={**choice.identities, **plan.identities},
        dtype=choice.dtype,
        attention=choice.attention,
    )  # fmt: skip

    # produce
    def compute() -> "pl.DataFrame":
        from hcl_cli.stages.prune import Scoring, block_table

        scoring = Scoring(
            criteria, selection, bound, kinds, greedy=search == GREEDY, given=by_hand, damage=damage,
            random_seeds=tuple(range(seed, seed + random_seeds)), n_resamples=bootstrap, n_permutations=permutations,
            seed=seed, batch_tokens=batch_tokens,
        )  # fmt: skip
        return block_table(
            choice.load(), plan.read, scoring, model=reference.name, dataset=plan.dataset,
            say=lambda text: session.terminal.say(f"prune: {text}"),
        )  # fmt: skip

    blocks = session.produce(recipe, BLOCKS, compute)
    rows = blocks.rows_as_dicts()
    session.terminal.say(
        f"prune: {reference.n_layers} blocks of {reference.name} by {', '.join(criteria) or 'hand'} on {plan.dataset}"
        f"{', from the store' if blocks.cached else ''}"
    )
    products = Products(
        session, choice, blocks, rows, sizes, selection.protected, seed=seed, bootstrap=bootstrap,
        permutations=permutations,
    )  # fmt: skip
    compared = products.compared()
    retained = products.retained(wanted) if wanted else []

    # emit
    if not quiet:
        from hcl_cli.report.prune_terminal import prune_report

        for renderable in prune_report(rows, compared, retained):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.prune_tables import write_prune_table

        write_prune_table(rows, compared, retained, table)
        session.terminal.say(f"prune: table in {table}")
    if retained_table is not None:
        from hcl_cli.report.retained_tables import write_retained_table

        write_retained_table(retained, retained_table, rows)
        session.terminal.say(f"prune: share of quality kept in {retained_table}")
    if figure is not None:
        from hcl_cli.report.prune_plots import write_blocks_figure

        write_blocks_figure(figure, rows)
        session.terminal.say(f"prune: figure in {figure}")
    if activations_figure is not None:
        from hcl_cli.report.prune_plots import write_activations_figure

        write_activations_figure(activations_figure, rows)
        session.terminal.say(f"prune: activations in {activations_figure}")
    if quality_figure is not None:
        from hcl_cli.report.quality_plots import write_quality_figure

        write_quality_figure(quality_figure, retained)
        session.terminal.say(f"prune: quality in {quality_figure}")
    if export is not None:
        from hcl_cli.models.checkpoints import export_checkpoint

        gone = next(found for key, found in removed_by(rows).items() if key[0] == exported)
        export_checkpoint(
            choice.load(), export, gone, provenance={"criterion": exported, "rule": rule, "hcl recipe": blocks.key}
        )
        session.terminal.say(
            f"prune: checkpoint without blocks {', '.join(map(str, gone))} in {export}, loads with from_pretrained"
        )
    session.emit(blocks, also=products.also)


def _exported(
    name: str | None, criteria: list[str], by_hand: tuple[int, ...] | None, random_seeds: int, kinds: tuple[str, ...]
) -> str:
    """The criterion whose removal is written.

    Raises:
        BadOption: none or several to choose from.
    """
    from hcl_cli.stages.removed import GIVEN

    there = [*criteria, *([GIVEN] if by_hand is not None else [])]
    if name is None and by_hand is not None:
        return GIVEN
    if name is None and len(there) == 1:
        name = there[0]
    if name is None:
        raise BadOption(
            f"--export: {len(there)} criteria remove blocks ({', '.join(there)}); name one, --export-criterion"
        )
    if name not in there:
        raise BadOption(f"--export-criterion {name}: is not measured here; expected one of {', '.join(there)}")
    if (name == "random" and random_seeds > 1) or (name in ("avss", *own.OF_ANSWERS) and len(kinds) > 1):
        raise BadOption(f"--export-criterion {name}: removes blocks in several ways; ask for one of them alone")
    return name
