"""One forward pass over answers behind their prompts: the mean state of each answer, and how likely it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.hidden_items import Item
    from hcl_cli.models.load import LoadedModel


@dataclass(frozen=True)
class AnswerPass:
    """What was read, with gradients where the model's parameters ask for them.

    Attributes:
        states: [block, answer, width], float32 or wider: mean over the answer's own tokens of each block's output, as
            it is before the final norm.
        loss: [answer], mean negative log-likelihood in nats of the answer's tokens and of what follows them in the
            sequence (an end-of-sequence token); 0 for answers that it was not asked of.
    """

    states: Tensor
    loss: Tensor


def answer_pass(
    loaded: LoadedModel, items: Sequence[Item], blocks: Sequence[int], likelihood_of: Sequence[bool]
) -> AnswerPass:
    """Run some answers together, padded on the right, where causal attention does not see it.

    Args:
        loaded: the model.
        items: the sequences; the answer's own tokens are `ids[first:stop]`, at least one, and `first` is at least 1.
        blocks: whose outputs are read, 1..L.
        likelihood_of: [answer], for which the loss is wanted; the head runs on these only.
    """
    import torch

    ids, own, learned = (one.to(loaded.device) for one in _laid_out(items, likelihood_of))
    with _tapped(loaded, {*blocks, loaded.n_layers}) as outputs:
        # The decoder alone: logits are needed at few places.
        loaded.anatomy.decoder(input_ids=ids, use_cache=False)
    wide = torch.promote_types(loaded.dtype, torch.float32)
    counts = own.sum(1, keepdim=True)
    # Filled, not multiplied: a padded position may hold anything.
    states = torch.stack(
        [outputs[block].to(wide).masked_fill(~own[:, :, None], 0.0).sum(1) / counts for block in blocks]
    )
    before = learned.roll(-1, 1)  # a token is predicted at the place in front of it; the first one never is
    logits = loaded.anatomy.head(outputs[loaded.n_layers][before])
    each = torch.nn.functional.cross_entropy(logits.to(wide), ids[learned], reduction="none")
    row = torch.arange(len(items), device=loaded.device)[:, None].expand_as(ids)[learned]
    sums = each.new_zeros(len(items)).index_add(0, row, each)
    return AnswerPass(states, sums / learned.sum(1).clamp(min=1))


def _laid_out(items: Sequence[Item], likelihood_of: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """[answer, position]: tokens, which are the answer's own, and which are learned."""
    import torch

    shape = len(items), max(len(item.ids) for item in items)
    ids = torch.zeros(shape, dtype=torch.int64)
    own, learned = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (item, wanted) in enumerate(zip(items, likelihood_of, strict=True)):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        own[row, item.first : item.stop] = True
        learned[row, item.first : len(item.ids)] = wanted
    return ids, own, learned


@contextmanager
def _tapped(loaded: LoadedModel, blocks: set[int]) -> Iterator[dict[int, Tensor]]:
    """Keeps [answer, position, width] of the blocks' outputs, 1..L, of a forward inside the context."""
    outputs: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(_block: Any, _args: Any, output: Any) -> None:
            outputs[number] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [loaded.anatomy.blocks[number - 1].register_forward_hook(keep(number)) for number in blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
