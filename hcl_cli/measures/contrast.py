"""Contrasting two layers' next-token distributions: how far they are apart, which tokens stay, how they score.

The mature distribution q_N is the last layer's, the premature one q_j an earlier layer's. Definitions are the paper's
(DoLa, arXiv 2309.03883, section 2) unless a name says `published`: that is what its code computes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hcl_cli.measures.information import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor


def published_divergence(p: Tensor, q: Tensor) -> Tensor:
    """The divergence of DoLa's published code: the mean KL divergence of the average from p and from q.

    It is called Jensen-Shannon there, but both arguments of each KL divergence are exchanged:
    (KL(m, p) + KL(m, q)) / 2 with m = (p + q) / 2, where Jensen-Shannon has (KL(p, m) + KL(q, m)) / 2. Symmetric, 0
    for equal distributions, not bounded by ln 2 and infinite where only one of them forbids an outcome; the two can
    order a pair of layers differently.

    Args:
        p, q: [..., outcome], >= 0, each summing to 1 over the last axis.
    Returns:
        [...], in nats. The code's own value is this over the number of outcomes.
    Source: reference code of arXiv 2309.03883; transformers 4.22 to 4.56 computed the same.
    """
    middle = (p + q) / 2
    return (kl_divergence(middle, p) + kl_divergence(middle, q)) / 2


def layer_divergence(mature_logprobs: Tensor, premature_logprobs: Tensor, kind: str) -> Tensor:
    """Divergence of premature layers from the mature one, with one logarithm per outcome.

    Equal to `information.js_divergence` or `published_divergence` of the probabilities, made from sums p ln p: in
    float32 the rounding error is about 1e-7 ln n.

    Args:
        mature_logprobs: [row, outcome], nats.
        premature_logprobs: [..., row, outcome], nats.
        kind: "jsd", in [0, ln 2]; or "published".
    Returns:
        [..., row], in nats; NaN where a distribution has NaN.
    """
    import torch

    tiny, least = torch.finfo(mature_logprobs.dtype).tiny, -1e30  # 0 * least is 0, as it should be; 0 * -inf is NaN
    mature, premature = mature_logprobs.clamp(min=least), premature_logprobs.clamp(min=least)
    p, q = mature.exp(), premature.exp()
    middle = (p + q).mul_(0.5)
    negentropy = middle.clamp(min=tiny).log_().mul_(middle).sum(-1)
    if kind == "published":
        return (negentropy - middle.mul_(mature + premature).sum(-1) / 2).clamp_(min=0.0)
    if kind != "jsd":
        raise ValueError(f"divergence {kind!r}: expected jsd or published")
    both = p.mul_(mature).sum(-1) + q.mul_(premature).sum(-1)
    return (both / 2 - negentropy).clamp_(0.0, math.log(2))


def plausible(logprobs: Tensor, alpha: float) -> Tensor:
    """The plausible set V_head: tokens at least `alpha` times as likely as the likeliest.

    Never empty: the likeliest token is always in it. All tokens at alpha 0; at alpha 1 the likeliest and its equals.

    Args:
        logprobs: [..., outcome], of the mature layer, nats.
        alpha: in [0, 1].
    Returns:
        [..., outcome], bool.
    Raises:
        ValueError: alpha outside [0, 1].
    Source: arXiv 2309.03883, section 2, after Li et al., arXiv 2210.15097.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha {alpha}: expected 0..1")
    least = logprobs.max(-1, keepdim=True).values + (math.log(alpha) if alpha > 0.0 else -math.inf)
    return logprobs >= least


def contrasted(mature_logprobs: Tensor, premature_logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    """The contrasted score F = ln q_N - ln q_M of every token, -inf outside the plausible set.

    The next token is drawn from softmax(F). A token that the mature layer forbids stays forbidden, whatever the
    premature layer says.

    Args:
        mature_logprobs, premature_logprobs: [..., outcome], nats. Raw logits serve too, as the published code takes
            them at alpha 0: that differs by a constant per row, which only a penalty on F can notice.
        mask: [..., outcome], from `plausible`; None for all tokens.
    Returns:
        [..., outcome].
    Source: arXiv 2309.03883, section 2.
    """
    scores = mature_logprobs - premature_logprobs
    forbidden = mature_logprobs == -math.inf
    return scores.masked_fill_(forbidden if mask is None else forbidden.logical_or_(~mask), -math.inf)


def penalised(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores with every token that is already there made less likely: positive scores divided, others multiplied.

    The size of the change depends on where the zero of the scores lies. Log-probabilities are never positive, so they
    are multiplied always: a certain token (0) is not touched, an unlikely one is hit hardest. Contrasted scores are 0
    where both layers agree, so a token is hit by how much the layers disagree about it. Raw logits have no zero of
    their own. A score of -inf stays.

    Args:
        scores: [row, outcome].
        seen: [row, n], token ids; repeats count once.
        penalty: 1 changes nothing; above 0.
    Returns:
        [row, outcome], a new tensor.
    Source: Keskar et al., arXiv 1909.05858, as in the library's RepetitionPenaltyLogitsProcessor.
    """
    import torch

    found = scores.gather(1, seen)
    return scores.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))
