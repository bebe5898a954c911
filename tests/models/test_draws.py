"""Random numbers with an address, and the law of the tokens drawn with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hcl_cli.models import draws
from hcl_cli.models.draws import Addresses, draw_tokens, philox4x32, question_key

# kat_vectors of Random123 (Salmon et al. 2011): philox4x32, 10 rounds: counter, key, result.
PUBLISHED = (
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
)


def words(text: str) -> tuple[Any, ...]:
    return tuple(np.array([int(word, 16)], dtype=np.uint32) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), PUBLISHED)
def test_philox_gives_the_published_vectors(counter: str, key: str, expected: str) -> None:
    assert [int(word[0]) for word in philox4x32(words(counter), words(key))] == [int(w, 16) for w in expected.split()]


def test_question_key_is_the_head_of_the_sha256() -> None:
    # sha256("abc") begins ba7816bf 8f01cfea
    assert question_key("abc") == (0xBF1678BA, 0xEACF018F)


def addresses_for(n: int, question: str = "q", layer: int = 1, seed: int = 0, first: int = 0) -> Addresses:
    return Addresses(
        key=np.array([question_key(question)] * n, dtype=np.uint32),
        exit_layer=np.full(n, layer, dtype=np.uint32),
        sample=np.arange(first, first + n, dtype=np.uint32),
        seed=seed,
    )


def test_uniforms_fill_the_unit_interval_and_every_part_of_the_address_counts() -> None:
    base = addresses_for(20000)
    every = np.arange(20000)
    u = base.uniforms(every, 0, 0, 1)[:, 0]
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert (u * 2**53 == np.floor(u * 2**53)).all() and 0 <= u.min() and u.max() < 1
    others = {
        "question": addresses_for(20000, question="r").uniforms(every, 0, 0, 1),
        "layer": addresses_for(20000, layer=2).uniforms(every, 0, 0, 1),
        "seed": addresses_for(20000, seed=1).uniforms(every, 0, 0, 1),
        "step": base.uniforms(every, 1, 0, 1),
        "attempt": base.uniforms(every, 0, 1, 1),
        "purpose": base.uniforms(every, 0, 0, 1, purpose=1),
        "sample": addresses_for(20000, first=1).uniforms(every, 0, 0, 1),
    }
    for name, other in others.items():
        assert abs(np.corrcoef(u, other[:, 0])[0, 1]) < 0.03, name
    # Attempts asked for together are those asked for one by one.
    together = base.uniforms(every[:50], 3, 2, 3)
    assert (together == np.hstack([base.uniforms(every[:50], 3, a, 1) for a in (2, 3, 4)])).all()


def test_the_address_is_laid_out_as_written_down() -> None:
    """Sample, step and exit, attempt and purpose, seed; the key is the question's. A change here changes every
    artifact, so `sample`'s version goes up with it."""
    address = addresses_for(1, question="abc", layer=3, seed=9, first=7)
    found = address.uniforms(np.array([0]), step=2, attempt=5, attempts=1, purpose=1)[0, 0]
    first, second, _, _ = philox4x32(words("00000007 00020003 00000501 00000009"), words("bf1678ba eacf018f"))
    assert found == (int(first[0] >> 5) * 2**26 + int(second[0] >> 6)) / 2**53


def plain_draw(logits: np.ndarray, uniforms: Any, temperature: float, top_p: float, top_k: int) -> int:
    """The rule of the engine with a sort, one draw at a time: what `draw_tokens` must agree with.

    Args:
        uniforms: attempt -> number in [0, 1).
    """
    if temperature == 0:
        return int(np.argmax(logits))
    weights = np.exp((logits - logits.max()) * np.float32(1.0 / temperature))
    order = np.argsort(-logits, kind="stable")
    if top_k:
        weights[order[top_k:]] = 0
    by_rank = np.argsort(-weights, kind="stable")
    weights = weights.astype(np.float64)
    mass_before = np.empty(len(weights))
    mass_before[by_rank] = np.concatenate([[0.0], np.cumsum(weights[by_rank])[:-1]])
    cdf = np.cumsum(weights)
    for attempt in range(100_000):
        token = int(np.searchsorted(cdf, uniforms(attempt) * cdf[-1], side="right"))
        if mass_before[token] < top_p * cdf[-1]:
            return token
    raise AssertionError("no attempt was accepted")


@settings(max_examples=40, deadline=None)
@given(
    vocab=st.sampled_from([2, 7, 256, 300, 1024, 9001]),
    spread=st.sampled_from([0.0, 0.3, 2.0, 8.0]),
    temperature=st.sampled_from([0.0, 0.3, 0.6, 1.0, 1.7]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 50]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_fast_draw_gives_the_token_of_the_plain_one(
    vocab: int, spread: float, temperature: float, top_p: float, top_k: int, seed: int
) -> None:
    """Ties included: logits are rounded so that many tokens are exactly as likely as others."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(0, spread, (3, vocab)), 1).astype(np.float32)
    addresses = addresses_for(30, seed=seed)
    row = np.sort(rng.integers(0, 3, 30))
    drawn = draw_tokens(
        torch.from_numpy(logits), row, addresses, np.arange(30), 4, temperature=temperature, top_p=top_p, top_k=top_k
    )
    for i in range(30):
        number = lambda attempt, i=i: float(addresses.uniforms(np.array([i]), 4, attempt, 1)[0, 0])  # noqa: E731
        assert drawn.token[i] == plain_draw(logits[row[i]], number, temperature, top_p, top_k)
    probs = torch.from_numpy(logits).double().softmax(-1).numpy()[row, drawn.token]
    np.testing.assert_allclose(drawn.prob, probs, rtol=1e-5)
    np.testing.assert_allclose(drawn.logprob, np.log(probs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lazy_rounds", [1000, 0])
def test_ties_at_the_edge_of_the_nucleus_go_to_the_lower_token_id(
    monkeypatch: pytest.MonkeyPatch, lazy_rounds: int
) -> None:
    """Four equal tokens and top-p .5: the mass before them is 0, 1/4, 1/2, 3/4, so the first two are inside.

    So by the mass of likelier tokens, and so by the sorted edge of the nucleus.
    """
    monkeypatch.setattr(draws, "LAZY_ROUNDS", lazy_rounds)
    logits = torch.zeros(1, 4)
    drawn = draw_tokens(
        logits,
        np.zeros(400, dtype=np.int64),
        addresses_for(400),
        np.arange(400),
        0,
        temperature=1.0,
        top_p=0.5,
        top_k=0,
    )
    assert np.bincount(drawn.token, minlength=4)[2:].tolist() == [0, 0]
    assert stats.binomtest(int((drawn.token == 0).sum()), 400).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 5e-324])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vanishing_temperature_takes_the_likeliest(temperature: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 1.5, 1.25, -float("inf")], [2.0, 1.0, 0.0, 1.0]], dtype=dtype)
    row = np.repeat([0, 1], 20)
    drawn = draw_tokens(logits, row, addresses_for(40), np.arange(40), 0, temperature=temperature, top_p=0.9, top_k=0)
    assert drawn.token.tolist() == [1] * 20 + [0] * 20


@pytest.mark.parametrize("vocab", [1024, 9216])
def test_a_token_without_weight_is_never_the_candidate(vocab: int) -> None:
    """Uniform 0 and a uniform exactly at the edge of a token, inside a block and between blocks."""
    weights = torch.zeros(1, vocab)
    weights[0, [3, 7, 300, 800]] = 0.25
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    found = draws.Candidates(weights).token(torch.zeros(5, dtype=torch.int64), uniform)
    assert found.tolist() == [3, 7, 300, 800, 800]


def test_a_tiny_top_p_on_a_flat_distribution_takes_the_likeliest() -> None:
    logits = torch.zeros(2, 1000)
    logits[:, 37] = 0.01
    drawn = draw_tokens(
        logits, np.array([0, 1]), addresses_for(2), np.arange(2), 0, temperature=1.0, top_p=1e-9, top_k=0
    )
    assert drawn.token.tolist() == [37, 37]
