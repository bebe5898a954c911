"""Calibration by exit layer: hand values, peers, curves and questions, foreign files, bad input."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from sklearn.metrics import brier_score_loss, roc_auc_score

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.schemas import LAYER_CALIBRATION, SCORED
from hcl_cli.stages.layer_calibration import Confidence, ScoredInput, layer_calibration, parse_confidence

NUMBERS = ("accuracy", "accuracy_at_50", "coverage_at_50", "ece", "ece_litcab", "brier", "auroc", "mean_confidence")

# layer -> question -> (mean_prob, correct) of each answer
PLANTED = {
    1: {"q1": [(0.95, True), (0.65, False)], "q2": [(0.62, True), (0.15, False)], "q3": [(0.12, False)]},
    2: {"q1": [(0.2, True), (0.4, True)], "q2": [(0.6, True), (0.8, True)], "q3": [(1.0, True)]},
}


def frame(layers, model="m", **columns):
    """SCORED rows; mean_logprob is the log of mean_prob, mean_max_prob a bit more."""
    rows = [
        {
            "model": model, "dataset": "d", "strategy": "early-exit", "temperature": 0.6, "top_p": 0.9,
            "question_id": question, "question": f"{question}?", "answers": ["a"], "response": "a",
            "exit_layer": layer, "sample_index": index, "correct": correct, "mean_prob": prob,
            "mean_logprob": None if prob is None else math.log(prob),
            "mean_max_prob": None if prob is None else min(1.0, prob + 0.01),
        } | columns
        for layer, questions in layers.items()
        for question, answers in questions.items()
        for index, (prob, correct) in enumerate(answers)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCORED.polars_schema())


def table(*frames, n_bootstrap=200, confidence="mean-prob", **options):
    inputs = [ScoredInput(one, f"{number:x}" * 64) for number, one in enumerate(frames, start=1)]
    return layer_calibration(inputs, n_bootstrap=n_bootstrap, confidence=confidence, **options)


def test_every_number_of_a_planted_layer_by_hand():
    found = table(frame(PLANTED))
    assert found.schema == LAYER_CALIBRATION.polars_schema()
    one, two = found.to_dicts()
    plain = ("model", "exit_layer", "source", "confidence_definition", "n_questions", "n_answers")
    assert [one[name] for name in plain] == ["m", 1, None, "mean_prob", 3, 5]
    assert (one["n_questions_left_out"], one["n_answers_left_out"]) == (0, 0)
    # Most confident first: right, wrong, right, wrong, wrong.
    expected = {
        "accuracy": 2 / 5,
        "accuracy_at_50": 1 / 2,  # the first two of five
        "coverage_at_50": 3 / 5,  # 2 of 3 are more than half, 2 of 4 are not
        # Bins (.9, 1]: 1 - .95; (.6, .7]: |1/2 - .635| twice; (.1, .2]: |0 - .135| twice.
        "ece": (0.05 + 2 * 0.135 + 2 * 0.135) / 5,
        # Scaled by (p - .12) / .83: 1, .6386, .6024, .0361, 0: midpoints .95, .65, .65, .05, .05.
        "ece_litcab": (0.05 + 2 * 0.15 + 2 * 0.05) / 5,
        "brier": (0.05**2 + 0.65**2 + 0.38**2 + 0.15**2 + 0.12**2) / 5,
        "auroc": 5 / 6,  # of the six pairs only (.62, .65) is the wrong way round
        "mean_confidence": 2.49 / 5,
    }
    assert {name: one[name] for name in NUMBERS} == approx(expected, abs=1e-7)  # mean_prob is kept in float32
    assert [two[name] for name in ("accuracy", "accuracy_at_50", "coverage_at_50")] == [1, 1, 1]
    assert two["ece"] == approx((0.8 + 0.6 + 0.4 + 0.2 + 0) / 5)
    assert two["brier"] == approx((0.64 + 0.36 + 0.16 + 0.04) / 5)
    assert [two[f"auroc{end}"] for end in ("", "_low", "_high")] == [None] * 3  # no wrong answer to be told from


def test_the_numbers_are_those_of_scikit_learn_and_the_intervals_hold_them():
    numbers = np.random.default_rng(0)
    layers = {
        layer: {
            f"q{question}": [(float(p), bool(numbers.random() < p)) for p in numbers.uniform(0.02, 0.98, 4)]
            for question in range(40)
        }
        for layer in (1, 2)
    }
    given_frame = frame(layers)
    for row in table(given_frame).to_dicts():
        here = given_frame.filter(pl.col("exit_layer") == row["exit_layer"])
        prob, correct = here["mean_prob"].to_numpy().astype(float), here["correct"].to_numpy()
        assert row["brier"] == approx(brier_score_loss(correct, prob))
        assert row["auroc"] == approx(roc_auc_score(correct, prob))
        assert row["ece_low"] == 0.0  # calibrated by construction
        for name in NUMBERS:
            assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
            assert row[f"{name}_high"] - row[f"{name}_low"] < (0.7 if name == "coverage_at_50" else 0.3)


def test_confidence_is_the_exponential_of_the_mean_logprob_unless_said_otherwise():
    (by_default, _) = layer_calibration([ScoredInput(frame(PLANTED), "1" * 64)], n_bootstrap=0).to_dicts()
    assert by_default["confidence_definition"] == "exp(mean_logprob)"
    assert by_default["mean_confidence"] == approx(2.49 / 5)
    (most, _) = table(frame(PLANTED), confidence="mean-max-prob", n_bootstrap=0).to_dicts()
    assert (most["confidence_definition"], most["mean_confidence"]) == ("mean_max_prob", approx(2.49 / 5 + 0.01))
    own = frame(PLANTED).with_columns(p_true=pl.col("mean_prob").cast(pl.String))
    (named, _) = table(own, confidence="p_true", n_bootstrap=0).to_dicts()
    assert (named["confidence_definition"], named["mean_confidence"]) == ("p_true", approx(2.49 / 5))
    assert named["ece_low"] is named["accuracy_high"] is None
    assert parse_confidence("mean_logprob") == parse_confidence("mean-logprob") == Confidence("mean_logprob", True)


@given(st.permutations(range(10)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(order):
    assert table(frame(PLANTED)[order]).equals(table(frame(PLANTED)))


def test_layers_are_compared_on_the_questions_that_all_of_them_rated():
    layers = {
        1: {"q1": [(0.9, True)], "q2": [(0.8, False)], "q3": [(0.1, True), (0.3, None)], "q4": [(0.2, True)]},
        2: {"q1": [(0.9, True)], "q2": [(None, False)], "q3": [(0.1, True), (0.3, True)], "q4": [(0.7, None)]},
    }
    one, two = table(frame(layers)).to_dicts()
    assert [(row["n_questions"], row["n_questions_left_out"]) for row in (one, two)] == [(2, 2)] * 2
    assert [(row["n_answers"], row["n_answers_left_out"]) for row in (one, two)] == [(2, 3), (3, 2)]
    assert (one["accuracy"], one["mean_confidence"]) == (1.0, approx(0.5))
    assert two["mean_confidence"] == approx(1.3 / 3)


def test_nothing_in_common_and_nothing_graded_are_rows_without_numbers():
    apart = {1: {"q1": [(0.9, True)], "q2": [(0.9, None)]}, 2: {"q1": [(0.9, None)], "q2": [(0.9, True)]}}
    for given_frame in (frame(apart), frame({1: {"q1": [(0.9, None)]}, 2: {"q1": [(None, None)]}})):
        rows = table(given_frame).to_dicts()
        assert [row["n_answers"] for row in rows] == [0, 0]
        assert {row[name] for row in rows for name in NUMBERS} == {None}


def test_one_answer_and_one_question_have_no_half_and_no_interval():
    (row,) = table(frame({1: {"q1": [(0.75, True)]}})).to_dicts()
    assert (row["accuracy"], row["accuracy_at_50"], row["coverage_at_50"], row["ece"]) == (1, None, 1, 0.25)
    assert row["ece_litcab"] is None  # all confidences are equal: its scaling divides by zero
    assert {row[f"{name}_{end}"] for name in NUMBERS for end in ("low", "high")} == {None}


def test_curves_are_apart_and_inputs_with_the_same_curve_are_told_apart():
    rows = table(frame(PLANTED), frame(PLANTED, model="n")).to_dicts()
    assert [(row["model"], row["exit_layer"], row["source"]) for row in rows] == [
        ("m", 1, None), ("m", 2, None), ("n", 1, None), ("n", 2, None),
    ]  # fmt: skip
    other = {layer: {q: answers[:1] for q, answers in questions.items()} for layer, questions in PLANTED.items()}
    assert [row["source"] for row in table(frame(PLANTED), frame(other)).to_dicts()] == ["1" * 8] * 2 + ["2" * 8] * 2


def test_decoding_methods_are_rows_compared_on_the_same_questions():
    methods = {
        "vanilla": {10: {"q1": [(0.9, True)], "q2": [(0.6, False)], "q3": [(0.5, True)]}},
        "dola-high": {10: {"q1": [(0.8, True)], "q2": [(0.7, True)], "q3": [(None, True)]}},
    }
    frames = [frame(layers, method=name, strategy="contrast") for name, layers in methods.items()]
    rows = table(pl.concat(frames[::-1])).to_dicts()
    assert [(row["method"], row["exit_layer"], row["n_questions"]) for row in rows] == [
        ("vanilla", 10, 2), ("dola-high", 10, 2),
    ]  # fmt: skip
    assert [(row["accuracy"], row["mean_confidence"]) for row in rows] == [(0.5, approx(0.75)), (1.0, approx(0.75))]
    assert table(*frames).drop("source").equals(table(pl.concat(frames)).drop("source"))


def test_a_file_from_elsewhere_needs_a_question_a_verdict_and_a_confidence():
    plain = pl.DataFrame({"question": ["a?", "b?"], "correct": [True, False], "sure": [1, 0]})
    (row,) = table(plain, confidence="sure").to_dicts()
    assert (row["exit_layer"], row["model"], row["ece"], row["brier"], row["auroc"]) == (1, None, 0, 0, 1)


def test_float32_rounding_just_outside_is_not_refused():
    (row,) = table(frame({1: {"q1": [(0.5, True)]}}).with_columns(c=1.0000001), confidence="c").to_dicts()
    assert row["mean_confidence"] == 1.0


@pytest.mark.parametrize(
    ("column", "confidence", "said"),
    [
        (None, "mine", "input 1, --confidence mine: there is no such column; name one with numbers in"),
        ([0.5, 1.2], "mine", r"--confidence mine: 1.2 in row 2 gives a confidence outside \[0, 1\] .*a probability"),
        ([0.5, -0.1], "mine", "-0.1 in row 2"),
        ([0.5, math.inf], "mine", "inf in row 2"),
        ([None, None], "mine", "no graded answer has a value; name a column that has, like mean-prob"),
        ([math.nan, math.nan], "mine", "no graded answer has a value"),
        (["high", "low"], "mine", "String cannot be read as numbers"),
        ([[0.5], [0.5]], "mine", "cannot be read as numbers"),
    ],
)
def test_confidences_that_cannot_be_used_are_one_clear_line(column, confidence, said):
    given_frame = frame({1: {"q1": [(0.5, True), (0.6, False)]}})
    if column is not None:
        given_frame = given_frame.with_columns(mine=pl.Series(column, strict=False))
    with pytest.raises(BadInput, match=said) as caught:
        table(given_frame, confidence=confidence)
    assert str(caught.value).isprintable()


def test_a_logprob_above_0_and_an_empty_name_are_refused():
    with pytest.raises(BadInput, match=r"0\.5 in row 1 .*a logprob is at most 0"):
        table(frame(PLANTED, mean_logprob=0.5), confidence="mean-logprob")
    with pytest.raises(BadOption, match="expected mean-logprob, mean-prob, mean-max-prob or a column"):
        parse_confidence(" ")
