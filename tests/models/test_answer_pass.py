"""Answers run together are answers run alone; states are raw block outputs; the loss is the library's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hcl_cli.models.answer_pass import answer_pass
from hcl_cli.models.hidden_items import Item


def item(name: str, n: int, first: int, stop: int, seed: int) -> Item:
    generator = torch.Generator().manual_seed(seed)
    return Item(name, tuple(torch.randint(3, 352, (n,), generator=generator).tolist()), first, stop)


ITEMS = [item("a", 9, 5, 9, 0), item("b", 4, 1, 3, 1), item("c", 15, 12, 14, 2)]
BLOCKS = (1, 3, 4)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2", "gemma3_text", "falcon", "cohere"])
def test_each_answer_as_if_alone(tiny_model: Callable[..., Any], family: str) -> None:
    """The mean of each block's output over the answer's own tokens, without the tokens behind them, and the library's
    cross-entropy of all tokens from the answer's first on; of the middle one no loss was asked."""
    loaded = tiny_model(family)
    outputs: dict[int, Any] = {}

    def keep(number: int) -> Callable[[Any, Any, Any], None]:
        def hook(_block: Any, _args: Any, output: Any) -> None:
            outputs[number] = (output[0] if isinstance(output, tuple) else output)[0]

        return hook

    with torch.inference_mode():
        read = answer_pass(loaded, ITEMS, BLOCKS, [True, False, True])
    assert not any(block._forward_hooks for block in loaded.anatomy.blocks)
    handles = [block.register_forward_hook(keep(number)) for number, block in enumerate(loaded.anatomy.blocks, 1)]
    for row, one in enumerate(ITEMS):
        with torch.inference_mode():
            ids = torch.tensor([one.ids])
            logits = loaded.model(input_ids=ids, use_cache=False).logits[0]
        for place, block in enumerate(BLOCKS):
            expected = outputs[block][one.first : one.stop].mean(0)
            torch.testing.assert_close(read.states[place, row], expected, rtol=1e-4, atol=1e-4)
        loss = torch.nn.functional.cross_entropy(logits[one.first - 1 : -1], ids[0, one.first :])
        assert float(read.loss[row]) == pytest.approx(0.0 if row == 1 else float(loss), rel=1e-4)
    for handle in handles:
        handle.remove()
