"""Hidden states of a chosen token of many sequences: every layer in one pass, batch by batch.

Hooks read the residual stream between blocks, since the last of the library's hidden states is already normed. The
token's row is picked inside the hook, so [layer, batch, position, width] is never held, and the head is never run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hcl_cli.errors import BadInput, shown
from hcl_cli.models.hidden_items import Item, Job, Layer, batches_of, layers_of

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.load import LoadedModel

__all__ = ["DEFAULT_BATCH_TOKENS", "DTYPES", "HiddenStates", "Item", "Layer", "States", "hidden_states", "layers_of"]

DTYPES = ("float32", "float16")
DEFAULT_BATCH_TOKENS = 1 << 11
# A beginning that all sequences share (the examples of a few-shot prompt) runs once, if it is worth a cache.
FEWEST_SHARED = 8

States = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class HiddenStates:
    """What was read.

    Attributes:
        states: [sequence, layer, width], in the order of the items and of `layers`.
        layers: what the second axis is.
    """

    states: States
    layers: tuple[Layer, ...]


def hidden_states(
    loaded: LoadedModel,
    items: Sequence[Item],
    *,
    token: str,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    dtype: str = "float32",
    layers: Collection[tuple[int, bool]] | None = None,
    padding: Literal["right", "left"] = "right",
) -> HiddenStates:
    """Hidden states of the chosen token of every sequence.

    Sequences of like lengths run together; blocks behind the deepest layer that is asked for do not run. A beginning
    that all sequences share runs once. None of this changes a state beyond rounding.

    Args:
        loaded: the model.
        items: the sequences.
        token: last, last-content or mean, see `Item.places`. A mean is taken in float32; of the last layer after the
            norm it is the mean of normed states.
        batch_tokens: budget of one forward: sequences times the longest of them.
        dtype: one of DTYPES.
        layers: (exit layer, whether normed); all of `layers_of` by default. Read in rising order.
        padding: on which side of a batch; under causal attention nothing sees padding on the right, and no mask is
            needed, which is quicker.
    Raises:
        BadInput: a sequence without the token, longer than the model's positions or with tokens that it lacks; a
            state that is not finite, or beyond float16.
        EnvironmentRefused: a single sequence does not fit the memory.
    """
    import torch

    from hcl_cli.models.memory import run_or_halve

    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
    every = layers_of(loaded.n_layers)
    asked = set(every) if layers is None else {Layer(*layer) for layer in layers}
    if not asked or not asked <= set(every):
        raise ValueError(f"layers {sorted(asked)}: expected some of {every}")
    for item in items:
        _check(loaded, item)
    jobs = [Job(index, item, item.places(token)) for index, item in enumerate(items)]
    wanted = tuple(layer for layer in every if layer in asked)
    width = int(loaded.anatomy.config.hidden_size)
    states: States = np.empty((len(items), len(wanted), width), dtype=dtype)

    def described(job: Job) -> str:
        return f"statement '{shown(job.item.statement_id)}' of {len(job.item.ids)} tokens"

    with torch.inference_mode(), _cut_after(loaded, wanted[-1].exit_layer):
        shared = _shared(loaded, jobs) if padding == "right" else None
        queue = batches_of(jobs, batch_tokens, 0 if shared is None else shared.n)[::-1]
        while queue:
            batch = queue.pop()
            found = run_or_halve(
                batch, queue, lambda jobs: _read(loaded, jobs, wanted, padding, shared), loaded.device, described,
                "statement",
            )  # fmt: skip
            if found is not None:
                states[[job.row for job in batch]] = _stored(loaded, found, batch, wanted, dtype)
    return HiddenStates(states, wanted)


class _Shared(NamedTuple):
    """The beginning of all sequences: how long it is, and what attention keeps of it."""

    n: int
    cache: Any


def _check(loaded: LoadedModel, item: Item) -> None:
    label, n = f"statement '{shown(item.statement_id)}'", len(item.ids)
    if loaded.max_positions is not None and n > loaded.max_positions:
        raise BadInput(
            f"{label}: {n} tokens with its prompt, but the model has {loaded.max_positions} positions; shorten it, "
            "use a shorter prompt or leave it out"
        )
    known = int(loaded.model.get_input_embeddings().weight.shape[0])
    if n and max(item.ids) >= known:
        raise BadInput(
            f"{label}: it has token {max(item.ids)}, but {loaded.name} knows 0..{known - 1}; its tokenizer belongs to "
            "another model"
        )


# --------------------------------------------------------------------------------------------------- one forward


def _read(
    loaded: LoadedModel, batch: Sequence[Job], wanted: Sequence[Layer], padding: str, shared: _Shared | None
) -> Tensor:
    import torch

    skipped = 0 if shared is None else shared.n
    rows = [job.item.ids[skipped:] for job in batch]
    width = max(map(len, rows))
    starts = [width - len(row) if padding == "left" else 0 for row in rows]
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask, chosen = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for row, (start, tokens, job) in enumerate(zip(starts, rows, batch, strict=True)):
        ids[row, start : start + len(tokens)] = torch.tensor(tokens)
        mask[row, start : start + len(tokens)] = 1
        chosen[row, start - skipped + job.places.start : start - skipped + job.places.stop] = True
    device = loaded.device
    options: dict[str, Any] = {"use_cache": False}
    padded = None
    if padding == "left" and any(starts):
        options |= {"attention_mask": mask.to(device), "position_ids": (mask.cumsum(1) - 1).clamp(min=0).to(device)}
        padded = (mask == 0)[:, :, None].to(device)
    if shared is not None:
        cache = copy.deepcopy(shared.cache)  # the forward adds to it
        cache.batch_repeat_interleave(len(rows))
        options |= {"use_cache": True, "past_key_values": cache}
    with _picking(loaded, wanted, chosen.to(device), padded) as picked:
        # The decoder alone, so that no logits are made.
        loaded.anatomy.decoder(input_ids=ids.to(device), **options)
    return torch.stack([picked[layer] for layer in wanted], 1)


@contextmanager
def _picking(
    loaded: LoadedModel, wanted: Collection[Layer], chosen: Tensor, padded: Tensor | None
) -> Iterator[dict[Layer, Tensor]]:
    """Keep [sequence, width] of every wanted layer of the forward inside the context: the mean over `chosen`.

    Args:
        chosen: [sequence, position], bool, at least one in each row.
        padded: [sequence, position, 1], bool: where left padding is; None without.
    """
    import torch

    anatomy = loaded.anatomy
    picked: dict[Layer, Tensor] = {}
    counts = chosen.sum(1, keepdim=True)
    single = chosen.int().argmax(1) if bool((counts == 1).all()) else None
    sequence = torch.arange(len(chosen), device=chosen.device)

    def pick(layer: Layer, hidden: Tensor) -> None:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        if single is not None:
            picked[layer] = hidden[sequence, single].to(wide)
        else:
            # Filled, not multiplied: a padded position may hold NaN.
            picked[layer] = hidden.to(wide).masked_fill(~chosen[:, :, None], 0.0).sum(1) / counts

    def before(_block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pick(Layer(0), args[0] if args else kwargs["hidden_states"])

    def after(layer: Layer) -> Callable[[Any, Any, Any], Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if layer in wanted:
                pick(layer, hidden)
            if padded is None or layer.normed:
                return None
            # A padded position sees no token, which some attention turns into NaN; 0 * NaN would spread it.
            hidden = hidden.masked_fill(padded, 0.0)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    handles = []
    for number, block in enumerate(anatomy.blocks, 1):
        if padded is not None or Layer(number) in wanted:
            handles.append(block.register_forward_hook(after(Layer(number))))
    if Layer(0) in wanted:
        handles.append(anatomy.blocks[0].register_forward_pre_hook(before, with_kwargs=True))
    if Layer(loaded.n_layers, True) in wanted:
        handles.append(anatomy.final_norm.register_forward_hook(after(Layer(loaded.n_layers, True))))
    try:
        yield picked
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _cut_after(loaded: LoadedModel, exit_layer: int) -> Iterator[None]:
    """Run no block behind `exit_layer` inside the context."""
    from hcl_cli.models.exits import restore_depth, set_depth

    if exit_layer == loaded.n_layers:
        yield
        return
    set_depth(loaded.anatomy, max(1, exit_layer))
    try:
        yield
    finally:
        restore_depth(loaded.anatomy)


def _shared(loaded: LoadedModel, jobs: Sequence[Job]) -> _Shared | None:
    """Run what all sequences begin with, up to the first chosen token of any.

    None if that is too little, or more than the memory holds (then a batch says which statement is too long for it).
    """
    import torch
    from transformers import DynamicCache

    from hcl_cli.models.memory import is_out_of_memory

    if len(jobs) < 2:
        return None
    low, high = min(job.item.ids for job in jobs), max(job.item.ids for job in jobs)  # these two differ the earliest
    n = next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    n = min(n, *(job.places.start for job in jobs))
    if n < FEWEST_SHARED:
        return None
    cache = DynamicCache(config=loaded.anatomy.config)
    ids = torch.tensor([low[:n]], device=loaded.device)
    try:
        loaded.anatomy.decoder(input_ids=ids, use_cache=True, past_key_values=cache)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return _Shared(n, cache)


# ------------------------------------------------------------------------------------------------- what is kept


def _stored(loaded: LoadedModel, found: Tensor, batch: Sequence[Job], wanted: Sequence[Layer], dtype: str) -> States:
    """The states in the type that is kept, on the host.

    Raises:
        BadInput: a value that is not finite, or that the type cannot hold.
    """
    import torch

    kept = found.to(getattr(torch, dtype))
    if not bool(kept.isfinite().all()):
        row, slot, place = (int(index) for index in (~kept.isfinite()).nonzero()[0])
        where = f"statement '{shown(batch[row].item.statement_id)}', layer {wanted[slot].name}"
        value = float(found[row, slot, place])
        if np.isfinite(value):
            raise BadInput(
                f"{where}: the hidden state holds {value:.6g}, more than {dtype} can; use --state-dtype float32"
            )
        raise BadInput(
            f"--model {loaded.name}: {where}: the hidden state is not finite, in "
            f"{str(loaded.dtype).removeprefix('torch.')}; use --dtype float32 (or bfloat16 where float16 overflows), "
            "and if that does not help another model"
        )
    states: States = kept.cpu().numpy()
    return states
