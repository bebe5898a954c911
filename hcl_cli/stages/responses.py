"""Responses from elsewhere -> the RESPONSES table with whole, unique keys."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hcl_cli.errors import BadInput
from hcl_cli.schemas import RESPONSES

if TYPE_CHECKING:
    import polars as pl

# The samples of one question at one exit: what is clustered together.
GROUP = tuple(column for column in RESPONSES.key if column != "sample_index")


def completed_responses(frame: pl.DataFrame) -> pl.DataFrame:
    """RESPONSES with every column and unique keys, then further columns; rows keep their order.

    A missing `question_id` becomes a hash of the question, a missing `sample_index` the running number within its
    group; what else is missing stays null. Of our own tables nothing is missing, and they come back as they are.

    Args:
        frame: columns of RESPONSES in types that cast to the table's; all but the required ones may be absent or null.
    Raises:
        BadInput: a required column is absent, a question or response is null, `sample_index` is null in some rows
            only, or two rows have the same key (null counts as a value). Rows are counted from 1.
    """
    import polars as pl

    missing = [name for name in RESPONSES.required if name not in frame.columns]
    if missing:
        raise BadInput(f"column {missing[0]} is missing; responses need {', '.join(RESPONSES.required)}")
    frame = frame.with_columns(
        pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, dtype=kind).alias(name)
        for name, kind in RESPONSES.polars_schema().items()
    )
    for name in RESPONSES.not_null:
        if frame[name].has_nulls():
            raise BadInput(f"row {_first(frame[name].is_null())}, column {name}: null, expected text")
    if frame["question_id"].has_nulls():
        hashes = {text: question_hash(text) for text in frame["question"].unique()}
        frame = frame.with_columns(pl.col("question_id").fill_null(pl.col("question").replace_strict(hashes)))
    index = frame["sample_index"]
    if index.null_count() == frame.height:
        frame = frame.with_columns(sample_index=pl.int_range(pl.len(), dtype=pl.Int32).over(GROUP))
    elif index.has_nulls():
        raise BadInput(
            f"row {_first(index.is_null())}, column sample_index: null, while other rows have a number; "
            "number all rows, or leave the column out"
        )
    _refuse_repeated(frame)
    return frame


def question_hash(question: str) -> str:
    """The `question_id` of a question that came without one: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def _first(flags: pl.Series) -> int:
    """The number, counting from 1, of the first row whose flag is set."""
    return int(flags.arg_true()[0]) + 1


def _refuse_repeated(frame: pl.DataFrame) -> None:
    key = frame.select(*RESPONSES.key)
    repeated = key.is_duplicated()
    if not repeated.any():
        return
    groups = key.with_row_index("row", offset=1).filter(repeated).group_by(RESPONSES.key, maintain_order=True)
    first, second = groups.agg("row")["row"][0][:2]
    row = key.row(first - 1, named=True)
    said = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
    raise BadInput(f"row {second} repeats the key of row {first} ({said}); each response needs its own sample_index")
