"""`hcl score`: which responses are right, and which mean the same."""

import shlex
from typing import TYPE_CHECKING

import typer

from hcl_cli.cli import options as opt
from hcl_cli.cli import score_clusters as by
from hcl_cli.cli import score_llm as own
from hcl_cli.cli import score_people as against
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import input_paths, refuse_losing
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.schemas import RESPONSES, SCORED
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.sources import Source

LLM = "llm"
JUDGES = ("alias", "exact", "contains", "published", by.NLI, LLM)


def score(
    context: typer.Context,
    responses: opt.ArtifactArg = None,
    judge: opt.JudgeOpt = "alias",
    cluster: by.ClusterOpt = "cosine",
    cluster_rule: by.RuleOpt = "greedy",
    threshold: opt.ThresholdOpt = 0.8,
    numbers_must_agree: by.NumbersOpt = False,
    embedder: opt.EmbedderOpt = None,
    nli_model: by.NliModelOpt = None,
    nli_question: by.NliQuestionOpt = True,
    people: against.PeopleOpt = None,
    people_table: against.PeopleTableOpt = None,
    llm_url: own.LlmUrlOpt = None,
    llm_model: own.LlmModelOpt = None,
    llm_prompt: own.LlmPromptOpt = "published",
    llm_references: own.LlmReferencesOpt = None,
    llm_concurrency: own.LlmConcurrencyOpt = 4,
    llm_timeout: own.LlmTimeoutOpt = 60.0,
    llm_max_tokens: own.LlmMaxTokensOpt = 1024,
    llm_temperature: own.LlmTemperatureOpt = "0",
    device: opt.DeviceOpt = "auto",
    store: opt.StoreOpt = DEFAULT_STORE,
    output: opt.OutputOpt = None,
    force: opt.ForceOpt = False,
    no_cache: opt.NoCacheOpt = False,
    dry_run: opt.DryRunOpt = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Judge responses and cluster the right ones by meaning.

    Example: hcl sample | hcl score --judge alias,exact

    Example: hcl dola -d truthfulqa | hcl score --judge llm --llm-prompt truth,info --llm-references truthfulqa
    --llm-url http://127.0.0.1:8000/v1 --llm-model NAME
    """
    from hcl_cli.artifacts.recipe import Input, Recipe
    from hcl_cli.artifacts.store import read_source

    session = Session("score", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    memo = None if no_cache else store / "identities.json"
    named = _judges(judge)
    llm = None
    if LLM in named:
        llm = own.llm_judges(
            session, llm_url, llm_model, llm_prompt, references=llm_references, memo=memo,
            concurrency=llm_concurrency, timeout=llm_timeout, max_tokens=llm_max_tokens, temperature=llm_temperature,
        )  # fmt: skip
    else:
        own.refuse_llm_options(context, judge)
    judges = tuple(one for name in named for one in (llm.names if llm is not None and name == LLM else (name,)))
    if llm is not None:
        own.refuse_first(judges, llm.prompts)
    clusterings = by.parse_clusterings(cluster, cluster_rule, numbers_must_agree)

    # read
    check_export("--people-table", people_table, (".md", ".csv", ".tex"))
    source: Source | against.People
    if people is not None:
        source = against.open_input(session, people, responses, memo)
        refuse_losing({"-o": output, "--people-table": people_table}, *llm_prompt.split(","), llm_references)
    else:
        path = input_paths([responses] if responses is not None else [], "hcl score")[0]
        refuse_losing({"-o": output, "--people-table": people_table}, path, *llm_prompt.split(","), llm_references)
        source = read_source(path, RESPONSES)
        if people_table is not None and against.HUMAN not in source.columns:
            raise BadOption(f"--people-table {people_table}: {path} has no column human (people's verdict); add it")
    clusterers = by.clusterers(
        context, session, judges, clusterings, threshold=threshold, rule=cluster_rule, numbers=numbers_must_agree,
        embedder=embedder, nli_model=nli_model, with_question=nli_question, device=device, memo=memo,
    )  # fmt: skip

    # recipe
    recipe = Recipe(
        table=SCORED.name,
        stage="score",
        version=VERSIONS["score"],
        options={
            "judge": list(judges), **clusterers.options(), **({} if llm is None else llm.options()),
        },
        inputs=() if isinstance(source, against.People) else (Input(source.sha256, source.key),),
        identities={
            **({} if not isinstance(source, against.People) else source.identities),
            **clusterers.identities(), **({} if llm is None else llm.identities()),
        },
    )  # fmt: skip

    # produce
    def compute() -> "pl.DataFrame":
        import polars as pl

        from hcl_cli.stages.score import scored

        rows = source.frame().collect()
        rows = against.checked(rows, source)
        given = [clusterers.verdicts(rows, source), None if llm is None else llm.verdicts(rows, source)]
        known = [frame for frame in given if frame is not None]
        with (
            session.terminal.progress("score", "distinct strings") as embedded,
            session.terminal.progress("score", "groups clustered by entailment") as entailed,
        ):
            try:
                table = scored(
                    rows, judges=judges, clusterings=clusterers.made(embedded, entailed),
                    given=pl.concat(known, how="horizontal") if known else None,
                )  # fmt: skip
            except BadInput as error:
                raise BadInput(f"{source.path}: {error}") from error
        clusterers.say_cut()
        return table

    if dry_run and llm is not None and session.store.find(recipe, SCORED) is None:
        llm.estimated(source)
    artifact = session.produce(recipe, SCORED, compute)

    # emit
    ungradable = _ungradable(artifact)
    origin = ", from the store" if artifact.cached else ""
    without = (
        "without a verdict"
        if llm is not None and judges[0] in llm.names
        else "without an accepted answer could not be graded"
    )
    session.terminal.say(
        f"score: {artifact.rows} responses judged by {judges[0]}, clusters by {', '.join(clusterers.labels)}{origin}; "
        f"{ungradable} {without}"
    )
    rows, also = ([], []) if llm is None else llm.summary(artifact)
    if llm is not None:
        llm.say_statuses(artifact)
    if rows and not quiet:
        from hcl_cli.report.judged_terminal import judged_report

        for renderable in judged_report(rows):
            session.terminal.show(renderable)
    if len(judges) > 1 or len(clusterings) > 1:
        from hcl_cli.cli.score_agreement import agreement

        pairs, kept = agreement(session, artifact)
        also = [*also, *kept]
        if not quiet:
            from hcl_cli.report.agreement_terminal import agreement_report, where_they_differ

            for renderable in agreement_report(pairs):
                session.terminal.show(renderable)
            if where := where_they_differ(pairs):
                session.terminal.say(f'where they differ: hcl cat {shlex.quote(str(artifact.path))} --where "{where}"')
    if people is not None or against.HUMAN in getattr(source, "columns", ()):
        judged, kept = against.calibrated(session, artifact)
        also = [*also, *kept]
        against.show(session, judged, people_table)
    session.emit(artifact, also=also)


def _judges(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in JUDGES]
    if unknown:
        raise BadOption(f"--judge {text}: {unknown[0]!r} is not a judge; expected one or more of {', '.join(JUDGES)}")
    if len(set(names)) != len(names):
        raise BadOption(f"--judge {text}: a judge is named twice; name each once")
    return names


def _ungradable(artifact: "Artifact") -> int:
    """How many responses have no verdict; read without Polars, since a hit says it too."""
    from hcl_cli.artifacts.parquet import open_parquet

    with open_parquet(artifact.path) as reader:
        return int(reader.read(columns=["correct"], use_threads=False)["correct"].null_count)
