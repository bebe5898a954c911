"""How far criteria agree: ranks of four blocks by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hcl_cli.schemas import CRITERIA_COMPARED
from hcl_cli.stages.criteria_compared import criteria_compared

Row = dict[str, Any]

DAMAGE = [0.1, 0.2, 0.3, 0.0]


def rows(
    criterion: str,
    ranks: list[int | None],
    removed: tuple[int, ...],
    *,
    seed: int | None = None,
    damage: list[float] | None = DAMAGE,
) -> list[Row]:
    return [
        {"model": "m", "dataset": "d", "criterion": criterion, "activations": None, "seed": seed, "block": block,
         "rank": rank, "removed": block in removed, "damage": None if damage is None else damage[block - 1]}
        for block, rank in enumerate(ranks, 1)
    ]  # fmt: skip


def compared(*criteria: list[Row], n_permutations: int = 99) -> list[Row]:
    frame = criteria_compared([row for each in criteria for row in each], n_permutations=n_permutations, seed=0)
    assert dict(frame.schema) == CRITERIA_COMPARED.polars_schema()
    return frame.to_dicts()


def test_pairs_and_damage_by_hand() -> None:
    """Ranks 1234 and 2143: rho = 1 - 6 x 4 / 60 = 0.6. The damage has ranks 2341: 1 - 72 / 60 = -0.2 with the first,
    1 - 48 / 60 = 0.2 with the second. Fisher's z of 0.6 has standard error sqrt(1.18)."""
    pair, one, two = compared(rows("avss", [1, 2, 3, 4], (1, 2)), rows("angular", [2, 1, 4, 3], (2, 3)))
    assert (pair["model"], pair["dataset"], pair["criterion"], pair["other"]) == ("m", "d", "avss", "angular")
    assert pair["rank_correlation"] == pytest.approx(0.6)
    half = 1.959964 * math.sqrt(1.18)
    assert pair["rank_correlation_low"] == pytest.approx(math.tanh(math.atanh(0.6) - half), abs=1e-6)
    assert pair["rank_correlation_high"] == pytest.approx(math.tanh(math.atanh(0.6) + half), abs=1e-6)
    assert (pair["n_blocks"], pair["n_common"], pair["n_removed"]) == (4, 1, 2)
    assert 0 < pair["p_value"] <= 1
    for row, criterion, rho in ((one, "avss", -0.2), (two, "angular", 0.2)):
        assert (row["criterion"], row["other"]) == (criterion, "damage")
        assert row["rank_correlation"] == pytest.approx(rho)
        assert (row["n_blocks"], row["n_common"], row["n_removed"]) == (4, None, None)


def test_the_same_order_is_1_without_an_interval() -> None:
    """And without permutations there is no p-value."""
    (pair,) = compared(
        rows("avss", [4, 3, 2, 1], (4,), damage=None), rows("last", [4, 3, 2, 1], (4,), damage=None), n_permutations=0
    )
    assert pair["rank_correlation"] == pytest.approx(1.0)
    assert [pair[name] for name in ("rank_correlation_low", "rank_correlation_high", "p_value")] == [None] * 3
    assert (pair["n_common"], pair["n_removed"]) == (1, 1)


def test_unequal_numbers_of_removed_blocks_are_no_number() -> None:
    """Rules by shares remove as many as they like."""
    (pair,) = compared(
        rows("avss", [1, 2, 3, 4], (1, 2), damage=None), rows("angular", [1, 2, 3, 4], (1,), damage=None)
    )
    assert (pair["n_common"], pair["n_removed"]) == (1, None)


def test_seeds_are_criteria_of_their_own() -> None:
    found = compared(rows("random", [1, 2, 3, 4], (1,), seed=0), rows("random", [4, 3, 2, 1], (4,), seed=1))
    assert [(row["seed"], row["other"], row["other_seed"]) for row in found] == [
        (0, "random", 1), (0, "damage", None), (1, "damage", None),
    ]  # fmt: skip
    assert found[0]["rank_correlation"] == pytest.approx(-1.0)


def test_a_search_and_given_blocks_have_no_row() -> None:
    """They rank only some blocks, or none."""
    found = compared(
        rows("avss", [1, 2, 3, 4], (1,)), rows("greedy", [1, None, 2, None], (1, 3)), rows("given", [None] * 4, (2,))
    )
    assert [(row["criterion"], row["other"]) for row in found] == [("avss", "damage")]
    assert compared(rows("greedy", [1, None, 2, None], (1, 3))) == []
