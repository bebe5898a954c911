"""COMPARISONS and POWER from planted answers: pairs, models on the same questions, methods, laws."""

import numpy as np
import polars as pl
import pytest
from planted_hcb import PLANTED, answers, frame
from pytest import approx

from hcl_cli.measures.hcb import PRESETS
from hcl_cli.schemas import COMPARISONS, POWER
from hcl_cli.stages.comparisons import comparisons
from hcl_cli.stages.hcb import ScoredInput, layer_tables
from hcl_cli.stages.power import power_table

SCRIPT = PRESETS["script"]


def inputs(*frames):
    return [ScoredInput(given, f"{number:x}" * 64) for number, given in enumerate(frames, start=1)]


def compared(*frames, **options):
    return comparisons(inputs(*frames), weights=SCRIPT, **{"n_bootstrap": 200} | options)


def powered(*frames, **options):
    return power_table(inputs(*frames), weights=SCRIPT, **options)


MANY = answers(60, (0.2, 0.6, 0.62))


def test_the_planted_frame_by_hand():
    """Hallucination .875, .25, 0; creativity .5, 2.5, 1; HCB .0625, .875, .625: layer 2 is best, 3 the last."""
    found = compared(frame(PLANTED), all_pairs=True)
    assert found.schema == COMPARISONS.polars_schema() and found.select(COMPARISONS.key).is_unique().all()
    rows = found.select("kind", "exit_layer", "other_exit_layer", "metric", "difference").rows()
    halves = [row[-1] for row in rows if row[:4] == ("reference", 1, 3, "hcb")]
    assert halves == [approx(0.0625 - 0.625)]
    of_best = [row for row in rows if row[0] == "best" and row[3] == "hallucination_rate"]
    assert of_best == [
        ("best", 2, 1, "hallucination_rate", approx(0.25 - 0.875)),
        ("best", 2, 3, "hallucination_rate", approx(0.25)),
    ]
    assert [row[1:3] for row in rows if row[0] == "pair" and row[3] == "hcb"] == [(1, 2), (1, 3), (2, 3)]
    assert found.filter(kind="best")["p_permutation"].null_count() == 6
    assert set(found.filter(kind="reference")["correction"]) == {"max-T over 2 pairs"}
    assert set(found.filter(kind="best")["correction"]) == {"max-T over 3 pairs"}


def test_values_and_differences_are_those_of_the_layer_table():
    layers = layer_tables(inputs(frame(MANY)), n_bootstrap=0)[0]
    for metric in ("hallucination_rate", "creativity_raw", "hcb"):
        value = dict(layers.select("exit_layer", metric).rows())
        for row in compared(frame(MANY)).filter(metric=metric).to_dicts():
            assert row["value"] == approx(value[row["exit_layer"]])
            assert row["difference"] == approx(row["value"] - value[row["other_exit_layer"]])
            assert row["band_low"] <= row["difference_low"] <= row["difference"] <= row["difference_high"]
            assert row["p_adjusted"] >= (row["p_permutation"] or 0)
            assert (row["band_low"] > 0 or row["band_high"] < 0) == (row["p_bootstrap"] <= 0.05) or metric == "hcb"


def test_a_layer_that_differs_is_told_apart_and_one_that_does_not_is_not():
    found = compared(frame(MANY)).filter(kind="reference", metric="hallucination_rate")
    first, second = found["p_adjusted"]
    assert first <= 1 / 201 + 1e-9 and second > 0.2


def test_neither_the_order_of_rows_nor_that_of_inputs_matters():
    one, two = frame(MANY, model="a"), frame(answers(60, (0.3, 0.5, 0.6), seed=1), model="b")
    straight = compared(one, two)
    shuffled = comparisons(inputs(one, two)[::-1], weights=SCRIPT, n_bootstrap=200)
    assert straight.equals(shuffled)
    assert straight.equals(compared(one.sample(fraction=1.0, shuffle=True, seed=3), two.reverse()))


def test_models_are_compared_on_the_questions_that_they_share():
    """The second model lacks question q000 and has one of its own: 59 are shared."""
    other = answers(60, (0.3, 0.5, 0.9), seed=1)
    other["mine"] = other.pop("q000")
    found = compared(frame(MANY, model="a"), frame(other, model="b"))
    between = found.filter(pl.col("other_model").is_not_null())
    assert set(between["n_questions"]) == {59}
    assert between.select("kind", "metric").rows() == [
        (kind, metric)
        for kind in ("models_at_best", "models_at_last")
        for metric in ("hallucination_rate", "creativity_raw", "hcb_common")
    ]
    last = between.filter(kind="models_at_last", metric="hallucination_rate").to_dicts()[0]
    wrong = [np.mean([np.mean([c is None for c in sheet[q][3]]) for q in other if q != "mine"]) for sheet in
             (MANY, other)]  # fmt: skip
    assert (last["value"], last["other_value"]) == (approx(wrong[0]), approx(wrong[1]))
    assert last["difference"] == approx(wrong[0] - wrong[1]) and last["p_adjusted"] < 0.02
    assert (last["model"], last["other_model"], last["exit_layer"], last["other_exit_layer"]) == ("a", "b", 3, 3)
    assert set(between["correction"]) == {"Holm over 1"} and between["note"].null_count() == 6


def test_models_on_unlike_questions_are_not_compared_and_it_is_said():
    other = {f"x{q}": sheet for q, sheet in answers(5, (0.3, 0.5, 0.9)).items()}
    found = compared(frame(MANY, model="a"), frame(other, model="b"))
    (row,) = found.filter(pl.col("other_model").is_not_null()).to_dicts()
    assert row["note"] == "they share no question; unlike questions are not compared"
    assert row["n_questions"] == 0 and row["difference"] is None


@pytest.mark.parametrize("column", [{"temperature": 1.0}, {"dataset": "other"}, {"strategy": "self-speculative"}])
def test_other_protocols_and_data_sets_are_no_pair_of_models(column):
    found = compared(frame(MANY, model="a"), frame(MANY, model="b", **column))
    assert found["other_model"].null_count() == found.height


def test_three_models_are_corrected_by_holm_over_their_pairs():
    sheets = [answers(40, (0.3, 0.5, share), seed=n) for n, share in enumerate((0.3, 0.5, 0.9))]
    found = compared(*(frame(sheet, model=name) for sheet, name in zip(sheets, "abc", strict=True)))
    last = found.filter(kind="models_at_last", metric="hallucination_rate")
    assert last.height == 3 and set(last["correction"]) == {"Holm over 3"}
    worst = last.sort("p_permutation")["p_adjusted"]
    assert worst[0] == approx(3 * last["p_permutation"].min())


def test_methods_are_compared_with_vanilla():
    methods = [frame({q: {10: sheet[layer]} for q, sheet in MANY.items()}, strategy="contrast", method=name)
               for name, layer in (("vanilla", 1), ("dola-low", 2), ("static:3", 3))]  # fmt: skip
    found = compared(pl.concat(methods))
    reference = found.filter(kind="reference", metric="hcb")
    assert reference.select("method", "other_method").rows() == [("dola-low", "vanilla"), ("static:3", "vanilla")]
    assert found.select(COMPARISONS.key).is_unique().all()
    power = powered(pl.concat(methods)).filter(metric="hallucination_rate", is_present=True)
    assert set(power["kind"]) == {"best_reference", "best_second"}  # methods have no neighbours
    assert power.select("method", "other_method").rows()[0][1] == "vanilla"


def test_without_creativity_hallucination_alone_is_compared():
    unclustered = frame(MANY).with_columns(cluster_id=pl.lit(None, dtype=pl.Int32))
    found = compared(unclustered)
    assert found.filter(pl.col("p_adjusted").is_not_null())["metric"].unique().to_list() == ["hallucination_rate"]
    assert set(found["kind"]) == {"reference"}
    both = compared(unclustered, frame(MANY, model="b"))
    noted = both.filter(kind="models_at_best").to_dicts()
    assert [row["note"] for row in noted] == [
        "no layer of both can be called best: creativity is unknown on the questions that they share"
    ]


def test_rarefied_differences_are_those_of_the_layer_table():
    """Questions with fewer than 5 right answers somewhere count for hallucination and not for creativity."""
    sheets = answers(80, (0.5, 0.6, 0.9), n_samples=10)
    layers = layer_tables(inputs(frame(sheets)), n_bootstrap=0, diversity="rarefied")[0]
    counted = layers["n_creativity_questions"][0]
    assert 5 < counted < 80
    found = compared(frame(sheets), diversity="rarefied").filter(kind="reference")
    assert dict(found.select("metric", "n_questions").unique().rows()) == {
        "hallucination_rate": 80, "creativity_raw": counted, "hcb": 80,
    }  # fmt: skip
    for row in found.to_dicts():
        value = dict(layers.select("exit_layer", row["metric"]).rows())
        assert row["difference"] == approx(value[row["exit_layer"]] - value[3])


def test_without_resamples_there_are_differences_and_no_p_values():
    found = compared(frame(MANY), n_bootstrap=0)
    for column in ("p_permutation", "p_adjusted", "p_bootstrap", "band_low", "difference_high"):
        assert found[column].null_count() == found.height
    assert found["difference"].null_count() == 0


def test_a_single_layer_has_nothing_to_be_compared_with():
    assert compared(frame({"q1": {4: [0, None]}, "q2": {4: [0, 0]}})).height == 0
    assert powered(frame({"q1": {4: [0, None]}, "q2": {4: [0, 0]}})).height == 0


# ------------------------------------------------------------------------------------------------------------ power


def test_the_power_table_of_the_planted_frame():
    """Layer 2 minus layer 3: hallucination 0 and .5 more; variances .125 in all, within .5 * .5 * 4 / 3 / 2."""
    found = powered(frame(PLANTED))
    assert found.schema == POWER.polars_schema() and found.select(POWER.key).is_unique().all()
    row = found.filter(kind="best_reference", metric="hallucination_rate", is_present=True).to_dicts()[0]
    assert (row["exit_layer"], row["other_exit_layer"], row["n_samples"], row["n_questions"]) == (2, 3, 4, 2)
    assert row["difference"] == 0.25 and row["variance"] == approx(0.125)
    assert row["variance_within"] == approx((0 + 0.25 * 4 / 3) / 2)
    assert row["variance_between"] == approx(0.125 - (0 + 0.25 / 3) / 2)
    # (1.95996 + .84162)^2 * .125 / .0625 + 1.95996^2 / 2 = 15.698 + 1.921
    assert row["questions_80"] == 18 and row["n_comparisons"] == 2
    assert row["questions_80_corrected"] > row["questions_80"] and row["questions_90"] > row["questions_80"]
    grid = found.filter(kind="best_reference", metric="hallucination_rate")
    assert grid["n_samples"].to_list() == [1, 4, 5, 10, 20, 50]
    assert grid["questions_80"].is_sorted(descending=True)
    assert set(found.filter(metric="hcb")["n_samples"]) == {1, 4}


def test_creativity_with_fewer_samples_is_that_of_tables_with_fewer_samples():
    """Eight samples: five of them are the first five alone, one of them each of the first three in turn."""
    given = frame(MANY)
    found = powered(given).filter(kind="neighbours", exit_layer=1)
    creative = {row["n_samples"]: row for row in found.filter(metric="creativity_raw").to_dicts()}
    assert set(creative) == {1, 5, 8} and set(found.filter(metric="hallucination_rate")["n_samples"]) > {1, 5, 8}

    def alone(*samples):
        row = powered(given.filter(pl.col("sample_index").is_in(samples))).filter(
            kind="neighbours", exit_layer=1, metric="creativity_raw", is_present=True
        )
        return row.select("difference", "variance").row(0)

    assert (creative[5]["difference"], creative[5]["variance"]) == approx(alone(*range(5)))
    singles = np.array([alone(sample) for sample in range(3)])
    assert (creative[1]["difference"], creative[1]["variance"]) == approx(singles.mean(0))
    # With one sample a cluster is a right answer: creativity is accuracy.
    hallucination = found.filter(metric="hallucination_rate", n_samples=1)["questions_80"][0]
    assert creative[1]["questions_80"] == approx(hallucination, rel=0.6)
    shuffled = powered(given.sample(fraction=1.0, shuffle=True, seed=2))
    assert shuffled.equals(powered(given))
    unnumbered = powered(given.with_columns(sample_index=pl.lit(None, pl.Int32))).filter(metric="hcb")
    assert set(unnumbered["n_samples"]) == {8}


def test_pairs_of_the_power_table():
    found = powered(frame(MANY)).filter(metric="hcb", is_present=True)
    pairs = found.select("kind", "exit_layer", "other_exit_layer", "n_comparisons").rows()
    assert [row for row in pairs if row[0] == "neighbours"] == [("neighbours", 1, 2, 2), ("neighbours", 2, 3, 2)]
    (second,) = [row for row in pairs if row[0] == "best_second"]
    assert {second[1], second[2]} == {2, 3} and second[3] == 3


def test_equal_layers_need_no_number_of_questions():
    same = {q: {layer: sheet[2] for layer in (1, 2)} for q, sheet in MANY.items()}
    row = powered(frame(same)).filter(kind="neighbours", metric="hallucination_rate", is_present=True).to_dicts()[0]
    assert row["questions_80"] is None and row["difference"] == 0 and row["detectable_80"] == 0


def test_one_sample_of_each_has_one_row_and_no_variance_within():
    one = {q: {layer: [cell[0]] for layer, cell in sheet.items()} for q, sheet in MANY.items()}
    found = powered(frame(one)).filter(metric="hallucination_rate")
    assert set(found["n_samples"]) == {1} and found["variance_within"].null_count() == found.height
    assert found.filter(exit_layer=1)["questions_80"].null_count() == 0
