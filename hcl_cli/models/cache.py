"""Keys and values of a ragged batch: every layer holds its own number of rows, all of one length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GROWTH = 16  # positions reserved at a time


class MemoryCeiling(Exception):
    """The keys and values of a batch would outgrow the memory it may use: run it in smaller parts."""


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values, [row, head, position, head_dim], appended in place."""

    is_sliding = False  # all positions are kept; the model's own mask hides what its window does not reach

    def __init__(self, owner: RaggedCache, index: int) -> None:
        super().__init__()
        self.owner = owner
        self.index = index
        self.length = 0
        self.flat: tuple[Tensor | None, Tensor | None] = (None, None)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do before the first update."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [row, head, new, head_dim] and return all positions so far of these rows."""
        rows, new = key_states.shape[0], key_states.shape[2]
        if self.owner.prompt is not None:
            start, rows_at = self.owner.prompt
            if self.keys is None or self.values is None:
                total = rows_at[self.index]
                self._reserve(key_states, value_states, total)
                assert self.keys is not None and self.values is not None
            self.keys[start : start + rows, :, :new] = key_states
            self.values[start : start + rows, :, :new] = value_states
            return key_states, value_states
        assert self.keys is not None and self.values is not None
        start, self.length = self.length, self.length + new
        self.keys[:rows, :, start : self.length] = key_states
        self.values[:rows, :, start : self.length] = value_states
        return self.keys[:rows, :, : self.length], self.values[:rows, :, : self.length]

    def _reserve(self, key_states: Tensor, value_states: Tensor, rows: int) -> None:
        flat = []
        for states in (key_states, value_states):
            heads, new, width = states.shape[1:]
            flat.append(self.owner.allocate(rows * heads * (new + GROWTH) * width, states))
        self.flat = (flat[0], flat[1])
        self.keys, self.values = (
            memory.view(rows, states.shape[1], states.shape[2] + GROWTH, states.shape[3])
            for memory, states in zip(flat, (key_states, value_states), strict=True)
        )
        self.is_initialized = True

    def select(self, parents: Tensor | None, rows: int) -> None:
        """Row r becomes a copy of row `parents[r]`; None keeps the first `rows` rows and only makes room."""
        assert self.keys is not None and self.values is not None
        capacity = self.keys.shape[2]
        if parents is None:
            if capacity > self.length:
                return
            parents = torch.arange(rows, device=self.keys.device)
        if capacity == self.length:
            capacity += GROWTH
        spare, old = self.owner.spare, self.flat
        flat_keys, self.keys = self._copy(self.keys, parents, capacity, spare[0])
        flat_values, self.values = self._copy(self.values, parents, capacity, spare[1])
        self.flat, self.owner.spare = (flat_keys, flat_values), old

    def _copy(self, source: Tensor, parents: Tensor, capacity: int, flat: Tensor | None) -> tuple[Tensor, Tensor]:
        rows, heads, width = parents.shape[0], source.shape[1], source.shape[3]
        size = rows * heads * capacity * width
        if flat is None or flat.numel() < size:
            flat = self.owner.allocate(size + size // 4, source)
        target = flat[:size].view(rows, heads, capacity, width)
        torch.index_select(source[:, :, : self.length], 0, parents, out=target[:, :, : self.length])
        return flat, target

    def drop(self) -> None:
        """Free the memory of a layer that no stream reaches any more."""
        self.keys = self.values = None
        self.flat = (None, None)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query of `query_length` tokens will see."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Positions held so far, left padding counted."""
        return self.length

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1


class RaggedCache(Cache):
    """The cache of a ragged batch. Rows are sorted by depth, deepest first, so layer l holds the first n_l of them.

    A fork copies a layer into the spare memory, which then changes places with the layer's own: two steps never
    allocate twice.

    Args:
        n_layers: L.
        max_bytes: raise MemoryCeiling rather than hold more than this; None for no limit.
    """

    def __init__(self, n_layers: int, max_bytes: int | None = None) -> None:
        self.spare: tuple[Tensor | None, Tensor | None] = (None, None)
        self.max_bytes = max_bytes
        self.prompt: tuple[int, list[int]] | None = None
        self.ragged = [RaggedLayer(self, index) for index in range(n_layers)]
        super().__init__(layers=list(self.ragged))

    def allocate(self, size: int, like: Tensor) -> Tensor:
        """Flat memory for `size` numbers."""
        if self.max_bytes is not None:
            held = sum(flat.numel() for layer in self.ragged for flat in layer.flat if flat is not None)
            needed = (held + size) * like.element_size()
            if needed > self.max_bytes:
                raise MemoryCeiling(
                    f"keys and values need {needed / 2**20:.0f} MiB, {self.max_bytes / 2**20:.0f} may be used"
                )
        return torch.empty(size, dtype=like.dtype, device=like.device)

    def begin_prompts(self, start: int, rows_at: list[int]) -> None:
        """From now on the rows that come are prompts `start`, `start + 1`, ... of `rows_at[l]` at layer l."""
        self.prompt = (start, rows_at)

    def end_prompts(self, length: int) -> None:
        """All prompts, padded to `length`, are there; what comes now is one token per row."""
        self.prompt = None
        for layer in self.ragged:
            layer.length = length

    def fork(self, parents: Tensor | None, rows_at: list[int]) -> None:
        """Make the rows of the next step.

        Args:
            parents: [row] the old row that each new row continues; None if they are the old rows in their order.
            rows_at: for each layer that still runs, how many of the new rows run it. Deeper layers are freed.
        """
        for layer, rows in zip(self.ragged, rows_at, strict=False):
            layer.select(None if parents is None else parents[:rows], rows)
        for layer in self.ragged[len(rows_at) :]:
            layer.drop()
