"""Scored responses -> layer table: hallucination rate, creativity, HCB, best layer, and how sure all that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadOption
from hcl_cli.measures.diversity import RAREFIED_TO, SPECTRUM_ALPHA
from hcl_cli.measures.hcb import Weights, minmax, winning_shares
from hcl_cli.measures.intervals import mean_interval, percentile_interval
from hcl_cli.measures.selection import best_set
from hcl_cli.schemas import FINDINGS, LAYERS
from hcl_cli.stages.balance import parse_weights
from hcl_cli.stages.curves import DIVERSITIES, read_curves
from hcl_cli.stages.findings import across_curves, of_curve, of_options, with_published
from hcl_cli.stages.resampled import Measured, measure
from hcl_cli.stages.scored_groups import ScoredInput
from hcl_cli.stages.semantic_entropy import entropy_columns

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ScoredInput", "Weights", "layer_tables", "parse_weights"]

Floats = npt.NDArray[np.float64]
# Largest value of a question and the smallest step to reckon with, for the intervals of each diversity.
_SUPPORT = {
    "clusters": (0.0, math.inf, 1.0),
    "rarefied": (1.0, float(RAREFIED_TO), 1.0),
    "coverage": (1.0, math.inf, 1.0),
    "spectrum": (math.log(SPECTRUM_ALPHA), math.log(1 + SPECTRUM_ALPHA), 1.0),
    "entropy": (0.0, math.inf, math.log(2)),
}


def _interval(values: Floats, drawn: Floats, support: tuple[float, float], step: float) -> tuple[Floats, Floats]:
    counted = values[~np.isnan(values).any(axis=1)]
    if len(counted) < 2 or not len(drawn):
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing.copy()
    return mean_interval(counted, drawn, support, step)


def layer_rows(measured: Measured, diversity: str) -> list[dict[str, Any]]:
    """The rows of LAYERS for one curve, in the order of its layers."""
    curve = measured.curve
    lowest, highest, step = _SUPPORT[diversity]
    scaled = minmax(measured.creativity)
    rates = {
        "hallucination_rate": (
            measured.hallucination,
            *_interval(curve.wrong, measured.drawn_hallucination, (0.0, 1.0), 1.0),
        ),
        "creativity_raw": (
            measured.creativity,
            *_interval(curve.diversity, measured.drawn_creativity, (lowest, highest), step),
        ),
        "creativity": (scaled, *percentile_interval(scaled, minmax(measured.drawn_creativity))),
        "hcb": (measured.score, *percentile_interval(measured.score, measured.drawn_score)),
        "confidence": (
            measured.confidence,
            *_interval(curve.confidence, measured.drawn_confidence, (0.0, 1.0), 1.0),
        ),
    }
    wins = winning_shares(measured.drawn_score)
    best = measured.best
    kept = measured.drawn_linear[~np.isnan(measured.drawn_linear).any(axis=1)]
    in_set = best_set(measured.linear, kept, len(curve.question_ids)) if best is not None and len(kept) else None
    rows = []
    for k, layer in enumerate(curve.layers):
        row: dict[str, Any] = {
            **curve.group,
            **({} if curve.methods is None else {"method": curve.methods[k]}),
            "exit_layer": layer,
            "n_questions": len(curve.question_ids),
            "n_samples": curve.n_samples[k],
            "n_graded": curve.n_graded[k],
            "n_creativity_questions": int((~np.isnan(curve.diversity[:, k])).sum()),
        }
        for name, (value, low, high) in rates.items():
            row |= {name: _known(value[k]), f"{name}_low": _known(low[k]), f"{name}_high": _known(high[k])}
        row |= {
            "relative_cost": curve.relative_cost[k],
            "acceptance_rate": curve.acceptance_rate[k],
            "tokens_per_verification": curve.tokens_per_verification[k],
            "p_best": _known(wins[k]),
            "is_best": None if best is None else k == best,
            "in_best_set": None if in_set is None else bool(in_set[k]) or k == best,
        }
        rows.append(row)
    return rows


def _known(value: float) -> float | None:
    """None for NaN; rounded, so that the order in which a machine adds does not show."""
    return None if math.isnan(value) else round(float(value), 12)


def layer_tables(
    inputs: Sequence[ScoredInput],
    *,
    weights: str | Weights = "script",
    scale_hallucination: str | None = None,
    diversity: str = "clusters",
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row per exit layer, and what is not one row per layer.

    One curve per (model, dataset, strategy, method, temperature, top_p), and per input where these collide; methods
    with one layer each, as `hcl dola` gives them, are compared as if they were the layers of one curve. Within a
    curve all layers are compared on the same questions: those with a graded answer at every layer; the others are
    left out and counted (FINDINGS, `questions_left_out`). Then, each a mean over those questions:

    * hallucination_rate: share of a question's graded answers that are wrong;
    * creativity_raw: `clusters` counts the clusters of correct answers (0 without one), `rarefied` the clusters
      expected among 5 correct answers, `coverage` those expected where 70 % of the correct answers are covered,
      `spectrum` the log-determinant score of 5 (all three over the questions that have 5 at every layer), `entropy`
      the entropy of the cluster sizes in nats (0 without a correct answer);
    * creativity: creativity_raw min-max scaled over the curve's layers; hcb: see `measures.hcb`;
    * semantic_entropy and what it tells of wrong answers: see `stages.semantic_entropy`.

    Intervals are 95 %, over questions, all samples of a question together: `measures.intervals` for the means, the
    percentiles of the resamples with min-max scaling redone in each for creativity and hcb.

    Args:
        inputs: SCORED columns; a file from elsewhere may lack all but `correct` and the question. Without
            `exit_layer` its answers are one layer, numbered 1; without `cluster_id` creativity is unknown,
            without `meaning_id` semantic entropy.
        weights, scale_hallucination: see `parse_weights`; weights may also be given ready made.
        diversity: one of DIVERSITIES; `spectrum` reads the column that `stages.spectrum` adds.
        n_bootstrap: resamples, >= 0; with 0 there is no interval and no share of wins.
        seed: of the resamples, >= 0.
    Returns:
        (LAYERS, FINDINGS), the first ordered by curve and exit layer.
    Raises:
        BadOption, BadInput: in one line.
    """
    import polars as pl

    chosen = weights if isinstance(weights, Weights) else parse_weights(weights, scale_hallucination)
    if diversity not in DIVERSITIES:
        raise BadOption(f"--diversity {diversity!r}: expected one of {', '.join(DIVERSITIES)}")
    if n_bootstrap < 0:
        raise BadOption(f"--bootstrap {n_bootstrap}: expected 0 or more resamples; the default is 2000")
    if not 0 <= seed < 2**64:
        raise BadOption(f"--seed {seed}: expected a whole number from 0 to 2^64 - 1")
    curves = [measure(curve, chosen, n_bootstrap, seed) for curve in read_curves(inputs, diversity)]
    layers: list[dict[str, Any]] = []
    findings = of_options(chosen, diversity, n_bootstrap)
    for measured in curves:
        rows = layer_rows(measured, diversity)
        layers += [row | own for row, own in zip(rows, entropy_columns(measured.curve, n_bootstrap, seed), strict=True)]
        findings += of_curve(measured, rows, diversity)
    findings += across_curves(curves)
    filled = [{name: row.get(name) for name in FINDINGS.columns} for row in with_published(findings)]
    return (
        pl.DataFrame(layers, schema=LAYERS.polars_schema()),
        pl.DataFrame(filled, schema=FINDINGS.polars_schema()),
    )
