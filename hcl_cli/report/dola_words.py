"""What tables and figures of `hcl dola` call things, and what they say in plain words. Plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hcl_cli.report.labels import Row, number, one_line
from hcl_cli.report.probe_labels import joined

VANILLA = "vanilla"
DECIMALS = 3
CELL = ("metric", "against", "constrained", "normalised", "encoder")

_OF = ("model", "dataset")
_METRICS = {
    "bleu": "BLEU", "bleu-sentence": "sentence BLEU", "rouge-1": "ROUGE-1", "rouge-2": "ROUGE-2",
    "rouge-l": "ROUGE-L", "bertscore": "BERTScore", "token-f1": "token F1", "exact": "exact match", "mc1": "MC1",
    "mc2": "MC2", "mc3": "MC3", "factor-sum": "FACTOR, sum", "factor-mean": "FACTOR, mean",
}  # fmt: skip
_AGAINST = {
    "best": "best answer", "correct": "all correct answers", "incorrect": "incorrect answers",
    "max": "max over correct", "diff": "correct minus incorrect", "acc": "nearer a correct one",
}  # fmt: skip
_DIVERGENCES = {"jsd": "the Jensen-Shannon divergence", "published": "the published code's reversed divergence"}


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
        """The measures that a terminal and a figure have room for: multiple choice, metrics against the best answer
        (all correct ones, where there is no best), and how often an answer is nearer to a correct one. The CSV has all.
        """
        has_best = any(cell[1] == "best" for cell in self.cells)
        against = {None, "acc", "best" if has_best else "correct"}
        kept = {
            cell: rows
            for cell, rows in self.cells.items()
            if cell[1] in against and not (cell[0] == "bleu-sentence" and cell[1] != "acc")
        }
        return kept or self.cells


def comparisons_of(rows: Sequence[Row]) -> list[Comparison]:
    """One entry per model and dataset, in order of first appearance.

    Args:
        rows: with model, dataset, method, metric, value, and any of: against, encoder, constrained, normalised (bool),
            value_low, value_high, baseline (a method's name; null in its own rows), difference with its ends,
            n_questions, n_paired, n_answers, n_excluded. What is not there counts as unknown. A row of multiple choice
            without `constrained` and `normalised` (vanilla's: nothing is contrasted) stands in every measure of its
            metric.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name) for name in _OF), []).append(row)
    made = []
    for of, own in found.items():
        cells: dict[tuple[Any, ...], list[Row]] = {}
        for row in own:
            cells.setdefault(tuple(row.get(name) for name in CELL), []).append(row)
        cells = _with_baselines(cells)
        baseline = next((row["baseline"] for row in own if row.get("baseline") is not None), VANILLA)
        made.append(Comparison(of, cells, baseline))
    return made


def _with_baselines(cells: dict[tuple[Any, ...], list[Row]]) -> dict[tuple[Any, ...], list[Row]]:
    """The measures, with the rows of multiple choice that know no way of scoring in all the ways of their metric."""
    plain = {cell: rows for cell, rows in cells.items() if is_choice(cell[0]) and cell[2] is cell[3] is None}
    made = {}
    for cell, rows in cells.items():
        bare = (*cell[:2], None, None, cell[4])
        if cell in plain and any(other != cell and (*other[:2], None, None, other[4]) == cell for other in cells):
            continue
        made[cell] = rows if cell in plain else [*plain.get(bare, []), *rows]
    return made


def is_choice(metric: str) -> bool:
    """Whether given answers are scored, instead of an own one compared."""
    return metric.startswith(("mc", "factor"))


def metric_name(metric: str) -> str:
    """The metric in the field's words; a foreign one under its own name."""
    return _METRICS.get(metric, one_line(str(metric)) or '""')


def cell_name(cell: tuple[Any, ...]) -> str:
    """A measure in words: `BLEU, best answer`; `MC2, with constraint, not normalised`."""
    metric, against, constrained, normalised, _ = cell
    said = [metric_name(metric)]
    if against is not None:
        said.append(_AGAINST.get(against, one_line(str(against))))
    if constrained is not None:
        said.append("with constraint" if constrained else "without constraint")
    if normalised is not None:
        said.append("normalised" if normalised else "not normalised")
    return ", ".join(said)


def method_name(row: Row) -> str:
    """The method of a row or of its settings."""
    return one_line(str(row["method"] if "method" in row else row["name"])) or '""'


def told_apart(row: Row) -> int:
    """1 if the paired interval of the difference lies above 0, -1 if below, 0 if it does not or is unknown."""
    low, high = row.get("difference_low"), row.get("difference_high")
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


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
    known = {cell: row for cell, row in rows.items() if row.get("difference_low") is not None}
    if not known:
        return [f"{name}: nothing says whether it differs from {baseline}; no paired interval is known."]
    higher, lower = ([cell_name(cell) for cell, row in known.items() if told_apart(row) == sign] for sign in (1, -1))
    if not higher and not lower:
        if len(known) == 1:
            return [f"{name} cannot be told apart from {baseline} in {cell_name(next(iter(known)))}."]
        return [f"{name} cannot be told apart from {baseline} in any of {len(known)} measures."]
    parts = [f"{word} in {'; '.join(cells)}" for word, cells in (("higher", higher), ("lower", lower)) if cells]
    n_told = len(higher) + len(lower)
    return [f"{name} is told apart from {baseline} in {n_told} of {len(known)} measures: {', '.join(parts)}."]


def _excluded(comparison: Comparison) -> list[str]:
    """How many answers the constraint makes impossible: a loss there is not the contrast's own."""
    found: dict[tuple[str, int, int], None] = {}
    for cell, rows in comparison.cells.items():
        for row in rows if is_choice(cell[0]) and cell[2] else ():
            if row.get("n_excluded") and row.get("n_answers"):
                found[row["method"], row["n_excluded"], row["n_answers"]] = None
    return [
        f"With the constraint {n:,} of {of:,} answers cannot be said under {one_line(method) or chr(34) * 2}, for a "
        f"token outside the plausible set: a lower value there need not come from the contrast."
        for method, n, of in found
    ]


def _unconstrained_gains(comparison: Comparison, method: str) -> list[str]:
    said = []
    name, baseline = one_line(method) or '""', one_line(comparison.baseline)
    rows = {cell: row for cell, rows in comparison.cells.items() for row in rows if row["method"] == method}
    for cell, row in rows.items():
        metric, _, constrained, normalised, _ = cell
        if not is_choice(metric) or constrained is not False or told_apart(row) != 1:
            continue
        which = metric_name(metric) + ("" if normalised is None else f" ({'' if normalised else 'not '}normalised)")
        gain = f"{which} of {name}: {difference(row)} without the constraint"
        other = next((own for at, own in rows.items() if at == (*cell[:2], True, *cell[3:])), None)
        if other is None or other.get("difference_low") is None:
            said.append(f"{gain}; with it nothing was measured.")
            continue
        found = {
            1: "it is higher than {} there too", 0: "it cannot be told apart from {} there",
            -1: "it is lower than {} there",
        }[told_apart(other)].format(baseline)  # fmt: skip
        said.append(f"{gain}, {difference(other)} with it: {found}.")
    return said


def settings_sentences(settings: Sequence[Row]) -> list[str]:
    """How each method decodes.

    Args:
        settings: per method: name (or method), and any of candidates (layers; none for vanilla), divergence,
            norm (bool) or readout, alpha, penalty, penalty_on, average_over_batch.
    """
    return [f"{method_name(row)}: {', '.join(_settings(row))}." for row in settings]


def _settings(row: Row) -> list[str]:
    layers = list(row.get("candidates") or ())
    penalty = row.get("penalty")
    if not layers:
        said = ["the last layer alone"]
        return [*said, *([] if penalty is None else [_penalty(penalty, None)])]
    if len(layers) == 1:
        said = [f"premature layer {layers[0]}"]
    else:
        far = _DIVERGENCES.get(row.get("divergence") or "", one_line(str(row.get("divergence") or "a divergence")))
        said = [f"the farthest of layers {layer_numbers(layers)} by {far}"]
        if row.get("average_over_batch"):
            said.append("averaged over the batch")
    norm = row.get("norm", {"norm": True, "no-norm": False}.get(row.get("readout") or ""))
    if norm is not None:
        said.append(f"read {'through' if norm else 'without'} the final norm")
    if row.get("alpha") is not None:
        said.append(f"alpha {row['alpha']:g}" + (" (no constraint)" if row["alpha"] == 0 else ""))
    return [*said, *([] if penalty is None else [_penalty(penalty, row.get("penalty_on"))])]


def _penalty(penalty: float, on: str | None) -> str:
    if penalty == 1:
        return "no repetition penalty"
    where = {"contrasted": " on contrasted scores", "logits": " on the last layer's logits"}.get(on or "", "")
    return f"repetition penalty {penalty:g}{where}"


def layer_numbers(layers: Sequence[int]) -> str:
    """`16, 18, .., 30` for an even row of four or more, else every number."""
    steps = {after - before for before, after in zip(layers, layers[1:], strict=False)}
    if len(layers) > 3 and len(steps) == 1:
        return f"{layers[0]}, {layers[1]}, .., {layers[-1]}"
    return joined([str(layer) for layer in layers])


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
    encoders = list(dict.fromkeys(row["encoder"] for row in rows if row.get("encoder") is not None))
    if encoders:
        names = joined([one_line(str(name)) for name in encoders])
        said.append(f"BERTScore by {names}; values of another encoder are not comparable.")
    return said
