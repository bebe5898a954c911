"""What `hcl mitigate` says in plain words: what training changed, and whether the choice of blocks had a part in it."""

from __future__ import annotations

from collections.abc import Sequence

from hcl_cli.report.labels import Row, number, one_line
from hcl_cli.report.probe_labels import joined
from hcl_cli.report.prune_labels import Names, block_list, excludes, key_of, names_of
from hcl_cli.report.retained_labels import Line, Measure, lines_of, measures_of, units_of

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
        *lead_sentences(measures, names),
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
            kind = _kind(measure, row, "difference")
            if kind:
                kinds.setdefault(kind, []).append(measure.name)
        parts = [f"{kind} in {joined(kinds[kind])}" for kind in ("better", "worse", "changed") if kind in kinds]
        end = f": {'; '.join(parts)}" if parts else ""
        n_told = sum(map(len, kinds.values()))
        said.append(f"After training {name}, {n_told} of {len(known)} measures differ beyond chance{end}.")
    return said


def lead_sentences(measures: Sequence[Measure], names: Names) -> list[str]:
    """Of the first variant that is compared with another, every lead; of the others, where it excludes 0."""
    found: dict[str, list[tuple[Measure, Row]]] = {}
    for measure in measures:
        for line in lines_of(measure, names):
            row = line.row
            if row is not None and row.get("lead") is not None and row.get("lead_over") is not None:
                found.setdefault(line.name, []).append((measure, row))
    said = []
    for at, (name, leads) in enumerate(found.items()):
        said += [_lead(measure, row, name, names) for measure, row in leads] if at == 0 else [_summary(leads, name)]
    return said


def _kind(measure: Measure, row: Row, name: str) -> str:
    """better | worse | changed by the interval of a difference or lead; empty if it holds 0 or is unknown."""
    told, upwards = excludes(row, name), measure.higher_is_better
    return "" if not told else "changed" if upwards is None else "better" if (told == 1) == upwards else "worse"


def _lead(measure: Measure, row: Row, name: str, names: Names) -> str:
    other = one_line(str(row["lead_over"]))
    said = f"{measure.name}: {name} minus {other} is {Line(key_of(row), name, None, [row]).difference('lead')}"
    kind = _kind(measure, row, "lead")
    if row.get("lead_low") is None or row.get("lead_high") is None:
        said += "; whether that is more than chance is unknown"
    elif not kind:
        gained = _kind(measure, row, "difference") == "better"
        said += f": the interval holds 0{f', so its gain cannot be told from that of {other}' if gained else ''}"
    else:
        said += f": the interval excludes 0{'' if kind == 'changed' else f', and {name} is {kind}'}"
    return f"{said}.{_draws(measure, row, names)}"


def _draws(measure: Measure, row: Row, names: Names) -> str:
    """Against how many draws of the other variant the value is better; nothing where there is only one."""
    other, upwards, value = str(row["lead_over"]), measure.higher_is_better, row.get("after")
    drawn = [own for own in measure.rows if own["variant"] in names.several_seeds and other.startswith(own["variant"])]
    known = [own["after"] for own in drawn if own.get("after") is not None]
    if len(known) < 2 or upwards is None or value is None:
        return ""
    n_better = sum(value > after if upwards else value < after for after in known)
    return f" Its value is better than those of {n_better} of {len(known)} draws."


def _summary(leads: Sequence[tuple[Measure, Row]], name: str) -> str:
    kinds: dict[str, list[str]] = {}
    for measure, row in leads:
        kinds.setdefault(_kind(measure, row, "lead"), []).append(measure.name)
    other = joined(list(dict.fromkeys(one_line(str(row["lead_over"])) for _, row in leads)))
    told = [f"{kind} in {joined(kinds[kind])}" for kind in ("better", "worse", "changed") if kind in kinds]
    n_told = len(leads) - len(kinds.get("", []))
    end = f": {'; '.join(told)}" if told else ""
    return f"The lead of {name} over {other} excludes 0 in {n_told} of {len(leads)} measures{end}."


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
    units = units_of(retained)
    return [f"n = {joined(units)}.", "Intervals: 95 %, differences and leads paired, each for itself."] if units else []
