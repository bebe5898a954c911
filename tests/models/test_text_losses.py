"""Losses of given texts: the library's own loss, whatever the batch and the padding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytest import approx

from hcl_cli.models.exits import exit_at
from hcl_cli.models.load import loaded_from
from hcl_cli.models.text_losses import token_losses

Tiny = Callable[..., Any]
TEXTS = [
    [5, 9, 12, 7, 33, 80, 4, 4, 90, 21, 17, 60],
    [5, 61],
    [200, 7, 33, 80, 91, 100, 3],
    [5, 9, 12, 7, 33, 80, 4, 4, 90, 21, 17, 61],
]


def plain(model: Any, ids: list[int]) -> float:
    """Mean loss as the library computes it from labels."""
    with torch.inference_mode():
        return float(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss)


def test_the_librarys_own_loss(tiny_model: Tiny) -> None:
    for family in ("llama", "gemma2", "gpt2", "cohere", "granite", "falcon"):
        loaded = tiny_model(family)
        found = token_losses(loaded, TEXTS)
        for ids, losses in zip(TEXTS, found, strict=True):
            assert -losses.logprob.mean() == approx(plain(loaded.model, ids), abs=2e-4), family
            with torch.inference_mode():
                likeliest = loaded.model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(-1)
            assert losses.is_top.tolist() == (likeliest == torch.tensor(ids[1:])).tolist(), family


def test_batches_order_and_where_measuring_begins_change_nothing(tiny_model: Tiny) -> None:
    loaded = tiny_model("qwen2", dtype="float64")
    whole = token_losses(loaded, TEXTS)
    for budget in (1, 24):
        again = token_losses(loaded, TEXTS[::-1], batch_tokens=budget)[::-1]
        assert all(np.allclose(a.logprob, b.logprob, atol=1e-12) for a, b in zip(whole, again, strict=True))
    later = token_losses(loaded, TEXTS, [8, 1, 3, 11])
    for first, a, b in zip((8, 1, 3, 11), whole, later, strict=True):
        assert np.allclose(a.logprob[first - 1 :], b.logprob, atol=1e-12) and len(b.logprob) == len(b.is_top)
    done: list[tuple[int, int]] = []
    token_losses(loaded, TEXTS, batch_tokens=24, progress=lambda n, of: done.append((n, of)))
    assert done == [(2, 4), (4, 4)]
    assert not loaded.anatomy.blocks[-1]._forward_hooks


def test_a_model_without_its_last_blocks(tiny_model: Tiny) -> None:
    loaded = tiny_model("llama")
    with exit_at(loaded.model, 2):
        cut = loaded_from(loaded.model, loaded.tokenizer, "cut")
        for ids, losses in zip(TEXTS, token_losses(cut, TEXTS), strict=True):
            assert -losses.logprob.mean() == approx(plain(loaded.model, ids), abs=2e-4)


@pytest.mark.parametrize(("ids", "first"), [([5], 1), ([5, 6], 0), ([5, 6], 2)])
def test_a_text_without_a_measured_token(tiny_model: Tiny, ids: list[int], first: int) -> None:
    with pytest.raises(ValueError, match="the first measured token"):
        token_losses(tiny_model("llama"), [ids], [first])
