"""`hcl score --judge llm`: a language model behind a server as a judge, and what it says of each layer or method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.options import bounded, natural
from hcl_cli.cli.session import Session
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.schemas import JUDGED
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.cli.score_people import Answers
    from hcl_cli.data.completions import ChoiceSet
    from hcl_cli.llm.answers import AnswerCache
    from hcl_cli.llm.judges import JudgePrompt
    from hcl_cli.llm.requests import Decoding
    from hcl_cli.llm.server import LlmServer
    from hcl_cli.stages.llm_judge import Judging

_PANEL = "Language model as judge (--judge llm)"
_BOOTSTRAP, _SEED = 2000, 0  # of the intervals of JUDGED

LlmUrlOpt = Annotated[
    str | None,
    typer.Option(
        "--llm-url", metavar="URL", show_default=False, rich_help_panel=_PANEL,
        help="OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; its key from $OPENAI_API_KEY.",
    ),
]  # fmt: skip
LlmModelOpt = Annotated[
    str | None,
    typer.Option("--llm-model", metavar="NAME", show_default=False, rich_help_panel=_PANEL,
                 help="The model to ask for there."),
]  # fmt: skip
LlmPromptOpt = Annotated[
    str,
    typer.Option(
        "--llm-prompt", metavar="PROMPTS", rich_help_panel=_PANEL,
        help="published (0 or 1), published-10 (1 to 10, right from 6), simpleqa, truth, info, or a file with "
        "{question}, {answers} and {response}; with commas.",
    ),
]  # fmt: skip
LlmReferencesOpt = Annotated[
    str | None,
    typer.Option(
        "--llm-references", metavar="DATA", show_default=False, rich_help_panel=_PANEL,
        help="For truth: the set with the known true and false answers, e.g. truthfulqa; else those in the rows.",
    ),
]  # fmt: skip
LlmConcurrencyOpt = Annotated[
    int,
    typer.Option("--llm-concurrency", metavar="N", rich_help_panel=_PANEL,
                 callback=natural("--llm-concurrency", 1, 64, "expected 1 to 64 calls at once"),
                 help="Calls under way at once."),
]  # fmt: skip
LlmTimeoutOpt = Annotated[
    float,
    typer.Option("--llm-timeout", metavar="S", rich_help_panel=_PANEL,
                 callback=bounded("--llm-timeout", 0, 3600, low_open=True, hint="expected up to 3600 seconds"),
                 help="Longest wait for a reply, in seconds."),
]  # fmt: skip
LlmMaxTokensOpt = Annotated[
    int,
    typer.Option("--llm-max-tokens", metavar="N", rich_help_panel=_PANEL,
                 callback=natural("--llm-max-tokens", 1, 32768, "expected 1 to 32768 tokens"),
                 help="Longest reply; a reasoning model thinks within it."),
]  # fmt: skip
LlmTemperatureOpt = Annotated[
    str,
    typer.Option("--llm-temperature", metavar="T", rich_help_panel=_PANEL,
                 help="0 is greedy; none sends none, for models that accept only their own."),
]  # fmt: skip

_OPTIONS = (
    "llm_url", "llm_model", "llm_prompt", "llm_references", "llm_concurrency", "llm_timeout", "llm_max_tokens",
    "llm_temperature",
)  # fmt: skip


def refuse_llm_options(context: typer.Context, judge: str) -> None:
    """Raise BadOption if an option of the language model is on the command line and no such judge is named.

    From a variable or `hcl.toml`, which speak for all calls, it is no contradiction.
    """
    for name in _OPTIONS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise BadOption(
                f"{option} {context.params[name]}: speaks to a language model, but --judge {judge} names none; "
                f"add llm, e.g. --judge {judge},llm"
            )


@dataclass
class LlmJudges:
    """The judges behind `--judge llm`.

    Attributes:
        references: known true and false answers, for the judges that are shown them; null for those in the rows.
    """

    session: Session
    server: "LlmServer"
    prompts: "tuple[JudgePrompt, ...]"
    decoding: "Decoding"
    references: "ChoiceSet | None" = None

    @property
    def names(self) -> tuple[str, ...]:
        """The judges that say what is correct, in order."""
        return tuple(prompt.judge for prompt in self.prompts if prompt.asks == "correct")

    def options(self) -> dict[str, Any]:
        """What decides the verdicts beside the responses, for the recipe. Neither the address nor the key."""
        from hcl_cli.llm.requests import plain_name

        return {
            "llm_model": plain_name(self.server.model),
            "llm_prompt": [prompt.identity for prompt in self.prompts],
            "llm_max_tokens": self.decoding.max_tokens,
            "llm_temperature": self.decoding.temperature,
        }

    def identities(self) -> dict[str, str]:
        """What is read beside the responses, for the recipe."""
        return {} if self.references is None else {"references": self.references.identity}

    def estimated(self, source: "Answers") -> None:
        """Say what asking would cost; nobody is asked."""
        from hcl_cli.llm.client import estimate

        cost = estimate(self.server, self._judging(source.frame().collect(), source).requests, self._answers())
        self.session.terminal.say(
            f"judge: {cost.n_calls} calls ({cost.n_at_hand} answers at hand), about {cost.prompt_tokens:,} tokens in "
            f"the prompts and at most {cost.most_reply_tokens:,} in the replies"
        )

    def verdicts(self, rows: "pl.DataFrame", source: "Answers") -> "pl.DataFrame":
        """The judges' columns, one row per response. What the server answers is kept at once, one reply at a time.

        Raises:
            BadInput, BadOption, EnvironmentRefused: the server says no, or gives no answer; what was received is kept.
        """
        from hcl_cli.llm.client import ask_all

        judging = self._judging(rows, source)
        terminal = self.session.terminal
        if not judging.requests:
            return judging.verdicts([])
        terminal.say(f"judge: {self.server.route()}")
        with terminal.progress("score", "responses read by the judge") as advance:
            replies = ask_all(
                self.server, judging.requests, self._answers(), progress=advance, warn=terminal.warn
            )  # fmt: skip
        return judging.verdicts(replies)

    def say_statuses(self, artifact: "Artifact") -> None:
        """What became of the responses, one line per judge; read without Polars, since a hit says it too."""
        from hcl_cli.artifacts.parquet import open_parquet
        from hcl_cli.stages.llm_judge import status_line

        columns = [f"status_{prompt.judge}" for prompt in self.prompts]
        with open_parquet(artifact.path) as reader:
            table = reader.read(columns=columns, use_threads=False)
        refused = False
        for prompt, column in zip(self.prompts, columns, strict=True):
            counts = {str(one["values"]): one["counts"] for one in table[column].value_counts().to_pylist()}
            refused = refused or "refused" in counts
            self.session.terminal.say(f"score: {status_line(prompt.judge, counts)}")
        if refused and not self.session.no_cache:
            self.session.terminal.say("score: --force asks what was refused once more, and nothing else")

    def summary(self, artifact: "Artifact") -> "tuple[list[dict[str, Any]], list[Artifact]]":
        """The rows of JUDGED, and its artifact, if it is kept."""

        def compute() -> "pl.DataFrame":
            from hcl_cli.llm.requests import plain_name
            from hcl_cli.stages.judged import judged_table

            scored, asked = artifact.frame().collect(), plain_name(self.server.model)
            return judged_table(scored, self.prompts, asked_model=asked, n_bootstrap=_BOOTSTRAP, seed=_SEED)

        if self.session.no_cache:
            from hcl_cli.artifacts.parquet import conform

            return conform(compute(), JUDGED).to_dicts(), []
        recipe = Recipe(
            table=JUDGED.name,
            stage="score",
            version=VERSIONS["score"],
            options=self.options() | {"bootstrap": _BOOTSTRAP, "seed": _SEED},
            inputs=(Input(artifact.sha256, artifact.key),),
            identities=self.identities(),
        )
        made = self.session.produce(recipe, JUDGED, compute)
        return made.rows_as_dicts(), [made]

    def _judging(self, rows: "pl.DataFrame", source: "Answers") -> "Judging":
        from hcl_cli.stages.llm_judge import judging, with_references

        try:
            if self.references is not None:
                rows, unknown = with_references(rows, self.references.load())
                if unknown:
                    name = self.references.name
                    self.session.terminal.warn(
                        f"questions that are not in {name}: {unknown}; judged by the answers in their rows"
                    )
            return judging(rows, self.prompts, self.decoding)
        except BadInput as error:
            raise BadInput(f"{source.path}: {error}") from error

    def _answers(self) -> "AnswerCache":
        from hcl_cli.llm.answers import AnswerCache

        folder = None if self.session.no_cache else self.session.store.root / "answers"
        return AnswerCache(folder, self.session.terminal.warn)


def llm_judges(
    session: Session,
    url: str | None,
    model: str | None,
    prompt: str,
    *,
    references: str | None,
    memo: Path | None,
    concurrency: int,
    timeout: float,
    max_tokens: int,
    temperature: str,
) -> LlmJudges:
    """The judges that the options describe; nobody is asked.

    Raises:
        BadOption: an address or a model is missing or cannot be used, or a prompt is unknown.
        BadInput: a template without its fields.
    """
    from hcl_cli.data.completions import open_choices
    from hcl_cli.llm.judge_prompts import open_judge_prompts
    from hcl_cli.llm.requests import Decoding
    from hcl_cli.llm.server import LlmServer

    if url is None or model is None:
        lacking = "--llm-url URL" if url is None else "--llm-model NAME"
        raise BadOption(
            f"--judge llm: needs {lacking}; e.g. --llm-url http://127.0.0.1:8000/v1 --llm-model NAME, and the key, if "
            "the server wants one, in $OPENAI_API_KEY"
        )
    try:
        server = LlmServer(url, model, timeout_s=timeout, concurrency=concurrency)
    except BadOption as error:
        raise BadOption(f"--llm-url, --llm-model: {error}") from None
    prompts, known = open_judge_prompts(prompt), None
    if references is not None:
        if not any(one.shows_incorrect for one in prompts):
            raise BadOption(
                f"--llm-references {references}: --llm-prompt {prompt} shows a judge no known false answers; add truth"
            )
        known = open_choices(references, memo=memo, warn=session.terminal.warn)
    return LlmJudges(session, server, prompts, Decoding(max_tokens, _temperature(temperature)), known)


def _temperature(text: str) -> float | None:
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise BadOption(f"--llm-temperature {text}: expected 0 (greedy) to 100, or none to send none")
    return value


def refuse_first(judges: Sequence[str], prompts: "Sequence[JudgePrompt]") -> None:
    """Raise BadOption if nothing says what is correct before `info`, which does not."""
    if not judges:
        name = prompts[0].name
        raise BadOption(
            f"--llm-prompt {name}: does not say what is correct; name a prompt that does as well, e.g. truth,{name}"
        )
