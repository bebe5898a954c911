"""Self-speculative decoding: draft with the first k blocks, verify with all of them, many answers at once.

A round of a row: the newest token and then up to d drafts run through blocks 1..k; blocks k + 1..L read the kept
states of all of them in one pass. Draft x is accepted with probability min(1, p(x) / q(x)), p the full model's and q
the exit's distribution under the same temperature, top-k and top-p; the first rejected one is replaced by a token of
the residual max(0, p - q), and a row without a rejection gets one more token of p. So every token follows the full
model's law, whatever k is (Leviathan et al. 2023; Chen et al. 2023); k decides how many drafts are accepted.

Source: LayerSkip (arXiv 2404.16710); the script published with arXiv 2503.02851 decodes like that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hcl_cli.models.decode import (
    DEFAULT_BATCH_TOKENS,
    Cell,
    Prompt,
    Sampling,
    Streams,
    check_prompts,
    collected,
    run_or_halve,
    stop_filter,
)
from hcl_cli.models.plan import plan_batches
from hcl_cli.models.streams import Finished

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

Ints = NDArray[np.int64]

DRAFT_TOKENS = 6  # as published


def decode_speculative(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    cells: Sequence[Cell],
    sampling: Sampling,
    *,
    draft_tokens: int = DRAFT_TOKENS,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> Streams:
    """Sample every cell by drafts of its exit layer that the full model verifies.

    Random numbers are those of the address (seed, question, exit layer, sample, position of the token), separately for
    drafts, acceptances, residuals and the token after the last draft. A draft that was thrown away with a rejected one
    before it has decided nothing, so its number is used again at its position.

    Args:
        cells: as for `decode`; batches hold one exit layer each.
        draft_tokens: longest draft, at least 1; shorter where the answer may have fewer tokens left or the draft ends.
        batch_tokens, progress: as for `decode`.
    Returns:
        as `decode`, probabilities being those of the full model; with the counts of drafts and verifications.
    Raises:
        BadInput, EnvironmentRefused: as `decode`.
    """
    from hcl_cli.models.exits import restore_depth
    from hcl_cli.models.speculative_batch import SpeculativeBatch

    if draft_tokens < 1:
        raise ValueError(f"{draft_tokens} draft tokens: at least 1")
    check_prompts(loaded, prompts, cells, sampling)
    lengths = [len(prompt.token_ids) for prompt in prompts]
    stops = stop_filter(loaded, sampling.stop)
    finished: list[Finished] = []

    def run(batch: list[Cell], _ceiling: int | None) -> Finished:
        try:
            return SpeculativeBatch(loaded, prompts, batch, sampling, stops, draft_tokens).run()
        finally:
            restore_depth(loaded.anatomy)

    for exit_layer in sorted({cell.exit_layer for cell in cells}):
        own = [cell for cell in cells if cell.exit_layer == exit_layer]
        queue = plan_batches(own, lengths, sampling.max_new_tokens, batch_tokens)[::-1]
        while queue:
            done = run_or_halve(loaded, prompts, queue, run)
            if done is not None:
                finished.append(done)
                if progress is not None:
                    progress(len(done.prompt))
    return collected(loaded, cells, finished, sampling)
