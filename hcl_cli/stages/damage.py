"""What the model loses without each block alone: perplexity, and the rise of the loss with an interval over texts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.measures.token_means import token_means
from hcl_cli.stages.texts import tokenised, truncated

if TYPE_CHECKING:
    from hcl_cli.models.block_losses import BlockLosses
    from hcl_cli.models.load import LoadedModel

N_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A value with its 95 % interval over texts; the ends are null with fewer than two texts."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BlockDamage:
    """What is lost without one block alone.

    Attributes:
        block: 1..L.
        loss: mean negative log-likelihood per token without it, nats.
        perplexity: exp(loss): the `perplexity` criterion; the block with the lowest goes first.
        damage: rise of the loss over the whole model's, nats per token, paired over texts. Below 0 the model is better
            without the block on these texts.
    """

    block: int
    loss: Estimate
    perplexity: Estimate
    damage: Estimate


def loss_sequences(
    loaded: LoadedModel, texts: Iterable[tuple[str, str]], *, max_tokens: int | None = None
) -> list[tuple[int, ...]]:
    """Texts as token ids, what the tokenizer adds in front included, each cut to its first tokens.

    Args:
        texts: (text id, text).
        max_tokens: at least 2; never more than the model has positions.
    Raises:
        BadOption: fewer than two tokens.
        BadInput: no text, or one of fewer than two tokens: nothing predicts the first.
    """
    if max_tokens is not None and max_tokens < 2:
        raise BadOption(f"--max-tokens {max_tokens}: expected at least 2, since nothing predicts the first token")
    limits = [limit for limit in (max_tokens, loaded.max_positions) if limit is not None]
    sequences = []
    for text_id, text in texts:
        label = f"text '{shown(text_id)}'"
        ids, first, marks = tokenised(loaded.tokenizer, "", text, special_tokens=True, label=label)
        sequences.append(truncated(ids, first, marks, max_tokens=min(limits, default=None), cut=True, label=label)[0])
    if not sequences:
        raise BadInput("no text to measure the loss on: expected at least one")
    return sequences


def whole_loss(losses: BlockLosses, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Estimate:
    """Mean negative log-likelihood per token of the whole model, nats."""
    (estimate,) = _estimates(losses.whole[:, None], losses, n_resamples, seed)
    return estimate


def block_damage(losses: BlockLosses, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> list[BlockDamage]:
    """Perplexity and damage of every block that was left out, in the order of `losses.blocks`.

    Means are over all tokens of the texts together (Shortened LLaMA's samples are equally long); whole texts are drawn
    for the intervals, the same ones for every block and for the whole model, by the bootstrap of `token_means`.

    Args:
        n_resamples, seed: of the bootstrap.
    """
    without = _estimates(losses.without.T, losses, n_resamples, seed)
    rises = _estimates((losses.without - losses.whole).T, losses, n_resamples, seed)
    return [
        BlockDamage(block, loss, perplexity_of(loss), rise)
        for block, loss, rise in zip(losses.blocks, without, rises, strict=True)
    ]


def perplexity_of(loss: Estimate) -> Estimate:
    """exp of a mean negative log-likelihood and of its interval's ends."""
    return Estimate(_exp(loss.value), *(None if end is None else _exp(end) for end in loss[1:]))


def _exp(nats: float) -> float:
    return math.exp(nats) if nats < 709.0 else math.inf  # beyond what a float64 holds


def _estimates(sums: np.ndarray, losses: BlockLosses, n_resamples: int, seed: int) -> list[Estimate]:
    mean, low, high = token_means(sums, losses.n_tokens, n_resamples, seed)
    ends = [[None if math.isnan(end) else float(end) for end in side] for side in (low, high)]
    return [Estimate(float(value), *pair) for value, *pair in zip(mean, *ends, strict=True)]
