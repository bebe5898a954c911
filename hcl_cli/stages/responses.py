"""Responses from elsewhere -> the RESPONSES table: what is missing is filled in, what cannot be used is refused."""

from __future__ import annotations

import hashlib
import json
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
    group; `answers` may be a list, one string, or a JSON list in a string; other missing columns are null.

    Raises:
        BadInput: a column is missing or of the wrong type, a question or response is null, or two rows have the same
            key. Rows are counted from 1.
    """
    import polars as pl

    missing = [name for name in RESPONSES.required if name not in frame.columns]
    if missing:
        raise BadInput(f"column {missing[0]} is missing; responses need {', '.join(RESPONSES.required)}")
    frame = frame.with_columns(answers_as_lists(frame["answers"]))
    frame = frame.with_columns(
        pl.lit(None, dtype=kind).alias(name) if name not in frame.columns else _cast(frame[name], kind)
        for name, kind in RESPONSES.polars_schema().items()
    )
    for name in RESPONSES.not_null:
        if frame[name].has_nulls():
            raise BadInput(f"row {_first(frame[name].is_null())}, column {name}: null, expected text")
    digests = {text: question_hash(text) for text in frame["question"].unique()}
    frame = frame.with_columns(
        pl.col("question_id").fill_null(pl.col("question").replace_strict(digests, return_dtype=pl.String))
    )
    if frame["sample_index"].null_count() == frame.height:
        frame = frame.with_columns(sample_index=pl.int_range(pl.len(), dtype=pl.Int32).over(GROUP))
    elif frame["sample_index"].has_nulls():
        raise BadInput(f"row {_first(frame['sample_index'].is_null())}, column sample_index: null, others have one")
    _refuse_repeated(frame)
    return frame


def question_hash(question: str) -> str:
    """The `question_id` of a question that came without one: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def answers_as_lists(answers: pl.Series) -> pl.Series:
    """A column of accepted answers as lists: a list stays, a string is one answer or a JSON list of answers.

    An empty string is no answer. Numbers become text.

    Raises:
        BadInput: a string looks like a list but is not JSON (a list as Python prints it, for example).
    """
    import polars as pl

    if answers.dtype != pl.String:
        one = answers.dtype.inner if isinstance(answers.dtype, pl.List) else answers.dtype
        if one.is_nested():  # a struct would become text that no response contains
            raise BadInput(f"column {answers.name}: {answers.dtype}, expected a list of texts, or one text")
        if isinstance(answers.dtype, pl.List):
            return answers.cast(pl.List(pl.String))
        answers = answers.cast(pl.String)
    lists: list[list[str] | None] = []
    for row, cell in enumerate(answers):
        text = (cell or "").strip()
        if not (text.startswith("[") and text.endswith("]")):
            lists.append([cell] if text else None)
            continue
        try:
            lists.append([one if isinstance(one, str) else json.dumps(one) for one in json.loads(text)])
        except ValueError:
            raise BadInput(
                f'row {row + 1}, column answers: {text[:40]} is not a JSON list; expected ["one", "two"] or one answer'
            ) from None
    return pl.Series(answers.name, lists, dtype=pl.List(pl.String))


def _cast(column: pl.Series, kind: pl.DataType) -> pl.Series:

    expected = RESPONSES.columns[column.name]
    if column.dtype.is_nested() != kind.is_nested():
        raise BadInput(f"column {column.name}: {column.dtype}, expected {expected}")
    cast = column.cast(kind, strict=False)
    lost = cast.is_null() & column.is_not_null()
    if lost.any():
        row = _first(lost)
        raise BadInput(f"row {row}, column {column.name}: {column[row - 1]!r:.40}, expected {expected}")
    if column.dtype.is_float() and kind.is_integer() and (cut := column != cast).any():
        row = _first(cut)
        raise BadInput(f"row {row}, column {column.name}: {column[row - 1]}, expected a whole number")
    return cast


def _first(flags: pl.Series) -> int:
    """The number, counting from 1, of the first row whose flag is set."""
    return int(flags.fill_null(False).arg_max() or 0) + 1


def _refuse_repeated(frame: pl.DataFrame) -> None:

    key = frame.select(*RESPONSES.key)
    if not (repeated := key.is_duplicated()).any():
        return
    numbered = key.with_row_index("row", offset=1).filter(repeated)
    groups = numbered.group_by(RESPONSES.key, maintain_order=True).agg("row")
    first, second = groups["row"][0][0], groups["row"][0][1]
    row = frame.row(first - 1, named=True)
    said = ", ".join(f"{name} {row[name]}" for name in RESPONSES.key if row[name] is not None)
    raise BadInput(f"row {second} repeats the key of row {first} ({said}); each response needs its own sample_index")
