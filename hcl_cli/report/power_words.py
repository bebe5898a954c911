"""The power table in words: pairs, numbers of questions, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from hcl_cli.report.labels import Row, one_line

MEANING = (
    "Questions needed to find the observed difference with 80 % power at 5 %, two-sided, and (corrected) at 5 % over "
    "the number of pairs that could have been meant; least found: the difference that the questions there are find in "
    "80 % of cases. With fewer samples per question and layer than there are, creativity and HCB are measured again "
    "from so many, and their difference is another one; with more, only hallucination can be told. The lead of a layer "
    "that was chosen as the best is on average too large, its number of questions then too small."
)

_ORDER = ("best_reference", "best_second", "neighbours")


def pairs_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each pair of layers and metric, one per number of samples; the best layer's pairs come first."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        names = ("kind", "method", "exit_layer", "other_method", "other_exit_layer", "metric")
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return sorted(groups.values(), key=lambda pair: _ORDER.index(pair[0]["kind"]))


def pair_label(row: Row) -> str:
    """The two layers (or methods); of the best layer's pairs, what the other one is."""
    if row["other_method"] is not None:
        first, second, last = row["method"], row["other_method"], "vanilla"
    else:
        first, second, last = row["exit_layer"], row["other_exit_layer"], "last"
    text = one_line(f"{first} - {second}")
    if row["kind"] == "neighbours":
        return text
    return f"{text}, {last if row['kind'] == 'best_reference' else 'second'}"


def needed(number: int | None) -> str:
    """A number of questions; a dash where no number is known to suffice."""
    if number is None:
        return "-"
    return f"{number:,}" if number < 10_000_000 else ">10 million"
