"""Statistics of blocks -> one score per block, by every criterion that reads activations or none at all.

Importance criteria remove the lowest score first; those of hallucination name the likeliest first (HIGHEST_FIRST).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.intervals import percentile_interval

Floats = npt.NDArray[np.float64]

# One forward pass gives these; those of hallucination need answers with verdicts.
OF_TEXTS = ("avss", "avss-published", "block-influence", "angular")
OF_ANSWERS = ("eavss", "hsav", "hss")
OF_NOTHING = ("random", "last", "first")
# `hss` is not here: a low sparsity on hallucinated answers says that a block is active on them.
HIGHEST_FIRST = frozenset({"eavss", "hsav"})


def avss(variance: npt.ArrayLike, sparsity: npt.ArrayLike) -> Floats:
    """Activation variance over sparsity.

    Args:
        variance, sparsity: [..., block], at least 0.
    Returns:
        [..., block], at least 0; NaN where the sparsity is 0: no floor is made up.
    Source: AVSS (arXiv 2411.02117), authors' code: the raw values are divided. Normalising each over blocks first, as
    the abstract says, changes all scores by one factor.
    """
    above, below = np.asarray(variance, dtype=np.float64), np.asarray(sparsity, dtype=np.float64)
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan))


def normalised(scores: Floats) -> Floats:
    """Scores over their sum: shares that sum to 1 over the blocks that have a score. [code]

    Returns:
        [block]; NaN where the score is, and everywhere if one is negative or all are 0: those are no shares.
    """
    total = np.nansum(scores)
    if not (total > 0) or (scores < 0).any():
        return np.full(len(scores), np.nan)
    return np.asarray(scores / total)


def cumulative(shares: Floats) -> Floats:
    """Sum of the shares of blocks 1..block, in the order of depth [code]; NaN where the share is."""
    return np.asarray(np.where(np.isnan(shares), np.nan, np.cumsum(np.nan_to_num(shares))))


def eavss(variance: Floats, sparsity: Floats) -> Floats:
    """[V / sum over blocks of V] / [S / sum over blocks of S] over the answers of one group; ours.

    The paper (arXiv 2411.10069) names the quantity, its formula could not be read: the pattern is that of AVSS.

    Args:
        variance, sparsity: [..., block], of the group's answer tokens: HSAV and HSS for the hallucinated ones.
    Returns:
        [..., block]; NaN where the sparsity is 0.
    """
    shares = (value / np.where(value.sum(-1) > 0, value.sum(-1), 1.0)[..., None] for value in (variance, sparsity))
    return avss(*shares)


def eavss_contrast(
    hallucinated_variance: Floats, hallucinated_sparsity: Floats, factual_variance: Floats, factual_sparsity: Floats
) -> Floats:
    """log EAVSS of the hallucinated answers - log EAVSS of the factual ones; ours. Positive: prone to hallucinate.

    Sums over tokens do as well as means: a group's number of tokens cancels.

    Args:
        [..., block] each.
    Returns:
        [..., block]; NaN where a variance or a sparsity is 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [
            np.log(eavss(variance, sparsity))
            for variance, sparsity in (
                (hallucinated_variance, hallucinated_sparsity),
                (factual_variance, factual_sparsity),
            )
        ]
        contrast = logs[0] - logs[1]
    return np.asarray(np.where(np.isfinite(contrast), contrast, np.nan))


def random_scores(n_blocks: int, seed: int) -> Floats:
    """0..L-1 in a random order, from the seed alone."""
    name = int.from_bytes(b"blocks", "big")
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, name], dtype=np.uint64)))
    return generator.permutation(n_blocks).astype(np.float64)


def depth_scores(n_blocks: int, criterion: str) -> Floats:
    """`last`: how many blocks come behind, so that the deepest goes first; `first`: how many come before."""
    before = np.arange(n_blocks, dtype=np.float64)
    if criterion not in ("last", "first"):
        raise ValueError(f"criterion {criterion!r} is neither last nor first")
    return before[::-1].copy() if criterion == "last" else before


def score_interval(
    score: Callable[..., Floats],
    of_unit: tuple[Floats, ...],
    *,
    n_resamples: int,
    seed: int,
) -> tuple[Floats, Floats]:
    """95 % percentile interval of a score of sums over texts (or questions), which are resampled as a whole.

    Args:
        score: of one sum [..., block] for each of `of_unit`.
        of_unit: [unit, block] each.
    Returns:
        (low [block], high [block]) around the score of all; NaN with one unit or without resamples, and where there
        is no score. A resample in which a block has none does not count for that block.
    """
    n_units, n_blocks = of_unit[0].shape
    sums: Any = [values.sum(axis=0) for values in of_unit]
    if n_units < 2 or not n_resamples:
        return np.full(n_blocks, np.nan), np.full(n_blocks, np.nan)
    drawn = [score(*(counts @ values for values in of_unit)) for counts in resample_counts(n_units, n_resamples, seed)]
    estimate, resampled = score(*sums), np.concatenate(drawn)
    ends = [percentile_interval(estimate[[block]], resampled[:, [block]]) for block in range(n_blocks)]
    return np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
