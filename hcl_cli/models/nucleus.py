"""The distribution that a token is drawn from, written out: after temperature, top-k and top-p."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcl_cli.models.draws import Candidates, tempered

if TYPE_CHECKING:
    from torch import Tensor


def nucleus_probs(logits: Tensor, *, temperature: float, top_p: float, top_k: int) -> Tensor:
    """Probabilities of the next token as `draw_tokens` draws it.

    Args:
        logits: [row, vocab], float32 or float64.
        temperature: 0 gives the likeliest token (ties by token id) probability 1.
        top_p, top_k: as for `draw_tokens`.
    Returns:
        [row, vocab], float64, rows sum to 1; tokens outside the nucleus have 0.
    """
    import torch

    vocab = logits.shape[1]
    if temperature == 0.0:
        likeliest = logits.argmax(-1, keepdim=True)
        return torch.zeros(logits.shape, dtype=torch.float64, device=logits.device).scatter_(1, likeliest, 1.0)
    weights = tempered(logits, temperature, top_k)[0]
    if top_p < 1.0:
        rows = torch.arange(len(logits), device=logits.device)
        weight, token = (edge[:, None] for edge in Candidates(weights).nucleus_edge(rows, top_p))
        ids = torch.arange(weights.shape[1], device=logits.device)
        weights = weights * ((weights > weight) | ((weights == weight) & (ids <= token)))
    kept = weights[:, :vocab].to(torch.float64)
    return kept / kept.sum(-1, keepdim=True)


def drawn_from(probs: Tensor, uniform: Tensor) -> Tensor:
    """The inverse CDF of written-out distributions, in token-id order.

    Args:
        probs: [row, vocab], float64, not negative; need not sum to 1, but to more than 0.
        uniform: [row], in [0, 1).
    Returns:
        [row], tokens whose probability is above 0.
    """
    import torch

    edges = probs.cumsum(-1)
    target = uniform[:, None] * edges[:, -1:]
    token = torch.searchsorted(edges, target, right=True)[:, 0]
    # Rounding must not lead past the last token with any weight.
    last = probs.shape[1] - 1 - (probs > 0).flip(-1).to(torch.int8).argmax(-1)
    return torch.minimum(token, last)
