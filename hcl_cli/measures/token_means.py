"""Means over all tokens of some texts, with 95 % intervals over texts: a ratio of two sums, since texts differ in
length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.intervals import bca_interval

Floats = npt.NDArray[np.float64]


def token_means(
    sums: npt.ArrayLike, n_tokens: npt.ArrayLike, n_resamples: int, seed: int, stream: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Mean per token of each column with its interval; whole texts are drawn, the same ones for all columns.

    The influence of a text is that on a ratio of sums: its own sum less what its tokens have on average. Covers less
    than 95 % with few texts (91 % with 10 texts of 20 to 128 tokens, 92 % with 20, 95 % with 60), and far less where a
    few very long texts differ from the rest (86 % with 15 texts of geometric length): cut texts to one length.

    Args:
        sums: [text, column], a quantity summed over the text's tokens. A difference of two quantities of the same
            texts is paired.
        n_tokens: [text], >= 1.
        n_resamples, seed, stream: see `resample_counts`.
    Returns:
        (mean, low, high), each [column], low <= mean <= high; ends are NaN with fewer than two texts or no resample.
    Raises:
        ValueError: no text, or one without a token.
    Source: Efron 1987 (BCa), for a ratio as in Davison and Hinkley 1997, section 5.3; levels as in `bca_interval`.
    """
    x, n = np.asarray(sums, dtype=np.float64), np.asarray(n_tokens, dtype=np.float64)
    if not len(n) or (n < 1).any():
        raise ValueError(f"{len(n)} texts, the shortest of {n.min(initial=np.inf)} tokens: expected one token at least")
    mean = x.sum(axis=0) / n.sum()
    if len(n) < 2 or not n_resamples:
        return mean, np.full(x.shape[1], np.nan), np.full(x.shape[1], np.nan)
    drawn = np.concatenate(
        [counts @ x / (counts @ n)[:, None] for counts in resample_counts(len(n), n_resamples, seed, stream)]
    )
    low, high = bca_interval(mean, np.round(drawn, 12), x - mean * n[:, None])
    return mean, low, high
