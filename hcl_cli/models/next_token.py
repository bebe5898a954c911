"""What the model says next: its likeliest token and the log-probabilities of given ones, after each of many texts.

Only the last position of a text reaches the head. What all texts begin with (demonstrations, an instruction) is run
once, and its keys and values are read by all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hcl_cli.models.memory import run_or_halve
from hcl_cli.models.readout import BATCH_TOKENS, Readout

if TYPE_CHECKING:
    from transformers.cache_utils import DynamicCache

    from hcl_cli.models.anatomy import Anatomy
    from hcl_cli.models.load import LoadedModel


Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ids = Sequence[int]

MIN_SHARED = 16  # tokens: a shorter common beginning costs less than a pass of its own


@dataclass(frozen=True)
class NextTokens:
    """The next token after each text.

    Attributes:
        top_id: [text], the likeliest token, the first of equals.
        logprobs: [text, wanted], of the tokens asked for, nats.
    """

    top_id: Ints
    logprobs: Floats


def next_tokens(
    loaded: LoadedModel,
    sequences: Sequence[Ids],
    wanted: Sequence[int],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> NextTokens:
    """The model's next-token distribution after each text, at its likeliest token and at the wanted ones.

    Args:
        loaded: the model.
        sequences: token ids, each at least one long and no longer than the model's positions.
        wanted: token ids, below the width of the logits.
        batch_tokens: budget of one forward: texts times the longest of them.
        progress: told (texts done, texts).
    Raises:
        EnvironmentRefused: a single text does not fit the memory.
        ValueError: an empty text.
    """
    if not all(len(sequence) for sequence in sequences):
        raise ValueError("a text without tokens: nothing follows it")
    top_id = np.zeros(len(sequences), dtype=np.int64)
    logprobs = np.zeros((len(sequences), len(wanted)))
    shared = _common_beginning(sequences)
    n_shared = len(shared) if len(sequences) > 1 and len(shared) >= MIN_SHARED else 0
    asked = torch.tensor(list(wanted), dtype=torch.long, device=loaded.device)
    done = 0
    with torch.inference_mode(), _last_block(loaded.anatomy) as states:
        beginning = _keys_and_values(loaded, shared) if n_shared else None

        def run(rows: list[int]) -> list[tuple[Tensor, Tensor]]:
            hidden = _last_states(loaded, [sequences[row][n_shared:] for row in rows], beginning, n_shared, states)
            return [
                (part.argmax(-1), part[:, asked])
                for _, part in Readout(loaded.anatomy, "norm").logprobs(loaded.n_layers, hidden)
            ]

        queue = _batches(sequences, batch_tokens)[::-1]
        while queue:
            rows = queue.pop()
            states.clear()  # what a batch that did not fit left behind
            parts = run_or_halve(
                rows, queue, run, loaded.device, lambda row: f"a text of {len(sequences[row])} tokens"
            )  # fmt: skip
            if parts is None:
                continue
            top_id[rows] = torch.cat([top for top, _ in parts]).cpu().numpy()
            logprobs[rows] = torch.cat([values for _, values in parts]).double().cpu().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(sequences))
    return NextTokens(top_id, logprobs)


def _common_beginning(sequences: Sequence[Ids]) -> tuple[int, ...]:
    """The tokens that all texts begin with, each keeping at least one of its own."""
    if not sequences:
        return ()
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))  # any two differ no earlier than these do
    n = min(map(len, sequences)) - 1
    return first[: next((at for at in range(n) if first[at] != last[at]), n)]


def _batches(sequences: Sequence[Ids], batch_tokens: int) -> list[list[int]]:
    """Texts of like lengths together, longest first, at most `batch_tokens` with padding (or one text)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(sequences)), key=lambda row: -len(sequences[row])):
        if batches and (len(batches[-1]) + 1) * len(sequences[batches[-1][0]]) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


@contextmanager
def _last_block(anatomy: Anatomy) -> Iterator[list[Tensor]]:
    """The raw states after the last block: the library's own are normed, and the head norms again."""
    states: list[Tensor] = []

    def keep(_block: Any, _args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handle = anatomy.blocks[-1].register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def _keys_and_values(loaded: LoadedModel, shared: Ids) -> list[tuple[Tensor, Tensor]]:
    """Per block the keys and values of one text, each [1, head, position, head_dim]."""
    from transformers.cache_utils import DynamicCache

    # Without a configuration every block keeps all positions; the model's own masks hide what a window leaves out.
    cache = DynamicCache()
    ids = torch.tensor([list(shared)], device=loaded.device)
    loaded.anatomy.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
    layers: list[Any] = list(cache.layers)
    return [(layer.keys, layer.values) for layer in layers]


def _last_states(
    loaded: LoadedModel,
    batch: Sequence[Ids],
    beginning: list[tuple[Tensor, Tensor]] | None,
    n_shared: int,
    states: list[Tensor],
) -> Tensor:
    """The raw state after the last block at the last token of each text, [text, hidden]."""
    ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
    for row, sequence in enumerate(batch):
        ids[row, : len(sequence)] = torch.tensor(list(sequence))  # padding right: no token sees what follows it
    last = torch.tensor([len(sequence) - 1 for sequence in batch], device=loaded.device)
    states.clear()
    past = _for_rows(beginning, len(batch)) if beginning is not None else None
    loaded.anatomy.decoder(
        input_ids=ids.to(loaded.device),
        position_ids=torch.arange(n_shared, n_shared + ids.shape[1], device=loaded.device).expand_as(ids),
        past_key_values=past,
        use_cache=past is not None,
    )
    return states.pop()[torch.arange(len(batch), device=loaded.device), last]


def _for_rows(beginning: list[tuple[Tensor, Tensor]], n_rows: int) -> DynamicCache:
    from transformers.cache_utils import DynamicCache

    return DynamicCache([tuple(kept.expand(n_rows, -1, -1, -1) for kept in pair) for pair in beginning])
