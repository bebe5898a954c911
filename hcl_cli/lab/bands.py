"""Where training must land: bands written down from three seeds of the recipe, never from one set of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Band:
    """A closed interval for one quantity, and what the seeds 0, 1 and 2 measured when it was written down."""

    low: float
    high: float
    seeds: tuple[float, ...]

    def holds(self, value: float) -> bool:
        """Whether the value lies in the band, its ends included."""
        return self.low <= value <= self.high


def quantities(measured: dict[str, Any]) -> dict[str, float]:
    """The quantities that have a band, from one seed's measurements on the questions `choose`.

    Args:
        measured: model -> split -> what `measurement` returned.
    """
    base, planted = measured["lab-base"]["choose"], measured["lab"]["choose"]
    trained = base["accuracy"]["trained"]["greedy"]
    values = {f"lab-base right at exit {layer}": trained[layer - 1] for layer in (1, 3, 5, 6, 7, 10)}
    values["lab-base largest fall to the next exit"] = max(
        before - after for before, after in zip(trained, trained[1:], strict=False)
    )
    values["lab-base two-step right at the last exit"] = base["accuracy"]["two-step"]["greedy"][-1]
    values["lab-base rare right at the last exit"] = base["accuracy"]["rare"]["greedy"][-1]
    values["lab-base held right at any exit"] = max(base["accuracy"]["held"]["greedy"])
    values["lab right at the last exit"] = planted["accuracy"]["trained"]["greedy"][-1]
    for temperature in ("0.6", "1.0"):
        values[f"lab-base best exit, T {temperature}"] = base["balance"][temperature]["all"]["best"]
        balance = planted["balance"][temperature]["all"]
        values[f"lab best exit, T {temperature}"] = balance["best"]
        values[f"lab HCB best over last, T {temperature}"] = round(max(balance["hcb"]) - balance["hcb"][-1], 3)
    return values


BANDS: dict[str, Band] = {}


def outside(measured: dict[str, Any]) -> list[str]:
    """One sentence for each quantity that misses its band; empty if training landed."""
    values = quantities(measured)
    return [
        f"{name}: {values[name]:.3f} is not in {band.low:g} to {band.high:g} (seeds: {band.seeds})"
        for name, band in BANDS.items()
        if not band.holds(values[name])
    ]
