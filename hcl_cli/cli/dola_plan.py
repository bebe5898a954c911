"""What one call of `hcl dola` asks for, before anything is computed: sources, methods, and the recipe of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.recipe import Recipe
from hcl_cli.cli.loading import ModelChoice
from hcl_cli.cli.options import spelled
from hcl_cli.errors import BadOption
from hcl_cli.schemas import DOLA
from hcl_cli.stages.versions import DOLA_GROWS, SAMPLE_BLOCK_QUESTIONS, VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.store import Block
    from hcl_cli.data.prompts import Prompt
    from hcl_cli.data.questions import QuestionSet
    from hcl_cli.models.contrast_methods import Method

ADVICE = "shorten the prompt (fewer --n-shots) or ask for fewer --max-new-tokens"


@dataclass(frozen=True)
class Columns:
    """`--columns`, by what reads each pair: the questions, their references and given answers, FACTOR's texts."""

    questions: dict[str, str]
    references: dict[str, str]
    completions: dict[str, str]

    @property
    def choices(self) -> dict[str, str]:
        """Of questions with given answers."""
        return {name: source for name, source in self.questions.items() if name != "answers"} | self.references


def parse_columns_of_dola(text: str, *, factor: bool) -> Columns:
    """`--columns` once for everything that reads a file.

    Raises:
        BadOption: no pairs, an unknown name, or a column of FACTOR's texts without `--factor`.
    """
    from hcl_cli.data.completions import COMPLETION_COLUMNS
    from hcl_cli.data.questions import COLUMNS, REFERENCE_COLUMNS, parse_columns

    texts = COMPLETION_COLUMNS[1:]
    targets = (*COLUMNS, *REFERENCE_COLUMNS, *(texts if factor else ()))
    pairs = parse_columns(text, targets) if text else {}

    def of(names: Sequence[str]) -> dict[str, str]:
        return {name: source for name, source in pairs.items() if name in names}

    return Columns(of(COLUMNS), of(REFERENCE_COLUMNS), of(texts))


@dataclass(frozen=True)
class AnswerPlan:
    """Which answers are decoded, and how.

    Attributes:
        n_questions: the first so many.
        options: of decoding, for the recipe; see `compute`.
    """

    source: QuestionSet
    choice: ModelChoice
    methods: Sequence[Method]
    template: Prompt
    n_questions: int
    samples: int
    columns: Mapping[str, str]
    options: Mapping[str, Any]

    def recipe(self) -> Recipe:
        """Of DOLA. A method that averages over its batch gives other answers in other company, so nothing grows."""
        averages = any(method.averages for method in self.methods)
        return Recipe(
            table=DOLA.name,
            stage="dola",
            version=VERSIONS["dola"],
            options={
                **self.options, "methods": [method.name for method in self.methods], "samples": self.samples,
                "limit": self.n_questions, "prompt": self.template.identity, "columns": spelled(dict(self.columns)),
                "block_questions": SAMPLE_BLOCK_QUESTIONS, "averages": averages,
            },
            identities={**self.choice.identities, "data": self.source.identity, "data_name": self.source.name},
            dtype=self.choice.dtype,
            attention=self.choice.attention,
            # Shards need an option that grows; `averages` has the one value here.
            grows=("averages",) if averages else DOLA_GROWS,
        )  # fmt: skip

    def blocks(self) -> list[Block]:
        """A run of questions under all methods each."""
        from hcl_cli.artifacts.store import Block

        ids = self.source.load()["question_id"].head(self.n_questions).to_list()
        size, names = SAMPLE_BLOCK_QUESTIONS, [method.name for method in self.methods]
        return [
            Block(at // size, {(one, name): self.samples for one in ids[at : at + size] for name in names})
            for at in range(0, len(ids), size)
        ]

    def compute(self, _block: Block, missing: Mapping[Any, tuple[int, int]]) -> pl.DataFrame:
        """The missing answers of a block."""
        from hcl_cli.models.decode import Sampling
        from hcl_cli.stages.dola import answered
        from hcl_cli.stages.sample import Protocol

        loaded, given, template = self.choice.load(), self.options, self.template
        sampling = Sampling(
            temperature=given["temperature"], top_p=given["top_p"], top_k=given["top_k"], seed=given["seed"],
            max_new_tokens=given["max_new_tokens"], stop=tuple(given["stop"]),
            stop_after_text=given["clean"] != "published",
        )  # fmt: skip
        protocol = Protocol(
            render=lambda question: template.render(question, loaded.tokenizer),
            special_tokens=not template.is_chat, clean=given["clean"], truncate=False,
            batch_tokens=given["batch_tokens"], advice=ADVICE,
        )  # fmt: skip
        return answered(
            loaded, self.source.load(), missing, self.methods, sampling, protocol,
            model=self.choice.reference.name, dataset=self.source.name,
        )  # fmt: skip


def check_views(table: object, published_table: object, compared: bool) -> None:
    """Refuse a table of nothing. Raises BadOption."""
    for option, target in (("--table", table), ("--published-table", published_table)):
        if target is not None and not compared:
            raise BadOption(f"{option} {target}: with --metrics none there is nothing to write; name some --metrics")
