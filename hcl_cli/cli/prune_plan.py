"""The plan of `hcl prune`: what the model reads, as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from hcl_cli.errors import BadInput, shown

if TYPE_CHECKING:
    from hcl_cli.cli.entropy_inputs import Given
    from hcl_cli.cli.loading import ModelChoice
    from hcl_cli.cli.terminal import Terminal
    from hcl_cli.data.prompts import Prompt
    from hcl_cli.stages.prune import Read

LIMIT = 128  # texts or questions that are read unless --limit says otherwise


@dataclass
class Plan:
    """What one call reads.

    Attributes:
        given: texts; questions, each read with its first accepted answer; or scored answers.
        choice: the model.
        template: how questions are asked.
        answers_of: whose answers of a file.
        limit: only the first texts or questions; None for LIMIT, of answers for all.
        max_tokens: longer texts are cut.
        terminal: for what is left out.
    """

    given: Given
    choice: ModelChoice
    template: Prompt
    answers_of: Literal["last", "all"] | tuple[int, ...]
    limit: int | None
    max_tokens: int
    terminal: Terminal

    @property
    def n_read(self) -> int | None:
        """How many texts or questions are read at most."""
        return self.limit if self.limit is not None or self.given.answers is not None else LIMIT

    @cached_property
    def dataset(self) -> str:
        """What the rows call the data."""
        return self.given.shown_name

    @cached_property
    def read(self) -> Read:
        """The texts as tokens.

        Raises:
            BadInput: unusable rows, none left, or answers of one kind only.
        """
        from hcl_cli.stages.damage import loss_sequences
        from hcl_cli.stages.prune import Read

        loaded = self.choice.load()
        if self.given.answers is not None:
            return self._answers()
        if self.given.texts is not None:
            rows = self.given.texts.load().head(self.n_read or 0).select("text_id", "text").iter_rows()
            sequences = tuple(loss_sequences(loaded, rows, max_tokens=self.max_tokens))
            return Read(sequences, (1,) * len(sequences))
        return self._questions()

    def _questions(self) -> Read:
        """Every question with its first accepted answer, of which alone the likelihood counts."""
        from hcl_cli.stages.prune import Read
        from hcl_cli.stages.texts import tokenised, truncated

        assert self.given.questions is not None
        loaded = self.choice.load()
        frame = self.given.questions.load().head(self.n_read or 0)
        sequences, firsts = [], []
        for name, question, answers in frame.select("question_id", "question", "answers").iter_rows():
            if not answers:
                continue
            label = f"question {shown(name, 60)!r}"
            ids, first, marks = tokenised(
                loaded.tokenizer, self.template.render(question, loaded.tokenizer), f" {answers[0]}",
                special_tokens=not self.template.is_chat, label=label,
            )  # fmt: skip
            most = min(self.max_tokens, loaded.max_positions or self.max_tokens)
            sequences.append(truncated(ids, first, marks, max_tokens=most, cut=True, label=label)[0])
            firsts.append(first)
        if not sequences:
            raise BadInput(
                f"{self.given.name}: no question has an answer to read; give texts, or questions with answers"
            )
        if len(sequences) < frame.height:
            self.terminal.say(f"prune: {frame.height - len(sequences)} questions without an answer are left out")
        self.terminal.say(
            f"prune: {len(sequences)} questions, each with its first accepted answer, whose tokens alone are measured"
        )
        return Read(tuple(sequences), tuple(firsts))

    def _answers(self) -> Read:
        import polars as pl

        from hcl_cli.stages.eavss import judged_answers
        from hcl_cli.stages.prune import Read

        assert self.given.answers is not None
        loaded, path = self.choice.load(), self.given.answers.path
        rows = self.given.answers.frame().collect()
        if self.limit is not None:
            kept = rows["question"].unique(maintain_order=True).head(self.limit)
            rows = rows.filter(pl.col("question").is_in(kept.implode()))
        try:
            answers = judged_answers(
                rows, loaded, lambda question: self.template.render(question, loaded.tokenizer),
                special_tokens=not self.template.is_chat, answers_of=self.answers_of, cut=True,
            )  # fmt: skip
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from error
        wrong = int(answers.hallucinated.sum())
        self.terminal.say(
            f"prune: {len(answers.sequences)} distinct answers to {int(answers.question.max()) + 1} questions, {wrong} "
            f"of them hallucinated; likelihoods are those of the {len(answers.sequences) - wrong} factual ones"
            + (f"; {answers.n_ungraded} without a verdict are left out" if answers.n_ungraded else "")
        )
        factual = [index for index, is_wrong in enumerate(answers.hallucinated) if not is_wrong]
        return Read(
            tuple(answers.sequences[index] for index in factual),
            tuple(answers.measured_from[index] for index in factual),
            answers,
        )

    @property
    def identities(self) -> dict[str, str]:
        """What a recipe says of the data."""
        return self.given.identities

    @property
    def options(self) -> dict[str, Any]:
        """What a recipe says of the reading."""
        whose = list(self.answers_of) if isinstance(self.answers_of, tuple) else self.answers_of
        return {
            "limit": self.n_read, "max_tokens": self.max_tokens,
            "prompt": None if self.given.kind == "texts" else self.template.identity,
            "answers_of": whose if self.given.kind == "answers" else "last",
        }  # fmt: skip
