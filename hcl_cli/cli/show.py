"""`hcl show`: what an artifact is, what made it, and what it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hcl_cli.cli import options as opt
from hcl_cli.cli.inputs import input_paths
from hcl_cli.cli.session import DEFAULT_STORE, write_line


def show(
    artifact: opt.ArtifactArg = None,
    store: opt.StoreOpt = DEFAULT_STORE,
    as_json: opt.JsonOpt = False,
) -> None:
    """Show an artifact's recipe, size and lineage.

    Example: hcl sample | hcl score | hcl hcb | hcl show
    """
    import polars as pl

    from hcl_cli.artifacts.store import read_any

    path = input_paths([artifact] if artifact is not None else [], "hcl show")[0]
    source = read_any(path)
    schema = source.frame().collect_schema()
    columns, rows = schema.names(), int(source.frame().select(pl.len()).collect().item())
    manifest = {
        "path": str(path.absolute()),
        "key": source.key,
        "sha256": source.sha256,
        "rows": rows,
        "columns": columns,
        "recipe": source.recipe,
        "lineage": [] if source.recipe is None else _lineage(source.recipe, [path.absolute().parent.parent, store]),
    }
    if as_json:
        import json

        write_line(json.dumps(manifest, ensure_ascii=False))
        return
    for line in _lines(manifest):
        write_line(line)


def _lineage(recipe: Mapping[str, Any], stores: list[Path]) -> list[dict[str, Any]]:
    """The artifacts that a recipe names as inputs, and theirs, as far as they are still in a store."""
    from hcl_cli.artifacts.store import read_any
    from hcl_cli.errors import HclError

    steps: list[dict[str, Any]] = []
    for one in recipe["inputs"]:
        step: dict[str, Any] = {"key": one["key"], "sha256": one["sha256"], "path": None, "recipe": None, "lineage": []}
        if one["key"] is not None:
            for candidate in (found for root in stores for found in sorted(root.glob(f"*/{one['key'][:16]}.parquet"))):
                try:
                    source = read_any(candidate)
                except HclError:
                    continue
                if source.key == one["key"] and source.recipe is not None:
                    step["path"] = str(candidate.absolute())
                    step["recipe"] = source.recipe
                    step["lineage"] = _lineage(source.recipe, stores)
                    break
        steps.append(step)
    return steps


def _lines(manifest: Mapping[str, Any]) -> list[str]:
    recipe = manifest["recipe"]
    lines = [manifest["path"]]
    if recipe is None:
        lines.append("  not made by hcl: identified by its content")
    else:
        lines.append(f"  table {recipe['table']}, made by hcl {recipe['stage']} (stage version {recipe['version']})")
        lines.append(f"  key     {manifest['key']}")
    lines.append(f"  sha256  {manifest['sha256']}")
    lines.append(f"  rows    {manifest['rows']:,}")
    lines.append(f"  columns {', '.join(manifest['columns'])}")
    if recipe is not None:
        lines += _recipe_lines(recipe, "  ")
        lines += _lineage_lines(manifest["lineage"], "  ")
    return lines


def _recipe_lines(recipe: Mapping[str, Any], indent: str) -> list[str]:
    import json

    shown = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in recipe["options"].items()]
    lines = [f"{indent}options {' '.join(shown)}"]
    for name, value in recipe["identities"].items():
        lines.append(f"{indent}{name} {value}")
    if recipe["dtype"] is not None:
        lines.append(f"{indent}computed in {recipe['dtype']}, attention {recipe['attention']}")
    return lines


def _lineage_lines(lineage: list[dict[str, Any]], indent: str) -> list[str]:
    lines: list[str] = []
    for step in lineage:
        if step["recipe"] is None:
            lines.append(f"{indent}from a file with sha256 {step['sha256']} (not in this store)")
            continue
        lines.append(f"{indent}from {step['recipe']['table']} {step['key'][:16]} by hcl {step['recipe']['stage']}")
        lines += _recipe_lines(step["recipe"], indent + "  ")
        lines += _lineage_lines(step["lineage"], indent + "  ")
    return lines
