"""Scores of blocks -> the order in which they go, and which go.

Blocks are numbered 1..L. Errors are one line that names the option.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RULES = ("lowest", "cumulative", "published", "contiguous")


@dataclass(frozen=True)
class Selection:
    """How many blocks go, and by which rule.

    Attributes:
        rule: `lowest`: the n first in the order of removal. `cumulative`: in that order, while the normalised scores
            add up to at most the fraction. `published`: the authors' script, which adds up in the order of DEPTH and
            sorts afterwards, so that the first blocks go whose scores together are at most the fraction, whatever
            each has. `contiguous`: the run of n neighbours that is best as a whole.
        fraction: in (0, 1): of the blocks (rounded down), or of the scores; None if `n` says how many.
        n: >= 1.
        protected: blocks that stay.
    """

    rule: str = "lowest"
    fraction: float | None = 0.25
    n: int | None = None
    protected: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"--rule {self.rule}: expected one of {', '.join(RULES)}")
        if (self.fraction is None) == (self.n is None):
            raise ValueError("--fraction and --n: expected exactly one of them")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(
                f"--fraction {self.fraction:g}: expected more than 0 and less than 1, like 0.25: at 0 nothing would go "
                "and at 1 nothing would be left"
            )
        if self.n is not None and self.n < 1:
            raise ValueError(f"--n {self.n}: expected at least 1 block to remove")
        if self.n is not None and self.rule in ("cumulative", "published"):
            raise ValueError(f"--n {self.n}: --rule {self.rule} needs a share of the scores; use --fraction")


def removal_order(scores: npt.ArrayLike, *, highest_first: bool = False) -> tuple[int, ...]:
    """All blocks, the one that goes first in front.

    Of equal scores the lower block goes first. A block without a score (NaN: a sparsity of 0, which is no reason to
    think little of it) goes last.
    """
    values = np.asarray(scores, dtype=np.float64)
    return tuple(int(block) + 1 for block in np.argsort(-values if highest_first else values, kind="stable"))


def removal_ranks(scores: npt.ArrayLike, *, highest_first: bool = False) -> npt.NDArray[np.int64]:
    """[block], 1 for the block that goes first."""
    order = np.array(removal_order(scores, highest_first=highest_first)) - 1
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def n_of_fraction(fraction: float, n_blocks: int) -> int:
    """floor(fraction x L), of the fraction as it was written: 0.29 of 100 blocks are 29."""
    return math.floor(round(fraction * n_blocks, 9))


def protected_blocks(text: str, n_blocks: int) -> frozenset[int]:
    """`first:4,last:2` -> blocks 1..4 and the last two.

    Raises:
        ValueError: anything else, or a number outside 0..L.
    """
    found: set[int] = set()
    for part in text.split(","):
        end, _, number = part.strip().partition(":")
        if end not in ("first", "last") or not number.isdecimal() or not number.isascii():
            raise ValueError(f"--protect {text}: expected first:N, last:N or both, like first:4,last:2")
        n = int(number)
        if n > n_blocks:
            raise ValueError(f"--protect {text}: the model has {n_blocks} blocks")
        found.update(range(1, n + 1) if end == "first" else range(n_blocks - n + 1, n_blocks + 1))
    return frozenset(found)


def removed_blocks(
    scores: npt.ArrayLike, selection: Selection, *, highest_first: bool = False, spans: Floats | None = None
) -> tuple[int, ...]:
    """Which blocks go, rising.

    Args:
        scores: [block], the criterion's; NaN where it has none.
        selection: how many, by which rule.
        highest_first: whether the highest score goes first.
        spans: [start, n], scores of whole runs (`angular`: Gromov et al. choose the run of n whose input and output
            are closest); otherwise `contiguous` goes by the sum of the scores of a run.
    Raises:
        ValueError: nothing would go, or nothing would be left, or more than is not protected; no run of n without a
            protected block; scores that cannot be shares (`cumulative`, `published`). One line.
    """
    values = np.asarray(scores, dtype=np.float64)
    n_blocks = len(values)
    free = [block for block in range(1, n_blocks + 1) if block not in selection.protected]
    if selection.rule in ("lowest", "contiguous"):
        n = _wanted(selection, n_blocks, len(free))
        if selection.rule == "contiguous":
            return _run(values, n, set(free), highest_first, spans)
        scored = [block for block in free if not math.isnan(values[block - 1])]
        if n > len(scored):
            raise ValueError(
                f"{n} blocks to remove, but only {len(scored)} of {len(free)} that may go have a score (none without a "
                "sparsity); use a larger --epsilon or another criterion"
            )
        order = removal_order(values, highest_first=highest_first)
        return tuple(sorted([block for block in order if block in free][:n]))
    assert selection.fraction is not None
    shares = _shares(values, selection)
    if selection.rule == "published":
        # Depth first, then the sort, which no longer matters to what is cut.
        order = tuple(range(1, n_blocks + 1))
    else:
        order = tuple(block for block in removal_order(values, highest_first=highest_first) if block in free)
    reached = np.cumsum(shares[np.array(order, dtype=np.int64) - 1])
    # A share that reaches the fraction up to rounding still goes.
    found = [block for block, sum_ in zip(order, reached, strict=True) if sum_ <= selection.fraction + 1e-12]
    found = [block for block in found if block not in selection.protected]
    if not found:
        raise ValueError(
            f"--fraction {selection.fraction:g}: no block goes by --rule {selection.rule}, since the first alone has a "
            "larger share of the scores or is protected; use a larger fraction, --rule lowest or --n"
        )
    return tuple(sorted(found))


def _wanted(selection: Selection, n_blocks: int, n_free: int) -> int:
    if selection.n is not None:
        n, what = selection.n, f"--n {selection.n}"
    else:
        assert selection.fraction is not None
        n, what = n_of_fraction(selection.fraction, n_blocks), f"--fraction {selection.fraction:g}"
    if n < 1:
        raise ValueError(f"{what}: less than one of {n_blocks} blocks; use --fraction {1 / n_blocks:.3g} or --n 1")
    if n >= n_blocks:
        raise ValueError(f"{what}: the model has {n_blocks} blocks, so none would be left; use at most {n_blocks - 1}")
    if n > n_free:
        raise ValueError(f"{what}: {n} blocks to remove, but --protect leaves {n_free} of {n_blocks}; use fewer")
    return n


def _run(values: Floats, n: int, free: Collection[int], highest_first: bool, spans: Floats | None) -> tuple[int, ...]:
    """The best run of n neighbours, none of them protected; of equal ones the first."""
    runs = [
        tuple(range(start, start + n))
        for start in range(1, len(values) - n + 2)
        if all(block in free for block in range(start, start + n))
    ]
    if not runs:
        raise ValueError(f"--rule contiguous: no {n} neighbouring blocks are free of --protect; use fewer")
    sums = [values[run[0] - 1 : run[-1]].sum() if spans is None else spans[run[0] - 1, n - 1] for run in runs]
    known = [(-value if highest_first else value, place) for place, value in enumerate(sums) if not math.isnan(value)]
    if not known:
        raise ValueError(
            f"--rule contiguous: every run of {n} holds a block without a score; use another criterion or rule"
        )
    return runs[min(known)[1]]


def _shares(values: Floats, selection: Selection) -> Floats:
    if np.isnan(values).any() or (values < 0).any() or not values.sum() > 0:
        why = "blocks without one" if np.isnan(values).any() else "scores that are negative or all 0"
        raise ValueError(
            f"--rule {selection.rule}: adds up shares of the scores, but there are {why}; use --rule lowest"
        )
    return np.asarray(values / values.sum())
