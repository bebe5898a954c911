"""Contrast of two layers: by hand, against scipy, at the limits of alpha, and where the published divergence errs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.nn.functional import kl_div
from transformers import RepetitionPenaltyLogitsProcessor

from hcl_cli.measures.contrast import contrasted, layer_divergence, penalised, plausible, published_divergence
from hcl_cli.measures.information import js_divergence


def log(*probs: float) -> torch.Tensor:
    return torch.tensor([probs], dtype=torch.float64).log()


def of(mature: torch.Tensor, premature: torch.Tensor, kind: str) -> float:
    return float(layer_divergence(mature, premature, kind)[..., 0])


def test_jsd_by_hand() -> None:
    """p = (1, 0), q = (1/2, 1/2): m = (3/4, 1/4), JSD = (ln 4/3 + (ln 2/3 + ln 2) / 2) / 2; disjoint ones ln 2."""
    expected = (math.log(4 / 3) + (math.log(2 / 3) + math.log(2)) / 2) / 2
    assert of(log(1, 0), log(0.5, 0.5), "jsd") == pytest.approx(expected, abs=1e-15)
    assert of(log(1, 0, 0), log(0, 0.5, 0.5), "jsd") == pytest.approx(math.log(2), abs=1e-15)
    assert of(log(0.2, 0.8), log(0.2, 0.8), "jsd") == pytest.approx(0.0, abs=1e-15)


def test_the_published_divergence_by_hand() -> None:
    """p = (3/4, 1/4), q = (1/4, 3/4): m = (1/2, 1/2); KL(m, p) = KL(m, q) = ln(2/3)/2 + ln(2)/2 = ln(4/3)/2."""
    expected = math.log(4 / 3) / 2
    assert of(log(0.75, 0.25), log(0.25, 0.75), "published") == pytest.approx(expected, abs=1e-15)
    assert float(published_divergence(log(0.75, 0.25).exp(), log(0.25, 0.75).exp())) == pytest.approx(expected)
    assert float(published_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))) == math.inf


@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0.1, 12.0))
def test_divergences_against_scipy_and_the_reference_code(seed: int, n: int, spread: float) -> None:
    """The reference's own lines, (kl_div(log q, m) + kl_div(log p, m)) / 2, are the published divergence over n."""
    logits = torch.randn(4, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * spread
    mature, premature = logits[0].log_softmax(-1), logits[1:].log_softmax(-1)
    p, q = mature.exp(), premature.exp()
    jsd = layer_divergence(mature, premature, "jsd")
    assert jsd.shape == (3, 3)
    scipy = np.array([[jensenshannon(p[r], q[c, r]) ** 2 for r in range(3)] for c in range(3)])
    np.testing.assert_allclose(jsd, np.nan_to_num(scipy), atol=1e-13)
    np.testing.assert_allclose(jsd, js_divergence(p, q), atol=1e-13)
    middle = 0.5 * (p + q)
    reference = 0.5 * (
        kl_div(premature, middle, reduction="none").mean(-1)
        + kl_div(mature.expand_as(premature), middle.expand_as(premature), reduction="none").mean(-1)
    )
    published = layer_divergence(mature, premature, "published")
    np.testing.assert_allclose(published, reference * n, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(published, published_divergence(p, q), rtol=1e-9, atol=1e-12)
    single = layer_divergence(mature.float(), premature.float(), "jsd")
    np.testing.assert_allclose(single, jsd, atol=3e-6)
    with pytest.raises(ValueError, match="expected jsd or published"):
        layer_divergence(mature, premature, "kl")


def test_a_pair_of_layers_that_the_published_divergence_orders_the_other_way() -> None:
    """Layer a moves half of the mass to another token; layer b moves a little, but makes one token all but impossible.

    Jensen-Shannon: 0.120 for a, 0.029 for b. Published: 0.145 for a, 0.429 for b: KL(m, q) has ln (0.04 / 1e-11).
    """
    mature = log(0.84, 0.08, 0.08)
    away, never = log(0.42, 0.50, 0.08), log(0.92 - 2e-11, 0.08 + 1e-11, 1e-11)
    found = {kind: (of(mature, away, kind), of(mature, never, kind)) for kind in ("jsd", "published")}
    assert found["jsd"][0] > found["jsd"][1]
    assert found["published"][0] < found["published"][1]


def test_nothing_possible_and_nothing_finite() -> None:
    """Tokens that both layers forbid add nothing; what is no number is not taken for 0."""
    assert of(log(0.5, 0.5, 0), log(0.5, 0.5, 0), "jsd") == pytest.approx(0.0, abs=1e-15)
    assert of(log(0.5, 0.5, 0), log(0.25, 0.75, 0), "published") == pytest.approx(
        of(log(0.5, 0.5), log(0.25, 0.75), "published")
    )
    far = torch.tensor([[0.0, -200.0]])  # e^-200 is 0 in float32
    assert of(far, far.flip(-1), "jsd") == pytest.approx(math.log(2), rel=1e-6)
    assert math.isnan(of(log(0.5, 0.5), torch.tensor([[math.nan, 0.0]]).double(), "jsd"))


def test_the_contrast_on_three_tokens_by_hand() -> None:
    """q_N = (0.6, 0.35, 0.05), q_M = (0.8, 0.1, 0.1), alpha 0.1: 0.05 < 0.06 leaves. F = ln 3/4, ln 7/2, -inf.

    Softmax: weights 0.75 and 3.5, so 3/17 and 14/17: the second token wins, which the last layer alone would not say.
    """
    mature, premature = log(0.6, 0.35, 0.05), log(0.8, 0.1, 0.1)
    mask = plausible(mature, 0.1)
    assert mask.tolist() == [[True, True, False]]
    scores = contrasted(mature, premature, mask)
    np.testing.assert_allclose(scores, [[math.log(0.75), math.log(3.5), -math.inf]], rtol=1e-14)
    np.testing.assert_allclose(scores.softmax(-1), [[3 / 17, 14 / 17, 0.0]], rtol=1e-14)
    every = contrasted(mature, premature)
    np.testing.assert_allclose(every, [[math.log(0.75), math.log(3.5), math.log(0.5)]], rtol=1e-14)


def test_alpha_towards_0_keeps_all_tokens_and_alpha_1_the_likeliest() -> None:
    mature, premature = log(0.6, 0.39, 0.01, 0.0), log(0.97, 0.02, 0.005, 0.005)
    assert plausible(mature, 0.0).tolist() == [[True, True, True, True]]
    assert plausible(mature, 1e-9).tolist() == [[True, True, True, False]]
    assert plausible(mature, 1.0).tolist() == [[True, False, False, False]]
    assert plausible(log(0.4, 0.4, 0.2), 1.0).tolist() == [[True, True, False]]
    # A token that the last layer forbids stays out at alpha 0 as well.
    np.testing.assert_allclose(
        contrasted(mature, premature, plausible(mature, 0.0)),
        [[math.log(0.6 / 0.97), math.log(19.5), math.log(2), -math.inf]],
    )
    assert contrasted(mature, premature, plausible(mature, 1.0)).softmax(-1).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected 0..1"):
            plausible(mature, alpha)


def test_the_penalty_is_the_librarys() -> None:
    """-inf stays, 0 stays (so a certain token's log-probability is not touched), repeats count once."""
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(5, 30, generator=generator)
    seen = torch.randint(0, 30, (5, 12), generator=generator)
    scores[0, seen[0, 0]] = -math.inf
    before = scores.clone()
    expected = RepetitionPenaltyLogitsProcessor(1.2)(seen, scores.clone())
    assert torch.equal(penalised(scores, seen, 1.2), expected)
    assert torch.equal(scores, before)
    found = penalised(log(1.0, 0.5, 0.25), torch.tensor([[0, 1, 1]]), 2.0)
    np.testing.assert_allclose(found, [[0.0, 2 * math.log(0.5), math.log(0.25)]])
