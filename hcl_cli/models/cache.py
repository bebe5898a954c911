"""Keys and values of a ragged batch: every layer holds its own number of rows, all of one length.

First come the prompts, one row per question (`begin_prompts` .. `end_prompts`), then one token per row and step,
with a `fork` before each. With `shared`, the prompts stay where they are and a row holds its own tokens only
(`shared_prompt`); without, the first fork copies the prompt to every row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from hcl_cli.models import shared_prompt
from hcl_cli.models.shared_prompt import PromptRows

GROWTH = 16  # positions reserved at a time


class MemoryCeiling(Exception):
    """The keys and values of a batch would outgrow the memory it may use: run it in smaller parts."""


class RaggedLayer(CacheLayerMixin):
    """One layer's keys and values, [row, head, position, head_dim], appended in place.

    Attributes:
        length: positions per row in `keys`.
        prompt_keys, prompt_values: [question, head, position, head_dim] under `shared`, else None.
    """

    is_sliding = False  # all positions are kept; the model's own mask hides what its window does not reach

    def __init__(self, owner: RaggedCache, index: int) -> None:
        super().__init__()
        self.owner = owner
        self.index = index
        self.length = 0
        self.prompt_keys: Tensor | None = None
        self.prompt_values: Tensor | None = None
        self.flat: tuple[Tensor | None, Tensor | None] = (None, None)

    @property
    def after_prompt(self) -> bool:
        """Whether what comes now is one token per row."""
        return self.owner.prompt is None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do before the first update."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [row, head, new, head_dim]; returns all positions so far of these rows (`shared`: their own)."""
        shared_prompt.enter(self)
        rows, new = key_states.shape[0], key_states.shape[2]
        if self.owner.prompt is not None:
            start, rows_at = self.owner.prompt
            if self.keys is None:
                self._reserve(key_states, value_states, rows_at[self.index], 0 if self.owner.shared else GROWTH)
            keys, values = self._held()
            keys[start : start + rows, :, :new] = key_states
            values[start : start + rows, :, :new] = value_states
            return key_states, value_states
        if self.keys is None:
            self._reserve(key_states, value_states, rows, GROWTH - 1)
        keys, values = self._held()
        start, self.length = self.length, self.length + new
        keys[:rows, :, start : self.length] = key_states
        values[:rows, :, start : self.length] = value_states
        return keys[:rows, :, : self.length], values[:rows, :, : self.length]

    def _held(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def _reserve(self, key_states: Tensor, value_states: Tensor, rows: int, extra: int) -> None:
        flat, views = [], []
        for states in (key_states, value_states):
            shape = (rows, states.shape[1], states.shape[2] + extra, states.shape[3])
            flat.append(self.owner.allocate(shape[0] * shape[1] * shape[2] * shape[3], states))
            views.append(flat[-1].view(shape))
        self.flat = (flat[0], flat[1])
        self.keys, self.values = views
        self.is_initialized = True

    def end_prompts(self, length: int) -> None:
        """The prompts are complete: under `shared` set them aside, else they are the first rows."""
        if not self.owner.shared:
            self.length = length
            return
        self.prompt_keys, self.prompt_values = self.keys, self.values
        self.keys = self.values = None
        self.owner.prompt_bytes += sum(flat.numel() * flat.element_size() for flat in self.flat if flat is not None)
        self.flat = (None, None)

    def select(self, parents: Tensor | None, rows: int) -> None:
        """Row r becomes a copy of row `parents[r]`; None keeps the first `rows` rows and only makes room."""
        if self.length == 0:
            return
        keys, values = self._held()
        capacity = keys.shape[2]
        if parents is None:
            if capacity > self.length:
                return
            parents = torch.arange(rows, device=keys.device)
        if capacity == self.length:
            capacity += GROWTH
        spare, old = self.owner.spare, self.flat
        flat_keys, self.keys = self._copy(keys, parents, capacity, spare[0])
        flat_values, self.values = self._copy(values, parents, capacity, spare[1])
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
        self.keys = self.values = self.prompt_keys = self.prompt_values = None
        self.flat = (None, None)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query of `query_length` tokens will see, the prompt included."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Positions held so far, prompt and left padding counted."""
        return self.length + (0 if self.prompt_keys is None else self.prompt_keys.shape[2])

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1


class RaggedCache(Cache):
    """The cache of a ragged batch. Rows are sorted by depth, deepest first, so layer l holds the first n_l of them.

    A fork copies a layer into the spare memory, which then changes places with the layer's own: two steps never
    allocate twice.

    Args:
        n_layers: L.
        shared: keep the prompts once per question; needs the attention of `shared_prompt`.
        max_bytes: raise MemoryCeiling rather than hold more than this; None for no limit.
    """

    def __init__(self, n_layers: int, shared: bool, max_bytes: int | None = None) -> None:
        self.shared = shared
        self.spare: tuple[Tensor | None, Tensor | None] = (None, None)
        self.max_bytes = max_bytes
        self.prompt_bytes = 0
        self.prompt: tuple[int, list[int]] | None = None
        self.rows: PromptRows | None = None
        self.ragged = [RaggedLayer(self, index) for index in range(n_layers)]
        super().__init__(layers=list(self.ragged))

    def allocate(self, size: int, like: Tensor) -> Tensor:
        """Flat memory for `size` numbers."""
        if self.max_bytes is not None:
            held = sum(flat.numel() for layer in self.ragged for flat in layer.flat if flat is not None)
            needed = (held + size) * like.element_size() + self.prompt_bytes
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
            layer.end_prompts(length)

    def keep_prompts(self, kept: Tensor) -> None:
        """Forget the prompts that no row continues. `kept`: [prompt], rising."""
        for layer in self.ragged:
            if layer.prompt_keys is not None and layer.prompt_values is not None:
                here = kept[kept < layer.prompt_keys.shape[0]]
                before = layer.prompt_keys.nbytes + layer.prompt_values.nbytes
                layer.prompt_keys = layer.prompt_keys.index_select(0, here)
                layer.prompt_values = layer.prompt_values.index_select(0, here)
                self.prompt_bytes -= before - layer.prompt_keys.nbytes - layer.prompt_values.nbytes

    def fork(self, parents: Tensor | None, rows_at: list[int], rows: PromptRows) -> None:
        """Make the rows of the next step.

        Args:
            parents: [row] the old row that each new row continues; None if they are the old rows in their order.
            rows_at: for each layer that still runs, how many of the new rows run it. Deeper layers are freed.
            rows: the prompts of the new rows.
        """
        self.rows = rows
        for layer, n_rows in zip(self.ragged, rows_at, strict=False):
            layer.select(None if parents is None else parents[:n_rows], n_rows)
        for layer in self.ragged[len(rows_at) :]:
            layer.drop()
