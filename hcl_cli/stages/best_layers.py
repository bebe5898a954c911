"""Scored responses with several judges or clusterings -> the best layer under each: does the choice depend on them?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hcl_cli.errors import shown
from hcl_cli.measures.hcb import Weights, best_layer, winning_shares
from hcl_cli.measures.intervals import percentile_interval
from hcl_cli.schemas import BEST_LAYERS
from hcl_cli.stages.curves import read_curves
from hcl_cli.stages.hcb import layer_rows
from hcl_cli.stages.resampled import Measured, measure
from hcl_cli.stages.scored_columns import choices_of
from hcl_cli.stages.scored_groups import ScoredInput

if TYPE_CHECKING:
    import polars as pl


class Choice(NamedTuple):
    """A judge and a clustering, and the columns that say what is correct and what means the same."""

    judge: str
    clustering: str
    correct: str
    cluster_id: str
    is_first: bool


def best_layers(
    inputs: Sequence[ScoredInput], *, weights: Weights, diversity: str = "clusters", n_bootstrap: int = 2000,
    seed: int = 0, prepare: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """The best layer of every curve under each judge (with the first clustering) and each clustering (with the first
    judge).

    Each choice is made as in the layer table, from answers that its judge graded. Resamples draw the same questions for
    all choices if these compare the same questions, and `p_same` is known only then.

    Args:
        inputs: SCORED with the columns of several judges or clusterings.
        weights, diversity, n_bootstrap, seed: as for the layer table.
        prepare: makes a scored table ready for the diversity, once it is known which answers are correct.
    Returns:
        BEST_LAYERS, ordered by curve, the first choice first; empty if nothing else could decide.
    Raises:
        BadInput: as `read_curves`.
    """
    import polars as pl

    offered = choices_of([given.frame.columns for given in inputs])
    rows: list[dict[str, Any]] = []
    if offered:
        choices = _choices(inputs[0].frame, offered)
        measured = {
            choice: _measured(inputs, choice, prepare, weights, diversity, n_bootstrap, seed) for choice in choices
        }
        for number in range(len(measured[choices[0]])):
            curves = {choice: found[number] for choice, found in measured.items() if number < len(found)}
            rows += _rows(curves, diversity)
    return pl.DataFrame(rows, schema=BEST_LAYERS.polars_schema(), orient="row")


def _choices(frame: pl.DataFrame, offered: Sequence[tuple[str, str, str]]) -> list[Choice]:
    """The first judge and clustering, then every other judge, then every other clustering."""
    main = {
        kind: frame[kind][0] if kind in frame.columns and frame.height else None for kind in ("judge", "clustering")
    }
    first = Choice(main["judge"] or "first", main["clustering"] or "first", "correct", "cluster_id", True)
    found = [first]
    plain = first.clustering.partition("+")[0]
    rest = first.clustering[len(plain) :]  # the rule and the guard, which are those of all but `exact`
    for kind, name, column in offered:
        if kind == "judge" and name != first.judge:
            found.append(Choice(name, first.clustering, f"correct_{name}", column, False))
        if kind == "clustering" and name != plain:
            label = name if name == "exact" else name + rest.replace("+no-question", "")
            found.append(Choice(first.judge, label, "correct", column, False))
    return found


def _measured(
    inputs: Sequence[ScoredInput], choice: Choice, prepare: Callable[[pl.DataFrame], pl.DataFrame] | None,
    weights: Weights, diversity: str, n_bootstrap: int, seed: int,
) -> list[Measured]:  # fmt: skip
    import polars as pl

    chosen = inputs
    if not choice.is_first:
        chosen = [
            replace(
                given,
                frame=given.frame.with_columns(correct=pl.col(choice.correct), cluster_id=pl.col(choice.cluster_id)),
            )
            for given in inputs
        ]
    if prepare is not None:
        chosen = [replace(given, frame=prepare(given.frame)) for given in chosen]
    return [measure(curve, weights, n_bootstrap, seed) for curve in read_curves(chosen, diversity)]


def _rows(curves: dict[Choice, Measured], diversity: str) -> list[dict[str, Any]]:
    main = next(iter(curves.values()))
    found = [_row(choice, measured, main, diversity) for choice, measured in curves.items()]
    found[0]["sentence"] = _summary(found, main)
    return found


def _row(choice: Choice, measured: Measured, main: Measured, diversity: str) -> dict[str, Any]:
    curve, best = measured.curve, measured.best
    row: dict[str, Any] = {
        **curve.group, "judge": choice.judge, "clustering": choice.clustering, "is_first": choice.is_first,
        "n_questions": len(curve.question_ids), "best": None,
    }  # fmt: skip
    words = f"Under {shown(choice.judge, 60)}, clusters by {shown(choice.clustering, 60)},"
    if best is None:
        return row | {"sentence": f"{words} no {curve.noun} has a score."}
    at_best = layer_rows(measured, diversity)
    name = curve.names[best]
    row |= {"best": name, "p_best": _known(winning_shares(measured.drawn_score)[best])}
    row |= {"n_in_best_set": sum(bool(one["in_best_set"]) for one in at_best)}
    for column in ("hallucination_rate", "creativity_raw", "hcb"):
        row |= {f"{column}{end}": at_best[best][f"{column}{end}"] for end in ("", "_low", "_high")}
    drawn = measured.drawn_score[~np.isnan(measured.drawn_score).any(axis=1)]
    if curve.methods is None:
        row["exit_layer"] = curve.layers[best]
        if len(drawn):
            winners = np.asarray(curve.layers, dtype=np.float64)[best_layer(drawn)][:, None]
            low, high = percentile_interval(np.array([float(curve.layers[best])]), winners)
            row |= {"exit_layer_low": math.floor(low[0]), "exit_layer_high": math.ceil(high[0])}
    if main.best is None or choice.is_first:
        return row | {"is_same": choice.is_first or None, "sentence": ""}
    is_same = name == main.curve.names[main.best]
    same = _share_same(measured, main)
    told = "" if same is None else f", the same in {100 * same:.0f} % of resamples"
    also = "too" if is_same else f"instead of {main.curve.names[main.best]}"
    return row | {
        "is_same": is_same, "p_same": same, "sentence": f"{words} {curve.noun} {name} is best {also}{told}.",
    }  # fmt: skip


def _share_same(measured: Measured, main: Measured) -> float | None:
    if measured.curve.question_ids != main.curve.question_ids or measured.curve.names != main.curve.names:
        return None
    known = ~(np.isnan(measured.drawn_score).any(axis=1) | np.isnan(main.drawn_score).any(axis=1))
    if not known.any():
        return None
    return float((best_layer(measured.drawn_score[known]) == best_layer(main.drawn_score[known])).mean())


def _summary(rows: Sequence[dict[str, Any]], main: Measured) -> str:
    """Whether the best layer depends on the judge and the clustering."""
    noun, first = main.curve.noun, rows[0]
    if first["best"] is None:
        return f"No {noun} has a score under {first['judge']}."
    others = [row for row in rows[1:] if row["best"] is not None]
    same = sum(bool(row["is_same"]) for row in others)
    by = f"{noun.capitalize()} {first['best']} is best under {first['judge']} with clusters by {first['clustering']}"
    if not others:
        return f"{by}; nothing else has a score."
    if same == len(others):
        return f"{by}, and under every other judge and clustering ({len(others)})."
    return f"{by}, and under {same} of {len(others)} other judges and clusterings: the choice depends on them."


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 12)
