"""Tests between layers and between models in words: which rows belong together, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hcl_cli.report.labels import CURVE_KEY, Row, counted, number, one_line

TITLES = {
    "hallucination_rate": "Hallucination",
    "creativity_raw": "Creativity",
    "hcb": "HCB",
    "hcb_common": "HCB, common",
}
_WITHOUT_METHOD = tuple(name for name in CURVE_KEY if name != "method")

MEANING = (
    "Differences with 95 % bands that hold for the whole family; p corrected for it (sign flips of whole questions, "
    "max-T). HCB is tested with its min-max scales held. Against the best layer the family is all pairs of layers, so "
    "that whichever was chosen is counted in: stricter than the table's best set."
)
OF_MODELS = (
    "Between models: Holm over the pairs of models; HCB scaled over the layers of both. At their best layers the "
    "choice is made anew in every resample and exchange; the interval speaks of that difference, p of models that are "
    "alike at every layer."
)


@dataclass(frozen=True)
class Family:
    """Rows of one kind about one curve, or one pair of models.

    Attributes:
        title: what is compared, with what.
        kind: as in COMPARISONS.
        rows: in their order.
    """

    title: str
    kind: str
    rows: list[Row]

    @property
    def pairs(self) -> dict[str, dict[str, Row]]:
        """Within a curve: the label of each pair -> its row of each metric."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            found.setdefault(_label(row), {})[row["metric"]] = row
        return found

    @property
    def noun(self) -> str:
        """What is compared: layer or method; for any two layers, layers."""
        noun = "Method" if self.rows[0].get("other_method") is not None else "Layer"
        return f"{noun}s" if self.kind == "pair" else noun

    @property
    def counts(self) -> str:
        """How many questions and pairs."""
        numbers = {row["metric"]: row["n_questions"] for row in self.rows}
        distinct = set(numbers.values())
        if len(distinct) == 1:
            said = counted(distinct.pop(), "question")
        else:
            said = ", ".join(f"{TITLES[metric]} {n:,}" for metric, n in numbers.items()) + " questions"
        corrections = {row["correction"] for row in self.rows if row["correction"]}
        return f"{said}; {', '.join(sorted(corrections))}" if corrections else said


def families(rows: Sequence[Row]) -> list[Family]:
    """Rows of COMPARISONS in the tables that they are shown in, without those that say why nothing was compared."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row["note"] is None:
            names = CURVE_KEY if row["other_model"] is not None else _WITHOUT_METHOD
            place = "models" if row["other_model"] is not None else row["kind"]
            key = (place, row["other_model"], row["other_source"], *(row[name] for name in names))
            groups.setdefault(key, []).append(row)
    return [Family(_title(members), str(key[0]), members) for key, members in groups.items()]


def notes(rows: Sequence[Row]) -> list[str]:
    """A sentence for each pair that was not compared."""
    return [f"{_models(row)}: not compared, {row['note']}." for row in rows if row["note"] is not None]


def meaning(rows: Sequence[Row]) -> str:
    """What the numbers of these rows mean."""
    told = [MEANING] if any(row["other_model"] is None for row in rows) else []
    return " ".join([*told, OF_MODELS] if any(row["other_model"] is not None for row in rows) else told)


def stars(row: Row) -> str:
    """*, ** or *** for a corrected p-value of at most .05, .01, .001."""
    p = row["p_adjusted"]
    return "" if p is None else "*" * sum(p <= bound for bound in (0.05, 0.01, 0.001))


def p_value(value: float | None) -> str:
    """A p-value of three decimals, or a dash."""
    if value is None:
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def signed(value: float | None, decimals: int = 2) -> str:
    """A difference with its sign, or a dash."""
    return "-" if value is None else f"{round(value, decimals) + 0.0:+.{decimals}f}"


def difference(row: Row, ends: str = "band", decimals: int = 2) -> str:
    """A difference with its band, or (`ends` = "difference") its own interval."""
    low, high = row[f"{ends}_low"], row[f"{ends}_high"]
    text = signed(row["difference"], decimals)
    return text if low is None or high is None else f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def _label(row: Row) -> str:
    """The pair, or its layer that is not the one all are compared with."""
    what = "method" if row["other_method"] is not None else "exit_layer"
    this, other = row[what], row[f"other_{what}"]
    return one_line(f"{this} - {other}" if row["kind"] == "pair" else str(other if row["kind"] == "best" else this))


def _title(members: Sequence[Row]) -> str:
    row = members[0]
    if row["other_model"] is not None:
        return f"{_models(row)} ({_named(row, ('dataset', 'strategy', 'temperature', 'top_p'))})"
    over_methods = row["other_method"] is not None
    curve = _named(row, _WITHOUT_METHOD if over_methods else CURVE_KEY)
    noun = "method" if over_methods else "layer"
    if row["kind"] == "reference":
        against = row["other_method"] if over_methods else f"the last, {row['other_exit_layer']}"
        return f"{curve}: each {noun} minus {one_line(str(against))}"
    if row["kind"] == "best":
        best = row["method"] if over_methods else row["exit_layer"]
        return f"{curve}: the best {noun}, {one_line(str(best))}, minus each other"
    return f"{curve}: every two {noun}s"


def _models(row: Row) -> str:
    first, second = ((row[f"{p}model"], row[f"{p}source"]) for p in ("", "other_"))
    return " against ".join(
        one_line(f"{model} (file {source})" if source else str(model)) for model, source in (first, second)
    )


def _named(row: Row, names: Sequence[str]) -> str:
    said = {"temperature": "T {:g}", "top_p": "top-p {:g}", "source": "file {}"}
    words = [said.get(name, "{}").format(row[name]) for name in names if row[name] is not None]
    return ", ".join(map(one_line, words)) or "unnamed"
