"""Looking after a store: what is in it, whether it is whole, and what can go."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from hcl_cli.artifacts.artifact import open_artifact
from hcl_cli.artifacts.files import digest_path, is_abandoned, is_temporary, recorded_digest, refusing, sha256_file
from hcl_cli.artifacts.locks import if_free
from hcl_cli.artifacts.parquet import Damaged, open_parquet, read_footer
from hcl_cli.artifacts.recipe import SHORT, document_base_key, document_key
from hcl_cli.artifacts.shards import shard_base, shard_name

_OTHER_FOLDERS = frozenset({"models"})
_ARTIFACT = re.compile(r"[0-9a-f]{16}")  # names that are not ours are left alone: a store may lie among other files
_SHARD = re.compile(r"\d{5,}-[0-9a-f]{16}")
_ORPHAN_AFTER_S = 60.0  # a .sha256 is written just before its file


@dataclass(frozen=True)
class Entry:
    """One artifact as listed: its footer was read, its bytes were not checked.

    Attributes:
        path, stage: where it lies.
        key, table, rows, recipe: from the footer; null if it cannot be read.
        n_bytes: size of the file.
        modified: when it was made, seconds since the epoch.
        problem: why the footer cannot be read, or null.
    """

    path: Path
    stage: str
    key: str | None
    table: str | None
    rows: int | None
    n_bytes: int
    modified: float
    recipe: dict[str, Any] | None = field(repr=False)
    problem: str | None = None


@dataclass(frozen=True)
class Verdict:
    """One file of the store, checked: `problem` is null if it is whole."""

    path: Path
    problem: str | None
    is_shard: bool


@dataclass(frozen=True)
class Removed:
    """One file that was removed, or would be under a dry run, and why."""

    path: Path
    reason: str
    n_bytes: int


@dataclass(frozen=True)
class GcReport:
    """What a collection removed; `kept_for` names artifacts that stayed only because a kept one came from them."""

    removed: tuple[Removed, ...]
    kept_for: tuple[Path, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes freed."""
        return sum(one.n_bytes for one in self.removed)


def entries(root: Path) -> Iterator[Entry]:
    """Every artifact of the store, by stage, the oldest first."""
    for stage in _stages(root):
        found = []
        for path in _named(stage, _ARTIFACT):
            with suppress(FileNotFoundError):  # removed since
                found.append((path, path.stat()))
        for path, stat in sorted(found, key=lambda pair: (pair[1].st_mtime, pair[0].name)):
            key = table = rows = recipe = problem = None
            try:
                recipe, _, rows = read_footer(path)
                if recipe is None:
                    problem = "it has no recipe, so hcl did not write it"
                else:
                    key, table = document_key(recipe), recipe["table"]
            except (Damaged, OSError, TypeError, ValueError) as error:
                problem = str(error)
            yield Entry(path, stage.name, key, table, rows, stat.st_size, stat.st_mtime, recipe, problem)


def verify(root: Path) -> Iterator[Verdict]:
    """Check every artifact and shard of the store in full."""
    for stage in _stages(root):
        for path in _named(stage, _ARTIFACT):
            yield Verdict(path, _problem(path), is_shard=False)
        for folder in _shard_folders(stage):
            for path in _named(folder, _SHARD):
                yield Verdict(path, _shard_problem(path)[0], is_shard=True)


def collect_garbage(
    root: Path,
    *,
    older_than: float | None,
    max_size: int | None,
    force: bool,
    dry_run: bool,
    versions: Mapping[str, int],
) -> GcReport:
    """Remove what is stale, and artifacts if asked.

    Removed always: temporary files of processes that are gone, digests without a file, shards that fail
    verification, shards of another stage version than `versions` names, and shards whose rows are all in a finished
    artifact of the same base. What a running process is making is left alone.

    Args:
        older_than: also artifacts made more than this many seconds ago.
        max_size: also the oldest artifacts, until the store's files have at most this many bytes.
        force: also artifacts that a kept one came from; without it they stay.
        dry_run: remove nothing, say what would go.
    Raises:
        EnvironmentRefused: if a file cannot be removed.
    """
    removed: list[Removed] = []
    for stage in _stages(root):
        removed += _leftovers(stage)
        for folder in _shard_folders(stage):
            with if_free(folder) as free:
                if free:
                    stale = [*_leftovers(folder, locked=True), *_stale_shards(folder, versions.get(stage.name))]
                    removed += stale
                    if not dry_run:
                        _remove(stale)
    artifacts = list(entries(root))
    lineage = _lineage(artifacts)
    going: list[Entry] = []
    if older_than is not None:
        going = [one for one in artifacts if time.time() - one.modified > older_than]
        if not force:
            going = _without_ancestors(going, lineage)
    if max_size is not None:
        gone = {one.path for one in removed}
        size = sum(one.n_bytes for one in _all_files(root) if one.path not in gone)
        going = _until_small(artifacts, going, size - max_size, force, lineage)
    kept_for: list[Path] = []
    if not force and older_than is not None:
        old = [one for one in artifacts if time.time() - one.modified > older_than]
        leaving = {one.path for one in going}
        kept_for = [one.path for one in old if one.path not in leaving]
    for one in going:
        reason = "unreadable" if one.problem else "asked for by age or size"
        removed.append(Removed(one.path, reason, one.n_bytes))
        digest = digest_path(one.path)
        if digest.exists():
            removed.append(Removed(digest, reason, digest.stat().st_size))
    if not dry_run:
        _remove(removed)
        for stage in _stages(root):
            for folder in _shard_folders(stage):
                with suppress(OSError):  # not empty
                    folder.rmdir()
    return GcReport(tuple(removed), tuple(kept_for))


def _stages(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and p.name not in _OTHER_FOLDERS and p.name[0] != ".")


def _shard_folders(stage: Path) -> list[Path]:
    return sorted(path for path in stage.iterdir() if path.is_dir() and _ARTIFACT.fullmatch(path.name))


def _named(folder: Path, pattern: re.Pattern[str], ending: str = ".parquet") -> list[Path]:
    found = (path for path in folder.glob(f"*{ending}") if pattern.fullmatch(path.stem))
    return sorted(path for path in found if path.is_file())  # no folder, and no link to what is gone


def _all_files(root: Path) -> Iterator[Removed]:
    for stage in _stages(root):
        for folder in (stage, *_shard_folders(stage)):
            for path in folder.iterdir():
                if path.is_file() and (_ARTIFACT.fullmatch(path.stem) or _SHARD.fullmatch(path.stem)):
                    yield Removed(path, "", path.stat().st_size)


def _problem(path: Path) -> str | None:
    try:
        open_artifact(path)
    except (Damaged, OSError) as damage:
        return str(damage)
    return None


def _shard_problem(path: Path) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a shard, or null, and its document."""
    try:
        recorded = recorded_digest(path)
        if recorded is None:
            return "its .sha256 is missing or unreadable", {}
        if sha256_file(path) != recorded:
            return "its bytes do not match its .sha256", {}
        document, _, _ = read_footer(path)
        if document is None or "shard" not in document or shard_name(document) != path.name:
            return "its recipe is not its name's", {}
        if document_key(shard_base(document))[:SHORT] != path.parent.name:
            return "it lies in the folder of another base", {}
    except (Damaged, OSError, KeyError, TypeError, ValueError) as damage:
        return str(damage), {}
    return None, document


def _leftovers(folder: Path, *, locked: bool = False) -> Iterator[Removed]:
    """Temporary files of processes that are gone (all, if the folder's lock is held), and digests without a file."""
    for path in sorted(folder.glob(".*.tmp")):
        with suppress(FileNotFoundError):
            if is_temporary(path) and (locked or is_abandoned(path)):
                yield Removed(path, "temporary file of a process that is gone", path.stat().st_size)
    for path in _named(folder, _SHARD if locked else _ARTIFACT, ".sha256"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            old = locked or time.time() - stat.st_mtime > _ORPHAN_AFTER_S
            if old and not path.with_suffix(".parquet").exists():
                yield Removed(path, "digest without a file", stat.st_size)


def _stale_shards(folder: Path, version: int | None) -> Iterator[Removed]:
    finished: list[dict[tuple[Any, ...], set[int]]] | None = None
    for path in _named(folder, _SHARD):
        problem, document = _shard_problem(path)
        reason = f"damaged shard: {problem}" if problem else None
        if not reason and version is not None and document["version"] != version:
            reason = f"shard of stage version {document['version']}, now {version}"
        if not reason:
            if finished is None:
                finished = list(_finished_cells(folder, document["shard"]))
            if any(_covers(cells, document["shard"]) for cells in finished):
                reason = "shard whose rows are in a finished artifact"
        if reason:
            for file in (path, digest_path(path)):
                if file.exists():
                    yield Removed(file, reason, file.stat().st_size)


def _finished_cells(folder: Path, shard: dict[str, Any]) -> Iterator[dict[tuple[Any, ...], set[int]]]:
    """For each whole artifact of the base: cell -> indices that it has (an empty set without an index column)."""
    columns, index = shard["cell_columns"], shard["index_column"]
    for path in _named(folder.parent, _ARTIFACT):
        try:
            document, _, _ = read_footer(path)
            base = document_base_key(document) if document is not None else None
            if base is None or base[:SHORT] != folder.name or _problem(path):
                continue
        except (Damaged, OSError, TypeError, ValueError):
            continue
        with open_parquet(path) as reader:
            data = reader.read(columns=[*columns, *([index] if index else [])], use_threads=False)
        cells: dict[tuple[Any, ...], set[int]] = {}
        values = [data.column(name).to_pylist() for name in columns]
        indices = data.column(index).to_pylist() if index else None
        for i, cell in enumerate(zip(*values, strict=True)):
            have = cells.setdefault(cell, set())
            if indices is not None:
                have.add(indices[i])
        yield cells


def _covers(cells: Mapping[tuple[Any, ...], set[int]], shard: Mapping[str, Any]) -> bool:
    if shard["index_column"] is None:
        return all(tuple(cell) in cells for cell, _, _ in shard["cells"])
    return all(cells.get(tuple(cell), set()).issuperset(range(a, b)) for cell, a, b in shard["cells"])


def _lineage(artifacts: list[Entry]) -> dict[Path, set[Path]]:
    """Each artifact with the artifacts of this store that it came from, named by key or by the digest of its file."""
    named: dict[str, set[Path]] = {}
    for one in artifacts:
        for name in filter(None, (one.key, recorded_digest(one.path))):
            named.setdefault(name, set()).add(one.path)
    lineage = {}
    for one in artifacts:
        inputs = one.recipe["inputs"] if one.recipe else []
        found = (named.get(name, set()) for item in inputs for name in (item["key"], item["sha256"]) if name)
        lineage[one.path] = set().union(*found) - {one.path}
    return lineage


def _without_ancestors(going: list[Entry], lineage: Mapping[Path, set[Path]]) -> list[Entry]:
    """Those of `going` that no artifact which stays came from, directly or through others."""
    leaving = {one.path for one in going}
    staying = [path for path in lineage if path not in leaving]
    while staying:
        for parent in lineage[staying.pop()] & leaving:
            leaving.remove(parent)
            staying.append(parent)
    return [one for one in going if one.path in leaving]


def _until_small(
    artifacts: list[Entry], going: list[Entry], excess: int, force: bool, lineage: Mapping[Path, set[Path]]
) -> list[Entry]:
    """`going` and the oldest further artifacts until `excess` bytes are freed or nothing more may go."""
    chosen = list(going)
    excess -= sum(one.n_bytes for one in chosen)
    gone = {one.path for one in chosen}
    entry = {one.path: one for one in artifacts}
    n_children = Counter(parent for path, parents in lineage.items() if path not in gone for parent in parents)
    free = [
        (one.modified, one.path) for one in artifacts if one.path not in gone and (force or not n_children[one.path])
    ]
    heapify(free)
    while free and excess > 0:
        _, path = heappop(free)
        chosen.append(entry[path])
        gone.add(path)
        excess -= entry[path].n_bytes
        for parent in lineage[path]:
            n_children[parent] -= 1
            if not force and not n_children[parent] and parent not in gone:
                heappush(free, (entry[parent].modified, parent))
    return chosen


def _remove(files: Iterable[Removed]) -> None:
    for one in files:
        with refusing(one.path):
            one.path.unlink(missing_ok=True)
