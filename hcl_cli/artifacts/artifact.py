"""One finished artifact: how it is checked, and what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.files import copy_file, output_path, recorded_digest, sha256_file
from hcl_cli.artifacts.parquet import Damaged, open_parquet, read_footer, schema_problem
from hcl_cli.artifacts.recipe import SHORT, document_key
from hcl_cli.schemas import TABLES, Table

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Artifact:
    """A Parquet file that was checked.

    Attributes:
        path: absolute.
        key: SHA-256 of its recipe, 64 hex digits.
        sha256: of its bytes.
        table, stage: names.
        rows: their number.
        recipe: the document of its footer.
        cached: whether this call found it made.
        computed: rows that this call computed; 0 for a hit, fewer than `rows` if finished shards were used.
    """

    path: Path
    key: str
    sha256: str
    table: str
    stage: str
    rows: int
    recipe: dict[str, Any] = field(repr=False)
    cached: bool = True
    computed: int = 0

    @property
    def inputs(self) -> list[dict[str, str | None]]:
        """SHA-256 and key of each input file, for lineage."""
        return list(self.recipe["inputs"])

    def frame(self) -> pl.LazyFrame:
        """The rows, read when collected."""
        import polars as pl

        return pl.scan_parquet(self.path, glob=False)

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain Python values, without importing Polars; for small tables."""
        with open_parquet(self.path) as reader:
            rows: list[dict[str, Any]] = reader.read(use_threads=False).to_pylist()
        return rows


def open_artifact(path: Path, *, key: str | None = None, table: Table | None = None) -> Artifact:
    """Check a file of the store: bytes against its .sha256, recipe against its name, columns against its table.

    Args:
        key: the whole key that it must have; only its name is compared if null.
        table: the table it must hold; the one its recipe names if null.
    Raises:
        Damaged: if any check fails; says which.
        OSError: if it cannot be read.
    """
    recorded = recorded_digest(path)
    if recorded is None:
        raise Damaged("its .sha256 is missing or unreadable")
    if sha256_file(path) != recorded:
        raise Damaged("its bytes do not match its .sha256")
    document, schema, rows = read_footer(path)
    if document is None:
        raise Damaged("it has no recipe, so hcl did not write it")
    found = _key_of(document)
    if found[:SHORT] != path.stem or found != (key or found):
        raise Damaged(f"its recipe has the key {found[:SHORT]}, not its name's")
    expected = table or TABLES.get(document["table"])
    if expected is not None:
        problem = schema_problem(schema, expected)
        if document["table"] != expected.name or problem:
            raise Damaged(problem or f"it holds table {document['table']}, not {expected.name}")
    return Artifact(path, found, recorded, document["table"], document["stage"], rows, document)


def _key_of(document: dict[str, Any]) -> str:
    try:
        return document_key(document)
    except (TypeError, ValueError) as error:
        raise Damaged("its recipe has no canonical form") from error


def write_copy(artifact: Artifact, out: Path) -> Path:
    """Place a copy of an artifact at `out` (`-o FILE`), whole or not at all, and return its path.

    Raises:
        BadOption: if `out` is a folder or a device, or lies in no folder.
        EnvironmentRefused: if it cannot be written.
    """
    target = output_path(out)
    copy_file(artifact.path, target, artifact.sha256)
    return target
