"""Greedy clusters against a plain re-statement of the published rule."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from hcl_cli.measures.clusters import (
    RULES,
    asking,
    cosine_clusters,
    equal_clusters,
    greedy_clusters,
    members_of,
    told,
)

# Directions on a small grid: their cosines are k / sqrt(m), never near one of the thresholds, so that rounding
# cannot decide a comparison.
GRID = np.array([v for v in itertools.product((-1, 0, 1), repeat=3) if any(v)], dtype=np.float64)
GRID /= np.linalg.norm(GRID, axis=1, keepdims=True)
THRESHOLDS = (-0.9, 0.3, 0.6, 0.8, 0.9)


def published_rule(vectors: NDArray[np.float64], threshold: float) -> tuple[list[int], list[float]]:
    """One item after another: join the first representative that is close enough, else become one."""
    representatives: list[int] = []
    clusters, similarity = [], []
    for index, vector in enumerate(vectors):
        for number, representative in enumerate(representatives):
            cosine = float(vector @ vectors[representative])
            if cosine >= threshold:
                clusters.append(number)
                similarity.append(cosine)
                break
        else:
            clusters.append(len(representatives))
            similarity.append(1.0)
            representatives.append(index)
    return clusters, similarity


@settings(deadline=None)
@given(st.lists(st.integers(0, len(GRID) - 1), max_size=25), st.sampled_from(THRESHOLDS))
def test_equals_the_published_rule(picks: list[int], threshold: float) -> None:
    vectors = GRID[picks].reshape(-1, 3)
    clusters, similarity = cosine_clusters(vectors.astype(np.float32), threshold)
    expected, cosines = published_rule(vectors, threshold)
    assert clusters.tolist() == expected
    np.testing.assert_allclose(similarity, cosines, atol=1e-6)


def at_degrees(*degrees: float) -> NDArray[np.float32]:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_order_decides() -> None:
    """cos 30 = .87 joins, cos 60 = .5 does not: the middle one as first member holds all three together."""
    assert cosine_clusters(at_degrees(0, 30, 60), 0.8)[0].tolist() == [0, 0, 1]
    assert cosine_clusters(at_degrees(30, 0, 60), 0.8)[0].tolist() == [0, 0, 0]
    # 30 is as close to both representatives and joins the one that came first.
    assert cosine_clusters(at_degrees(60, 0, 30), 0.8)[0].tolist() == [0, 1, 0]


def test_similarity_is_to_the_first_member() -> None:
    clusters, similarity = cosine_clusters(at_degrees(0, 30, 60, 90), 0.8)
    assert clusters.tolist() == [0, 0, 1, 1]
    assert similarity == pytest.approx([1, 0.8660254, 1, 0.8660254], abs=1e-6)


def test_no_items_no_clusters() -> None:
    clusters, similarity = cosine_clusters(np.zeros((0, 3), dtype=np.float32), 0.8)
    assert clusters.shape == similarity.shape == (0,)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_equal_keys_are_the_greedy_clusters_of_equality(keys: list[str]) -> None:
    array = np.array(keys)
    greedy, first = greedy_clusters(len(keys), lambda one, others: array[others] == array[one])
    assert equal_clusters(keys).tolist() == greedy.tolist()
    assert first.tolist() == [keys.index(key) for key in dict.fromkeys(keys)]


# --- rules that do not depend on the order ---


def partition(clusters: NDArray[np.int32], items: list[int]) -> set[frozenset[int]]:
    return {
        frozenset(item for item, cluster in zip(items, clusters, strict=True) if cluster == one) for one in clusters
    }


@pytest.mark.parametrize(
    ("degrees", "greedy", "components", "complete"),
    [
        ((0, 30, 60), [0, 0, 1], [0, 0, 0], [0, 0, 1]),
        ((30, 0, 60), [0, 0, 0], [0, 0, 0], [0, 0, 1]),
        # 0 and 10 are nearest and are joined first; 40 is too far from 0 and keeps to itself under `complete`.
        ((40, 10, 0), [0, 0, 1], [0, 0, 0], [0, 1, 1]),
        ((0, 120, 240), [0, 1, 2], [0, 1, 2], [0, 1, 2]),
    ],
)
def test_rules_by_hand(degrees, greedy, components, complete) -> None:  # type: ignore[no-untyped-def]
    vectors = at_degrees(*degrees)
    # Alike from cos 30 = .866 on. Of equally good joins `complete` makes the first in the order of the angles.
    order = np.argsort(degrees).tolist()
    for rule, expected in (("greedy", greedy), ("components", components), ("complete", complete)):
        found, similarity = cosine_clusters(vectors, 0.86, rule, order=order)
        assert found.tolist() == expected, rule
        firsts = [int(np.flatnonzero(found == cluster)[0]) for cluster in found]
        np.testing.assert_allclose(similarity, (vectors * vectors[firsts]).sum(1), atol=1e-6)


@given(st.lists(st.integers(0, len(GRID) - 1), max_size=14, unique=True), st.sampled_from(THRESHOLDS), st.randoms())
def test_components_and_complete_do_not_depend_on_the_order(picks, threshold, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(picks)
    random.shuffle(shuffled)
    for rule in ("components", "complete"):
        found = []
        for items in (picks, shuffled):
            vectors = GRID[items].reshape(-1, 3).astype(np.float32)
            clusters, _ = cosine_clusters(vectors, threshold, rule, order=np.argsort(items).tolist())
            found.append(partition(clusters, items))
            assert clusters.tolist() == equal_clusters(clusters.tolist()).tolist()  # numbered by first appearance
        assert found[0] == found[1]


Relation = dict[tuple[int, int], float]


@st.composite
def relations(draw: st.DrawFn) -> tuple[int, NDArray[np.float64]]:
    """A symmetric relation that need not be transitive: strengths, -inf where items are not alike."""
    n = draw(st.integers(0, 9))
    strengths = np.full((n, n), -np.inf)
    for one, other in itertools.combinations(range(n), 2):
        value = draw(st.sampled_from((-np.inf, -np.inf, 0.2, 0.5, 0.9)))
        strengths[one, other] = strengths[other, one] = value
    return n, strengths


@given(relations())
def test_rules_against_plain_restatements_and_what_they_need_not_ask(given_) -> None:  # type: ignore[no-untyped-def]
    n, strengths = given_
    asked: dict[str, set[tuple[int, int]]] = {}

    def run(rule: str) -> list[int]:
        pairs_of: set[tuple[int, int]] = set()

        def strength(pairs: NDArray[np.int64]) -> NDArray[np.float64]:
            met = {tuple(sorted(pair)) for pair in pairs.tolist()}
            assert len(met) == len(pairs) and not met & pairs_of  # nothing is asked twice
            pairs_of.update(met)
            return strengths[pairs[:, 0], pairs[:, 1]]

        found = told(asking(rule, n), strength).tolist()
        asked[rule] = pairs_of
        return found

    alike = strengths > -np.inf
    representatives: list[int] = []
    expected = []
    for item in range(n):
        fitting = [at for at, one in enumerate(representatives) if alike[one, item]]
        if not fitting:
            representatives.append(item)
        expected.append(fitting[0] if fitting else len(representatives) - 1)
    assert run("greedy") == expected

    last: list[int] = [-1] * n
    for item in range(n):
        if last[item] < 0:
            last[item] = number = max(last, default=-1) + 1
            for other in range(item + 1, n):
                last[other] = number if alike[item, other] else last[other]
    assert run("greedy-last") == last

    _, connected = connected_components(alike, directed=False) if n else (0, np.array([], dtype=int))
    assert run("components") == equal_clusters(connected.tolist()).tolist()

    clusters = run("complete")
    for members in members_of(np.array(clusters, dtype=np.int32)):
        assert all(alike[one, other] for one, other in itertools.combinations(members, 2))
    for one, other in itertools.combinations(members_of(np.array(clusters, dtype=np.int32)), 2):
        assert not alike[np.ix_(one, other)].all()  # no two of them could still be joined
    n_pairs = n * (n - 1) // 2
    assert len(asked["complete"]) == n_pairs
    if n > 2 and alike.sum() == n * (n - 1):  # all alike: one question each is enough
        assert len(asked["greedy"]) == len(asked["components"]) == n - 1


def test_items_with_different_keys_are_never_alike() -> None:
    vectors = at_degrees(0, 1, 2)
    for rule in RULES:
        assert cosine_clusters(vectors, 0.8, rule)[0].tolist() == [0, 0, 0]
        assert cosine_clusters(vectors, 0.8, rule, apart=["1912", "1913", "1912"])[0].tolist() == [0, 1, 0]
