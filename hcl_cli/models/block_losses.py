"""The loss of texts with the whole model and without each block alone.

The whole model runs once per batch, and hooks keep what goes into every block. A block is then left out by giving its
input to the block behind it: the blocks before it are not run again, which halves the cost. Every block is called with
what the model's own code gave it beside the hidden state (masks, rotary positions), so no forward is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput
from hcl_cli.models.cut import refuse_shared
from hcl_cli.models.losses import Ids, batch_of, batches_of, check_sequences, summed_losses
from hcl_cli.models.memory import run_or_halve

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.anatomy import Anatomy
    from hcl_cli.models.load import LoadedModel

DEFAULT_BATCH_TOKENS = 1 << 11
STATE_BYTES = 1 << 29  # of the states between blocks that are kept while a batch is measured

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockLosses:
    """Negative log-likelihoods, each the sum over a text's predicted tokens, in nats.

    Attributes:
        blocks: block numbers, 1..L, rising: those that were left out one at a time.
        n_tokens: [text], predicted tokens that count.
        whole: [text], of the whole model.
        without: [block, text].
    """

    blocks: tuple[int, ...]
    n_tokens: npt.NDArray[np.int64]
    whole: Floats
    without: Floats

    @property
    def mean_whole(self) -> float:
        """Mean over all tokens of the texts together, nats per token."""
        return float(self.whole.sum() / self.n_tokens.sum())

    @property
    def mean_without(self) -> Floats:
        """[block], likewise, without that block."""
        return np.asarray(self.without.sum(1) / self.n_tokens.sum())


@dataclass
class _Pass:
    """What one forward gave to its blocks.

    Attributes:
        states: the raw state in front of each block, and the one after the last.
        calls: for each block, its further arguments by position and by name.
    """

    states: list[Tensor] = field(default_factory=list)
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


def block_losses(
    loaded: LoadedModel,
    sequences: Sequence[Ids],
    firsts: Sequence[int] | None = None,
    *,
    blocks: Collection[int] | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> BlockLosses:
    """Loss of each text with the whole model and without each block alone.

    Texts of like lengths run together; neither that nor the order changes a loss beyond rounding.

    Args:
        loaded: the model, of at least two blocks.
        sequences: token ids of each text, at least two and no more than the model's positions.
        firsts: of each text the position of the first token that counts (of an answer: where it begins), at least 1;
            by default 1.
        blocks: which to leave out, 1..L; all by default.
        batch_tokens: budget of one forward: texts times the longest of them. Less where the states between blocks
            would outgrow STATE_BYTES.
        progress: told (texts done, texts).
    Raises:
        BadInput: no text, or one that cannot be measured; a loss that is not finite; blocks that share weights.
        EnvironmentRefused: a single text does not fit the memory.
        ValueError: a model of one block, or a block outside 1..L.
    Source: Shortened LLaMA (arXiv 2402.02834), whose criterion is the perplexity without each block.
    """
    import torch

    anatomy, n_layers = loaded.anatomy, loaded.n_layers
    wanted = tuple(sorted(set(range(1, n_layers + 1) if blocks is None else blocks)))
    if n_layers < 2 or any(not 1 <= block <= n_layers for block in wanted):
        raise ValueError(f"blocks {wanted} of {n_layers}: nothing left, or outside 1..{n_layers}")
    refuse_shared(loaded)
    starts = check_sequences(loaded, sequences, firsts)
    whole = np.zeros(len(sequences))
    without = np.zeros((len(wanted), len(sequences)))
    per_token = (n_layers + 1) * int(anatomy.config.hidden_size) * loaded.dtype.itemsize
    queue = batches_of(sequences, min(batch_tokens, max(1, STATE_BYTES // per_token)))[::-1]
    done = 0
    with torch.inference_mode():
        while queue:
            rows = queue.pop()
            found = run_or_halve(
                rows, queue, lambda rows: _measured(loaded, sequences, starts, rows, wanted), loaded.device,
                lambda row: f"a text of {len(sequences[row])} tokens",
            )  # fmt: skip
            if found is None:
                continue
            whole[rows], without[:, rows] = found[0], found[1:]
            done += len(rows)
            if progress is not None:
                progress(done, len(sequences))
    if not (np.isfinite(whole).all() and np.isfinite(without).all()):
        dtype = str(loaded.dtype).removeprefix("torch.")
        raise BadInput(
            f"--model {loaded.name}: a loss that is not finite in {dtype}, with all blocks or without one; use --dtype "
            "float32 (or bfloat16 where float16 overflows), or another model"
        )
    n_tokens = np.array([len(ids) - first for ids, first in zip(sequences, starts, strict=True)], dtype=np.int64)
    return BlockLosses(wanted, n_tokens, whole, without)


def _measured(
    loaded: LoadedModel, sequences: Sequence[Ids], firsts: Sequence[int], rows: list[int], wanted: Sequence[int]
) -> Floats:
    """[1 + block, text]: the whole model first."""
    import torch

    batch = batch_of(loaded, sequences, rows, firsts)
    anatomy = loaded.anatomy
    with _recorded(anatomy) as seen:
        # The decoder alone: the logits are made from the raw state, a few rows at a time.
        anatomy.decoder(input_ids=batch.ids, use_cache=False)
    found = [summed_losses(loaded, seen.states[-1], batch)]
    for block in wanted:
        hidden = seen.states[block - 1]
        for index in range(block, loaded.n_layers):
            args, kwargs = seen.calls[index]
            output = anatomy.blocks[index](hidden, *args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        found.append(summed_losses(loaded, hidden, batch))
    values: Floats = torch.stack(found).numpy()
    return values


@contextmanager
def _recorded(anatomy: Anatomy) -> Iterator[_Pass]:
    seen = _Pass()

    def before(_block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.states.append(args[0] if args else kwargs["hidden_states"])
        seen.calls.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    def after(_block: Any, _args: Any, output: Any) -> None:
        seen.states.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in anatomy.blocks]
    handles.append(anatomy.blocks[-1].register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
