"""Blocks and what is left without them on a terminal: scores and ranks, agreement, the quality kept, and in words."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from hcl_cli.report.columns import GAP, NAME_WIDTH, Column, Form, rows_in_line, whole, widths_of
from hcl_cli.report.labels import Row, number, one_line, with_interval
from hcl_cli.report.prune_labels import (
    DAMAGE_DECIMALS,
    RANDOM,
    Key,
    PruneRows,
    Ranking,
    estimate,
    keys_of_pair,
    prune_rows,
    signed_estimate,
    significant,
    spread_of,
)
from hcl_cli.report.prune_words import note_sentences, pairs_of, prune_sentences, with_damage
from hcl_cli.report.retained_labels import Line, Measure, chosen_lines, lines_of, measures_of

MOST_BLOCKS = 48  # deeper models show every second (third, ...) block, and all that a criterion removes
MOST_LINES = 60  # of the quality kept; more are shown as one table of shares, without intervals
MOST_SCORES = 4  # with more criteria their ranks alone are shown


@dataclass(frozen=True)
class BlocksTable:
    """A row per block: one criterion with all that is known of it, several with their ranks beside each other."""

    run: PruneRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The richest form that fits the terminal; what does not fit even with ranks alone is folded."""
        yield Text(self.run.name or "blocks", style="bold cyan")
        mark = "x" if options.ascii_only else "×"
        blocks = self._blocks()
        alone = len(self.run.rankings) == 1
        forms = self._alone(blocks, mark) if alone else self._beside(blocks, mark)
        fitting = next((form for form in forms if form.width <= options.max_width), forms[-1])
        removed = {block for ranking in self.run.shown for block in ranking.removed} if alone else set()
        for part in fitting.folded(options.max_width):
            yield part.table(["red" if block in removed else "" for block in blocks], mark, "red")
        hidden = len(self.run.blocks) - len(blocks)
        if hidden:
            yield Text(f"{hidden} more blocks are in the table; --table FILE.csv has all", style="dim")
        if fitting.gap < GAP:
            yield Text(whole(_key([ranking.name for ranking in self.run.shown]), options.max_width), style="dim")
        yield Text(whole(self._legend(mark, fitting), options.max_width), style="dim")

    def _blocks(self) -> list[int]:
        blocks = self.run.blocks
        every = math.ceil(len(blocks) / MOST_BLOCKS)
        removed = {block for ranking in self.run.shown for block in ranking.removed}
        return [block for at, block in enumerate(blocks) if at % every == 0 or block in removed]

    def _alone(self, blocks: Sequence[int], mark: str) -> list[Form]:
        (ranking,) = self.run.rankings
        rows = [ranking.by_block[block] for block in blocks]
        block = Column("Block", [f"{at}" for at in blocks])
        rank = Column("Rank", [_rank(row, mark) for row in rows])
        shown = {
            "normalised": Column("Norm.", [number(row.get("normalised"), 3) for row in rows]),
            "p_adjusted": Column("p adj.", [number(row.get("p_adjusted"), 3) for row in rows]),
        }
        extra = [column for name, column in shown.items() if any(row.get(name) is not None for row in rows)]

        def score(interval: bool) -> Column:
            return Column(ranking.name, [estimate(row, "score", interval) for row in rows], fold=NAME_WIDTH)

        damages = [self._damages(blocks, interval) for interval in (True, False)]
        return [
            Form([block, score(True), *extra, rank, *damages[0]]),
            Form([block, score(True), rank, *damages[0]]),
            Form([block, score(True), rank, *damages[1]]),
            Form([block, score(False), rank, *damages[1]]),
        ]

    def _beside(self, blocks: Sequence[int], mark: str) -> list[Form]:
        block = Column("Block", [f"{at}" for at in blocks])
        damages = [self._damages(blocks, interval) for interval in (True, False)]
        family = self._family(blocks)
        ranks = [[_rank(one.by_block.get(at, {}), mark) for at in blocks] for one in self.run.shown]
        scored = [
            _named(one, _joined([significant(one.by_block.get(at, {}).get("score")) for at in blocks], cells))
            for one, cells in zip(self.run.shown, ranks, strict=True)
        ]
        named = [_named(one, cells) for one, cells in zip(self.run.shown, ranks, strict=True)]
        short = [Column(letter, cells) for letter, cells in zip(_letters(len(ranks)), ranks, strict=True)]
        forms = [(scored, GAP)] * (len(ranks) <= MOST_SCORES) + [(named, GAP), (short, 1)]
        return [Form([block, *columns, *family, *damage], gap) for columns, gap in forms for damage in damages]

    def _family(self, blocks: Sequence[int]) -> list[Column]:
        """Of several seeds of `random`: how many remove the block."""
        family = self.run.seeds_of_random
        if not family:
            return []
        counts = [sum(block in one.removed for one in family) for block in blocks]
        return [Column(RANDOM, [f"{n}/{len(family)}" for n in counts])]

    def _damages(self, blocks: Sequence[int], interval: bool) -> list[Column]:
        several = len(self.run.damages) > 1
        return [
            Column(
                f"Damage on {one_line(str(dataset))}" if several else "Damage",
                [signed_estimate(rows.get(block, {}), "damage", DAMAGE_DECIMALS, interval) for block in blocks],
                fold=NAME_WIDTH if interval else 8,
            )
            for dataset, rows in self.run.damages.items()
        ]

    def _legend(self, mark: str, form: Form) -> list[str]:
        said = ["rank 1 goes first"]
        if any(one.removed for one in self.run.shown):
            said.insert(0, f"{mark} removed")
        if self.run.seeds_of_random:
            said.append(f"{RANDOM}: how many seeds remove it")
        if self.run.damages:
            said.append("damage: rise of the loss without it alone, nats per token")
        return [*said, "[ ] 95 %"] if any("[" in cell for column in form.columns for cell in column.cells) else said


def _rank(row: Row, mark: str) -> str:
    rank = row.get("rank")
    return ("-" if rank is None else f"{rank}") + (mark if row.get("removed") else " ")


def _named(ranking: Ranking, cells: list[str]) -> Column:
    """A column whose title is folded at blanks and hyphens alone."""
    parts = textwrap.wrap(ranking.name, 1, break_long_words=False)
    return Column(ranking.name, cells, fold=max([*map(cell_len, parts), *map(cell_len, cells)], default=1))


def _letters(n: int) -> list[str]:
    """a, b, .., z; then numbers."""
    return [chr(ord("a") + at) if at < 26 else f"{at + 1}" for at in range(n)]


def _joined(scores: Sequence[str], ranks: Sequence[str]) -> list[str]:
    """Score and rank in one cell, each in line."""
    wide, narrow = (max(map(len, cells), default=0) for cells in (scores, ranks))
    return [f"{score:>{wide}} {rank:>{narrow}}" for score, rank in zip(scores, ranks, strict=True)]


def _key(names: Sequence[str]) -> list[str]:
    return [f"{letter} {name}" for letter, name in zip(_letters(len(names)), names, strict=True)]


@dataclass(frozen=True)
class AgreementTable:
    """Rank correlations: of each criterion with the true damage, and between criteria."""

    run: PruneRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Up to three pairs as a list, more as a triangle."""
        damage, pairs = self._with_damage(), pairs_of(self.run)
        if damage:
            yield Text("Rank correlation with the true damage", style="cyan")
            yield from self._list(damage, options.max_width)
        if len(pairs) > 3:
            yield Text("Rank correlation between criteria", style="cyan")
            keys = list(dict.fromkeys(key for row in pairs for key in keys_of_pair(row)))
            # In the order, and so under the letters, of the table of blocks.
            keys = [one.key for one in self.run.shown if one.key in keys] + [
                key for key in keys if all(one.key != key for one in self.run.shown)
            ]
            for part in self._triangle(pairs, keys).folded(options.max_width):
                yield part.table()
            yield Text(whole(_key([self.run.names(key) for key in keys]), options.max_width), style="dim")
        elif pairs:
            yield Text("Rank correlation between criteria", style="cyan")
            lines = [_pair(" / ".join(self.run.names(key) for key in keys_of_pair(row)), row) for row in pairs]
            yield from self._list(lines, options.max_width)

    def _with_damage(self) -> list[list[str]]:
        rows = with_damage(self.run)
        family = [row for row in rows if row["criterion"] in self.run.names.several_seeds]
        lines = [_pair(self.run.names(keys_of_pair(row)[0]), row) for row in rows if row not in family]
        spread = spread_of(family, "rank_correlation")
        if spread is not None:
            name = f"{one_line(str(family[0]['criterion']))} ({len(family)} seeds)"
            common = spread_of(family, "n_common")
            shared = "-" if common is None else f"{number(common.mean, 1)} of {_or_dash(family[0].get('n_removed'))}"
            lines.append([name, spread.text(2), "-", shared])
        return lines

    def _list(self, lines: Sequence[Sequence[str]], width: int) -> Iterator[Table]:
        header = ["", "Spearman", "p", "both remove"]
        widths = widths_of([header, *lines], width)
        yield rows_in_line([header], widths, "bold")
        yield rows_in_line(lines, widths)

    def _triangle(self, pairs: Sequence[Row], keys: Sequence[Key]) -> Form:
        found = {frozenset(keys_of_pair(row)): row.get("rank_correlation") for row in pairs}
        letters = _letters(len(keys))
        columns = [Column("", letters[1:], right=False)]
        for at, key in enumerate(keys[:-1]):
            cells = [number(found.get(frozenset((key, other)))) for other in keys]
            columns.append(Column(letters[at], ["" if place <= at else cells[place] for place in range(1, len(keys))]))
        return Form(columns, 1)


def _pair(name: str, row: Row) -> list[str]:
    common = row.get("n_common")
    shared = "-" if common is None else f"{common} of {_or_dash(row.get('n_removed'))}"
    return [name, with_interval(row, "rank_correlation"), number(row.get("p_value"), 3), shared]


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value}"


@dataclass(frozen=True)
class RetainedTable:
    """A section per measure, a row per criterion: what is left without its blocks."""

    run: PruneRows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fits 80 columns."""
        measures = measures_of(self.run.retained)
        if not measures:
            return
        lines = [chosen_lines(measure, self.run) for measure in measures]
        if sum(map(len, lines)) > MOST_LINES:
            yield from self._shares(measures, lines, options.max_width)
        else:
            yield from self._sections(measures, lines, options.max_width)
        hidden = sum(len(lines_of(measure, self.run.names)) for measure in measures) - sum(map(len, lines))
        if hidden:
            said = f"{hidden} more rows, of other numbers of blocks; --retained-table FILE.csv has all"
            yield Text(said, style="dim")

    def _sections(
        self, measures: Sequence[Measure], lines: Sequence[Sequence[Line]], width: int
    ) -> Iterator[Table | Text]:
        header = ["", "n", "After", "Share kept"]
        cells = [
            [[line.name, _or_dash(line.n_blocks), line.text("after"), line.share] for line in own] for own in lines
        ]
        widths = widths_of([header, *(row for own in cells for row in own)], width)
        yield rows_in_line([header], widths, "bold")
        for measure, own in zip(measures, cells, strict=True):
            whole_model = f"whole: {estimate(measure.before, 'before')}"
            about = ", ".join(part for part in (measure.direction, whole_model) if part)
            yield Text.assemble((measure.name, "cyan"), f"   {about}")
            yield rows_in_line(own, widths)
        seeds = any(len(line.rows) > 1 for own in lines for line in own)
        legend = ["n: blocks removed", "share kept: after / whole, or whole / after where lower is better", "[ ] 95 %"]
        yield Text(whole([*legend, *["( ) over seeds"] * seeds], width), style="dim")

    def _shares(
        self, measures: Sequence[Measure], lines: Sequence[Sequence[Line]], width: int
    ) -> Iterator[Table | Text]:
        """One column per measure, without intervals."""
        names = list(dict.fromkeys((line.name, line.n_blocks) for own in lines for line in own))
        columns = [Column("", [name for name, _ in names], right=False), Column("n", [_or_dash(n) for _, n in names])]
        for measure, own in zip(measures, lines, strict=True):
            shares = {(line.name, line.n_blocks): line.share.split(" ")[0] for line in own}
            words = max(map(cell_len, measure.name.split()))
            columns.append(Column(measure.name, [shares.get(name, "") for name in names], fold=max(words, 9)))
        yield Text("Share kept, per cent", style="cyan")
        for part in Form(columns).folded(width):
            yield part.table()
        values = [f"{measure.name} {estimate(measure.before, 'before', interval=False)}" for measure in measures]
        yield Text(
            f"n: blocks removed. Intervals: --retained-table FILE.md. Whole model: {', '.join(values)}.", style="dim"
        )


def prune_report(
    blocks: Sequence[Row], compared: Sequence[Row] = (), retained: Sequence[Row] = ()
) -> Iterator[BlocksTable | AgreementTable | RetainedTable | Text]:
    """What `hcl prune` shows.

    Args:
        blocks: rows of BLOCKS.
        compared: rows of CRITERIA_COMPARED.
        retained: rows of RETAINED; of several numbers of blocks, the one that the rule removes is shown.
    Yields:
        renderables for rich. Names are never read as markup.
    """
    runs = prune_rows(blocks, compared, retained)
    for run in runs:
        if run.rankings:
            yield BlocksTable(run)
            yield Text("")
        if run.compared:
            yield AgreementTable(run)
            yield Text("")
        if run.retained:
            yield RetainedTable(run)
            yield Text("")
        for sentence in prune_sentences(run):
            yield Text(sentence)
        noted = " ".join(note_sentences(run))
        if noted:
            yield Text(noted, style="dim")
    if not runs:
        yield Text("no blocks to show", style="dim")
