"""`hcl store`: what is in the store, whether it is whole, and making room."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli import options as opt
from hcl_cli.cli.session import DEFAULT_STORE, write_line
from hcl_cli.cli.terminal import Terminal
from hcl_cli.errors import BadOption
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    from hcl_cli.artifacts.store import Store

app = typer.Typer(add_completion=False, rich_markup_mode="rich", help="Look after the store of artifacts.")

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@app.command("ls")
def ls(store: opt.StoreOpt = DEFAULT_STORE, as_json: opt.JsonOpt = False) -> None:
    """List the artifacts, by stage, the oldest first.

    Example: hcl store ls --json
    """
    found = list(_open(store, "store ls").entries())
    if as_json:
        import json

        rows = [
            {
                "path": str(one.path), "stage": one.stage, "table": one.table, "key": one.key, "rows": one.rows,
                "bytes": one.n_bytes, "problem": one.problem,
            }
            for one in found
        ]  # fmt: skip
        write_line(json.dumps(rows))
        return
    for one in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.modified))
        what = one.problem or f"{one.rows:,} rows of {one.table}"
        write_line(f"{made}  {_size(one.n_bytes):>9}  {one.path}  {what}")
    if not found:
        Terminal("store ls").say(f"store: nothing in {store} yet")


@app.command("verify")
def verify(store: opt.StoreOpt = DEFAULT_STORE, quiet: opt.QuietOpt = False) -> None:
    """Check every byte of every artifact and shard; exit code 2 if one is damaged.

    Example: hcl store verify
    """
    n_checked = 0
    damaged = []
    for verdict in _open(store, "store verify").verify():
        n_checked += 1
        if verdict.problem is not None:
            damaged.append(verdict)
            write_line(f"{verdict.path}: {verdict.problem}")
    Terminal("store verify", quiet=quiet).say(f"store: {n_checked} files checked, {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(2)


@app.command("gc")
def gc(
    store: opt.StoreOpt = DEFAULT_STORE,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Also artifacts older than 30d, 12h, 2w, ...")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Also the oldest, down to 500M, 20G, ...")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also artifacts that a kept one came from.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Remove stale shards and temporary files; artifacts only if asked.

    Example: hcl store gc --older-than 30d --dry-run
    """
    terminal = Terminal("store gc", quiet=quiet)
    report = _open(store, "store gc").gc(
        older_than=_parse("--older-than", older_than, _AGES, "30d"),
        max_size=None if max_size is None else int(_parse("--max-size", max_size, _SIZES, "500M") or 0),
        force=force,
        dry_run=dry_run,
        versions=VERSIONS,
    )
    for one in report.removed:
        write_line(f"{one.path}: {one.reason}")
    for path in report.kept_for:
        terminal.say(f"store: kept {path}: an artifact that stays came from it (--force removes it)")
    verb = "would free" if dry_run else "freed"
    terminal.say(f"store: {len(report.removed)} files, {verb} {_size(report.n_bytes)}")


@app.command("path")
def path(store: opt.StoreOpt = DEFAULT_STORE) -> None:
    """Print the store's folder.

    Example: du -sh "$(hcl store path)"
    """
    write_line(str(_open(store, "store path").root))


def _open(root: Path, command: str) -> "Store":
    from hcl_cli.artifacts.store import Store

    return Store(root, warn=Terminal(command).warn)


def _parse(option: str, text: str | None, units: dict[str, int], example: str) -> float | None:
    """A number with a unit, e.g. 30d or 500M."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([A-Za-z]?)", text.strip())
    if match is None or match[2] not in units:
        raise BadOption(f"{option} {text}: expected a number and a unit of {', '.join(filter(None, units))}; {example}")
    return float(match[1]) * units[match[2]]


def _size(n_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"
