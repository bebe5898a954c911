"""Rows of a Parquet, CSV or JSONL file, each with its place, so that an error can name it."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput, shown

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip


@dataclass(frozen=True)
class Records:
    """Rows as plain Python values.

    Attributes:
        name: the file or data set, fit for a message.
        unit: "line" (1-based, of a text file) or "row" (1-based).
        columns: names, in the file's order.
        rows: (place, values); a column that a row does not have is absent or None.
    """

    name: str
    unit: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]

    def at(self, place: int, column: str | None = None) -> str:
        """ "questions.csv, line 3, column answers": how a message begins."""
        return f"{self.name}, {self.unit} {place}" + (f", column {shown(column)}" if column else "")


def file_format(path: PurePath) -> str:
    """parquet, csv, tsv or jsonl, by the name's ending. Raises BadInput for any other."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise BadInput(
            f"{shown(path.name)}: files of questions are told by the end of the name, expected {', '.join(FORMATS)}"
        ) from None


def read_records(data: bytes, kind: str, name: str, wanted: Sequence[str] = ()) -> Records:
    """Parse a file's bytes.

    Args:
        data: the whole file.
        kind: what `file_format` says.
        name: how messages call the file.
        wanted: of a Parquet file, read only these columns (where present); all if empty.
    Raises:
        BadInput: one line that names the file, the line or row, and what is wrong with it.
    """
    if not data:
        raise BadInput(f"{name}: the file is empty, expected one question per row")
    if kind == "parquet":
        return _from_parquet(data, name, wanted)
    if kind == "jsonl":
        return _from_jsonl(data, name)
    return _from_csv(data, name, "\t" if kind == "tsv" else ",")


def _decoded(data: bytes, name: str, first_line: int = 1) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise BadInput(
            f"{name}, line {line}: byte 0x{data[error.start]:02x} is not valid UTF-8; save the file as UTF-8"
        ) from None


def _from_csv(data: bytes, name: str, delimiter: str) -> Records:
    text = _decoded(data.removeprefix(b"\xef\xbb\xbf"), name)
    limit = csv.field_size_limit(sys.maxsize)  # passages are longer than the default limit of 131,072 characters
    try:
        return _csv_records(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), name)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    while True:
        line = reader.line_num + 1  # a quoted cell may span lines: name the first
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadInput(f"{name}, line {line}: broken CSV ({shown(error)})") from None
        if row:
            yield line, row


def _csv_records(reader: Any, name: str) -> Records:
    lines = _csv_rows(reader, name)
    head = next(lines, None)
    if head is None:
        raise BadInput(f"{name}: the file holds blank lines only, expected a header and one question per row")
    header = [cell.strip() for cell in head[1]]
    repeated = next((cell for i, cell in enumerate(header) if cell in header[:i]), None)
    if repeated is not None:
        raise BadInput(f"{name}, line {head[0]}: the header names column {shown(repeated)!r} twice")
    rows = []
    for line, cells in lines:
        if len(cells) != len(header):
            raise BadInput(f"{name}, line {line}: {len(cells)} cells, but the header names {len(header)} columns")
        rows.append((line, dict(zip(header, cells, strict=True))))
    return Records(name, "line", tuple(header), rows)


def _from_jsonl(data: bytes, name: str) -> Records:
    columns: dict[str, None] = {}
    rows = []
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        text = _decoded(raw, name, line).strip()
        if not text:
            continue
        value = _json_line(text, name, line)
        if not isinstance(value, dict):
            raise BadInput(
                f"{name}, line {line}: {type_name(value)}, expected one JSON object per line, "
                'like {"question": "...", "answers": ["..."]}'
            )
        columns.update(dict.fromkeys(value))
        rows.append((line, value))
    return Records(name, "line", tuple(columns), rows)


def _json_line(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{name}, line {line}: broken JSON ({error.msg}, character {error.pos + 1}); expected one object per line"
        ) from None
    except (ValueError, RecursionError):  # a number of thousands of digits; lists nested thousands deep
        raise BadInput(f"{name}, line {line}: the JSON has a number too long or is nested too deep to read") from None


def _from_parquet(data: bytes, name: str, wanted: Sequence[str]) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # What a damaged file raises depends on where it is damaged.
    damaged = (pa.ArrowException, OSError, ValueError, KeyError, NotImplementedError, MemoryError, OverflowError)
    try:
        # One thread, nothing read ahead: a damaged page met by Arrow's own threads can abort the process at exit.
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        columns = tuple(file.schema_arrow.names)
        table = file.read([column for column in columns if not wanted or column in wanted], use_threads=False)
        table.validate(full=False)
    except damaged as error:
        raise BadInput(f"{name}: not a readable Parquet file ({shown(error, 100)})") from None
    return table_records(table, name, columns)


def table_records(table: pa.Table, name: str, columns: Sequence[str] | None = None) -> Records:
    """The rows of an Arrow table. `columns` are the names to report if more exist than the table carries."""
    repeated = next((n for i, n in enumerate(table.column_names) if n in table.column_names[:i]), None)
    if repeated is not None:
        raise BadInput(f"{name}: column {shown(repeated)!r} is there twice")
    values = {column: _column_values(table.column(column), name, column) for column in table.column_names}
    rows = [(i + 1, {column: cells[i] for column, cells in values.items()}) for i in range(table.num_rows)]
    return Records(name, "row", tuple(columns or table.column_names), rows)


def _column_values(cells: pa.ChunkedArray, name: str, column: str) -> list[Any]:
    import pyarrow as pa

    unreadable = (pa.ArrowException, ValueError, NotImplementedError, OverflowError, KeyError)
    try:
        return list(cells.to_pylist())
    except unreadable:
        for row, cell in enumerate(cells, start=1):  # slower: only to say which row it was
            try:
                cell.as_py()
            except UnicodeDecodeError:
                raise BadInput(f"{name}, row {row}, column {shown(column)}: not valid UTF-8") from None
            except unreadable as error:
                raise BadInput(f"{name}, row {row}, column {shown(column)}: {shown(error, 80)}") from None
        raise


def type_name(value: object) -> str:
    """How a message calls the kind of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    names: dict[type, str] = {
        str: "text", int: "a whole number", float: "a number", bytes: "binary data", list: "a list", dict: "an object",
    }  # fmt: skip
    return names.get(type(value), f"a {type(value).__name__}")
