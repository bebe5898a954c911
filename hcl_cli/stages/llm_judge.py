"""Responses -> verdicts of a language model: what is asked, and what its replies come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput, shown
from hcl_cli.llm.judges import STATUSES, JudgePrompt, Verdict, verdict_of
from hcl_cli.llm.requests import Decoding, Reply, Request, plain_name
from hcl_cli.stages.responses import completed_responses

if TYPE_CHECKING:
    import polars as pl

DECODING = Decoding(max_tokens=1024)

# Columns of one judge, each followed by its name (`status_llm_truth`); an earlier scoring is known by them.
COLUMNS = ("correct", "informative", "status", "grade", "reported")
LLM_COLUMN = rf"^({'|'.join(COLUMNS)})_llm_\w+$"

_BLANK = Verdict(False, "blank")
_NO_REFERENCE = Verdict(None, "no-reference")


@dataclass(frozen=True)
class Judging:
    """What a language model is asked about responses.

    Attributes:
        prompts: the judges.
        requests: what to ask, each distinct one once; equal (question, answers, response) are equal requests.
        places: by prompt, one per response: the number of its request, or the verdict that it has without asking.
    """

    prompts: tuple[JudgePrompt, ...]
    requests: list[Request]
    places: list[list[int | Verdict]]

    def verdicts(self, replies: Sequence[Reply]) -> pl.DataFrame:
        """The columns that the judges add, one row per response.

        Returns:
            for each judge its verdict (`JudgePrompt.column`; null unless the status is `judged` or `blank`), `status_`
            (see STATUSES), on a scale `grade_`, and `reported_`: the model that the server says answered, null if
            nobody was asked; each followed by the judge's name.
        """
        import polars as pl

        columns: dict[str, pl.Series] = {}
        for prompt, places in zip(self.prompts, self.places, strict=True):
            known = {place: verdict_of(replies[place], prompt) for place in set(places) if isinstance(place, int)}
            verdicts = [known[place] if isinstance(place, int) else place for place in places]
            names = [replies[place].reported if isinstance(place, int) else None for place in places]
            reported = [None if name is None else plain_name(name) for name in names]
            columns[prompt.column] = pl.Series([verdict.holds for verdict in verdicts], dtype=pl.Boolean)
            columns[f"status_{prompt.judge}"] = pl.Series([verdict.status for verdict in verdicts], dtype=pl.String)
            if prompt.is_scale:
                columns[f"grade_{prompt.judge}"] = pl.Series([verdict.grade for verdict in verdicts], dtype=pl.Int8)
            columns[f"reported_{prompt.judge}"] = pl.Series(reported, dtype=pl.String)
        return pl.DataFrame(columns)


def judging(responses: pl.DataFrame, prompts: Sequence[JudgePrompt], decoding: Decoding = DECODING) -> Judging:
    """What to ask about each response.

    A blank response is wrong, and not informative, without asking. Without a reference answer a response cannot be
    judged, except by a prompt that shows none (`info`). A prompt that shows known false answers (`truth`) is given
    the columns `correct_answers` and `incorrect_answers` if the rows carry them, as TruthfulQA's do, else `answers`.

    Args:
        responses: RESPONSES, or a table from elsewhere that `completed_responses` can complete.
        prompts: the judges.
        decoding: how they decode.
    Raises:
        BadInput: as `completed_responses`; `correct_answers` or `incorrect_answers` hold no lists of texts.
    """
    frame = completed_responses(responses)
    more = [name for name in ("correct_answers", "incorrect_answers") if name in frame.columns]
    if any(prompt.shows_incorrect for prompt in prompts):
        _check_lists(frame, more)
    rows = frame.select("question", "answers", "response", *more).to_dicts()
    numbers: dict[Request, int] = {}
    places = [[_place(row, prompt, decoding, numbers) for row in rows] for prompt in prompts]
    return Judging(tuple(prompts), list(numbers), places)


def _place(
    row: Mapping[str, Any], prompt: JudgePrompt, decoding: Decoding, numbers: dict[Request, int]
) -> int | Verdict:
    """The number of a response's request, which is given one if it is new, or its verdict."""
    answers = _texts(row["answers"])
    incorrect: list[str] = []
    if prompt.shows_incorrect:
        answers = _texts(row.get("correct_answers")) or answers
        incorrect = _texts(row.get("incorrect_answers"))
    if prompt.needs_answers and not answers:
        return _NO_REFERENCE
    if not row["response"].strip():
        return _BLANK
    request = Request(prompt.render(row["question"], answers, row["response"], incorrect), prompt.system, decoding)
    return numbers.setdefault(request, len(numbers))


def _texts(values: Sequence[str | None] | None) -> list[str]:
    return list(dict.fromkeys(value.strip() for value in values or () if value is not None and value.strip()))


def _check_lists(frame: pl.DataFrame, names: Sequence[str]) -> None:
    import polars as pl

    for name in names:
        if frame[name].dtype not in (pl.List(pl.String), pl.List(pl.Null), pl.Null):
            raise BadInput(f"column {name}: is {frame[name].dtype}, the judge of truth needs lists of texts")


def with_references(responses: pl.DataFrame, references: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The responses with the known true and false answers to their questions, found by the question's text.

    Args:
        responses: with `question`; columns of these names that they carry already give way.
        references: question, correct_answers, incorrect_answers (lists of texts). The lists of a question that is
            there twice are joined.
    Returns:
        the responses with `correct_answers` and `incorrect_answers`, null where the question is unknown; and how many
        of their questions are unknown.
    Raises:
        BadInput: none of the questions is known.
    """
    import polars as pl

    lists = ("correct_answers", "incorrect_answers")
    known = references.group_by("question", maintain_order=True).agg(
        pl.col(name).list.explode(keep_nulls=False, empty_as_null=False).unique(maintain_order=True) for name in lists
    )
    joined = responses.drop(lists, strict=False).join(known, on="question", how="left", maintain_order="left")
    asked = joined.select("question", "correct_answers").unique("question")
    unknown = asked["correct_answers"].null_count()
    if asked.height and unknown == asked.height:
        first = shown(asked["question"][0], 60)
        raise BadInput(f"none of the {asked.height} questions is in the references; one of them is {first!r}")
    return joined, unknown


def status_line(judge: str, counts: Mapping[str, int]) -> str:
    """What became of the responses under one judge, in one line for people.

    Args:
        counts: status -> responses.
    """
    n = sum(counts.values())
    others = [
        f"{counts[status]} {said}" for status, said in STATUSES.items() if status != "judged" and status in counts
    ]
    return f"{judge}: {counts.get('judged', 0)} of {n} responses judged" + (f"; {', '.join(others)}" if others else "")
