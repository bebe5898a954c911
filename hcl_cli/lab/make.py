"""From the world to both tracked models, their measurements and their cards: what `make lab-model` runs."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hcl_cli.lab.card import Name, card
from hcl_cli.lab.examples import Examples
from hcl_cli.lab.export import export
from hcl_cli.lab.measure import digest, measurement
from hcl_cli.lab.recipe import Recipe
from hcl_cli.lab.tokens import train_tokenizer, training_text
from hcl_cli.lab.train import new_model, train
from hcl_cli.lab.world import World

NAMES: tuple[Name, ...] = ("lab-base", "lab")
MEASURED = "seeds.json"


def train_both(world: World, recipe: Recipe, seed: int, out: Path) -> None:
    """Train both phases from one seed and write `out/lab-base` and `out/lab`."""
    tokenizer = train_tokenizer(training_text(world))
    model = new_model(tokenizer, recipe.shape, seed)
    for name, phase in zip(NAMES, (recipe.learning, recipe.planting), strict=True):
        started = time.process_time()
        train(model, Examples(world, tokenizer, phase), phase, seed, name)
        print(f"{name} seed {seed}: {time.process_time() - started:.0f} CPU seconds", file=sys.stderr)
        export(model, tokenizer, out / name)


def measure_both(world: World, out: Path) -> dict[str, Any]:
    """Model -> split -> measurement, of the exported models in `out`."""
    return {name: {split: measurement(out / name, world, split) for split in ("choose", "report")} for name in NAMES}


def make(world: World, recipe: Recipe, seed: int, kept_seed: int, out: Path) -> None:
    """Train, measure and record one seed; the kept seed's models stay in `out`, those of others are only measured.

    Measurements of other seeds are kept as long as world and recipe are the same. The cards are written again
    whenever the kept seed has been measured.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out if seed == kept_seed else Path(scratch)
        train_both(world, recipe, seed, folder)
        record(out / MEASURED, world, recipe, seed, measure_both(world, folder))
    write_cards(out, recipe, kept_seed)


def record(path: Path, world: World, recipe: Recipe, seed: int, measured: dict[str, Any]) -> None:
    """Add one seed's measurements to the file; those made with another world or recipe are dropped."""
    made_with = {"world": digest(world), "recipe": recipe.as_dict()}
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    seeds = before.get("seeds", {}) if {key: before.get(key) for key in made_with} == made_with else {}
    seeds = dict(sorted({**seeds, str(seed): measured}.items()))
    text = json.dumps({**made_with, "seeds": seeds}, indent=1)
    # One line per curve, not one per number.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found.group().split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def write_cards(out: Path, recipe: Recipe, kept_seed: int) -> None:
    """Write `README.md` of both models from `out/seeds.json`."""
    seeds = json.loads((out / MEASURED).read_text(encoding="utf-8"))["seeds"]
    if str(kept_seed) in seeds:
        for name in NAMES:
            (out / name / "README.md").write_text(card(name, recipe, kept_seed, seeds), encoding="utf-8")
