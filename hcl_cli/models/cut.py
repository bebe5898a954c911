"""A model without some of its blocks: the same module, cut in place and put back when the context ends.

What a decoder's own code looks up by a block's number moves with the blocks: their list, `num_hidden_layers`, every
per-layer list of the configuration, and the `layer_idx` under which a block keeps its keys and values. Nothing is
copied. Which window or rotary positions a block has stays what it was: that is held by the block, or by the entry of
the per-layer list that moves with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.models.block_parts import refuse_shared_blocks

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

# Configuration entries that hold numbers of blocks, from 0 (others with "layer" or "block" in their name and one entry
# per block hold a value per block), and those that say how many blocks at the beginning are of one kind.
_NUMBERS = ("mlp_only_layers",)
_LEADING = ("max_window_layers", "first_k_dense_replace")


@contextmanager
def without_blocks(loaded: LoadedModel, removed: Collection[int]) -> Iterator[LoadedModel]:
    """The model as if it had never had the blocks `removed`; inside the context only.

    What it yields is used like any loaded model: exits and blocks are numbered 1..L - len(removed) anew, and it can be
    cut again. The outer `loaded` must not be used inside. Everything is as before when the context ends, also after an
    error.

    Args:
        removed: block numbers, 1..L.
    Raises:
        BadOption: no block, every block, or a number outside 1..L.
        BadInput: blocks that share weights, or keys and values, so that one cannot go without another.
        ValueError: the model is cut already (by another context, or to an exit) and `loaded` is not what that yielded.
    """
    from torch import nn

    anatomy = loaded.anatomy
    if getattr(anatomy.decoder, anatomy.blocks_name) is not anatomy.blocks:
        raise ValueError(f"{loaded.name} is cut already: cut the model that the outer context yielded")
    gone = checked_blocks(loaded, removed)
    refuse_shared(loaded)
    kept = [index for index in range(loaded.n_layers) if index + 1 not in gone]
    blocks = nn.ModuleList([anatomy.blocks[index] for index in kept])
    configs = _configs(loaded)
    settings = [(config, dict(vars(config))) for config in [*configs, loaded.model.config]]
    numbers = _numbered(anatomy.blocks)
    try:
        setattr(anatomy.decoder, anatomy.blocks_name, blocks)
        for config in configs:
            _trim(config, anatomy.blocks, kept)
        for module, name, index in numbers:
            if index in kept:
                setattr(module, name, kept.index(index))
        yield replace(loaded, anatomy=replace(anatomy, blocks=blocks))
    finally:
        setattr(anatomy.decoder, anatomy.blocks_name, anatomy.blocks)
        for config, setting in settings:
            vars(config).clear()
            vars(config).update(setting)
        for module, name, index in numbers:
            setattr(module, name, index)


def checked_blocks(loaded: LoadedModel, removed: Collection[int]) -> frozenset[int]:
    """The blocks to remove, each once.

    Raises:
        BadOption: no block, every block, or a number outside 1..L.
    """
    blocks = frozenset(int(block) for block in removed)
    n_layers, name = loaded.n_layers, loaded.name
    outside = sorted(block for block in blocks if not 1 <= block <= n_layers)
    if outside:
        raise BadOption(f"block {outside[0]} cannot be removed: {name} has blocks 1..{n_layers}; name some of those")
    if not blocks:
        raise BadOption(f"no block to remove: expected 1 to {n_layers - 1} of the {n_layers} blocks of {name}")
    if len(blocks) == n_layers:
        raise BadOption(
            f"all {n_layers} blocks of {name} would be removed and nothing left; remove {n_layers - 1} at most"
        )
    return blocks


def blocks_after(loaded: LoadedModel, exit_layer: int) -> tuple[int, ...]:
    """The blocks that go when the model shall end after `exit_layer` blocks, as under LayerSkip's early exit.

    Raises:
        BadOption: an exit that keeps nothing or everything.
    """
    if not 1 <= exit_layer < loaded.n_layers:
        raise BadOption(
            f"--keep-first {exit_layer}: {loaded.name} has {loaded.n_layers} blocks; keep 1 to {loaded.n_layers - 1}"
        )
    return tuple(range(exit_layer + 1, loaded.n_layers + 1))


def refuse_shared(loaded: LoadedModel) -> None:
    """See that every block stands for itself.

    Raises:
        BadInput: blocks that share a weight, or that read the keys and values of another block.
    """
    refuse_shared_blocks(loaded.anatomy)
    config = loaded.anatomy.config
    reading = getattr(config, "num_kv_shared_layers", None) or sum(
        mode == "reuse" for mode in getattr(config, "kv_sharing_modes", None) or ()
    )
    if reading:
        raise BadInput(
            f"--model {loaded.name}: {reading} of its blocks read the keys and values of another block, which can "
            "therefore not be removed alone; use another model"
        )


def _configs(loaded: LoadedModel) -> list[Any]:
    """Every configuration object that says how many blocks the decoder has."""
    anatomy = loaded.anatomy
    found = [anatomy.config, loaded.model.config, loaded.model.config.get_text_config(decoder=True)]
    found += [module.config for module in loaded.model.modules() if hasattr(module, "config")]
    alike = {id(config): config for config in found if type(config) is type(anatomy.config)}
    return [config for config in alike.values() if config.num_hidden_layers == anatomy.n_layers]


def _numbered(blocks: Any) -> list[tuple[Any, str, int]]:
    """Where a block or a part of it keeps its own number, from 0: module, attribute, number."""
    return [
        (module, name, index)
        for index, block in enumerate(blocks)
        for module in block.modules()
        for name in ("layer_idx", "layer_id", "layer_index")
        if vars(module).get(name) == index and not isinstance(vars(module)[name], bool)
    ]


def _trim(config: Any, blocks: Any, kept: Sequence[int]) -> None:
    """Let a configuration describe the blocks `kept` (from 0) alone. Values are replaced, never changed in place."""
    n_layers = len(blocks)
    entries = dict(vars(config))
    for name, value in entries.items():
        if name in _NUMBERS and value is not None:
            setattr(config, name, [kept.index(index) for index in value if index in kept])
        elif name in _LEADING and value is not None:
            setattr(config, name, int(value) - sum(index < value for index in range(n_layers) if index not in kept))
        elif _is_per_block(name, value, n_layers):
            setattr(config, name, type(value)(value[index] for index in kept))
    if (entries.get("decoder_sparse_step") or 1) != 1:
        # Every so many blocks a mixture of experts: what is left need not be regular, so the dense ones are named.
        step, dense = entries["decoder_sparse_step"], entries.get("mlp_only_layers") or ()
        config.mlp_only_layers = [
            number for number, index in enumerate(kept) if index in dense or (index + 1) % step != 0
        ]
        config.decoder_sparse_step = 1
    if "attention_types" in entries:  # GPT-Neo writes its `attention_layers` as repeated patterns
        config.attention_types = [[list(config.attention_layers), 1]]
    config.num_hidden_layers = len(kept)


def _is_per_block(name: str, value: Any, n_layers: int) -> bool:
    named = ("layer" in name or "block" in name) and not name.startswith("mtp_")
    return named and isinstance(value, list | tuple) and len(value) == n_layers
