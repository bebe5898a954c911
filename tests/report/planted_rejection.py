"""Rows of UNCERTAINTY and REJECTION as plain dictionaries."""

from hcl_cli.schemas import LAYERS, REJECTION, UNCERTAINTY

MEASURES = ("semantic_entropy", "semantic_entropy_discrete", "predictive_entropy", "answer_logprob")
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def uncertainty_rows(exit_layer, auroc=0.8, *, known=MEASURES, **other):
    """One row per measure: numbers fall by .02 from measure to measure, intervals of +- .1."""
    rows = []
    for place, measure in enumerate(MEASURES):
        row = dict.fromkeys(UNCERTAINTY.columns)
        row |= {"model": "lab", "dataset": "d", "exit_layer": exit_layer, "measure": measure}
        row |= {"n_questions": 100, "n_questions_left_out": 0, "n_answers": 500} | other
        if measure in known:
            value = auroc - place / 50
            numbers = {"mean": 1 + place, "auroc": value, "aurac": value - 0.1}
            if measure != "predictive_entropy" and "predictive_entropy" in known:
                numbers["auroc_lead"] = value - (auroc - 2 / 50)
            for name, number in numbers.items():
                row |= {name: number, f"{name}_low": number - 0.1, f"{name}_high": number + 0.1}
        rows.append(row)
    return rows


def rejection_rows(exit_layer, accuracy=0.5, *, known=MEASURES, **other):
    """Accuracy rises in a line to +.4 as less is kept; a bit less for every measure."""
    rows = []
    for place, measure in enumerate(MEASURES):
        for share in SHARES if measure in known else ():
            row = dict.fromkeys(REJECTION.columns)
            value = accuracy + (1 - share) * (0.4 - place / 20)
            row |= {"model": "lab", "dataset": "d", "exit_layer": exit_layer, "measure": measure, "share_kept": share}
            row |= {"accuracy": value, "accuracy_low": value - 0.1, "accuracy_high": value + 0.05}
            rows.append(row | {"cutoff": share, "n_questions_kept": int(100 * share)} | other)
    return rows


def layer_row(exit_layer, *, is_best=False, **other):
    """A row of LAYERS."""
    row = dict.fromkeys(LAYERS.columns)
    return row | {"model": "lab", "dataset": "d", "exit_layer": exit_layer, "is_best": is_best} | other
