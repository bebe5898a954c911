"""Losses without a block, resumed behind it, are those of the cut model, of every family and in any batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.models import block_losses as module
from hcl_cli.models.block_losses import block_losses
from hcl_cli.models.cut import without_blocks

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox", "opt", "cohere",
    "granite", "olmo2", "mixtral", "falcon", "llama32",
)  # fmt: skip
WIDE = (
    "stablelm", "starcoder2", "qwen2_moe", "qwen3_moe", "olmoe", "glm", "cohere2", "olmo3", "nemotron", "smollm3",
    "exaone4", "granitemoe", "biogpt", "gptj", "mpt",
)  # fmt: skip


def texts_of(vocab: int, lengths: tuple[int, ...]) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(4)
    return [tuple(torch.randint(3, vocab, (n,), generator=generator).tolist()) for n in lengths]


def alone(model: Any, text: tuple[int, ...]) -> float:
    """Summed loss of one text by the library's own logits."""
    ids = torch.tensor([text])
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))


def equal_the_cut_models(loaded: Any) -> None:
    """Unequal lengths, one beyond the window of 8; float32 rounding over at most 15 tokens."""
    texts = texts_of(loaded.vocab_size, (3, 16, 2, 9))
    found = block_losses(loaded, texts, batch_tokens=32)
    assert found.blocks == (1, 2, 3, 4)
    assert found.n_tokens.tolist() == [2, 15, 1, 8]
    np.testing.assert_allclose(found.whole, [alone(loaded.model, text) for text in texts], rtol=2e-5)
    for row, block in enumerate(found.blocks):
        with without_blocks(loaded, [block]) as cut:
            expected = [alone(cut.model, text) for text in texts]
        np.testing.assert_allclose(found.without[row], expected, rtol=2e-5)
    assert len({round(value, 3) for value in [found.mean_whole, *found.mean_without]}) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_left_out_is_a_cut_model(family: str, tiny_model: Callable[..., Any]) -> None:
    equal_the_cut_models(tiny_model(family))


@pytest.mark.long
@pytest.mark.parametrize("family", WIDE)
def test_a_block_left_out_is_a_cut_model_of_further_families(family: str, tiny_model: Callable[..., Any]) -> None:
    equal_the_cut_models(tiny_model(family))


def test_batches_do_not_change_a_loss(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("gemma3_text")
    texts = texts_of(loaded.vocab_size, (3, 16, 2, 9, 12))
    one = block_losses(loaded, texts, batch_tokens=1)
    for other in (block_losses(loaded, texts, batch_tokens=1000), block_losses(loaded, texts[::-1], batch_tokens=40)):
        order = slice(None) if other.n_tokens[0] == 2 else slice(None, None, -1)
        np.testing.assert_allclose(other.whole[order], one.whole, rtol=1e-5)
        np.testing.assert_allclose(other.without[:, order], one.without, rtol=1e-5)


def test_the_blocks_before_the_missing_one_are_not_run_again(tiny_model: Callable[..., Any]) -> None:
    """4 blocks in the whole model, then 3 + 2 + 1 + 0 behind the missing one: 10, not 16. Chosen ones only: 4 + 1."""
    loaded = tiny_model("llama")
    calls: list[int] = []
    handles = [block.register_forward_hook(lambda *_: calls.append(1)) for block in loaded.anatomy.blocks]
    try:
        block_losses(loaded, texts_of(loaded.vocab_size, (5, 5)))
        assert len(calls) == 10
        assert block_losses(loaded, texts_of(loaded.vocab_size, (5, 5)), blocks=[3]).without.shape == (1, 2)
        assert len(calls) == 15
    finally:
        for handle in handles:
            handle.remove()
    assert not any(len(block._forward_hooks) + len(block._forward_pre_hooks) for block in loaded.anatomy.blocks)


def test_batches_shrink_where_the_states_would_be_large(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 states of 48 float32 are 960 bytes a token: 9,600 bytes hold 10 tokens, two texts of 5."""
    loaded = tiny_model("llama")
    monkeypatch.setattr(module, "STATE_BYTES", 9600)
    seen: list[tuple[int, int]] = []
    block_losses(loaded, texts_of(352, (5, 5, 5, 5, 5)), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_a_batch_that_does_not_fit_is_halved(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model("llama")
    texts = texts_of(352, (5, 9, 7, 3))
    expected = block_losses(loaded, texts)
    measured = module._measured

    def small(loaded: Any, sequences: Any, firsts: Any, rows: list[int], wanted: Any) -> Any:
        if len(rows) > 1:
            raise torch.OutOfMemoryError("out of memory: tried")
        return measured(loaded, sequences, firsts, rows, wanted)

    monkeypatch.setattr(module, "_measured", small)
    np.testing.assert_allclose(block_losses(loaded, texts).without, expected.without, rtol=1e-5)

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory: tried\nmore")

    monkeypatch.setattr(module, "_measured", never)
    with pytest.raises(EnvironmentRefused, match="not enough memory on cpu for a text of 3 tokens") as caught:
        block_losses(loaded, [texts[3]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "no text to measure"),
        ([(3, 4), (5,)], "text 2: 1 tokens, at least 2"),
        ([(3,) * 129], "text 1: 129 tokens, but llama has 128 positions"),
        ([(3, 352)], "text 1: it has token 352, but llama knows 0..351"),
    ],
)
def test_a_text_that_cannot_be_measured_is_one_line(
    texts: list[tuple[int, ...]], said: str, tiny_model: Callable[..., Any]
) -> None:
    with pytest.raises(BadInput, match=said):
        block_losses(tiny_model("llama"), texts)


def test_a_loss_that_is_not_finite_is_one_line(tiny_model: Callable[..., Any]) -> None:
    loaded = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        loaded.anatomy.blocks[1].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(BadInput, match="a loss that is not finite in float32"):
        block_losses(loaded, [(3, 4, 5)])


def test_blocks_that_are_not_there_are_a_fault(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="outside 1..4"):
        block_losses(tiny_model("llama"), [(3, 4)], blocks=[5])
    with without_blocks(tiny_model("llama"), [1, 2, 3]) as cut, pytest.raises(ValueError, match="nothing left"):
        block_losses(cut, [(3, 4)])
