"""How far factual answers lie from hallucinated ones to the same question, and the loss that drives them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def info_nce(states: Tensor, group: Tensor, factual: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE of every group: its factual answers against its hallucinated ones.

    Of anchor i, with the group's other factual answers P and its hallucinated ones N:

        -log( sum_P e^{cos(i, p) / t} / (sum_P e^{cos(i, p) / t} + sum_N e^{cos(i, n) / t}) )

    and of a group the mean over its anchors. Never negative; in log space, so that no temperature overflows.

    Args:
        states: [..., answer, width], real; a state of zero has cosine 0 with everything.
        group: [answer], int, numbered 0..n_groups - 1 (a question each).
        factual: [answer], bool: factual or hallucinated.
        temperature: t > 0.
    Returns:
        [..., group], in nats. Of a group without two factual answers or without a hallucinated one it is 0.
    Raises:
        ValueError: a temperature that is not positive.
    Source: ours, methods after van den Oord et al. 2018 (arXiv 1807.03748) with several positives inside the logarithm.
    """
    import torch

    if not temperature > 0:
        raise ValueError(f"temperature {temperature}, expected one above 0")
    scaled = cosines(states) / temperature
    positive, negative = _pairs(group, factual)
    anchors = positive.any(1) & negative.any(1)
    # Rows that are no anchor would be log(0) - log(0); their place is taken by 0 before and after.
    kept = anchors[:, None]
    nearer = torch.where(positive | ~kept, scaled, -torch.inf).logsumexp(-1)
    every = torch.where(positive | negative | ~kept, scaled, -torch.inf).logsumexp(-1)
    return _group_means(torch.where(anchors, every - nearer, 0.0), group, anchors)


def cosine_margin(states: Tensor, group: Tensor, factual: Tensor) -> Tensor:
    """By how much the factual answers of a group are more alike than factual and hallucinated ones. Ours.

    Of an anchor the mean cosine with the group's other factual answers less that with its hallucinated ones; of a group
    the mean over its anchors, which are the same as in `info_nce`.

    Args:
        states, group, factual: as in `info_nce`.
    Returns:
        [..., group], in [-2, 2]; NaN for a group without an anchor.
    """
    import torch

    alike = cosines(states)
    positive, negative = _pairs(group, factual)
    anchors = positive.any(1) & negative.any(1)

    def mean(pairs: Tensor) -> Tensor:
        return torch.where(pairs, alike, 0.0).sum(-1) / pairs.sum(1).clamp(min=1)

    margins = torch.where(anchors, mean(positive) - mean(negative), 0.0)
    has_anchor = torch.bincount(group, weights=anchors.double()) > 0
    return torch.where(has_anchor, _group_means(margins, group, anchors), torch.nan)


def cosines(states: Tensor) -> Tensor:
    """Cosine of every pair: [..., answer, width] -> [..., answer, answer], in [-1, 1] up to rounding."""
    import torch

    unit = torch.nn.functional.normalize(states, dim=-1)
    return unit @ unit.transpose(-1, -2)


def _pairs(group: Tensor, factual: Tensor) -> tuple[Tensor, Tensor]:
    """[anchor, other]: both factual and of one group; anchor factual and other hallucinated."""
    import torch

    same = (group[:, None] == group) & factual[:, None]
    itself = torch.eye(len(group), dtype=torch.bool, device=group.device)
    return same & factual & ~itself, same & ~factual


def _group_means(values: Tensor, group: Tensor, anchors: Tensor) -> Tensor:
    """[..., answer] -> [..., group]: means over the anchors of each group; 0 where there is none."""
    n_groups = int(group.max()) + 1 if len(group) else 0
    sums = values.new_zeros(*values.shape[:-1], n_groups).index_add(-1, group, values)
    counts = values.new_zeros(n_groups).index_add(0, group, anchors.to(values.dtype))
    return sums / counts.clamp(min=1)
