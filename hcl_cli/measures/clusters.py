"""Semantic clusters: a greedy single pass over a similarity or an entailment relation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Alike = Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]


def greedy_clusters(n_items: int, alike: Alike) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Clusters of items 0..n-1, taken in that order, by their first members.

    An item joins the first cluster, in order of creation, whose representative it is alike; else it becomes the
    representative of a new one. Representatives never change, and two members of one cluster need not be alike: the
    result depends on the order of the items.

    It is computed cluster by cluster, which gives the same: the first item left over is the next representative, and
    it takes every later item that is left over and alike.

    Args:
        n_items: how many items there are.
        alike: `alike(representative, others)` says for each of `others` (indices, ascending, all larger than
            `representative`) whether it is alike.
    Returns:
        The cluster of each item, [n], 0.. in order of first appearance; and each cluster's representative,
        [clusters], ascending.
    Source: ZicongHe2002/HCL-Spark, similarity.py; with entailment, Kuhn et al. 2023.
    """
    clusters = np.empty(n_items, dtype=np.int32)
    representatives: list[int] = []
    left = np.arange(n_items, dtype=np.int64)
    while left.size:
        representative, others = int(left[0]), left[1:]
        joins = alike(representative, others) if others.size else np.zeros(0, dtype=np.bool_)
        clusters[representative] = clusters[others[joins]] = len(representatives)
        representatives.append(representative)
        left = others[~joins]
    return clusters, np.array(representatives, dtype=np.int64)


def cosine_clusters(embeddings: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Greedy clusters of unit vectors, alike from a cosine of `threshold` on.

    Args:
        embeddings: [n, d], unit length, in order of first appearance.
        threshold: the published one is 0.8.
    Returns:
        The cluster of each row, [n]; and its cosine to the cluster's representative, [n], 1 for the
        representative itself.
    Source: ZicongHe2002/HCL-Spark, similarity.py.
    """
    similarity = np.ones(len(embeddings), dtype=np.float32)

    def alike(representative: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        cosine = embeddings[others] @ embeddings[representative]
        joins = cosine >= threshold
        similarity[others[joins]] = cosine[joins]
        return joins

    clusters, _ = greedy_clusters(len(embeddings), alike)
    return clusters, np.clip(similarity, -1, 1)


def equal_clusters(keys: Sequence[object]) -> NDArray[np.int32]:
    """Clusters of equal keys, [n], 0.. in order of first appearance."""
    number: dict[object, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int32)
