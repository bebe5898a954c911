"""BLOCKS -> how far criteria agree: with each other, and with the true damage of removing each block alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hcl_cli.measures.rank_correlation import rank_correlation
from hcl_cli.schemas import CRITERIA_COMPARED
from hcl_cli.stages.removed import Key, key_of

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]

DAMAGE = "damage"


def criteria_compared(blocks: Sequence[Row], *, n_permutations: int, seed: int) -> pl.DataFrame:
    """CRITERIA_COMPARED: one row per pair of criteria, and per criterion with the damage where it was measured.

    What is correlated is the order of removal (`rank`), and of the damage its size: 1 means that the block which
    matters least goes first. A search ranks only the blocks that it removed, so it has no row; neither have blocks
    that were given.

    Args:
        blocks: rows of BLOCKS of one model and data set.
        n_permutations, seed: of the p-values.
    """
    import polars as pl

    by_key: dict[Key, list[Row]] = {}
    for row in blocks:
        by_key.setdefault(key_of(row), []).append(row)
    ranked = {key: rows for key, rows in by_key.items() if all(row["rank"] is not None for row in rows)}
    found = []
    for (key, rows), (other, others) in itertools.combinations(ranked.items(), 2):
        gone, gone_too = ({row["block"] for row in each if row["removed"]} for each in (rows, others))
        correlation = rank_correlation(
            [row["rank"] for row in rows], [row["rank"] for row in others], n_permutations=n_permutations, seed=seed
        )
        found.append(
            _row(rows, key, other, correlation)
            | {"n_common": len(gone & gone_too), "n_removed": len(gone) if len(gone) == len(gone_too) else None}
        )
    for key, rows in ranked.items():
        if all(row["damage"] is not None for row in rows):
            correlation = rank_correlation(
                [row["rank"] for row in rows],
                [row["damage"] for row in rows],
                n_permutations=n_permutations,
                seed=seed,
            )
            found.append(_row(rows, key, (DAMAGE, None, None), correlation))
    return pl.DataFrame(found, schema=CRITERIA_COMPARED.polars_schema())


def _row(rows: Sequence[Row], key: Key, other: Key, correlation: Any) -> Row:
    rho, low, high, p_value = (None if math.isnan(value) else float(value) for value in correlation)
    names = ("criterion", "activations", "seed"), ("other", "other_activations", "other_seed")
    return {
        **{name: rows[0][name] for name in ("model", "dataset")},
        **dict(zip(names[0], key, strict=True)), **dict(zip(names[1], other, strict=True)),
        "rank_correlation": rho, "rank_correlation_low": low, "rank_correlation_high": high, "p_value": p_value,
        "n_blocks": len(rows), "n_common": None, "n_removed": None,
    }  # fmt: skip
