"""Numbers in the sentences of FINDINGS."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """A share in whole per cent; what is neither none nor all never reads as such."""
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def p_text(p_value: float) -> str:
    """A p-value for a sentence."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def fixed(value: float, decimals: int, sign: str = "") -> str:
    """A number with that many decimals, never a negative zero."""
    return f"{round(float(value), decimals) + 0.0:{sign}.{decimals}f}"


def known(value: float) -> float | None:
    """None for NaN; rounded, so that the order in which a machine adds does not show."""
    return None if math.isnan(value) else round(float(value), 12)


def about(number: float) -> str:
    """A count with two digits that mean something: 312 is 310."""
    size = 10 ** max(0, len(str(int(number))) - 2)
    return f"{math.ceil(number / size) * size:,}"
