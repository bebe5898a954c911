"""The plan of `hcl entropy`: which texts there are, in which blocks, what is measured of them, and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from hcl_cli.errors import BadInput, BadOption, HclError, shown
from hcl_cli.stages.versions import ENTROPY_BLOCK

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.store import Block
    from hcl_cli.cli.entropy_inputs import Given
    from hcl_cli.cli.loading import ModelChoice
    from hcl_cli.cli.terminal import Terminal
    from hcl_cli.data.prompts import Prompt
    from hcl_cli.models.decode import Sampling
    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.entropy import Text

SPANS = "spans"


@dataclass
class Plan:
    """What one call measures.

    Attributes:
        given: the input.
        choice: the model.
        template: how questions are asked, and how the questions of given answers were.
        kinds: layers, attention, tokens.
        norm, varentropy, aggregate, batch_tokens: see `stages.entropy.Measurement`.
        group_by: the column that names groups; `spans` for marked against ordinary tokens; None for no groups.
        groups_asked: whether the user named them; then groups that cannot be compared are refused at once.
        answers_of: whose answers of a file.
        limit: only the first questions or texts.
        samples, sampling: how the model answers questions.
        truncate, max_tokens: what happens to long texts.
        terminal: for what is left out.
        found_spans: text id -> spans that a critic found, instead of the input's own.
    """

    given: Given
    choice: ModelChoice
    template: Prompt
    kinds: tuple[str, ...]
    norm: bool
    varentropy: str
    aggregate: frozenset[str]
    batch_tokens: int
    group_by: str | None
    groups_asked: bool
    answers_of: Literal["last", "all"] | tuple[int, ...]
    limit: int | None
    samples: int
    sampling: Mapping[str, Any]
    truncate: bool
    max_tokens: int | None
    terminal: Terminal
    found_spans: Mapping[str, Sequence[Sequence[int]] | None] | None = None
    _sequences: dict[str, Text] | None = field(default=None, repr=False)
    _cut: int = 0

    @property
    def marks(self) -> bool:
        """Whether tokens are told apart by spans."""
        return self.group_by == SPANS

    @cached_property
    def units(self) -> pl.DataFrame:
        """One row per text: `text_id`, `question_id` (null for a plain text), what is measured, the other columns.

        Raises:
            BadInput, BadOption: unusable rows, spans asked for and not there.
        """
        import polars as pl

        try:
            frame = self._units()
        except HclError as error:
            if self.given.answers is None or isinstance(error, BadOption):
                raise
            raise BadInput(f"{self.given.answers.path}: {error}") from error
        if self.found_spans is not None:
            spans = [self.found_spans.get(name) for name in frame["text_id"]]
            frame = frame.with_columns(pl.Series(SPANS, spans, dtype=pl.List(pl.List(pl.Int64))))
        if self.marks:
            if SPANS not in frame.columns:
                raise BadOption(
                    "--group-by spans: the input has no column spans; give each text a list of [start, end) character "
                    "offsets, or name a server with --critic"
                )
            without = frame[SPANS].null_count()
            if without:
                self.terminal.say(f"entropy: {without} of {frame.height} texts have no spans and are not compared")
        return frame

    def _units(self) -> pl.DataFrame:
        import polars as pl

        from hcl_cli.stages.generated import text_id
        from hcl_cli.stages.texts import answer_texts

        if self.given.questions is not None:
            frame = self.given.questions.load(extra=True)
            frame = frame if self.limit is None else frame.head(self.limit)
            names = [[text_id(name, index) for index in range(self.samples)] for name in frame["question_id"]]
            return frame.with_columns(pl.Series("text_id", names)).explode("text_id")
        if self.given.texts is not None:
            frame = self.given.texts.load()
            frame = frame if self.limit is None else frame.head(self.limit)
            if "question_id" not in frame.columns:
                frame = frame.with_columns(question_id=pl.lit(None, dtype=pl.String))
            return frame.with_columns(pl.col("question_id").cast(pl.String))
        assert self.given.answers is not None
        found = answer_texts(
            self.given.answers.frame().collect(),
            answers_of=self.answers_of,
            group_by=None if self.marks else self.group_by,
        )
        frame = found.frame
        if self.limit is not None:
            kept = frame["question_id"].unique(maintain_order=True).head(self.limit).to_list()
            frame = frame.filter(pl.col("question_id").is_in(kept))
        whose = f" of exit layer {', '.join(map(str, found.exit_layers))}" if found.exit_layers else ""
        self.terminal.say(
            f"entropy: {frame.height} distinct answers{whose} to {frame['question_id'].n_unique()} questions"
            + (f"; {found.n_empty} of {found.n_responses} responses are empty and left out" if found.n_empty else "")
        )
        return frame

    @cached_property
    def criticised(self) -> pl.DataFrame:
        """The answers with their reference answers and verdicts, as `stages.critic` reads them."""
        import polars as pl

        assert self.given.answers is not None
        frame = self._units()
        references = (
            self.given.answers.frame()
            .group_by("question", maintain_order=True)
            .agg(pl.col("answers").drop_nulls().first())
            .collect()
        )
        return frame.join(references, on="question", how="left", maintain_order="left")

    def set_spans(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Use these rows of SPANS in place of the input's own spans."""
        self.found_spans = {
            row["text_id"]: None if row["start"] is None else [[row["start"], row["end"]]] for row in rows
        }

    @cached_property
    def groups(self) -> dict[str, str | None]:
        """Text id -> group of the whole text; empty when tokens are compared or there are no groups."""
        from hcl_cli.stages.groups import assign_groups

        return {} if self.group_by is None or self.marks else assign_groups(self.units, self.group_by)

    def blocks(self) -> list[Block]:
        """Fixed runs of questions (of texts, where there are no questions)."""
        from hcl_cli.artifacts.store import Block
        from hcl_cli.stages.groups import check_groups

        if self.groups_asked and not self.marks:
            check_groups(self.groups, self.group_by)
        owners = self.units["question_id"].fill_null(self.units["text_id"])
        place = {name: index for index, name in enumerate(owners.unique(maintain_order=True))}
        wanted: dict[int, dict[Any, int]] = {}
        for owner, text_id in zip(owners, self.units["text_id"], strict=True):
            wanted.setdefault(place[owner] // ENTROPY_BLOCK, {})[text_id] = 1
        return [Block(index, cells) for index, cells in sorted(wanted.items())]

    def compute(self, _block: Block, missing: Mapping[Any, Any]) -> pl.DataFrame:
        """ENTROPY rows of the missing texts of one block, without groups. A generated answer may have no token."""
        from hcl_cli.stages.entropy import Measurement, measured

        loaded = self.choice.load()
        texts = self._generated(loaded, list(missing)) if self.given.questions else self._read(loaded)
        wanted = {(name, kind): True for name in missing if name in texts for kind in self.kinds}
        return measured(
            loaded,
            texts,
            wanted,
            Measurement(self.norm, self.varentropy, self.aggregate, self.batch_tokens),
            model=self.choice.reference.name,
            dataset=self.dataset,
        )

    def finish(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with their groups."""
        import polars as pl

        if self.marks:
            group = pl.when("marked").then(pl.lit("marked")).when(~pl.col("marked")).then(pl.lit("ordinary"))
            return rows.with_columns(group=group.otherwise(None))
        return rows.with_columns(
            group=pl.col("text_id").replace_strict(self.groups, default=None, return_dtype=pl.String)
            if self.groups
            else pl.lit(None, dtype=pl.String)
        )

    @cached_property
    def dataset(self) -> str:
        """What the rows call the data: the answers' own word for it, if they have one."""
        if self.given.answers is not None:
            names = self.given.answers.frame().select("dataset").unique().collect()["dataset"].drop_nulls()
            if len(names) == 1:
                return str(names[0])
        return self.given.name

    def _generated(self, loaded: LoadedModel, missing: Sequence[str]) -> dict[str, Text]:
        """The model's own answers to the questions of the missing texts."""
        import polars as pl

        from hcl_cli.stages.generated import generated_texts
        from hcl_cli.stages.sample import Protocol

        assert self.given.questions is not None
        wanted = self.units.filter(pl.col("text_id").is_in(list(missing)))["question_id"].unique(maintain_order=True)
        protocol = Protocol(
            render=lambda question: self.template.render(question, loaded.tokenizer),
            special_tokens=not self.template.is_chat, clean="plain", truncate=False,
            batch_tokens=self.sampling["batch_tokens"], advice="shorten the prompt or ask for fewer --max-new-tokens",
        )  # fmt: skip
        return generated_texts(
            loaded, self.given.questions.load(), wanted.to_list(), self.samples, self._drawing(), protocol
        )

    def _drawing(self) -> Sampling:
        from hcl_cli.models.decode import Sampling

        return Sampling(**{name: value for name, value in self.sampling.items() if name != "batch_tokens"})

    def _read(self, loaded: LoadedModel) -> dict[str, Text]:
        """All texts as tokens: one that cannot be measured is found before the first is."""
        if self._sequences is None:
            self._sequences = {row["text_id"]: self._tokenised(loaded, row) for row in self.units.iter_rows(named=True)}
            if self._cut:
                self.terminal.warn(f"entropy: {self._cut} of {self.units.height} texts cut at their right end")
        return self._sequences

    def _tokenised(self, loaded: LoadedModel, row: Mapping[str, Any]) -> Text:
        from hcl_cli.stages.entropy import Text
        from hcl_cli.stages.texts import tokenised, truncated

        answers = self.given.answers is not None
        label = f"text {shown(row['text_id'], 60)!r}"
        ids, first, marks = tokenised(
            loaded.tokenizer,
            self.template.render(row["question"], loaded.tokenizer) if answers else "",
            row["answer"] if answers else row["text"],
            special_tokens=not (answers and self.template.is_chat),
            spans=row[SPANS] if self.marks else None,
            label=label,
        )
        n_whole = len(ids)
        ids, marks = truncated(ids, first, marks, max_tokens=self.max_tokens, cut=True, label=label)
        ids, marks = truncated(ids, first, marks, max_tokens=loaded.max_positions, cut=self.truncate, label=label)
        self._cut += len(ids) < n_whole
        return Text(row["text_id"], row["question_id"], ids, first, marks)
