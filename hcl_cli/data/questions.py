"""Questions from a built-in set, a file or the Hub: checked row by row, named by content."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.data.rows import question_frame
from hcl_cli.data.sources import SOURCES
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.memo import recall, remember
from hcl_cli.records import FORMATS, Records, file_format, read_bytes, read_records
from hcl_cli.schemas import QUESTIONS

if TYPE_CHECKING:
    import polars as pl

COLUMNS = tuple(QUESTIONS.columns)  # question_id, question, answers


@dataclass(frozen=True)
class QuestionSet:
    """Questions that can be named without being read.

    Attributes:
        name: the built-in or Hub name, or the last part of the file's name; never a path.
        identity: "sha256:<hex>" of the file's bytes, or "hub:<name>@<commit>:<config>:<split>". A column mapping is
            not in it; whoever writes a recipe adds it.
        licence: of a built-in set, else None.
    """

    name: str
    identity: str
    licence: str | None
    _columns: dict[str, str] = field(repr=False)
    _records: Callable[[tuple[str, ...]], Records] = field(repr=False, compare=False)
    _parquet: Path | None = field(repr=False, compare=False, default=None)
    _memo: Path | None = field(repr=False, compare=False, default=None)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        wanted = {source for path in self._columns.values() for source in (path, path.split(".")[0])}
        return question_frame(self._records(tuple(sorted(wanted))), self._columns)

    def load(self) -> pl.DataFrame:
        """The rows, validated: `question_id`, `question`, `answers`, in the file's order.

        Blank and repeated answers within a list are dropped. A question may have an empty list (nothing can grade
        it), but not every question.

        Raises:
            BadInput: one line that names the file, the row and the column.
            BadOption: `--columns` names a column that is not there.
        """
        return self._frame

    @cached_property
    def n_questions(self) -> int:
        """How many rows: from the footer of a Parquet file or from the memo, else by reading the set."""
        if "_frame" not in self.__dict__:
            if self._parquet is not None and (rows := _footer_rows(self._parquet)) is not None:
                return rows
            remembered = recall(self._memo, "rows").get(self.identity)
            if isinstance(remembered, int) and remembered > 0:
                return remembered
        rows = self.load().height
        if self._parquet is None:
            remember(self._memo, "rows", {self.identity: rows})
        return rows


def _footer_rows(file: Path) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows) or None
    except (pa.ArrowException, OSError, ValueError):
        return None  # damaged: load() says how


def parse_columns(text: str) -> dict[str, str]:
    """`question=prompt,answers=answer.aliases` as {"question": "prompt", "answers": "answer.aliases"}.

    The right side is a column of the file; dots lead into an object. Raises BadOption.
    """
    expected = "expected name=column pairs with a comma between, like --columns question=prompt,answers=gold"
    pairs: dict[str, str] = {}
    for part in text.split(","):
        target, equals, source = (piece.strip() for piece in part.partition("="))
        if not equals or not source:
            raise BadOption(f"--columns {shown(text)}: {shown(part)!r} is not a pair; {expected}")
        if target not in COLUMNS:
            raise BadOption(f"--columns {shown(text)}: {shown(target)!r} cannot be set, only {', '.join(COLUMNS)} can")
        if target in pairs:
            raise BadOption(f"--columns {shown(text)}: {target} is given twice")
        pairs[target] = source
    return pairs


def open_questions(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> QuestionSet:
    """The question set that `--dataset` names; its rows are read by `load()`.

    Args:
        name: a built-in name, the path of a Parquet, CSV or JSONL file, or `hub:NAME[:config[:split]][@revision]`.
            A file that is called like a built-in set is written `./name`.
        columns: our column -> column of the file, as `parse_columns` gives it.
        memo: a JSON file that remembers commits and numbers of rows, or None.
        warn: is told which commit is used when the Hub gave no answer.
    Raises:
        BadOption, BadInput: unknown name, unreadable file, with the nearest names.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    mapping = {column: column for column in COLUMNS} | dict(columns or {})
    if name.startswith("hub:"):
        from hcl_cli.data.hub import open_hub

        commit = open_hub(name, memo=memo, warn=warn)
        return QuestionSet(commit.name, commit.identity, None, mapping, lambda wanted: commit.records(), _memo=memo)
    if name in SOURCES:
        source = SOURCES[name]
        if source.kind != "questions":
            raise BadOption(
                f"--dataset {name}: the set holds {source.kind}, not questions; `hcl datasets` shows which sets do"
            )
        return _open_file(source.file, name, mapping, source.licence, memo)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if name and os.path.exists(path):  # an empty name would be the current folder
        return _open_file(path, _file_name(path), mapping, None, memo)
    if "/" in name or path.suffix.lower() in FORMATS:
        raise BadInput(f"{shown(name)}: no such file")
    questions = [source.name for source in SOURCES.values() if source.kind == "questions"]
    near = difflib.get_close_matches(name.lower(), questions, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "expected a built-in set, a file or hub:NAME;"
    raise BadOption(f"--dataset {shown(name)}: no such data set or file; {hint} `hcl datasets` lists them all")


def _file_name(path: Path) -> str:
    # A name that is not valid UTF-8 arrives with lone surrogates, which no table can hold.
    return (path.name or path.resolve().name).encode("utf-8", "replace").decode("utf-8")


def _open_file(path: Path, name: str, columns: dict[str, str], licence: str | None, memo: Path | None) -> QuestionSet:
    label = shown(name)
    data = read_bytes(path, label)
    kind, digest = file_format(path, data, label), hashlib.sha256(data).hexdigest()

    def records(wanted: tuple[str, ...]) -> Records:
        data = read_bytes(path, label)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadInput(f"{label}: the file was changed while it was in use; run the command again")
        return read_records(data, kind, label, wanted)

    return QuestionSet(name, f"sha256:{digest}", licence, columns, records, path if kind == "parquet" else None, memo)
