"""What the tables and figures of `hcl prune` and `hcl mitigate` call things: criteria, blocks, numbers. Plain rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.probe_labels import joined

RANDOM, DAMAGE = "random", "damage"
OF_NOTHING = (RANDOM, "first", "last")  # orders without a measure: references, not criteria of importance
UNSCORED = ("greedy", "given")  # a search scores only what it removes, blocks that the user named have no score
HALLUCINATION = ("eavss", "hsav", "hss")  # rank 1: the likeliest to hallucinate, not the least important
DAMAGE_DECIMALS = 3

Key = tuple[Any, ...]  # criterion or variant, activations, seed


@dataclass(frozen=True)
class Names:
    """Names of criteria, with activations and seed only where these tell one from another."""

    several_activations: bool
    several_seeds: frozenset[Any]

    def __call__(self, key: Key) -> str:
        """`avss`, `avss (mlp)`, `random, seed 3`."""
        criterion, activations, seed = key
        name = one_line(str(criterion)) or '""'
        if self.several_activations and activations is not None:
            name += f" ({one_line(str(activations))})"
        return f"{name}, seed {seed}" if criterion in self.several_seeds and seed is not None else name


@dataclass(frozen=True)
class Ranking:
    """The rows of BLOCKS of one criterion.

    Attributes:
        key: criterion, activations, seed.
        name: what it is called beside the others.
        rows: blocks rising.
    """

    key: Key
    name: str
    rows: list[Row]

    @property
    def criterion(self) -> str:
        """Its criterion alone."""
        return str(self.key[0])

    @property
    def removed(self) -> list[int]:
        """The blocks that go."""
        return [row["block"] for row in self.rows if row.get("removed")]

    @property
    def by_block(self) -> dict[int, Row]:
        """Its row of each block."""
        return {row["block"]: row for row in self.rows}


@dataclass(frozen=True)
class PruneRows:
    """What is known of one model.

    Attributes:
        of: model, and the data set where one criterion was taken on several.
        rankings: of every criterion, seeds of `random` apart.
        compared: rows of CRITERIA_COMPARED.
        retained: rows of RETAINED.
        names: of the keys of all three.
    """

    of: tuple[Any, ...]
    rankings: list[Ranking]
    compared: list[Row]
    retained: list[Row]
    names: Names = field(default=Names(False, frozenset()))

    @property
    def name(self) -> str:
        """Model, and the data sets that the statistics were taken over, as far as they are known."""
        data = dict.fromkeys(row.get("dataset") for ranking in self.rankings for row in ranking.rows)
        return ", ".join(one_line(str(part)) for part in dict.fromkeys([self.of[0], *data]) if part not in (None, ""))

    @property
    def blocks(self) -> list[int]:
        """Every block, 1..L."""
        return sorted({row["block"] for ranking in self.rankings for row in ranking.rows})

    @property
    def seeds_of_random(self) -> list[Ranking]:
        """The rankings of `random`, if there are several: a family, told by its mean or its counts."""
        found = [ranking for ranking in self.rankings if ranking.criterion == RANDOM]
        return found if len(found) > 1 else []

    @property
    def shown(self) -> list[Ranking]:
        """The rankings that are shown each for itself."""
        family = self.seeds_of_random
        return [ranking for ranking in self.rankings if not any(ranking is one for one in family)]

    @property
    def damages(self) -> dict[Any, dict[int, Row]]:
        """Rows with the true damage of each block, by data set; the same numbers under two data sets count once."""
        found: dict[Any, dict[int, Row]] = {}
        for ranking in self.rankings:
            for row in ranking.rows:
                if row.get("damage") is not None:
                    found.setdefault(row.get("dataset"), {}).setdefault(row["block"], row)
        kept: dict[Any, dict[int, Row]] = {}
        for dataset, rows in found.items():
            values = {block: row["damage"] for block, row in rows.items()}
            if not any(
                values.items() <= {at: row["damage"] for at, row in own.items()}.items() for own in kept.values()
            ):
                kept[dataset] = rows
        return kept

    def n_removed(self, key: Key) -> int | None:
        """How many blocks a criterion removes, with any seed if the key has none; None if no ranking says."""
        own = [one for one in self.rankings if one.key == key or (key[2] is None and one.key[:2] == key[:2])]
        return next((len(one.removed) for one in own if one.removed), None)


def prune_rows(blocks: Sequence[Row], compared: Sequence[Row] = (), retained: Sequence[Row] = ()) -> list[PruneRows]:
    """One entry per model, in order of first appearance; per data set where one criterion was taken on several."""
    models = list(dict.fromkeys(row.get("model") for rows in (blocks, compared, retained) for row in rows))
    found = []
    for model in models:
        own, beside, kept = (
            [row for row in rows if row.get("model") == model] for rows in (blocks, compared, retained)
        )
        places = [(key_of(row), row.get("dataset")) for row in own]
        split = len(set(places)) > len({key for key, _ in places})
        datasets = list(dict.fromkeys(row.get("dataset") for row in [*own, *beside])) if split else [None]
        for dataset in datasets:
            here, there = (
                [row for row in rows if not split or row.get("dataset") == dataset] for rows in (own, beside)
            )
            at_end = kept if dataset == datasets[-1] else []
            names = names_of([key_of(row) for row in here], *(keys_of_pair(row) for row in there), map(key_of, at_end))
            rankings: dict[Key, list[Row]] = {}
            for row in here:
                rankings.setdefault(key_of(row), []).append(row)
            made = [
                Ranking(key, names(key), sorted(rows, key=lambda row: int(row["block"])))
                for key, rows in rankings.items()
            ]
            found.append(PruneRows((model, *([dataset] if split else [])), made, there, at_end, names))
    return found


def key_of(row: Row) -> Key:
    """Criterion (or variant), activations and seed of a row of BLOCKS or RETAINED."""
    return row.get("criterion", row.get("variant")), row.get("activations"), row.get("seed")


def keys_of_pair(row: Row) -> tuple[Key, Key]:
    """Both sides of a row of CRITERIA_COMPARED."""
    other = row["other"], row.get("other_activations"), row.get("other_seed")
    return (row["criterion"], row.get("activations"), row.get("seed")), other


def names_of(*keys: Iterable[Key]) -> Names:
    """Names that tell all the keys apart."""
    known = {key for some in keys for key in some}
    seeds: dict[Any, set[Any]] = {}
    for criterion, _, seed in known:
        seeds.setdefault(criterion, set()).add(seed)
    several = frozenset(criterion for criterion, own in seeds.items() if len(own - {None}) > 1)
    return Names(len({key[1] for key in known} - {None}) > 1, several)


@dataclass(frozen=True)
class Spread:
    """Values of several seeds: their mean, the lowest and the highest."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return math.fsum(self.values) / len(self.values)

    def text(self, decimals: int, sign: bool = False) -> str:
        """`0.45 (0.40 to 0.51)`: round brackets, for a spread is no interval of a mean."""
        mean, low, high = (fixed(value, decimals, sign) for value in (self.mean, min(self.values), max(self.values)))
        return f"{mean} ({low} to {high})"


def spread_of(rows: Iterable[Row], name: str) -> Spread | None:
    """The values of a column over seeds; None if none is known."""
    values = tuple(row[name] for row in rows if row.get(name) is not None)
    return Spread(values) if values else None


def block_list(blocks: Iterable[int]) -> str:
    """Blocks by number, three neighbours and more joined: `1, 2, 5 to 8 and 10`."""
    runs: list[list[int]] = []
    for block in sorted(blocks):
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    said: list[str] = []
    for run in runs:
        said += map(str, run) if len(run) < 3 else [f"{run[0]} to {run[-1]}"]
    return joined(said)


def blocks_named(blocks: Sequence[int]) -> str:
    """`block 3`, `blocks 3 and 5`."""
    return f"block{'' if len(blocks) == 1 else 's'} {block_list(blocks)}"


def fixed(value: float | None, decimals: int, sign: bool = False) -> str:
    """A number with thousands apart, or with its sign; a dash for null."""
    if value is None or math.isnan(value):
        return "-"
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    return text.lstrip("+-") if not text.strip("+-0.,") else text


def significant(value: float | None, largest: float | None = None) -> str:
    """A number of any size with three significant digits, counted at `largest`; a dash for null."""
    at = 0.0 if value is None else abs(value if largest is None else largest)
    if value is None or math.isnan(value) or not math.isfinite(at):
        return fixed(value, 0)
    if value == 0:
        return "0"
    return fixed(value, decimals_at(at)) if 1e-4 <= at < 1e6 else f"{value:.2e}"


def decimals_at(largest: float) -> int:
    """Decimals that show three significant digits of a number of this size."""
    if largest == 0 or not math.isfinite(largest):
        return 2
    return max(0, 2 - math.floor(math.log10(abs(largest)) + 1e-9))


def estimate(row: Row, name: str, interval: bool = True, at_least: float = 0.0) -> str:
    """An estimate of any size and its interval: 0.0123 [0.0119, 0.0127].

    Args:
        row: with the columns `name`, `name`_low and `name`_high.
        name: of the estimate.
        interval: whether the interval is shown.
        at_least: a size at which digits are counted, if the numbers themselves are smaller.
    """
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None or low is None or high is None or not interval:
        return significant(value, None if value is None else max(abs(value), at_least))
    largest = max(abs(value), abs(low), abs(high), at_least)
    return f"{significant(value, largest)} [{significant(low, largest)}, {significant(high, largest)}]"


def signed_estimate(row: Row, name: str, decimals: int, interval: bool = True) -> str:
    """A difference and its interval: +0.021 [+0.004, +0.040]."""
    value, low, high = (fixed(row.get(f"{name}{end}"), decimals, sign=True) for end in ("", "_low", "_high"))
    return value if "-" in (low, high) or not interval else f"{value} [{low}, {high}]"


def excludes(row: Row, name: str, value: float = 0.0) -> int:
    """1 if the interval lies above the value, -1 if below, 0 if it holds it or is unknown."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if low is None or high is None:
        return 0
    return 1 if low > value else -1 if high < value else 0
