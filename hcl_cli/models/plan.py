"""Which streams decode together: fixed by the questions, the cells and a token budget, by nothing else."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Cell:
    """Samples `first` .. `stop - 1` of one exit layer of one prompt.

    Attributes:
        prompt: index into the prompts.
        exit_layer: 1..L, after that many blocks.
        first, stop: range of sample indices.
    """

    prompt: int
    exit_layer: int
    first: int
    stop: int


def plan_batches(cells: list[Cell], lengths: list[int], max_new_tokens: int, batch_tokens: int) -> list[list[Cell]]:
    """Cells in batches of at most `batch_tokens`, counted as if no two streams shared anything.

    Questions are taken in the order of their length, so that little of a batch is padding. A question that alone
    exceeds the budget is divided evenly over its sample indices: its parts come near the budget, above it where exits
    lack different samples.

    Args:
        lengths: tokens of each prompt.
    Returns:
        batches of cells; together they hold every sample once.
    """
    by_prompt: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.stop > cell.first:
            by_prompt[cell.prompt].append(cell)
    batches: list[list[Cell]] = []
    batch: list[Cell] = []
    streams = 0
    for prompt in sorted(by_prompt, key=lambda index: (lengths[index], index)):
        per_stream = lengths[prompt] + max_new_tokens
        for part in _divided(by_prompt[prompt], max(1, batch_tokens // per_stream)):
            new = sum(cell.stop - cell.first for cell in part)
            if batch and (streams + new) * per_stream > batch_tokens:
                batches.append(batch)
                batch, streams = [], 0
            batch = batch + part
            streams += new
    return [*batches, batch] if batch else batches


def _divided(cells: list[Cell], most: int) -> list[list[Cell]]:
    """One question's cells in parts of about `most` streams, cut at the same sample indices in every exit layer."""
    total = sum(cell.stop - cell.first for cell in cells)
    first, stop = min(cell.first for cell in cells), max(cell.stop for cell in cells)
    n_parts = min(-(-total // most), stop - first)
    cuts = [first + (stop - first) * part // n_parts for part in range(n_parts + 1)]
    parts = []
    for low, high in zip(cuts, cuts[1:], strict=False):
        part = [
            replace(cell, first=max(cell.first, low), stop=min(cell.stop, high))
            for cell in cells
            if max(cell.first, low) < min(cell.stop, high)
        ]
        if part:
            parts.append(part)
    return parts


def halves(batch: list[Cell]) -> tuple[list[Cell], list[Cell]] | None:
    """A batch in two: by question, else by sample index, else by exit layer; None if it is a single stream."""
    prompts = sorted({cell.prompt for cell in batch})
    if len(prompts) > 1:
        lower = set(prompts[: len(prompts) // 2])
        return [c for c in batch if c.prompt in lower], [c for c in batch if c.prompt not in lower]
    parts = _divided(batch, max(1, sum(cell.stop - cell.first for cell in batch) // 2))
    if len(parts) > 1:
        middle = len(parts) // 2
        return [c for part in parts[:middle] for c in part], [c for part in parts[middle:] for c in part]
    if len(batch) > 1:
        return batch[: len(batch) // 2], batch[len(batch) // 2 :]
    return None
