"""Scores of weights, held to sums by hand and to gradients taken the plain way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.models import weight_scores as module
from hcl_cli.models.weight_scores import frobenius_norm, magnitude, taylor

TEXTS = [(3, 9, 200, 14, 7), (5, 6), (40, 41, 42, 43, 44, 45, 46, 47, 48, 300)]


def plain_taylor(loaded: Any, texts: list[tuple[int, ...]]) -> list[float]:
    """One text after the other through the library's own logits, gradients added up by autograd, then the products."""
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    from hcl_cli.models.anatomy import find_anatomy

    n_tokens = sum(len(text) - 1 for text in texts)
    for text in texts:
        ids = torch.tensor([text])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        (torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum") / n_tokens).backward()
    scores = []
    for block in find_anatomy(model).blocks:
        products = [weight.detach() * weight.grad for weight in block.parameters() if weight.grad is not None]
        scores.append(float(sum(product.abs().sum() for product in products)))
    return scores


def one_weight_model(tiny_model: Callable[..., Any]) -> Any:
    """All weights of the blocks 0 but three of block 2."""
    loaded = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        for weight in loaded.anatomy.blocks.parameters():
            weight.zero_()
        block = loaded.anatomy.blocks[1]
        block.self_attn.q_proj.weight[0, 0] = -3.0
        block.mlp.up_proj.weight[1, 2] = 4.0
        block.input_layernorm.weight[5] = 12.0
    return loaded


def test_magnitude_and_norm_by_hand(tiny_model: Callable[..., Any]) -> None:
    """|-3| + |4| + |12| = 19; squares 9 + 16 + 144 = 169; its root 13. The norm's weight counts."""
    loaded = one_weight_model(tiny_model)
    assert magnitude(loaded).tolist() == [0.0, 19.0, 0.0, 0.0]
    assert magnitude(loaded, power=2).tolist() == [0.0, 169.0, 0.0, 0.0]
    assert frobenius_norm(loaded).tolist() == [0.0, 13.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="power 0"):
        magnitude(loaded, power=0)


def test_magnitude_counts_experts_and_biases(tiny_model: Callable[..., Any]) -> None:
    for family in ("mixtral", "gpt2"):
        loaded = tiny_model(family)
        blocks = [[weight.detach().double() for weight in block.parameters()] for block in loaded.anatomy.blocks]
        expected = [sum(float(weight.abs().sum()) for weight in block) for block in blocks]
        np.testing.assert_allclose(magnitude(loaded), expected, rtol=1e-12)


@pytest.mark.parametrize("family", ["llama32", "gemma3_text", "gpt2", "mixtral", "cohere", "falcon"])
def test_taylor_is_what_plain_autograd_gives(family: str, tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model(family)
    np.testing.assert_allclose(taylor(loaded, TEXTS, batch_tokens=20), plain_taylor(loaded, TEXTS), rtol=2e-4)


def test_taylor_sums_signed_products_before_their_size(tiny_model: Callable[..., Any]) -> None:
    """Two texts whose gradients partly cancel: the score of both is below the mean of the scores of each, and does not
    depend on whether they share a batch."""
    loaded = tiny_model("llama", dtype="float64")
    texts = [(3, 9, 200, 14, 7), (5, 6, 80, 90, 17)]
    each = (taylor(loaded, texts[:1]) + taylor(loaded, texts[1:])) / 2
    together, apart = taylor(loaded, texts, batch_tokens=100), taylor(loaded, texts, batch_tokens=1)
    np.testing.assert_allclose(together, apart, rtol=1e-9)
    assert (together < 0.95 * each).all()


def test_the_head_is_read_in_parts(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model("llama", dtype="float64")
    expected = taylor(loaded, TEXTS)
    monkeypatch.setattr(module, "HEAD_BYTES", 352 * 8 * 3)  # three rows of logits
    np.testing.assert_allclose(taylor(loaded, TEXTS), expected, rtol=1e-9)


def test_taylor_leaves_the_model_as_it_was(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that were there, what requires one, hooks and weights; also after an error, and in inference mode."""
    loaded = copy.deepcopy(tiny_model("llama"))
    weights = dict(loaded.model.named_parameters())
    held = weights["model.layers.0.mlp.up_proj.weight"]
    held.grad = torch.ones_like(held)
    weights["model.layers.1.mlp.up_proj.weight"].requires_grad_(False)
    values = {name: weight.detach().clone() for name, weight in weights.items()}
    expected = plain_taylor(tiny_model("llama"), TEXTS)
    with torch.inference_mode():
        found = taylor(loaded, TEXTS)
    np.testing.assert_allclose(found, expected, rtol=2e-4)

    def boom(*_: Any) -> None:
        raise KeyError("boom")

    monkeypatch.setattr(module, "_backward", boom)
    with pytest.raises(KeyError, match="boom"):
        taylor(loaded, TEXTS)
    assert held.grad is not None and bool((held.grad == 1).all())
    for name, weight in weights.items():
        assert weight.grad is None or weight is held
        assert weight.requires_grad == (name != "model.layers.1.mlp.up_proj.weight")
        assert torch.equal(weight, values[name])
        assert not weight._post_accumulate_grad_hooks


def test_too_little_memory_means_smaller_batches_from_the_beginning(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch may be in the sums when memory runs out, so they begin at 0 again."""
    loaded = tiny_model("llama")
    expected = taylor(loaded, TEXTS)
    backward = module._backward

    def small(loaded: Any, batch: Any) -> None:
        backward(loaded, batch)
        if len(batch.rows) > 2:
            raise torch.OutOfMemoryError("out of memory: tried")

    monkeypatch.setattr(module, "_backward", small)
    np.testing.assert_allclose(taylor(loaded, TEXTS, batch_tokens=40), expected, rtol=1e-4)

    def never(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory: tried\nmore")

    monkeypatch.setattr(module, "_backward", never)
    with pytest.raises(EnvironmentRefused, match="for the gradients of llama on a text of 10 tokens") as caught:
        taylor(loaded, TEXTS)
    assert "\n" not in str(caught.value)


def test_a_block_that_adds_nothing_scores_nothing(tiny_model: Callable[..., Any]) -> None:
    """Block 3 is the identity: its two output matrices are 0, so W * dL/dW is 0 there, and no other weight of it has a
    gradient. The other blocks score."""
    loaded = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        loaded.anatomy.blocks[2].self_attn.o_proj.weight.zero_()
        loaded.anatomy.blocks[2].mlp.down_proj.weight.zero_()
    scores = taylor(loaded, TEXTS)
    assert scores[2] == 0.0
    assert (np.delete(scores, 2) > 0.1).all()


def test_bad_input_is_one_line(tiny_model: Callable[..., Any]) -> None:
    loaded = copy.deepcopy(tiny_model("llama"))
    with pytest.raises(BadInput, match="text 1: 1 tokens"):
        taylor(loaded, [(3,)])
    with torch.no_grad():
        loaded.anatomy.blocks[1].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(BadInput, match="gradients that are not finite in float32"):
        taylor(loaded, TEXTS)
    loaded.anatomy.blocks[3].mlp.up_proj.weight = loaded.anatomy.blocks[1].mlp.up_proj.weight
    for score in (magnitude, lambda model: taylor(model, TEXTS)):
        with pytest.raises(BadInput, match="share weights"):
            score(loaded)
