"""The published weightings of HCB. Light: imports no numpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """How HCB weighs its two parts.

    Attributes:
        creativity: weight of the min-max scaled creativity, in [0, 1].
        hallucination: weight of (1 - hallucination), in [0, 1].
        scale: "raw" takes the hallucination rate as it is, "minmax" scales it over the layers first.
    """

    creativity: float
    hallucination: float
    scale: str

    @property
    def formula(self) -> str:
        """The score in words, built from the weights."""
        rate = "hallucination rate" if self.scale == "raw" else "min-max hallucination rate"
        return f"HCB = {self.creativity:g} x min-max creativity + {self.hallucination:g} x (1 - {rate})"


PRESETS = {
    # The published script: 0.5 * minmax(C) + 0.5 * (1 - H), H as it is.
    "script": Weights(0.5, 0.5, "raw"),
    # The title of the published figures.
    "title": Weights(0.8, 0.2, "minmax"),
    # The numbers printed in the published figures (our fit: all eight series within 0.01).
    "figure": Weights(0.9, 0.1, "minmax"),
}
