"""Keys and values of rows that grow at different speeds: every row ends in the last column, padding stands on the left.

So distances between the tokens of a row are distances between columns, as sliding windows count them, and what comes
next is appended to all rows at once. What a row has to give back (rejected drafts) is shifted out to the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class AlignedLayer(CacheLayerMixin):
    """One layer's keys and values, [row, head, column, head_dim]."""

    is_sliding = False  # all positions are kept; the model's own mask hides what its window does not reach

    def __init__(self, owner: AlignedCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do before the first update."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [row, head, new, head_dim]; returns all columns so far."""
        if self.owner.padding is not None:
            # A padded position sees no token, which some attention turns into NaN; 0 * NaN would spread it.
            hidden = self.owner.padding[:, None, :, None]
            key_states, value_states = key_states.masked_fill(hidden, 0.0), value_states.masked_fill(hidden, 0.0)
        if self.keys is not None and self.values is not None:
            key_states = torch.cat([self.keys, key_states], 2)
            value_states = torch.cat([self.values, value_states], 2)
        self.keys, self.values = key_states, value_states
        self.is_initialized = True
        return key_states, value_states

    def take(self, parents: Tensor, columns: Tensor | None) -> None:
        """Row r becomes a copy of row `parents[r]`, with the columns `columns[r]` if given."""
        if self.keys is None or self.values is None:
            return
        for name in ("keys", "values"):
            held: Tensor = getattr(self, name).index_select(0, parents)
            if columns is not None:
                index = columns[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[3])
                held = held.gather(2, index)
            setattr(self, name, held)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query of `query_length` tokens will see."""
        return self.owner.past + query_length, 0

    def get_seq_length(self) -> int:
        """Columns before the tokens that are run now."""
        return self.owner.past

    def get_max_length(self) -> int:
        """-1: no limit."""
        return -1


class AlignedCache(Cache):
    """The cache of rows that end together.

    Attributes:
        past: columns that the blocks which run now have behind them. Blocks below an exit layer may hold more: the
            drafts that are being verified above it.
        padding: [row, new], bool, while prompts run: where nothing stands; None otherwise.
    """

    def __init__(self, n_layers: int) -> None:
        self.past = 0
        self.padding: Tensor | None = None
        self.aligned = [AlignedLayer(self) for _ in range(n_layers)]
        super().__init__(layers=list(self.aligned))

    def take(self, parents: Tensor, columns: Tensor | None = None) -> None:
        """New rows out of old ones, in every layer.

        Args:
            parents: [row], the old row of each new one.
            columns: [row, column], which of its columns each new row keeps, in order; None for all.
        """
        for layer in self.aligned:
            layer.take(parents, columns)

    def join(self, parts: Sequence[AlignedCache]) -> None:
        """Take over the rows of other caches, one after the other; all are as long."""
        for index, layer in enumerate(self.aligned):
            for name in ("keys", "values"):
                setattr(layer, name, torch.cat([getattr(part.aligned[index], name) for part in parts]))
            layer.is_initialized = True
