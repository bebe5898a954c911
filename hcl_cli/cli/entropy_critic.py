"""`hcl entropy --critic`: spans of wrong answers that another model marks, as an artifact of their own."""

from typing import TYPE_CHECKING

import typer

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.entropy_plan import Plan
from hcl_cli.cli.session import Session
from hcl_cli.errors import BadOption
from hcl_cli.schemas import SPANS
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact


def criticised(session: Session, plan: Plan, url: str, model: str) -> "Artifact | None":
    """Ask the server about every wrong answer, and give the plan the spans that it marks.

    Answers of the server are kept in the store one by one; without a store (`--no-cache`) they are used and not kept.
    Under --dry-run says what would be asked and ends the command.

    Returns:
        the SPANS artifact; None without a store.
    Raises:
        BadOption: the input is not scored answers.
        BadInput, EnvironmentRefused: the server says no, or gives no answer; what was received is kept.
    """
    from hcl_cli.llm.answers import AnswerCache
    from hcl_cli.llm.requests import plain_name
    from hcl_cli.llm.server import LlmServer
    from hcl_cli.stages.critic import critic_options

    given = plan.given
    if given.answers is None or not given.graded:
        raise BadOption(f"--critic {url}: marks wrong answers, so it needs scored ones: hcl score | hcl entropy")
    server = LlmServer(url, model)
    cache = AnswerCache(None if session.no_cache else session.store.root / "answers", session.terminal.warn)
    recipe = Recipe(
        table=SPANS.name,
        stage="entropy",
        version=VERSIONS["entropy"],
        options={
            "critic": plain_name(model), **critic_options(), "limit": plan.limit,
            "answers_of": list(plan.answers_of) if isinstance(plan.answers_of, tuple) else plan.answers_of,
        },
        inputs=(Input(given.answers.sha256, given.answers.key),),
    )  # fmt: skip

    def compute() -> "pl.DataFrame":
        import polars as pl

        from hcl_cli.llm.client import ask_all
        from hcl_cli.stages.critic import critic_line, critic_spans

        session.terminal.say(f"critic: {server.route()}")
        with session.terminal.progress("entropy", "answers read by the critic") as advance:
            found = critic_spans(
                plan.criticised,
                lambda requests: ask_all(server, requests, cache, progress=advance, warn=session.terminal.warn),
            )
        session.terminal.say(critic_line(found))
        span = pl.col("spans").list.first()
        return found.select("text_id", start=span.list.get(0), end=span.list.get(1), status="status")

    if session.dry_run and session.store.find(recipe, SPANS) is None:
        from hcl_cli.llm.client import estimate
        from hcl_cli.stages.critic import critic_requests

        cost = estimate(server, critic_requests(plan.criticised), cache)
        session.terminal.say(
            f"critic: {cost.n_calls} calls ({cost.n_at_hand} answers at hand), about {cost.prompt_tokens:,} tokens in "
            f"the prompts and at most {cost.most_reply_tokens:,} in the replies"
        )
        session.produce(recipe, SPANS, compute)  # says that it is a miss and ends the command
        raise typer.Exit(0)
    if session.no_cache:
        plan.set_spans(compute().to_dicts())
        return None
    artifact = session.store.find(recipe, SPANS) if session.dry_run else session.produce(recipe, SPANS, compute)
    assert artifact is not None
    plan.set_spans(artifact.rows_as_dicts())
    return artifact
