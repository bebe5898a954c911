"""Values of metrics as rows of QUALITY, and back: what one model was worth, unit by unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hcl_cli.schemas import QUALITY

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.stages.quality import Metric

Floats = npt.NDArray[np.float64]


def quality_frame(values: Mapping[Metric, Floats], *, model: str, removed: Sequence[int]) -> pl.DataFrame:
    """One row per metric and unit; NaN is kept as it is, since a unit without a value has its place.

    Args:
        values: metric -> [unit, column].
        model: its name.
        removed: the blocks that it lacks.
    """
    import polars as pl

    parts = [
        pl.DataFrame(
            {
                "model": [model] * len(found), "removed": [list(removed)] * len(found),
                "metric": [metric.name] * len(found),
                "dataset": [metric.dataset] * len(found), "unit": [metric.unit] * len(found),
                "unit_index": range(len(found)), "values": found.tolist(),
            },
            schema=QUALITY.polars_schema(),
        )
        for metric, found in values.items()
    ]  # fmt: skip
    return pl.concat(parts)


def values_of(frame: pl.DataFrame, metrics: Sequence[Metric]) -> dict[Metric, Floats]:
    """metric -> [unit, column] from rows of QUALITY."""
    import polars as pl

    found = {}
    for metric in metrics:
        own = frame.filter((pl.col("metric") == metric.name) & (pl.col("dataset") == metric.dataset))
        rows = own.sort("unit_index")["values"].to_list()
        found[metric] = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    return found
