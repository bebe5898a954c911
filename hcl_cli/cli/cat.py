"""`hcl cat` and `hcl export`: an artifact's rows as text, and a copy in another format."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import options as opt
from hcl_cli.cli.exports import check_export
from hcl_cli.cli.inputs import input_paths, refuse_overwriting
from hcl_cli.cli.session import refuse_line_break, write_bytes, write_line
from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    import polars as pl

FORMATS = ("jsonl", "csv", "arrow")
WhereOpt = Annotated[
    str,
    typer.Option(
        "--where", metavar="CONDITION", show_default="all",
        help="Only rows for which it holds, as SQL says it: \"exit_layer = 7 and correct_alias != correct_exact\".",
    ),
]  # fmt: skip
_ENDINGS = {".csv": "csv", ".jsonl": "jsonl", ".arrow": "ipc", ".parquet": "parquet"}


def cat(
    artifact: opt.ArtifactArg = None,
    form: Annotated[str, typer.Option("--format", "-f", help="jsonl, csv, or arrow (an IPC stream).")] = "jsonl",
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", show_default="all", help="Only the first N rows.",
                     callback=opt.natural("--limit", 0, 2**62, "expected 0 or more rows")),
    ] = None,
    columns: Annotated[str, typer.Option("--columns", metavar="A,B", show_default="all", help="Only these.")] = "",
    where: WhereOpt = "",
) -> None:  # fmt: skip
    """Print an artifact's rows as JSONL, CSV or Arrow.

    Example: hcl sample --limit 2 | hcl score --judge alias,exact | hcl cat --where "correct_alias != correct_exact"
    """
    if form not in FORMATS:
        raise BadOption(f"--format {form}: expected one of {', '.join(FORMATS)}")
    frame = _read(input_paths([artifact] if artifact is not None else [], "hcl cat")[0])
    frame = frame.filter(condition(where, frame)) if where else frame
    frame = frame.select(_chosen(columns, frame.columns)) if columns else frame
    frame = frame.head(limit) if limit is not None else frame
    for part in pieces(frame, form):
        write_bytes(part)


def pieces(frame: "pl.DataFrame", form: str) -> "Iterator[bytes]":
    """The rows as bytes, ten thousand at a time; Python writes them, so that a closed pipe is seen as one."""
    if form in ("arrow", "ipc", "parquet"):
        buffer = io.BytesIO()
        if form == "arrow":
            frame.write_ipc_stream(buffer)
        elif form == "ipc":
            frame.write_ipc(buffer)
        else:
            frame.write_parquet(buffer)
        yield buffer.getvalue()
        return
    if form == "csv":
        yield _as_text(frame.clear(), form).write_csv().encode()
    for part in frame.iter_slices(10_000):
        text = _as_text(part, form)
        yield (text.write_csv(include_header=False) if form == "csv" else text.write_ndjson()).encode()


def export(
    artifact: Annotated[str, typer.Argument(metavar="FILE", help="Parquet, CSV or JSONL; - reads stdin.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The ending says the format.")],
    where: WhereOpt = "",
) -> None:
    """Write a copy in another format: .csv, .jsonl, .arrow, .parquet.

    Example: hcl export - hcb.csv < path.txt
    """
    check_export("TARGET", target, tuple(_ENDINGS))
    refuse_line_break("TARGET", target)
    from hcl_cli.artifacts.files import copy_file, write_output
    from hcl_cli.artifacts.store import read_any

    path = input_paths([artifact], "hcl export")[0]
    refuse_overwriting("TARGET", target, [path])
    source = read_any(path)
    ending = target.suffix.lower()
    if ending == ".parquet" and source.is_ours and not where:
        copy_file(path, target, source.sha256)  # byte for byte: the recipe comes along
    else:
        frame = source.frame().collect()
        write_output(target, pieces(frame.filter(condition(where, frame)) if where else frame, _ENDINGS[ending]))
    write_line(str(target.absolute()))


def condition(text: str, frame: "pl.DataFrame") -> "pl.Series":
    """Of each row whether the condition holds; what is unknown (null) does not.

    Only an expression over the columns: no query, no file.

    Raises:
        BadOption: it cannot be read, names no column, or is not true or false row by row.
    """
    import polars as pl

    named = ", ".join(frame.columns[:12]) + (", ..." if len(frame.columns) > 12 else "")
    hint = f'expected a condition on the columns, such as "exit_layer = 7"; this file has {named} (hcl show lists them)'
    try:
        expression = pl.sql_expr(text)
        if not expression.meta.root_names():
            raise BadOption(f"--where {text}: names no column; {hint}")
        holds = frame.select(expression.alias("holds"))["holds"]
    except pl.exceptions.PolarsError as error:
        why = str(error).partition("; valid columns")[0].partition("\n")[0]
        raise BadOption(f"--where {text}: {why}; {hint}") from None
    if holds.dtype != pl.Boolean or len(holds) != frame.height:
        what = f"gives {holds.dtype}" if holds.dtype != pl.Boolean else "does not speak of single rows"
        raise BadOption(f"--where {text}: {what}; {hint}")
    return holds.fill_null(False)


def _read(path: Path) -> "pl.DataFrame":
    from hcl_cli.artifacts.store import read_any

    return read_any(path).frame().collect()


def _chosen(text: str, known: list[str]) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadOption(f"--columns {text}: no column {unknown[0]!r}; this file has {', '.join(known)}")
    return names


def _as_text(frame: "pl.DataFrame", form: str) -> "pl.DataFrame":
    """Columns that the format has no form for as text: binary as base64, in CSV lists and structs as JSON.

    A CSV cell holds no list, and joining with a mark could not be undone.
    """
    import polars as pl

    columns = []
    for name, kind in frame.schema.items():
        if kind == pl.Binary:
            columns.append(frame[name].bin.encode("base64"))
        elif kind.is_nested() and (form == "csv" or "Binary" in str(kind)):
            values = [None if value is None else _json(value) for value in frame[name].to_list()]
            columns.append(pl.Series(name, values, dtype=pl.String))
    return frame.with_columns(columns)


def _json(value: object) -> str:
    import base64
    import json

    return json.dumps(
        value,
        ensure_ascii=False,
        default=lambda inner: base64.b64encode(inner).decode() if isinstance(inner, bytes) else str(inner),
    )
