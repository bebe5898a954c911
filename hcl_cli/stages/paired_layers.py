"""What a question says of each exit layer, per metric, so that layers can be compared pair by pair."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.comparisons import METRICS
from hcl_cli.measures.hcb import linear_part
from hcl_cli.stages.resampled import Measured

Floats = npt.NDArray[np.float64]

__all__ = ["METRICS", "SUPPORT", "drawn_values", "layer_values", "question_values", "runner_up"]

# Lowest and highest possible difference of one question.
SUPPORT = {
    "hallucination_rate": (-1.0, 1.0),
    "creativity_raw": (-math.inf, math.inf),
    "hcb": (-math.inf, math.inf),
}


def layer_values(measured: Measured, metric: str) -> Floats:
    """[layer], as in LAYERS."""
    return {
        "hallucination_rate": measured.hallucination, "creativity_raw": measured.creativity, "hcb": measured.score,
    }[metric]  # fmt: skip


def question_values(measured: Measured, metric: str) -> Floats:
    """[question, layer]: differences of the columns' means are the differences of the layers.

    Of creativity only the questions that count for it. HCB is taken up to a constant, its min-max scales held at the
    observed ones (`measures.hcb.linear_part`): a difference is then a mean over questions. A question that does not
    count for creativity has its hallucination alone, the others weigh n / n_counted there.
    """
    curve = measured.curve
    if metric == "hallucination_rate":
        return curve.wrong
    counted = np.asarray(~np.isnan(curve.diversity).any(axis=1))
    if metric == "creativity_raw":
        return curve.diversity[counted]
    if not counted.any():
        return curve.wrong[:0]
    share = np.where(counted[:, None], curve.diversity, 0.0) * (len(counted) / counted.sum())
    return linear_part(share, curve.wrong, measured.weights, (measured.creativity, measured.hallucination))


def drawn_values(measured: Measured, metric: str) -> Floats:
    """[resample, layer], means of `question_values` in every resample."""
    return {
        "hallucination_rate": measured.drawn_hallucination, "creativity_raw": measured.drawn_creativity,
        "hcb": measured.drawn_linear,
    }[metric]  # fmt: skip


def runner_up(measured: Measured) -> int | None:
    """Index of the second-best layer by HCB, among ties the smallest; None without a best one or another one."""
    best = measured.best
    if best is None or len(measured.curve.layers) < 2:
        return None
    others = np.round(measured.score, 12)
    others[best] = -np.inf
    return int(np.argmax(others))
