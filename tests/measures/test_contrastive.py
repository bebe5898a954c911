"""InfoNCE and the cosine margin by hand on vectors in the plane, and their laws."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.measures.contrastive import cosine_margin, cosines, info_nce

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def one_group(
    states: list[tuple[float, float]], factual: list[bool]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vectors = torch.tensor(states, dtype=torch.float64)
    return vectors, torch.zeros(len(states), dtype=torch.int64), torch.tensor(factual)


def test_info_nce_by_hand() -> None:
    """Two factual answers to the east, a hallucinated one to the north, temperature 1: -ln(e / (e + 1)) each."""
    found = info_nce(*one_group([EAST, (3.0, 0.0), NORTH], [True, True, False]), temperature=1.0)
    assert found.tolist() == [pytest.approx(math.log(1 + 1 / math.e), rel=1e-12)]


def test_several_positives_stand_inside_the_logarithm() -> None:
    """Anchors east, east and north, one hallucinated west, temperature 1: the east ones have cosines 1 and 0 to their
    own and -1 to it, the north one 0 and 0 and 0. Outside the logarithm the mean would be another."""
    found = info_nce(*one_group([EAST, EAST, NORTH, WEST], [True, True, True, False]), temperature=1.0)
    east = -math.log((math.e + 1) / (math.e + 1 + 1 / math.e))
    north = -math.log(2 / 3)
    assert found.tolist() == [pytest.approx((2 * east + north) / 3, rel=1e-12)]


def test_a_low_temperature_overflows_nothing() -> None:
    """At temperature 1e-4 the wrong way round, cosines 0 to the other and 1 to the hallucinated one: 1 / 1e-4."""
    states, group, factual = one_group([EAST, NORTH, EAST, NORTH], [True, True, False, False])
    assert info_nce(states.float(), group, factual, 1e-4).tolist() == [pytest.approx(1e4, rel=1e-3)]


@pytest.mark.parametrize("factual", [[True, False, False], [True, True, True], [False, False, False]])
def test_without_a_pair_or_a_negative_there_is_no_loss(factual: list[bool]) -> None:
    """One factual answer has no other to be near to; without hallucinated ones there is nothing to be far from. Neither
    has a gradient that is not a number."""
    states, group, right = one_group([EAST, NORTH, WEST], factual)
    states.requires_grad_()
    loss = info_nce(states, group, right)
    loss.sum().backward()
    assert loss.tolist() == [0.0] and states.grad is not None and not states.grad.any()
    assert math.isnan(cosine_margin(states.detach(), group, right)[0])


def test_groups_do_not_see_each_other() -> None:
    """Two questions side by side, their answers mixed, give what each gives alone; layers are one more axis."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 8, 5, generator=generator, dtype=torch.float64)
    group = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    factual = torch.tensor([True, True, True, False, False, True, True, False])
    together = info_nce(states, group, factual)
    assert together.shape == (2, 2)
    for layer in range(2):
        for number in range(2):
            own = group == number
            alone = info_nce(states[layer, own], torch.zeros(4, dtype=torch.int64), factual[own])
            assert together[layer, number] == pytest.approx(float(alone), rel=1e-12)


def test_margin_by_hand() -> None:
    """Cosine 1 between the factual answers; 0 and -1 to the hallucinated ones: 1 - (-1/2)."""
    assert cosine_margin(*one_group([EAST, EAST, NORTH, WEST], [True, True, False, False])).tolist() == [1.5]


def test_a_vector_of_zeros_is_like_nothing() -> None:
    """Its cosine is 0, not NaN."""
    assert cosines(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).tolist() == [[0.0, 0.0], [0.0, 1.0]]


def test_a_temperature_is_above_zero() -> None:
    with pytest.raises(ValueError, match="temperature 0"):
        info_nce(*one_group([EAST, EAST, WEST], [True, True, False]), temperature=0.0)


@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 5), st.floats(0.05, 5.0))
def test_laws(seed: int, n_factual: int, n_wrong: int, temperature: float) -> None:
    """Never negative; the same whatever the order, the lengths of the vectors or a turn of the space; and the gradient
    is that of finite differences."""
    generator = torch.Generator().manual_seed(seed)
    n = n_factual + n_wrong
    states = torch.randn(n, 4, generator=generator, dtype=torch.float64) + 0.1
    group, factual = torch.zeros(n, dtype=torch.int64), torch.arange(n) < n_factual
    loss = info_nce(states, group, factual, temperature)
    assert float(loss) >= 0
    order = torch.randperm(n, generator=generator)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    length = torch.rand(n, 1, generator=generator, dtype=torch.float64) + 0.5
    other = info_nce((states * length @ turn)[order], group, factual[order], temperature)
    torch.testing.assert_close(other, loss)
    assert -2 <= float(cosine_margin(states, group, factual)) <= 2
    leaf = states.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: info_nce(x, group, factual, temperature), (leaf,))
