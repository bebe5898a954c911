"""Rows of COMPARED, of multiple choice and of chosen layers as plain dictionaries."""

import math

OF = {"model": "lab", "dataset": "d"}
KINDS = ("all tokens", "first token", "word beginning", "continuation", "number", "punctuation", "end of answer")


def compared(method, metric="bleu", value=0.3, difference=None, spread=0.02, against="best", **other):
    """One row: intervals of +- spread; no difference, then no baseline, as in the baseline's own rows."""
    row = OF | {"method": method, "metric": metric, "against": against, "encoder": None, "n_questions": 817}
    row |= {"value": value, "value_low": value - spread, "value_high": value + spread, "baseline": None}
    row |= {"difference": None, "difference_low": None, "difference_high": None, "n_paired": None}
    if difference is not None:
        row |= {"difference": difference, "difference_low": difference - spread, "difference_high": difference + spread}
        row |= {"baseline": "vanilla", "n_paired": 817}
    return row | other


def choice(method, metric="mc2", value=0.4, difference=None, constrained=False, normalised=False, **other):
    """One row about multiple choice."""
    kind = {"against": None, "constrained": constrained, "normalised": normalised}
    return compared(method, metric, value, difference, **kind | other)


def settings(name, candidates=(), **other):
    """How one method decodes, as `dataclasses.asdict` of it."""
    row = {"name": name, "candidates": candidates, "divergence": "jsd", "norm": True}
    row |= {"alpha": 0.1 if candidates else 0.0, "penalty": 1.2 if candidates else 1.0, "penalty_on": "contrasted"}
    return row | {"average_over_batch": False} | other


def chosen(method, layers, kinds=KINDS, n_of_kind=400, **other):
    """Rows of `chosen_layers`: shares that move from the first layer to the last from kind to kind."""
    rows = []
    for place, kind in enumerate(kinds):
        weights = [
            math.exp(-(((at / max(1, len(layers) - 1) - place / len(kinds)) / 0.3) ** 2)) for at in range(len(layers))
        ]
        for layer, weight in zip(layers, weights, strict=True):
            share = weight / sum(weights)
            row = OF | {"method": method, "token_kind": kind, "exit_layer": layer, "share": share}
            rows.append(row | {"n_tokens": round(share * n_of_kind), "n_of_kind": n_of_kind} | other)
    return rows


def study(methods=("dola-low", "dola-high")):
    """All that a run compares: text metrics against the best answer, accuracies, multiple choice."""
    rows = []
    for at, metric in enumerate(("bleu", "rouge-1", "rouge-2", "rouge-l", "bertscore", "token-f1", "exact")):
        encoder = "all-MiniLM-L6-v2" if metric == "bertscore" else None
        base = 0.9 if metric == "bertscore" else 0.2 + at / 30
        small = 0.004 if metric == "bertscore" else 0.02
        for kind in ("best", "correct", "acc"):
            if metric == "bleu" and kind == "acc":
                continue
            rows.append(compared("vanilla", metric, base, against=kind, encoder=encoder, spread=small))
            for place, method in enumerate(methods):
                gap = small * (1.6 * place - 1.5 + at / 3)
                row = compared(method, metric, base + gap, gap, small, kind, encoder=encoder)
                rows.append(row)
    for metric in ("mc1", "mc2", "mc3"):
        for constrained in (False, True):
            rows.append(choice("vanilla", metric, 0.4, constrained=constrained))
            for place, method in enumerate(methods):
                gap = 0.02 + 0.1 * place if not constrained else 0.015
                rows.append(choice(method, metric, 0.4 + gap, gap, constrained))
    return rows
