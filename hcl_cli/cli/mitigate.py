"""`hcl mitigate`: does training the blocks that make things up help, and is it their training that helps?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import entropy_options
from hcl_cli.cli import options as opt
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import input_paths, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import RETAINED, SCORED
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

VARIANTS = ("chosen", "random-layers", "all-layers", "cross-entropy")
JUDGES = ("alias", "exact", "contains", "published")
DEFAULT_BATCH_TOKENS = 1 << 12  # stages.contrastive_training.BATCH_TOKENS

TRAINING_PANEL, TEST_PANEL = "Training", "Held-out questions"

BlocksOpt = Annotated[
    str,
    typer.Option("--blocks", metavar="BLOCKS", help="eavss (highest contrast), or blocks to train: 7,8,9 or 7-9."),
]
FractionOpt = Annotated[
    float,
    typer.Option(
        "--fraction", metavar="F",
        callback=opt.bounded("--fraction", 0, 1, low_open=True, hint="expected 0 < F <= 1, e.g. 0.25"),
        help="Share of the blocks that eavss chooses.",
    ),
]  # fmt: skip
VariantsOpt = Annotated[
    str,
    typer.Option(
        "--variants", metavar="NAMES",
        help="What is trained: chosen, and to compare with it random-layers, all-layers, cross-entropy.",
    ),
]  # fmt: skip
RandomSeedsOpt = Annotated[
    int,
    typer.Option(
        "--random-seeds", metavar="N", callback=opt.natural("--random-seeds", 1, 1000, "expected 1 to 1000"),
        help="Draws of random-layers, each trained; leads are over the first.",
    ),
]  # fmt: skip
EpochsOpt = Annotated[
    int,
    typer.Option("--epochs", metavar="N", callback=opt.natural("--epochs", 1, 10**6, "expected 1 to 1000000"),
                 help="At most so many.", rich_help_panel=TRAINING_PANEL),
]  # fmt: skip
PatienceOpt = Annotated[
    int,
    typer.Option("--patience", metavar="N", callback=opt.natural("--patience", 1, 10**6, "expected 1 to 1000000"),
                 help="Epochs without a lower validation loss that end training.", rich_help_panel=TRAINING_PANEL),
]  # fmt: skip
LearningRateOpt = Annotated[
    float,
    typer.Option(
        "--learning-rate", metavar="RATE",
        callback=opt.bounded("--learning-rate", 0, 1e3, low_open=True, hint="expected above 0, e.g. 0.002"),
        help="Of AdamW.", rich_help_panel=TRAINING_PANEL,
    ),
]  # fmt: skip
RankOpt = Annotated[
    int,
    typer.Option("--rank", metavar="R", callback=opt.natural("--rank", 1, 2**14, "expected 1 to 16384"),
                 help="Of the LoRA adapters.", rich_help_panel=TRAINING_PANEL),
]  # fmt: skip
AlphaOpt = Annotated[
    int,
    typer.Option("--alpha", metavar="A", callback=opt.natural("--alpha", 1, 2**20, "expected 1 to 1048576"),
                 help="LoRA's scale: alpha / rank.", rich_help_panel=TRAINING_PANEL),
]  # fmt: skip
TauOpt = Annotated[
    float,
    typer.Option(
        "--tau", metavar="T", callback=opt.bounded("--tau", 0, 1e3, low_open=True, hint="expected above 0, e.g. 0.1"),
        help="Temperature of InfoNCE.", rich_help_panel=TRAINING_PANEL,
    ),
]  # fmt: skip
LikelihoodWeightOpt = Annotated[
    float,
    typer.Option(
        "--ce-weight", metavar="W", callback=opt.bounded("--ce-weight", 0, 1e6, hint="expected 0 or more"),
        help="Of the cross-entropy of factual answers beside InfoNCE (lambda).", rich_help_panel=TRAINING_PANEL,
    ),
]  # fmt: skip
MostAnswersOpt = Annotated[
    int,
    typer.Option(
        "--most-answers", metavar="N", callback=opt.natural("--most-answers", 2, 10**6, "expected 2 to 1000000"),
        help="Answers of a kind per question and epoch.", rich_help_panel=TRAINING_PANEL,
    ),
]  # fmt: skip
SamplesOpt = Annotated[
    int,
    typer.Option("--samples", "-n", metavar="N",
                 callback=opt.natural("--samples/-n", 1, 2**31 - 1, "expected 1 to 2147483647 samples, e.g. -n 20"),
                 help="Answers per held-out question, of each model.", rich_help_panel=TEST_PANEL),
]  # fmt: skip
TemperatureOpt = Annotated[
    float,
    typer.Option(
        "--temperature", metavar="T",
        callback=opt.bounded("--temperature", 0, 100, hint="expected 0 (greedy) to 100, e.g. 0.6"),
        help="Of these answers.", rich_help_panel=TEST_PANEL,
    ),
]  # fmt: skip
JudgeOpt = Annotated[
    str, typer.Option("--judge", help="alias, exact, contains or published.", rich_help_panel=TEST_PANEL)
]
ExportOpt = Annotated[
    Path | None,
    typer.Option("--export", metavar="DIR", show_default=False,
                 help="Write the chosen blocks' adapter (DIR/adapter) and the merged model (DIR/merged)."),
]  # fmt: skip
BatchTokensOpt = Annotated[
    int,
    typer.Option("--batch-tokens", metavar="N", callback=opt.natural("--batch-tokens", 1, 2**40, "expected 1 or more"),
                 help="Token budget of one forward pass in training.", rich_help_panel=opt.RUN_PANEL),
]  # fmt: skip


def mitigate(
    scored: opt.ArtifactArg = None,
    model: entropy_options.ModelOpt = None,
    blocks: BlocksOpt = "eavss",
    fraction: FractionOpt = 0.25,
    variants: VariantsOpt = "chosen,random-layers,all-layers",
    random_seeds: RandomSeedsOpt = 1,
    answers_of: entropy_options.AnswersOfOpt = "all",
    prompt: entropy_options.PromptOpt = None,
    epochs: EpochsOpt = 6,
    patience: PatienceOpt = 2,
    learning_rate: LearningRateOpt = 2e-3,
    rank: RankOpt = 8,
    alpha: AlphaOpt = 16,
    tau: TauOpt = 0.1,
    ce_weight: LikelihoodWeightOpt = 1.0,
    most_answers: MostAnswersOpt = 4,
    samples: SamplesOpt = 20,
    temperature: TemperatureOpt = 0.6,
    judge: JudgeOpt = "alias",
    bootstrap: opt.BootstrapOpt = 2000,
    table: opt.TableOpt = None,
    export: ExportOpt = None,
    batch_tokens: BatchTokensOpt = DEFAULT_BATCH_TOKENS,
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
    """Train hallucination-prone blocks contrastively, and compare with training others.

    The method is a working definition of this project, not a paper's.

    Example: hcl sample -n 20 | hcl score | hcl mitigate --export tuned
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.artifacts.store import read_source
    from hcl_cli.cli.answers import named_model, named_prompt
    from hcl_cli.cli.mitigate_plan import Plan, check_sampled_by
    from hcl_cli.data.prompts import open_prompt

    session = Session("mitigate", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    names = parse_variants(variants)
    whose = entropy_options.parse_answers_of(answers_of)
    opt.one_of("--judge", judge, JUDGES)
    check_export("--table", table, (".md", ".csv", ".tex"))

    # read
    path = input_paths([scored] if scored is not None else [], "hcl mitigate")[0]
    refuse_losing({"-o": output, "--table": table}, path, prompt)
    source = read_source(path, SCORED)
    model = model or named_model(source)
    check_model_options(model, attention, trust_remote_code)
    memo = None if no_cache else store / "identities.json"
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    reference = choice.reference
    check_sampled_by(source, reference.name)
    template = open_prompt(named_prompt(source, prompt, store, session.terminal))
    given = None
    if blocks != "eavss":
        given = opt.parse_exit_layers(blocks, reference.n_layers, reference.name, option="--blocks")

    # recipe
    options = {
        "blocks": "eavss" if given is None else list(given), "fraction": fraction if given is None else None,
        "variants": list(names), "random_seeds": random_seeds if "random-layers" in names else None,
        "answers_of": list(whose) if isinstance(whose, tuple) else whose, "prompt": template.identity,
        "epochs": epochs, "patience": patience, "learning_rate": learning_rate, "rank": rank, "alpha": alpha,
        "tau": tau, "ce_weight": ce_weight, "most_answers": most_answers, "samples": samples,
        "temperature": temperature, "judge": judge, "bootstrap": bootstrap, "seed": seed,
        "batch_tokens": batch_tokens, "trust_remote_code": trust_remote_code is not None,
    }  # fmt: skip
    recipe = Recipe(
        table=RETAINED.name,
        stage="mitigate",
        version=VERSIONS["mitigate"],
        options=options,
        inputs=(Input(source.sha256, source.key),),
        identities={**choice.identities, **({} if source.is_ours else {"data_name": source.path.name})},
        dtype=choice.dtype,
        attention=choice.attention,
    )
    plan = Plan(session, source, choice, template, given, names, options)
    wanted = None if export is None else plan.export_target(export, recipe.key)

    # produce
    def compute() -> "pl.DataFrame":
        return plan.retained()

    artifact = session.produce(recipe, RETAINED, compute)
    if wanted is not None:
        plan.export(wanted, recipe.key)

    # emit
    session.terminal.say(
        f"mitigate: {artifact.rows} comparisons of {reference.name} before and after training"
        f"{', from the store' if artifact.cached else ''}; loss and choice of blocks are working definitions of this "
        "project"
    )
    rows = artifact.rows_as_dicts()
    if not quiet:
        from hcl_cli.report.mitigate_terminal import mitigate_report

        for renderable in mitigate_report(rows):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.mitigate_tables import write_mitigate_table

        write_mitigate_table(rows, table)
        session.terminal.say(f"mitigate: table in {table}")
    session.emit(artifact)


def parse_variants(text: str) -> tuple[str, ...]:
    """`chosen,random-layers` as names; `chosen` is always among them.

    Raises:
        BadOption
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise BadOption(f"--variants {text}: {unknown[0]!r} is none; expected one or more of {', '.join(VARIANTS)}")
    if len(set(names)) != len(names):
        raise BadOption(f"--variants {text}: a variant is named twice; name each once")
    if VARIANTS[0] not in names:
        raise BadOption(f"--variants {text}: expected chosen among them, which the others are compared with")
    return tuple(name for name in VARIANTS if name in names)
