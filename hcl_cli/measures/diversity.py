"""How many different right answers: from the sizes of the semantic clusters of correct answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RAREFIED_TO = 5  # correct answers that `rarefied_count` draws
COVERED_TO = 0.7  # share of correct answers that `coverage_count` covers
SPECTRUM_ALPHA = 1e-3


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
    total = _totals(cell, size, n_cells)
    found = _expected_count(cell, size, total, np.full(n_cells, float(m)))
    return np.where(total >= m, found, np.nan)


def coverage_count(
    cell: Ints, size: Ints, n_cells: int, target: float = COVERED_TO, least: int = RAREFIED_TO
) -> Floats:
    """Expected number of clusters in as many answers of each cell as cover the share `target` of its correct answers.

    The coverage of m answers is the probability that one more answer falls into a cluster that they hold. It is
    estimated without bias for m < n (Good 1953; Chao and Jost 2012), and for all n from the clusters seen once and
    twice. Between whole numbers m, coverage and count are interpolated. Where all n answers cover less, the count is
    extrapolated, up to 2 n answers at most. A single answer that covers the share is one cluster.

    Two cells are compared at the same completeness and not at the same effort: a rich cell is not cut down to what a
    poor one shows. How far it depends on the number of answers by itself: benchmarks/diversity.py.

    Args:
        cell, size, n_cells: as in `cluster_count`.
        target: coverage aimed at, in (0, 1). A target that few answers reach would leave out, or extrapolate far,
            just the cells with few.
        least: answers that a cell must have.
    Returns:
        [n_cells], >= 1; NaN where the cell has fewer than `least` answers.
    Source: Chao and Jost 2012, in biodiversity; its use for answers is ours.
    """
    total = _totals(cell, size, n_cells)
    once, twice = (np.bincount(cell[size == k], minlength=n_cells).astype(np.float64) for k in (1, 2))
    seen = np.bincount(cell, minlength=n_cells).astype(np.float64)
    n = np.maximum(total, 2.0)
    # Chao's estimate of how many clusters were not seen, and the share of singletons that are new.
    unseen = (n - 1) / n * np.where(twice > 0, once**2 / np.where(twice > 0, 2 * twice, 1.0), once * (once - 1) / 2)
    fresh = np.where(
        twice > 0,
        (n - 1) * once / np.maximum((n - 1) * once + 2 * twice, 1e-300),
        (n - 1) * (once - 1) / np.maximum((n - 1) * (once - 1) + 2, 1e-300),
    )
    whole = np.where(once > 0, 1 - once / n * np.maximum(fresh, 0.0), 1.0)

    # The largest m with a coverage below the target, by bisection between 0 (none) and n.
    low, high = np.zeros(n_cells), total.copy()
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        below = _coverage(cell, size, total, middle, whole) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    covered = _coverage(cell, size, total, high, whole)
    less, more = _coverage(cell, size, total, np.maximum(low, 1.0), whole), np.maximum(covered, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.where(more > less, (target - less) / (more - less), 1.0)
    few = _expected_count(cell, size, total, np.maximum(low, 1.0))
    inside = few + weight * (_expected_count(cell, size, total, np.maximum(high, 1.0)) - few)
    inside = np.where(high <= 1, 1.0, inside)

    # Beyond n: f0 [1 - (1 - f1 / (n f0 + f1))^k] new clusters in k more answers; coverage 1 - f1 / n A^(k + 1).
    with np.errstate(invalid="ignore", divide="ignore"):
        further = np.log(n / once * (1 - target)) / np.log(fresh) - 1
        further = np.where((once > 0) & (fresh > 0) & (fresh < 1), np.clip(further, 0.0, n), n)
        new = unseen * (1 - (1 - once / np.maximum(n * unseen + once, 1e-300)) ** further)
    found = np.where(covered >= target, inside, seen + np.where(unseen > 0, new, 0.0))
    return np.where(total >= least, found, np.nan)


def _totals(cell: Ints, values: npt.NDArray[np.float64] | Ints, n_cells: int) -> Floats:
    return np.bincount(cell, weights=values, minlength=n_cells).astype(np.float64)


def _coverage(cell: Ints, size: Ints, total: Floats, m: Floats, whole: Floats) -> Floats:
    """[cell]: the coverage of m of its answers, 0 for none and `whole` for all."""
    n, drawn = total[cell], m[cell]
    log_missed = _log_choose_ratio(n - size, n - 1, drawn)
    gap = _totals(cell, size / n * np.exp(log_missed), len(total))
    return np.where(m >= total, whole, np.where(m <= 0, 0.0, 1 - gap))


def _expected_count(cell: Ints, size: Ints, total: Floats, m: Floats) -> Floats:
    """[cell]: sum over clusters of 1 - C(n - n_c, m) / C(n, m), with m of each cell; 0 where there is no cluster."""
    n, drawn = total[cell], m[cell]
    missed = np.exp(_log_choose_ratio(n - size, n, drawn))
    return _totals(cell, 1.0 - missed, len(total))


def _log_choose_ratio(a: Floats, n: Floats, m: Floats) -> Floats:
    """ln C(a, m) - ln C(n, m); -inf where a < m, as then no draw misses."""
    from scipy.special import gammaln

    fits = (a >= m) & (n >= m)
    a, n, m = (np.where(fits, value, 1.0) for value in (a, n, m))
    ratio = gammaln(a + 1) - gammaln(a - m + 1) - gammaln(n + 1) + gammaln(n - m + 1)
    return np.where(fits, ratio, -np.inf)


def spectrum_score(gram: Floats, alpha: float = SPECTRUM_ALPHA) -> Floats:
    """Mean natural logarithm of the eigenvalues of the answers' covariance: (1 / K) ln det(Z J Z' + alpha I).

    Z holds the answers' embeddings as rows and J centres each over its numbers, so that an eigenvalue is large where
    answers point apart. Equal answers leave all eigenvalues but one at alpha. It depends on K: compare equal K alone.

    Args:
        gram: [..., K, K], Z J Z'.
        alpha: keeps the determinant above 0; 0.001 as published.
    Returns:
        [...], in nats; at most ln(1 + alpha) for unit vectors.
    Source: EigenScore (Chen et al. 2024, INSIDE), there on hidden states of the model; the formula as other
        implementations restate the paper's. Its own code (alibaba/eigenscore) divides the covariance by d - 1 and takes
        logarithms to base 10.
    """
    k = gram.shape[-1]
    _, logdet = np.linalg.slogdet(gram + alpha * np.eye(k))
    return np.asarray(logdet / k)
