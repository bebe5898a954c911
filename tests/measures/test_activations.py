"""Statistics of activation vectors: by hand, and against numpy over everything at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.measures.activations import (
    Epsilon,
    cosines,
    parse_epsilon,
    pieces,
    published_mean,
    published_statistics,
    span_distances,
    text_means,
    token_mean,
    token_statistics,
)


def test_one_token_by_hand() -> None:
    """(3, -1, 0, 2): mean 1, variance (4 + 4 + 1 + 1) / 4 = 2.5, L1 6, L2 sqrt 14, RMS sqrt 3.5 = 1.87."""
    vector = torch.tensor([[3.0, -1.0, 0.0, 2.0]])
    found = token_statistics(vector, Epsilon(1.5))
    assert found.variance.item() == pytest.approx(2.5, rel=1e-6)
    assert found.sparsity.item() == 0.5
    assert found.l1_norm.item() == 6.0
    assert found.l2_norm.item() == pytest.approx(14**0.5, rel=1e-6)
    assert token_statistics(vector, Epsilon(1.0)).sparsity.item() == 0.25  # a bound is not below itself
    assert token_statistics(vector, Epsilon(0.5, relative=True)).sparsity.item() == 0.25  # below 0.935
    assert token_statistics(vector, Epsilon(1.5, relative=True)).sparsity.item() == 0.75  # below 2.81
    assert vector.tolist() == [[3.0, -1.0, 0.0, 2.0]]


def test_a_vector_of_zeros_is_sparse_under_any_bound() -> None:
    """A block that adds nothing: no share of its root mean square, 0, is above 0, yet all of it is zero."""
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    for epsilon in (Epsilon(0.01, relative=True), Epsilon(1e-30)):
        assert token_statistics(vectors, epsilon).sparsity.tolist() == [1.0, 0.0]


def test_a_large_mean_costs_no_digits() -> None:
    """Mean 1,000 and variance 1: as mean square less squared mean it would be off by percents in float32."""
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(50, 768)) + 1e3).astype(np.float32)
    found = token_statistics(torch.from_numpy(vectors), Epsilon(1e-5)).variance.numpy()
    np.testing.assert_allclose(found, vectors.astype(np.float64).var(axis=1), rtol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 100.0), st.integers(0, 2**32 - 1))
def test_a_relative_bound_does_not_see_the_scale(n: int, width: int, scale: float, seed: int) -> None:
    """Sparsity stays, variance grows with the square, norms with the scale; shares lie in [0, 1]."""
    vectors = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, width)))
    one, other = (token_statistics(vectors * factor, Epsilon(0.3, relative=True)) for factor in (1.0, scale))
    np.testing.assert_array_equal(one.sparsity, other.sparsity)
    assert 0 <= float(one.sparsity.min()) and float(one.sparsity.max()) <= 1
    np.testing.assert_allclose(other.variance, one.variance * scale**2, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other.l1_norm, one.l1_norm * scale, rtol=1e-12)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_sums_are_the_two_pass_means(lengths: list[int], columns: int, seed: int) -> None:
    """Means of texts, and over all tokens, are numpy's over everything at once."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), columns))
    n_tokens = np.array(lengths)
    found = text_means(values, n_tokens)
    expected = [part.mean(axis=0) for part in np.split(values, np.cumsum(lengths)[:-1])]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(token_mean(found, n_tokens), values.mean(axis=0), rtol=1e-12, atol=1e-14)


def test_a_text_without_a_value_is_left_out_of_the_mean() -> None:
    assert token_mean(np.array([[1.0, np.nan], [4.0, np.nan]]), [3, 1]).tolist() == pytest.approx(
        [1.75, np.nan], nan_ok=True
    )
    assert token_mean(np.array([[1.0], [np.nan]]), [3, 1]).tolist() == [1.0]


def test_a_cosine_is_one_at_most() -> None:
    """Rounding made the influence of a block that does nothing negative, and its share of the scores undefined."""
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 48)).astype(np.float32))
    norms = torch.linalg.vector_norm(vectors, dim=-1)
    found = cosines(vectors, vectors, norms, norms)
    assert 1 - 1e-6 < float(found.min()) and float(found.max()) <= 1.0
    assert float(((vectors * vectors).sum(-1) / (norms * norms)).max()) > 1.0  # as it was
    assert torch.isnan(cosines(0 * vectors, vectors, 0 * norms, norms)).all()


def test_the_published_statistics_by_hand() -> None:
    """One text, two positions (1, 0) and (3, 0): their mean (2, 0) has the unbiased variance 2; half is sparse."""
    variance, sparsity = published_statistics(torch.tensor([[[1.0, 0.0], [3.0, 9e-6]]]))
    assert variance.item() == pytest.approx(2.0, rel=1e-5)
    assert sparsity.item() == 0.5


def test_the_published_mean_is_of_batches() -> None:
    """Nine texts: eight 0 and one 1 are the batches 0 and 1, so their mean is 1/2 and not 1/9."""
    assert published_mean(np.array([[0.0]] * 8 + [[1.0]])).tolist() == [0.5]


def test_spans_by_hand() -> None:
    """East, north-east, north, and back east: an eighth, a quarter, then none; a zero state has no direction."""
    east = [1.0, 0.0]
    states = torch.tensor([[east, [1.0, 1.0], [0.0, 2.0], [3.0, 0.0]], [east, [0.0, 0.0], east, east]])
    found = span_distances(states)
    nan = np.nan
    expected = [[0.25, 0.5, 0.0], [0.25, 0.25, nan], [0.5, nan, nan]]
    np.testing.assert_allclose(found[0], expected, atol=1e-7)
    np.testing.assert_allclose(found[1], [[nan, 0.0, 0.0], [nan, nan, nan], [0.0, nan, nan]], atol=1e-7)


def test_a_bound_is_read_and_refused() -> None:
    assert parse_epsilon("1e-5") == Epsilon(1e-5)
    assert parse_epsilon("0.01rms") == parse_epsilon("0.01 * RMS") == Epsilon(0.01, relative=True)
    for text in ("0", "-1", "nan", "inf", "rms", "1e-5 rms2", ""):
        with pytest.raises(ValueError, match=r"--epsilon .*expected a number above 0") as caught:
            parse_epsilon(text)
        assert "\n" not in str(caught.value)


def test_pieces_cover_every_row_once() -> None:
    rows = [index for piece in pieces(1000, 3072, True) for index in range(1000)[piece]]
    assert rows == list(range(1000))
    assert list(pieces(1000, 3072, False)) == [slice(0, 1000)]
    assert list(pieces(2, 1 << 30, True)) == [slice(0, 1), slice(1, 2)]
