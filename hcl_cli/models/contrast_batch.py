"""One batch of answers under contrasted layers.

A stream is one sample of one method of a question. Rows, caches, forks, stops and draws are those of `batch.Batch`:
streams with equal tokens sit on one row, whatever their methods, and the row is computed once. What differs is that
a row is tapped at all layers its methods read, and how a token's distribution is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hcl_cli.models import batch as plain
from hcl_cli.models.batch import Batch
from hcl_cli.models.contrast_heads import Bools, Contrast, Heads, Ints, contrast, divergences
from hcl_cli.models.contrast_methods import Method
from hcl_cli.models.draws import draw_tokens
from hcl_cli.models.plan import Cell
from hcl_cli.models.ragged import RaggedStep
from hcl_cli.models.stops import StopFilter
from hcl_cli.models.streams import Finished, Prompt, Sampling

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel


@dataclass(frozen=True)
class ContrastCell(Cell):
    """Samples of one method of one prompt; `exit_layer` is L, so that the draws are those of the whole model.

    Attributes:
        method: index into the methods.
    """

    method: int = 0


@dataclass(frozen=True)
class Contrasted:
    """Streams of one batch, in columns, the order of the cells.

    Attributes:
        finished: tokens and what else `hcl sample` knows; its sums are of the contrasted distribution.
        method: [stream], index into the methods.
        premature_layers: [stream, step], the layer contrasted; -1 beyond the answer and under `vanilla`.
        divergences: [stream, step], nats; NaN there.
        sum_mature: [stream], the log-probabilities of its tokens under the last layer alone, summed.
    """

    finished: Finished
    method: Ints
    premature_layers: NDArray[np.int16]
    divergences: NDArray[np.float32]
    sum_mature: NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """Logits of some rows at the readings they need.

    Attributes:
        logits: [pair, vocab].
        pair: [reading, row], where each is in `logits`.
        first, stop: the rows.
    """

    logits: Tensor
    pair: Ints
    first: int
    stop: int


class ContrastBatch(Batch):
    """Streams of several methods that decode together."""

    def __init__(
        self,
        loaded: LoadedModel,
        step: RaggedStep,
        prompts: Sequence[Prompt],
        cells: Sequence[ContrastCell],
        methods: Sequence[Method],
        sampling: Sampling,
        stops: StopFilter,
        share: bool,
        max_bytes: int | None,
    ) -> None:
        super().__init__(loaded, step, prompts, cells, sampling, stops, share, max_bytes)
        self.methods, self.heads = methods, Heads(loaded.anatomy, methods)
        self.method = np.repeat([cell.method for cell in cells], [cell.stop - cell.first for cell in cells])
        shape = self.out.tokens.shape
        self.premature_layers = np.full(shape, -1, dtype=np.int16)
        self.divergences = np.full(shape, np.nan, dtype=np.float32)
        self.sum_mature = np.zeros(shape[0])
        self.prompt_tokens: dict[int, Ints] = {}
        if any(method.penalty != 1.0 for method in methods):
            self.prompt_tokens = {
                int(index): np.unique(np.array(prompts[index].token_ids)) for index in np.unique(self.out.prompt)
            }

    def contrasted(self) -> Contrasted:
        """Decode until every stream has ended."""
        return Contrasted(self.run(), self.method, self.premature_layers, self.divergences, self.sum_mature)

    def _pairs(self) -> tuple[Ints, Ints, Ints]:
        """The (layer, row) pairs that are read, in that order: layer, row, and each live stream's pair at layer L."""
        n_rows, rows = len(self.depth), self.row[self.live]
        self.wanted = self.heads.wanted(self.method[self.live], rows, n_rows)
        there = np.zeros((self.loaded.n_layers + 1, n_rows), dtype=bool)
        for layer, of_row in zip(self.heads.layers, self.wanted, strict=True):
            there[layer] |= of_row
        layers, of_rows = np.nonzero(there)
        self.place = (there.ravel().cumsum() - 1).reshape(there.shape)
        return layers, of_rows, self.place[-1, rows]

    def _taps(self, exits: Ints, rows: Ints, n_blocks: int) -> list[Tensor | None]:
        n = int(np.searchsorted(exits, 1))
        self.step.input_taps = torch.from_numpy(rows[:n]).to(self.loaded.device) if n else None
        return super()._taps(exits, rows, n_blocks)

    def _draw(self, hidden: Tensor, position: int) -> Ints:
        """One token for each live stream, from the raw states of the pairs."""
        out, sampling, rows, methods = self.out, self.sampling, self.row[self.live], self.method[self.live]
        tokens = np.empty(len(self.live), dtype=np.int64)
        parts = self._parts(hidden, self.wanted)
        averaging = self._averaging(methods)
        fixed: dict[int, int] = {}
        if averaging and self._rows_per_part(self.wanted) >= self.wanted.shape[1]:
            held = list(parts)  # a single one: both passes read it
            parts, fixed = iter(held), self._averaged(held, averaging, rows, methods)
        elif averaging:
            inside = np.isin(methods, averaging)
            wanted = self.heads.wanted(methods[inside], rows[inside], self.wanted.shape[1])
            fixed = self._averaged(self._parts(hidden, wanted), averaging, rows, methods)
        for part in parts:
            for method, here, streams in self._pieces(part, rows, methods):
                place, of_stream = np.unique(rows[streams], return_inverse=True)
                found = self._contrast(part, method, place, here, position, fixed)
                chosen = self.live[streams]
                drawn = draw_tokens(
                    found.scores,
                    of_stream,
                    self.addresses,
                    chosen,
                    position,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k,
                )
                tokens[streams] = drawn.token
                out.sum_prob[chosen] += drawn.prob
                out.sum_logprob[chosen] += drawn.logprob
                out.sum_max_prob[chosen] += drawn.max_prob
                self._note(found, method, chosen, of_stream, drawn.token, drawn.logprob, position)
        out.tokens[self.live, position] = tokens
        out.n_tokens[self.live] = position + 1
        return tokens

    def _note(
        self,
        found: Contrast,
        method: int,
        streams: Ints,
        row: Ints,
        token: Ints,
        logprob: NDArray[np.float64],
        position: int,
    ) -> None:
        """Write down what was chosen for these streams."""
        if found.mature is not None:
            device = found.mature.device
            at = found.mature[torch.from_numpy(row).to(device), torch.from_numpy(token).to(device)]
            logprob = at.to(torch.float64).cpu().numpy()
        self.sum_mature[streams] += logprob
        if found.choice is not None and found.divergence is not None:
            candidates = np.array(self.methods[method].candidates, dtype=np.int16)
            self.premature_layers[streams, position] = candidates[found.choice.cpu().numpy()][row]
            self.divergences[streams, position] = found.divergence.float().cpu().numpy()[row]

    def _row_bytes(self) -> int:
        return self.loaded.vocab_size * (8 if self.loaded.dtype == torch.float64 else 4)

    def _rows_per_part(self, wanted: Bools) -> int:
        return max(1, plain.HEAD_BYTES // (self._row_bytes() * int(wanted.sum(0).max())))

    def _parts(self, hidden: Tensor, wanted: Bools) -> Iterator[_Part]:
        """The logits of all readings of some rows at a time, one product each."""
        n_rows = wanted.shape[1]
        size = self._rows_per_part(wanted)
        for first in range(0, n_rows, size):
            stop = min(first + size, n_rows)
            here = wanted[:, first:stop]
            reading, row = np.nonzero(here)
            states = self.place[self.heads.layers[reading], row + first]
            logits = self.heads.logits(hidden[torch.from_numpy(states).to(hidden.device)], reading)
            yield _Part(logits, (here.ravel().cumsum() - 1).reshape(here.shape), first, stop)

    def _pieces(self, part: _Part, rows: Ints, methods: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """The part's live streams by method, as many rows as a cache holds: method, pairs of its rows, streams."""
        for method in np.unique(methods):
            streams = np.flatnonzero((methods == method) & (rows >= part.first) & (rows < part.stop))
            streams = streams[np.argsort(rows[streams], kind="stable")]
            held = self._row_bytes() * (1 + len(self.heads.of[method]))
            most = plain.DRAW_BYTES.get(self.loaded.device.type, plain.HEAD_BYTES)
            size = max(1, most // held)
            place = np.unique(rows[streams])
            for start in range(0, len(place), size):
                piece = place[start : start + size]
                first, last = np.searchsorted(rows[streams], [piece[0], piece[-1] + 1])
                readings = np.concatenate([[0], self.heads.of[method]])
                yield int(method), part.pair[readings[:, None], piece - part.first], streams[first:last]

    def _contrast(
        self, part: _Part, method: int, place: Ints, pairs: Ints, position: int, fixed: dict[int, int]
    ) -> Contrast:
        logits = _taken(part.logits, pairs)
        seen = self._seen(place, position) if self.methods[method].penalty != 1.0 else None
        return contrast(logits[0], logits[1:], self.methods[method], seen, fixed.get(method))

    def _averaging(self, methods: Ints) -> list[int]:
        """Which of these methods take one candidate for all their live streams."""
        return [int(m) for m in np.unique(methods) if self.methods[m].averages]

    def _averaged(self, parts: Iterable[_Part], averaging: list[int], rows: Ints, methods: Ints) -> dict[int, int]:
        """The candidate with the largest mean divergence, for each of these methods; every stream counts once."""
        inside = np.isin(methods, averaging)
        rows, methods = rows[inside], methods[inside]
        total = {method: np.zeros(len(self.heads.of[method])) for method in averaging}
        for part in parts:
            for method, pairs, streams in self._pieces(part, rows, methods):
                logits = _taken(part.logits, pairs)
                _, counts = np.unique(rows[streams], return_counts=True)
                found = divergences(logits[0], logits[1:], self.methods[method]).double().cpu().numpy()
                total[method] += found @ counts
        return {method: int(value.argmax()) for method, value in total.items()}

    def _seen(self, place: Ints, position: int) -> Tensor:
        """The tokens of the prompt and of the answer so far of these rows: [row, n], repeats among them."""
        live_rows = self.row[self.live]
        _, first = np.unique(live_rows, return_index=True)
        stream = self.live[first[np.searchsorted(live_rows[first], place)]]  # any stream of the row has its tokens
        prompts = [self.prompt_tokens[int(index)] for index in self.out.prompt[stream]]
        width = max(map(len, prompts))
        seen = np.empty((len(place), width + position), dtype=np.int64)
        for row, ids in enumerate(prompts):
            seen[row, : len(ids)] = ids
            seen[row, len(ids) : width] = ids[0]
        seen[:, width:] = self.out.tokens[stream, :position]
        return torch.from_numpy(seen).to(self.loaded.device)


def _taken(logits: Tensor, pairs: Ints) -> Tensor:
    """[reading, row, vocab] of [pair, vocab]; no copy where the pairs follow each other."""
    flat = pairs.ravel()
    if len(flat) == flat[-1] - flat[0] + 1 and bool((np.diff(flat) == 1).all()):
        return logits[int(flat[0]) : int(flat[-1]) + 1].view(*pairs.shape, -1)
    return logits[torch.from_numpy(flat).to(logits.device)].view(*pairs.shape, -1)
