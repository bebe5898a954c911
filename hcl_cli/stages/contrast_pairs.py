"""Scored answers -> per question its factual and its hallucinated answers, and questions -> train, validation, test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hcl_cli.errors import BadInput, shown

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.hidden_items import Item
    from hcl_cli.models.load import LoadedModel

PARTS = ("train", "validation", "test")
SHARES = (0.5, 0.15, 0.35)  # of the questions, in the order of PARTS


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with its distinct answers.

    Attributes:
        question_id: of the input.
        factual, hallucinated: judged correct, judged wrong; as the model reads them.
    """

    question_id: str
    factual: tuple[Item, ...]
    hallucinated: tuple[Item, ...]

    @property
    def has_contrast(self) -> bool:
        """Whether a factual answer has another one to be near to and a hallucinated one to be far from."""
        return len(self.factual) > 1 and len(self.hallucinated) > 0


@dataclass(frozen=True)
class DistinctAnswers:
    """What is left of a scored file.

    Attributes:
        frame: one row per distinct answer of a question: `text_id`, `question_id`, `question`, `answer`, `correct`,
            `ended` (whether the model ended it by its end-of-sequence token).
        n_ungraded, n_empty, n_contradictory: answers that are left out: without a verdict, without text, and judged
            both ways.
        exit_layers: whose answers they are; empty where the file names none.
    """

    frame: pl.DataFrame
    n_ungraded: int
    n_empty: int
    n_contradictory: int
    exit_layers: tuple[int, ...]


def distinct_answers(
    scored: pl.DataFrame, *, model: str, answers_of: Literal["last", "all"] | tuple[int, ...] = "all"
) -> DistinctAnswers:
    """The distinct answers of each question with their verdicts; equal answers of several exit layers count once.

    Args:
        scored: SCORED, or a table from elsewhere with its required columns.
        model: whose answers they must be, where they say it.
        answers_of: exit layers; see `stages.texts.answer_texts`.
    Raises:
        BadInput: answers of another model, unusable rows, or verdicts of one kind only.
        BadOption: no such exit layer.
    """
    import polars as pl

    from hcl_cli.stages.texts import answer_texts

    if "model" in scored.columns:
        others = [name for name in scored["model"].unique(maintain_order=True) if name not in (None, model)]
        if others:
            raise BadInput(
                f"column model: answers of {shown(others[0], 60)!r}, but --model is {model!r}; a model learns from its "
                f"own answers: name the model that sampled them, or sample and score with {model}"
            )
    ends = "finish_reason" in scored.columns
    found = answer_texts(scored, answers_of=answers_of, group_by="finish_reason" if ends else None)
    frame = found.frame.with_columns(
        ended=(pl.col("finish_reason") == "eos").fill_null(False) if ends else pl.lit(False)
    )
    graded = frame.filter(pl.col("correct").is_not_null())
    distinct = graded.group_by("question_id", "answer", maintain_order=True).agg(
        pl.col("text_id", "question", "correct").first(),
        pl.col("ended").any(),
        both=pl.col("correct").n_unique() > 1,
    )
    kept = distinct.filter(~pl.col("both")).select("text_id", "question_id", "question", "answer", "correct", "ended")
    verdicts = kept["correct"].unique().to_list()
    if len(verdicts) < 2:
        which = "none has a verdict" if not verdicts else "all are " + ("correct" if verdicts[0] else "hallucinated")
        raise BadInput(
            f"column correct: of {frame.height} distinct answers {which}, expected both correct and hallucinated ones; "
            "sample more questions or answers, or take those of more layers with --answers-of all"
        )
    return DistinctAnswers(
        kept,
        frame.height - graded.height,
        found.n_empty,
        int(distinct["both"].sum()),
        found.exit_layers,
    )


def answered_questions(
    loaded: LoadedModel, answers: pl.DataFrame, render: Callable[[str], str], *, special_tokens: bool
) -> list[AnsweredQuestion]:
    """The questions with their answers as the model reads them, in the order of the file.

    An answer that the model ended itself is followed by its end-of-sequence token.

    Args:
        loaded: the model.
        answers: of `distinct_answers`.
        render: question -> prompt.
        special_tokens: whether the tokenizer adds its own.
    Raises:
        BadInput: an answer without a token of its own, or longer than the model's positions.
    """
    from hcl_cli.stages.hidden import answer_items

    prompts = {question: render(question) for question in answers["question"].unique(maintain_order=True)}
    rows = [
        (name, prompts[asked], text) for name, asked, text in answers.select("text_id", "question", "answer").rows()
    ]
    items = answer_items(loaded.tokenizer, rows, special_tokens=special_tokens)
    end = _end_token(loaded)
    grouped: dict[str, tuple[list[Item], list[Item]]] = {}
    for item, (question_id, correct, ended) in zip(
        items, answers.select("question_id", "correct", "ended").rows(), strict=True
    ):
        whole = replace(item, ids=(*item.ids, end), content=None) if ended and end is not None else item
        if loaded.max_positions is not None and len(whole.ids) > loaded.max_positions:
            raise BadInput(
                f"answer {shown(item.statement_id)!r}: {len(whole.ids)} tokens with its prompt, but the model has "
                f"{loaded.max_positions} positions; shorten it or leave it out"
            )
        grouped.setdefault(question_id, ([], []))[0 if correct else 1].append(whole)
    return [AnsweredQuestion(name, tuple(good), tuple(bad)) for name, (good, bad) in grouped.items()]


def part_of(question_id: str, seed: int) -> str:
    """`train`, `validation` or `test`: by a hash of seed and id, so that other questions never move this one."""
    drawn = int.from_bytes(hashed(f"mitigate/{seed}/{question_id}"), "big") / 2**64
    return PARTS[0] if drawn < SHARES[0] else PARTS[1] if drawn < SHARES[0] + SHARES[1] else PARTS[2]


def split(question_ids: Iterable[str], seed: int) -> dict[str, list[str]]:
    """Questions by part, each part in the order given. All answers of a question are in one part.

    Raises:
        BadInput: a part without a question.
    """
    ids = list(dict.fromkeys(question_ids))
    parts = {part: [name for name in ids if part_of(name, seed) == part] for part in PARTS}
    for part, names in parts.items():
        if not names:
            raise BadInput(
                f"--seed {seed}: of {len(ids)} questions none falls to {part}; give more questions or another seed"
            )
    return parts


def drawn_answers(question: AnsweredQuestion, most: int, address: str) -> AnsweredQuestion:
    """At most so many answers of each kind, drawn by a hash of the address and the answer."""

    def some(items: Sequence[Item]) -> tuple[Item, ...]:
        if len(items) <= most:
            return tuple(items)
        return tuple(sorted(items, key=lambda item: hashed(f"{address}/{item.statement_id}"))[:most])

    return replace(question, factual=some(question.factual), hallucinated=some(question.hallucinated))


def hashed(address: str) -> bytes:
    """8 bytes that depend on nothing but the text."""
    return hashlib.blake2b(address.encode(), digest_size=8).digest()


def _end_token(loaded: LoadedModel) -> int | None:
    own = getattr(loaded.tokenizer, "eos_token_id", None)
    return own if own in loaded.eos_ids else min(loaded.eos_ids, default=None)
