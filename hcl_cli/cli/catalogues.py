"""`hcl datasets` and `hcl models`: what can be named."""

from typing import Annotated, Any

import typer

from hcl_cli.cli.session import write_bytes, write_line

ListJsonOpt = Annotated[bool, typer.Option("--json", help="Print a JSON list, with everything that is known.")]


def datasets(as_json: ListJsonOpt = False) -> None:
    """List the built-in data sets with size and licence.

    Example: hcl datasets --json
    """
    from hcl_cli.data.sources import SOURCES

    rows = [
        {"name": s.name, "kind": s.kind, "rows": s.rows, "licence": s.licence, "title": s.title}
        for s in SOURCES.values()
    ]
    _print(rows, as_json, note="Any Parquet, CSV or JSONL file and hub:NAME[:config[:split]] can be named as well.")


def models(as_json: ListJsonOpt = False) -> None:
    """List the bundled models, LayerSkip checkpoints and the models of the reproduced papers.

    Example: hcl models
    """
    from hcl_cli.models import catalogue

    rows = [
        {
            "name": m.name, "parameters": m.parameters, "layers": m.n_layers, "gated": m.gated, "licence": m.licence,
            "used by": ", ".join(m.used_by), "note": m.note,
        }
        for m in catalogue.models()
    ]  # fmt: skip
    if not as_json:
        rows = [{name: row[name] for name in ("name", "parameters", "layers", "gated", "used by")} for row in rows]
    _print(rows, as_json, note="Licences and notes: hcl models --json. Folders and Hub names can be named as well.")


def _print(rows: list[dict[str, Any]], as_json: bool, *, note: str) -> None:
    """The list is what was asked for, so it goes to stdout: a table for people, or JSON."""
    if as_json:
        import json

        write_line(json.dumps(rows))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        numeric = any(isinstance(row[name], int) and not isinstance(row[name], bool) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name == "name", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    console = Console(highlight=False)
    with console.capture() as captured:  # rich itself ends a closed pipe with exit code 1
        console.print(table)
        console.print(escape(note), style="dim")
    write_bytes(captured.get().encode())


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
