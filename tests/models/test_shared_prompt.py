"""Attention to a prompt that is stored once, against the library's on copied keys and values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hcl_cli.models import shared_prompt
from hcl_cli.models.shared_prompt import attention, prompt_rows


@pytest.mark.parametrize(("kv_heads", "scaling"), [(4, None), (2, 0.3), (1, 1.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_it_equals_attention_over_copied_prompts(kv_heads: int, scaling: float | None, masked: bool) -> None:
    """Rows of three prompts in any order, one prompt without rows, one row whose window hides its whole prompt."""
    generator = torch.Generator().manual_seed(kv_heads)
    group = np.array([2, 0, 2, 3, 0, 2])
    prompt_keys, prompt_values = torch.randn(2, 4, kv_heads, 7, 8, generator=generator, dtype=torch.float64)
    keys, values = torch.randn(2, 6, kv_heads, 3, 8, generator=generator, dtype=torch.float64)
    query = torch.randn(6, 4, 1, 8, generator=generator, dtype=torch.float64)
    mask = None
    if masked:
        mask = torch.rand(6, 1, 1, 10, generator=generator) < 0.7
        mask[..., -1] = True
        mask[3, ..., :8] = False
    rows = prompt_rows(group, [6], torch.device("cpu"))
    layer = SimpleNamespace(
        prompt_keys=prompt_keys,
        prompt_values=prompt_values,
        after_prompt=True,
        index=0,
        owner=SimpleNamespace(rows=rows),
    )
    shared_prompt.enter(layer)
    found, _ = attention(None, query, keys, values, mask, scaling=scaling)
    shared_prompt.leave()
    module = torch.nn.Module()
    module.num_key_value_groups = 4 // kv_heads
    expected, _ = sdpa_attention_forward(
        module,
        query,
        torch.cat([prompt_keys[group], keys], 2),
        torch.cat([prompt_values[group], values], 2),
        mask,
        scaling=scaling,
        is_causal=False,
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_products_beyond_float16_stay_finite() -> None:
    """A query and a key of 64 numbers of size 60 have the product 230400, beyond 65504; divided by 8 it is in range.

    All four keys are equal, so the output is the mean of the values.
    """
    keys = torch.full((1, 1, 4, 64), 60.0, dtype=torch.float16)
    values = torch.eye(4, 64, dtype=torch.float16).view(1, 1, 4, 64)
    layer = SimpleNamespace(
        prompt_keys=keys[:, :, :3],
        prompt_values=values[:, :, :3],
        after_prompt=True,
        index=0,
        owner=SimpleNamespace(rows=prompt_rows(np.array([0]), [1], torch.device("cpu"))),
    )
    shared_prompt.enter(layer)
    found, _ = attention(None, keys[:, :, :1], keys[:, :, 3:], values[:, :, 3:], None)
    shared_prompt.leave()
    assert found[0, 0, 0, :5].tolist() == [0.25, 0.25, 0.25, 0.25, 0.0]


def test_rows_are_ranked_within_their_prompt() -> None:
    rows = prompt_rows(np.array([1, 0, 1, 1, 0]), [5, 3, 1], torch.device("cpu"))
    assert rows.rank.tolist() == [0, 0, 1, 2, 1]
    assert rows.widths == [3, 2, 1]
    assert [rows.slots(1)[1].tolist(), rows.slots(2)[0]] == [[2, 0, 3, 4, 1], 1]
