"""What the model says when it ends after `layer` blocks: the plain definition, and the oracle of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hcl_cli.models.anatomy import Anatomy, find_anatomy

if TYPE_CHECKING:
    from torch import Tensor


def set_depth(anatomy: Anatomy, layer: int) -> None:
    """Let the decoder run its first `layer` blocks only; `anatomy.n_layers` brings the whole model back."""
    setattr(anatomy.decoder, anatomy.blocks_name, anatomy.blocks[:layer])
    anatomy.config.num_hidden_layers = layer


def restore_depth(anatomy: Anatomy) -> None:
    """Put the model's own list of blocks back."""
    setattr(anatomy.decoder, anatomy.blocks_name, anatomy.blocks)
    anatomy.config.num_hidden_layers = anatomy.n_layers


@contextmanager
def exit_at(model: Any, layer: int) -> Iterator[Any]:
    """Run `model` as if it ended after `layer` blocks (1..L). Its own norm, head and key-value cache are used."""
    anatomy = find_anatomy(model)
    if not 1 <= layer <= anatomy.n_layers:
        raise ValueError(f"exit layer {layer} is outside 1..{anatomy.n_layers}")
    set_depth(anatomy, layer)
    try:
        yield model
    finally:
        restore_depth(anatomy)


def exit_logits(model: Any, token_ids: Tensor) -> Tensor:
    """Logits of every exit at every position, in one pass over plain unpadded text.

    Args:
        token_ids: [batch, position].
    Returns:
        [exit, batch, position, vocab]; row k - 1 is exit k, after k blocks.
    """
    import torch

    anatomy = find_anatomy(model)
    outputs: list[Tensor] = []

    def keep(_block: Any, _args: Any, output: Any) -> None:
        # The last entry of `hidden_states` is already normed, hence hooks: every exit is read the same way.
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in anatomy.blocks]
    try:
        with torch.inference_mode():
            model(input_ids=token_ids, use_cache=False)
            return torch.stack([anatomy.head(hidden) for hidden in outputs])
    finally:
        for handle in handles:
            handle.remove()
