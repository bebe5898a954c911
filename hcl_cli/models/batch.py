"""One batch of streams, from its prompts to its last token. Bookkeeping in arrays, nothing per stream in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hcl_cli.models.cache import RaggedCache
from hcl_cli.models.draws import draw_tokens
from hcl_cli.models.plan import Cell
from hcl_cli.models.ragged import RaggedStep
from hcl_cli.models.shared_prompt import prompt_rows
from hcl_cli.models.stops import StopFilter, decoded, first_stop
from hcl_cli.models.streams import EOS, LENGTH, STOP, Finished, Prompt, Sampling, addresses_of, empty_columns

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

PROMPT_TOKENS = 1 << 14  # tokens of prompts that run together
HEAD_BYTES = 1 << 28  # logits held at a time
DRAW_BYTES = {"cpu": 1 << 23, "mps": 1 << 23}  # logits drawn from at a time: what a cache holds; elsewhere HEAD_BYTES


class Batch:
    """Streams that decode together.

    Rows are sorted by depth, deepest first, so that block l runs on the first rows only.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        step: RaggedStep,
        prompts: Sequence[Prompt],
        cells: Sequence[Cell],
        sampling: Sampling,
        stops: StopFilter,
        share: bool,
        max_bytes: int | None,
    ) -> None:
        self.loaded, self.step, self.sampling, self.stops, self.share = loaded, step, sampling, stops, share
        self.out = empty_columns(cells, sampling.max_new_tokens)
        self.addresses = addresses_of(prompts, self.out, sampling.seed)
        self.cache = RaggedCache(loaded.n_layers, loaded.shared_prompt, max_bytes)
        self.is_eos = np.zeros(loaded.vocab_size, dtype=bool)
        self.is_eos[[token for token in loaded.eos_ids if token < loaded.vocab_size]] = True

        used, which = np.unique(self.out.prompt, return_inverse=True)
        depth = np.zeros(len(used), dtype=np.int64)
        np.maximum.at(depth, which, self.out.exit_layer)
        order = np.argsort(-depth, kind="stable")
        self.prompt_ids = [prompts[index].token_ids for index in used[order]]
        lengths = np.array([len(ids) for ids in self.prompt_ids])
        self.width = int(lengths.max())
        # Per row: its depth, its prompt, its real length so far, its left padding. Per stream: its row.
        self.group, self.n_prompts = np.arange(len(used)), len(used)
        self.depth, self.length, self.padding = depth[order], lengths, self.width - lengths
        self.row = np.argsort(order)[which]
        self.live = np.arange(len(self.out.prompt))

    def run(self) -> Finished:
        """Decode until every stream has ended."""
        hidden = self._prompts()
        for position in range(self.sampling.max_new_tokens):
            tokens = self._draw(hidden, position)
            forked = self._advance(tokens, position)
            if forked is None:
                break
            hidden = self._next(*forked, position)
        return self.out

    def _rows_at(self, depth: NDArray[np.int64]) -> list[int]:
        """How many rows run block 1, 2, ..., as far as the deepest goes. `depth` falls."""
        return [int(n) for n in np.searchsorted(-depth, -np.arange(1, depth[0] + 1), side="right")]

    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The distinct (exit, row) of the live streams in that order: exit, row, and each live stream's pair."""
        n_rows = len(self.depth)
        code = self.out.exit_layer[self.live] * n_rows + self.row[self.live]
        there = np.zeros((self.loaded.n_layers + 1) * n_rows, dtype=np.int64)
        there[code] = 1
        pairs = np.flatnonzero(there)
        return pairs // n_rows, pairs % n_rows, (there.cumsum() - 1)[code]

    def _taps(self, exits: NDArray[np.int64], rows: NDArray[np.int64], n_blocks: int) -> list[Tensor | None]:
        edges = np.searchsorted(exits, np.arange(1, n_blocks + 2))
        return [
            torch.from_numpy(rows[low:high]).to(self.loaded.device) if high > low else None
            for low, high in zip(edges, edges[1:], strict=False)
        ]

    def _prompts(self) -> Tensor:
        """Run every prompt once, as deep as its deepest stream needs. Returns [pair, hidden]."""
        exits, rows, self.pair = self._pairs()
        rows_at = self._rows_at(self.depth)
        ids = np.zeros((len(self.prompt_ids), self.width), dtype=np.int64)
        for row, tokens in enumerate(self.prompt_ids):
            ids[row, self.width - len(tokens) :] = tokens
        mask = np.arange(self.width) >= self.padding[:, None]
        device = self.loaded.device
        parts: list[Tensor] = []
        where: list[NDArray[np.int64]] = []
        size = max(1, PROMPT_TOKENS // self.width)
        for start in range(0, len(ids), size):
            part = slice(start, min(start + size, len(ids)))
            part_rows_at = [min(n, part.stop) - start for n in rows_at if n > start]
            inside = np.flatnonzero((rows >= start) & (rows < part.stop))
            self.cache.begin_prompts(start, rows_at)
            positions = np.maximum(mask[part].cumsum(1) - 1, 0)
            parts.append(
                self.step.run(
                    torch.from_numpy(ids[part]).to(device),
                    torch.from_numpy(positions).to(device),
                    torch.from_numpy(mask[part].astype(np.int64)).to(device) if self.padding[part].any() else None,
                    self.cache,
                    part_rows_at,
                    self._taps(exits[inside], rows[inside] - start, len(part_rows_at)),
                )
            )
            where.append(inside)
        self.cache.end_prompts(self.width)
        hidden = torch.cat(parts) if len(parts) > 1 else parts[0]
        back = np.argsort(np.concatenate(where))
        return hidden[torch.from_numpy(back).to(device)] if len(parts) > 1 else hidden

    def _draw(self, hidden: Tensor, position: int) -> NDArray[np.int64]:
        """One token for each live stream, from the raw states of the pairs."""
        out, sampling = self.out, self.sampling
        tokens = np.empty(len(self.live), dtype=np.int64)
        order = np.argsort(self.pair, kind="stable")
        sorted_pairs = self.pair[order]
        row_bytes = self.loaded.vocab_size * (8 if self.loaded.dtype == torch.float64 else 4)
        per_head = max(1, HEAD_BYTES // row_bytes)
        per_draw = max(1, DRAW_BYTES.get(self.loaded.device.type, HEAD_BYTES) // row_bytes)
        for start in range(0, hidden.shape[0], per_head):
            logits = self.loaded.anatomy.head(hidden[start : start + per_head])
            for low in range(start, start + logits.shape[0], per_draw):
                high = min(low + per_draw, start + logits.shape[0])
                first, last = np.searchsorted(sorted_pairs, [low, high])
                chosen = order[first:last]
                streams = self.live[chosen]
                drawn = draw_tokens(
                    logits[low - start : high - start],
                    sorted_pairs[first:last] - low,
                    self.addresses,
                    streams,
                    position,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                )
                tokens[chosen] = drawn.token
                out.sum_prob[streams] += drawn.prob
                out.sum_logprob[streams] += drawn.logprob
                out.sum_max_prob[streams] += drawn.max_prob
        out.tokens[self.live, position] = tokens
        out.n_tokens[self.live] = position + 1
        return tokens

    def _advance(self, tokens: NDArray[np.int64], position: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """End the streams that are done and fork the rows of the others.

        Returns:
            parent row and newest token of each new row, or None if no stream is left.
        """
        out = self.out
        ended = self.is_eos[tokens]
        out.reason[self.live[ended]] = EOS
        self.live, tokens = self.live[~ended], tokens[~ended]
        if not len(self.live):
            return None
        old = self.row[self.live]
        code = old * self.loaded.vocab_size + tokens
        if self.share:
            _, first, group = np.unique(code, return_index=True, return_inverse=True)
        else:
            first = group = np.arange(len(code))
        stopped = self._stopped(first, tokens, position)
        if stopped.any():
            going = ~stopped[group]
            out.reason[self.live[~going]] = STOP
            self.live = self.live[going]
            kept = np.cumsum(~stopped) - 1
            group, parents, newest = kept[group[going]], old[first[~stopped]], tokens[first[~stopped]]
        else:
            parents, newest = old[first], tokens[first]
        if position + 1 == self.sampling.max_new_tokens:
            out.reason[self.live] = LENGTH
            self.live = self.live[:0]
        if not len(self.live):
            return None
        depth = np.zeros(len(parents), dtype=np.int64)
        np.maximum.at(depth, group, out.exit_layer[self.live])
        order = np.argsort(-depth, kind="stable")
        self.row[self.live] = np.argsort(order)[group]
        self.depth = depth[order]
        return parents[order], newest[order]

    def _stopped(self, first: NDArray[np.int64], tokens: NDArray[np.int64], position: int) -> NDArray[np.bool_]:
        """Which groups of streams have completed a stop string with their newest token."""
        stopped = np.zeros(len(first), dtype=bool)
        open_groups = np.flatnonzero(self.stops.can_end[tokens[first]])
        if len(open_groups):
            rows = self.out.tokens[self.live[first[open_groups]], : position + 1]
            texts = decoded(self.loaded.tokenizer, rows.tolist())
            after_text = self.sampling.stop_after_text
            stopped[open_groups] = [first_stop(text, self.stops.stops, after_text) is not None for text in texts]
        return stopped

    def _next(self, parents: NDArray[np.int64], newest: NDArray[np.int64], position: int) -> Tensor:
        """Run one token per row. Returns [pair, hidden]."""
        device = self.loaded.device
        same = len(parents) == len(self.length) and bool((parents == np.arange(len(parents))).all())
        self.length, self.padding = self.length[parents] + 1, self.padding[parents]
        self.group = self.group[parents]
        going, group = np.unique(self.group, return_inverse=True)
        if 2 * len(going) <= self.n_prompts:
            self.cache.keep_prompts(torch.from_numpy(going).to(device))
            self.group, self.n_prompts = group, len(going)
        rows_at = self._rows_at(self.depth)
        self.cache.fork(
            None if same else torch.from_numpy(parents).to(device), rows_at, prompt_rows(self.group, rows_at, device)
        )
        exits, rows, self.pair = self._pairs()
        mask = None
        if self.padding.any():
            seen = np.arange(self.width + position + 1) >= self.padding[:, None]
            mask = torch.from_numpy(seen.astype(np.int64)).to(device)
        return self.step.run(
            torch.from_numpy(newest[:, None]).to(device),
            torch.from_numpy(self.length[:, None] - 1).to(device),
            mask,
            self.cache,
            rows_at,
            self._taps(exits, rows, len(rows_at)),
        )
