"""Semantic entropy by exit layer: planted layers by hand, questions that count, foreign files, bad input."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_hcb import tables
from pytest import approx
from sklearn.metrics import roc_auc_score

from hcl_cli.errors import BadInput
from hcl_cli.schemas import REJECTION, SCORED, UNCERTAINTY
from hcl_cli.stages.semantic_entropy import MEASURES, ScoredInput, uncertainty_tables

COLUMNS = ("semantic_entropy", "semantic_entropy_discrete", "semantic_entropy_auroc", "semantic_entropy_aurac")
LN2 = math.log(2)

# layer -> question -> (meaning, likelihood, correct) of each answer
PLANTED = {
    1: {
        "q1": [(0, 1 / 2, True), (0, 1 / 4, True), (1, 1 / 8, True), (1, 1 / 8, False)],  # 3/4 and 1/4
        "q2": [(0, 1 / 2, False), (1, 1 / 2, False), (2, 1 / 2, False), (3, 1 / 2, True)],
        "q3": [(0, 1 / 2, True)] * 4,
    },
    2: {name: [(0, 1 / 2, True)] * 4 for name in ("q1", "q2", "q3")},
}
QUARTERS = -3 / 4 * math.log(3 / 4) - 1 / 4 * math.log(1 / 4)


def frame(layers, model="m", **columns):
    """SCORED rows."""
    rows = [
        {
            "model": model, "dataset": "d", "strategy": "early-exit", "temperature": 1.0, "top_p": 0.9,
            "question_id": question, "question": f"{question}?", "answers": ["a"], "response": "a",
            "exit_layer": layer, "sample_index": index, "correct": correct, "meaning_id": meaning,
            "cluster_id": meaning if correct else None,
            "mean_logprob": None if likelihood is None else math.log(likelihood),
        } | columns
        for layer, questions in layers.items()
        for question, answers in questions.items()
        for index, (meaning, likelihood, correct) in enumerate(answers)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCORED.polars_schema())


def both(*frames, n_bootstrap=200, **options):
    inputs = [ScoredInput(one, f"{number:x}" * 64) for number, one in enumerate(frames, start=1)]
    return uncertainty_tables(inputs, n_bootstrap=n_bootstrap, **options)


def layers_of(*frames, **options):
    return tables(*frames, **options)[0].to_dicts()


def simulated(n_questions=40, n_samples=5, n_layers=2, seed=0):
    """Questions of unlike difficulty: the harder, the more meanings and the more wrong answers."""
    numbers = np.random.default_rng(seed)
    layers = {}
    for layer in range(1, n_layers + 1):
        layers[layer] = {}
        for question, hard in enumerate(np.linspace(0, 1, n_questions)):
            answers = [
                (int(numbers.integers(0, 1 + int(6 * hard))), float(numbers.uniform(0.05, 1.0)))
                for _ in range(n_samples)
            ]
            layers[layer][f"q{question:03}"] = [
                (meaning, likelihood, bool(numbers.random() > 0.8 * hard)) for meaning, likelihood in answers
            ]
    return frame(layers)


def test_the_columns_of_a_planted_layer_by_hand():
    one, two = layers_of(frame(PLANTED))
    assert (one["n_entropy_questions"], two["n_entropy_questions"]) == (3, 3)
    assert one["semantic_entropy"] == approx((QUARTERS + 2 * LN2 + 0) / 3, abs=1e-7)  # mean_logprob is float32
    assert one["semantic_entropy_discrete"] == approx((LN2 + 2 * LN2 + 0) / 3)
    # Wrong: 1/4 at q1, 3/4 at q2; right: 3/4 at q1, 1/4 at q2, 1 at q3 (least uncertain).
    wins = 1 / 4 * (1 + 3 / 8) + 3 / 4 * (1 + 3 / 4 + 1 / 8)
    assert one["semantic_entropy_auroc"] == approx(wins / (1 * 2))
    # floor(2 q) + 1 of q3, q1, q2 are kept: one below q = 1/2, then two, three at q = 1.
    assert one["semantic_entropy_aurac"] == approx((9 * 1 + 10 * (7 / 8) + 1 * (2 / 3)) / 20)
    assert (two["semantic_entropy"], two["semantic_entropy_discrete"]) == (0, 0)
    assert (two["semantic_entropy_auroc"], two["semantic_entropy_aurac"]) == (None, 1)  # nothing is wrong
    for name in COLUMNS[:2]:
        assert one[f"{name}_low"] <= one[name] <= one[f"{name}_high"]


def test_every_measure_is_that_of_its_definition_and_of_scikit_learn():
    given_frame = simulated()
    uncertainty, rejected = both(given_frame)
    assert uncertainty.schema == UNCERTAINTY.polars_schema()
    assert rejected.schema == REJECTION.polars_schema()
    assert uncertainty["measure"].to_list() == list(MEASURES) * 2
    columns = layers_of(given_frame)
    for layer in (1, 2):
        here = given_frame.filter(exit_layer=layer)
        rows = {row["measure"]: row for row in uncertainty.filter(exit_layer=layer).to_dicts()}
        by_question = here.group_by("question_id", maintain_order=True).agg("meaning_id", "mean_logprob")
        scores = {name: {} for name in MEASURES}
        for question, meanings, logprobs in by_question.iter_rows():
            likelihood = np.exp(np.array(logprobs, dtype=float))
            mass = [likelihood[np.array(meanings) == one].sum() / likelihood.sum() for one in set(meanings)]
            share = [meanings.count(one) / len(meanings) for one in set(meanings)]
            scores["semantic_entropy"][question] = round(-np.sum(mass * np.log(mass)), 9)
            scores["semantic_entropy_discrete"][question] = round(-np.sum(share * np.log(share)), 9)
            scores["predictive_entropy"][question] = -np.mean(logprobs)
        wrong = (~here["correct"]).to_numpy()
        for name in MEASURES:
            found = [scores[name][question] for question in here["question_id"]] if scores[name] else None
            score = np.array(found) if found else -here["mean_logprob"].to_numpy()
            row = rows[name]
            assert row["auroc"] == approx(roc_auc_score(wrong, score)), name
            assert row["mean"] == approx(score.mean(), abs=1e-6)
            assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
            assert row["aurac_published"] == approx(row["aurac"] * 18 / 19)
            curve = rejected.filter(exit_layer=layer, measure=name)
            assert curve["accuracy"].mean() == approx(row["aurac"])
            assert curve["accuracy"][-1] == approx(1 - wrong.mean())
            lead = row["auroc_lead"]
            assert lead == (
                None if name == "predictive_entropy" else approx(row["auroc"] - rows["predictive_entropy"]["auroc"])
            )
        own = columns[layer - 1]
        assert 1 - own["hallucination_rate"] == approx(curve["accuracy"][-1])
        for name, column in (("mean", ""), ("auroc", "_auroc"), ("aurac", "_aurac")):
            for end in ("", "_low", "_high"):
                assert own[f"semantic_entropy{column}{end}"] == rows["semantic_entropy"][f"{name}{end}"]
        assert own["semantic_entropy_discrete_high"] == rows["semantic_entropy_discrete"]["mean_high"]


@given(st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_the_order_of_rows_does_not_matter(random):
    given_frame = simulated(12, 3)
    order = list(range(given_frame.height))
    random.shuffle(order)
    for one, other in zip(both(given_frame, n_bootstrap=50), both(given_frame[order], n_bootstrap=50), strict=True):
        assert one.equals(other)
    assert layers_of(given_frame, n_bootstrap=20) == layers_of(given_frame[order], n_bootstrap=20)


def test_one_sample_per_question_says_nothing_rather_than_0():
    alone = frame({1: {f"q{n}": [(0, 0.5, n > 2)] for n in range(6)}})
    (row,) = layers_of(alone)
    assert row["n_entropy_questions"] == 0
    assert {row[f"{name}{end}"] for name in COLUMNS for end in ("", "_low", "_high")} == {None}
    uncertainty, rejected = both(alone)
    assert {(row["n_questions"], row["n_questions_left_out"], row["auroc"]) for row in uncertainty.to_dicts()} == {
        (0, 6, None)
    }
    assert rejected.height == 0


def test_layers_are_compared_on_the_questions_that_are_known_at_all_of_them():
    known = [(0, 0.5, True), (1, 0.5, False)]
    layers = {
        1: {"q1": known, "q2": known, "q3": known, "q4": known, "q5": known},
        2: {
            "q1": known,
            "q2": [(0, 0.5, True), (1, None, False)],  # a likelihood is missing
            "q3": [(0, 0.5, True), (None, 0.5, False)],  # a meaning is missing
            "q4": [(0, 0.5, None), (1, 0.5, None)],  # never graded
            "q5": [(0, 0.5, True)],  # one sample
        },
    }
    one, two = layers_of(frame(layers))
    assert [(row["n_questions"], row["n_entropy_questions"]) for row in (one, two)] == [(4, 1)] * 2
    assert (one["semantic_entropy"], one["semantic_entropy_low"]) == (approx(LN2), None)
    rows = both(frame(layers))[0].to_dicts()
    assert {(row["n_questions"], row["n_questions_left_out"], row["n_answers"]) for row in rows} == {(1, 4, 2)}


def test_ungraded_samples_count_for_the_entropy_and_not_for_the_verdict():
    (row,) = layers_of(frame({1: {"q1": [(0, 0.5, True), (1, 0.5, None)], "q2": [(0, 0.5, False)] * 2}}))
    assert row["semantic_entropy"] == approx(LN2 / 2)
    assert row["semantic_entropy_auroc"] == 0  # the wrong answers are the certain ones


def test_a_file_without_likelihoods_has_the_discrete_entropy_only():
    plain = simulated().drop("mean_logprob")
    row = layers_of(plain)[0]
    assert row["n_entropy_questions"] == 40
    assert row["semantic_entropy_discrete"] == layers_of(simulated())[0]["semantic_entropy_discrete"]
    assert [row[name] for name in (COLUMNS[0], *COLUMNS[2:])] == [None] * 3
    uncertainty, rejected = both(plain)
    known = uncertainty.filter(pl.col("auroc").is_not_null())
    assert (
        known["measure"].unique().to_list() == ["semantic_entropy_discrete"] == rejected["measure"].unique().to_list()
    )
    assert known["auroc_lead"].null_count() == known.height
    unsaid = simulated().with_columns(mean_logprob=pl.lit(math.nan, pl.Float32))
    assert both(unsaid)[0].equals(uncertainty)


def test_a_file_without_meanings_is_null_in_the_layer_table_and_refused_by_name():
    plain = simulated().drop("meaning_id")
    row = layers_of(plain)[0]
    assert (row["n_entropy_questions"], {row[name] for name in COLUMNS}) == (0, {None})
    with pytest.raises(BadInput, match="input 1, --rejection: no answer has a meaning_id; run `hcl score`"):
        both(plain)


def test_a_logprob_above_0_and_words_for_meanings_are_refused():
    with pytest.raises(BadInput, match=r"mean_logprob 0\.5 in row 1: a logprob is at most 0"):
        both(frame(PLANTED, mean_logprob=0.5))
    with pytest.raises(BadInput, match="column meaning_id: String cannot be read as Int32"):
        both(frame(PLANTED).with_columns(meaning_id=pl.lit("first")))


def test_decoding_methods_are_rows_compared_on_the_same_questions():
    frames = [
        simulated(seed=seed, n_layers=1).with_columns(method=pl.lit(name), exit_layer=pl.lit(10, pl.Int16))
        for seed, name in enumerate(("dola-high", "vanilla"))
    ]
    uncertainty, rejected = both(pl.concat(frames))
    assert uncertainty["method"].to_list() == ["vanilla"] * 4 + ["dola-high"] * 4
    assert set(uncertainty["n_questions"]) == {40}
    assert rejected["method"].unique(maintain_order=True).to_list() == ["vanilla", "dola-high"]


def test_inputs_with_the_same_curve_are_told_apart():
    rows = both(frame(PLANTED), simulated().with_columns(temperature=1.0))[0]
    assert rows["source"].unique(maintain_order=True).to_list() == ["1" * 8, "2" * 8]


def test_an_uncertainty_planted_to_know_nothing_has_an_auroc_around_one_half():
    numbers = np.random.default_rng(2)
    layers = {
        1: {
            f"q{n}": [(int(numbers.integers(0, 4)), 0.5, bool(numbers.random() < 0.5)) for _ in range(6)]
            for n in range(150)
        }
    }
    (row,) = layers_of(frame(layers), n_bootstrap=400)
    assert row["semantic_entropy_auroc"] == approx(0.5, abs=0.06)
    assert row["semantic_entropy_auroc_high"] - row["semantic_entropy_auroc_low"] < 0.15
