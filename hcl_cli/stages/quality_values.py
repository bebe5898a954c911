"""Metrics and models -> values: every set read once per model, and timed runs in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.quality import Metric

Floats = npt.NDArray[np.float64]
Values = Mapping["Metric", Floats]
Opening = Callable[[], AbstractContextManager["LoadedModel"]]


def measured(
    metrics: Sequence[Metric], loaded: LoadedModel, *, progress: Callable[[int, int], None] | None = None
) -> dict[Metric, Floats]:
    """Every metric's values of one model; see `measured_variants`."""
    return measured_variants(metrics, {"": lambda: nullcontext(loaded)}, progress=progress)[""]


def measured_variants(
    metrics: Sequence[Metric],
    variants: Mapping[str, Opening],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[Metric, Floats]]:
    """Every metric's values of several models with one tokenizer.

    Each variant is opened once, and each set read once in it. Runs that are timed come last and take turns: all
    variants once, then all again, so that what the machine does meanwhile meets all alike; the first turn warms up.

    Args:
        metrics: of `cli.quality.open_metrics`.
        variants: name -> what opens the model, for example `lambda: without_blocks(loaded, removed)`.
        progress: told (passes done, passes).
    Returns:
        variant -> metric -> [unit, column], NaN where a unit has no value.
    """
    from hcl_cli.stages.quality_answers import Speed

    works = list({id(metric.work): metric.work for metric in metrics}.values())
    timed = [work for work in works if isinstance(work, Speed)]
    n_turns = sum(work.n_runs + 1 for work in timed)
    total, done = len(variants) * (len(works) - len(timed) + n_turns), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    values: dict[str, dict[tuple[int, str], Floats]] = {name: {} for name in variants}
    for name, opened in variants.items():
        if len(timed) == len(works):
            continue
        with opened() as loaded:
            for work in works:
                if not isinstance(work, Speed):
                    values[name].update({(id(work), key): found for key, found in work(loaded).items()})
                    advance()
    for work in timed:
        runs: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(work.n_runs + 1):
            for name, opened in variants.items():
                with opened() as loaded:
                    runs[name].append(work.once(loaded))
                advance()
        for name, speeds in runs.items():
            values[name][id(work), "tokens-per-second"] = np.array(speeds[1:])[:, None]
    return {name: {metric: found[id(metric.work), metric.key] for metric in metrics} for name, found in values.items()}
