"""Scored responses -> which layers, and which models, can be told apart: COMPARISONS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.comparisons import PairTests, holm, models_at_best, pair_tests
from hcl_cli.measures.hcb import Weights, hcb, linear_part
from hcl_cli.measures.intervals import percentile_interval
from hcl_cli.schemas import COMPARISONS
from hcl_cli.stages.curves import read_curves
from hcl_cli.stages.paired_layers import METRICS, SUPPORT, drawn_values, layer_values, question_values
from hcl_cli.stages.resampled import Measured, measure
from hcl_cli.stages.scored_groups import ScoredInput, stream_of

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.stages.curves import Curve

__all__ = ["ScoredInput", "comparisons"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_ALIKE = ("dataset", "strategy", "method", "temperature", "top_p")  # what two models' curves must share
_COMMON = (*METRICS[:2], "hcb_common")


def comparisons(
    inputs: Sequence[ScoredInput], *, weights: Weights, diversity: str = "clusters", all_pairs: bool = False,
    n_bootstrap: int = 2000, seed: int = 0,
) -> pl.DataFrame:  # fmt: skip
    """Paired tests between the layers of each curve, and between models on the same questions.

    Within a curve, each metric has two families. `reference`: every layer against the last one, corrected over those
    pairs; as all layers are in it, the corrected p-value also holds for the layer that looked best. `best`: the layer
    with the highest HCB against every other one, corrected over all pairs of layers, which any choice is among; the
    p-value of a single pair would not know of the choice and is null. That is stricter than `in_best_set` of the layer
    table, which compares with the best alone. HCB is tested with its min-max scales held.

    Between models with the same data set and protocol, on the questions that both answered: at their best layers, the
    best chosen anew in every resample and every exchange, and at their last layers; corrected by Holm's procedure over
    the pairs of models. The exchange takes the models as alike at every layer, where the interval speaks of the
    difference at the best layers alone: where an exchange makes other layers best, the two may disagree. A model's HCB
    is scaled over its own layers and says nothing about another's; `hcb_common` is scaled over the layers of both.

    Args:
        inputs, diversity: as for the layer table.
        weights: of HCB.
        all_pairs: also a row for every two layers (`pair`).
        n_bootstrap: resamples, and sign flips; with 0 there are no intervals and no p-values.
        seed: of both.
    Returns:
        COMPARISONS.
    Raises:
        BadInput: as for the layer table.
    """
    import polars as pl

    curves = read_curves(inputs, diversity)
    rows = [
        row
        for curve in curves
        for row in _within(measure(curve, weights, n_bootstrap, seed), all_pairs, n_bootstrap, seed)
    ]
    rows += _between(curves, weights, n_bootstrap, seed)
    filled = [{name: row.get(name) for name in COMPARISONS.columns} for row in rows]
    return pl.DataFrame(filled, schema=COMPARISONS.polars_schema())


# --------------------------------------------------------------------------------------------------- within a curve


def _within(measured: Measured, all_pairs: bool, n_flips: int, seed: int) -> Iterator[Row]:
    curve, n_layers = measured.curve, len(measured.curve.layers)
    if n_layers < 2:
        return
    first, second = np.triu_indices(n_layers, k=1)
    for metric in METRICS:
        values, drawn = question_values(measured, metric), drawn_values(measured, metric)

        def family(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], metric: str = metric, values: Floats = values,
                   drawn: Floats = drawn) -> PairTests:  # fmt: skip
            return pair_tests(
                values[:, a] - values[:, b], drawn[:, a] - drawn[:, b], SUPPORT[metric], n_flips, seed, curve.stream
            )

        def row(kind: str, a: int, b: int, cells: Row, n_pairs: int, metric: str = metric, n: int = len(values)) -> Row:
            of_layers = layer_values(measured, metric)
            return {
                "kind": kind, **curve.group, **_position(curve, a), **_position(curve, b, "other_"), "metric": metric,
                "value": _known(of_layers[a]), "other_value": _known(of_layers[b]), **cells,
                "correction": f"max-T over {n_pairs} pair{'' if n_pairs == 1 else 's'}", "n_questions": n,
            }  # fmt: skip

        if curve.reference is not None:
            others = np.array([k for k in range(n_layers) if k != curve.reference])
            tests = family(others, np.full_like(others, curve.reference))
            for at, k in enumerate(others):
                yield row("reference", int(k), curve.reference, _cells(tests, at, metric), len(others))
        if measured.best is None and not all_pairs:
            continue
        tests = family(first, second)
        for at, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            if measured.best in (a, b):
                swapped = measured.best == b
                cells = _cells(tests, at, metric, swapped) | {"p_permutation": None}
                yield row("best", *((b, a) if swapped else (a, b)), cells, len(first))
            if all_pairs:
                yield row("pair", a, b, _cells(tests, at, metric), len(first))


def _position(curve: Curve, k: int, prefix: str = "") -> Row:
    method = curve.group["method"] if curve.methods is None else curve.methods[k]
    named = {f"{prefix}exit_layer": curve.layers[k]}
    return named if prefix and curve.methods is None else {**named, f"{prefix}method": method}


def _cells(tests: PairTests, at: int, metric: str, swapped: bool = False) -> Row:
    """The numbers of one pair; swapped, of the pair the other way round."""
    sign = -1.0 if swapped else 1.0
    cells = {"difference": _known(sign * tests.difference[at])}
    for name, low, high in (("difference", tests.low, tests.high), ("band", tests.band_low, tests.band_high)):
        ends = sorted((sign * low[at], sign * high[at]))
        if metric.startswith("hcb"):
            # Two scores in [0, 1] are at most 1 apart; an interval with the scales held does not know that.
            ends = [float(np.clip(end, -1.0, 1.0)) for end in ends]
        cells |= {f"{name}_low": _known(ends[0]), f"{name}_high": _known(ends[1])}
    return cells | {
        "p_permutation": _known(tests.p_permutation[at]), "p_adjusted": _known(tests.p_adjusted[at]),
        "p_bootstrap": _known(tests.p_bootstrap[at]),
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------- between models


@dataclass(frozen=True)
class _Shared:
    """Two curves cut down to the questions that both hold."""

    one: Curve
    other: Curve


def _between(curves: Sequence[Curve], weights: Weights, n_bootstrap: int, seed: int) -> list[Row]:
    rows: list[Row] = []
    for a, b in combinations([curve for curve in curves if curve.methods is None], 2):
        if any(a.group[name] != b.group[name] for name in _ALIKE) or a.group["model"] == b.group["model"]:
            continue
        ids = sorted(set(a.question_ids) & set(b.question_ids))
        if len(ids) < 2:
            row = _pair_row("models_at_last", a, b, None)
            n = "one question" if ids else "no question"
            rows.append(row | {"n_questions": len(ids), "note": f"they share {n}; unlike questions are not compared"})
            continue
        shared = _Shared(_cut(a, ids), _cut(b, ids))
        rows += _at_best(shared, weights, n_bootstrap, seed) + _at_last(shared, weights, n_bootstrap, seed)
    return _holm_corrected(rows)


def _cut(curve: Curve, ids: Sequence[str]) -> Curve:
    place = {name: at for at, name in enumerate(curve.question_ids)}
    kept = np.array([place[name] for name in ids])
    return replace(
        curve, question_ids=list(ids), wrong=curve.wrong[kept], graded=curve.graded[kept],
        diversity=curve.diversity[kept], confidence=curve.confidence[kept],
    )  # fmt: skip


def _pair_row(kind: str, a: Curve, b: Curve, at: tuple[int, int] | None) -> Row:
    row = {
        "kind": kind, **a.group, "other_model": b.group["model"], "other_method": b.group["method"],
        "other_source": b.group["source"],
    }  # fmt: skip
    return row if at is None else {**row, "exit_layer": a.layers[at[0]], "other_exit_layer": b.layers[at[1]]}


def _drawn(shared: _Shared, n_bootstrap: int, seed: int) -> Floats:
    """[resample, column]: wrong of both, then diversity of both, over questions that count in both."""
    columns = [shared.one.wrong, shared.other.wrong, *_diversity(shared)]
    return resampled_means(np.concatenate(columns, axis=1), n_bootstrap, seed, stream_of(shared.one.question_ids))


def _diversity(shared: _Shared) -> tuple[Floats, Floats]:
    pair = shared.one.diversity, shared.other.diversity
    missing = np.isnan(np.concatenate(pair, axis=1)).any(axis=1, keepdims=True)
    return np.where(missing, np.nan, pair[0]), np.where(missing, np.nan, pair[1])


def _at_best(shared: _Shared, weights: Weights, n_bootstrap: int, seed: int) -> list[Row]:
    one, other = shared.one, shared.other
    found = models_at_best(
        (one.wrong, other.wrong), _diversity(shared), _drawn(shared, n_bootstrap, seed), weights, n_bootstrap, seed,
        one.stream,
    )  # fmt: skip
    if found.best[0] < 0:
        note = "no layer of both can be called best: creativity is unknown on the questions that they share"
        row = _pair_row("models_at_best", one, other, None)
        return [row | {"n_questions": len(one.question_ids), "note": note}]
    return [
        _pair_row("models_at_best", one, other, found.best)
        | {
            "metric": metric, "value": _known(found.values[0, m]), "other_value": _known(found.values[1, m]),
            "difference": _known(found.difference[m]), "difference_low": _known(found.low[m]),
            "difference_high": _known(found.high[m]), "p_permutation": _known(found.p_permutation[m]),
            "p_bootstrap": _known(found.p_bootstrap[m]), "n_questions": len(one.question_ids),
        }
        for m, metric in enumerate(_COMMON)
    ]  # fmt: skip


def _at_last(shared: _Shared, weights: Weights, n_bootstrap: int, seed: int) -> list[Row]:
    one, other = shared.one, shared.other
    diversity, n_layers = _diversity(shared), [one.wrong.shape[1], other.wrong.shape[1]]
    counted = np.asarray(~np.isnan(np.concatenate(diversity, axis=1)).any(axis=1))
    edges = np.cumsum([*n_layers, *n_layers])[:-1]
    drawn = np.split(_drawn(shared, n_bootstrap, seed), edges, axis=1)
    pairs = {"hallucination_rate": ((one.wrong, other.wrong), (drawn[0], drawn[1]))}
    if counted.any():
        pairs["creativity_raw"] = (diversity[0][counted], diversity[1][counted]), (drawn[2], drawn[3])
    rows = []

    def row(metric: str, values: Sequence[float], cells: Row, n: int) -> Row:
        numbers = {"metric": metric, "value": _known(values[0]), "other_value": _known(values[1])}
        return {**_pair_row("models_at_last", one, other, (-1, -1)), **numbers, **cells, "n_questions": n}

    for metric, (values, means) in pairs.items():
        last, drawn_last = values[0][:, -1:] - values[1][:, -1:], means[0][:, -1:] - means[1][:, -1:]
        tests = pair_tests(last, drawn_last, SUPPORT[metric], n_bootstrap, seed, one.stream)
        cells = _cells(tests, 0, metric) | {"band_low": None, "band_high": None}
        rows.append(row(metric, [part[:, -1].mean() for part in values], cells, len(last)))
    if not counted.any():
        return rows
    wrong = np.concatenate([one.wrong, other.wrong], axis=1)
    creative = np.concatenate(diversity, axis=1)
    observed = creative[counted].mean(axis=0), wrong.mean(axis=0)
    ends = [n_layers[0] - 1, sum(n_layers) - 1]
    score = hcb(*observed, weights)[ends]
    redrawn = hcb(np.concatenate(drawn[2:], axis=1), np.concatenate(drawn[:2], axis=1), weights)[:, ends]
    weighed = np.where(counted[:, None], creative, 0.0) * (len(counted) / counted.sum())
    linear = linear_part(weighed, wrong, weights, observed)[:, ends]
    held = linear_part(np.concatenate(drawn[2:], axis=1), np.concatenate(drawn[:2], axis=1), weights, observed)[:, ends]
    tests = pair_tests(
        linear[:, :1] - linear[:, 1:], held[:, :1] - held[:, 1:], SUPPORT["hcb"], n_bootstrap, seed, one.stream
    )
    low, high = percentile_interval(np.array([score[0] - score[1]]), redrawn[:, :1] - redrawn[:, 1:])
    cells = _cells(tests, 0, "hcb_common") | {"band_low": None, "band_high": None}
    cells |= {"difference_low": _known(low[0]), "difference_high": _known(high[0])}
    return [*rows, row("hcb_common", score.tolist(), cells, len(counted))]


def _holm_corrected(rows: list[Row]) -> list[Row]:
    """Over the pairs of models of one data set and protocol, per place and metric."""
    families: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.get("p_permutation") is not None:
            key = (row["kind"], row["metric"], *(row[name] for name in _ALIKE))
            families.setdefault(key, []).append(row)
    for members in families.values():
        for row, adjusted in zip(members, holm([row["p_permutation"] for row in members]), strict=True):
            row |= {"p_adjusted": _known(adjusted), "correction": f"Holm over {len(members)}"}
    return rows


def _known(value: float) -> float | None:
    """None for NaN; rounded, so that the order in which a machine adds does not show."""
    return None if np.isnan(value) else round(float(value), 12) + 0.0
