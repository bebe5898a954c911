"""Blocks removed one at a time, each time the one whose loss is missed least: exhaustive single removal, repeated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hcl_cli.errors import BadOption
from hcl_cli.models.block_losses import DEFAULT_BATCH_TOKENS, BlockLosses, block_losses
from hcl_cli.models.cut import without_blocks

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel


@dataclass(frozen=True)
class GreedyStep:
    """One removal.

    Attributes:
        block: the one that went, 1..L of the whole model.
        losses: of what was left before, and without each candidate besides; its blocks are numbered 1..L of the whole
            model.
    """

    block: int
    losses: BlockLosses

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token after this removal, nats."""
        return float(self.losses.mean_without[self.losses.blocks.index(self.block)])


@dataclass(frozen=True)
class GreedyPath:
    """The removals in their order.

    Attributes:
        steps: at least one.
    """

    steps: tuple[GreedyStep, ...]

    @property
    def removed(self) -> tuple[int, ...]:
        """The blocks in the order in which they went; the first n are the answer for n."""
        return tuple(step.block for step in self.steps)

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean negative log-likelihood per token with 0, 1, ... blocks removed, nats."""
        return (self.steps[0].losses.mean_whole, *(step.loss for step in self.steps))


def greedy_removal(
    loaded: LoadedModel,
    sequences: Sequence[Sequence[int]],
    n_blocks: int,
    *,
    firsts: Sequence[int] | None = None,
    protected: Collection[int] = (),
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> GreedyPath:
    """Remove `n_blocks` blocks one after the other, each time the one without which the loss is lowest.

    This is the exhaustive traversal of single layers that the EAVSS paper (arXiv 2411.10069) compares with. Among
    equals the lower block number goes. The order does not depend on how many are removed in all.

    Args:
        loaded: the model.
        sequences: token ids of each text, as for `block_losses`.
        n_blocks: how many, 1..L - 1, and no more than are not protected.
        firsts: of each text the first token that counts, see `block_losses`.
        protected: blocks that stay, 1..L.
        batch_tokens: see `block_losses`.
        progress: told (texts done, texts) over all steps together.
    Raises:
        BadOption: more blocks than may go, or none.
        BadInput, EnvironmentRefused: as `block_losses`.
    """
    n_layers = loaded.n_layers
    free = [block for block in range(1, n_layers + 1) if block not in protected]
    most = min(len(free), n_layers - 1)
    if not 1 <= n_blocks <= most:
        kept = f", since {n_layers - len(free)} are protected" if len(free) < n_layers else ""
        raise BadOption(
            f"{n_blocks} blocks to remove one after the other: expected 1 to {most} of the {n_layers} blocks of "
            f"{loaded.name}{kept}"
        )
    steps: list[GreedyStep] = []
    for done in range(n_blocks):
        removed = [step.block for step in steps]
        left = [block for block in range(1, n_layers + 1) if block not in removed]
        candidates = [number for number, block in enumerate(left, 1) if block in free]
        with without_blocks(loaded, removed) if removed else nullcontext(loaded) as current:
            found = block_losses(
                current,
                sequences,
                firsts,
                blocks=candidates,
                batch_tokens=batch_tokens,
                progress=_shifted(progress, done * len(sequences), n_blocks * len(sequences)),
            )
        losses = replace(found, blocks=tuple(left[number - 1] for number in found.blocks))
        steps.append(GreedyStep(losses.blocks[int(np.argmin(losses.mean_without))], losses))
    return GreedyPath(tuple(steps))


def _shifted(progress: Callable[[int, int], None] | None, before: int, of: int) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, _: progress(before + done, of)
