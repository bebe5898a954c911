"""Other people's files as our tables: types cast exactly, one clear line where they cannot be."""

from __future__ import annotations

import ast
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.parquet import Damaged, read_frame
from hcl_cli.errors import BadInput
from hcl_cli.schemas import Table

if TYPE_CHECKING:
    import polars as pl

_CSV = {".csv": ",", ".tsv": "\t"}
_JSONL = (".jsonl", ".ndjson")
_NEVER_BELOW_0 = ("exit_layer", "sample_index")
_INTEGER_RANGE = {"int16": 2**15, "int32": 2**31, "int64": 2**63}


def read_foreign(path: Path, table: Table | None) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of a file that is not ours, in the table's columns, and the columns that it has no place for.

    Columns that the file lacks are null; further ones are kept where the table allows it. A text where a list of
    texts belongs is a list of one. In CSV a list is a JSON array in its cell, and an empty cell is null, or the
    empty text in a column that may not be null.

    Raises:
        BadInput: names the file, and where it applies the row (from 1, without a CSV header; the line of a JSONL
            file) and the column.
    """
    frame, row_numbers = _raw(path, set(table.columns) if table else set())
    if table is None:
        return frame, ()
    if missing := [name for name in table.required if name not in frame.columns]:
        have = ", ".join(frame.columns[:20])
        raise BadInput(
            f"{path}: table {table.name} needs column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"the file has {have}"
        )
    if frame.height == 0:
        raise BadInput(f"{path}: has no rows")
    return _as_table(path, frame, table, row_numbers, from_csv=_kind(path) == "csv")


def _as_table(
    path: Path, frame: pl.DataFrame, table: Table, row_numbers: list[int] | None, *, from_csv: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    import polars as pl

    def row(i: int) -> int:
        return row_numbers[i] if row_numbers else i + 1

    types = table.polars_schema()
    columns = []
    for name, kind in table.columns.items():
        if name not in frame.columns:
            columns.append(pl.Series(name, [None] * frame.height, dtype=types[name]))
            continue
        quick = _quick(frame[name], types[name])
        column = _cast(path, frame[name], kind, types[name], row) if quick is None else quick
        if column.null_count() and name in table.not_null:
            if not (from_csv and kind == "string"):
                i = column.is_null().arg_true()[0]
                raise BadInput(f"{path}: row {row(i)}: column {name} is missing; every row needs one")
            column = column.fill_null("")
        if name in _NEVER_BELOW_0 and (column < 0).any():
            i = (column < 0).fill_null(False).arg_true()[0]
            raise BadInput(f"{path}: row {row(i)}: column {name} is {column[i]}, expected 0 or more")
        columns.append(column)
    others = [name for name in frame.columns if name not in types]
    kept = others if table.extra else []
    result = pl.DataFrame([*columns, *(frame[name] for name in kept)])
    key = [name for name in table.key if name in frame.columns]
    if len(key) == len(table.key):
        twice = result.select(key).is_duplicated() & result.select(pl.all_horizontal(pl.col(key).is_not_null()))[key[0]]
        if twice.any():
            i = twice.arg_true()[1]
            shown = ", ".join(f"{name} {result[name][i]!r}" for name in key)
            raise BadInput(f"{path}: row {row(i)}: {shown} stands in an earlier row too; expected each once")
    return result, tuple(name for name in others if name not in kept)


def _quick(column: pl.Series, dtype: Any) -> pl.Series | None:
    """The column in the table's type where that is exact for whole columns at once, else null."""
    import polars as pl

    was = column.dtype
    if was == pl.List(pl.String) == dtype:
        return None if column.list.eval(pl.element().is_null()).list.any().any() else column
    if was.is_float() and dtype == pl.Float64:
        return column.cast(dtype).fill_nan(None)
    if was.is_integer() and dtype.is_integer():
        try:
            return column.cast(dtype, strict=True)
        except pl.exceptions.PolarsError:
            return None
    return column if was == dtype and not was.is_float() else None


def _cast(path: Path, column: pl.Series, kind: str, dtype: Any, row: Callable[[int], int]) -> pl.Series:
    """The column in the table's type, value by value where a plain cast is not exact."""
    import polars as pl

    convert = _CONVERTERS[kind]
    values = []
    for i, value in enumerate(column.to_list()):
        try:
            values.append(None if value is None else convert(value, kind))
        except (ValueError, TypeError, OverflowError) as error:
            limit = f" below {_INTEGER_RANGE[kind]}" if isinstance(error, OverflowError) and "int" in kind else ""
            raise BadInput(
                f"{path}: row {row(i)}: column {column.name} is {_shown(value)}, expected {_NAMES[kind]}{limit}"
            ) from None
    return pl.Series(column.name, values, dtype=dtype)


def _text(value: Any, kind: str) -> str:
    if isinstance(value, str):
        value.encode()  # JSON can spell half a surrogate pair, which is no text
        return value
    if isinstance(value, int) and not isinstance(value, bool):  # ids are often numbers
        return str(value)
    raise TypeError


def _integer(value: Any, kind: str) -> int | None:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise ValueError
    number = int(value.strip() if isinstance(value, str) else value)
    if not -_INTEGER_RANGE[kind] <= number < _INTEGER_RANGE[kind]:
        raise OverflowError
    return number


def _real(value: Any, kind: str) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    return None if math.isnan(number) else number


_TRUTH = {"true": True, "false": False, "1": True, "0": False}


def _truth(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _TRUTH[value.strip().lower()] if value.strip().lower() in _TRUTH else _never()
    if value in (0, 1):
        return bool(value)
    raise ValueError


def _never() -> bool:
    raise ValueError


def _texts(value: Any, kind: str) -> list[str]:
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("["):
            return [value]
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            try:
                value = ast.literal_eval(text)  # as pandas writes a list
            except (SyntaxError, ValueError, MemoryError, RecursionError):
                raise ValueError from None
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError
    return [_text(one, kind) for one in value]


_CONVERTERS: dict[str, Callable[[Any, str], Any]] = {
    "string": _text, "int16": _integer, "int32": _integer, "int64": _integer, "float32": _real, "float64": _real,
    "bool": _truth, "list[string]": _texts,
}  # fmt: skip
_NAMES = {
    "string": "text", "int16": "a whole number", "int32": "a whole number", "int64": "a whole number",
    "float32": "a number", "float64": "a number", "bool": "true or false",
    "list[string]": "a list of texts (in CSV a JSON array)",
}  # fmt: skip


def _kind(path: Path) -> str:
    ending = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    if ending in _CSV:
        return "csv"
    if ending in _JSONL or (ending in ("", ".json", ".txt") and start.startswith(b"{")):
        return "jsonl"
    raise BadInput(f"{path}: its format is not known; expected .parquet, .csv, .tsv or .jsonl (one object per line)")


def _raw(path: Path, known: set[str]) -> tuple[pl.DataFrame, list[int] | None]:
    """The file's columns as they are, and the row numbers to show where they are not 1, 2, 3, ..."""
    kind = _kind(path)
    if kind == "csv":
        return _raw_csv(path), None
    if kind == "jsonl":
        return _raw_jsonl(path, known)
    try:
        return read_frame(path), None
    except (Damaged, OSError) as error:
        raise BadInput(f"{path}: {error}; make or fetch it again") from error


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}: line {line} is not valid UTF-8; convert the file to UTF-8") from error


def _raw_csv(path: Path) -> pl.DataFrame:
    """Every cell as text: guessing types from the first rows is how ids lose their leading zeros."""
    import csv

    import polars as pl

    text = _decoded(path)
    header: list[str] | None = None
    rows: list[list[str | None]] = []
    csv.field_size_limit(2**31 - 1)
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=_CSV[path.suffix.lower()], strict=True):
            if not cells:
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                raise BadInput(f"{path}: row {len(rows) + 1} has {len(cells)} cells, the header {len(header)}")
            else:
                rows.append([cell if cell != "" else None for cell in cells])
    except csv.Error as error:
        raise BadInput(f"{path}: row {len(rows) + 1} is not valid CSV ({error})") from error
    if header is None:
        raise BadInput(f"{path}: is empty")
    if len(set(header)) != len(header):
        raise BadInput(f"{path}: two columns have the same name; expected each once")
    return pl.DataFrame({name: pl.Series([row[i] for row in rows], dtype=pl.String) for i, name in enumerate(header)})


def _raw_jsonl(path: Path, known: set[str]) -> tuple[pl.DataFrame, list[int]]:
    import polars as pl

    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: line {number} is not JSON ({error}); expected one object per line") from error
        if not isinstance(row, dict):
            raise BadInput(f"{path}: line {number} is {_shown(row)}, expected one object per line")
        for name in (name for name in row if name not in columns):
            if not _is_text(name):
                raise BadInput(f"{path}: line {number}: column name {_shown(name)} is not valid Unicode")
            columns[name] = [None] * len(numbers)
        for name, values in columns.items():
            values.append(row.get(name))
        numbers.append(number)
    if not numbers:
        raise BadInput(f"{path}: is empty")
    return pl.DataFrame([_series(name, values, name in known) for name, values in columns.items()]), numbers


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _series(name: str, values: list[Any], known: bool) -> pl.Series:
    """A column of JSON values: Python objects if the table knows its type, else the type found, else JSON text."""
    import polars as pl

    if known:
        return pl.Series(name, values, dtype=pl.Object)
    try:
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [None if value is None else json.dumps(value) for value in values], dtype=pl.String)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
