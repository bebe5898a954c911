"""Bootstrap over questions: all samples of a question stay together, and every layer sees the same resample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Counts held at once, about 64 MB with their indices; only memory and speed depend on it, never a draw.
CHUNK = 2_000_000


def resample_counts(n_questions: int, n_resamples: int, seed: int, stream: int = 0) -> Iterator[Floats]:
    """How often each question occurs in each resample, a block of resamples at a time.

    Args:
        n_questions: >= 1; each resample draws that many questions with replacement.
        n_resamples: >= 0.
        seed, stream: the key of a counter-based generator (Philox). The same pair and sizes give the same counts.
    Yields:
        [block, question], every row sums to n_questions.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
    block = max(1, CHUNK // n_questions)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn = generator.integers(0, n_questions, size=(rows, n_questions))
        drawn += np.arange(rows)[:, None] * n_questions
        yield np.bincount(drawn.ravel(), minlength=rows * n_questions).reshape(rows, -1).astype(np.float64)


def resampled_means(
    values: npt.ArrayLike, n_resamples: int, seed: int, stream: int = 0, weight: npt.ArrayLike | None = None
) -> Floats:
    """Means over questions in every resample, the same resample for all columns.

    Args:
        values: [question, column]. NaN is read as "not among this column's questions".
        n_resamples: number of resamples.
        seed, stream: see `resample_counts`.
        weight: [question], or None for 1 each: leave a question out of every column with 0.
    Returns:
        [resample, column]; NaN where a resample holds none of the column's questions. Rounded to 12 decimals, so
        that the order in which a machine adds does not show.
    """
    x = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(x)
    if weight is not None:
        present &= np.asarray(weight)[:, None] > 0
    x = np.where(present, x, 0.0)
    whole = bool(present.all())
    means = np.empty((n_resamples, x.shape[1]))
    start = 0
    for counts in resample_counts(len(x), n_resamples, seed, stream):
        rows = slice(start, start + len(counts))
        total = len(x) if whole else counts @ present
        with np.errstate(invalid="ignore"):
            means[rows] = np.where(np.asarray(total) > 0, counts @ x / total, np.nan)
        start += len(counts)
    return np.round(means, 12)
