"""`hcl sample`: sampled answers of every exit layer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import options as opt
from hcl_cli.cli.inputs import input_paths, refuse_losing
from hcl_cli.cli.loading import check_model_options, choose_model
from hcl_cli.cli.session import DEFAULT_STORE, Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import RESPONSES
from hcl_cli.stages.versions import SAMPLE_BLOCK_QUESTIONS, SAMPLE_GROWS, VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.store import Block

DEFAULT_BATCH_TOKENS = 1 << 20  # models.decode.DEFAULT_BATCH_TOKENS, which would import torch
DRAFT_TOKENS = 6  # models.speculative.DRAFT_TOKENS, likewise
_PLAIN_STOP = "\\n"
# As it is written down: under sdpa the engine's own attention reads each prompt where it is stored once.
_ATTENTION = {"sdpa": "sdpa, shared prompt", "eager": "eager"}


def sample(
    questions: Annotated[
        str | None,
        typer.Argument(metavar="FILE", show_default=False, help="A questions file; - reads its path from stdin."),
    ] = None,
    model: opt.ModelOpt = "lab",
    dataset: opt.DatasetOpt = None,
    columns: opt.ColumnsOpt = "",
    exit_layers: opt.ExitLayersOpt = "all",
    samples: opt.SamplesOpt = 50,
    limit: opt.LimitOpt = None,
    temperature: opt.TemperatureOpt = 0.6,
    top_p: opt.TopPOpt = 0.9,
    top_k: opt.TopKOpt = 0,
    max_new_tokens: opt.MaxNewTokensOpt = 50,
    strategy: opt.StrategyOpt = "early-exit",
    draft_tokens: opt.DraftTokensOpt = None,
    prompt: opt.PromptOpt = "plain",
    stop: opt.StopOpt = None,
    clean: opt.CleanOpt = "plain",
    long_prompts: opt.LongPromptsOpt = "refuse",
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
    """Sample answers from every exit layer in one pass.

    Example: hcl sample -m gpt2 -d triviaqa --limit 100 -n 50
    """
    from hcl_cli.artifacts.recipe import Recipe
    from hcl_cli.artifacts.store import Block
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.data.questions import open_questions, parse_columns

    session = Session("sample", store, force, no_cache, dry_run, output, as_json, quiet, verbose, device)
    opt.one_of("--strategy", strategy, opt.STRATEGIES)
    if strategy == "early-exit" and draft_tokens is not None:
        raise BadOption(f"--draft-tokens {draft_tokens}: early exit drafts nothing; add --strategy self-speculative")
    drafts = None if strategy == "early-exit" else draft_tokens or DRAFT_TOKENS
    opt.one_of("--clean", clean, ("plain", "published"))
    opt.one_of("--long-prompts", long_prompts, ("refuse", "truncate"))
    check_model_options(model, attention, trust_remote_code)
    stops = opt.parse_stops([_PLAIN_STOP] if stop is None else stop)

    # read
    memo = None if no_cache else store / "identities.json"
    mapping = parse_columns(columns) if columns else None
    source_name = _source_name(questions, dataset)
    refuse_losing({"-o": output}, source_name, prompt)
    source = open_questions(source_name, columns=mapping, memo=memo, warn=session.terminal.warn)
    choice = choose_model(
        session, model, dtype=dtype, attention=attention, device=device, trust_remote_code=trust_remote_code, memo=memo
    )
    reference = choice.reference
    layers = opt.parse_exit_layers(exit_layers, reference.n_layers, reference.name)
    template = open_prompt(prompt)
    n_questions = source.n_questions if limit is None else min(limit, source.n_questions)

    # recipe
    recipe = Recipe(
        table=RESPONSES.name,
        stage="sample",
        version=VERSIONS["sample"],
        options={
            "exit_layers": list(layers), "samples": samples, "limit": n_questions, "temperature": temperature,
            "top_p": top_p, "top_k": top_k, "max_new_tokens": max_new_tokens, "strategy": strategy,
            **({} if drafts is None else {"draft_tokens": drafts}),
            "prompt": template.identity, "stop": list(stops), "clean": clean, "long_prompts": long_prompts,
            "seed": seed, "batch_tokens": batch_tokens, "columns": opt.spelled(mapping or {}),
            "block_questions": SAMPLE_BLOCK_QUESTIONS,
            "trust_remote_code": trust_remote_code is not None,
        },
        identities={
            **choice.identities, "data": source.identity, "data_name": source.name,
        },
        dtype=choice.dtype,
        attention=_ATTENTION[choice.attention] if drafts is None else choice.attention,
        grows=SAMPLE_GROWS,
    )  # fmt: skip

    # produce
    def blocks() -> "list[Block]":
        ids = source.load()["question_id"].head(n_questions).to_list()
        return [
            Block(
                start // SAMPLE_BLOCK_QUESTIONS,
                {(name, layer): samples for name in ids[start : start + SAMPLE_BLOCK_QUESTIONS] for layer in layers},
            )
            for start in range(0, len(ids), SAMPLE_BLOCK_QUESTIONS)
        ]

    def compute(block: "Block", missing: "Mapping[tuple[str, int], tuple[int, int]]") -> "pl.DataFrame":
        from hcl_cli.models.decode import Sampling
        from hcl_cli.stages.sample import Protocol, sampled

        loaded = choice.load()
        return sampled(
            loaded,
            source.load(),
            missing,
            Sampling(
                temperature=temperature, top_p=top_p, top_k=top_k, max_new_tokens=max_new_tokens, stop=stops,
                stop_after_text=clean != "published", seed=seed,
            ),
            Protocol(
                render=lambda question: template.render(question, loaded.tokenizer),
                special_tokens=not template.is_chat, clean=clean, truncate=long_prompts == "truncate",
                batch_tokens=batch_tokens, draft_tokens=drafts,
            ),
            model=reference.name,
            dataset=source.name,
        )  # fmt: skip

    artifact = session.produce_cells(recipe, RESPONSES, blocks, compute)

    # emit
    session.terminal.say(
        f"sample: {artifact.rows} responses of {reference.name} on {source.name} ({n_questions} questions x "
        f"{len(layers)} exit layers x {samples} samples){', from the store' if artifact.cached else ''}"
    )
    session.emit(artifact)


def _source_name(questions: str | None, dataset: str | None) -> str:
    """The questions asked for: a file (or a path read from stdin for `-`), or a named data set."""
    if questions is None:
        return "lab" if dataset is None else dataset
    if dataset is not None:
        raise BadOption(f"{questions} and --dataset {dataset}: name the questions once")
    path = input_paths([questions], "hcl sample")[0]
    return str(path)
