"""Scored responses to the layer table: a planted frame by hand, laws, foreign files, several inputs, bad input."""

import hashlib
from math import log

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_hcb import PLANTED, frame, said, tables
from pytest import approx

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.hcb import Weights
from hcl_cli.schemas import FINDINGS, LAYERS
from hcl_cli.stages.balance import parse_weights
from hcl_cli.stages.hcb import ScoredInput, layer_tables

RATES = ("hallucination_rate", "creativity_raw", "creativity", "hcb", "confidence")


def test_a_planted_frame_gives_exactly_the_expected_table():
    layers, findings = tables(frame(PLANTED))
    assert layers.schema == LAYERS.polars_schema() and findings.schema == FINDINGS.polars_schema()
    plain = layers.select(
        "model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer", "source", "n_questions",
        "n_samples", "n_graded", "n_creativity_questions", *RATES, "relative_cost", "is_best",
    )  # fmt: skip
    curve = ("m", "d", "early-exit", None, 0.6, 0.9)
    # Creativity: (0 + 1) / 2, (3 + 2) / 2, (1 + 1) / 2; min-max 0, 1, 1/4. HCB: half of it and half of 1 - rate.
    assert plain.rows() == [
        (*curve, 1, None, 2, 8, 8, 2, approx(0.875), 0.5, 0.0, approx(0.0625), approx(0.1), 0.25, False),
        (*curve, 2, None, 2, 8, 8, 2, approx(0.25), 2.5, 1.0, approx(0.875), approx(0.2), 0.5, True),
        (*curve, 3, None, 2, 8, 8, 2, 0.0, 1.0, 0.25, approx(0.625), approx(0.3), 0.75, False),
    ]


def test_the_other_weightings_of_the_planted_frame():
    # min-max rates: 1, 2/7, 0
    scaled = [1 - 1, 1 - 2 / 7, 1 - 0]
    for weights, creative, expected in (
        ("title", 0.8, scaled),
        ("figure", 0.9, scaled),
        ("0.3", 0.3, [0.125, 0.75, 1]),
    ):
        layers, findings = tables(frame(PLANTED), weights=weights)
        wanted = [creative * c + (1 - creative) * rest for c, rest in zip([0, 1, 0.25], expected, strict=True)]
        assert layers["hcb"].to_list() == approx(wanted)
        assert f"{creative:g} x min-max creativity" in said(findings, "formula")["sentence"]
    layers, _ = tables(frame(PLANTED), scale_hallucination="minmax")
    assert layers["hcb"].to_list() == approx([0, (1 + 5 / 7) / 2, (0.25 + 1) / 2])


def test_entropy_of_the_planted_frame():
    layers, _ = tables(frame(PLANTED), diversity="entropy")
    # layer 2: sizes 2, 1, 1 and 1, 1
    assert layers["creativity_raw"].to_list() == approx([0, (1.5 * log(2) + log(2)) / 2, 0])


def test_rarefied_counts_only_questions_with_five_right_answers_at_every_layer():
    answers = {
        "q1": {1: [0, 0, 0, 0, 1, 1], 2: [0, 1, 2, 3, 4, 5]},
        "q2": {1: [0, 0, 0, 0, 1, None], 2: [0, 0, 0, 0, 0, 0]},
        "q3": {1: [0, 1, 2, 3, None, None], 2: [0, 1, 2, 3, 4, 5]},  # four at layer 1
    }
    layers, _ = tables(frame(answers), diversity="rarefied")
    assert layers["n_questions"].to_list() == [3, 3] and layers["n_creativity_questions"].to_list() == [2, 2]
    # q1 at layer 1: 5 of 6 drawn, the pair is never missed, nor the four; q2 at layer 1: everything is drawn
    assert layers["creativity_raw"].to_list() == approx([(2 + 2) / 2, (5 + 1) / 2])
    assert layers["hallucination_rate"].to_list() == approx([(0 + 1 / 6 + 2 / 6) / 3, 0])


def test_five_answers_hold_no_more_than_five_clusters():
    """A bug: five different right answers everywhere gave an upper end above 5, which no question can reach."""
    layers, _ = tables(frame({f"q{n}": {1: [0, 1, 2, 3, 4], 2: [0] * 5} for n in range(20)}), diversity="rarefied")
    assert layers["creativity_raw"].to_list() == approx([5, 1])
    assert (layers["creativity_raw_high"][0], layers["creativity_raw_low"][1]) == (5, 1)
    assert layers["creativity_raw_low"][0] < 5 and layers["creativity_raw_high"][1] > 1


def test_rarefied_without_such_a_question_says_so_and_calls_no_layer_best():
    layers, findings = tables(frame(PLANTED), diversity="rarefied")
    assert layers["n_creativity_questions"].to_list() == [0, 0, 0]
    for column in ("creativity_raw", "creativity", "hcb", "p_best", "is_best", "in_best_set"):
        assert layers[column].to_list() == [None, None, None]
    assert layers["hallucination_rate"].to_list() == approx([0.875, 0.25, 0])
    assert "no question has 5 clustered correct answers" in said(findings, "best_layer")["sentence"]


def test_only_questions_graded_at_every_layer_are_compared_and_the_rest_is_counted():
    answers = PLANTED | {
        "half": {1: [None, None], 2: ["?", "?"], 3: [0, 0]},  # nothing graded at layer 2
        "absent": {1: [None], 3: [None]},  # not asked at layer 2
        "some": {1: [None, "?"], 2: ["?", None], 3: [None, None]},  # one graded answer is enough
    }
    layers, findings = tables(frame(answers))
    assert layers["n_questions"].to_list() == [3, 3, 3]
    assert layers["n_samples"].to_list() == [13, 12, 13]
    assert layers["n_graded"].to_list() == [12, 9, 13]
    assert layers["hallucination_rate"].to_list() == approx([(1 + 0.75 + 1) / 3, (0 + 0.5 + 1) / 3, 1 / 3])
    assert layers["creativity_raw"].to_list() == approx([1 / 3, 5 / 3, 2 / 3])
    assert said(findings, "questions_left_out")["estimate"] == 2 and said(findings, "questions_left_out")["n"] == 5
    assert said(findings, "responses_ungraded")["sentence"] == "4 of 38 responses could not be graded."


def test_nothing_graded_is_null_not_zero():
    layers, findings = tables(frame({"q": {1: ["?"], 2: ["?"]}}))
    for column in RATES:
        assert layers[column].to_list() == [None, None]
    assert said(findings, "best_layer")["sentence"] == "No layer can be called best: nothing was graded."


def test_questions_weigh_alike_however_often_they_were_asked():
    answers = {"often": {1: [None] * 9, 2: [0] * 9}, "once": {1: [0], 2: [0]}}
    layers, _ = tables(frame(answers))
    assert layers["hallucination_rate"].to_list() == approx([0.5, 0.0])


clusters = st.lists(st.sampled_from([None, 0, 1, 2, "?"]), min_size=1, max_size=4)
answer_sheets = st.integers(1, 4).flatmap(
    lambda n_layers: st.dictionaries(
        st.sampled_from("abcdefgh"),
        st.fixed_dictionaries({2 * layer: clusters for layer in range(1, n_layers + 1)}),
        min_size=1,
        max_size=6,
    )
)


@settings(max_examples=40, deadline=None)
@given(answer_sheets, st.sampled_from(["clusters", "rarefied", "entropy"]), st.sampled_from(["script", "figure"]))
def test_laws_of_the_table(answers, diversity, weights):
    layers, _ = tables(frame(answers), diversity=diversity, weights=weights, n_bootstrap=30)
    rows = layers.to_dicts()
    for row in rows:
        for name in RATES:
            value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
            assert (low is None) == (high is None)
            if low is not None:
                assert low <= value + 1e-9 and value <= high + 1e-9
            if value is not None and name != "creativity_raw":
                assert -1e-9 <= value <= 1 + 1e-9
    if rows[0]["hcb"] is not None:
        assert [row["is_best"] for row in rows].count(True) == 1
        best = max(rows, key=lambda row: (round(row["hcb"], 9), -row["exit_layer"]))
        assert best["is_best"] and best["in_best_set"] in (True, None)
    if rows[0]["p_best"] is not None:
        assert sum(row["p_best"] for row in rows) == approx(1)


@settings(max_examples=15, deadline=None)
@given(answer_sheets, st.randoms(use_true_random=False), st.sampled_from(["clusters", "rarefied", "entropy"]))
def test_row_order_does_not_reach_a_single_bit(answers, random, diversity):
    rows = frame(answers, mean_prob=lambda question, layer, index: random.random())
    order = list(range(rows.height))
    random.shuffle(order)
    for one, other in zip(tables(rows, diversity=diversity), tables(rows[order], diversity=diversity), strict=True):
        assert one.to_dicts() == other.to_dicts()


@settings(max_examples=20, deadline=None)
@given(answer_sheets)
def test_one_more_correct_answer_never_raises_hallucination(answers):
    layers, _ = tables(frame(answers), n_bootstrap=0)
    question, layer = sorted(answers)[0], 2
    better = {q: dict(sheet) for q, sheet in answers.items()}
    better[question][layer] = [0 if cluster is None else cluster for cluster in better[question][layer]]
    improved, _ = tables(frame(better), n_bootstrap=0)
    for before, after in zip(layers["hallucination_rate"], improved["hallucination_rate"], strict=True):
        assert (before is None and after is None) or after <= before + 1e-12


def test_the_seed_moves_intervals_only():
    many = {f"q{n}": sheet for n in range(15) for sheet in [PLANTED["q1" if n % 3 else "q2"]]}
    first, _ = tables(frame(many), seed=0)
    again, _ = tables(frame(many), seed=0)
    other, _ = tables(frame(many), seed=1)
    assert first.equals(again)
    estimates = ["exit_layer", *RATES, "is_best", "relative_cost"]
    assert first.select(estimates).equals(other.select(estimates))
    assert not first.equals(other)


def test_without_resamples_there_are_estimates_and_no_claim():
    layers, findings = tables(frame(PLANTED), n_bootstrap=0)
    assert layers["hcb"].to_list() == approx([0.0625, 0.875, 0.625])
    assert layers["hcb_low"].to_list() == layers["p_best"].to_list() == [None] * 3
    assert "without resamples nothing can be said" in said(findings, "best_layer")["sentence"]


def test_a_clear_winner_and_what_is_said_of_it():
    many = {f"q{n}": sheet for n in range(40) for sheet in [PLANTED["q1" if n % 2 else "q2"]]}
    layers, findings = tables(frame(many), n_bootstrap=500)
    assert layers["p_best"].to_list() == [0, 1, 0]
    assert layers["in_best_set"].to_list() == [False, True, False]
    sentence = said(findings, "best_layer")["sentence"]
    assert sentence.startswith("Layer 2 is best (HCB 0.88 [")
    assert sentence.endswith("and wins in 100 % of resamples; every other layer can be told apart from it.")
    lead = said(findings, "best_minus_last")
    assert (lead["exit_layer"], lead["estimate"], lead["p_value"]) == (2, approx(0.25), approx(1 / 501))
    assert lead["low"] < 0.25 < lead["high"] and lead["low"] > 0
    assert said(findings, "best_confidence_lead")["estimate"] == approx(0.2 - (0.1 + 0.3) / 2, abs=1e-6)  # float32


def test_shares_of_wins_and_the_interval_of_hcb_equal_a_plain_restatement():
    """Every resample in a loop: means of the drawn questions, min-max scaled anew, the winner counted."""
    rng = np.random.default_rng(4)

    def sheet(layer):
        right = rng.random(5) < 0.3 + 0.1 * layer
        return [int(cluster) if ok else None for cluster, ok in zip(rng.integers(0, 4, 5), right, strict=True)]

    answers = {f"q{n:02}": {layer: sheet(layer) for layer in (1, 2, 3)} for n in range(12)}
    layers, _ = tables(frame(answers), n_bootstrap=150, seed=9)
    creative = np.array(
        [[len({c for c in cs if c is not None}) for cs in sheet.values()] for sheet in answers.values()]
    )
    wrong = np.array([[cs.count(None) / len(cs) for cs in sheet.values()] for sheet in answers.values()])
    # the stream is that of the question ids, which are sorted
    stream = int.from_bytes(hashlib.sha256("\n".join(answers).encode()).digest()[:8], "little")
    scores, scaled, wins = [], [], np.zeros(3)
    for counts in np.concatenate(list(resample_counts(12, 150, 9, stream))):
        drawn = np.repeat(np.arange(12), counts.astype(int))
        c, h = creative[drawn].mean(axis=0), wrong[drawn].mean(axis=0)
        score = 0.5 * (c - c.min()) / (c.max() - c.min()) + 0.5 * (1 - h)
        best = np.isclose(score, score.max(), atol=1e-9, rtol=0)
        wins += best / best.sum()
        scores.append(score)
        scaled.append((c - c.min()) / (c.max() - c.min()))
    assert layers["p_best"].to_list() == approx(list(wins / 150))
    assert sorted(wins)[1] > 10  # the choice is not a foregone one
    for name, drawn in (("hcb", scores), ("creativity", scaled)):
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        assert layers[f"{name}_low"].to_list() == approx(list(np.minimum(low, layers[name])), abs=1e-9)
        assert layers[f"{name}_high"].to_list() == approx(list(np.maximum(high, layers[name])), abs=1e-9)


def test_identical_layers_cannot_be_told_apart():
    same = {f"q{n}": dict.fromkeys((1, 2, 3, 4), [0, 1, None] if n % 2 else [0, None, None]) for n in range(30)}
    layers, findings = tables(frame(same))
    assert layers["in_best_set"].to_list() == [True] * 4
    assert layers["p_best"].to_list() == approx([0.25] * 4)
    assert layers["is_best"].to_list() == [True, False, False, False]
    sentence = said(findings, "best_layer")["sentence"]
    assert sentence.startswith("Layers 1 to 4 tie for the best HCB (0.")
    assert sentence.endswith("the first of them is marked and wins in 25 % of resamples; "
                             "no other layer can be told apart from it.")  # fmt: skip
    last = said(findings, "best_minus_last")
    assert (last["p_value"], last["estimate"], last["low"]) == (1, 0, None)
    assert last["sentence"] == "The last layer, 4, is as good as the best."


@given(st.integers(0, 2**32 - 1), st.sampled_from(["script", "title", "0.37"]))
@settings(max_examples=25, deadline=None)
def test_a_last_layer_that_ties_is_never_led(seed, weights):
    """The best and the last layer hold the same answers: no rounding lets one lead the other by "0.00 [nan, nan]"."""
    rng = np.random.default_rng(seed)
    answers = {}
    for number in range(7):
        first, other = ([int(c) if c < 3 else None for c in rng.integers(0, 5, 7)] for _ in range(2))
        answers[f"q{number}"] = {1: first, 2: other, 3: first}
    layers, findings = tables(frame(answers), weights=weights, n_bootstrap=60)
    best = layers.filter("is_best")["exit_layer"].item()
    sentence = said(findings, "best_minus_last")["sentence"]
    assert "nan" not in " ".join(findings["sentence"]) and best != 3
    assert sentence.startswith("The last layer, 3, is as good") if best == 1 else f"by HCB {0:.2f} " not in sentence


def test_a_lead_stays_where_scores_can_be():
    """Few questions and a narrow range of creativity: the band of the lead is wider than HCB itself, and is cut."""
    answers = {"q1": {1: [0, 1], 2: [0, None]}, "q2": {1: [0, 0], 2: [0, 1]}, "q3": {1: [0, 1], 2: [1, 1]}}
    _, findings = tables(frame(answers), n_bootstrap=200)
    lead = said(findings, "best_minus_last")
    assert (lead["low"], lead["high"]) == (-1, 1) and "[-1.00, 1.00], one-sided p = " in lead["sentence"]


def test_correlation_over_layers_by_hand():
    # creativity 0.5, 2.5, 1.0 against hallucination 0.875, 0.25, 0
    _, findings = tables(frame(PLANTED))
    c, h = [0.5 - 4 / 3, 2.5 - 4 / 3, 1 - 4 / 3], [0.875 - 0.375, 0.25 - 0.375, -0.375]
    r = sum(x * y for x, y in zip(c, h, strict=True)) / (sum(x * x for x in c) * sum(y * y for y in h)) ** 0.5
    row = said(findings, "creativity_hallucination_correlation")
    assert row["estimate"] == approx(r) and row["n"] == 3
    assert row["low"] <= r <= row["high"]


def test_several_models_are_compared_by_relative_depth():
    late = {q: {1: sheet[1], 2: sheet[1], 4: sheet[2]} for q, sheet in PLANTED.items()}  # best at 4 of 4
    layers, findings = tables(frame(PLANTED, model="b"), frame(late, model="a"), frame(PLANTED, model="c"))
    assert layers["model"].to_list() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert layers["source"].to_list() == [None] * 9
    assert [row["exit_layer"] for row in layers.filter("is_best").to_dicts()] == [4, 2, 2]
    agreement = said(findings, "best_depth_agreement")
    assert agreement["estimate"] == approx(1 - (1 / 3 + 1 / 3 + 0) / 3) and agreement["n"] == 3
    # last layers: (2.5, .25), (1, 0), (1, 0): on a line
    assert said(findings, "correlation_over_curves")["estimate"] == approx(1)


def test_the_order_of_the_inputs_does_not_matter():
    inputs = [ScoredInput(frame(PLANTED, model=name), name * 64) for name in "abc"]
    one, other = layer_tables(inputs, n_bootstrap=50), layer_tables(inputs[::-1], n_bootstrap=50)
    assert one[0].equals(other[0]) and one[1].equals(other[1])


def test_inputs_of_the_same_protocol_are_kept_apart_by_their_digest():
    layers, findings = tables(frame(PLANTED), frame({"q9": PLANTED["q1"], "q8": PLANTED["q2"]}), frame(PLANTED, "x"))
    assert layers["source"].to_list() == ["11111111"] * 3 + ["22222222"] * 3 + [None] * 3
    assert layers.select(LAYERS.key).is_unique().all()
    assert findings.select(FINDINGS.key).is_unique().all()


def test_protocols_in_one_file_are_separate_curves():
    rows = pl.concat([frame(PLANTED), frame(PLANTED, temperature=1.0), frame(PLANTED, method="dola")])
    layers, _ = tables(rows)
    assert layers.height == 9 and layers.select(LAYERS.key).is_unique().all()


def test_curves_over_the_same_questions_share_their_resamples():
    _, findings = tables(frame(PLANTED, model="a"), frame(PLANTED, model="b"), n_bootstrap=300)
    row = said(findings, "best_depth_agreement")
    assert (row["estimate"], row["low"], row["high"]) == (1, 1, 1)


def test_a_file_from_elsewhere_needs_only_a_question_and_a_verdict():
    foreign = pl.DataFrame({"question": ["a?", "a?", "b?"], "response": ["x"] * 3, "correct": [True, False, False]})
    layers, findings = tables(foreign)
    (row,) = layers.to_dicts()
    assert (row["exit_layer"], row["n_questions"], row["hallucination_rate"]) == (1, 2, approx(0.75))
    assert (row["creativity_raw"], row["hcb"], row["relative_cost"], row["model"]) == (None, None, None, None)
    assert "not clustered; run `hcl score`" in said(findings, "best_layer")["sentence"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.head(0), "input 1 has no rows"),
        (lambda f: f.drop("correct"), "input 1 has no column correct"),
        (lambda f: f.with_columns(pl.lit("maybe").alias("correct")), "input 1, column correct: String"),
        (lambda f: f.with_columns(pl.lit("two").alias("exit_layer")), "input 1, column exit_layer: String"),
        (lambda f: f.with_columns(question_id=None, question=None), "24 rows have neither question_id nor question"),
        (
            lambda f: pl.concat([f, f.tail(2)]),
            "2 rows repeat another's sample, the first for question 'q2', exit_layer 3",
        ),
        (
            lambda f: f.with_columns(exit_layer=pl.when(pl.col("exit_layer") > 1).then("exit_layer")),
            "8 rows have no exit_layer",
        ),
        (
            lambda f: f.with_columns(cluster_id=pl.when(pl.col("cluster_id") > 0).then("cluster_id")),
            "12 correct rows have no cluster_id",
        ),
    ],
)
def test_bad_input_is_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        tables(change(frame(PLANTED)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_same_content_twice_and_no_input_are_refused():
    same = ScoredInput(frame(PLANTED), "a" * 64)
    with pytest.raises(BadInput, match=r"^inputs 1 and 2 have the same content"):
        layer_tables([same, same])
    with pytest.raises(BadInput, match=r"^hcb needs at least one table"):
        layer_tables([])


def test_weights_by_name_and_by_number():
    assert parse_weights("script") == Weights(0.5, 0.5, "raw")
    assert parse_weights("title") == Weights(0.8, 0.2, "minmax")
    assert parse_weights("figure", "raw") == Weights(0.9, 0.1, "raw")
    assert parse_weights("0.9") == Weights(0.9, 0.1, "raw")
    assert parse_weights("1") == Weights(1.0, 0.0, "raw")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_other_weights_are_refused_in_one_line(text):
    try:
        weights = parse_weights(text)
    except BadOption as error:
        assert str(error).startswith("--weights ") and len(str(error).splitlines()) == 1
    else:
        assert weights.creativity + weights.hallucination == approx(1)
        assert 0 <= weights.creativity <= 1


@pytest.mark.parametrize("text", ["", "nan", "inf", "-0.1", "1.1", "0.5,0.5", "Script ", "one\ntwo"])
def test_weights_that_are_none(text):
    with pytest.raises(BadOption, match=r"^--weights .*expected script, title, figure or a number from 0 to 1"):
        parse_weights(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_hallucination": "both"}, "--scale-hallucination 'both': expected raw or minmax"),
        (
            {"diversity": "width"},
            "--diversity 'width': expected one of clusters, rarefied, coverage, entropy, spectrum",
        ),
        ({"n_bootstrap": -1}, "--bootstrap -1: expected 0 or more"),
        ({"seed": -1}, "--seed -1: expected a whole number"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(BadOption) as caught:
        tables(frame(PLANTED), **options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
