"""Which blocks go: by hand, the published rule and its fault, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.measures.block_selection import (
    Selection,
    n_of_fraction,
    protected_blocks,
    removal_order,
    removal_ranks,
    removed_blocks,
)

NAN = math.nan
# Rising with depth but for a weak block 6: AVSS of a pre-norm model looks like this. They sum to 40.
RISING = [1.0, 2.0, 3.0, 4.0, 8.0, 0.5, 9.5, 12.0]


def test_the_lowest_go() -> None:
    """A quarter of 8 is two: 0.5 at block 6 and 1 at block 1; highest first 12 and 9.5."""
    assert removed_blocks(RISING, Selection()) == (1, 6)
    assert removed_blocks(RISING, Selection(fraction=None, n=3)) == (1, 2, 6)
    assert removed_blocks(RISING, Selection(), highest_first=True) == (7, 8)
    assert removed_blocks(RISING, Selection(protected=frozenset({1, 2}))) == (3, 6)


def test_ties_and_blocks_without_a_score() -> None:
    assert removal_order([2.0, 1.0, 1.0, NAN]) == (2, 3, 1, 4)
    assert removal_order([2.0, 1.0, 2.0, NAN], highest_first=True) == (1, 3, 2, 4)
    assert removal_ranks([2.0, 1.0, 1.0, NAN]).tolist() == [3, 1, 2, 4]


def test_the_cumulative_rule_sorts_first() -> None:
    """Shares .0125 (6), .025 (1), .05 (2), .075 (3), .1 (4): .1625 with four, .2625 with five; .05 holds two."""
    assert removed_blocks(RISING, Selection("cumulative", 0.25)) == (1, 2, 3, 6)
    assert removed_blocks(RISING, Selection("cumulative", 0.05)) == (1, 6)
    assert removed_blocks(RISING, Selection("cumulative", 0.25, protected=frozenset({1, 2}))) == (3, 4, 6)
    assert removed_blocks([0.1, 0.2, 0.7], Selection("cumulative", 0.3)) == (1, 2)  # .1 + .2 is above .3 in floats


def test_the_published_rule_removes_the_first_blocks() -> None:
    """The authors' script adds up in the order of depth and sorts afterwards. Restated on its own terms: the quarter
    of the scores that lies first goes, blocks 1 to 4, though the weakest block is the sixth."""
    scores = np.array(RISING)
    table = [(block + 1, scores[block], (scores / scores.sum()).cumsum()[block]) for block in range(8)]
    table.sort(key=lambda row: row[1])
    theirs = tuple(sorted(block for block, _, reached in table if reached <= 0.25))
    assert theirs == removed_blocks(RISING, Selection("published", 0.25)) == (1, 2, 3, 4)
    falling = [12.0, 9.0, 8.0, 5.0, 3.0, 2.0, 0.5, 0.5]  # first blocks go even if they are the most important
    assert removed_blocks(falling, Selection("published", 0.55)) == (1, 2)
    assert removed_blocks(RISING, Selection("published", 0.25, protected=frozenset({1}))) == (2, 3, 4)


@given(st.lists(st.floats(0.01, 10.0), min_size=3, max_size=12), st.floats(0.05, 0.95))
def test_the_published_rule_removes_a_beginning_whatever_the_scores(scores: list[float], fraction: float) -> None:
    try:
        found = removed_blocks(scores, Selection("published", fraction))
    except ValueError:
        assert scores[0] / sum(scores) > fraction - 1e-9
        return
    assert found == tuple(range(1, len(found) + 1)) and len(found) < len(scores)


def test_a_run_is_chosen_as_a_whole() -> None:
    """Of two neighbours 1 + 2 is the least; by spans the middle; free of the protected ones 3 + 4."""
    assert removed_blocks(RISING, Selection("contiguous", 0.25)) == (1, 2)
    assert removed_blocks(RISING, Selection("contiguous", None, 3)) == (1, 2, 3)
    assert removed_blocks(RISING, Selection("contiguous", None, 3), highest_first=True) == (6, 7, 8)
    assert removed_blocks(RISING, Selection("contiguous", 0.25, protected=frozenset({2, 5}))) == (3, 4)
    spans = np.full((4, 4), 0.5)
    spans[1, 1] = 0.1
    assert removed_blocks([1.0, 9.0, 9.0, 1.0], Selection("contiguous", None, 2), spans=spans) == (2, 3)
    assert removed_blocks([1.0, NAN, 5.0, 9.0], Selection("contiguous", None, 2)) == (3, 4)


@given(st.lists(st.floats(0.0, 10.0), min_size=3, max_size=12), st.data())
def test_a_run_is_the_best_of_all(scores: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores) - 1))
    found = removed_blocks(scores, Selection("contiguous", None, n))
    assert len(found) == n and found[-1] - found[0] == n - 1
    best = min(sum(scores[start : start + n]) for start in range(len(scores) - n + 1))
    assert sum(scores[found[0] - 1 : found[-1]]) == pytest.approx(best, abs=1e-9)


@given(st.lists(st.floats(0.0, 10.0), min_size=4, max_size=20), st.floats(0.25, 0.99))
def test_what_stays_is_at_least_as_good(scores: list[float], fraction: float) -> None:
    found = removed_blocks(scores, Selection(fraction=fraction))
    assert len(found) == math.floor(fraction * len(scores) + 1e-9)
    assert max(scores[block - 1] for block in found) <= min(
        score for block, score in enumerate(scores, 1) if block not in found
    )


def test_a_fraction_is_of_the_number_as_it_was_written() -> None:
    """0.29 x 100 is 28.999999999999996 in floats."""
    assert [n_of_fraction(0.29, 100), n_of_fraction(0.25, 10), n_of_fraction(0.3, 10)] == [29, 2, 3]


def test_protected_blocks() -> None:
    assert protected_blocks("first:4,last:2", 12) == {1, 2, 3, 4, 11, 12}
    assert protected_blocks("last:1", 3) == {3}
    assert protected_blocks("first:0", 3) == frozenset()
    for text in ("4", "first", "first:", "first:-1", "middle:2", "first:1;last:1", "first:1,", "first:²"):
        with pytest.raises(ValueError, match="--protect .*expected first:N, last:N"):
            protected_blocks(text, 12)
    with pytest.raises(ValueError, match="--protect first:13: the model has 12 blocks"):
        protected_blocks("first:13", 12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 0.0}, "--fraction 0: expected more than 0 and less than 1"),
        ({"fraction": 1.0}, "--fraction 1: expected more than 0 and less than 1"),
        ({"fraction": -0.5}, "--fraction -0.5: expected"),
        ({"fraction": NAN}, "--fraction nan: expected"),
        ({"fraction": None, "n": 0}, "--n 0: expected at least 1"),
        ({"fraction": None, "n": 8}, "--n 8: the model has 8 blocks, so none would be left"),
        ({"fraction": 0.1}, "--fraction 0.1: less than one of 8 blocks; use --fraction 0.125 or --n 1"),
        ({"fraction": 0.5, "protected": frozenset(range(1, 6))}, "--fraction 0.5: 4 blocks to remove, but --protect"),
        ({"fraction": 0.25, "n": 2}, "expected exactly one"),
        ({"fraction": None}, "expected exactly one"),
        ({"rule": "best"}, "--rule best: expected one of lowest, cumulative"),
        ({"rule": "cumulative", "fraction": None, "n": 2}, "--n 2: --rule cumulative needs a share"),
        ({"rule": "cumulative", "fraction": 0.01}, "no block goes by --rule cumulative"),
        ({"rule": "published", "fraction": 0.02}, "no block goes by --rule published"),
        ({"rule": "contiguous", "protected": frozenset({2, 4, 6, 8})}, "no 2 neighbouring blocks are free"),
    ],
)
def test_what_cannot_be_selected_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        removed_blocks(RISING, Selection(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_scores_that_cannot_be_used_are_refused() -> None:
    for rule in ("cumulative", "published"):
        with pytest.raises(ValueError, match="negative or all 0"):
            removed_blocks([1.0, -1.0, 3.0], Selection(rule, 0.5))
        with pytest.raises(ValueError, match="blocks without one"):
            removed_blocks([1.0, NAN, 3.0], Selection(rule, 0.5))
    with pytest.raises(ValueError, match="2 blocks to remove, but only 1 of 4"):
        removed_blocks([NAN, NAN, 3.0, NAN], Selection(fraction=0.5))
    with pytest.raises(ValueError, match="every run of 2 holds a block without a score"):
        removed_blocks([1.0, NAN, 3.0], Selection("contiguous", None, 2))
