"""Semantic clusters from a similarity or an entailment relation, under three rules.

A rule asks for the pairs that it needs and is told how alike they are; what answers may be a matrix of cosines or a
model that is asked in rounds for many sets of items at once (`stages.nli_clusters`).

- `greedy`: by first members, an item stays in the first cluster that takes it, as published for creativity; the result
  depends on the order of the items.
- `greedy-last`: the same, but a later cluster takes over what is alike to its first member, as the code published for
  semantic entropy does.
- `components`: connected components of the relation (single linkage).
- `complete`: complete linkage: all members of a cluster are alike. This and `components` do not depend on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

RULES = ("greedy", "greedy-last", "components", "complete")

Clusters = NDArray[np.int32]
Pairs = NDArray[np.int64]  # [k, 2], indices of two items each
Strengths = NDArray[np.floating[Any]]  # [k], at most 1, larger for items that are more alike; -inf where they are not
Asking = Generator[Pairs, Strengths, Clusters]
Alike = Callable[[int, NDArray[np.int64]], NDArray[np.bool_]]

_APART = 4.0  # distance of what is not alike: above any distance of what is


def greedy(n_items: int) -> Asking:
    """Clusters of items 0..n-1, taken in that order, by their first members.

    An item joins the first cluster, in order of creation, whose representative it is alike; else it becomes the
    representative of a new one. Representatives never change, and two members of one cluster need not be alike: the
    result depends on the order of the items.

    It is computed cluster by cluster, which gives the same: the first item left over is the next representative, and
    it takes every later item that is left over and alike. So an item that has a cluster is never asked about again.

    Source: ZicongHe2002/HCL-Spark, similarity.py.
    """
    clusters = np.empty(n_items, dtype=np.int32)
    left = np.arange(n_items, dtype=np.int64)
    number = 0
    while left.size:
        representative, others = left[0], left[1:]
        joins = (yield _with(representative, others)) > -np.inf if others.size else np.zeros(0, dtype=np.bool_)
        clusters[representative] = clusters[others[joins]] = number
        number += 1
        left = others[~joins]
    return clusters


def greedy_last(n_items: int) -> Asking:
    """Clusters by their first members, of which a later one takes over what is alike to it.

    The next item without a cluster opens one and collects every later item that is alike to it, also such as have a
    cluster already: of several first members an item ends with the last.

    Source: jlko/semantic_uncertainty, get_semantic_ids (Farquhar et al. 2024).
    """
    clusters = np.full(n_items, -1, dtype=np.int32)
    number = 0
    for representative in range(n_items):
        if clusters[representative] >= 0:
            continue
        clusters[representative] = number
        others = np.arange(representative + 1, n_items, dtype=np.int64)
        if others.size:
            joins = (yield _with(np.int64(representative), others)) > -np.inf
            clusters[others[joins]] = number
        number += 1
    return clusters


def components(n_items: int) -> Asking:
    """Connected components of the relation: two items are together if a chain of alike items leads from one to the
    other.

    Pairs inside what is already connected are not asked: they cannot change the result.
    """
    clusters = np.empty(n_items, dtype=np.int32)
    left = np.arange(n_items, dtype=np.int64)
    number = 0
    while left.size:
        reached, left = [left[0]], left[1:]
        clusters[reached[0]] = number
        while reached and left.size:
            joins = (yield _with(reached.pop(), left)) > -np.inf
            clusters[left[joins]] = number
            reached += list(left[joins])
            left = left[~joins]
        number += 1
    return clusters


def complete(n_items: int, order: Sequence[int] | None = None) -> Asking:
    """Complete linkage: the two clusters whose least alike members are most alike are joined, as long as all members
    of both are alike.

    Args:
        order: the items in an order that their content decides. Of equally good joins the first in it is made, so
            that the result does not depend on the order in which items were met.
    Source: the linkage, Sørensen 1948; for a relation that is alike or not, with strengths, ours.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if n_items < 2:
        return np.zeros(n_items, dtype=np.int32)
    ranked = np.arange(n_items) if order is None else np.asarray(order)
    one, other = np.triu_indices(n_items, 1)  # the order in which scipy reads distances
    strengths = yield np.stack([ranked[one], ranked[other]], axis=1)
    distance = np.where(strengths > -np.inf, 1.0 - strengths, _APART)
    # Cut between what is alike (a cosine of -1 is at 2) and what is not.
    found = np.empty(n_items, dtype=np.int64)
    found[ranked] = fcluster(linkage(distance, "complete"), (2.0 + _APART) / 2, "distance")
    return equal_clusters(found.tolist())


def asking(rule: str, n_items: int, order: Sequence[int] | None = None) -> Asking:
    """The rule of that name, ready to ask."""
    if rule == "complete":
        return complete(n_items, order)
    return {"greedy": greedy, "greedy-last": greedy_last, "components": components}[rule](n_items)


def told(asked: Asking, strengths: Callable[[Pairs], Strengths]) -> Clusters:
    """Run a rule to its end, every question answered by `strengths`.

    Returns:
        the cluster of each item, [n], 0.. in order of first appearance.
    """
    try:
        pairs = next(asked)
        while True:
            pairs = asked.send(strengths(pairs))
    except StopIteration as done:
        clusters: Clusters = done.value
        return clusters


def _with(one: np.int64, others: NDArray[np.int64]) -> Pairs:
    return np.stack([np.full(len(others), one), others], axis=1)


def greedy_clusters(n_items: int, alike: Alike) -> tuple[Clusters, NDArray[np.int64]]:
    """Greedy clusters under a plain relation.

    Args:
        n_items: how many items there are.
        alike: `alike(representative, others)` says for each of `others` (indices, ascending, all larger than
            `representative`) whether it is alike.
    Returns:
        The cluster of each item, [n], 0.. in order of first appearance; and each cluster's representative,
        [clusters], ascending.
    """

    def strengths(pairs: Pairs) -> Strengths:
        return np.where(alike(int(pairs[0, 0]), pairs[:, 1]), 1.0, -np.inf)

    clusters = told(greedy(n_items), strengths)
    return clusters, np.unique(clusters, return_index=True)[1].astype(np.int64)


def cosine_clusters(
    embeddings: NDArray[np.float32],
    threshold: float,
    rule: str = "greedy",
    *,
    apart: Sequence[object] | None = None,
    order: Sequence[int] | None = None,
) -> tuple[Clusters, NDArray[np.float32]]:
    """Clusters of unit vectors, alike from a cosine of `threshold` on.

    Args:
        embeddings: [n, d], unit length, in order of first appearance.
        threshold: the published one is 0.8.
        rule: one of RULES.
        apart: a key of each item; items with different keys are never alike.
        order: see `complete`.
    Returns:
        The cluster of each row, [n]; and its cosine to the cluster's first row, [n], 1 for that row itself.
    Source: ZicongHe2002/HCL-Spark, similarity.py (greedy, without keys).
    """
    keys = None if apart is None else equal_clusters(apart)

    def strengths(pairs: Pairs) -> Strengths:
        one, others = pairs[0, 0], pairs[:, 1]
        if rule != "complete":  # of one item against others
            cosine = embeddings[others] @ embeddings[one]
        else:
            cosine = np.einsum("pd,pd->p", embeddings[pairs[:, 0]], embeddings[others])
        alike = cosine >= threshold
        if keys is not None:
            alike &= keys[pairs[:, 0]] == keys[others]
        if rule == "greedy":  # what joins is told once, by its first member
            similarity[others[alike]] = cosine[alike]
        return np.where(alike, np.minimum(cosine, 1.0), -np.inf)

    similarity = np.ones(len(embeddings), dtype=np.float32)
    clusters = told(asking(rule, len(embeddings), order), strengths)
    if rule != "greedy":
        for members in members_of(clusters):
            similarity[members[1:]] = embeddings[members[1:]] @ embeddings[members[0]]
    return clusters, np.clip(similarity, -1, 1)


def members_of(clusters: Clusters) -> list[NDArray[np.int64]]:
    """The items of each cluster, in rising order, cluster by cluster."""
    if not len(clusters):
        return []
    by_cluster = np.argsort(clusters, kind="stable")
    return np.split(by_cluster, np.flatnonzero(np.diff(clusters[by_cluster])) + 1)


def equal_clusters(keys: Sequence[object]) -> Clusters:
    """Clusters of equal keys, [n], 0.. in order of first appearance."""
    number: dict[object, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int32)
