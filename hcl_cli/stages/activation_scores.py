"""Statistics of blocks -> the scores of one criterion, with what a table says beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hcl_cli.measures import block_scores as measures
from hcl_cli.measures.activations import PUBLISHED_EPSILON, published_mean, token_mean

if TYPE_CHECKING:
    from hcl_cli.measures.activations import Floats
    from hcl_cli.models.block_statistics import BlockStatistics


@dataclass(frozen=True)
class BlockScores:
    """One criterion at every block; [block] each, NaN for unknown.

    Attributes:
        score, score_low, score_high: with a 95 % percentile interval over texts where there is one.
        normalised, cumulative: shares of their sum, and these added up by depth; NaN for scores that are no shares.
        variance, sparsity, epsilon, l1_norm, l2_norm: of the activations that the criterion reads.
        spans: `angular` alone: [start, n], for --rule contiguous.
    """

    score: Floats
    score_low: Floats
    score_high: Floats
    normalised: Floats
    cumulative: Floats
    variance: Floats
    sparsity: Floats
    epsilon: Floats
    l1_norm: Floats
    l2_norm: Floats
    spans: Floats | None = None

    @property
    def n_undefined(self) -> int:
        """Blocks without a score: of AVSS those with a sparsity of 0."""
        return int(np.isnan(self.score).sum())


def activation_scores(
    statistics: BlockStatistics, criterion: str, *, activations: str = "residual", n_resamples: int = 0, seed: int = 0
) -> BlockScores:
    """Scores of a criterion that reads activations of plain texts.

    Args:
        criterion: one of `measures.block_scores.OF_TEXTS`.
        activations: which kind `avss` reads; the others are of the residual stream.
        n_resamples, seed: of the interval over texts; `avss-published` has none.
    """
    weight = statistics.n_tokens[:, None]
    of_kind = statistics.activations[activations if criterion == "avss" else "residual"]
    variance, sparsity = (token_mean(value, statistics.n_tokens) for value in (of_kind.variance, of_kind.sparsity))
    epsilon, spans = of_kind.epsilon, None
    low = high = np.full(statistics.n_blocks, np.nan)

    def interval(score: Callable[..., Floats], *of_text: Floats) -> tuple[Floats, Floats]:
        return measures.score_interval(score, of_text, n_resamples=n_resamples, seed=seed)

    if criterion == "avss":
        score = measures.avss(variance, sparsity)
        low, high = interval(measures.avss, weight * of_kind.variance, weight * of_kind.sparsity)
    elif criterion == "avss-published":
        if statistics.published_variance is None or statistics.published_sparsity is None:
            raise ValueError("avss-published was not measured")
        variance, sparsity = (
            published_mean(value) for value in (statistics.published_variance, statistics.published_sparsity)
        )
        epsilon = np.full(statistics.n_blocks, PUBLISHED_EPSILON)
        score = measures.avss(variance, sparsity)
    elif criterion in ("block-influence", "angular"):
        of_text = statistics.influence if criterion == "block-influence" else statistics.angular
        weights = weight if criterion == "block-influence" else np.ones_like(weight)
        spans = statistics.spans if criterion == "angular" else None
        score = token_mean(of_text, weights[:, 0])
        known = ~np.isnan(of_text)
        low, high = interval(_ratio, np.where(known, of_text, 0.0) * weights, known * weights)
    else:
        raise ValueError(f"criterion {criterion!r} is none of {measures.OF_TEXTS}")
    shares = measures.normalised(score)
    return BlockScores(
        score, low, high, shares, measures.cumulative(shares), variance, sparsity, epsilon, of_kind.l1_norm,
        of_kind.l2_norm, spans,
    )  # fmt: skip


def _ratio(total: Floats, weight: Floats) -> Floats:
    return np.asarray(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan))
