"""Options of `hcl prune` -> which blocks go: the rules of `measures.block_selection` with errors a user can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    from hcl_cli.measures.block_selection import Floats, Selection


def selection_of(
    n_blocks: int, *, rule: str = "lowest", fraction: float | None = 0.25, n: int | None = None, protect: str = ""
) -> Selection:
    """The options as a Selection; `n`, where given, is in place of the fraction.

    What can be refused without a score is refused here, before anything is measured.

    Raises:
        BadOption: unusable values, nothing to remove, nothing left; one line.
    """
    import numpy as np

    from hcl_cli.measures.block_selection import Selection, protected_blocks, removed_blocks

    try:
        protected = protected_blocks(protect, n_blocks) if protect else frozenset()
        selection = Selection(rule, None if n is not None else fraction, n, protected)
        if rule in ("lowest", "contiguous"):
            removed_blocks(np.arange(float(n_blocks)), selection)
        return selection
    except ValueError as error:
        raise BadOption(str(error)) from error


def chosen_blocks(
    criterion: str, scores: Floats, selection: Selection, *, spans: Floats | None = None
) -> tuple[int, ...]:
    """The blocks that go by a criterion, rising; see `removed_blocks`.

    Args:
        criterion: its name, which says whether the highest or the lowest score goes first.
        scores: [block].
        spans: of `angular`: [start, n], see `BlockStatistics.spans`.
    Raises:
        BadOption: nothing would go, nothing would be left, too many are protected; one line that names the criterion.
    """
    from hcl_cli.measures.block_scores import HIGHEST_FIRST
    from hcl_cli.measures.block_selection import removed_blocks

    try:
        return removed_blocks(scores, selection, highest_first=criterion in HIGHEST_FIRST, spans=spans)
    except ValueError as error:
        raise BadOption(f"--criterion {criterion}: {error}") from error
