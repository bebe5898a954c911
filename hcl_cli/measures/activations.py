"""Statistics of activation vectors, a token at a time, and what is added up of them.

Nothing here keeps an activation: a block's output becomes a few numbers per token, which become sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float64]

# The authors' script (arXiv 2411.02117): every text has 128 positions, eight texts are a batch.
PUBLISHED_POSITIONS, PUBLISHED_BATCH, PUBLISHED_EPSILON = 128, 8, 1e-5
# Bytes that are measured at once on a CPU: several passes go over them while a cache holds them.
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Epsilon:
    """Below which size an activation counts as zero.

    Attributes:
        value: > 0.
        relative: `value` is a share of the root mean square of the token's own activation vector, ours: a share of
            a mean over all tokens would need a second pass, and the few huge states of real models (BOS) would set
            it. Otherwise it is the bound itself, as the authors have it.
    """

    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"epsilon {self.value:g}: expected a finite number above 0")


DEFAULT_EPSILON = Epsilon(0.01, relative=True)  # ours: 1e-5 counts nothing in most residual streams


def parse_epsilon(text: str) -> Epsilon:
    """`1e-5` is absolute, `0.01rms` relative.

    Raises:
        ValueError: anything else; one line.
    """
    number = text.strip().lower()
    relative = number.endswith("rms")
    try:
        return Epsilon(float(number.removesuffix("rms").rstrip("* ")), relative)
    except ValueError:
        raise ValueError(
            f"--epsilon {text}: expected a number above 0, like 1e-5, or a share of the root mean square, like 0.01rms"
        ) from None


class TokenStatistics(NamedTuple):
    """Of each token's activation vector; [token] each, float32 (float64 of float64).

    variance: over the hidden axis, population variance. [code: R port of AVSS, per token instead of pooled: ours]
    sparsity: share of entries with |a| < epsilon, in [0, 1]. [code]
    l1_norm, l2_norm: sum of |a|, root of the sum of a^2. [the comparison bars of the paper's figures]
    """

    variance: Tensor
    sparsity: Tensor
    l1_norm: Tensor
    l2_norm: Tensor


def token_statistics(activations: Tensor, epsilon: Epsilon) -> TokenStatistics:
    """Statistics of every token's vector.

    The variance is of the centred vector: the mean square less the squared mean loses digits where the mean is large.

    Args:
        activations: [token, width], float32 or float64.
    """
    import torch

    width = activations.shape[-1]
    mean = activations.mean(-1, keepdim=True)
    # The norm is several times quicker than torch.var, and than a sum of squares after the subtraction.
    variance = torch.linalg.vector_norm(activations - mean, dim=-1).square_().div_(width)
    l2_norm = torch.linalg.vector_norm(activations, dim=-1)
    size = activations.abs()
    l1_norm = size.sum(-1)
    bound: Tensor | float = epsilon.value
    if epsilon.relative:  # of a vector of zeros every entry counts, as under any bound of its own
        least = torch.finfo(activations.dtype).tiny
        bound = (epsilon.value * (l2_norm / math.sqrt(width))[:, None]).clamp_min_(least)
    # In place: ones and zeros stay floats, whose sum is quicker than that of booleans and as exact below 2^24.
    sparsity = size.lt_(bound).sum(-1).div_(width)
    return TokenStatistics(variance, sparsity, l1_norm, l2_norm)


def cosines(a: Tensor, b: Tensor, norm_a: Tensor, norm_b: Tensor) -> Tensor:
    """Cosine between the vectors of each token: [token, width] twice and their norms -> [token], in [-1, 1]; NaN for a
    zero vector."""
    return ((a * b).sum(-1) / (norm_a * norm_b)).clamp_(-1.0, 1.0)


def published_statistics(activations: Tensor) -> tuple[Tensor, Tensor]:
    """What the authors' script takes of each text of a batch, padding and all.

    Args:
        activations: [text, 128, width], float32 or float64.
    Returns:
        [text] twice: the variance (n - 1) over the hidden axis of the mean over all positions; the share of all
        entries below 1e-5.
    Source: the README code of arXiv 2411.02117.
    """
    variance = activations.mean(1).var(-1)
    size = activations.abs().flatten(1)
    return variance, size.lt_(PUBLISHED_EPSILON).sum(-1).div_(size.shape[-1])


def published_mean(of_text: Floats) -> Floats:
    """Mean over batches of eight texts, in their order, of the mean in each: a last, smaller batch weighs as much.

    Args:
        of_text: [text, block], at least one text.
    """
    batches = [
        of_text[start : start + PUBLISHED_BATCH].mean(axis=0) for start in range(0, len(of_text), PUBLISHED_BATCH)
    ]
    return np.asarray(np.mean(batches, axis=0))


def span_distances(states: Tensor) -> Floats:
    """Angular distance between the residual stream before block l and after block l + n - 1, arccos(cosine) / pi.

    Args:
        states: [text, L + 1, width]: the last token's state before block 1 and after every block.
    Returns:
        [text, L, L] in [0, 1], at [., l - 1, n - 1]; NaN where the span ends behind block L, or a state is zero.
    Source: Gromov et al. (arXiv 2403.17887), clamped as in PruneMe.
    """
    import torch

    # arccos is steep at 1: in float32 a block that changes nothing would seem to turn the state by 1e-4.
    states = states.cpu().double()
    unit = states / torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    turned = torch.arccos((unit @ unit.transpose(1, 2)).clamp(-1.0, 1.0)).numpy() / np.pi  # [text, from, to]
    n_blocks = turned.shape[1] - 1
    found = np.full((len(turned), n_blocks, n_blocks), np.nan)
    for start in range(n_blocks):
        found[:, start, : n_blocks - start] = turned[:, start, start + 1 :]
    return found


def pieces(n_rows: int, row_bytes: int, on_cpu: bool) -> Iterator[slice]:
    """Which rows are measured at once: see PIECE_BYTES; all of them elsewhere than on a CPU."""
    step = max(1, PIECE_BYTES // row_bytes) if on_cpu else max(1, n_rows)
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def text_means(values: Floats, n_tokens: npt.NDArray[np.int64]) -> Floats:
    """Means over the tokens of each text.

    Args:
        values: [token, column], text after text.
        n_tokens: [text], at least 1 each.
    Returns:
        [text, column].
    """
    starts = np.concatenate([[0], np.cumsum(n_tokens)[:-1]])
    return np.asarray(np.add.reduceat(values, starts, axis=0) / n_tokens[:, None])


def token_mean(of_text: Floats, n_tokens: npt.ArrayLike) -> Floats:
    """Mean over all tokens from the means of the texts; a NaN of a text leaves it out of that column.

    Args:
        of_text: [text, column].
        n_tokens: [text], the weights.
    Returns:
        [column]; NaN where no text is left.
    """
    weight = np.where(np.isnan(of_text), 0.0, np.asarray(n_tokens, dtype=np.float64)[:, None])
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(total > 0, (np.nan_to_num(of_text) * weight).sum(axis=0) / total, np.nan))
