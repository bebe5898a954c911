"""How two series move together, and how far apart places lie."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Pearson's correlation over the last axis.

    Args:
        x, y: [..., item].
    Returns:
        [...], in [-1, 1]; NaN where either is constant (up to 12 decimals) or holds fewer than two items.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.shape[-1] < 2:
        return np.full(a.shape[:-1], np.nan)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=-1)) * np.sqrt((b**2).sum(axis=-1))
    flat = (np.abs(a).max(axis=-1) < 1e-12) | (np.abs(b).max(axis=-1) < 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flat, np.nan, np.clip((a * b).sum(axis=-1) / np.where(flat, 1.0, size), -1.0, 1.0))


def agreement(places: npt.ArrayLike) -> Floats:
    """1 minus the mean distance between all pairs of places.

    Args:
        places: [..., item] with at least two items, in [0, 1] (relative depths).
    Returns:
        [...], in [0, 1]; 1 where all are the same. Our own definition, no paper's.
    """
    x = np.asarray(places, dtype=np.float64)
    first, second = np.triu_indices(x.shape[-1], k=1)
    return np.asarray(1.0 - np.abs(x[..., first] - x[..., second]).mean(axis=-1))


def mean_correlation(r: npt.ArrayLike, weight: npt.ArrayLike) -> Floats:
    """Weighted mean of correlations by Fisher's z: tanh(sum w artanh r / sum w).

    Args:
        r: [..., item], in [-1, 1]; what is nearer to 1 than .999 counts as .999, as z of 1 is infinite.
        weight: [item], > 0; for n points behind a correlation usually n - 3.
    Returns:
        [...]; items that are NaN do not count, NaN if all are.
    """
    z = np.arctanh(np.clip(np.asarray(r, dtype=np.float64), -0.999, 0.999))
    w = np.where(np.isnan(z), 0.0, np.asarray(weight, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.tanh((w * np.where(np.isnan(z), 0.0, z)).sum(axis=-1) / w.sum(axis=-1)))
