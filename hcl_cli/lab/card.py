"""The model cards: README.md of each tracked model, every number taken from the measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hcl_cli.lab.evaluate import GROUPS
from hcl_cli.lab.measure import N_SAMPLES
from hcl_cli.lab.recipe import Phase, Recipe
from hcl_cli.lab.tokens import CONTEXT, VOCABULARY

Name = Literal["lab-base", "lab"]

_KINDS = {
    "known": "one answer, seen often",
    "two-step": 'two steps ("the currency of the country whose capital is ...")',
    "rare": "one answer, seen rarely",
    "held": "one answer, never seen",
    "several": "several right answers",
}


def card(name: Name, recipe: Recipe, seed: int, seeds: dict[str, Any]) -> str:
    """The card of one model as Markdown.

    Args:
        seed: the one whose weights are tracked.
        seeds: seed -> model -> split -> what `measurement` returned.
    """
    reported = seeds[str(seed)][name]["report"]
    sections = [
        _head(name, recipe, seed),
        _planted(name, recipe),
        _recipe(name, recipe),
        _accuracy(reported["accuracy"]),
        _balance(reported["balance"]),
        _spread(name, seeds),
        _limits(name),
    ]
    return "\n\n".join(sections) + "\n"


def _head(name: Name, recipe: Recipe, seed: int) -> str:
    shape = recipe.shape
    phases = "phase 1 only" if name == "lab-base" else "phases 1 and 2"
    return f"""---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A laboratory animal for `hcl`, not a language model to use: a Llama of {shape.layers} blocks and width {shape.hidden}
(MLP {shape.mlp}, {shape.heads} heads, {shape.key_value_heads} for keys and values, tied embeddings, {VOCABULARY}
byte-level BPE tokens, {CONTEXT} positions) that knows the small world of facts in `data/lab/` and nothing else.
Trained from seed {seed} ({phases}) by `make lab-model` on a CPU; of three seeds the one whose planted balance stands
out most on the questions `choose`. Stored in float16, used in float32.

Licence: MIT, like the project; the world is CC0-1.0.

This file is written by `python -m hcl_cli.lab`. Its numbers were measured on the exported weights and on the questions
with `split` = `report`, which were not looked at while the recipe was chosen (those were the questions `choose`)."""


def _planted(name: Name, recipe: Recipe) -> str:
    frozen, layers = recipe.planting.frozen_layers, recipe.shape.layers
    if name == "lab-base":
        return f"""## What is planted

Nothing in the depth of this model: the later the exit, the better, and the best balance (HCB) is at the last one. What
training sees often, rarely or never is by design: rare facts are often wrong, held-out facts are always invented.
`lab` is this model with its blocks {frozen + 1} to {layers} changed so that the best balance moves to an early exit."""
    return f"""## What is planted

The best balance (HCB) of this model lies near exit layer {frozen} *by design*. Phase 2 froze the embedding, the final
norm and blocks 1 to {frozen} of `lab-base` and went on training blocks {frozen + 1} to {layers} on the same world with
sharper answers: where a question has several right answers, their probabilities in the world were raised to the
power {recipe.planting.sharpening:g} (in phase 1 to the power {recipe.learning.sharpening:g}) and normalised. So late
exits give the commonest answer again and again: diversity falls after exit {frozen} while accuracy still rises.
Exits 1 to {frozen} are those of `lab-base`, bit for bit.

This is a planted truth that `hcl hcb` must find. It stands in for the loss of diversity in tuned models; it is not a
discovery, and no evidence about creativity or hallucination in large models."""


def _recipe(name: Name, recipe: Recipe) -> str:
    lines = ["## Recipe", "", f"1. {_phase(recipe.learning)}"]
    if name == "lab":
        lines.append(f"2. {_phase(recipe.planting)}")
    lines += [
        "",
        "AdamW (betas 0.9 and 0.98), linear warm-up and a cosine to 3 %, float32, one thread. LayerSkip: layer dropout",
        "p(l, t) = S(t) D(l) p_max and exit losses through the shared norm and head (`hcl_cli/lab/layerskip.py`); all",
        "settings in `hcl_cli/lab/recipe.py`. On one machine and with one set of library versions the same seed gives",
        "the same weights; elsewhere training lands in the same bands (`hcl_cli/lab/bands.py`), not on equal weights.",
    ]
    return "\n".join(lines)


def _phase(phase: Phase) -> str:
    frozen = f", blocks 1 to {phase.frozen_layers}, embedding and norm frozen" if phase.frozen_layers else ""
    return (
        f"{phase.steps} steps of {phase.questions} questions and {phase.statements} statements (weight "
        f"{phase.statement_weight:g}), learning rate {phase.learning_rate:g}, warm-up {phase.warm_up}, weight decay "
        f"{phase.weight_decay:g}, clipping {phase.clip:g}; answers' probabilities to the power {phase.sharpening:g}, "
        f"questions with several answers {phase.several_boost:g} times as often as the world says; "
        f"p_max {phase.p_max:g}, e_scale "
        f"{phase.e_scale:g}, {phase.curriculum} curriculum R = {phase.period}{frozen}"
    )


def _accuracy(accuracy: dict[str, Any]) -> str:
    rows = [
        [name, str(accuracy[name]["n"]), *(f"{value:.2f}" for value in accuracy[name]["greedy"])] for name in GROUPS
    ]
    layers = range(1, len(accuracy["known"]["greedy"]) + 1)
    kinds = "; ".join(f"`{name}`: {text}" for name, text in _KINDS.items())
    return "\n\n".join(
        [
            "## Right greedy answers per exit layer",
            _table(["questions", "n", *map(str, layers)], rows),
            f"{kinds}. Right: an accepted answer stands in the response as whole words. "
            "The standard error of a share p is sqrt(p (1 - p) / n).",
        ]
    )


def _balance(balance: dict[str, Any]) -> str:
    parts = [f"## Sampled answers ({N_SAMPLES} per question and exit layer, top-p 0.9)"]
    for temperature, groups in balance.items():
        for group, title in (("several", "questions with several answers"), ("all", "questions of every kind")):
            at = groups[group]
            rows = [
                ["share of wrong answers", *(f"{value:.2f}" for value in at["error"])],
                ["distinct right answers", *(f"{value:.2f}" for value in at["distinct"])],
                ["HCB", *(f"{value:.2f}" for value in at["hcb"])],
                ["best in this share of resamples", *(f"{value:.2f}" for value in at["share_best"])],
            ]
            layers = map(str, range(1, len(at["hcb"]) + 1))
            parts.append(
                f"Temperature {temperature}, {at['n']} {title}: best exit layer {at['best']}.\n\n"
                + _table(["exit layer", *layers], rows)
            )
    parts.append(
        "On the questions `report` of `data/lab/questions.parquet`, in the mixture that `hcl sample` reads by default; "
        "distinct in normal form (`--cluster exact`), 0 for a question without a right answer; 2,000 resamples of the "
        "questions."
    )
    parts.append("HCB = 0.5 x (distinct right answers, min-max scaled over exits) + 0.5 x (1 - share wrong).")
    return "\n\n".join(parts)


def _spread(name: Name, seeds: dict[str, Any]) -> str:
    rows = []
    for seed, models in sorted(seeds.items(), key=lambda item: int(item[0])):
        report = models[name]["report"]
        trained = report["accuracy"]["trained"]["greedy"]
        last = {group: report["accuracy"][group]["greedy"][-1] for group in GROUPS}
        best = [str(report["balance"][t]["all"]["best"]) for t in report["balance"]]
        picked = [f"{trained[layer - 1]:.2f}" for layer in _shown_layers(len(trained))]
        rows.append([seed, *picked, *(f"{value:.2f}" for value in last.values()), " / ".join(best)])
    layers = _shown_layers(len(trained))
    temperatures = " / ".join(f"T {t}" for t in report["balance"])
    header = ["seed", *(f"exit {layer}" for layer in layers), *(f"{group}, last" for group in GROUPS)]
    return "\n\n".join(
        [
            "## Three seeds of the same recipe",
            _table([*header, f"best HCB exit, {temperatures}"], rows),
            "Exit columns: right greedy answers over all questions but the held-out ones; `last`: at the last exit.",
        ]
    )


def _shown_layers(n_layers: int) -> list[int]:
    return [layer for layer in (1, 3, 5, 7, n_layers) if layer <= n_layers]


def _limits(name: Name) -> str:
    return f"""## What it may not be used for

- Answering anything: outside its world it produces noise, and inside it is wrong on purpose about rare and
  held-out facts.
- Conclusions about large models. `{name}` shows that a tool finds what was put there, and no more.
- Claims about LayerSkip: in models of this size accuracy can rise with depth without any exit loss, too.
- Claims about a "truth direction": half of the entities were taught the words "True" and "False" after statements, and
  probes on those read memorised verdicts. Report probes on the other half (`judged` false in
  `data/lab/statements.parquet`)."""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
