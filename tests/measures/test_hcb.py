"""The published arithmetic, golden values by hand, and laws of the score."""

import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.measures.association import agreement, pearson
from hcl_cli.measures.hcb import PRESETS, Weights, best_layer, hcb, linear_part, minmax, winning_shares

SERIES = json.loads((Path(__file__).parent / "published_hcb.json").read_text())["series"]
HALF = Weights(0.5, 0.5, "minmax")


@pytest.mark.parametrize("setting", SERIES, ids=lambda setting: setting["name"])
def test_published_scores_follow_from_the_published_columns(setting):
    score = hcb(setting["diversity"], setting["hallucination"], PRESETS["figure"])
    assert np.abs(score - setting["score"]).max() <= 0.01  # both columns and the score are printed with two decimals


@pytest.mark.parametrize("setting", SERIES, ids=lambda setting: setting["name"])
def test_published_best_layers_follow_under_all_three_weightings(setting):
    layers = 2 * np.arange(1, len(setting["score"]) + 1)
    chosen = [
        layers[best_layer(hcb(setting["diversity"], setting["hallucination"], weights))]
        for weights in (PRESETS["figure"], HALF, PRESETS["title"])
    ]
    assert chosen == [setting["best_layer"], setting["best_layer_half"], setting["best_layer_title"]]


@pytest.mark.parametrize("setting", SERIES, ids=lambda setting: setting["name"])
def test_published_correlations_follow(setting):
    printed = {"1B T=0.6": -0.99, "1B T=1.0": -1.00, "7B T=0.6": 0.72, "7B T=1.0": 0.19, "8B T=0.6": 0.21}
    printed |= {"8B T=1.0": 0.44, "13B T=0.6": -0.48, "13B T=1.0": -0.65}
    assert pearson(setting["diversity"], setting["hallucination"]) == approx(printed[setting["name"]], abs=0.005)


@pytest.mark.parametrize("setting", SERIES, ids=lambda setting: setting["name"])
def test_raw_creativity_scales_to_the_published_diversity(setting):
    """The raw means have two decimals, so their scale is known to 0.02 of its width."""
    raw = np.array(setting["raw_creativity"][: len(setting["diversity"])])
    assert np.abs(minmax(raw) - setting["diversity"]).max() <= 0.01 / np.ptp(raw) + 0.006


def test_the_title_and_the_script_do_not_give_the_published_numbers():
    """The figures' titles say 0.8/0.2 and the script has 0.5/0.5; the printed numbers are neither."""
    off = {
        name: max(np.abs(hcb(s["diversity"], s["hallucination"], w) - s["score"]).max() for s in SERIES)
        for name, w in (("title", PRESETS["title"]), ("half", HALF))
    }
    assert off == {"title": approx(0.10, abs=0.005), "half": approx(0.40, abs=0.005)}


def test_layer_40_of_13b_would_squeeze_the_others():
    """With layer 40 (6.24) kept, all other layers of 13B at T = 1.0 lie above 0.75."""
    raw = next(s for s in SERIES if s["name"] == "13B T=1.0")["raw_creativity"]
    assert minmax(raw[:-1]).min() == 0
    assert sorted(minmax(raw))[1] == approx((6.90 - 6.24) / (7.11 - 6.24))


def test_score_by_hand():
    # minmax(C) = 0, 1, .5; minmax(H) = 1, 0, .25
    creativity, hallucination = [1.0, 3.0, 2.0], [0.6, 0.2, 0.3]
    assert hcb(creativity, hallucination, PRESETS["script"]) == approx([0.2, 0.9, 0.6])
    assert hcb(creativity, hallucination, PRESETS["title"]) == approx([0.0, 1.0, 0.55])
    assert hcb(creativity, hallucination, PRESETS["figure"]) == approx([0.0, 1.0, 0.525])


def test_a_constant_scales_to_one_half():
    assert minmax([2.0, 2.0, 2.0]) == approx([0.5, 0.5, 0.5])
    assert minmax([0.1 + 0.2, 0.3]) == approx([0.5, 0.5])  # equal up to rounding
    assert minmax([7.0]) == approx([0.5])
    assert isnan(minmax([1.0, float("nan")])[0])


def test_ties_go_to_the_smallest_layer_and_share_their_wins():
    assert best_layer([0.1, 0.3, 0.1 + 0.2]) == 1
    assert winning_shares([[0.1, 0.5, 0.5], [1.0, 0.0, 0.0], [np.nan, 1.0, 2.0]]) == approx([0.5, 0.25, 0.25])


def test_formula_is_built_from_the_weights():
    assert PRESETS["script"].formula == "HCB = 0.5 x min-max creativity + 0.5 x (1 - hallucination rate)"
    assert PRESETS["figure"].formula == "HCB = 0.9 x min-max creativity + 0.1 x (1 - min-max hallucination rate)"


def test_agreement_by_hand():
    assert agreement([0.5, 0.5, 1.0]) == approx(1 - (0 + 0.5 + 0.5) / 3)
    assert isnan(pearson([1, 2, 3], [2, 2, 2]))  # nothing varies


# Two decimals apart or equal: differences below rounding are ties, not an order.
values = st.lists(st.integers(0, 1000).map(lambda n: n / 100), min_size=2, max_size=12)


@settings(deadline=None)
@given(values, st.floats(0.1, 10), st.floats(-5, 5))
def test_minmax_lies_in_the_unit_interval_and_forgets_the_scale(x, factor, shift):
    scaled = minmax(x)
    assert scaled.min() >= 0 and scaled.max() <= 1
    assert minmax(np.array(x) * factor + shift) == approx(scaled, abs=1e-9)


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(PRESETS)), st.integers(2, 8))
def test_score_lies_in_the_unit_interval_and_falls_with_hallucination(data, preset, n_layers):
    creativity = data.draw(st.lists(st.floats(0, 20), min_size=n_layers, max_size=n_layers))
    rates = data.draw(st.lists(st.floats(0, 0.9), min_size=n_layers, max_size=n_layers))
    score = hcb(creativity, rates, PRESETS[preset])
    assert score.min() >= -1e-12 and score.max() <= 1 + 1e-12
    worse = [rates[0] + 0.1, *rates[1:]]
    raw = Weights(0.5, 0.5, "raw")
    assert hcb(creativity, worse, raw)[0] == approx(hcb(creativity, rates, raw)[0] - 0.05)


@settings(deadline=None)
@given(values, st.sampled_from(sorted(PRESETS)), st.integers(0, 2**32 - 1))
def test_linear_part_has_the_differences_of_the_score(creativity, preset, seed):
    rates = np.round(np.random.default_rng(seed).random(len(creativity)), 2)
    score = hcb(creativity, rates, PRESETS[preset])
    linear = linear_part(creativity, rates, PRESETS[preset], (np.array(creativity), rates))
    assert linear - linear[0] == approx(score - score[0], abs=1e-9)
