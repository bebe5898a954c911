"""Greedy clusters against a plain re-statement of the published rule."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hcl_cli.measures.clusters import cosine_clusters, equal_clusters, greedy_clusters

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
