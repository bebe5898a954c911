"""Finished blocks on disk: each is written before the next begins, and checked like an artifact when read.

A shard is one Parquet file with the cells that one call computed for one block. Shards lie under the base key, so
recipes that differ only in growing options share them; finished artifacts of the same base serve too.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.artifact import open_artifact
from hcl_cli.artifacts.cells import Block, CellTable, Rows
from hcl_cli.artifacts.files import (
    digest_path,
    is_abandoned,
    is_temporary,
    publish,
    recorded_digest,
    refusing,
    temporary,
)
from hcl_cli.artifacts.parquet import Damaged, open_parquet, read_footer, read_frame, schema_problem, write_parquet
from hcl_cli.artifacts.recipe import SHORT, canonical, document_base_key, document_key
from hcl_cli.schemas import Table

if TYPE_CHECKING:
    import polars as pl


class Shelf:
    """The finished shards of one base, and the finished artifacts that share it."""

    def __init__(
        self, base: dict[str, Any], cells: CellTable, folder: Path, target: Path, warn: Callable[[str], None]
    ) -> None:
        self._base, self._cells, self._folder, self._target, self._warn = base, cells, folder, target, warn
        self._finished: list[FinishedRows] | None = None

    def clear_temporary(self) -> None:
        """Remove what killed processes left. Call only under the lock of the base."""
        for path in self._folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        for path in self._target.parent.glob(".*.tmp"):
            if is_temporary(path) and is_abandoned(path):
                path.unlink(missing_ok=True)

    def shards(self, block: Block) -> Iterator[tuple[str, Rows]]:
        """(name, rows) of the block's shards that pass every check, by name; a damaged one is a warning."""
        for path in sorted(self._folder.glob(f"{block.index:05d}-*.parquet")):
            try:
                document, frame = read_shard(path, self._cells.table)
                if shard_base(document) != self._base:
                    raise Damaged("it belongs to other options")
            except (Damaged, OSError) as damage:
                self._warn(f"{path}: {damage}; not used, its rows are computed again")
                continue
            yield path.name, Rows(frame, listed_cells(document))

    def finished(self, plan: pl.DataFrame) -> Iterator[Rows]:
        """Rows of the plan's cells from finished artifacts of the same base, by key."""
        if self._finished is None:
            self._finished = list(self._find_finished())
        for one in self._finished:
            yield Rows(one.rows(plan))

    def put(self, block: Block, missing: Mapping[Any, tuple[int, int]], frame: pl.DataFrame) -> str:
        """Write a shard, whole and on disk, and return its name."""
        document = {**self._base, "shard": _listing(block, missing, self._cells)}
        target = self._folder / shard_name(document)
        with refusing(target), temporary(target) as path:
            publish(path, target, write_parquet(path, frame, self._cells.table, document))
        return target.name

    def replace_others(self, block: Block, kept: str) -> None:
        """Remove the block's other shards that hold any of its wanted cells; for --force."""
        wanted = set(block.wanted)
        for path in self._folder.glob(f"{block.index:05d}-*.parquet"):
            if path.name == kept:
                continue
            try:
                document, _, _ = read_footer(path)
                listed = listed_cells(document) if document else set()
            except (Damaged, OSError, KeyError, TypeError, ValueError):
                continue  # checked again, with a warning, whenever it is read
            if listed & wanted:
                path.unlink(missing_ok=True)
                digest_path(path).unlink(missing_ok=True)

    def _find_finished(self) -> Iterator[FinishedRows]:
        base_key = document_key(self._base)
        for path in sorted(self._target.parent.glob("*.parquet")):
            if path == self._target:
                continue
            try:
                document, _, _ = read_footer(path)
                if document is None or document_base_key(document) != base_key:
                    continue
                open_artifact(path, table=self._cells.table)
            except (Damaged, OSError) as damage:
                self._warn(f"{path}: {damage}; not used")
                continue
            yield FinishedRows(path, self._cells)


class FinishedRows:
    """Rows of a finished artifact, read by row group so that memory stays bounded."""

    def __init__(self, path: Path, cells: CellTable) -> None:
        self._path, self._cells = path, cells
        self._groups: dict[Any, set[int]] = {}
        with open_parquet(path) as reader:
            for group in range(reader.num_row_groups):
                column = reader.read_row_group(group, columns=[cells.cell_columns[0]], use_threads=False).column(0)
                for value in column.unique().to_pylist():
                    self._groups.setdefault(value, set()).add(group)

    def rows(self, plan: pl.DataFrame) -> pl.DataFrame:
        """The rows of the plan's cells."""
        import polars as pl

        first = self._cells.cell_columns[0]
        groups = sorted({group for value in plan[first].unique() for group in self._groups.get(value, ())})
        if not groups:
            return self._cells.table.polars_schema().to_frame()
        with open_parquet(self._path) as reader:
            frame = pl.DataFrame(reader.read_row_groups(groups, use_threads=False))
        return frame.select(*self._cells.table.columns).join(plan, on=list(self._cells.cell_columns), how="semi")


def read_shard(path: Path, table: Table) -> tuple[dict[str, Any], pl.DataFrame]:
    """A shard's document and rows, checked like an artifact.

    Raises:
        Damaged, OSError
    """
    recorded = recorded_digest(path)
    if recorded is None:
        raise Damaged("its .sha256 is missing or unreadable")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != recorded:
        raise Damaged("its bytes do not match its .sha256")
    document, schema, _ = read_footer(io.BytesIO(data))
    if document is None or "shard" not in document or shard_name(document) != path.name:
        raise Damaged("its recipe is not its name's")
    problem = schema_problem(schema, table)
    if problem:
        raise Damaged(problem)
    return document, read_frame(io.BytesIO(data))


def shard_base(document: Mapping[str, Any]) -> dict[str, Any]:
    """A shard's document without what is the shard's own."""
    return {name: value for name, value in document.items() if name != "shard"}


def listed_cells(document: Mapping[str, Any]) -> set[Any]:
    """The cells that a shard's document lists, as they are named in a block."""
    return {tuple(cell) if len(cell) > 1 else cell[0] for cell, _, _ in document["shard"]["cells"]}


def shard_name(document: Mapping[str, Any]) -> str:
    """`<block>-<digest of its cells>.parquet`."""
    shard = document["shard"]
    return f"{shard['block']:05d}-{hashlib.sha256(canonical(shard)).hexdigest()[:SHORT]}.parquet"


def _listing(block: Block, missing: Mapping[Any, tuple[int, int]], cells: CellTable) -> dict[str, Any]:
    return {
        "block": block.index,
        "cell_columns": list(cells.cell_columns),
        "index_column": cells.index_column,
        "cells": [
            [list(cell) if isinstance(cell, tuple) else [cell], first, stop] for cell, (first, stop) in missing.items()
        ],
    }
