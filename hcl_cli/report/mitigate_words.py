"""What `hcl mitigate` says in plain words: what training changed, and whether the choice of blocks had a part in it."""

from __future__ import annotations

from collections.abc import Sequence

from hcl_cli.report.labels import Row, number, one_line
from hcl_cli.report.probe_labels import joined
from hcl_cli.report.prune_labels import Names, block_list, excludes, key_of, names_of
from hcl_cli.report.retained_labels import Line, Measure, lines_of, measures_of

_LEVEL = 0.05


def mitigate_sentences(retained: Sequence[Row]) -> list[str]:
    """What was trained, what changed beyond chance, and every lead over the blocks it is compared with.

    Args:
        retained: rows of RETAINED about one model.
    """
    names = names_of(map(key_of, retained))
    measures = [measure for measure in measures_of(retained) if not measure.is_cost]
    return [
        *_trained(retained, names),
        *_changed(measures, names),
        *(sentence for measure in measures for sentence in lead_sentences(measure, names)),
        *_counted(measures),
    ]


def _trained(retained: Sequence[Row], names: Names) -> list[str]:
    said = {}
    for row in retained:
        if row.get("blocks") and row["variant"] not in names.several_seeds:
            said[names(key_of(row))] = f"{names(key_of(row))}: {block_list(row['blocks'])}"
    return [f"Trained blocks: {'; '.join(said.values())}."] if said else []


def _changed(measures: Sequence[Measure], names: Names) -> list[str]:
    """Per variant, where the paired interval of the difference excludes 0."""
    lines = [(measure, line) for measure in measures for line in lines_of(measure, names)]
    said = []
    for name in dict.fromkeys(line.name for _, line in lines):
        own = [(measure, line.row) for measure, line in lines if line.name == name and line.row is not None]
        known = [(measure, row) for measure, row in own if row.get("difference_low") is not None]
        if not known:
            continue
        kinds: dict[str, list[str]] = {}
        for measure, row in known:
            told, upwards = excludes(row, "difference"), measure.higher_is_better
            if told:
                kind = "changed" if upwards is None else "better" if (told == 1) == upwards else "worse"
                kinds.setdefault(kind, []).append(measure.name)
        parts = [f"{kind} in {joined(kinds[kind])}" for kind in ("better", "worse", "changed") if kind in kinds]
        end = f": {'; '.join(parts)}" if parts else ""
        n_told = sum(map(len, kinds.values()))
        said.append(f"After training {name}, {n_told} of {len(known)} measures differ beyond chance{end}.")
    return said


def lead_sentences(measure: Measure, names: Names) -> list[str]:
    """For each variant that is compared with another, whether the interval of its lead excludes 0."""
    return [_lead(measure, line) for line in lines_of(measure, names) if _has_lead(line)]


def _has_lead(line: Line) -> bool:
    return line.row is not None and line.row.get("lead") is not None and line.row.get("lead_over") is not None


def _lead(measure: Measure, line: Line) -> str:
    row = line.rows[0]
    other, told, upwards = one_line(str(row["lead_over"])), excludes(row, "lead"), measure.higher_is_better
    said = f"{measure.name}: {line.name} minus {other} is {line.difference('lead')}"
    if row.get("lead_low") is None or row.get("lead_high") is None:
        return f"{said}; whether that is more than chance is unknown."
    if told == 0:
        changed = excludes(row, "difference")
        gained = upwards is not None and changed != 0 and (changed == 1) == upwards
        end = ", so its gain cannot be told from plain fine-tuning" if gained else ""
        return f"{said}: the interval holds 0{end}."
    if upwards is None:
        return f"{said}: the interval excludes 0."
    return f"{said}: the interval excludes 0, and {line.name} is {'better' if (told == 1) == upwards else 'worse'}."


def _counted(measures: Sequence[Measure]) -> list[str]:
    tested = [row for measure in measures for row in measure.rows if row.get("lead_low") is not None]
    if not tested:
        return ["No lead over other blocks is known, so a gain may be that of plain fine-tuning."] if measures else []
    if len(tested) == 1:
        return []
    return [
        f"Were the choice of blocks of no matter, about {number(_LEVEL * len(tested), 1)} of {len(tested)} leads would "
        "still exclude 0."
    ]


def mitigate_notes(retained: Sequence[Row]) -> list[str]:
    """What is resampled, and how many there are."""
    said = []
    for unit in dict.fromkeys(row["unit"] for row in retained if row.get("unit") is not None):
        counts = sorted({row["n_units"] for row in retained if row.get("unit") == unit and row.get("n_units")})
        if counts:
            spread = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1])))
            said.append(f"n = {spread} {one_line(str(unit))}.")
    return [*said, "Intervals: 95 %, differences and leads paired, each for itself."] if said else []
