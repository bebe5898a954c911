"""Answers of real systems that people have judged, as responses with the people's verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.data.questions import QuestionSet, open_questions
from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    import polars as pl

HUMAN = "human"  # the column of the people's verdict; null where they could not agree
JUDGED_SETS = ("efficientqa",)


def open_people(name: str, *, memo: Path | None = None, warn: Callable[[str], None] | None = None) -> QuestionSet:
    """The set of judged answers of that name, whose rows `people_rows` makes.

    Raises:
        BadOption: another one.
    """
    if name not in JUDGED_SETS:
        raise BadOption(
            f"--people {name}: expected {' or '.join(JUDGED_SETS)}; a file with a column human beside question, "
            "answers and response is scored as it is: hcl score FILE"
        )
    return open_questions(name, memo=memo, warn=warn)


def people_rows(questions: pl.DataFrame) -> pl.DataFrame:
    """Each judged answer as a response, its question's other accepted answers as what is accepted.

    The set does not say which accepted answers are annotated references and which are answers of systems that people
    called right. So every accepted answer is judged by the others (leave one out), and an answer that people called
    wrong by as many: the first one leaves out the first accepted answer, the second the second, and so on in turns.
    Questions with one accepted answer are left out. A system that repeats the reference is right by equality; here that
    reference is gone with it, so that the recall of judges that look for words is below what they have in use.

    Args:
        questions: question_id, question, answers, possible_answers, incorrect_answers.
    Returns:
        question_id, question, answers, response, sample_index, human (true, false, null: debatable).
    """
    import polars as pl

    rows: list[tuple[str, str, list[str], str, int, bool | None]] = []
    for question_id, question, accepted, possible, incorrect in questions.select(
        "question_id", "question", "answers", "possible_answers", "incorrect_answers"
    ).iter_rows():
        if len(accepted) < 2:
            continue
        judged = [(accepted, True), (incorrect or [], False), (possible or [], None)]
        index = 0
        for answers, verdict in judged:
            for at, answer in enumerate(answers):
                left_out = at % len(accepted)
                others = [*accepted[:left_out], *accepted[left_out + 1 :]]
                rows.append((question_id, question, others, answer, index, verdict))
                index += 1
    schema = pl.Schema(
        {
            "question_id": pl.String(), "question": pl.String(), "answers": pl.List(pl.String), "response": pl.String(),
            "sample_index": pl.Int32(), HUMAN: pl.Boolean(),
        }
    )  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")
