"""How many different right answers: from the sizes of the semantic clusters of correct answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RAREFIED_TO = 5  # correct answers that `rarefied_count` draws


def cluster_count(cell: Ints, size: Ints, n_cells: int) -> Floats:
    """Number of clusters in each cell; 0 where there is none.

    Args:
        cell: [cluster], the cell (question and layer) that each cluster belongs to, in [0, n_cells).
        size: [cluster], number of answers in it, >= 1. Not used; it keeps the three measures interchangeable.
        n_cells: number of cells.
    Returns:
        [n_cells], >= 0.
    Source: Shakespearean Sparks, similarity.py: creativity is the number of clusters of correct answers.
    """
    del size
    return np.bincount(cell, minlength=n_cells).astype(np.float64)


def cluster_entropy(cell: Ints, size: Ints, n_cells: int) -> Floats:
    """Entropy of the cluster sizes of each cell, -sum p ln p with p = size / sum of sizes.

    0 for one cluster, ln k for k clusters of equal size, and 0 for a cell without a correct answer, so that its mean
    runs over the same questions as the mean number of clusters.

    Args:
        cell, size, n_cells: as in `cluster_count`.
    Returns:
        [n_cells], in nats.
    Source: discrete semantic entropy (Farquhar et al. 2024), here over correct answers only.
    """
    total = np.bincount(cell, weights=size, minlength=n_cells)
    share = size / total[cell] if len(cell) else np.zeros(0)
    # abs: a single cluster gives -0.0
    return np.abs(np.bincount(cell, weights=-share * np.log(share), minlength=n_cells))


def rarefied_count(cell: Ints, size: Ints, n_cells: int, m: int = RAREFIED_TO) -> Floats:
    """Expected number of clusters among m answers drawn without replacement from each cell.

    sum over clusters of 1 - C(n - n_c, m) / C(n, m), with n answers in the cell and n_c in the cluster. The plain
    count grows with the number of correct answers, so it is tied to accuracy; this one is not.

    Args:
        cell, size, n_cells: as in `cluster_count`.
        m: answers drawn, >= 1.
    Returns:
        [n_cells], in [1, m]; NaN where the cell has fewer than m answers.
    Source: rarefaction (Hurlbert 1971).
    """
    from scipy.special import gammaln

    total = np.bincount(cell, weights=size, minlength=n_cells)
    n, rest = total[cell], total[cell] - size

    # ln C(a, m) - ln C(n, m); -inf where a < m, as then no draw misses the cluster
    with np.errstate(invalid="ignore", divide="ignore"):
        log_missed = gammaln(rest + 1) - gammaln(np.maximum(rest - m, 0) + 1)
        log_missed -= gammaln(n + 1) - gammaln(np.maximum(n - m, 0) + 1)
    missed = np.where(rest >= m, np.exp(np.where(rest >= m, log_missed, 0.0)), 0.0)
    found = np.bincount(cell, weights=1.0 - missed, minlength=n_cells)
    return np.where(total >= m, found, np.nan)
