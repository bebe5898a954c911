"""Scored responses -> how many questions and samples tell two layers apart: POWER."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.hcb import Weights
from hcl_cli.measures.power import ALPHA, POWERS, SAMPLES, Components, components, detectable_difference
from hcl_cli.measures.power import questions_needed as needed
from hcl_cli.schemas import POWER
from hcl_cli.stages.curves import ScoredInput, read_curves
from hcl_cli.stages.paired_layers import METRICS, question_values, runner_up
from hcl_cli.stages.resampled import Measured, measure

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ScoredInput", "power_table", "questions_to_tell"]

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]


def power_table(
    inputs: Sequence[ScoredInput], *, weights: Weights, diversity: str = "clusters", seed: int = 0
) -> pl.DataFrame:
    """How much data tells two layers of a curve apart, from the data's own variances: see `measures.power`.

    Pairs: the best layer (by HCB) against the last one, against the second-best, and each layer against its neighbour.
    For hallucination the number of samples is varied; creativity counts clusters, which grow with the samples in a
    way that the answers do not tell, so it and HCB have one row, at the samples there are. The corrected numbers count
    every pair that could have been meant (Bonferroni): layers against the last, all pairs for the second-best, and
    neighbours. The difference is the observed one: that of a layer chosen as the best is on average too large, and
    the questions needed then too few.

    Args:
        inputs, weights, diversity: as for the layer table.
        seed: of nothing here; kept so that all tables of a run are made alike.
    Returns:
        POWER.
    Raises:
        BadInput: as for the layer table.
    """
    import polars as pl

    rows = [
        row for curve in read_curves(inputs, diversity) for row in _of_curve(measure(curve, weights, 0, seed))
    ]  # fmt: skip
    filled = [{name: row.get(name) for name in POWER.columns} for row in rows]
    return pl.DataFrame(filled, schema=POWER.polars_schema())


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


def _of_curve(measured: Measured) -> Iterator[Row]:
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
            grid = sorted({present, *SAMPLES}) if not math.isnan(parts.within) else [present]
            for n_samples in grid:
                variance = parts.total if n_samples == present else parts.at(n_samples)
                yield {
                    "kind": kind, **curve.group, **names, "metric": metric, "n_samples": n_samples,
                    "is_present": n_samples == present, "difference": _known(difference.mean()),
                    "variance_between": _known(parts.between), "variance_within": _known(parts.within),
                    "variance": _known(variance), "n_questions": len(values), "n_comparisons": n_comparisons,
                    **_numbers(float(difference.mean()), variance, len(values), n_comparisons),
                }  # fmt: skip


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
