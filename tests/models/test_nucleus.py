"""Written-out nucleus distributions: by hand, and the law that `draw_tokens` draws from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.models.draws import Addresses, draw_tokens
from hcl_cli.models.nucleus import drawn_from, nucleus_probs


def of(probs: list[float]) -> torch.Tensor:
    return torch.tensor([probs], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"temperature": 1.0}, [0.5, 0.25, 0.25]),
        ({"temperature": 0.5}, [4 / 6, 1 / 6, 1 / 6]),  # squares: .25, .0625, .0625
        ({"temperature": 1.0, "top_p": 0.5}, [1.0, 0.0, 0.0]),  # the first alone has the mass
        ({"temperature": 1.0, "top_p": 0.6}, [2 / 3, 1 / 3, 0.0]),  # of equals the lower id comes first
        ({"temperature": 1.0, "top_p": 0.76}, [0.5, 0.25, 0.25]),
        ({"temperature": 1.0, "top_k": 2}, [2 / 3, 1 / 3, 0.0]),
        ({"temperature": 0.0}, [1.0, 0.0, 0.0]),
    ],
)
def test_by_hand(options: dict[str, float], expected: list[float]) -> None:
    found = nucleus_probs(of([0.5, 0.25, 0.25]), **{"top_p": 1.0, "top_k": 0, **options})
    assert found[0].tolist() == pytest.approx(expected)


def test_greedy_takes_the_lowest_of_equal_tokens() -> None:
    assert nucleus_probs(of([0.2, 0.4, 0.4]), temperature=0.0, top_p=1.0, top_k=0).tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    "options", [{"top_p": 0.9, "top_k": 0}, {"top_p": 0.7, "top_k": 30}, {"top_p": 1.0, "top_k": 5}]
)
def test_it_is_what_tokens_are_drawn_from(options: dict[str, float]) -> None:
    """300,000 draws against the written-out distribution: total variation within what chance gives."""
    logits = torch.randn(1, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    n = 300_000
    streams = np.arange(n)
    addresses = Addresses(np.zeros((n, 2), np.uint32), np.ones(n, np.uint32), streams.astype(np.uint32), 0)
    drawn = draw_tokens(logits, np.zeros(n, np.int64), addresses, streams, 0, temperature=0.8, **options)
    probs = nucleus_probs(logits, temperature=0.8, **options)[0].numpy()
    counts = np.bincount(drawn.token, minlength=600)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(probs))
    seen = probs > 0
    chi_square = ((counts - n * probs)[seen] ** 2 / (n * probs)[seen]).sum()
    freedom = seen.sum() - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 1e-9]), min_size=2, max_size=9), st.floats(0, 1, exclude_max=True))
def test_a_drawn_token_has_weight(weights: list[float], uniform: float) -> None:
    if not any(weights):
        weights[0] = 1.0
    token = int(drawn_from(torch.tensor([weights], dtype=torch.float64), torch.tensor([uniform], dtype=torch.float64)))
    assert weights[token] > 0
    assert sum(weights[:token]) <= uniform * sum(weights) + 1e-12


def test_the_inverse_cdf_by_hand() -> None:
    probs = torch.tensor([[0.25, 0.0, 0.75]] * 4, dtype=torch.float64)
    at = torch.tensor([0.0, 0.2499, 0.25, 0.9999], dtype=torch.float64)
    assert drawn_from(probs, at).tolist() == [0, 0, 2, 2]
