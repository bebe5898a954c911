"""How much the meanings of a question's sampled answers differ: semantic entropy and what it is measured against.

A cell is a question at one layer. All of its samples count, right or wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DECIMALS = 12  # sums of the same numbers in another order must tie


def semantic_entropy(cell: Ints, meaning: Floats, logprob: Floats, n_cells: int) -> Floats:
    """Entropy over meanings, each weighing as much as the likelihoods of its samples: -sum_C p(C) ln p(C).

    p(C) = sum over samples s in C of exp(l_s) / sum over all samples of exp(l_s), where l_s is the mean log-probability
    of the sample's tokens (its length-normalised log-likelihood). The sums run over samples: a text drawn twice weighs
    twice, as in the published code (`sum_normalized`).

    Args:
        cell: [sample], in [0, n_cells).
        meaning: [sample], number of the sample's semantic cluster; NaN where unknown.
        logprob: [sample], in nats; NaN where unknown.
        n_cells: number of cells.
    Returns:
        [n_cells], in nats, in [0, ln of the cell's number of meanings]; NaN where the cell has no sample, or one whose
        meaning or likelihood is unknown. Rounded to 12 decimals, so that equal entropies tie.
    Source: Kuhn et al. 2023; Farquhar et al. 2024; jlko/semantic_uncertainty, semantic_entropy.py,
        `logsumexp_by_id` and `predictive_entropy_rao`.
    """
    usable = np.isfinite(logprob)
    highest = np.full(n_cells, -np.inf)
    np.maximum.at(highest, cell[usable], logprob[usable])
    # The likeliest sample of each cell weighs 1: no sum underflows.
    weight = np.exp(np.where(usable, logprob - highest[cell], -np.inf))
    return np.where(_complete(cell, usable, n_cells), _entropy(cell, meaning, weight, n_cells), np.nan)


def discrete_semantic_entropy(cell: Ints, meaning: Floats, n_cells: int) -> Floats:
    """Entropy over meanings, each weighing as many samples as it has: p(C) = |C| / M. Needs no likelihoods.

    Args:
        cell, meaning, n_cells: as in `semantic_entropy`.
    Returns:
        [n_cells], in nats; NaN where the cell has no sample, or one whose meaning is unknown. Rounded likewise.
    Source: Farquhar et al. 2024; jlko/semantic_uncertainty, semantic_entropy.py, `cluster_assignment_entropy`.
    """
    return _entropy(cell, meaning, np.ones(len(cell)), n_cells)


def predictive_entropy(cell: Ints, logprob: Floats, n_cells: int) -> Floats:
    """Minus the mean log-likelihood of the samples, which knows nothing of meanings.

    Args:
        cell, logprob, n_cells: as in `semantic_entropy`.
    Returns:
        [n_cells], in nats, >= 0; NaN where the cell has no sample, or one without a likelihood. Rounded likewise.
    Source: jlko/semantic_uncertainty, semantic_entropy.py, `predictive_entropy`.
    """
    usable = np.isfinite(logprob)
    complete = _complete(cell, usable, n_cells)
    total = np.bincount(cell[usable], logprob[usable], n_cells)
    size = np.bincount(cell, minlength=n_cells)
    return np.where(complete, np.round(np.abs(total / np.maximum(size, 1)), DECIMALS), np.nan)


def _entropy(cell: Ints, meaning: Floats, weight: Floats, n_cells: int) -> Floats:
    known = np.isfinite(meaning)
    complete = _complete(cell, known, n_cells)
    if not known.any():
        return np.full(n_cells, np.nan)
    number = meaning[known].astype(np.int64)
    number -= number.min()
    n_meanings = int(number.max()) + 1
    clusters, of_sample = np.unique(cell[known] * n_meanings + number, return_inverse=True)
    mass = np.bincount(of_sample, weight[known], len(clusters))
    owner = clusters // n_meanings
    total = np.bincount(owner, mass, n_cells)[owner]
    share = np.divide(mass, total, out=np.zeros(len(mass)), where=total > 0)
    surprisal = -np.log(share, out=np.zeros(len(share)), where=share > 0)
    # abs: a single cluster gives -0.0
    found = np.abs(np.bincount(owner, share * surprisal, n_cells))
    return np.where(complete, np.round(found, DECIMALS), np.nan)


def _complete(cell: Ints, known: npt.NDArray[np.bool_], n_cells: int) -> npt.NDArray[np.bool_]:
    """[n_cells], whether there is a sample and all are known."""
    size = np.bincount(cell, minlength=n_cells)
    return np.asarray((size > 0) & (np.bincount(cell[known], minlength=n_cells) == size))
