"""The LayerSkip training formulas: layer dropout, exit-loss weights and curricula.

Blocks are counted l = 0..L-1 and steps t = 0..T-1, as in the paper; exit layer l + 1 of the rest of `hcl` is read after
block l. Source of everything here: Elhoushi et al. 2024, LayerSkip (arXiv 2404.16710), sections 4.1 and 4.2. Each
function says where torchtune's implementation of the same recipe differs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Curriculum = Literal["all", "rotational", "gradual"]


def depth_scale(layer: int, n_layers: int) -> float:
    """D(l) = exp(l ln 2 / (L - 1)) - 1: 0 for the first block, 1 for the last.

    Raises:
        ValueError: if there are fewer than 2 blocks or `layer` is not one of 0..L-1.
    Source: LayerSkip, section 4.1; torchtune's "exp" scale is the same.
    """
    _check_layer(layer, n_layers)
    return math.exp(layer * math.log(2) / (n_layers - 1)) - 1


def time_scale(step: int, n_steps: int) -> float:
    """S(t) = exp(t ln 2 / (T - 1)) - 1: 0 at the first step, 1 at the last; for training from scratch.

    Continual training and fine-tuning use S = 1.

    Raises:
        ValueError: if there are fewer than 2 steps or `step` is not one of 0..T-1.
    Source: LayerSkip, section 4.1. torchtune has no S(t).
    """
    if n_steps < 2 or not 0 <= step < n_steps:
        raise ValueError(f"step {step} of {n_steps}: expected 0 <= step < n_steps and at least 2 steps")
    return math.exp(step * math.log(2) / (n_steps - 1)) - 1


def dropout_probability(step: int, layer: int, n_steps: int, n_layers: int, p_max: float) -> float:
    """p_{l,t} = S(t) D(l) p_max: the chance that one example skips block l at step t, from scratch; in [0, p_max].

    Source: LayerSkip, equation 1. torchtune leaves S(t) out.
    """
    return time_scale(step, n_steps) * depth_scale(layer, n_layers) * p_max


def exit_loss_weight(layer: int, n_layers: int, e_scale: float) -> float:
    """e(l) before curriculum and normalisation: quadratic in depth, the last block far ahead.

    e(l) = e_scale (0 + 1 + ... + l) for l < L - 1, and e(L-1) = (L - 1) + e_scale (0 + 1 + ... + (L - 2)). So the
    first exit has weight 0: no loss is ever read there.

    Source: LayerSkip, equation 6. torchtune's `sum_l` differs: it adds up (l + 1) over the *selected* layers only,
    gives the last one no (L - 1) but leaves its sum unscaled, and so gives the first exit a weight above 0.
    """
    _check_layer(layer, n_layers)
    if layer < n_layers - 1:
        return e_scale * layer * (layer + 1) / 2
    return (n_layers - 1) + e_scale * (n_layers - 2) * (n_layers - 1) / 2


def rotational(step: int, n_layers: int, period: int) -> list[bool]:
    """C_rot,R(t, .): every R-th block's exit is on, the pattern moves up by one block each step; the last is always on.

    Which residue comes first and that the last exit stays on are not in the formula: the last is the model's own
    loss, and torchtune keeps it on too.

    Source: LayerSkip, section 4.2 (rotational early exit).
    """
    if period < 1:
        raise ValueError(f"period {period}: expected at least 1")
    return [(layer - step) % period == 0 or layer == n_layers - 1 for layer in range(n_layers)]


def gradual(step: int, n_steps: int, n_layers: int) -> list[bool]:
    """C_grad(t, .): the last exit alone at first, one more downwards every T / (2 L) steps; all are on from T / 2.

    Source: LayerSkip, section 4.2 (gradual early exit). torchtune switches block l on at t / T >= (L - l) / (2 L),
    which is one block's interval later, apart from the last, which it never switches off.
    """
    return [2 * n_layers * step >= (n_layers - 1 - layer) * n_steps for layer in range(n_layers)]


def exit_weights(
    step: int,
    n_steps: int,
    n_layers: int,
    e_scale: float,
    curriculum: Curriculum,
    period: int = 1,
    first_layer: int = 0,
) -> list[float]:
    """Share of each exit in the loss of one step: C(t, l) e(l) / sum_i C(t, i) e(i); [L], sums to 1.

    Args:
        period: R of the rotational curriculum.
        first_layer: blocks below it have no loss (they are frozen, say) and are left out of the sum.
    Source: LayerSkip, equation 5. torchtune normalises to 1 as well.
    """
    if curriculum == "rotational":
        on: Sequence[bool] = rotational(step, n_layers, period)
    elif curriculum == "gradual":
        on = gradual(step, n_steps, n_layers)
    else:
        on = [True] * n_layers
    weights = [
        exit_loss_weight(layer, n_layers, e_scale) if on[layer] and layer >= first_layer else 0.0
        for layer in range(n_layers)
    ]
    total = sum(weights)
    return [weight / total for weight in weights]


def _check_layer(layer: int, n_layers: int) -> None:
    if n_layers < 2 or not 0 <= layer < n_layers:
        raise ValueError(f"block {layer} of {n_layers}: expected 0 <= block < n_layers and at least 2 blocks")
