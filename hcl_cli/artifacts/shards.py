"""Long stages in pieces: each finished block is on disk before the next begins, and only missing cells are computed.

A cell is what a stage can compute on its own, e.g. (question_id, exit_layer); its rows are counted by an index, e.g.
sample_index. A shard is one Parquet file with the cells that one call computed for one block. Shards lie under the
base key, so recipes that differ only in growing options share them; finished artifacts of the same base serve too.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hcl_cli.artifacts.artifact import open_artifact
from hcl_cli.artifacts.files import (
    OUTPUT_ADVICE,
    digest_path,
    is_abandoned,
    is_full,
    is_temporary,
    publish,
    recorded_digest,
    refusing,
    sync_folder,
    temporary,
)
from hcl_cli.artifacts.parquet import (
    Damaged,
    ParquetSink,
    conform,
    open_parquet,
    read_footer,
    read_frame,
    schema_problem,
    write_parquet,
)
from hcl_cli.artifacts.recipe import SHORT, base_document, canonical, document_base_key, document_key
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, ShardsFailed
from hcl_cli.schemas import Table

if TYPE_CHECKING:
    import polars as pl

Missing: TypeAlias = Mapping[Any, tuple[int, int]]
Progress: TypeAlias = Callable[[int, int], object]


@dataclass(frozen=True)
class Block:
    """A fixed run of questions.

    Attributes:
        index: its place in the plan, 0.. .
        wanted: cell -> how many rows are wanted (index 0..n-1); 1 where the table has no index column.
    """

    index: int
    wanted: Mapping[Any, int]


Blocks: TypeAlias = "Sequence[Block] | Callable[[], Sequence[Block]]"
ComputeBlock: TypeAlias = "Callable[[Block, Missing], pl.DataFrame]"


@dataclass(frozen=True)
class Rows:
    """Rows from one place, and the cells that are complete there (a cell may have none)."""

    frame: pl.DataFrame
    cells: Collection[Any] = ()


@dataclass(frozen=True)
class CellTable:
    """A table seen as cells: which columns name one, and which counts its rows (null: any number, in their order)."""

    table: Table
    cell_columns: tuple[str, ...]
    index_column: str | None

    def plan(self, block: Block) -> pl.DataFrame:
        """The block's cells in the order of the artifact: cell columns, `_n` and `_position`."""
        import polars as pl

        if self.index_column is None and any(n != 1 for n in block.wanted.values()):
            raise ValueError(f"block {block.index}: without an index column each cell is wanted once")
        cells = [cell if isinstance(cell, tuple) else (cell,) for cell in block.wanted]
        first_seen: dict[Any, int] = {}
        for cell in cells:
            first_seen.setdefault(cell[0], len(first_seen))
        wanted = sorted(zip(cells, block.wanted.values(), strict=True), key=lambda c: (first_seen[c[0][0]], c[0][1:]))
        types = self.table.polars_schema()
        columns = {
            name: pl.Series(name, [cell[i] for cell, _ in wanted], dtype=types[name])
            for i, name in enumerate(self.cell_columns)
        }
        return pl.DataFrame(columns).with_columns(
            pl.Series("_n", [n for _, n in wanted], dtype=pl.Int64),
            pl.int_range(len(wanted), dtype=pl.Int64).alias("_position"),
        )

    def select(self, plan: pl.DataFrame, sources: Sequence[Rows]) -> tuple[pl.DataFrame, dict[Any, tuple[int, int]]]:
        """The wanted rows, each once and in order, and the ranges that no source has.

        Where two sources have a row, the earlier one's is taken. With holes in the middle, one range covers them all.
        """
        import polars as pl

        empty = self.table.polars_schema().to_frame()
        ranked = [
            frame.with_columns(_rank=pl.lit(i, dtype=pl.Int64))
            for i, frame in enumerate([empty, *(source.frame for source in sources)])
        ]
        rows = pl.concat(ranked).with_row_index("_line").join(plan, on=list(self.cell_columns), how="inner")
        if self.index_column is None:
            rows = rows.filter(pl.col("_rank") == pl.col("_rank").min().over("_position")).sort("_position", "_line")
            gaps = plan.join(rows, on="_position", how="anti").with_columns(_first=0, _stop=1)
        else:
            index = pl.col(self.index_column).cast(pl.Int64)
            rows = (
                rows.filter(index < pl.col("_n"))
                .sort("_position", self.index_column, "_rank", "_line")
                .unique(["_position", self.index_column], keep="first", maintain_order=True)
            )
            gaps = (
                plan.select("_position", *self.cell_columns, _index=pl.int_ranges("_n", dtype=pl.Int64))
                .explode("_index", empty_as_null=False, keep_nulls=False)
                .join(rows.select("_position", _index=index), on=["_position", "_index"], how="anti")
                .group_by("_position", *self.cell_columns)
                .agg(_first=pl.col("_index").min(), _stop=pl.col("_index").max() + 1)
                .sort("_position")
            )
        missing: dict[Any, tuple[int, int]] = {}
        no_rows: set[Any] = set() if self.index_column else {cell for source in sources for cell in source.cells}
        for gap in gaps.sort("_position").select(*self.cell_columns, "_first", "_stop").iter_rows():
            cell = gap[:-2] if len(self.cell_columns) > 1 else gap[0]
            if cell not in no_rows:
                missing[cell] = (gap[-2], gap[-1])
        return rows.select(*self.table.columns), missing

    def check_computed(self, frame: pl.DataFrame, block: Block, missing: Mapping[Any, tuple[int, int]]) -> None:
        """Refuse a computed frame that does not hold exactly the missing rows.

        Raises:
            ValueError: says how many rows are there and how many belong there; a fault of the stage.
        """
        import polars as pl

        cells = [cell if isinstance(cell, tuple) else (cell,) for cell in missing]
        types = self.table.polars_schema()
        expected = pl.DataFrame(
            {
                name: pl.Series([cell[i] for cell in cells], dtype=types[name])
                for i, name in enumerate(self.cell_columns)
            }
        )
        on = list(self.cell_columns)
        if self.index_column is None:
            wrong = frame.join(expected, on=on, how="anti").height
        else:
            on.append(self.index_column)
            ranges = [range(first, stop) for first, stop in missing.values()]
            expected = (
                expected.with_columns(
                    pl.Series(self.index_column, [list(r) for r in ranges], dtype=pl.List(types[self.index_column]))
                )
                .explode(self.index_column, empty_as_null=False, keep_nulls=False)
                .select(on)
            )
            wrong = frame.join(expected, on=on, how="anti").height + expected.join(frame, on=on, how="anti").height
            wrong += frame.height - frame.select(on).unique().height
        if wrong:
            raise ValueError(
                f"block {block.index}: the stage gave {frame.height} rows, {wrong} of them other than asked"
            )


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


def fill_and_assemble(
    document: dict[str, Any],
    cells: CellTable,
    blocks: Blocks,
    compute_block: ComputeBlock,
    *,
    target: Path,
    folder: Path,
    force: bool,
    warn: Callable[[str], None],
    on_progress: Progress | None,
) -> tuple[str, int, int]:
    """Compute what is missing, shard by shard, and write the artifact from all shards.

    Call only under the lock of the base. The rows of a block are put together from its shards in the order of their
    names, the one just written among them, and then from finished artifacts: so a resumed run takes each row from
    where an uninterrupted one would.

    Returns:
        SHA-256 of the artifact, its rows, and how many of them were computed now.
    """
    base = base_document(document)
    if base is None:
        raise ValueError("a recipe without growing options has no shards")
    shelf = Shelf(base, cells, folder, target, warn)
    shelf.clear_temporary()
    todo = _plan(blocks, cells)
    computed = 0
    failures: list[tuple[Block, Exception]] = []
    with refusing(target), temporary(target) as path, ParquetSink(path, canonical(document)) as sink:
        for done, (block, plan) in enumerate(todo):
            shards = {} if force else dict(shelf.shards(block))
            finished: list[Rows] = []
            rows, missing = cells.select(plan, list(shards.values()))
            if missing and not force:
                finished = list(shelf.finished(plan))
                rows, missing = cells.select(plan, [*shards.values(), *finished])
            if missing:
                try:
                    fresh = _computed(cells, block, missing, compute_block)
                except (EnvironmentRefused, MemoryError):
                    raise
                except Exception as error:
                    if is_full(error):
                        raise
                    if computed == 0 and not failures and isinstance(error, BadInput | BadOption):
                        raise  # nothing says that it concerns this block only
                    failures.append((block, error))
                    warn(f"block {block.index} failed: {_named(error)}")
                else:
                    name = shelf.put(block, missing, fresh)
                    if force:
                        shelf.replace_others(block, name)
                    computed += fresh.height
                    shards[name] = Rows(fresh, missing)
                    rows, _ = cells.select(plan, [*(shards[key] for key in sorted(shards)), *finished])
            if not failures:
                sink.write(rows, cells.table)
            if on_progress:
                on_progress(done + 1, len(todo))
        if failures:
            block, first = failures[0]
            raise ShardsFailed(
                f"{len(failures)} of {len(todo)} blocks failed, the first (block {block.index}) with: {_named(first)}; "
                "the finished ones are kept: run the same command again to try the others"
            ) from first
        sha256 = sink.finish()
        publish(path, target, sha256)
    return sha256, sink.rows, computed


def assemble_without_store(
    document: dict[str, Any],
    cells: CellTable,
    blocks: Blocks,
    compute_block: ComputeBlock,
    *,
    target: Path,
    on_progress: Progress | None,
) -> tuple[str, int]:
    """Compute every block and write the artifact, keeping nothing else; gives its SHA-256 and rows."""
    todo = _plan(blocks, cells)
    with refusing(target, OUTPUT_ADVICE), temporary(target) as path, ParquetSink(path, canonical(document)) as sink:
        for done, (block, plan) in enumerate(todo):
            _, missing = cells.select(plan, [])
            rows, _ = cells.select(plan, [Rows(_computed(cells, block, missing, compute_block), missing)])
            sink.write(rows, cells.table)
            if on_progress:
                on_progress(done + 1, len(todo))
        sha256 = sink.finish()
        os.replace(path, target)
        sync_folder(target.parent)
    return sha256, sink.rows


def _computed(
    cells: CellTable, block: Block, missing: dict[Any, tuple[int, int]], compute: ComputeBlock
) -> pl.DataFrame:
    frame = conform(compute(block, missing), cells.table, extra=False)
    cells.check_computed(frame, block, missing)
    return frame


def _plan(blocks: Blocks, cells: CellTable) -> list[tuple[Block, pl.DataFrame]]:
    todo = list(blocks() if callable(blocks) else blocks)
    if not todo:
        raise ValueError("a plan without blocks")
    seen: set[Any] = set()
    plan = []
    for block in todo:
        if not block.wanted or any(n < 1 for n in block.wanted.values()):
            raise ValueError(f"block {block.index}: a block wants at least one row of each of its cells")
        values = {cell[0] if isinstance(cell, tuple) else cell for cell in block.wanted}
        if values & seen:
            raise ValueError(
                f"block {block.index}: {cells.cell_columns[0]} {sorted(values & seen)[0]!r} is in two blocks"
            )
        seen |= values
        plan.append((block, cells.plan(block)))
    if len({block.index for block in todo}) != len(todo):
        raise ValueError("two blocks have the same index")
    return plan


def _named(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
