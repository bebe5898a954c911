"""Which blocks each criterion removes, read off the rows of BLOCKS. Light: a hit reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GREEDY, GIVEN = "greedy", "given"  # a search, and blocks that the user named: no scores

Key = tuple[str, str | None, int | None]  # criterion, activations, seed


def key_of(row: dict[str, Any]) -> Key:
    """Whose row of BLOCKS it is."""
    return row["criterion"], row["activations"], row["seed"]


def removed_by(rows: Sequence[dict[str, Any]]) -> dict[Key, tuple[int, ...]]:
    """The blocks that each criterion removes, rising; criteria in the order of the rows."""
    found: dict[Key, list[int]] = {}
    for row in rows:
        blocks = found.setdefault(key_of(row), [])
        if row["removed"]:
            blocks.append(row["block"])
    return {key: tuple(sorted(blocks)) for key, blocks in found.items()}
