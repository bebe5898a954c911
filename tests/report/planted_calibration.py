"""Rows of LAYER_CALIBRATION as plain dictionaries."""

from hcl_cli.schemas import LAYER_CALIBRATION

NUMBERS = ("accuracy", "accuracy_at_50", "coverage_at_50", "ece", "ece_litcab", "brier", "auroc", "mean_confidence")


def calibration_row(exit_layer, value=0.5, *, known=True, **other):
    """One row: the numbers rise by .01 from column to column, intervals of +- .1."""
    row = dict.fromkeys(LAYER_CALIBRATION.columns)
    row |= {"model": "lab", "dataset": "d", "exit_layer": exit_layer, "confidence_definition": "exp(mean_logprob)"}
    row |= {"n_questions": 100, "n_questions_left_out": 0, "n_answers": 500, "n_answers_left_out": 0}
    for place, name in enumerate(NUMBERS if known else ()):
        number = value + place / 100
        row |= {name: number, f"{name}_low": number - 0.1, f"{name}_high": number + 0.1}
    return row | other
