"""Random numbers with an address, and tokens drawn with them.

A draw's uniform number depends on its address alone (seed, question, exit layer, sample, step, attempt, purpose),
so neither batch, order, sharing nor resuming changes it. The number comes from Philox4x32-10 (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 256  # tokens per block of the two-level inverse CDF
SMALL_VOCABULARY = 8192
CACHED = 1 << 18  # numbers worked on at a time on a CPU: what its second-level cache holds
LAZY_ROUNDS = 3  # rounds of attempts before the nucleus of a row is found by sorting

Steps = int | NDArray[np.int64]  # the position of a token in its answer: one for all streams, or one for each

# Purposes: separate streams of numbers under one address.
DRAW, DRAFT, ACCEPTANCE, RESIDUAL = range(4)

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox4x32(
    counter: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]],
    key: tuple[NDArray[np.uint32], NDArray[np.uint32]],
    rounds: int = 10,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """Four 32-bit random words per counter and key (arrays that broadcast).

    Source: Salmon et al. 2011, section 3.3; checked against the vectors published with Random123.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for i in range(rounds):
        if i:
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
        product0 = c0.astype(np.uint64) * _MULTIPLIERS[0]
        product1 = c2.astype(np.uint64) * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT).astype(np.uint32) ^ c1 ^ k0,
            (product1 & _LOW).astype(np.uint32),
            (product0 >> _SHIFT).astype(np.uint32) ^ c3 ^ k1,
            (product0 & _LOW).astype(np.uint32),
        )
    return c0, c1, c2, c3


def question_key(question_id: str) -> tuple[int, int]:
    """The Philox key of a question: the first 8 bytes of the SHA-256 of its id, as two little-endian words."""
    digest = hashlib.sha256(question_id.encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@dataclass(frozen=True)
class Addresses:
    """Where the random numbers of some streams lie.

    Attributes:
        key: [stream, 2] uint32, from `question_key`.
        exit_layer: [stream], 1..L.
        sample: [stream], the sample index.
        seed: 0..2**32 - 1.
    """

    key: NDArray[np.uint32]
    exit_layer: NDArray[np.uint32]
    sample: NDArray[np.uint32]
    seed: int

    def uniforms(
        self, streams: NDArray[np.int64], step: Steps, attempt: int, attempts: int, purpose: int = DRAW
    ) -> NDArray[np.float64]:
        """[stream, attempt] numbers in [0, 1) with 53 random bits, attempts `attempt` .. `attempt + attempts - 1`."""
        steps = np.broadcast_to(np.asarray(step, dtype=np.uint32), streams.shape)
        tries = np.arange(attempt, attempt + attempts, dtype=np.uint32)[None, :]
        counter = (
            self.sample[streams][:, None],
            ((steps << np.uint32(16)) | self.exit_layer[streams])[:, None],
            (tries << np.uint32(8)) | np.uint32(purpose),
            np.full((1, 1), self.seed, dtype=np.uint32),
        )
        key = self.key[streams]
        first, second, _, _ = philox4x32(counter, (key[:, :1], key[:, 1:]))
        return ((first >> np.uint32(5)) * 67108864.0 + (second >> np.uint32(6))) / 9007199254740992.0


class Drawn(NamedTuple):
    """What was drawn, [stream] each. Probabilities are those before temperature, top-k and top-p."""

    token: NDArray[np.int64]
    prob: NDArray[np.float64]
    logprob: NDArray[np.float64]
    max_prob: NDArray[np.float64]


def tempered(logits: Tensor, temperature: float, top_k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unnormalised probabilities after temperature and top-k, and what the untempered distribution needs.

    Args:
        logits: [row, vocab], float32 or float64.
        temperature: above 0.
        top_k: keep the k likeliest (ties by token id); 0 keeps all.
    Returns:
        weights [row, vocab rounded up to BLOCK], the likeliest 1 and the padding 0;
        the largest logit [row], its token [row], and the log of sum exp(logit - largest) [row].
    """
    import torch

    rows, vocab = logits.shape
    largest, likeliest = logits.max(-1)
    weights = logits.new_zeros(rows, -(-vocab // BLOCK) * BLOCK)
    shifted = weights[:, :vocab]
    torch.sub(logits, largest[:, None], out=shifted)
    log_total = shifted.exp().sum(-1).log()
    # Below 3e-39 the factor would be infinite, and 0 * inf is NaN.
    shifted.mul_(min(1.0 / temperature, torch.finfo(logits.dtype).max)).exp_()
    if 0 < top_k < vocab:
        smallest = logits.topk(top_k, sorted=True).values[:, -1:]
        above, equal = logits > smallest, logits == smallest
        room = top_k - above.sum(-1, keepdim=True)
        shifted.mul_(above | (equal & (equal.cumsum(-1) <= room)))
    return weights, largest, likeliest, log_total


class Candidates:
    """Inverse CDF of a few distributions over many tokens, in two levels; sums in float64."""

    def __init__(self, weights: Tensor) -> None:
        """
        Args:
            weights: [row, n * BLOCK], from `tempered`.
        """
        import torch

        self.weights = weights
        rows, width = weights.shape
        self._blocks = weights.view(rows, width // BLOCK, BLOCK)
        # A small vocabulary is summed whole, of a large one only the blocks that are hit. The vocabulary alone
        # decides: the two ways round differently, and a draw must not depend on what else is in the batch.
        self._inner = self._blocks.to(torch.float64).cumsum(-1) if width <= SMALL_VOCABULARY else None
        sums = self._blocks.sum(-1, dtype=torch.float64) if self._inner is None else self._inner[..., -1]
        self._edges = sums.cumsum(-1)  # [row, block]
        self.total = self._edges[:, -1]

    def token(self, row: Tensor, uniform: Tensor) -> Tensor:
        """The first token whose cumulative weight exceeds `uniform` of the total. [draw] each."""
        import torch

        edges = self._edges[row]
        target = uniform * edges[:, -1]
        block = (edges <= target[:, None]).sum(-1).clamp_(max=edges.shape[1] - 1)
        before = torch.where(block > 0, edges.gather(1, (block - 1).clamp_(min=0)[:, None])[:, 0], 0.0)
        if self._inner is None:
            inner = self._blocks[row, block].to(torch.float64).cumsum(-1)
            start, flat = torch.arange(row.shape[0], device=row.device) * BLOCK, inner.reshape(-1)
        else:
            start, flat = (row * edges.shape[1] + block) * BLOCK, self._inner.reshape(-1)
        # Rounding must not lead past the last token of the block that has any weight.
        target = torch.minimum(target - before, torch.nextafter(flat[start + BLOCK - 1], target.new_zeros(())))
        position = start.clone()
        for half in (128, 64, 32, 16, 8, 4, 2, 1):
            position += (flat[position + (half - 1)] <= target) * half
        return block * BLOCK + (position - start)

    def likelier_mass(self, row: Tensor, token: Tensor) -> Tensor:
        """Weight of all tokens strictly likelier than `token`, ties by token id. [draw] each, float64."""
        import torch

        parts = []
        width = self.weights.shape[1]
        ids = torch.arange(width, device=row.device, dtype=torch.int32)
        step = max(1, (CACHED if row.device.type == "cpu" else 64 * CACHED) // width)
        for start in range(0, row.shape[0], step):
            weights = self.weights[row[start : start + step]]
            tokens = token[start : start + step, None]
            own = weights.gather(1, tokens)
            likelier = (weights == own).logical_and_(ids < tokens.int()).logical_or_(weights > own)
            parts.append(weights.mul_(likelier).sum(-1, dtype=torch.float64))
        return torch.cat(parts)

    def nucleus_edge(self, row: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
        """Weight and id of the last token of the nucleus of each of these rows, by sorting."""
        import torch

        weights, ids = self.weights[row].sort(dim=-1, descending=True, stable=True)
        mass = weights.to(torch.float64).cumsum(-1)
        inside = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], 1) < top_p * self.total[row][:, None]
        last = inside.sum(-1, keepdim=True) - 1
        return weights.gather(1, last)[:, 0], ids.gather(1, last)[:, 0]


def in_nucleus(candidates: Candidates, row: Tensor, token: Tensor, top_p: float, exact_edge: bool) -> Tensor:
    """Whether the mass of strictly likelier tokens is below `top_p`. [draw] each."""
    import torch

    if top_p >= 1.0:
        return torch.ones_like(row, dtype=torch.bool)
    weight, total = candidates.weights[row, token], candidates.total[row]
    # All other tokens together weigh less than top_p, so the likelier ones do. The margin keeps rounding out.
    inside = weight > (1.0 - top_p + 1e-6) * total
    open_draws = (~inside).nonzero()[:, 0]
    if open_draws.numel() == 0:
        return inside
    row, token = row[open_draws], token[open_draws]
    width = candidates.weights.shape[1]
    if exact_edge:
        rows, which = row.unique(return_inverse=True)
        edge_weight, edge_id = candidates.nucleus_edge(rows, top_p)
        own, edge_weight, edge_id = candidates.weights[row, token], edge_weight[which], edge_id[which]
        inside[open_draws] = (own > edge_weight) | ((own == edge_weight) & (token <= edge_id))
    else:
        pairs, which = (row * width + token).unique(return_inverse=True)
        rows = pairs // width
        mass = candidates.likelier_mass(rows, pairs % width)
        inside[open_draws] = (mass < top_p * candidates.total[rows])[which]
    return inside


def draw_tokens(
    logits: Tensor,
    row: NDArray[np.int64],
    addresses: Addresses,
    streams: NDArray[np.int64],
    step: Steps,
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    purpose: int = DRAW,
) -> Drawn:
    """One token for each stream from the distribution of its row.

    Attempt a = 0, 1, ... takes the candidate that the inverse CDF of the tempered distribution (cut to the `top_k`
    likeliest) gives for the uniform number of the address; it is accepted iff the mass of strictly likelier tokens
    (ties by token id) is below `top_p`. That is the nucleus distribution exactly, at no more than 1 / top_p attempts
    on average, and no sort of the vocabulary. Temperature 0 takes the likeliest token, ties by token id.

    Args:
        logits: [row, vocab], any real dtype; computed in float64 if it is float64, else float32; sums in float64.
        row: [stream] the row of each stream.
        addresses, streams: whose random numbers are used: `addresses` of the streams numbered `streams`.
        step: position of the token in the answer, from 0; below 65536. One for all streams, or [stream].
        purpose: which of the numbers under the address.
    Raises:
        FloatingPointError: a row without a finite largest logit, or with NaN: no distribution to draw from.
    """
    import torch

    if logits.device.type == "mps":
        logits = logits.cpu()  # no float64 there
    logits = logits if logits.dtype == torch.float64 else logits.float()
    device = logits.device
    where = torch.from_numpy(row).to(device)
    if temperature == 0.0:
        largest, likeliest = logits.max(-1)
        log_total = (logits - largest[:, None]).exp().sum(-1).log()
    else:
        weights, largest, likeliest, log_total = tempered(logits, temperature, top_k)
    if not bool(log_total.isfinite().all()):
        raise FloatingPointError("logits that are not finite")
    if temperature == 0.0:
        token = likeliest[where]
    else:
        candidates = Candidates(weights)
        token = torch.empty_like(where)
        waiting = np.arange(len(row))
        attempt, attempts, rounds = 0, 1, 0
        while len(waiting):
            at = step if isinstance(step, int) else step[waiting]
            uniform = addresses.uniforms(streams[waiting], at, attempt, attempts, purpose)
            index = torch.from_numpy(waiting).to(device)
            rows = where[index].repeat_interleave(attempts)
            found = candidates.token(rows, torch.from_numpy(uniform.reshape(-1)).to(device))
            inside = in_nucleus(candidates, rows, found, top_p, rounds >= LAZY_ROUNDS).view(-1, attempts)
            first = inside.to(torch.int8).argmax(1)
            token[index] = found.view(-1, attempts).gather(1, first[:, None])[:, 0]
            if top_p >= 1.0:
                break
            waiting = waiting[~inside.any(1).cpu().numpy()]
            attempt, rounds = attempt + attempts, rounds + 1
            attempts = min(4 if rounds == 1 else 4 * attempts, max(1, (1 << 18) // max(1, len(waiting))))
    logprob = (logits[where, token] - largest[where] - log_total[where]).to(torch.float64)
    max_logprob = -log_total.to(torch.float64)[where]
    both = torch.stack([logprob, max_logprob]).cpu().numpy()
    return Drawn(token.cpu().numpy(), np.exp(both[0]), both[0], np.exp(both[1]))
