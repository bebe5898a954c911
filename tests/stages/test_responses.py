"""Responses from elsewhere: what is filled in, what is refused and how it is said."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hcl_cli.errors import BadInput
from hcl_cli.schemas import RESPONSES
from hcl_cli.stages.responses import completed_responses


def foreign(**columns: object) -> pl.DataFrame:
    """Three responses to two questions, as someone else's file might hold them."""
    return pl.DataFrame(
        {
            "question": ["Capital of France?", "Capital of Peru?", "Capital of France?"],
            "answers": [["Paris"], ["Lima"], ["Paris"]],
            "response": ["Paris", "Lima", "Lyon"],
            **columns,
        }
    )


def test_missing_columns_are_filled() -> None:
    frame = completed_responses(foreign(note=["x", "y", "z"]))
    assert frame.select(*RESPONSES.columns).schema == RESPONSES.polars_schema()
    assert frame["note"].to_list() == ["x", "y", "z"]
    # sha256 of the question's UTF-8 bytes
    assert frame["question_id"].to_list() == ["221acfeb028204b9", "5c242018f7cc8f57", "221acfeb028204b9"]
    assert frame["sample_index"].to_list() == [0, 0, 1]
    assert frame["exit_layer"].null_count() == frame["model"].null_count() == 3
    assert_frame_equal(completed_responses(frame), frame)


def test_a_missing_id_alone_is_filled() -> None:
    frame = completed_responses(foreign(question_id=["mine", None, "mine"]))
    assert frame["question_id"].to_list() == ["mine", "5c242018f7cc8f57", "mine"]


def test_samples_are_numbered_within_question_and_layer() -> None:
    columns = {"question": ["q"] * 4, "answers": [["a"]] * 4, "response": list("wxyz"), "exit_layer": [4, 2, 4, 2]}
    assert completed_responses(pl.DataFrame(columns))["sample_index"].to_list() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (foreign().drop("answers"), "column answers is missing; responses need question, answers, response"),
        (foreign(response=["Paris", None, "Lyon"]), "row 2, column response: null, expected text"),
        (foreign(question=[None, "p", "q"]), "row 1, column question: null, expected text"),
        (foreign(sample_index=[0, None, 1]), "row 2, column sample_index: null, while other rows have a number"),
        (
            foreign(sample_index=[0, 0, 0], exit_layer=[2, 2, 2], question_id=["p", "q", "p"]),
            "row 3 repeats the key of row 1 (question_id p, exit_layer 2, sample_index 0); each response needs its own",
        ),
    ],
)
def test_what_cannot_be_used_is_named(frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        completed_responses(frame)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
