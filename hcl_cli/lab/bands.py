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


# Written on the day the recipe was fixed, from its first three seeds and before any test used them. Shares get about
# 0.05 to 0.13 beyond the seeds' extremes (sets of 39 to 478 questions, standard errors of 0.02 to 0.05). Seed 3,
# trained afterwards, landed in all of them.
BANDS: dict[str, Band] = {
    "lab-base right at exit 1": Band(0.05, 0.30, (0.12, 0.19, 0.20)),
    "lab-base right at exit 3": Band(0.20, 0.50, (0.29, 0.37, 0.41)),
    "lab-base right at exit 5": Band(0.48, 0.70, (0.57, 0.59, 0.60)),
    "lab-base right at exit 6": Band(0.60, 0.78, (0.70, 0.68, 0.69)),
    "lab-base right at exit 7": Band(0.66, 0.82, (0.74, 0.75, 0.73)),
    "lab-base right at exit 10": Band(0.76, 0.88, (0.81, 0.82, 0.82)),
    "lab-base largest fall to the next exit": Band(-0.10, 0.02, (-0.02, -0.00, -0.01)),
    "lab-base two-step right at the last exit": Band(0.74, 0.96, (0.86, 0.84, 0.88)),
    "lab-base rare right at the last exit": Band(0.22, 0.52, (0.34, 0.36, 0.39)),
    "lab-base held right at any exit": Band(0.00, 0.15, (0.08, 0.03, 0.05)),
    "lab right at the last exit": Band(0.79, 0.91, (0.85, 0.84, 0.86)),
    "lab-base best exit, T 0.6": Band(10, 10, (10, 10, 10)),
    "lab best exit, T 0.6": Band(7, 7, (7, 7, 7)),
    "lab HCB best over last, T 0.6": Band(0.08, 0.35, (0.14, 0.22, 0.19)),
    "lab-base best exit, T 1.0": Band(10, 10, (10, 10, 10)),
    "lab best exit, T 1.0": Band(7, 8, (7, 7, 7)),
    "lab HCB best over last, T 1.0": Band(0.06, 0.32, (0.12, 0.20, 0.18)),
}


def outside(measured: dict[str, Any]) -> list[str]:
    """One sentence for each quantity that misses its band; empty if training landed."""
    values = quantities(measured)
    return [
        f"{name}: {values[name]:.3f} is not in {band.low:g} to {band.high:g} (seeds: {band.seeds})"
        for name, band in BANDS.items()
        if not band.holds(values[name])
    ]
