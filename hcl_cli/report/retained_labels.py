"""Rows of RETAINED -> measures, and in each a line per criterion with the seeds of `random` together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.prune_labels import (
    RANDOM,
    Key,
    Names,
    PruneRows,
    Spread,
    decimals_at,
    estimate,
    excludes,
    key_of,
    names_of,
    signed_estimate,
    spread_of,
)

_METRICS = {
    "token-accuracy": "next-token accuracy", "answer-accuracy": "answer accuracy", "ece": "ECE",
    "brier": "Brier score", "auroc": "AUROC", "mc1": "MC1", "mc2": "MC2", "mc3": "MC3",
    "contrastive-loss": "contrastive loss", "cosine-margin": "cosine margin",
    "hallucination-rate": "hallucination rate", "tokens-per-second": "tokens per second",
    **{
        f"{name}{end}": f"{name} accuracy{how}"
        for name in ("sentiment", "classification")
        for end, how in (("", ""), ("-mean", " (mean per token)"), ("-calibrated", " (calibrated)"))
    },
}  # fmt: skip
_COSTS = ("parameters", "tokens-per-second")


@dataclass(frozen=True)
class Measure:
    """A metric on a data set, with its rows of RETAINED as they come."""

    metric: str
    dataset: str | None
    rows: list[Row]

    @property
    def name(self) -> str:
        """`perplexity on wikitext2`."""
        name = _METRICS.get(self.metric, one_line(self.metric.replace("_", " ")) or '""')
        return f"{name} on {one_line(self.dataset)}" if self.dataset else name

    @property
    def is_cost(self) -> bool:
        """Whether it says how large or fast the model is, not how good."""
        return self.metric in _COSTS

    @property
    def higher_is_better(self) -> bool | None:
        """The direction, if it is known."""
        return next((row["higher_is_better"] for row in self.rows if row.get("higher_is_better") is not None), None)

    @property
    def direction(self) -> str:
        """`higher is better`; empty if unknown."""
        return {True: "higher is better", False: "lower is better", None: ""}[self.higher_is_better]

    @property
    def before(self) -> Row:
        """A row that knows the value of the whole model, if there is one."""
        return next((row for row in self.rows if row.get("before") is not None), self.rows[0])


@dataclass(frozen=True)
class Line:
    """One criterion at one number of blocks: a row, or one row per seed.

    Attributes:
        key: variant, activations, seed; no seed where there are several.
        name: with the number of seeds, if there are several.
        n_blocks: how many went, or were trained.
        rows: one per seed.
    """

    key: Key
    name: str
    n_blocks: int | None
    rows: list[Row]

    @property
    def row(self) -> Row | None:
        """The row, if there is only one."""
        return self.rows[0] if len(self.rows) == 1 else None

    @property
    def is_random(self) -> bool:
        """Whether blocks were drawn."""
        return self.key[0] == RANDOM

    def spread(self, name: str) -> Spread | None:
        """A column over seeds."""
        return spread_of(self.rows, name)

    def text(self, name: str) -> str:
        """A column with its interval; over seeds the mean, the lowest and the highest."""
        spread = self.spread(name)
        # As many decimals as the value before has, where that is the larger one.
        sizes = [abs(row["before"]) for row in self.rows if row.get("before") is not None]
        if self.row is not None or (spread is not None and len(set(spread.values)) == 1):
            return estimate(self.rows[0], name, at_least=max(sizes, default=0.0))
        return "-" if spread is None else spread.text(decimals_at(max([*map(abs, spread.values), *sizes])))

    def difference(self, name: str = "difference") -> str:
        """A difference with its interval, or its spread over seeds."""
        sizes = [abs(row[of]) for row in self.rows for of in ("before", "after") if row.get(of) is not None]
        decimals = decimals_at(max(sizes, default=0.0))
        if self.row is not None:
            return signed_estimate(self.row, name, decimals)
        spread = self.spread(name)
        return "-" if spread is None else spread.text(decimals, sign=True)

    @property
    def share(self) -> str:
        """What is kept, in per cent."""
        if self.row is not None:
            return percent(self.row)
        spread = self.spread("share_kept")
        if spread is None:
            return "-"
        mean, low, high = (_percent(value) for value in (spread.mean, min(spread.values), max(spread.values)))
        return f"{mean} % ({low} to {high})"


def measures_of(retained: Sequence[Row]) -> list[Measure]:
    """One entry per metric and data set, in order of first appearance; size and speed at the end."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in retained:
        found.setdefault((str(row["metric"]), row.get("dataset")), []).append(row)
    measures = [Measure(metric, dataset, rows) for (metric, dataset), rows in found.items()]
    return sorted(measures, key=lambda measure: measure.is_cost)


def lines_of(measure: Measure, names: Names | None = None) -> list[Line]:
    """Every criterion at every number of blocks, numbers rising; seeds of one criterion together, `random` last."""
    names = names or names_of(map(key_of, measure.rows))
    groups: dict[Key, dict[int | None, list[Row]]] = {}
    for row in measure.rows:
        variant, activations, seed = key_of(row)
        together = variant in names.several_seeds
        groups.setdefault((variant, activations, None if together else seed), {}).setdefault(
            row.get("n_blocks"), []
        ).append(row)
    lines = []
    for key, sizes in groups.items():
        for n_blocks in sorted(sizes, key=lambda n: -1 if n is None else n):
            rows = sizes[n_blocks]
            name = names(key) + (f" ({len(rows)} seeds)" if len(rows) > 1 else "")
            lines.append(Line(key, name, n_blocks, rows))
    return sorted(lines, key=lambda line: line.is_random)


def chosen_lines(measure: Measure, run: PruneRows) -> list[Line]:
    """Each criterion at the number of blocks that its rule removes; where no rule is known, at the largest."""
    groups: dict[Key, list[Line]] = {}
    for line in lines_of(measure, run.names):
        groups.setdefault(line.key, []).append(line)
    n_removed = {key: run.n_removed(key) for key in groups}
    return [
        next((line for line in lines if line.n_blocks == n_removed[key]), lines[-1]) for key, lines in groups.items()
    ]


def percent(row: Row, name: str = "share_kept") -> str:
    """A share and its interval in per cent: 91.2 % [88.0, 94.1]."""
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    text = f"{_percent(value)} %"
    return text if low is None or high is None else f"{text} [{_percent(low)}, {_percent(high)}]"


def _percent(value: float) -> str:
    return "<0.1" if 0 < value < 0.0005 else f"{100 * value:.1f}"


def better(measure: Measure, row: Row, than: float) -> tuple[bool, bool] | None:
    """Whether a row's value after the removal is better than a number, and whether its whole interval is.

    None where the direction or the value is unknown.
    """
    value, upwards = row.get("after"), measure.higher_is_better
    if value is None or upwards is None:
        return None
    told = excludes(row, "after", than)
    return (value > than, told == 1) if upwards else (value < than, told == -1)


def units_of(rows: Sequence[Row]) -> list[str]:
    """What the intervals resample, with its number: `200 texts`, `80 to 120 questions`."""
    said = []
    for unit in dict.fromkeys(row["unit"] for row in rows if row.get("unit") is not None):
        counts = sorted({row["n_units"] for row in rows if row.get("unit") == unit and row.get("n_units") is not None})
        spread = " to ".join(f"{n:,}" for n in dict.fromkeys(counts[:1] + counts[-1:]))
        said.append(f"{spread} {one_line(str(unit))}".strip())
    return said
