"""The share of performance that each criterion keeps, beside the published claim: Markdown, CSV or LaTeX.

| mark | how the number is known |
| --- | --- |
| paper: abstract | read in the abstract of the publication; its tables could not be read |

Source: AVSS, Song et al., arXiv 2411.02117: over 90 % of performance is kept after about 25 % of the layers are
removed, on the paper's own models and tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hcl_cli.report.files import write_file
from hcl_cli.report.grids import Grid, check_table_ending, page, table_ending
from hcl_cli.report.labels import Row
from hcl_cli.report.probe_labels import joined
from hcl_cli.report.prune_labels import PruneRows, prune_rows
from hcl_cli.report.prune_words import against_random
from hcl_cli.report.retained_labels import Line, Measure, chosen_lines, lines_of, measures_of
from hcl_cli.report.tables import csv_text
from hcl_cli.schemas.blocks import RETAINED

PAPER_ABSTRACT = "paper: abstract"
PUBLISHED_SHARE, PUBLISHED_REMOVED = 0.9, 0.25  # "over 90 %", "approximately 25 %"
_NEAR = (0.2, 0.3)  # removed shares that are held against the claim
_OF_THE_CLAIM = ("avss", "avss-published")


def retained_table_text(retained: Sequence[Row], ending: str, blocks: Sequence[Row] = ()) -> str:
    """What each criterion keeps of each measure, with the published claim.

    Args:
        retained: rows of RETAINED.
        ending: ".md" and ".tex" give, per model, shares with a column per measure, and a line per measure and
            criterion; ".csv" gives every column of RETAINED unrounded, removed blocks apart by blanks.
        blocks: rows of BLOCKS; they tell how many blocks a model has, and which number of removed ones to show.
    Raises:
        BadOption: for another ending.
    """
    check_table_ending(ending)
    if ending == ".csv":
        return retained_csv(retained)
    pages = []
    for run in prune_rows(blocks, (), retained):
        chosen = [(measure, chosen_lines(measure, run)) for measure in measures_of(run.retained)]
        if chosen:
            pages.append(page(run.name or "retained", [_overview(run, chosen), _lines(run, chosen)],
                              _sentences(run, chosen), ending))  # fmt: skip
    return "\n".join(pages)


def retained_csv(retained: Sequence[Row]) -> str:
    """Every column of RETAINED unrounded; the blocks of a row apart by blanks."""
    spelled = [{**row, "blocks": " ".join(map(str, row.get("blocks") or ()))} for row in retained]
    return csv_text(spelled, RETAINED.columns)


def write_retained_table(retained: Sequence[Row], path: Path, blocks: Sequence[Row] = ()) -> None:
    """Write `retained_table_text` to a file; its ending says the format.

    Raises:
        BadOption: for another ending.
        EnvironmentRefused: if the file cannot be written.
    """
    ending = table_ending(path)
    write_file("--table", path, retained_table_text(retained, ending, blocks).encode())


Chosen = Sequence[tuple[Measure, list[Line]]]


def _removed(run: PruneRows, n_blocks: int | None) -> str:
    """`2 of 10 (20 %)`."""
    if n_blocks is None:
        return "-"
    total = len(run.blocks)
    return f"{n_blocks} of {total} ({100 * n_blocks / total:.0f} %)" if total else f"{n_blocks}"


def _overview(run: PruneRows, chosen: Chosen) -> Grid:
    """A row per criterion, a column per measure of quality; the published claim at the end."""
    shown = [(measure, lines) for measure, lines in chosen if not measure.is_cost]
    names = list(dict.fromkeys((line.name, line.n_blocks) for _, lines in shown for line in lines))
    shares = [{(line.name, line.n_blocks): line.share for line in lines} for _, lines in shown]
    rows = [[name, _removed(run, n), *(share.get((name, n), "-") for share in shares)] for name, n in names]
    return Grid(["Share kept", "Removed", *(measure.name for measure, _ in shown)], rows)


def _lines(run: PruneRows, chosen: Chosen) -> Grid:
    rows: list[list[str]] = []
    gaps = []
    for measure, lines in chosen:
        gaps.append(len(rows))
        for line in lines:
            cells = [line.text("before"), line.text("after"), line.difference(), line.share]
            rows.append([line.name, measure.name, _removed(run, line.n_blocks), *cells])
    gaps.append(len(rows))
    claim = [f"AVSS, published [{PAPER_ABSTRACT}]", "performance on the paper's own tasks"]
    rows.append([*claim, f"about {100 * PUBLISHED_REMOVED:.0f} %", "", "", "", f"over {100 * PUBLISHED_SHARE:.0f} %"])
    header = ["Criterion", "Measure", "Removed", "Before", "After", "Difference", "Share kept"]
    return Grid(header, rows, n_left=2, gaps=frozenset(gaps[1:]))


def _sentences(run: PruneRows, chosen: Chosen) -> list[str]:
    quality = [(measure, lines) for measure, lines in chosen if not measure.is_cost]
    said = [sentence for line in _criteria(quality) for sentence in _against_claim(run, quality, line)]
    said += [f"{measure.name}: {sentence}" for measure, lines in quality for sentence in against_random(measure, lines)]
    said.append(
        f"Published [{PAPER_ABSTRACT}]: AVSS, arXiv 2411.02117, keeps over {100 * PUBLISHED_SHARE:.0f} % of "
        f"performance after about {100 * PUBLISHED_REMOVED:.0f} % of the layers are removed; other models and tasks "
        "than these, and no interval."
    )
    said.append("[ ] 95 %, paired; share kept: after / before, or before / after where lower is better.")
    if any(len(line.rows) > 1 for _, lines in chosen for line in lines):
        said.append("( ) lowest and highest over seeds.")
    hidden = sum(len(lines_of(measure, run.names)) - len(lines) for measure, lines in chosen)
    if hidden:
        said.append(f"{hidden} more rows, of other numbers of blocks, are in the CSV.")
    return said


def _criteria(quality: Chosen) -> list[str]:
    found = dict.fromkeys(line.name for _, lines in quality for line in lines if line.key[0] in _OF_THE_CLAIM)
    return list(found)


def _against_claim(run: PruneRows, quality: Chosen, name: str) -> list[str]:
    """How much of what a criterion of the paper keeps here, where about as many blocks went."""
    total = len(run.blocks)
    held = [
        (measure, line)
        for measure, lines in quality
        for line in lines
        if line.name == name and line.row is not None and line.row.get("share_kept") is not None
        and total and line.n_blocks is not None and _NEAR[0] <= line.n_blocks / total <= _NEAR[1]
    ]  # fmt: skip
    if not held:
        return []
    over = [measure.name for measure, line in held if line.rows[0]["share_kept"] > PUBLISHED_SHARE]
    sure = sum((line.rows[0].get("share_kept_low") or 0.0) > PUBLISHED_SHARE for _, line in held)
    n_blocks = _removed(run, held[0][1].n_blocks)
    kept = f"over {100 * PUBLISHED_SHARE:.0f} % of {len(over)} of {len(held)} measures"
    which = f" ({joined(over)}), {sure} with the whole interval" if over else ""
    return [f"Without {n_blocks} blocks {name} keeps {kept}{which}."]
