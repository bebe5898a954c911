"""Blocks and what is left without them as files: Markdown, CSV or LaTeX. Formats; never computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.report.files import write_file
from hcl_cli.report.grids import Grid, check_table_ending, page, table_ending
from hcl_cli.report.labels import Row, number, one_line, with_interval
from hcl_cli.report.prune_labels import (
    DAMAGE_DECIMALS,
    RANDOM,
    PruneRows,
    Ranking,
    estimate,
    keys_of_pair,
    prune_rows,
    signed_estimate,
    significant,
)
from hcl_cli.report.prune_words import note_sentences, pairs_of, prune_sentences, with_damage
from hcl_cli.report.retained_labels import lines_of, measures_of
from hcl_cli.report.tables import csv_text
from hcl_cli.schemas.blocks import BLOCKS

MOST_PAIRS = 3  # more are a triangle without intervals


def prune_table_text(blocks: Sequence[Row], compared: Sequence[Row], retained: Sequence[Row], ending: str) -> str:
    """Every block under every criterion, how criteria agree, and what is kept.

    Args:
        blocks: rows of BLOCKS.
        compared: rows of CRITERIA_COMPARED.
        retained: rows of RETAINED.
        ending: ".md" and ".tex" give tables per model, rounded, with sentences; ".csv" gives every column of BLOCKS
            unrounded, and nothing of the other two.
    Raises:
        BadOption: for another ending.
    """
    check_table_ending(ending)
    if ending == ".csv":
        return csv_text(blocks, BLOCKS.columns)
    pages = []
    for run in prune_rows(blocks, compared, retained):
        grids = [grid for grid in (_blocks(run), _with_damage(run), _pairs(run), _kept(run)) if grid is not None]
        said = [*_legend(run), *prune_sentences(run), *note_sentences(run)]
        pages.append(page(run.name or "blocks", grids, said, ending))
    return "\n".join(pages)


def write_prune_table(blocks: Sequence[Row], compared: Sequence[Row], retained: Sequence[Row], path: Path) -> None:
    """Write `prune_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    ending = table_ending(path)
    write_file("--table", path, prune_table_text(blocks, compared, retained, ending).encode())


def _blocks(run: PruneRows) -> Grid | None:
    if not run.rankings:
        return None
    numbers = run.blocks
    columns: list[tuple[str, list[str], set[int]]] = [("Block", list(map(str, numbers)), set())]
    if len(run.rankings) == 1:
        columns += _alone(run.rankings[0], numbers)
    else:
        columns += [_beside(ranking, numbers) for ranking in run.shown]
    family = run.seeds_of_random
    if family:
        counts = [sum(block in one.removed for one in family) for block in numbers]
        columns.append((f"{RANDOM}, seeds that remove it", [f"{n} of {len(family)}" for n in counts], set()))
    for dataset, rows in run.damages.items():
        title = "Damage" + (f" on {one_line(str(dataset))}" if len(run.damages) > 1 else "")
        cells = [signed_estimate(rows.get(block, {}), "damage", DAMAGE_DECIMALS) for block in numbers]
        columns.append((title, cells, set()))
    return Grid(
        [title for title, _, _ in columns],
        [[cells[at] for _, cells, _ in columns] for at in range(len(numbers))],
        n_left=0,
        bold=frozenset((at, place) for place, (_, _, bold) in enumerate(columns) for at in bold),
    )


def _alone(ranking: Ranking, numbers: Sequence[int]) -> list[tuple[str, list[str], set[int]]]:
    rows = [ranking.by_block[block] for block in numbers]
    gone = {at for at, row in enumerate(rows) if row.get("removed")}
    columns = [(ranking.name, [estimate(row, "score") for row in rows], gone)]
    for title, name in (("Normalised", "normalised"), ("Cumulative", "cumulative"), ("p, adjusted", "p_adjusted")):
        if any(row.get(name) is not None for row in rows):
            columns.append((title, [number(row.get(name), 3) for row in rows], set()))
    columns.append(("Rank", [number(row.get("rank"), 0) for row in rows], gone))
    return [*columns, ("", ["removed" if row.get("removed") else "" for row in rows], gone)]


def _beside(ranking: Ranking, numbers: Sequence[int]) -> tuple[str, list[str], set[int]]:
    rows = [ranking.by_block.get(block, {}) for block in numbers]
    cells = [f"{significant(row.get('score'))} ({number(row.get('rank'), 0)})" for row in rows]
    return ranking.name, cells, {at for at, row in enumerate(rows) if row.get("removed")}


def _legend(run: PruneRows) -> list[str]:
    if not run.rankings:
        return []
    said = ["Rank 1 goes first." if len(run.rankings) == 1 else "In brackets: the rank; 1 goes first. Bold: removed."]
    if run.damages:
        said.append("Damage: rise of the loss without the block alone, nats per token.")
    return said


def _pair(row: Row) -> list[str]:
    common, n_removed = row.get("n_common"), row.get("n_removed")
    shared = "-" if common is None else f"{common} of {'-' if n_removed is None else n_removed}"
    return [with_interval(row, "rank_correlation"), number(row.get("p_value"), 3), shared]


_PAIR = ["Rank correlation", "p", "Both remove"]


def _with_damage(run: PruneRows) -> Grid | None:
    rows = with_damage(run)
    lines = [[run.names(keys_of_pair(row)[0]), *_pair(row)] for row in rows]
    return Grid(["With the true damage", *_PAIR], lines) if lines else None


def _pairs(run: PruneRows) -> Grid | None:
    pairs = pairs_of(run)
    if not pairs:
        return None
    if len(pairs) <= MOST_PAIRS:
        lines = [[*(run.names(key) for key in keys_of_pair(row)), *_pair(row)] for row in pairs]
        return Grid(["Criterion", "and", *_PAIR], lines, n_left=2)
    keys = list(dict.fromkeys(key for row in pairs for key in keys_of_pair(row)))
    found = {frozenset(keys_of_pair(row)): number(row.get("rank_correlation")) for row in pairs}
    lines = [
        [run.names(key), *(found.get(frozenset((key, other)), "-") if place < at else ""
                           for place, other in enumerate(keys[:-1]))]
        for at, key in enumerate(keys) if at
    ]  # fmt: skip
    return Grid(["Rank correlation", *(run.names(key) for key in keys[:-1])], lines)


def _kept(run: PruneRows) -> Grid | None:
    lines: list[list[str]] = []
    gaps = []
    for measure in measures_of(run.retained):
        gaps.append(len(lines))
        for at, line in enumerate(lines_of(measure, run.names)):
            about = f"{measure.name} ({measure.direction})" if measure.direction else measure.name
            n_blocks = "-" if line.n_blocks is None else f"{line.n_blocks}"
            cells = [line.text("before"), line.text("after"), line.difference(), line.share]
            lines.append([about if at == 0 else "", line.name, n_blocks, *cells])
    header = ["Measure", "Without the blocks of", "n", "Before", "After", "Difference", "Share kept"]
    return Grid(header, lines, n_left=2, gaps=frozenset(gaps[1:])) if lines else None
