"""Scored responses -> how many questions and samples tell two layers apart: POWER."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput
from hcl_cli.measures.hcb import Weights
from hcl_cli.measures.power import ALPHA, POWERS, SAMPLES, Components, components, detectable_difference
from hcl_cli.measures.power import questions_needed as needed
from hcl_cli.schemas import POWER
from hcl_cli.stages.curves import read_curves
from hcl_cli.stages.paired_layers import METRICS, question_values, runner_up
from hcl_cli.stages.resampled import Measured, measure
from hcl_cli.stages.scored_groups import GROUP, SPECTRUM, ScoredInput

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ScoredInput", "power_table", "questions_to_tell"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
_Fewer = dict[tuple[tuple[Any, ...], int], list[Measured]]  # of a curve with so many samples: each part

PARTS = 3


def power_table(
    inputs: Sequence[ScoredInput], *, weights: Weights, diversity: str = "clusters", seed: int = 0
) -> pl.DataFrame:
    """How much data tells two layers of a curve apart, from the data's own variances: see `measures.power`.

    Pairs: the best layer (by HCB) against the last one, against the second-best, and each layer against its neighbour.
    The number of samples is varied. Of hallucination, what any number would give follows from the variances between
    and within questions. Creativity counts clusters, which grow with the samples, so it and HCB are measured again from
    as many of the samples as asked (the first n by `sample_index`, the next n, up to three such parts), and only up to
    the samples there are; both the difference and its variance are then those of so many samples. The corrected
    numbers count every pair that could have been meant (Bonferroni): layers against the last, all pairs for the
    second-best, and neighbours. The difference is the observed one: that of a layer chosen as the best is on average
    too large, and the questions needed then too few.

    Args:
        inputs, weights, diversity: as for the layer table.
        seed: of nothing here; kept so that all tables of a run are made alike.
    Returns:
        POWER.
    Raises:
        BadInput: as for the layer table.
    """
    import polars as pl

    whole = [measure(curve, weights, 0, seed) for curve in read_curves(inputs, diversity)]
    fewer: _Fewer = {}
    most = max((_samples_present(measured.curve.graded) for measured in whole), default=0)
    for n_samples in SAMPLES:
        if n_samples < most and diversity != SPECTRUM:
            for measured in _of_parts(inputs, n_samples, most // n_samples, diversity, weights, seed):
                fewer.setdefault((_name(measured), n_samples), []).append(measured)
    rows = [row for measured in whole for row in _of_curve(measured, fewer)]
    filled = [{name: row.get(name) for name in POWER.columns} for row in rows]
    return pl.DataFrame(filled, schema=POWER.polars_schema())


def _name(measured: Measured) -> tuple[Any, ...]:
    """What a curve is called, and its positions."""
    curve = measured.curve
    return (*curve.group.values(), *curve.names)


def _of_parts(
    inputs: Sequence[ScoredInput], n_samples: int, n_parts: int, diversity: str, weights: Weights, seed: int
) -> Iterator[Measured]:
    """Every curve from n of the samples only, part by part; none where the samples have no numbers."""
    import polars as pl

    if any("sample_index" not in one.frame.columns or one.frame["sample_index"].has_nulls() for one in inputs):
        return
    for part in range(min(PARTS, n_parts)):
        chosen = []
        for given in inputs:
            keys = [name for name in (*GROUP, "question_id", "question", "exit_layer") if name in given.frame.columns]
            rank = pl.col("sample_index").rank("ordinal").over(keys).cast(pl.Int64) - 1
            chosen.append(replace(given, frame=given.frame.filter(rank // n_samples == part)))
        try:
            curves = read_curves(chosen, diversity)
        except BadInput:  # no answer left that was graded everywhere
            return
        yield from (measure(curve, weights, 0, seed) for curve in curves)


def questions_to_tell(measured: Measured, one: int, other: int) -> float:
    """Questions that tell the best layer from another by HCB with 80 % power; NaN if no number is known to.

    At 5 % two-sided, divided by the number of other layers, as the best could have been any of them.
    """
    values = question_values(measured, "hcb")
    if len(values) < 2:
        return math.nan
    difference = values[:, one] - values[:, other]
    alpha = ALPHA / max(1, len(measured.curve.layers) - 1)
    return needed(float(difference.mean()), float(difference.var(ddof=1)), alpha=alpha)


def _of_curve(measured: Measured, fewer: _Fewer) -> Iterator[Row]:
    curve, best, second = measured.curve, measured.best, runner_up(measured)
    n_layers = len(curve.layers)
    pairs: list[tuple[str, int, int, int]] = []
    if best is not None and curve.reference is not None and best != curve.reference:
        pairs.append(("best_reference", best, curve.reference, n_layers - 1))
    if best is not None and second is not None:
        pairs.append(("best_second", best, second, n_layers * (n_layers - 1) // 2))
    if curve.methods is None:
        pairs += [("neighbours", k, k + 1, n_layers - 1) for k in range(n_layers - 1)]
    present = _samples_present(curve.graded)
    for kind, a, b, n_comparisons in pairs:
        names: Row = {"exit_layer": curve.layers[a], "other_exit_layer": curve.layers[b]}
        if curve.methods is not None:
            names |= {"method": curve.methods[a], "other_method": curve.methods[b]}
        for metric in METRICS:
            values = question_values(measured, metric)
            if len(values) < 2:
                continue
            difference = values[:, a] - values[:, b]
            parts = Components(math.nan, math.nan, float(difference.var(ddof=1)))
            if metric == "hallucination_rate":
                parts = components(values[:, a], values[:, b], curve.graded[:, a], curve.graded[:, b])
            varied = {present: (float(difference.mean()), parts.total)}
            if metric == "hallucination_rate" and not math.isnan(parts.within):
                varied |= {n: (float(difference.mean()), parts.at(n)) for n in SAMPLES if n != present}
            elif metric != "hallucination_rate":
                varied |= _with_fewer(fewer, measured, metric, a, b)
            for n_samples, (mean, variance) in sorted(varied.items()):
                yield {
                    "kind": kind, **curve.group, **names, "metric": metric, "n_samples": n_samples,
                    "is_present": n_samples == present, "difference": _known(mean),
                    "variance_between": _known(parts.between), "variance_within": _known(parts.within),
                    "variance": _known(variance), "n_questions": len(values), "n_comparisons": n_comparisons,
                    **_numbers(mean, variance, len(values), n_comparisons),
                }  # fmt: skip


def _with_fewer(fewer: _Fewer, measured: Measured, metric: str, a: int, b: int) -> dict[int, tuple[float, float]]:
    """By number of samples: the mean difference and its variance, each the mean over the parts."""
    found = {}
    for n_samples in SAMPLES:
        parts = []
        for part in fewer.get((_name(measured), n_samples), []):
            values = question_values(part, metric)
            if len(values) > 1 and _samples_present(measured.curve.graded) > n_samples:
                difference = values[:, a] - values[:, b]
                parts.append((float(difference.mean()), float(difference.var(ddof=1))))
        if parts:
            mean, variance = (sum(column) / len(parts) for column in zip(*parts, strict=True))
            found[n_samples] = (mean, variance)
    return found


def _samples_present(graded: Floats) -> int:
    """Graded answers of a question and layer: the harmonic mean, as noise goes with 1 / n."""
    return round(float(1 / (1 / graded).mean())) if graded.size else 0


def _numbers(difference: float, variance: float, n_questions: int, n_comparisons: int) -> Row:
    found: Row = {}
    for suffix, alpha in (("", ALPHA), ("_corrected", ALPHA / n_comparisons)):
        for power in POWERS:
            number = needed(difference, variance, power, alpha)
            found[f"questions_{power * 100:.0f}{suffix}"] = None if math.isnan(number) else int(min(number, 2**62))
        least = detectable_difference(variance, n_questions, POWERS[0], alpha)
        found[f"detectable_{POWERS[0] * 100:.0f}{suffix}"] = _known(least)
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 12) + 0.0
