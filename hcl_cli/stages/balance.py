"""What `--weights` names. Light: a hit reads it."""

from __future__ import annotations

import math
from dataclasses import replace

from hcl_cli.errors import BadOption
from hcl_cli.measures.weights import PRESETS, Weights

SCALES = ("raw", "minmax")


def parse_weights(text: str, scale_hallucination: str | None = None) -> Weights:
    """The weights that `--weights` names: script, title, figure, or a number W for W of creativity, 1 - W of the rest.

    Args:
        text: the option's value.
        scale_hallucination: the value of `--scale-hallucination`, which overrides the preset's; None leaves it.
    Raises:
        BadOption: for anything else.
    """
    if scale_hallucination is not None and scale_hallucination not in SCALES:
        raise BadOption(f"--scale-hallucination {scale_hallucination!r}: expected raw or minmax")
    weights = PRESETS.get(text.strip())
    if weights is None:
        try:
            creativity = float(text)
        except ValueError:
            creativity = math.nan
        if not 0 <= creativity <= 1:
            raise BadOption(
                f"--weights {text!r}: expected script, title, figure or a number from 0 to 1; try --weights script"
            )
        # Rounded, so that 0.9 leaves 0.1 and not 0.09999999999999998.
        weights = Weights(creativity, round(1 - creativity, 12), "raw")
    return weights if scale_hallucination is None else replace(weights, scale=scale_hallucination)
