"""The measurements of a trained pair of models: what the card shows and what the bands hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hcl_cli.lab.build_world import shipped_questions
from hcl_cli.lab.evaluate import GROUPS, TEMPERATURES, Asked, asked, balance, graded, respond, share_best
from hcl_cli.lab.world import World

N_SAMPLES = 30


def measurement(folder: Path, world: World, split: Literal["choose", "report"], n_samples: int = N_SAMPLES) -> Any:
    """One model on one split, as plain values for JSON.

    Returns:
        `accuracy`: for each group of questions, and for `trained` (all but the held-out ones), `n` and the share of
        right greedy answers per exit layer.
        `balance`, on those of the split that `questions.parquet` carries: for each temperature and for the groups
        `several` and `all`, per exit layer: `error`, `distinct` (right answers that differ), `hcb`, `best` (exit layer,
        from 1) and `share_best` (over resamples of questions).
    """
    from hcl_cli.models.load import load_model

    loaded = load_model(folder, dtype="float32", device="cpu")
    items = asked(world.questions, split)
    error, _ = graded(respond(loaded, items, 1, 0.0), items)
    accuracy = {
        name: {"n": len(rows), "greedy": _rounded(1 - error[rows].mean(0))} for name, rows in _groups(items).items()
    }
    shipped = asked(shipped_questions(world), split)
    return {
        "accuracy": accuracy,
        "balance": {
            f"{temperature}": _balance(respond(loaded, shipped, n_samples, temperature), shipped)
            for temperature in TEMPERATURES
        },
    }


def digest(world: World) -> str:
    """Eight digits that change with anything the models are trained on or asked."""
    return hashlib.sha256(repr((world.questions, world.statements)).encode()).hexdigest()[:8]


def _groups(items: Sequence[Asked]) -> dict[str, list[int]]:
    rows = {name: [row for row, item in enumerate(items) if item.group == name] for name in GROUPS}
    rows["trained"] = [row for row, item in enumerate(items) if item.group != "held"]
    return rows


def _balance(responses: Any, items: Sequence[Asked]) -> dict[str, Any]:
    error, distinct = graded(responses, items)
    several = [row for row, item in enumerate(items) if item.group == "several"]
    result = {}
    for name, rows in (("several", several), ("all", list(range(len(items))))):
        wrong, right = error[rows], distinct[rows]
        hcb = balance(wrong, right)
        result[name] = {
            "n": len(rows),
            "error": _rounded(wrong.mean(0)),
            "distinct": _rounded(right.mean(0)),
            "hcb": _rounded(hcb),
            "best": int(hcb.argmax()) + 1,
            "share_best": _rounded(share_best(wrong, right)),
        }
    return result


def _rounded(values: np.ndarray[Any, np.dtype[np.float64]]) -> list[float]:
    return [round(float(value), 3) for value in values]
