"""Attention of one new token per row to a prompt that is stored once per question, and to the row's own tokens.

The two parts are softmax-weighted apart and merged by their largest scores, so the prompt's keys and values are
neither copied per row nor moved when rows fork. Registered beside the library's own `sdpa`, which still runs the
prompts; used where a model's attention is `sdpa`, else keys and values are copied to every row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "hcl_shared_prompt"
_MASKED = -1e30  # finite, so that a part without any visible key gets weight 0 and not NaN


class PromptRows:
    """Which prompt each row continues, and where the row stands among the rows of its prompt.

    Attributes:
        group: [row] index of the row's prompt.
        rank: [row] 0.. within its prompt, in the order of the rows.
        widths: for each layer, the largest number of rows of one prompt.
    """

    def __init__(self, group: Tensor, rank: Tensor, widths: list[int]) -> None:
        self.group, self.rank, self.widths = group, rank, widths
        self._slots: dict[int, Tensor] = {}

    def slots(self, layer: int) -> tuple[int, Tensor]:
        """The layer's width and each row's place in [prompt, width]."""
        width = self.widths[layer]
        if width not in self._slots:
            self._slots[width] = self.group * width + self.rank
        return width, self._slots[width]


def prompt_rows(group: NDArray[np.int64], rows_at: list[int], device: torch.device) -> PromptRows:
    """The places of rows whose prompts are `group`, when layer l runs the first `rows_at[l]` of them."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))
    highest = np.maximum.accumulate(rank)
    widths = [int(highest[rows - 1]) + 1 for rows in rows_at]
    return PromptRows(torch.from_numpy(group).to(device), torch.from_numpy(rank).to(device), widths)


# The layer whose keys were appended last: attention runs directly after that, in the same thread.
_current: list[Any] = []


def enter(layer: Any) -> None:
    """Tell the attention which layer of which cache it will be called for."""
    _current[:] = [layer]


def leave() -> None:
    """Forget the layer."""
    _current.clear()


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in the library's convention.

    Args:
        query: [row, head, new, head_dim].
        key, value: the row's own tokens, [row, kv_head, own, head_dim]; in prompts, all there is.
        attention_mask: [row, 1, new, prompt + own], True or 0 where a key may be seen; None if all may.
    Returns:
        [row, new, head, head_dim], and no weights.
    """
    layer = _current[0] if _current else None
    if layer is None or layer.prompt_keys is None or not layer.after_prompt:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if kwargs.get("position_bias") is not None or kwargs.get("softcap") is not None:
        raise ValueError("this attention knows no position bias and no soft-capping")
    rows, heads, _, width = query.shape
    kv_heads, prompt_length = layer.prompt_keys.shape[1:3]
    query = query.reshape(rows, kv_heads, heads // kv_heads, width)
    scale = width**-0.5 if scaling is None else scaling
    if query.dtype == torch.float16 and scale < 1.0:
        # Products beyond 65504 would be infinite. A power of two first rounds nothing.
        power = 2.0 ** math.floor(math.log2(scale))
        query, scale = query * power, scale / power
    mask = None if attention_mask is None else _additive(attention_mask[:, 0, 0])  # [row, prompt + own]
    own = _part(query, key, value, scale, None if mask is None else mask[:, None, None, prompt_length:])
    prompt = _prompt_part(layer, query, scale, None if mask is None else mask[:, :prompt_length])
    output = _merged(own, prompt).to(value.dtype)
    return output.reshape(rows, 1, heads, output.shape[-1]), None


def _additive(mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, _MASKED)
    return mask.float().clamp(min=_MASKED)


def _part(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention to one part of the keys: weighted mean of its values, sum of its weights, its largest score.

    Scores and weights are float32 (float64 for float64 models): scaled after the product, so that half precision
    rounds nothing but the products themselves.
    """
    scores = query @ key.transpose(-1, -2)  # [..., query, key]
    scores = (scores if scores.dtype == torch.float64 else scores.float()).mul_(scale)
    if mask is not None:
        scores.add_(mask)
    largest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(-1, keepdim=True)
    return weights.div_(total).to(value.dtype) @ value, total, largest


def _prompt_part(layer: Any, query: Tensor, scale: float, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`_part` for the prompts: the rows of one prompt are the queries of one product."""
    rows, kv_heads, repeats, width = query.shape
    per_prompt, slots = layer.owner.rows.slots(layer.index)
    slots = slots[:rows]
    n_prompts, length = layer.prompt_keys.shape[0], layer.prompt_keys.shape[2]

    def by_prompt(per_row: Tensor) -> Tensor:  # [row, kv_head, repeat, x] -> [prompt, kv_head, per_prompt * repeat, x]
        places = per_row.new_zeros(n_prompts * per_prompt, *per_row.shape[1:]).index_copy_(0, slots, per_row)
        places = places.view(n_prompts, per_prompt, kv_heads, repeats, -1).transpose(1, 2)
        return places.reshape(n_prompts, kv_heads, per_prompt * repeats, -1)

    def by_row(per_place: Tensor) -> Tensor:
        places = per_place.view(n_prompts, kv_heads, per_prompt, repeats, -1).transpose(1, 2)
        return places.reshape(n_prompts * per_prompt, kv_heads, repeats, -1).index_select(0, slots)

    if mask is not None:
        places = mask.new_zeros(n_prompts * per_prompt, length).index_copy_(0, slots, mask)
        mask = places.view(n_prompts, 1, per_prompt, 1, length).expand(-1, -1, -1, repeats, -1)
        mask = mask.reshape(n_prompts, 1, per_prompt * repeats, length)
    values, total, largest = _part(by_prompt(query), layer.prompt_keys, layer.prompt_values, scale, mask)
    return by_row(values), by_row(total), by_row(largest)


def _merged(one: tuple[Tensor, Tensor, Tensor], two: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    largest = torch.maximum(one[2], two[2])
    weight_one, weight_two = one[1] * (one[2] - largest).exp_(), two[1] * (two[2] - largest).exp_()
    return (one[0] * weight_one + two[0] * weight_two) / (weight_one + weight_two)


# Both registries, or the causal mask of the prompts would be lost without a word.
AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
