"""A curve and its resamples: the questions drawn anew, everything else computed again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.hcb import Weights, best_layer, hcb, linear_part
from hcl_cli.stages.curves import Curve

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A curve with its resamples.

    Attributes:
        curve: the data.
        weights: of HCB.
        hallucination, creativity, score, confidence: [layer], NaN where unknown.
        drawn_hallucination, drawn_creativity, drawn_confidence: [resample, layer].
        drawn_score: [resample, layer], min-max scales recomputed in each resample.
        linear: [layer], HCB up to a constant with the observed min-max scales held.
        drawn_linear: [resample, layer], the same of the resampled means, the observed scales still held.
    """

    curve: Curve
    weights: Weights
    hallucination: Floats
    creativity: Floats
    score: Floats
    confidence: Floats
    drawn_hallucination: Floats
    drawn_creativity: Floats
    drawn_confidence: Floats
    drawn_score: Floats
    linear: Floats
    drawn_linear: Floats

    @property
    def best(self) -> int | None:
        """Index of the best layer, None if no layer has a score."""
        return None if np.isnan(self.score).any() else int(best_layer(self.score))

    @property
    def depth(self) -> Floats:
        """Relative depth of each layer: its number as a share of the deepest one compared."""
        return np.asarray(self.curve.layers, dtype=np.float64) / self.curve.layers[-1]


def measure(curve: Curve, weights: Weights, n_bootstrap: int, seed: int) -> Measured:
    """Means over questions, and the same in every resample of the questions (NaN: fewer than two questions)."""
    n_questions, n_layers = curve.wrong.shape
    together = np.concatenate([curve.wrong, curve.diversity, curve.confidence], axis=1)
    if n_questions > 1:
        drawn = resampled_means(together, n_bootstrap, seed, curve.stream)
    else:
        drawn = np.full((n_bootstrap, 3 * n_layers), np.nan)
    drawn_wrong, drawn_diversity, drawn_confidence = np.split(drawn, 3, axis=1)
    wrong, diversity, confidence = (_means(part) for part in (curve.wrong, curve.diversity, curve.confidence))
    return Measured(
        curve=curve,
        weights=weights,
        hallucination=wrong,
        creativity=diversity,
        score=hcb(diversity, wrong, weights),
        confidence=confidence,
        drawn_hallucination=drawn_wrong,
        drawn_creativity=drawn_diversity,
        drawn_confidence=drawn_confidence,
        drawn_score=hcb(drawn_diversity, drawn_wrong, weights),
        linear=linear_part(diversity, wrong, weights, (diversity, wrong)),
        drawn_linear=linear_part(drawn_diversity, drawn_wrong, weights, (diversity, wrong)),
    )


def _means(values: Floats) -> Floats:
    counted = values[~np.isnan(values).any(axis=1)]
    return np.asarray(counted.mean(axis=0)) if len(counted) else np.full(values.shape[1], np.nan)
