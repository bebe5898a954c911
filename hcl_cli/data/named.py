"""What `--dataset` names, of any kind: a built-in set, a file or a set on the Hub, known before its rows are read."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hcl_cli.data.sources import SOURCES, Kind
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.memo import recall, remember
from hcl_cli.records import FORMATS, PARQUET_START, Records, decoded_text, file_format, read_bytes, read_records


@dataclass(frozen=True)
class Named:
    """A data set that was found but not parsed.

    Attributes:
        name: the built-in or Hub name, or the last part of the file's name; never a path.
        identity: "sha256:<hex>" of the file's bytes, or "hub:<name>@<commit>:<config>:<split>".
        licence: of a built-in set, else None.
        records: reads the rows; of a Parquet file only the named columns, all if none is named.
        parquet: the file, if its footer tells the number of rows.
        is_built_in: whether the name is that of a set which the package carries.
    """

    name: str
    identity: str
    licence: str | None
    records: Callable[[tuple[str, ...]], Records]
    parquet: Path | None = None
    is_built_in: bool = False

    def known_rows(self, memo: Path | None, section: str) -> int | None:
        """How many rows, from the footer of a Parquet file or from the memo; None if neither knows."""
        if self.parquet is not None and (rows := _footer_rows(self.parquet)) is not None:
            return rows
        remembered = recall(memo, section).get(self.identity)
        return remembered if isinstance(remembered, int) and remembered > 0 else None

    def remember_rows(self, rows: int, memo: Path | None, section: str) -> None:
        """Note a number of rows that no footer tells."""
        if self.parquet is None:
            remember(memo, section, {self.identity: rows})


def open_named(
    name: str,
    kind: Kind,
    *,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
    plain_text: bool = False,
    option: str = "--dataset",
) -> Named:
    """The set that `--dataset` names.

    Args:
        name: a built-in name of that kind, the path of a Parquet, CSV or JSONL file, or
            `hub:NAME[:config[:split]][@revision]`. A file that is called like a built-in set is written `./name`.
        kind: what is expected.
        memo: a JSON file that remembers commits and numbers of rows, or None.
        warn: is told which commit is used when the Hub gave no answer.
        plain_text: a `.txt` file is one row with one column `text`.
        option: the one that names the set, for messages.
    Raises:
        BadOption, BadInput: unknown name, unreadable file, with the nearest names.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    if name.startswith("hub:"):
        from hcl_cli.data.hub import open_hub

        commit = open_hub(name, memo=memo, warn=warn)
        return Named(commit.name, commit.identity, None, lambda wanted: commit.records())
    if name in SOURCES:
        source = SOURCES[name]
        if source.kind != kind:
            raise BadOption(
                f"{option} {name}: the set holds {source.kind}, not {kind}; `hcl datasets` shows which sets do"
            )
        return _open_file(source.file, name, source.licence, plain_text=False, is_built_in=True)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if name and os.path.exists(path):  # an empty name would be the current folder
        return _open_file(path, _file_name(path), None, plain_text=plain_text)
    if "/" in name or path.suffix.lower() in FORMATS or (plain_text and path.suffix.lower() == ".txt"):
        raise BadInput(f"{shown(name)}: no such file")
    near = difflib.get_close_matches(name.lower(), [s.name for s in SOURCES.values() if s.kind == kind], 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "expected a built-in set, a file or hub:NAME;"
    raise BadOption(f"{option} {shown(name)}: no such data set or file; {hint} `hcl datasets` lists them all")


def mapped(columns: Mapping[str, str] | None, targets: Sequence[str]) -> dict[str, str]:
    """Every column of ours -> the file's; those that are not in `columns` keep our name.

    Raises:
        BadOption: `columns` names one that this kind of set has not.
    """
    for target, source in (columns or {}).items():
        if target not in targets:
            raise BadOption(
                f"--columns {shown(target)}={shown(source)}: {shown(target)!r} cannot be set here, only "
                f"{', '.join(targets)} can"
            )
    return {target: target for target in targets} | dict(columns or {})


def _footer_rows(file: Path) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows) or None
    except (pa.ArrowException, OSError, ValueError):
        return None  # damaged: reading it says how


def _file_name(path: Path) -> str:
    # A name that is not valid UTF-8 arrives with lone surrogates, which no table can hold.
    return (path.name or path.resolve().name).encode("utf-8", "replace").decode("utf-8")


def _open_file(path: Path, name: str, licence: str | None, *, plain_text: bool, is_built_in: bool = False) -> Named:
    label = shown(name)
    data = read_bytes(path, label)
    digest = hashlib.sha256(data).hexdigest()
    is_text = plain_text and path.suffix.lower() == ".txt" and not data.startswith(PARQUET_START)
    kind = None if is_text else file_format(path, data, label)

    def records(wanted: tuple[str, ...]) -> Records:
        data = read_bytes(path, label)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadInput(f"{label}: the file was changed while it was in use; run the command again")
        if kind is None:
            return Records(label, "jsonl", ("text",), {"text": [decoded_text(data, label)]}, (1,))
        return read_records(data, kind, label, wanted)

    # The same bytes under another ending are other texts.
    identity = f"sha256:{digest}{' as one text' if is_text else ''}"
    return Named(name, identity, licence, records, path if kind == "parquet" else None, is_built_in)
