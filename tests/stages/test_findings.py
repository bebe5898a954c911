"""Statements about what the best exit saves, about noise, and about several curves, beside the published claims."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_hcb import PLANTED, answers, frame, said, tables
from pytest import approx

from hcl_cli.stages.claims import BEST_LAYERS, CORRELATIONS, PUBLISHED
from hcl_cli.stages.finding_words import about

# Layer 2 is best by its meanings, layer 3 is more often right.
SAVING = {
    f"q{n:02}": {1: [None] * 4, 2: [0, 1, 2, None] if n % 3 else [0, 1, 2, 3], 3: [0] * 4, 4: [0] * 4}
    for n in range(30)
}  # fmt: skip


def test_what_the_best_exit_saves():
    found = said(tables(frame(SAVING))[1], "best_exit_saves")
    # 20 of 30 questions have one wrong answer of 4 at layer 2, none at the last; its cost is 2 of 4
    assert (found["exit_layer"], found["estimate"], found["n"]) == (2, approx(20 / 30 / 4), 30)
    assert found["low"] < found["estimate"] < found["high"]
    assert found["sentence"].startswith("Exit 2 costs 50 % of the full model, hallucination +0.17 [+0.")
    assert "against layer 4, the choice of the layer counted in" in found["sentence"]
    assert found["published"] is None


def test_the_interval_of_what_is_saved_is_no_narrower_than_that_of_the_layer_alone():
    found = said(tables(frame(SAVING), n_bootstrap=1000)[1], "best_exit_saves")
    half = 1.96 * np.std([1 / 4] * 20 + [0] * 10, ddof=1) / np.sqrt(30)
    assert found["high"] - found["estimate"] >= 0.95 * half


def test_nothing_is_saved_by_the_last_layer_nor_told_where_the_cost_is_unknown():
    best_last = {q: {1: sheet[1], 2: sheet[2]} for q, sheet in SAVING.items()}
    found = said(tables(frame(best_last))[1], "best_exit_saves")
    assert found["sentence"] == "The best exit is the last layer: it saves nothing." and found["estimate"] == 0
    unknown = frame(SAVING).with_columns(relative_cost=pl.lit(None, dtype=pl.Float64))
    assert "best_exit_saves" not in tables(unknown)[1]["statistic"]
    drafted = frame(SAVING, strategy="self-speculative", drafted=6, accepted_drafts=3, verifications=1, n_tokens=2)
    assert "best_exit_saves" not in tables(drafted)[1]["statistic"]


def test_a_best_layer_within_noise_is_said_with_the_questions_that_would_tell():
    sheets = answers(30, (0.3, 0.6, 0.63), n_samples=4)
    found = said(tables(frame(sheets))[1], "best_within_noise")
    best, other = found["exit_layer"], 5 - found["exit_layer"]
    assert found["sentence"].startswith(
        f"Layer {best} is best, but layer {other} cannot be told apart from it with 30 questions; about "
    )
    assert f"would tell {best} from {other} with 80 % power: hcl hcb --power." in found["sentence"]
    assert found["estimate"] > 30


def test_no_number_of_questions_is_named_where_the_layers_have_one_law_or_hardly_differ():
    """A bug: 63,000,000 questions were said to tell layers apart whose drafts the full model had verified."""
    sheets = answers(30, (0.6, 0.6, 0.63), n_samples=4)
    verified = frame(sheets, strategy="self-speculative", drafted=6, accepted_drafts=3, verifications=1, n_tokens=2)
    found = said(tables(verified)[1], "best_within_noise")
    assert found["estimate"] is None
    assert "questions; by their law they are the same, as the full model verified every draft: hcl" in found["sentence"]
    # One question of 600 has one answer more at layer 1, half of the others another at either layer.
    close = {f"q{n:03}": {1: [0, None] if n % 2 else [None, 0, 1], 2: [0, 1, None] if n % 2 else [0, None]}
             for n in range(600)} | {"last": {1: [0, 1], 2: [0, None]}}  # fmt: skip
    found = said(tables(frame(close), weights="0.001")[1], "best_within_noise")
    assert found["estimate"] > 10**6 and "it would take over a million to tell 1 from 2: hcl" in found["sentence"]


def test_a_best_layer_that_is_told_apart_has_no_such_statement():
    clear = answers(80, (0.1, 0.3, 0.9), n_samples=6)
    assert "best_within_noise" not in tables(frame(clear))[1]["statistic"]


def test_layers_that_tie_need_no_number():
    same = {q: {layer: sheet[2] for layer in (1, 2)} for q, sheet in SAVING.items()}
    found = said(tables(frame(same))[1], "best_within_noise")
    assert found["estimate"] is None
    assert found["sentence"] == (
        "Layer 1 is best, but layer 2 cannot be told apart from it with 30 questions: hcl hcb --power."
    )


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (312, "320"), (1234, "1,300"), (99.5, "100")])
def test_about(number, text):
    assert about(number) == text


def test_several_curves_over_layers_data_sets_and_models():
    """Two models and two data sets: the same planted curve, and one whose best layer is the last."""
    four = {q: {**sheet, 4: [None] * 4} for q, sheet in PLANTED.items()}
    late = {q: {1: sheet[3], 2: sheet[1], 3: [None] * 4, 4: sheet[2]} for q, sheet in four.items()}
    _, findings = tables(
        frame(four, model="a"), frame(late, model="b"), frame(four, model="a", dataset="e"),
        frame(four, model="b", dataset="e"),
    )  # fmt: skip
    # best layers 2, 4, 2, 2 of 4
    assert said(findings, "best_depth")["estimate"] == approx((0.5 + 1 + 0.5 + 0.5) / 4)
    by_set = findings.filter(statistic="best_depth_of_dataset").select("dataset", "model", "estimate", "n").rows()
    assert by_set == [("d", None, 0.75, 2), ("e", None, 0.5, 2)]
    by_model = findings.filter(statistic="best_depth_of_model").select("model", "dataset", "estimate").rows()
    assert by_model == [("a", None, 0.5), ("b", None, 0.75)]
    rs = findings.filter(statistic="creativity_hallucination_correlation")["estimate"].to_numpy()
    pooled = said(findings, "correlation_over_layers")
    assert pooled["estimate"] == approx(np.tanh(np.arctanh(rs).mean())) and pooled["n"] == 4
    leads = findings.filter(statistic="best_confidence_lead")["estimate"].to_list()
    assert said(findings, "best_confidence_lead_over_curves")["estimate"] == approx(np.mean(leads))
    assert "correlation_over_models" not in findings["statistic"]  # two models always correlate at -1 or 1


def test_over_models_within_each_data_set():
    """Creativity and hallucination of the last layer: (1, .5), (2, .25), (0, 1), so r is the same in both data sets."""
    sheets = {"a": [0, 0, None, None], "b": [0, 1, 0, None], "c": [None] * 4}
    frames = [
        frame({f"q{n}": {1: [None] * 4, 2: cells} for n in range(3)}, model=model, dataset=dataset)
        for dataset in "de"
        for model, cells in sheets.items()
    ]
    _, findings = tables(*frames)
    found = said(findings, "correlation_over_models")
    assert found["estimate"] == approx(np.corrcoef([1, 2, 0], [0.5, 0.25, 1])[0, 1]) and found["n"] == 2
    assert "Over up to 3 models within each of 2 data sets and protocols" in found["sentence"]


def test_one_curve_has_no_statement_about_several():
    _, findings = tables(frame(PLANTED))
    assert not [name for name in findings["statistic"] if "over_" in name or "depth" in name]


def test_names_with_braces_are_told_as_they_are():
    frames = [frame(PLANTED, model="{0}"), frame(PLANTED, model="b")]
    sentences = tables(*frames)[1].filter(statistic="best_depth_of_model")["sentence"].to_list()
    assert any("{0}" in sentence for sentence in sentences)


def test_published_claims_stand_beside_the_findings_with_their_marks():
    _, findings = tables(frame(SAVING, model="a"), frame(SAVING, model="b"))
    told = dict(findings.select("statistic", "published").rows())
    assert told["formula"] is None and told["best_exit_saves"] is None
    assert "8B +0.21/+0.44" in told["creativity_hallucination_correlation"]
    assert "7B 14/8 of 32" in told["best_layer"] and "[paper]" in told["best_confidence_lead"]
    assert all("[paper]" in claim or "[figure]" in claim for claim in PUBLISHED.values())


def test_the_claims_follow_from_the_published_figures():
    """The numbers kept with the claims, again from the printed columns."""
    printed = Path(__file__).parents[1] / "measures" / "published_hcb.json"
    for setting in json.loads(printed.read_text())["series"]:
        model, temperature = setting["name"].split(" T=")
        at = {"0.6": 0, "1.0": 1}[temperature]
        r = np.corrcoef(setting["diversity"], setting["hallucination"])[0, 1]
        assert CORRELATIONS[model][at] == approx(r, abs=0.006)
        assert BEST_LAYERS[model][at] == 2 * (1 + int(np.argmax(setting["score"])))
