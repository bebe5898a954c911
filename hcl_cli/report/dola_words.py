"""What tables and figures of `hcl dola` call things, and what they say in plain words. Plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hcl_cli.report.labels import Row, number, one_line
from hcl_cli.report.probe_labels import joined

VANILLA = "vanilla"
DECIMALS = 3
CELL = ("metric", "against", "constrained", "normalised", "encoder", "outside")

_OF = ("model", "dataset")
_METRICS = {
    "bleu": "BLEU", "bleu-sentence": "sentence BLEU", "rouge-1": "ROUGE-1", "rouge-2": "ROUGE-2",
    "rouge-l": "ROUGE-L", "bertscore": "BERTScore", "token-f1": "token F1", "exact": "exact match", "mc1": "MC1",
    "mc2": "MC2", "mc3": "MC3",
    "mc2-published": "MC2 with halved scores (published)", "factor-sum": "FACTOR, sum", "factor-mean": "FACTOR, mean",
}  # fmt: skip
_AGAINST = {
    "best": "best answer", "correct": "all correct answers", "incorrect": "incorrect answers",
    "max": "max over correct", "diff": "correct minus incorrect", "acc": "nearer a correct one",
}  # fmt: skip
_OUTSIDE = {"excluded": "-inf", "published": "-1000"}


@dataclass(frozen=True)
class Comparison:
    """The rows of one model and dataset.

    Attributes:
        of: model and dataset.
        cells: the rows of each measure, methods as they come; a measure is a value of CELL.
        baseline: the method that the others are compared with.
    """

    of: tuple[Any, ...]
    cells: dict[tuple[Any, ...], list[Row]]
    baseline: str

    @property
    def name(self) -> str:
        """Model and dataset, as far as they are known."""
        return ", ".join(one_line(str(name)) for name in self.of if name is not None)

    @property
    def methods(self) -> list[str]:
        """All methods, in order of first appearance."""
        return list(dict.fromkeys(row["method"] for rows in self.cells.values() for row in rows))

    @property
    def main(self) -> dict[tuple[Any, ...], list[Row]]:
        """The measures that a terminal and a figure have room for. The CSV has all.

        Metrics against the best answer (all correct ones, where there is no best), and how often an answer is nearer
        to a correct one; multiple choice without constraint, and with it and -1000 outside, not normalised (FACTOR:
        normalised), as far as a measure has those.
        """
        ways: dict[str, set[tuple[Any, ...]]] = {}
        for cell in self.cells:
            if is_choice(cell[0]) and _is_main_way(cell):
                ways.setdefault(cell[0], set()).add(cell)
        has_best = any(cell[1] == "best" for cell in self.cells)
        against = {None, "acc", "best" if has_best else "correct"}
        kept = {
            cell: rows
            for cell, rows in self.cells.items()
            if cell[1] in against
            and not (cell[0] == "bleu-sentence" and cell[1] != "acc")
            and (cell[0] not in ways or cell in ways[cell[0]])
        }
        return kept or self.cells


def comparisons_of(rows: Sequence[Row]) -> list[Comparison]:
    """One entry per model and dataset, in order of first appearance.

    Args:
        rows: with model, dataset, method, metric, value, and any of: against, encoder, constrained, normalised (bool),
            outside, value_low, value_high, baseline (a method's name; null in its own rows), difference with its ends,
            n_questions, n_paired, n_answers, n_excluded, n_too_long. What is not there counts as unknown. A row of
            multiple choice without `constrained` and `normalised` (vanilla's: nothing is contrasted) stands in every
            measure of its metric.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name) for name in _OF), []).append(row)
    made = []
    for of, own in found.items():
        cells: dict[tuple[Any, ...], list[Row]] = {}
        for row in own:
            cells.setdefault(tuple(row.get(name) for name in CELL), []).append(row)
        order = {name: at for at, name in enumerate(dict.fromkeys(row["method"] for row in own))}
        cells = _with_baselines(cells)
        cells = {cell: sorted(cells[cell], key=lambda row: order[row["method"]]) for cell in _ordered(cells)}
        baseline = next((row["baseline"] for row in own if row.get("baseline") is not None), VANILLA)
        made.append(Comparison(of, cells, baseline))
    return made


def _with_baselines(cells: dict[tuple[Any, ...], list[Row]]) -> dict[tuple[Any, ...], list[Row]]:
    """The measures, with the rows of multiple choice that know no way of scoring in all the ways of their metric."""
    plain = {cell: rows for cell, rows in cells.items() if is_choice(cell[0]) and cell[2] is cell[3] is None}
    made = {}
    for cell, rows in cells.items():
        bare = (*cell[:2], None, None, cell[4], None)
        if cell in plain and any(other != cell and (*other[:2], None, None, other[4], None) == cell for other in cells):
            continue
        made[cell] = rows if cell in plain else [*plain.get(bare, []), *rows]
    return made


def is_choice(metric: str) -> bool:
    """Whether given answers are scored, instead of an own one compared."""
    return metric.startswith(("mc", "factor"))


def _ordered(cells: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Measures as they come, but multiple choice behind the others, and each of its metrics first without constraint:
    the first method may know some of the ways only."""
    place: dict[str, int] = {}

    def key(cell: tuple[Any, ...]) -> tuple[bool, int, bool, bool, str]:
        metric, _, constrained, normalised, _, outside = cell
        if not is_choice(metric):
            return False, 0, False, False, ""
        return True, place[metric], bool(constrained), bool(normalised), outside or ""

    listed = list(cells)
    for cell in listed:
        place.setdefault(cell[0], len(place))
    return sorted(listed, key=key)


def _is_main_way(cell: tuple[Any, ...]) -> bool:
    """Whether multiple choice is scored there in a way that a terminal has room for."""
    metric, _, constrained, normalised, _, outside = cell
    if not constrained:
        return not normalised
    return outside != "excluded" and bool(normalised) == metric.startswith("factor")


def metric_name(metric: str) -> str:
    """The metric in the field's words; a foreign one under its own name."""
    return _METRICS.get(metric, one_line(str(metric)) or '""')


def cell_name(cell: tuple[Any, ...]) -> str:
    """A measure in words: `BLEU, best answer`; `MC2, with constraint (-1000 outside), not normalised`."""
    metric, against, constrained, normalised, _, outside = cell
    said = [metric_name(metric)]
    if against is not None:
        said.append(_AGAINST.get(against, one_line(str(against))))
    if constrained is not None:
        said.append(constraint_name(constrained, outside))
    if normalised is not None:
        said.append("normalised" if normalised else "not normalised")
    return ", ".join(said)


def constraint_name(constrained: bool, outside: str | None) -> str:
    """`with constraint (-1000 outside)`: what a token outside the plausible set scores."""
    if not constrained:
        return "without constraint"
    return "with constraint" if outside is None else f"with constraint ({_OUTSIDE.get(outside, outside)} outside)"


def method_name(row: Row) -> str:
    """The method of a row or of its settings."""
    return one_line(str(row["method"] if "method" in row else row["name"])) or '""'


def told_apart(row: Row) -> int:
    """1 if the paired interval of the difference lies above 0, -1 if below, 0 if it does not or is unknown.

    Also 0 where more than half of the answers are excluded: a difference there says how many were.
    """
    if is_mostly_excluded(row):
        return 0
    low, high = row.get("difference_low"), row.get("difference_high")
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def is_mostly_excluded(row: Row) -> bool:
    """Whether more than half of the given answers cannot be said at all, for a token that scores -inf."""
    return row.get("outside") == "excluded" and 2 * (row.get("n_excluded") or 0) > (row.get("n_answers") or 0)


def signed(value: float | None, decimals: int = DECIMALS) -> str:
    """A number with its sign; a dash for null."""
    text = number(value, decimals)
    return text if value is None or text.startswith("-") or float(text) == 0 else f"+{text}"


def difference(row: Row, decimals: int = DECIMALS, factor: float = 1.0) -> str:
    """The difference and its interval: +0.021 [+0.004, +0.040]."""
    values = [row.get(f"difference{end}") for end in ("", "_low", "_high")]
    value, low, high = (None if value is None else factor * value for value in values)
    text = signed(value, decimals)
    return text if low is None or high is None else f"{text} [{signed(low, decimals)}, {signed(high, decimals)}]"


def comparison_sentences(comparison: Comparison) -> list[str]:
    """What is told apart from the baseline, and what becomes of gains in multiple choice under the constraint."""
    said = []
    for method in comparison.methods:
        if method != comparison.baseline:
            said += _against_baseline(comparison, method)
    gains = [sentence for method in comparison.methods for sentence in _unconstrained_gains(comparison, method)]
    if gains:
        said += [
            "Without the plausibility constraint a contrast also counts tokens that the last layer takes for "
            "implausible, so gains in multiple choice that are seen only there may be an artefact.",
            *gains,
        ]
    return [*said, *_excluded(comparison)]


def _against_baseline(comparison: Comparison, method: str) -> list[str]:
    name, baseline = one_line(method) or '""', one_line(comparison.baseline)
    rows = {cell: row for cell, rows in comparison.main.items() for row in rows if row["method"] == method}
    if rows and all(map(is_mostly_excluded, rows.values())):
        return []  # `_excluded` says what there is to say
    rows = {cell: row for cell, row in rows.items() if not is_mostly_excluded(row)}
    known = {cell: row for cell, row in rows.items() if row.get("difference_low") is not None}
    if not known:
        why = "no paired interval is known" if baseline in map(one_line, comparison.methods) else "it was not run"
        return [f"{name}: nothing says whether it differs from {baseline}; {why}."]
    higher, lower = ([cell_name(cell) for cell, row in known.items() if told_apart(row) == sign] for sign in (1, -1))
    if not higher and not lower:
        if len(known) == 1:
            return [f"{name} cannot be told apart from {baseline} in {cell_name(next(iter(known)))}."]
        return [f"{name} cannot be told apart from {baseline} in any of {len(known)} measures."]
    parts = [f"{word} in {'; '.join(cells)}" for word, cells in (("higher", higher), ("lower", lower)) if cells]
    n_told = len(higher) + len(lower)
    return [f"{name} is told apart from {baseline} in {n_told} of {len(known)} measures: {', '.join(parts)}."]


def _excluded(comparison: Comparison) -> list[str]:
    """How many answers have a token outside the plausible set: a loss there is not the contrast's own."""
    found: dict[tuple[str, int, int], set[str | None]] = {}
    for cell, rows in comparison.cells.items():
        for row in rows if is_choice(cell[0]) and cell[2] else ():
            if row.get("n_excluded") and row.get("n_answers"):
                found.setdefault((row["method"], row["n_excluded"], row["n_answers"]), set()).add(row.get("outside"))
    said = []
    for (method, n, of), outside in found.items():
        name = one_line(method) or '""'
        counted = f"all {of:,} answers have" if n == of else f"{n:,} of {of:,} answers have"
        means = "a lower value there need not come from the contrast"
        if "excluded" in outside:
            means = "with -inf outside none of these can be said"
            if 2 * n > of:
                means += ", so that values there tell little but that"
            if "published" in outside:
                means += "; with -1000 those with the fewest such tokens win"
        said.append(f"Under {name} {counted} a token outside the plausible set: {means}.")
    return said


def _unconstrained_gains(comparison: Comparison, method: str) -> list[str]:
    said = []
    name, baseline = one_line(method) or '""', one_line(comparison.baseline)
    rows = {cell: row for cell, rows in comparison.cells.items() for row in rows if row["method"] == method}
    for cell, row in rows.items():
        metric, _, constrained, normalised, _, _ = cell
        if not is_choice(metric) or constrained is not False or told_apart(row) != 1:
            continue
        which = metric_name(metric) + ("" if normalised is None else f" ({'' if normalised else 'not '}normalised)")
        gain = f"{which} of {name}: {difference(row)} without the constraint"
        ways = [(*cell[:2], True, *cell[3:5], outside) for outside in ("published", None)]
        other = next((rows[way] for way in ways if way in rows), None)
        if other is None or other.get("difference_low") is None:
            said.append(f"{gain}; with it nothing was measured.")
            continue
        found = {
            1: "it is higher than {} there too", 0: "it cannot be told apart from {} there",
            -1: "it is lower than {} there",
        }[told_apart(other)].format(baseline)  # fmt: skip
        outside = "" if other.get("outside") is None else f" ({_OUTSIDE[other['outside']]} outside)"
        said.append(f"{gain}, {difference(other)} with it{outside}: {found}.")
    return said


def kinds_of(comparisons: Sequence[Comparison]) -> dict[str, bool]:
    """What was made for these, as `settings_sentences` asks: `decoded` and `scored`; decoded where nothing was."""
    metrics = [cell[0] for comparison in comparisons for cell in comparison.cells]
    scored = any(map(is_choice, metrics))
    return {"decoded": not metrics or not all(map(is_choice, metrics)), "scored": scored}


def unknown_sentence(comparison: Comparison) -> str | None:
    """Which methods have no known difference, so that a figure of differences does not show them."""
    rows = [row for rows in comparison.cells.values() for row in rows]
    known = {row["method"] for row in rows if row.get("difference") is not None}
    names = [one_line(name) for name in comparison.methods if name not in known and name != comparison.baseline]
    if not names:
        return None
    return f"No difference from {one_line(comparison.baseline)} is known of {joined(names)}, not shown here."


def count_sentences(comparison: Comparison) -> list[str]:
    """How much data; what the intervals are; the encoder of BERTScore."""
    rows = [row for rows in comparison.cells.values() for row in rows]
    counted = sorted({row["n_questions"] for row in rows if row.get("n_questions") is not None})
    said = []
    if counted:
        spread = " to ".join(f"{n:,}" for n in dict.fromkeys((counted[0], counted[-1])))
        said.append(f"n = {spread} question{'' if counted == [1] else 's'}.")
    n_compared = sum(row.get("difference_low") is not None for row in rows)
    if any(row.get("value_low") is not None for row in rows):
        said.append("Intervals: 95 % bootstrap over questions, differences paired, each for itself.")
    if n_compared > 1:
        by_chance = number(0.05 * n_compared, 1 if n_compared < 200 else 0)
        said.append(
            f"Were there no difference anywhere, about {by_chance} of all {n_compared} differences would still be told "
            "apart from 0."
        )
    long = {
        (row["n_too_long"], row["n_too_long"] + (row.get("n_questions") or 0)) for row in rows if row.get("n_too_long")
    }
    said += [f"{n:,} of {of:,} texts do not fit the model's positions and are left out." for n, of in sorted(long)]
    encoders = list(dict.fromkeys(row["encoder"] for row in rows if row.get("encoder") is not None))
    if encoders:
        names = joined([one_line(str(name)) for name in encoders])
        said.append(f"BERTScore by {names}; values of another encoder are not comparable.")
    return said
