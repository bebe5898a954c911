"""What the layers say together: FINDINGS, one statement a row, each with its number and its plain sentence.

About the options: `formula` (estimate: the weight of creativity), `resamples`.
About one curve over layers: `best_layer` (estimate: the layer; interval: of the layer that wins in a resample),
`best_minus_last` (one-sided p-value with the choice inside), `best_exit_saves` (estimate: hallucination there less
that of the last layer, in a band that holds for all layers). About one over decoding methods: `best_method`,
`best_minus_vanilla`. About either: `best_within_noise` (that others cannot be told apart from the best; estimate:
questions that would tell it from the second-best by HCB with 80 % power, corrected for the number of layers),
`creativity_hallucination_correlation` (over layers, of the measured means: noise between layers draws it towards 0,
which its interval does not know), `best_confidence_lead` (over the mean of the other layers), `drafts_accepted` (of
self-speculative decoding), `responses_ungraded`, `questions_left_out`.
About several curves: see `stages.findings_over_curves`. Column `published`: see `stages.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.association import pearson
from hcl_cli.measures.hcb import Weights, best_layer
from hcl_cli.measures.intervals import mean_interval, percentile_interval
from hcl_cli.measures.selection import better_than, simultaneous_band
from hcl_cli.stages.claims import PUBLISHED
from hcl_cli.stages.curves import Curve
from hcl_cli.stages.finding_words import about, fixed, known, p_text, percent
from hcl_cli.stages.findings_over_curves import across_curves, confidence_lead
from hcl_cli.stages.paired_layers import runner_up
from hcl_cli.stages.power import questions_to_tell
from hcl_cli.stages.resampled import Measured
from hcl_cli.stages.scored_groups import BASELINE

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

__all__ = ["across_curves", "of_curve", "of_options", "with_published"]

_MILLION = 1_000_000
TIE = 1e-12  # scores that differ by less are the same

_OF_FIVE = ("rarefied", "coverage", "spectrum")  # over questions that have 5 correct answers at every layer
_DIVERSITY_WORDS = {
    "clusters": "creativity is the mean number of clusters of correct answers",
    "rarefied": "creativity is the mean number of clusters expected among 5 correct answers",
    "coverage": "creativity is the mean number of clusters expected where 70 % of the correct answers are covered",
    "spectrum": "creativity is the mean log-determinant of the embeddings of 5 correct answers (nats per answer)",
    "entropy": "creativity is the mean entropy (nats) of the cluster sizes of correct answers",
}


def of_options(weights: Weights, diversity: str, n_bootstrap: int) -> list[Row]:
    """What the numbers were made with."""
    how = (
        f"95 % intervals from {n_bootstrap:,} resamples of the questions"
        if n_bootstrap
        else "No intervals were asked for"
    )
    return [
        {
            "statistic": "formula",
            "estimate": weights.creativity,
            "sentence": f"{weights.formula}; {_DIVERSITY_WORDS[diversity]}",
        },
        {"statistic": "resamples", "estimate": float(n_bootstrap), "sentence": how},
    ]


def of_curve(measured: Measured, rows: Sequence[Row], diversity: str) -> list[Row]:
    """The statements about one curve; `rows` are its rows of LAYERS."""
    statements = [_best(measured, rows, diversity)]
    if measured.best is not None:
        statements += [
            _within_noise(measured, rows), _against_reference(measured), _saves(measured), _confidence(measured),
        ]  # fmt: skip
    statements += [_correlation(measured), _drafts(measured), *_left_out(measured)]
    return [{**measured.curve.group, **row} for row in statements if row]


def with_published(rows: Sequence[Row]) -> list[Row]:
    """The statements, each beside what a paper says of it (null where nothing is published)."""
    return [{**row, "published": PUBLISHED.get(row["statistic"])} for row in rows]


def _best(measured: Measured, rows: Sequence[Row], diversity: str) -> Row:
    curve, best = measured.curve, measured.best
    n_questions, layers, noun = len(curve.question_ids), curve.layers, curve.noun
    row: Row = {"statistic": f"best_{noun}", "n": n_questions}
    if best is None:
        return {**row, "sentence": f"No {noun} can be called best: {_why_not(measured, diversity)}."}
    chosen = rows[best]
    row |= {"exit_layer": layers[best], "estimate": float(layers[best]) if curve.methods is None else None}
    score = _with_interval(chosen, "hcb")
    if len(layers) == 1:
        return {**row, "sentence": f"{noun.capitalize()} {curve.names[0]} is the only one (HCB {score})."}
    tied = np.flatnonzero(measured.score >= measured.score[best] - TIE).tolist()
    text = f"{noun.capitalize()} {curve.names[best]} is best (HCB {score})"
    if len(tied) > 1:
        text = (
            f"{noun.capitalize()}s {_listed(tied, curve)} tie for the best HCB ({score}); the first of them is marked"
        )
    drawn = measured.drawn_score[~np.isnan(measured.drawn_score).any(axis=1)]
    if not len(drawn) or chosen["p_best"] is None:
        missing = "a second question" if n_questions == 1 else "resamples"
        return {**row, "sentence": f"{text}; without {missing} nothing can be said about how sure that is."}
    if curve.methods is None:
        winners = np.asarray(layers)[best_layer(drawn)].astype(np.float64)[:, None]
        low, high = percentile_interval(np.array([float(layers[best])]), winners)
        row |= {"low": float(low[0]), "high": float(high[0])}
    together = [k for k, other in enumerate(rows) if other["in_best_set"]]
    if len(together) == 1:
        rest = f"every other {noun} can be told apart from it"
    elif len(together) == len(layers):
        rest = f"no other {noun} can be told apart from it"
    else:
        rest = f"{noun}s {_listed(together, curve)} cannot be told apart"
    share = f"wins in {percent(chosen['p_best'])} of resamples"
    return {**row, "sentence": f"{text} and {share}; {rest}."}


def _why_not(measured: Measured, diversity: str) -> str:
    curve = measured.curve
    if not curve.question_ids:
        graded = sum(curve.n_graded)
        return f"no question has a graded answer {_everywhere(curve)}" if graded else "nothing was graded"
    if diversity in _OF_FIVE and not np.isnan(curve.diversity).all(axis=None):
        return "creativity is unknown"
    if diversity in _OF_FIVE:
        return (
            f"no question has 5 clustered correct answers {_everywhere(curve)}; try --diversity clusters or "
            f"fewer {curve.noun}s"
        )
    return "the correct answers were not clustered; run `hcl score`"


def _against_reference(measured: Measured) -> Row:
    curve, best, reference = measured.curve, measured.best, measured.curve.reference
    kept = measured.drawn_linear[~np.isnan(measured.drawn_linear).any(axis=1)]
    if best is None or reference is None or len(curve.layers) < 2 or not len(kept):
        return {}
    n_questions = len(curve.question_ids)
    lead, low, high, p_value = better_than(measured.linear, kept, n_questions, reference)
    over_layers = curve.methods is None
    row = {
        "statistic": "best_minus_last" if over_layers else f"best_minus_{BASELINE}",
        "exit_layer": curve.layers[best], "p_value": p_value, "n": n_questions,
    }  # fmt: skip
    other = f"the last layer, {curve.names[-1]}," if over_layers else BASELINE
    start = other[0].upper() + other[1:]
    if best == reference:
        return {**row, "estimate": 0.0, "sentence": f"{start} is the best itself."}
    if math.isnan(low):
        return {**row, "estimate": 0.0, "sentence": f"{start} is as good as the best."}
    # Two scores in [0, 1] are at most 1 apart; the band, whose scale is held, does not know that.
    low, high = max(low, -1.0), min(high, max(1.0, lead))
    return {
        **row, "estimate": known(lead), "low": known(low), "high": known(high),
        "sentence": f"{curve.noun.capitalize()} {curve.names[best]} leads {other} by HCB {fixed(lead, 2)} "
        f"[{fixed(low, 2)}, {fixed(high, 2)}], one-sided {p_text(p_value)} with the choice of the {curve.noun} "
        "counted in.",
    }  # fmt: skip


def _within_noise(measured: Measured, rows: Sequence[Row]) -> Row:
    """That another layer may be the best, and how much data would tell; the command warns of it."""
    curve, best, second = measured.curve, measured.best, runner_up(measured)
    near = [k for k, row in enumerate(rows) if row["in_best_set"] and k != best]
    if best is None or second is None or not near:
        return {}
    n_questions, noun = len(curve.question_ids), curve.noun
    # Verified drafts follow the full model's law at every layer: no number of questions tells them apart.
    alike = curve.methods is None and any(rate is not None for rate in curve.acceptance_rate)
    number = math.nan if alike else questions_to_tell(measured, best, second)
    text = f"{noun.capitalize()} {curve.names[best]} is best, but {noun}{'s' if len(near) > 1 else ''} "
    text += f"{_listed(near, curve)} cannot be told apart from it with {n_questions:,} questions"
    if alike:
        text += "; by their law they are the same, as the full model verified every draft"
    elif number > _MILLION:
        text += f"; it would take over a million to tell {curve.names[best]} from {curve.names[second]}"
    elif number > n_questions:
        text += f"; about {about(number)} would tell {curve.names[best]} from {curve.names[second]} with 80 % power"
    return {
        "statistic": "best_within_noise", "exit_layer": curve.layers[best], "n": n_questions,
        "estimate": known(number), "sentence": f"{text}: hcl hcb --power.",
    }  # fmt: skip


def _saves(measured: Measured) -> Row:
    """What leaving at the best layer costs and saves, against the last one; under early exit alone."""
    curve, best, reference = measured.curve, measured.best, measured.curve.reference
    if best is None or reference is None or curve.methods is not None or len(curve.layers) < 2:
        return {}
    cost = curve.relative_cost[best]
    if cost is None or curve.acceptance_rate[best] is not None:
        return {}
    row: Row = {"statistic": "best_exit_saves", "exit_layer": curve.layers[best], "n": len(curve.question_ids)}
    if best == reference:
        return {**row, "estimate": 0.0, "sentence": "The best exit is the last layer: it saves nothing."}
    others = [k for k in range(len(curve.layers)) if k != reference]
    rise = curve.wrong[:, others] - curve.wrong[:, [reference]]
    drawn = measured.drawn_hallucination[:, others] - measured.drawn_hallucination[:, [reference]]
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    at, estimate = others.index(best), rise.mean(axis=0)
    told = ""
    low = high = math.nan
    if len(rise) > 1 and len(drawn):
        # The band of all layers holds whichever is chosen; where few questions differ, it knows too little.
        band_low, band_high, _ = simultaneous_band(estimate, drawn, len(rise))
        own_low, own_high = mean_interval(rise[:, [at]], drawn[:, [at]], (-1.0, 1.0))
        low, high = max(-1.0, min(band_low[at], own_low[0])), min(1.0, max(band_high[at], own_high[0]))
        told = f" [{fixed(low, 2, '+')}, {fixed(high, 2, '+')}]"
    counted = f", the choice of the {curve.noun} counted in" if told else ""
    return {
        **row, "estimate": known(estimate[at]), "low": known(low), "high": known(high),
        "sentence": f"Exit {curve.names[best]} costs {percent(cost)} of the full model, hallucination "
        f"{fixed(estimate[at], 2, '+')}{told} against layer {curve.names[reference]}{counted}.",
    }  # fmt: skip


def _confidence(measured: Measured) -> Row:
    curve, best, layers = measured.curve, measured.best, measured.curve.layers
    if best is None or len(layers) < 2 or np.isnan(measured.confidence).any():
        return {}
    estimate = confidence_lead(measured.confidence, best)[None]
    low, high = percentile_interval(estimate, confidence_lead(measured.drawn_confidence, best)[:, None])
    told = "" if np.isnan(low[0]) else f" [{fixed(low[0], 3, '+')}, {fixed(high[0], 3, '+')}]"
    return {
        "statistic": "best_confidence_lead", "exit_layer": layers[best], "n": len(measured.curve.question_ids),
        "estimate": known(estimate[0]), "low": known(low[0]), "high": known(high[0]),
        "sentence": f"Mean token probability {'at' if curve.methods is None else 'under'} {curve.noun} "
        f"{curve.names[best]} differs by {fixed(estimate[0], 3, '+')}{told} from the mean of the other {curve.noun}s.",
    }  # fmt: skip


def _correlation(measured: Measured) -> Row:
    n_layers = len(measured.curve.layers)
    if n_layers < 3:
        return {}
    r = pearson(measured.creativity, measured.hallucination)
    if np.isnan(r):
        return {}
    drawn = pearson(measured.drawn_creativity, measured.drawn_hallucination)
    return {
        "statistic": "creativity_hallucination_correlation", "n": n_layers, **_correlation_cells(float(r), drawn),
        "sentence": f"Over {n_layers} {measured.curve.noun}s, creativity and hallucination correlate at "
        f"{_correlation_text(float(r), drawn)}.",
    }  # fmt: skip


def _correlation_cells(r: float, drawn: Floats) -> Row:
    low, high = percentile_interval(np.array([r]), drawn[:, None])
    return {"estimate": known(r), "low": known(low[0]), "high": known(high[0])}


def _correlation_text(r: float, drawn: Floats) -> str:
    low, high = percentile_interval(np.array([r]), drawn[:, None])
    return f"r = {r:+.2f}" + ("" if np.isnan(low[0]) else f" [{low[0]:+.2f}, {high[0]:+.2f}]")


def _drafts(measured: Measured) -> Row:
    """What self-speculative decoding means for reading the curve."""
    curve = measured.curve
    accepted = {
        layer: rate for layer, rate in zip(curve.layers, curve.acceptance_rate, strict=True) if rate is not None
    }
    if not accepted:
        return {}
    first, last = min(accepted), max(accepted)
    told = f"{percent(accepted[first])} of the drafts of layer {first}"
    if last > first:
        told += f" and {percent(accepted[last])} of those of layer {last}"
    return {
        "statistic": "drafts_accepted", "exit_layer": last, "estimate": known(accepted[last]), "n": len(accepted),
        "sentence": f"Drafts were verified by the full model, which accepted {told}. The answers follow the full "
        "model's law whatever the layer, so that differences between layers are chance.",
    }  # fmt: skip


def _left_out(measured: Measured) -> list[Row]:
    curve = measured.curve
    total, ungraded = sum(curve.n_samples), sum(curve.n_samples) - sum(curve.n_graded)
    questions = len(curve.question_ids) + curve.n_left_out
    return [
        {
            "statistic": "responses_ungraded", "estimate": float(ungraded), "n": total,
            "sentence": f"{ungraded:,} of {total:,} responses could not be graded.",
        },
        {
            "statistic": "questions_left_out", "estimate": float(curve.n_left_out), "n": questions,
            "sentence": f"{curve.n_left_out:,} of {questions:,} questions were left out: "
            f"not graded {_everywhere(curve)}.",
        },
    ]  # fmt: skip


def _everywhere(curve: Curve) -> str:
    return "at every layer" if curve.methods is None else "under every method"


def _listed(members: list[int], curve: Curve) -> str:
    """Neighbours among the compared layers as "5 to 8"; the rest, and methods, one by one."""
    runs: list[list[int]] = []
    for k in members:
        if runs and k == runs[-1][-1] + 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    words = []
    for run in runs:
        if len(run) > 2 and curve.methods is None:
            words.append(f"{curve.names[run[0]]} to {curve.names[run[-1]]}")
        else:
            words += [curve.names[k] for k in run]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _with_interval(row: Row, name: str) -> str:
    text = f"{row[name]:.2f}"
    return text if row[f"{name}_low"] is None else f"{text} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
