"""The layers that some methods read, all through the head in one product, and what a method makes of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hcl_cli.measures.contrast import contrasted, layer_divergence, penalised, plausible
from hcl_cli.models.layer_entropy import readout

if TYPE_CHECKING:
    from hcl_cli.models.anatomy import Anatomy
    from hcl_cli.models.contrast_methods import Method

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Heads:
    """The distinct readings of some methods: a layer, with the final norm or without. The last layer is reading 0.

    Attributes:
        layers: [reading], 0..L.
        of: for each method the readings of its candidates, in their order.
        width: of the logits.
    """

    def __init__(self, anatomy: Anatomy, methods: Sequence[Method]) -> None:
        keys = {(method.norm, layer) for method in methods for layer in method.candidates}
        # Normed ones first: the norm then runs once, on the first states of a product.
        order = [(True, anatomy.n_layers), *sorted(keys, key=lambda key: (not key[0], key[1]))]
        self.layers: Ints = np.array([layer for _, layer in order])
        self.of = [np.array([order.index((m.norm, k)) for k in m.candidates], dtype=np.int64) for m in methods]
        self._n_normed = sum(norm for norm, _ in order)
        self._norm = anatomy.final_norm
        weight: Tensor = anatomy.unembedding.weight  # type: ignore[assignment]
        self.width = int(weight.shape[0])
        # Unembedding, scale and soft-cap; all states come normed or are meant not to be.
        self._unembed = readout(anatomy, 0, norm=False)

    def wanted(self, method: Ints, row: Ints, n_rows: int) -> Bools:
        """[reading, row]: what the given pairs of method and row need."""
        found = np.zeros((len(self.layers), n_rows), dtype=bool)
        found[0, row] = True
        for index in np.unique(method):
            found[self.of[index][:, None], row[method == index]] = True
        return found

    def logits(self, states: Tensor, reading: Ints) -> Tensor:
        """Logits of raw states in one product.

        Args:
            states: [n, hidden], not yet normed.
            reading: [n], rising.
        Returns:
            [n, vocab]; float64 for a float64 model, else float32.
        """
        n = int(np.searchsorted(reading, self._n_normed))
        parts = [self._norm(states[:n]), states[n:]] if n else [states]
        logits = self._unembed(torch.cat(parts) if n < len(states) else parts[0])
        return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Contrast:
    """What a method says at several rows.

    Attributes:
        scores: [row, vocab]; their softmax is the next token's distribution. Logits for `vanilla`, -inf outside its
            plausible set if it has one.
        mature: [row, vocab], log-probabilities of the last layer, not penalised; None where the scores say it.
        choice: [row], the place of the chosen layer among the candidates; None for `vanilla`.
        divergence: [row], of the chosen layer from the last one, nats; None for `vanilla`.
    """

    scores: Tensor
    mature: Tensor | None
    choice: Tensor | None
    divergence: Tensor | None


def divergences(mature: Tensor, premature: Tensor, method: Method) -> Tensor:
    """Of every candidate from the last layer, from logits: [candidate, row], nats.

    Args:
        mature: [row, vocab], logits.
        premature: [candidate, row, vocab], logits.
    """
    return layer_divergence(mature.log_softmax(-1), premature.log_softmax(-1), method.divergence)


def contrast(
    mature: Tensor, premature: Tensor, method: Method, seen: Tensor | None = None, fixed: int | None = None
) -> Contrast:
    """The next token's scores under a method.

    Args:
        mature: [row, vocab], logits of the last layer.
        premature: [candidate, row, vocab], logits; not read for `vanilla`.
        method: which.
        seen: [row, n], tokens that are there already, for the penalty; not read where there is none.
        fixed: the candidate to take in every row, in place of the row's own.
    """
    penalise = seen is not None and method.penalty != 1.0
    if not method.candidates:
        return _vanilla(mature, method, seen if penalise else None)
    plain = mature.log_softmax(-1)
    logprobs = premature.log_softmax(-1)
    apart = layer_divergence(plain, logprobs, method.divergence)
    choice = apart.argmax(0) if fixed is None else torch.full_like(apart[0], fixed, dtype=torch.long)
    rows = torch.arange(len(plain), device=plain.device)
    raw = method.raw_without_alpha and not method.alpha
    base, last = (premature if raw else logprobs)[choice, rows], mature if raw else plain
    if penalise and seen is not None and method.penalty_on == "logits":
        last = penalised(mature, seen, method.penalty)
        last = last if raw else last.log_softmax(-1)
    scores = contrasted(last, base, plausible(last, method.alpha))
    if penalise and seen is not None and method.penalty_on == "contrasted":
        scores = penalised(scores, seen, method.penalty)
    return Contrast(scores, plain, choice, apart[choice, rows])


def _vanilla(mature: Tensor, method: Method, seen: Tensor | None) -> Contrast:
    """The last layer alone, truncated to its plausible set and penalised where the method says so.

    The set is that of the logits before the penalty, as it is of a contrast.
    """
    if seen is None and not method.alpha:
        return Contrast(mature, None, None, None)
    plain = mature.log_softmax(-1)
    scores = mature if seen is None else penalised(mature, seen, method.penalty)
    if method.alpha:
        scores = scores.masked_fill(~plausible(plain, method.alpha), -torch.inf)
    return Contrast(scores, plain, None, None)
