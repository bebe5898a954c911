"""Which streams decode together."""

from __future__ import annotations

from collections import Counter

import pytest

from hcl_cli.models.plan import Cell, halves, plan_batches

LENGTHS = [9, 30, 12, 12]
CELLS = [Cell(p, k, 0, 50) for p in range(4) for k in (1, 2, 3)]
UNEVEN = [*CELLS, Cell(2, 4, 40, 50)]


def samples(batch: list[Cell]) -> Counter[tuple[int, int, int]]:
    return Counter((cell.prompt, cell.exit_layer, index) for cell in batch for index in range(cell.first, cell.stop))


@pytest.mark.parametrize("batch_tokens", [1, 500, 3000, 12_000, 10**6])
def test_batches_hold_every_sample_once_and_keep_to_the_budget(batch_tokens: int) -> None:
    """A question beyond the budget is cut at sample indices, so a batch can hold one index more than fits."""
    batches = plan_batches(CELLS, LENGTHS, 10, batch_tokens)
    assert sum((samples(batch) for batch in batches), Counter()) == samples(CELLS)
    for batch in batches:
        longest = max(LENGTHS[cell.prompt] for cell in batch) + 10
        streams = samples(batch).total()
        one_index = len({cell.exit_layer for cell in batch}) if len({cell.prompt for cell in batch}) == 1 else 0
        assert (streams - one_index) * longest <= batch_tokens
    if batch_tokens == 10**6:
        assert len(batches) == 1
    uneven = plan_batches(UNEVEN, LENGTHS, 10, batch_tokens)
    assert sum((samples(batch) for batch in uneven), Counter()) == samples(UNEVEN)


def test_halves_end_at_single_streams() -> None:
    def leaves(batch: list[Cell]) -> list[list[Cell]]:
        parts = halves(batch)
        return [batch] if parts is None else [leaf for part in parts for leaf in leaves(part)]

    found = leaves(UNEVEN)
    assert sum((samples(leaf) for leaf in found), Counter()) == samples(UNEVEN)
    assert {samples(leaf).total() for leaf in found} == {1}
