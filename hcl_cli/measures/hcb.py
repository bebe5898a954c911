"""The balance of creativity against hallucination: one score per exit layer.

Three weightings are published for the same score, and they disagree (Shakespearean Sparks, arXiv 2503.02851 and its
repository): the script, the title of its figures, and the numbers printed in those figures. All three are here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.weights import PRESETS, Weights

__all__ = ["PRESETS", "Weights", "best_layer", "hcb", "linear_part", "minmax", "winning_shares"]

Floats = npt.NDArray[np.float64]

# Sums of the same numbers in another order differ in the last bits; what differs by less than this is a tie.
DECIMALS = 12


def minmax(values: npt.ArrayLike) -> Floats:
    """Scale to [0, 1] over the last axis: (x - min) / (max - min); where all are equal, 0.5.

    Args:
        values: [..., layer]. A NaN makes its whole row NaN.
    Returns:
        [..., layer].
    Source: Shakespearean Sparks, published script (constant input gives 0.5).
    """
    x = np.asarray(values, dtype=np.float64)
    low, high = x.min(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)
    width = high - low
    # Rounding noise must not be blown up to the whole range.
    flat = np.abs(width) <= 10.0**-DECIMALS * np.maximum(1.0, np.abs(high))
    scaled = (x - low) / np.where(flat, 1.0, width)
    return np.where(flat & ~np.isnan(width), 0.5, scaled)


def hcb(creativity: npt.ArrayLike, hallucination: npt.ArrayLike, weights: Weights) -> Floats:
    """w_c * minmax(C) + w_h * (1 - H), with H raw or min-max scaled over the layers.

    Args:
        creativity: [..., layer], any scale (min-max scaling does not depend on it).
        hallucination: [..., layer], in [0, 1].
        weights: see `Weights`.
    Returns:
        [..., layer], in [0, 1] where the two weights sum to 1.
    Source: Shakespearean Sparks, script, figure titles and figure numbers: see `PRESETS`.
    """
    rate = minmax(hallucination) if weights.scale == "minmax" else np.asarray(hallucination, dtype=np.float64)
    return weights.creativity * minmax(creativity) + weights.hallucination * (1.0 - rate)


def linear_part(
    creativity: npt.ArrayLike, hallucination: npt.ArrayLike, weights: Weights, scale_of: tuple[Floats, Floats]
) -> Floats:
    """HCB up to a constant, with the min-max scales held at those of `scale_of`.

    Differences between layers equal those of `hcb` where (creativity, hallucination) is `scale_of` itself. In a
    resample the scales stay, so that a difference is a mean over questions and its bootstrap is regular; with the
    scale recomputed, pure noise fills [0, 1] in every resample and no test keeps its level.

    Args:
        creativity: [..., layer].
        hallucination: [..., layer].
        weights: see `Weights`.
        scale_of: the observed (creativity [layer], hallucination [layer]).
    Returns:
        [..., layer].
    """

    def per_unit(observed: Floats) -> float:
        width = float(observed.max() - observed.min())
        return 0.0 if width <= 10.0**-DECIMALS * max(1.0, abs(float(observed.max()))) else 1.0 / width

    of_rate = per_unit(scale_of[1]) if weights.scale == "minmax" else 1.0
    c, h = np.asarray(creativity, dtype=np.float64), np.asarray(hallucination, dtype=np.float64)
    return weights.creativity * per_unit(scale_of[0]) * c - weights.hallucination * of_rate * h


def best_layer(score: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Index of the highest score over the last axis; among ties the smallest."""
    return np.argmax(np.round(np.asarray(score, dtype=np.float64), DECIMALS), axis=-1)


def winning_shares(scores: npt.ArrayLike) -> Floats:
    """Share of resamples that each layer wins; a resample with ties is shared equally among the tied.

    Args:
        scores: [resample, layer]; rows with NaN are left out.
    Returns:
        [layer], in [0, 1], sum 1; all NaN if no row is left.
    """
    x = np.round(np.asarray(scores, dtype=np.float64), DECIMALS)
    x = x[~np.isnan(x).any(axis=1)]
    if not len(x):
        return np.full(x.shape[1], np.nan)
    wins = x == x.max(axis=1, keepdims=True)
    return np.asarray((wins / wins.sum(axis=1, keepdims=True)).mean(axis=0))
