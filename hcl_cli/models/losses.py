"""Negative log-likelihoods of texts: batches of like lengths, padding right, logits a few rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hcl_cli.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.load import LoadedModel

Ids = Sequence[int]


class Batch(NamedTuple):
    """Texts that run together.

    Attributes:
        rows: which of all the texts.
        ids: [text, position], padded right with token 0: under causal attention nothing sees it.
        text, place: [predicted], which row of `ids` and which position predicts.
        following: [predicted], the token that really follows.
    """

    rows: list[int]
    ids: Tensor
    text: Tensor
    place: Tensor
    following: Tensor


def check_sequences(loaded: LoadedModel, sequences: Sequence[Ids], firsts: Sequence[int] | None = None) -> list[int]:
    """See that every text has something to predict and fits the model.

    Args:
        firsts: of each text the position of the first token that counts, at least 1; by default 1, since nothing
            predicts the token at 0.
    Returns:
        these positions.
    Raises:
        BadInput: no text, one of fewer than 2 tokens, longer than the model's positions, or with tokens it lacks.
    """
    if not sequences:
        raise BadInput("no text to measure the loss on: expected at least one")
    known = int(loaded.model.get_input_embeddings().weight.shape[0])
    for number, ids in enumerate(sequences, 1):
        if len(ids) < 2:
            raise BadInput(f"text {number}: {len(ids)} tokens, at least 2 are needed: nothing predicts the first")
        if loaded.max_positions is not None and len(ids) > loaded.max_positions:
            raise BadInput(
                f"text {number}: {len(ids)} tokens, but {loaded.name} has {loaded.max_positions} positions; cut it"
            )
        if max(ids) >= known or min(ids) < 0:
            raise BadInput(f"text {number}: it has token {max(ids)}, but {loaded.name} knows 0..{known - 1}")
    starts = [1] * len(sequences) if firsts is None else list(firsts)
    for number, (ids, first) in enumerate(zip(sequences, starts, strict=True), 1):
        if not 1 <= first < len(ids):
            raise BadInput(f"text {number}: no token of its {len(ids)} counts, the first one was to be {first + 1}")
    return starts


def batches_of(sequences: Sequence[Ids], batch_tokens: int) -> list[list[int]]:
    """Texts of like lengths together, longest first, at most `batch_tokens` with padding (or one text)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(sequences)), key=lambda row: -len(sequences[row])):
        if batches and (len(batches[-1]) + 1) * len(sequences[batches[-1][0]]) <= batch_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def batch_of(loaded: LoadedModel, sequences: Sequence[Ids], rows: list[int], firsts: Sequence[int]) -> Batch:
    """The texts `rows` as tensors on the model's device; `firsts` as for `check_sequences`."""
    import torch

    ids = torch.zeros(len(rows), max(len(sequences[row]) for row in rows), dtype=torch.long)
    predicted = torch.zeros_like(ids, dtype=torch.bool)
    for line, row in enumerate(rows):
        ids[line, : len(sequences[row])] = torch.tensor(list(sequences[row]))
        predicted[line, firsts[row] - 1 : len(sequences[row]) - 1] = True
    text, place = predicted.nonzero(as_tuple=True)
    following = ids[text, place + 1]
    return Batch(rows, *(part.to(loaded.device) for part in (ids, text, place, following)))


def summed_losses(loaded: LoadedModel, hidden: Tensor, batch: Batch) -> Tensor:
    """Negative log-likelihood of every text of a batch, the sum over its predicted tokens.

    Args:
        hidden: [text, position, hidden], the raw state after the last block.
    Returns:
        [text], nats, float64 on the CPU.
    """
    import torch

    from hcl_cli.models.readout import Readout

    states = hidden[batch.text, batch.place]
    sums = torch.zeros(len(batch.rows), dtype=torch.float64)
    for rows, logprobs in Readout(loaded.anatomy, "norm").logprobs(loaded.n_layers, states):
        found = logprobs.gather(1, batch.following[rows, None])[:, 0]
        sums.index_add_(0, batch.text[rows].cpu(), -found.cpu().double())
    return sums
