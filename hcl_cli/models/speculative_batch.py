"""One batch of self-speculative decoding. Bookkeeping in arrays; streams with equal tokens share a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hcl_cli.models.aligned_cache import AlignedCache
from hcl_cli.models.batch import DRAW_BYTES, HEAD_BYTES, PROMPT_TOKENS
from hcl_cli.models.draws import ACCEPTANCE, DRAFT, RESIDUAL, draw_tokens
from hcl_cli.models.exits import set_depth
from hcl_cli.models.nucleus import drawn_from, nucleus_probs
from hcl_cli.models.plan import Cell
from hcl_cli.models.stops import StopFilter, decoded, first_stop
from hcl_cli.models.streams import EOS, LENGTH, LIVE, STOP, Finished, Prompt, Sampling, addresses_of, empty_columns

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Judged:
    """What became of one round.

    Attributes:
        accepted: [live], how many drafts.
        tokens: [live, place], the accepted drafts and the token that follows them; -1 beyond.
        logprob, max_logprob: [live, place], of these tokens and of the likeliest ones under the full model, nats.
    """

    def __init__(self, n_live: int, n_places: int) -> None:
        self.accepted: Ints = np.zeros(n_live, dtype=np.int64)
        self.tokens: Ints = np.full((n_live, n_places), -1)
        self.logprob: Floats = np.zeros((n_live, n_places))
        self.max_logprob: Floats = np.zeros((n_live, n_places))


class SpeculativeBatch:
    """Streams of one exit layer that decode together.

    Per row: `length`, its tokens in the cache, and `newest`, the token that is run next. Per live stream: `row`.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: Sequence[Prompt],
        cells: Sequence[Cell],
        sampling: Sampling,
        stops: StopFilter,
        draft_tokens: int,
    ) -> None:
        self.loaded, self.sampling, self.stops, self.most_drafts = loaded, sampling, stops, draft_tokens
        self.exit_layer = cells[0].exit_layer
        self.out = empty_columns(cells, sampling.max_new_tokens)
        self.addresses = addresses_of(prompts, self.out, sampling.seed)
        self.is_eos = np.zeros(loaded.vocab_size, dtype=bool)
        self.is_eos[[token for token in loaded.eos_ids if token < loaded.vocab_size]] = True
        self.live = np.arange(len(self.out.prompt))
        used, self.row = np.unique(self.out.prompt, return_inverse=True)
        self.prompt_ids = [prompts[index].token_ids for index in used]
        self.length = np.array([len(ids) - 1 for ids in self.prompt_ids])
        self.newest = np.array([ids[-1] for ids in self.prompt_ids])
        self.cache = AlignedCache(loaded.n_layers)
        self.further: Any = None  # what a block returns beside the hidden states, None for nothing
        row_bytes = loaded.vocab_size * 8
        self.per_head = max(1, DRAW_BYTES.get(loaded.device.type, HEAD_BYTES) // row_bytes)

    def run(self) -> Finished:
        """Decode until every stream has ended."""
        self._prompts()
        while len(self.live):
            left = self.sampling.max_new_tokens - self.out.n_tokens[self.live]
            most = np.minimum(self.most_drafts, left - 1)
            before = self.row
            drafts, states = self._draft(int(most.max()))
            most = np.minimum(most, _length_with_eos(self.is_eos[drafts]))
            judged = self._judged(before, drafts, most, states, self._verified(drafts, states))
            self.out.drafted[self.live] += most
            self._emit(judged)
            self._regroup(before, judged)
        return self.out

    # ------------------------------------------------------------------------------------------------ forward passes

    def _prompts(self) -> None:
        """Run every prompt but for its last token, through all blocks."""
        width = int(self.length.max())
        if width == 0:
            return
        ids = np.zeros((len(self.length), width), dtype=np.int64)
        for row, tokens in enumerate(self.prompt_ids):
            ids[row, width - len(tokens) + 1 :] = tokens[:-1]
        mask = np.arange(width) >= width - self.length[:, None]
        size = max(1, PROMPT_TOKENS // width)
        parts = []
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            cache = AlignedCache(self.loaded.n_layers)
            seen = None if mask[part].all() else self._tensor(mask[part])
            cache.padding = None if seen is None else ~seen
            with self._tapped(self.loaded.n_layers):
                self._decoder(
                    self._tensor(ids[part]),
                    self._tensor(np.maximum(mask[part].cumsum(1) - 1, 0)),
                    None if seen is None else seen.long(),
                    cache,
                )
            parts.append(cache)
        self.cache.join(parts)
        self.cache.past = width

    def _draft(self, n: int) -> tuple[Ints, Tensor]:
        """Run the newest token and n drafts through the first blocks; rows fork where streams draw different tokens.

        Returns:
            drafts [live, n]; the states after the exit layer [row, n + 1, hidden].
        """
        drafts = np.zeros((len(self.live), n), dtype=np.int64)
        states = torch.empty(0)
        newest, start = self.newest, self.cache.past
        set_depth(self.loaded.anatomy, self.exit_layer)
        for step in range(n + 1):
            self.cache.past = start + step
            with self._tapped(self.exit_layer) as tapped:
                self._forward(newest[:, None], step)
            new = tapped[-1][:, -1:]
            states = torch.cat([states, new], 1) if step else new
            if step == n:
                break
            drafts[:, step] = self._drawn(new[:, 0], step)
            code = self.row * self.loaded.vocab_size + drafts[:, step]
            _, first, group = np.unique(code, return_index=True, return_inverse=True)
            parents, newest = self.row[first], drafts[first, step]
            self.row = group
            self.length = self.length[parents]
            if len(parents) != len(states) or (parents != np.arange(len(parents))).any():
                index = self._tensor(parents)
                self.cache.take(index)
                states = states.index_select(0, index)
        self.cache.past = start
        return drafts, states

    def _verified(self, drafts: Ints, states: Tensor) -> Tensor:
        """Run the blocks above the exit layer on the states of all drafts; [row, n + 1, hidden] after the last one."""
        if self.exit_layer == self.loaded.n_layers:
            return states
        _, first = np.unique(self.row, return_index=True)
        # The embedding of these tokens is not used, but a decoder wants some.
        tokens = np.concatenate([drafts[first], np.zeros((len(first), 1), dtype=np.int64)], 1)
        set_depth(self.loaded.anatomy, self.loaded.n_layers)
        with self._resumed(states), self._tapped(self.loaded.n_layers) as tapped:
            self._forward(tokens, 0)
        return tapped[-1]

    def _forward(self, tokens: Ints, step: int) -> None:
        """Run tokens [row, new] that follow the row's tokens and `step` drafts."""
        new = tokens.shape[1]
        length = self.length + step
        positions = length[:, None] + np.arange(new)
        if self.loaded.max_positions is not None:
            # A row whose answer is nearly complete drafts less than its neighbours; what it runs beyond is not used.
            positions = np.minimum(positions, self.loaded.max_positions - 1)
        total = self.cache.past + new
        seen = np.arange(total) >= total - (length[:, None] + new)
        mask = None if seen.all() else self._tensor(seen.astype(np.int64))
        self._decoder(self._tensor(tokens), self._tensor(positions), mask, self.cache)

    def _decoder(self, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: AlignedCache) -> None:
        self.loaded.anatomy.decoder(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        )

    @contextmanager
    def _tapped(self, layer: int) -> Iterator[list[Tensor]]:
        """The raw states after a block: the library's own last ones are normed."""
        found: list[Tensor] = []

        def keep(_block: Any, _args: Any, output: Any) -> None:
            self.further = output[1:] if isinstance(output, tuple) else None
            found.append(output[0] if isinstance(output, tuple) else output)

        handle = self.loaded.anatomy.blocks[layer - 1].register_forward_hook(keep)
        try:
            yield found
        finally:
            handle.remove()

    @contextmanager
    def _resumed(self, states: Tensor) -> Iterator[None]:
        """Blocks up to the exit layer do not run; the next one is given `states`."""
        below = list(self.loaded.anatomy.blocks)[: self.exit_layer]
        further = self.further

        def kept(*_args: Any, **_kwargs: Any) -> Any:
            return states if further is None else (states, *further)

        for block in below:
            block.forward = kept  # of this module alone: it hides the class's own
        try:
            yield
        finally:
            for block in below:
                del block.forward

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.loaded.device)

    # ------------------------------------------------------------------------------------------------- distributions

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.loaded.anatomy.head(hidden)
        logits = logits.cpu() if logits.device.type == "mps" else logits  # no float64 there
        return logits if logits.dtype == torch.float64 else logits.float()

    def _nucleus(self, logits: Tensor) -> Tensor:
        given = self.sampling
        return nucleus_probs(logits, temperature=given.temperature, top_p=given.top_p, top_k=given.top_k)

    def _drawn(self, hidden: Tensor, step: int) -> Ints:
        """A draft for each live stream, from the states of the rows after the exit layer."""
        tokens = np.empty(len(self.live), dtype=np.int64)
        given = self.sampling
        for start, stop, chosen in self._pieces(len(hidden)):
            streams = self.live[chosen]
            tokens[chosen] = draw_tokens(
                self._logits(hidden[start:stop]), self.row[chosen] - start, self.addresses, streams,
                self.out.n_tokens[streams] + step, temperature=given.temperature, top_p=given.top_p,
                top_k=given.top_k, purpose=DRAFT,
            ).token  # fmt: skip
        return tokens

    def _pieces(self, n_rows: int) -> Iterator[tuple[int, int, Ints]]:
        """As many rows as logits may be held of, and the live streams on them."""
        order = np.argsort(self.row, kind="stable")
        for start in range(0, n_rows, self.per_head):
            stop = min(start + self.per_head, n_rows)
            first, last = np.searchsorted(self.row[order], [start, stop])
            yield start, stop, order[first:last]

    def _judged(self, before: Ints, drafts: Ints, most: Ints, states: Tensor, final: Tensor) -> Judged:
        """Accept drafts, from the first on, and draw the token that follows the last accepted one.

        Place by place, so that only distributions which decide something are made: one for all streams with the same
        tokens so far.

        Args:
            before: [live], the row of each stream when the round began.
            most: [live], how many of its drafts count.
            states, final: [row, n + 1, hidden], after the exit layer and after the last block.
        """
        n = drafts.shape[1]
        found = Judged(len(most), n + 1)
        open_, node = np.arange(len(most)), before
        for place in range(n + 1):
            _, first, group = np.unique(node[open_], return_index=True, return_inverse=True)
            rows = self.row[open_[first]]  # any row with these tokens
            order = np.argsort(group, kind="stable")
            going = np.zeros(len(open_), dtype=bool)
            for start in range(0, len(rows), self.per_head):
                stop = min(start + self.per_head, len(rows))
                low, high = np.searchsorted(group[order], [start, stop])
                part = order[low:high]
                index = self._tensor(rows[start:stop])
                going[part] = self._judge_place(
                    found,
                    place,
                    open_[part],
                    group[part] - start,
                    drafts,
                    most,
                    states[index, place],
                    final[index, place],
                )
            open_ = open_[going]
            if not len(open_):
                break
            code = node * self.loaded.vocab_size + drafts[:, place] if place < n else node
            node = np.unique(code, return_inverse=True)[1].reshape(-1)
        return found

    def _judge_place(
        self, found: Judged, place: int, live: Ints, node: Ints, drafts: Ints, most: Ints, states: Tensor, final: Tensor
    ) -> NDArray[np.bool_]:
        """Judge some live streams at one place; returns whose draft was accepted.

        Args:
            live: indices into the live streams.
            node: [stream], their row in `states` and `final` [node, hidden].
        """
        logits = self._logits(final)
        if not bool(logits.amax(-1).isfinite().all()):  # NaN wins a maximum
            raise FloatingPointError("logits that are not finite")
        streams = self.live[live]
        step = self.out.n_tokens[streams] + place
        has_draft = place < most[live]
        tokens, accepted = np.zeros(len(live), dtype=np.int64), np.zeros(len(live), dtype=bool)
        if has_draft.any():
            drafted = np.flatnonzero(has_draft)
            full, of_exit = self._nucleus(logits), self._nucleus(self._logits(states))
            own = drafts[live[drafted], place]
            at = self._on(full, node[drafted]), self._on(full, own)
            uniform = self._uniforms(streams[drafted], step[drafted], ACCEPTANCE)
            kept = uniform * of_exit[at].cpu().numpy() < full[at].cpu().numpy()
            accepted[drafted], tokens[drafted] = kept, own
            rejected = drafted[~kept]
            tokens[rejected] = self._replaced(full, of_exit, node[rejected], streams[rejected], step[rejected])
        if not has_draft.all():
            free = np.flatnonzero(~has_draft)
            given = self.sampling
            tokens[free] = draw_tokens(
                logits, node[free], self.addresses, streams[free], step[free], temperature=given.temperature,
                top_p=given.top_p, top_k=given.top_k,
            ).token  # fmt: skip
        logprobs = logits.log_softmax(-1)
        where = self._on(logits, node)
        found.accepted[live] += accepted
        found.tokens[live, place] = tokens
        found.logprob[live, place] = logprobs[where, self._on(logits, tokens)].double().cpu().numpy()
        found.max_logprob[live, place] = logprobs.amax(-1)[where].double().cpu().numpy()
        return accepted

    def _replaced(self, full: Tensor, of_exit: Tensor, node: Ints, streams: Ints, step: Ints) -> Ints:
        """A token of the residual distribution for each stream whose draft was rejected."""
        tokens = np.empty(len(streams), dtype=np.int64)
        for start in range(0, len(streams), self.per_head):
            part = slice(start, start + self.per_head)
            index = self._on(full, node[part])
            residual = (full[index] - of_exit[index]).clamp_(min=0.0)
            # A rejection has probability 0 where the two are equal; rounding alone leaves an empty residual.
            residual = torch.where(residual.sum(-1, keepdim=True) > 0, residual, full[index])
            uniform = torch.from_numpy(self._uniforms(streams[part], step[part], RESIDUAL))
            tokens[part] = drawn_from(residual, uniform.to(full.device)).cpu().numpy()
        return tokens

    def _uniforms(self, streams: Ints, step: Ints, purpose: int) -> Floats:
        return self.addresses.uniforms(streams, step, 0, 1, purpose)[:, 0]

    def _on(self, like: Tensor, values: Ints) -> Tensor:
        """Indices where a tensor is: logits of MPS are worked on by the CPU."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)

    # ---------------------------------------------------------------------------------------------------- what is kept

    def _emit(self, judged: Judged) -> None:
        """Write down the round's tokens, and which streams they end."""
        out = self.out
        out.verifications[self.live] += 1
        going = np.ones(len(self.live), dtype=bool)
        for place in range(judged.tokens.shape[1]):
            index = np.flatnonzero(going & (place <= judged.accepted))
            if not len(index):
                break
            streams, tokens = self.live[index], judged.tokens[index, place]
            out.tokens[streams, out.n_tokens[streams]] = tokens
            out.n_tokens[streams] += 1
            out.accepted_drafts[streams] += place < judged.accepted[index]
            out.sum_logprob[streams] += judged.logprob[index, place]
            out.sum_prob[streams] += np.exp(judged.logprob[index, place])
            out.sum_max_prob[streams] += np.exp(judged.max_logprob[index, place])
            ended = self.is_eos[tokens]
            out.reason[streams[ended]] = EOS
            stopped = ~ended & self._stopped(streams, tokens)
            out.reason[streams[stopped]] = STOP
            full = ~ended & ~stopped & (out.n_tokens[streams] == self.sampling.max_new_tokens)
            out.reason[streams[full]] = LENGTH
            going[index[ended | stopped | full]] = False

    def _stopped(self, streams: Ints, tokens: Ints) -> NDArray[np.bool_]:
        """Which streams have completed a stop string with their newest token."""
        stopped = np.zeros(len(streams), dtype=bool)
        for index in np.flatnonzero(self.stops.can_end[tokens]):
            stream = streams[index]
            (text,) = decoded(self.loaded.tokenizer, [self.out.tokens[stream, : self.out.n_tokens[stream]].tolist()])
            stopped[index] = first_stop(text, self.stops.stops, self.sampling.stop_after_text) is not None
        return stopped

    def _regroup(self, before: Ints, judged: Judged) -> None:
        """Streams with equal tokens share a row again; what a row keeps of its drafts moves to the right end."""
        going = np.flatnonzero(self.out.reason[self.live] == LIVE)
        if len(going):
            code = np.concatenate([before[going, None], judged.tokens[going]], 1)
            _, first, group = np.unique(code, axis=0, return_index=True, return_inverse=True)
            chosen = going[first]
            parents, kept = self.row[chosen], judged.accepted[chosen] + 1
            self.length = self.length[parents] + kept
            self.newest = judged.tokens[chosen, kept - 1]
            width = int(self.length.max())
            columns = np.arange(width) - width + (self.cache.past + kept)[:, None]
            self.cache.take(self._tensor(parents), self._tensor(np.maximum(columns, 0)))
            self.cache.past = width
            self.row = group.reshape(-1)
        self.live = self.live[going]


def _length_with_eos(is_eos: NDArray[np.bool_]) -> Ints:
    """[stream], how long each draft [stream, n] is when it ends with its first end-of-sequence token."""
    n = is_eos.shape[1]
    return np.where(is_eos.any(1), is_eos.argmax(1) + 1 if n else 0, n) if n else np.zeros(len(is_eos), dtype=np.int64)
