"""`hcl cat` and `hcl export`: an artifact's rows as text, and a copy in another format."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import options as opt
from hcl_cli.cli.hcb import check_export
from hcl_cli.cli.inputs import input_paths
from hcl_cli.cli.session import write_bytes, write_line
from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    import polars as pl

FORMATS = ("jsonl", "csv", "arrow")


def cat(
    artifact: opt.ArtifactArg = None,
    form: Annotated[str, typer.Option("--format", "-f", help="jsonl, csv, or arrow (an IPC stream).")] = "jsonl",
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", show_default="all", help="Only the first N rows.",
                     callback=opt.natural("--limit", 0, 2**62, "expected 0 or more rows")),
    ] = None,
    columns: Annotated[str, typer.Option("--columns", metavar="A,B", show_default="all", help="Only these.")] = "",
) -> None:  # fmt: skip
    """Print an artifact's rows as JSONL, CSV or Arrow.

    Example: hcl sample --limit 2 | hcl cat --columns question,response --limit 5
    """
    if form not in FORMATS:
        raise BadOption(f"--format {form}: expected one of {', '.join(FORMATS)}")
    frame = _read(input_paths([artifact] if artifact is not None else [], "hcl cat")[0])
    frame = frame.select(_chosen(columns, frame.columns)) if columns else frame
    frame = frame.head(limit) if limit is not None else frame
    for part in _pieces(frame, form):
        write_bytes(part)


def _pieces(frame: "pl.DataFrame", form: str) -> "Iterator[bytes]":
    """The rows as bytes, ten thousand at a time; Python writes them, so that a closed pipe is seen as one."""
    if form == "arrow":
        buffer = io.BytesIO()
        frame.write_ipc_stream(buffer)
        yield buffer.getvalue()
        return
    if form == "csv":
        yield _flat(frame.clear()).write_csv().encode()
    for part in frame.iter_slices(10_000):
        yield (_flat(part).write_csv(include_header=False) if form == "csv" else part.write_ndjson()).encode()


def export(
    artifact: Annotated[str, typer.Argument(metavar="FILE", help="Parquet, CSV or JSONL; - reads stdin.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The ending says the format.")],
) -> None:
    """Write a copy in another format: .csv, .jsonl, .arrow, .parquet.

    Example: hcl export - hcb.csv < path.txt
    """
    check_export("TARGET", target, (".csv", ".jsonl", ".arrow", ".parquet"))
    frame = _read(input_paths([artifact], "hcl export")[0])
    ending = target.suffix.lower()
    if ending == ".csv":
        _flat(frame).write_csv(target)
    elif ending == ".jsonl":
        frame.write_ndjson(target)
    elif ending == ".arrow":
        frame.write_ipc(target)
    else:
        frame.write_parquet(target)
    write_line(str(target.absolute()))


def _read(path: Path) -> "pl.DataFrame":
    from hcl_cli.artifacts.store import read_any

    return read_any(path).frame().collect()


def _chosen(text: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadOption(f"--columns {text}: no column {unknown[0]!r}; this file has {', '.join(known)}")
    return names


def _flat(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Lists as JSON text: a CSV cell holds no list, and joining with a mark could not be undone."""
    import json

    import polars as pl

    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    return frame.with_columns(
        pl.col(name).map_elements(lambda values: json.dumps(list(values), ensure_ascii=False), return_dtype=pl.String)
        for name in lists
    )
