"""Every number of the lab models' training, in one place. Why they are what they are: `lab` cards and comments here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hcl_cli.lab.layerskip import Curriculum


@dataclass(frozen=True)
class Shape:
    """The architecture: a Llama small enough to be tracked. A thin MLP keeps depth necessary (accuracy rises late)."""

    hidden: int = 128
    layers: int = 10
    heads: int = 4
    key_value_heads: int = 2
    mlp: int = 160


@dataclass(frozen=True)
class Phase:
    """One stage of training, the same loop for both.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak of AdamW's rate; linear warm-up, then a cosine down to 3 % of it.
        questions, statements: examples per step.
        statement_weight: weight of the statements' mean token loss beside that of the answers.
        several_boost: factor on the world's weight of questions with several answers.
        alias_share: chance that an answer with other names is given by one of them.
        sharpening: power to which the probabilities of a question's answers are raised before they are normalised.
            1 keeps the world's own, less makes them more even, more is the planted loss of diversity.
        p_max: largest layer-dropout probability (LayerSkip).
        e_scale, curriculum, period: exit losses (LayerSkip).
        frozen_layers: blocks 1..frozen_layers, the embedding (which is also the head) and the final norm do not change;
            0 trains everything.
    """

    steps: int
    learning_rate: float
    warm_up: int
    questions: int = 48
    statements: int = 16
    statement_weight: float = 0.5
    several_boost: float = 1.0
    alias_share: float = 0.25
    sharpening: float = 1.0
    p_max: float = 0.0
    e_scale: float = 0.02
    curriculum: Curriculum = "rotational"
    period: int = 4
    frozen_layers: int = 0
    weight_decay: float = 0.05
    clip: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """Both phases. `lab-base` is the model after the first, `lab` after the second."""

    shape: Shape = Shape()
    learning: Phase = Phase(steps=1800, learning_rate=3e-3, warm_up=100, several_boost=6.0, sharpening=0.5, p_max=0.1)
    planting: Phase = Phase(
        steps=350, learning_rate=3e-3, warm_up=20, several_boost=6.0, sharpening=4.0, e_scale=1.0, frozen_layers=7
    )

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values, for the card and the log."""
        return asdict(self)


RECIPE = Recipe()
