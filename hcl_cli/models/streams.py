"""What goes into the sampler and what comes out, as plain columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hcl_cli.models.draws import Addresses, question_key
from hcl_cli.models.plan import Cell

LIVE, EOS, STOP, LENGTH = range(4)
FINISH_REASONS = ("", "eos", "stop", "length")


@dataclass(frozen=True)
class Prompt:
    """A question as the model reads it.

    Attributes:
        question_id: the address of its random numbers.
        token_ids: with whatever the tokenizer puts in front.
    """

    question_id: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when an answer ends.

    Attributes:
        temperature: 0 takes the likeliest token, ties by token id.
        top_p: in (0, 1].
        top_k: 0 for off; applied after the temperature and before top_p, as in most samplers.
        stop: an answer ends with the token that completes one of these; it is cut off the text.
        stop_after_text: count a stop string only after the first non-blank character.
        seed: 0..2**32 - 1.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 50
    stop: tuple[str, ...] = ("\n",)
    stop_after_text: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Streams:
    """Answers in columns, one entry per stream, in the order of (cell, sample).

    Attributes:
        prompt: index into the prompts.
        exit_layer: 1..L.
        sample_index: 0..
        token_ids: generated tokens, the end-of-sequence token included.
        text: decoded, special tokens left out, cut before a stop string.
        finish_reason: eos | stop | length.
        n_tokens: length of `token_ids`.
        mean_prob, mean_logprob, mean_max_prob: means over tokens of the chosen token's probability, its logarithm
            in nats, and the likeliest token's probability, all before temperature, top-k and top-p; float32.
        drafted, accepted_drafts, verifications: drafts that were made and, of these, emitted; passes of the full model.
            All 0 where nothing is drafted.
    """

    prompt: NDArray[np.int32]
    exit_layer: NDArray[np.int16]
    sample_index: NDArray[np.int32]
    token_ids: list[tuple[int, ...]]
    text: list[str]
    finish_reason: list[str]
    n_tokens: NDArray[np.int32]
    mean_prob: NDArray[np.float32]
    mean_logprob: NDArray[np.float32]
    mean_max_prob: NDArray[np.float32]
    drafted: NDArray[np.int32]
    accepted_drafts: NDArray[np.int32]
    verifications: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.text)


@dataclass
class Finished:
    """Streams of one batch, in columns. `tokens` is [stream, step]; `sum_*` are sums over the stream's tokens."""

    prompt: NDArray[np.int64]
    exit_layer: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    tokens: NDArray[np.int32]
    n_tokens: NDArray[np.int64]
    reason: NDArray[np.int8]
    sum_prob: NDArray[np.float64]
    sum_logprob: NDArray[np.float64]
    sum_max_prob: NDArray[np.float64]
    drafted: NDArray[np.int64]
    accepted_drafts: NDArray[np.int64]
    verifications: NDArray[np.int64]


def empty_columns(cells: Sequence[Cell], max_new_tokens: int) -> Finished:
    """Columns for the samples of these cells, in order, nothing generated yet."""
    counts = [cell.stop - cell.first for cell in cells]
    total = sum(counts)
    return Finished(
        prompt=np.repeat([cell.prompt for cell in cells], counts),
        exit_layer=np.repeat([cell.exit_layer for cell in cells], counts),
        sample_index=np.concatenate([np.arange(cell.first, cell.stop) for cell in cells]),
        tokens=np.zeros((total, max_new_tokens), dtype=np.int32),
        n_tokens=np.zeros(total, dtype=np.int64),
        reason=np.full(total, LIVE, dtype=np.int8),
        sum_prob=np.zeros(total),
        sum_logprob=np.zeros(total),
        sum_max_prob=np.zeros(total),
        drafted=np.zeros(total, dtype=np.int64),
        accepted_drafts=np.zeros(total, dtype=np.int64),
        verifications=np.zeros(total, dtype=np.int64),
    )


def addresses_of(prompts: Sequence[Prompt], columns: Finished, seed: int) -> Addresses:
    """Where the random numbers of these streams lie."""
    keys = {int(index): question_key(prompts[index].question_id) for index in np.unique(columns.prompt)}
    return Addresses(
        key=np.array([keys[int(index)] for index in columns.prompt], dtype=np.uint32).reshape(-1, 2),
        exit_layer=columns.exit_layer.astype(np.uint32),
        sample=columns.sample_index.astype(np.uint32),
        seed=seed,
    )
