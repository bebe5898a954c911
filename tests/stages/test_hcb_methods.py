"""Decoding methods compared as if they were layers: which rows make one curve, by hand, and what is said of it."""

import polars as pl
import pytest
from planted_hcb import frame, said, tables
from pytest import approx

# question -> the cluster of each answer; None is a wrong answer
ANSWERS = {
    "vanilla": {"q1": [0, 0, None, None], "q2": [0, None, None, None]},
    "dola-low": {"q1": [0, 1, 2, None], "q2": [0, 0, 0, None]},
    "static:3": {"q1": [None, None, None, None], "q2": [0, 0, None, None]},
}


def of_method(method, answers, layer=10, **columns):
    by_layer = {question: {layer: clusters} for question, clusters in answers.items()}
    return frame(by_layer, strategy="contrast", method=method, relative_cost=None, **columns)


def contrasts(names=tuple(ANSWERS), **columns):
    return pl.concat([of_method(name, ANSWERS[name], **columns) for name in names])


def test_methods_of_one_file_are_one_curve_with_vanilla_first():
    layers, findings = tables(contrasts())
    assert layers["method"].to_list() == ["vanilla", "dola-low", "static:3"]
    assert layers["exit_layer"].to_list() == [10, 10, 10] and layers["source"].null_count() == 3
    assert layers["hallucination_rate"].to_list() == approx([5 / 8, 2 / 8, 6 / 8])
    assert layers["creativity_raw"].to_list() == [1.0, 2.0, 0.5]
    # min-max over the methods: (1 - .5) / 1.5, 1, 0
    assert layers["creativity"].to_list() == approx([1 / 3, 1, 0])
    assert layers["hcb"].to_list() == approx([(1 / 3 + 3 / 8) / 2, (1 + 6 / 8) / 2, (0 + 2 / 8) / 2])
    assert layers["is_best"].to_list() == [False, True, False]
    assert layers["p_best"].sum() == approx(1)
    best = said(findings, "best_method", strategy="contrast")
    assert best["method"] is None and best["exit_layer"] == 10 and best["estimate"] is None
    assert best["sentence"].startswith("Method dola-low is best (HCB 0.88")
    against = said(findings, "best_minus_vanilla", strategy="contrast")
    assert against["estimate"] == approx(0.875 - (1 / 3 + 3 / 8) / 2)
    assert against["sentence"].startswith("Method dola-low leads vanilla by HCB 0.52 [")
    assert "with the choice of the method counted in" in against["sentence"]
    assert "Over 3 methods" in said(findings, "creativity_hallucination_correlation")["sentence"]
    assert "under method dola-low" in said(findings, "best_confidence_lead")["sentence"]
    assert not {"best_layer", "best_minus_last", "best_depth_agreement"} & set(findings["statistic"])


def test_a_question_that_one_method_leaves_ungraded_counts_for_none():
    """Methods are compared on the same questions, as layers are."""
    held = contrasts(["vanilla"]).with_columns(
        correct=pl.when(pl.col("question_id") == "q1").then(None).otherwise("correct")
    )
    layers, findings = tables(pl.concat([held, contrasts(["dola-low"])]))
    assert layers["n_questions"].to_list() == [1, 1]
    assert layers["creativity_raw"].to_list() == [1.0, 1.0]  # of q2 alone
    assert (
        "1 of 2 questions were left out: not graded under every method."
        in (said(findings, "questions_left_out")["sentence"])
    )


def test_the_order_of_the_rows_does_not_matter():
    given = contrasts()
    for one, other in zip(tables(given), tables(given.sample(fraction=1.0, shuffle=True, seed=3)), strict=True):
        assert one.equals(other)


def test_methods_of_several_files_are_joined_unless_one_is_in_two_of_them():
    first, second = contrasts(["vanilla"]), contrasts(["dola-low", "static:3"])
    layers, _ = tables(first, second)
    whole, _ = tables(contrasts())
    assert layers.equals(whole)
    apart, findings = tables(contrasts(["vanilla", "dola-low"]), contrasts(["vanilla", "static:3"]))
    assert apart.select("method", "source").rows() == [
        ("vanilla", "1" * 8), ("dola-low", "1" * 8), ("vanilla", "2" * 8), ("static:3", "2" * 8),
    ]  # fmt: skip
    assert apart["is_best"].sum() == 2
    assert findings.filter(pl.col("statistic") == "best_method")["source"].to_list() == ["1" * 8, "2" * 8]


def test_a_method_that_has_several_layers_stays_a_curve_of_its_own():
    deeper = of_method("vanilla", ANSWERS["dola-low"], layer=12)
    layers, findings = tables(pl.concat([contrasts(["vanilla", "dola-low"]), deeper]))
    assert layers.select("method", "exit_layer").rows() == [("dola-low", 10), ("vanilla", 10), ("vanilla", 12)]
    assert findings.filter(pl.col("statistic") == "best_layer")["method"].to_list() == ["dola-low", "vanilla"]


def test_one_method_alone_is_one_layer_and_answers_without_a_method_stand_beside():
    layers, findings = tables(contrasts(["vanilla"]))
    assert said(findings, "best_layer")["sentence"].startswith("Layer 10 is the only one")
    assert layers["method"].to_list() == ["vanilla"]
    layers, findings = tables(contrasts(), frame({"q1": {1: [0], 2: [None]}, "q2": {1: [0], 2: [0]}}))
    assert layers["method"].to_list() == ["vanilla", "dola-low", "static:3", None, None]
    assert set(findings["statistic"]) >= {"best_method", "best_layer", "best_minus_last", "best_minus_vanilla"}


@pytest.mark.parametrize("names", [["dola-low", "static:3"], ["vanilla", "static:3"]])
def test_vanilla_is_the_baseline_only_where_it_was_run(names):
    _, findings = tables(contrasts(names))
    against = findings.filter(pl.col("statistic") == "best_minus_vanilla")
    if "vanilla" in names:
        assert against["sentence"].to_list() == ["Vanilla is the best itself."]
    else:
        assert against.is_empty()


def test_a_method_of_any_name_reaches_a_sentence_in_one_line():
    given = contrasts(["vanilla", "dola-low"]).with_columns(
        method=pl.col("method").replace("dola-low", "a\x1b[31m\nb" + "x" * 200)
    )
    sentence = said(tables(given)[1], "best_method")["sentence"]
    assert sentence.isprintable() and len(sentence) < 400
