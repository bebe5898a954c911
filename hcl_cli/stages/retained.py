"""Values of a model before and after a change -> RETAINED rows: both numbers, the difference, the share kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures import paired as measure
from hcl_cli.measures.calibration_intervals import Estimate
from hcl_cli.measures.paired import Statistic, paired
from hcl_cli.schemas import RETAINED

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.stages.quality_values import Values

Floats = npt.NDArray[np.float64]

STATISTICS: dict[str, Statistic] = {
    "mean": measure.mean_of(),
    "count": measure.mean_of((0.0, math.inf)),
    "share": measure.SHARE,
    "perplexity": measure.PERPLEXITY,
    "ece": measure.ECE,
    "brier": measure.BRIER,
    "auroc": measure.AUROC,
    "accuracy@50": measure.ACCURACY_AT_50,
    "coverage@50": measure.COVERAGE_AT_50,
    "median": measure.MEDIAN,
    "signed": measure.mean_of((-2.0, 2.0)),  # a difference of cosines
}

# Statistics of losses and confidences; counts and shares of a few answers may be equal for unequal models.
_OF_LIKELIHOODS = ("perplexity", "ece", "brier", "auroc", "accuracy@50", "coverage@50")


def retained_rows(
    before: Values,
    after: Values,
    *,
    model: str,
    variant: str,
    activations: str | None = None,
    seed: int | None = None,
    blocks: Sequence[int] = (),
    lead_over: tuple[str, Values] | None = None,
    n_bootstrap: int = 2000,
    seed_of_intervals: int = 0,
) -> pl.DataFrame:
    """RETAINED rows of one variant, one per metric.

    The difference of two models that give equal values on every unit of every metric is 0 for certain if likelihoods
    are among them (losses, confidences), or if no block was touched; where all that agrees is right and wrong, the
    intervals say how far the models may still differ elsewhere.

    Args:
        before, after: metric -> [unit, column], of `stages.quality_values.measured`; the rows follow `before`.
        model, variant, activations, seed: names for the rows.
        blocks: the blocks that were removed or trained, 1..L.
        lead_over: another variant's name and values: the lead is after minus after of that one.
        n_bootstrap, seed_of_intervals: of the resamples of the units; the same for every metric of as many units.
    Raises:
        ValueError: `after` or the other variant lacks a metric.
    """
    import polars as pl

    rows = []
    same = not blocks or are_equal(before, after)
    leads = None if lead_over is None else lead_over[1]
    same_lead = leads is not None and are_equal(leads, after)
    for metric, values in before.items():
        if metric not in after or (leads is not None and metric not in leads):
            raise ValueError(f"no values of {metric.name} on {metric.dataset} to compare with")
        options: dict[str, Any] = {"n_resamples": n_bootstrap, "seed": seed_of_intervals}
        timed = metric.unit == "runs"
        found = paired(
            values, after[metric], STATISTICS[metric.statistic],
            higher_is_better=metric.higher_is_better is not False, identical=same and not timed, **options,
        )  # fmt: skip
        lead = None
        if leads is not None:
            lead = paired(
                leads[metric], after[metric], STATISTICS[metric.statistic], identical=same_lead and not timed, **options
            ).difference
        alone = metric.unit is None
        rows.append(
            {
                "model": model, "variant": variant, "activations": activations, "seed": seed, "n_blocks": len(blocks),
                "blocks": list(blocks), "metric": metric.name, "dataset": metric.dataset,
                "higher_is_better": metric.higher_is_better,
                **_columns("before", found.before, alone), **_columns("after", found.after, alone),
                **_columns("difference", found.difference, alone), **_columns("share_kept", found.share_kept, alone),
                "lead_over": None if lead_over is None else lead_over[0], **_columns("lead", lead, alone),
                "unit": metric.unit, "n_units": None if alone else found.n_units,
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=RETAINED.polars_schema(), orient="row")


def are_equal(one: Values, other: Values) -> bool:
    """Whether two models gave the same values throughout, likelihoods among them, which agree by chance nowhere."""
    shared = [metric for metric in one if metric in other and metric.unit in ("texts", "questions")]
    equal = all(np.array_equal(one[metric], other[metric], equal_nan=True) for metric in shared)
    return equal and any(metric.statistic in _OF_LIKELIHOODS or metric.name == "mc2" for metric in shared)


def _columns(name: str, estimate: Estimate | None, alone: bool) -> dict[str, float | None]:
    """Value and ends; null where unknown. A number of the model alone has no interval."""
    if estimate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    ends = (None, None) if alone else (_known(estimate.low), _known(estimate.high))
    return {name: _known(estimate.value), f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _known(value: float) -> float | None:
    """None for what is not a number; rounded, so that the order in which a machine adds does not show."""
    return round(value, 12) if math.isfinite(value) else None
