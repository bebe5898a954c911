"""What `hcl prune` says in plain words: what goes, what that costs, who agrees, and whether chance does as well."""

from __future__ import annotations

from collections.abc import Sequence

from hcl_cli.report.labels import Row, number, one_line, with_interval
from hcl_cli.report.probe_labels import joined
from hcl_cli.report.prune_labels import (
    DAMAGE,
    DAMAGE_DECIMALS,
    HALLUCINATION,
    OF_NOTHING,
    RANDOM,
    UNSCORED,
    PruneRows,
    Ranking,
    blocks_named,
    excludes,
    keys_of_pair,
    signed_estimate,
    spread_of,
)
from hcl_cli.report.retained_labels import Line, Measure, better, chosen_lines, measures_of, units_of

SAME_AS_DAMAGE = "perplexity"  # the criterion that is the true damage by definition
MOST_MEASURES = 4  # of more, only counts are told
_LEVEL = 0.05


def prune_sentences(run: PruneRows) -> list[str]:
    """All sentences, in the order in which they are read."""
    return [*removal_sentences(run), *agreement_sentences(run), *quality_sentences(run)]


# ------------------------------------------------------------------------------------------------- what is removed


def removal_sentences(run: PruneRows) -> list[str]:
    """Which blocks each criterion removes, where a score is missing, and what the true damage is."""
    total = len(run.blocks)
    same: dict[tuple[int, ...], list[str]] = {}
    for ranking in run.shown:
        same.setdefault(tuple(ranking.removed), []).append(ranking.name)
    said = []
    for removed, names in same.items():
        verb = "removes" if len(names) == 1 else "remove"
        said.append(
            f"{joined(names)} {verb} {blocks_named(removed)} of {total}."
            if removed
            else f"{joined(names)} {verb} no block."
        )
    family = run.seeds_of_random
    if family:
        counted = sorted({len(one.removed) for one in family})
        said.append(f"{RANDOM} removes {_to(counted)} of {total}, others with each of {len(family)} seeds.")
    for ranking in run.shown:
        said += _undefined(ranking)
    return [*said, *_hallucination(run), *_damage(run)]


def _undefined(ranking: Ranking) -> list[str]:
    rows = [row for row in ranking.rows if row.get("score") is None]
    if not rows or ranking.criterion in (RANDOM, *UNSCORED):
        return []
    why = " (a sparsity of 0)" if all(row.get("sparsity") == 0 for row in rows) else ""
    return [f"{ranking.name} is undefined at {blocks_named([row['block'] for row in rows])}{why}."]


def _hallucination(run: PruneRows) -> list[str]:
    own = [ranking for ranking in run.shown if ranking.criterion in HALLUCINATION]
    if not own:
        return []
    names, verb = joined([ranking.name for ranking in own]), "names" if len(own) == 1 else "name"
    said = [f"{names} {verb} the blocks that are likeliest to hallucinate, not the least important ones."]
    for ranking in own:
        tested = [row for row in ranking.rows if row.get("p_adjusted") is not None]
        told = [row["block"] for row in tested if row["p_adjusted"] < _LEVEL]
        where = f"at {blocks_named(told)} (adjusted p below" if told else "at no block (adjusted p of at least"
        if tested:
            said.append(f"By permutation the contrast of {ranking.name} is beyond chance {where} {_LEVEL}).")
    return [" ".join(said)]


def _damage(run: PruneRows) -> list[str]:
    said = []
    for dataset, rows in run.damages.items():
        if len(rows) < 2:
            continue
        least, most = (pick(rows.values(), key=lambda row: row["damage"]) for pick in (min, max))
        where = f" on {one_line(str(dataset))}" if len(run.damages) > 1 and dataset else ""
        said.append(
            f"Alone, block {least['block']} does the least damage{where}, "
            f"{signed_estimate(least, 'damage', DAMAGE_DECIMALS)} nats per token, and block {most['block']} the most, "
            f"{signed_estimate(most, 'damage', DAMAGE_DECIMALS)}."
        )
        spared = [row["block"] for row in rows.values() if excludes(row, "damage") == -1]
        if spared:
            said.append(f"The loss is lower without {blocks_named(spared)} (the interval lies below 0).")
    return said


# ------------------------------------------------------------------------------------------------ whether they agree


def pairs_of(run: PruneRows) -> list[Row]:
    """Rows that compare two criteria, each pair once; seeds of `random`, if several, left out."""
    seen, kept = set(), []
    for row in run.compared:
        pair = frozenset(keys_of_pair(row))
        of_family = bool(run.names.several_seeds & {row["criterion"], row["other"]})
        if row["other"] == DAMAGE or of_family or len(pair) < 2 or pair in seen:
            continue
        seen.add(pair)
        kept.append(row)
    return kept


def with_damage(run: PruneRows) -> list[Row]:
    """Rows that compare a criterion with the true damage, seeds of `random` among them."""
    return [row for row in run.compared if row["other"] == DAMAGE]


def pair_name(run: PruneRows, row: Row) -> str:
    """Both criteria of a row of CRITERIA_COMPARED: `avss and block-influence`."""
    return joined([run.names(key) for key in keys_of_pair(row)])


def agreement_sentences(run: PruneRows) -> list[str]:
    """How far criteria agree on the order and on what goes, and how far with the true damage."""
    return [*_agreement(run), *_in_common(run), *_with_damage(run)]


def _agreement(run: PruneRows) -> list[str]:
    known = [row for row in pairs_of(run) if row.get("rank_correlation") is not None]
    if not known:
        return []
    least, most = (pick(known, key=lambda row: row["rank_correlation"]) for pick in (min, max))
    if len(known) == 1:
        told = {1: "the interval lies above 0", -1: "the interval lies below 0", 0: "the interval holds 0"}
        end = f"; {told[excludes(least, 'rank_correlation')]}" if least.get("rank_correlation_low") is not None else ""
        value = with_interval(least, "rank_correlation")
        return [f"{pair_name(run, least)} have a rank correlation of {value}{end}."]
    above = sum(excludes(row, "rank_correlation") == 1 for row in known)
    sure = sum(row.get("rank_correlation_low") is not None for row in known)
    said = (
        f"Between criteria the rank correlation goes from {number(least['rank_correlation'])} "
        f"({pair_name(run, least)}) to {number(most['rank_correlation'])} ({pair_name(run, most)})"
    )
    return [f"{said}; the interval lies above 0 in {above} of {sure} pairs." if sure else f"{said}."]


def _in_common(run: PruneRows) -> list[str]:
    chosen = [
        set(one.removed) for one in run.shown if one.removed and one.criterion not in (*OF_NOTHING, *HALLUCINATION)
    ]
    if len(chosen) < 2:
        return []
    every = "both" if len(chosen) == 2 else f"all {len(chosen)}"
    if all(removed == chosen[0] for removed in chosen):
        return [f"{_first(every)} importance criteria remove the same blocks."]
    shared = set.intersection(*chosen)
    if not shared:
        return [f"No block is removed by {every} importance criteria."]
    return [f"{_first(every)} importance criteria remove {blocks_named(sorted(shared))}, and differ in the rest."]


def _with_damage(run: PruneRows) -> list[str]:
    known = [row for row in with_damage(run) if row.get("rank_correlation") is not None]
    of_itself = [row for row in known if row["criterion"] == SAME_AS_DAMAGE]
    apart = (SAME_AS_DAMAGE, *HALLUCINATION, *run.names.several_seeds)
    shown = [row for row in known if row["criterion"] not in apart]
    said = []
    if len(shown) == 1:
        value = with_interval(shown[0], "rank_correlation")
        said.append(f"With the true damage {run.names(keys_of_pair(shown[0])[0])} has a rank correlation of {value}.")
    elif shown:
        least, most = (pick(shown, key=lambda row: row["rank_correlation"]) for pick in (min, max))
        names = [run.names(keys_of_pair(row)[0]) for row in (most, least)]
        said.append(
            f"With the true damage {names[0]} agrees best, {with_interval(most, 'rank_correlation')}, and {names[1]} "
            f"least, {with_interval(least, 'rank_correlation')}."
        )
        sure = [row for row in shown if row.get("rank_correlation_low") is not None]
        above = sum(excludes(row, "rank_correlation") == 1 for row in sure)
        if sure:
            said.append(f"The interval lies above 0 for {above} of {len(sure)} importance criteria.")
    spread = spread_of((row for row in known if row["criterion"] in run.names.several_seeds), "rank_correlation")
    if spread is not None:
        value = f"{spread.text(2)} over {len(spread.values)} seeds"
        said.append(f"{RANDOM} has a rank correlation with {'it' if said else 'the true damage'} of {value}.")
    if of_itself and shown:
        said.append(f"{SAME_AS_DAMAGE} orders blocks by this damage itself and is no check of it.")
    return [" ".join(said)] if said else []


# --------------------------------------------------------------------------------------------- what the removal costs


def quality_sentences(run: PruneRows) -> list[str]:
    """What is kept of each measure, by which criteria, and how many of them do better than chance."""
    chosen = [(measure, chosen_lines(measure, run)) for measure in measures_of(run.retained) if not measure.is_cost]
    if len(chosen) > MOST_MEASURES:
        return _counted(chosen)
    return [said for measure, lines in chosen for said in _kept(measure, lines) + against_random(measure, lines)]


def _counted(chosen: Sequence[tuple[Measure, list[Line]]]) -> list[str]:
    """Of many measures: how many get worse or better under each criterion, and how many are better than by chance."""
    said = []
    for name in dict.fromkeys(line.name for _, lines in chosen for line in lines if not line.is_random):
        rows = [(measure, line.rows[0]) for measure, lines in chosen for line in lines if line.name == name]
        judged = [found for measure, lines in chosen for line, found in _judged(measure, lines) if line.name == name]
        tested = [(measure, row) for measure, row in rows if row.get("difference_low") is not None]
        signs = [excludes(row, "difference") * (1 if measure.higher_is_better else -1) for measure, row in tested
                 if measure.higher_is_better is not None]  # fmt: skip
        parts = []
        if signs:
            worse, gained = signs.count(-1), signs.count(1)
            parts.append(f"{worse} of {len(signs)} measures are worse beyond chance, {gained} better")
        if judged:
            wins, sure = (sum(found[at] for found in judged) for at in (0, 1))
            seeds = max(len(line.rows) for _, lines in chosen for line in lines if line.is_random)
            parts.append(f"{wins} of {len(judged)} beat {_bar(seeds)}, {sure} with the whole interval")
        if parts:
            said.append(f"{name}: {'; '.join(parts)}.")
    return said


def _kept(measure: Measure, lines: Sequence[Line]) -> list[str]:
    known = [line for line in lines if not line.is_random and line.row is not None]
    if len(known) == 1:
        return [_cost(measure, known[0])]
    shares = [(line.row["share_kept"], line) for line in known if line.row and line.row.get("share_kept") is not None]
    if not shares:
        return []
    least, most = (pick(shares, key=lambda pair: pair[0])[1] for pick in (min, max))
    said = f"{_first(measure.name)}: most is kept by {most.name}, {most.share}, least by {least.name}, {least.share}"
    counts = sorted({line.n_blocks for line in known if line.n_blocks is not None})
    if len(counts) > 1:
        said += f"; the criteria remove {_to(counts)}, so this is no comparison on equal terms"
    return [f"{said}."]


def _cost(measure: Measure, line: Line) -> str:
    row = line.rows[0]
    blocks = blocks_named(row["blocks"]) if row.get("blocks") else _to([line.n_blocks or 0])
    said = f"{_first(measure.name)}: {line.text('before')} before, {line.text('after')} without {blocks}"
    if row.get("share_kept") is not None:
        said += f"; {line.share} is kept"
    if row.get("difference_low") is None:
        return f"{said}."
    told, upwards = excludes(row, "difference"), measure.higher_is_better
    if told == 0:
        return f"{said}. The paired interval of the difference, {line.difference()}, holds 0."
    kind = "difference" if upwards is None else "gain" if (told == 1) == upwards else "loss"
    return f"{said}. The {kind} is beyond chance: {line.difference()}, paired."


def against_random(measure: Measure, lines: Sequence[Line]) -> list[str]:
    """How many criteria do better than blocks drawn at random, at the same number of blocks."""
    judged = _judged(measure, lines)
    if not judged:
        return []
    drawn = next(line for line in lines if line.is_random and line.n_blocks == judged[0][0].n_blocks)
    bar = _bar(len(drawn.rows))
    value = f", {drawn.text('after')}" if len({line.n_blocks for line, _ in judged}) == 1 else ""
    if len(judged) == 1:
        line, (is_better, is_sure) = judged[0]
        how = ", with its whole interval" if is_sure else "" if not is_better else ", but not with its whole interval"
        return [f"{line.name} is {'' if is_better else 'not '}better than {bar}{value}{how}."]
    losers = [line.name for line, (is_better, _) in judged if not is_better]
    sure = sum(is_sure for _, (_, is_sure) in judged)
    said = (
        f"{len(judged) - len(losers)} of {len(judged)} criteria are better than {bar}{value}; {sure} with their whole "
        "interval."
    )
    return [f"{said} Not better: {joined(losers)}." if 0 < len(losers) < len(judged) else said]


def _judged(measure: Measure, lines: Sequence[Line]) -> list[tuple[Line, tuple[bool, bool]]]:
    """Per criterion whether it is better than the mean of `random`, and whether its whole interval is."""
    means = {line.n_blocks: line.spread("after") for line in lines if line.is_random}
    judged = []
    for line in lines:
        mean = means.get(line.n_blocks)
        found = None if mean is None or line.is_random or line.row is None else better(measure, line.row, mean.mean)
        if found is not None:
            judged.append((line, found))
    return judged


def _bar(n_seeds: int) -> str:
    return f"the mean of {n_seeds} seeds of {RANDOM}" if n_seeds > 1 else f"the one seed of {RANDOM}"


def note_sentences(run: PruneRows) -> list[str]:
    """What the numbers are: activations, the bound of sparsity, units of the intervals, what chance alone gives."""
    said = []
    activations = list(dict.fromkeys(one.key[1] for one in run.rankings if one.key[1] is not None))
    if activations:
        said.append(f"Activations: {joined([one_line(str(name)) for name in activations])}.")
    bounds = sorted({row["epsilon"] for one in run.rankings for row in one.rows if row.get("epsilon") is not None})
    if bounds:
        spread = f"{bounds[0]:.3g}" + (f" to {bounds[-1]:.3g}" if len(bounds) > 1 else "")
        said.append(f"Sparsity: share of activations nearer to 0 than {spread}.")
    units = units_of(run.retained)
    if units:
        said.append(f"Intervals of quality: 95 % over {joined(units)}, each for itself.")
    tested = [row for row in run.compared if row.get("p_value") is not None]
    if len(tested) > 1:
        said.append(
            f"p: permutation of blocks; were all orders unrelated, about {number(_LEVEL * len(tested), 1)} of "
            f"{len(tested)} would still be below {_LEVEL}."
        )
    return said


def _to(counts: Sequence[int]) -> str:
    """`3 blocks`, `2 to 5 blocks`."""
    spread = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{spread} block{'' if list(counts) == [1] else 's'}"


def _first(text: str) -> str:
    """The sentence's first letter in upper case, unless the word is a name of its own."""
    word = text.split(" ")[0].replace("-", "")
    return text[:1].upper() + text[1:] if word.islower() and word.isalpha() else text
