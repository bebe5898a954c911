"""Judged answers as responses: who is judged by what."""

import polars as pl
import pytest

from hcl_cli.data.people import open_people, people_rows
from hcl_cli.errors import BadOption


def test_rows_by_hand() -> None:
    questions = pl.DataFrame(
        {
            "question_id": ["one", "two"],
            "question": ["?", "??"],
            "answers": [["only"], ["a", "b", "c"]],
            "possible_answers": [["p"], ["m"]],
            "incorrect_answers": [["x"], ["v", "w", "x", "y"]],
        }
    )
    rows = people_rows(questions).select("question_id", "response", "answers", "human").rows()
    assert rows == [
        ("two", "a", ["b", "c"], True), ("two", "b", ["a", "c"], True), ("two", "c", ["a", "b"], True),
        ("two", "v", ["b", "c"], False), ("two", "w", ["a", "c"], False), ("two", "x", ["a", "b"], False),
        ("two", "y", ["b", "c"], False), ("two", "m", ["b", "c"], None),
    ]  # fmt: skip
    assert people_rows(questions)["sample_index"].to_list() == list(range(8))


def test_the_built_in_set() -> None:
    rows = people_rows(open_people("efficientqa").load(extra=True))
    assert rows["question_id"].n_unique() == 537
    assert dict(rows["human"].value_counts().rows()) == {True: 1630, False: 1094, None: 283}
    assert rows.filter(pl.col("answers").list.len() == 0).height == 0
    for other in ("triviaqa", "judged.jsonl"):
        with pytest.raises(BadOption, match=f"^--people {other}: expected efficientqa; a file with a column human"):
            open_people(other)
