"""Input files, ours or anybody's: Parquet, CSV or JSONL with the table's required columns, identified by content."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.files import recorded_digest, sha256_file
from hcl_cli.artifacts.parquet import Damaged, check_pages, read_footer, read_frame, schema_problem
from hcl_cli.artifacts.recipe import SHORT, document_key
from hcl_cli.errors import BadInput, EnvironmentRefused, shown
from hcl_cli.records import PARQUET_START, check_file, file_format, read_bytes, read_records
from hcl_cli.schemas import TABLES, Table

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_REPLACED_S = 0.2  # a file and its .sha256 are renamed one after the other


@dataclass(frozen=True)
class Source:
    """A checked input file.

    Attributes:
        path: as given.
        table: what it was read as; null if it was read as any table and is not ours.
        sha256: of its bytes: its identity.
        key, recipe: of the artifact it is; null if it is not ours.
        ignored: columns of a foreign file that the table has no place for.
        columns: that the frame has.
    """

    path: Path
    table: Table | None
    sha256: str
    key: str | None = None
    recipe: dict[str, Any] | None = None
    ignored: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    _foreign: Any = field(default=None, repr=False)

    @property
    def is_ours(self) -> bool:
        """Whether an hcl command made the file."""
        return self.recipe is not None

    def frame(self) -> pl.LazyFrame:
        """The rows, in the table's columns and types; columns that a foreign file lacks are null."""
        import polars as pl

        if self._foreign is not None:
            lazy: pl.LazyFrame = self._foreign.lazy()
            return lazy
        if recorded_digest(self.path) != self.sha256:  # a copy: its footer was read, but not verified
            try:
                return read_frame(self.path).lazy()
            except (Damaged, OSError) as error:
                raise BadInput(f"{self.path}: {error}; copy it again") from error
        return pl.scan_parquet(self.path, glob=False)


def read_source(path: Path, table: Table) -> Source:
    """An input file as `table`.

    Raises:
        BadInput: one line naming the file, and where it applies the row and the column.
    """
    return _read(path, table)


def read_any(path: Path) -> Source:
    """A file of any table, ours or foreign, e.g. to show it."""
    return _read(path, None)


def _read(path: Path, table: Table | None) -> Source:
    label = shown(path, 1000)
    check_file(path, label)
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(PARQUET_START)) == PARQUET_START
        document, schema = read_footer(path)[:2] if is_parquet else (None, None)
    except Damaged as damage:
        raise BadInput(f"{label}: {damage}; make or fetch it again") from damage
    except OSError as error:
        raise EnvironmentRefused(f"{label}: cannot be read ({error.strerror})") from error
    if document is not None and schema is not None:
        return _ours(path, table, document, schema)
    from hcl_cli.artifacts.foreign import foreign_frame

    data = read_bytes(path, label)
    frame, ignored = foreign_frame(read_records(data, file_format(path, data, label), label), table)
    sha256 = hashlib.sha256(data).hexdigest()
    return Source(path, table, sha256, ignored=ignored, columns=tuple(frame.columns), _foreign=frame)


def _ours(path: Path, table: Table | None, document: dict[str, Any], schema: pa.Schema) -> Source:
    found = TABLES.get(document["table"])
    is_wider = table is not None and document["table"] in table.read_from
    if table is not None and document["table"] != table.name and not is_wider:
        made_by = f"; make one with `hcl {table.made_by}`" if table.made_by else ""
        raise BadInput(f"{path}: holds table {document['table']}, expected {table.name}{made_by}")
    expected = found if is_wider else table or found
    problem = schema_problem(schema, expected) if expected is not None else None
    if problem:
        raise BadInput(f"{path}: {problem}; it was made by another version of hcl: make it again")
    try:
        key = document_key(document)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: its recipe has no canonical form; make it again") from error
    return Source(path, expected, _verified_digest(path, key), key, document, columns=tuple(schema.names))


def _verified_digest(path: Path, key: str) -> str:
    """SHA-256 of a file of ours, after checking it against its .sha256, or a copy without one page by page."""
    stored_name = len(path.stem) == SHORT and set(path.stem) <= set("0123456789abcdef")
    if stored_name and path.stem != key[:SHORT]:
        raise BadInput(f"{path}: its recipe has the key {key[:SHORT]}, not its name's; it was renamed or replaced")
    sha256, recorded = _digest(path), recorded_digest(path)
    if recorded is not None and sha256 != recorded:
        time.sleep(_REPLACED_S)  # another process may be between the two renames of a replacement
        sha256, recorded = _digest(path), recorded_digest(path)
    if recorded is None:
        try:
            check_pages(path)
        except Damaged as damage:
            raise BadInput(f"{path}: {damage}; make it again with --force, or copy it again") from damage
    elif sha256 != recorded:
        raise BadInput(f"{path}: its bytes do not match its .sha256; make it again with --force, or copy it again")
    return sha256


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise EnvironmentRefused(f"{path}: cannot be read ({error.strerror})") from error
