"""The spectrum column: which answers count, that nothing but they decide it, and a planted best layer."""

from math import log

import numpy as np
import polars as pl
from planted_hcb import frame, said
from pytest import approx

from hcl_cli.measures.hcb import PRESETS
from hcl_cli.stages.hcb import ScoredInput, layer_tables
from hcl_cli.stages.spectrum import with_spectrum

# Directions that sum to nothing, so that centring leaves them as they are.
VECTORS = {"a": [1, -1, 0, 0], "b": [0, 0, 1, -1], "c": [1, 1, -1, -1], "x": [1, -1, 0, 0]}


def encode(texts):  # type: ignore[no-untyped-def]
    found = np.array([VECTORS[text] for text in texts], dtype=np.float32)
    assert len(set(texts)) == len(texts)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows(said_, question="q", layer=1):  # type: ignore[no-untyped-def]
    """Rows from text -> whether it is right; capitals are wrong."""
    made = frame({question: {layer: [0 if text.islower() else None for text in said_]}})
    return made.with_columns(response=pl.Series([text.lower() for text in said_], dtype=pl.String))


def test_five_answers_by_hand_and_fewer_are_unknown():
    alpha = 1e-3
    same = with_spectrum(rows("aaaaa"), encode)["spectrum"]
    assert same.to_list() == [approx((log(5 + alpha) + 4 * log(alpha)) / 5)] * 5
    three = with_spectrum(rows("aaabc"), encode)["spectrum"][0]
    assert three == approx((log(3 + alpha) + 2 * log(1 + alpha) + 2 * log(alpha)) / 5)
    assert with_spectrum(rows("abca"), encode)["spectrum"].null_count() == 4
    # A wrong answer does not count, whatever it says.
    mixed = with_spectrum(rows("aaabcXX"), encode)["spectrum"]
    assert mixed.null_count() == 2 and mixed[0] == three


def test_more_than_five_are_the_mean_over_subsets():
    """Five a and five b: the mean over all subsets of 5 is known; 32 drawn ones come near."""
    alpha = 1e-3
    share = {k: n / 252 for k, n in zip(range(6), (1, 25, 100, 100, 25, 1), strict=True)}
    score = {k: (sum(log(n + alpha) + (n - 1) * log(alpha) for n in (k, 5 - k) if n)) / 5 for k in share}
    exact = sum(share[k] * score[k] for k in share)
    spread = sum(share[k] * (score[k] - exact) ** 2 for k in share) ** 0.5
    found = with_spectrum(rows("ab" * 5), encode)["spectrum"][0]
    assert abs(found - exact) < 4 * spread / 32**0.5
    assert found != with_spectrum(rows("ab" * 5), encode, seed=1)["spectrum"][0]


def test_neither_other_questions_nor_the_order_of_rows_change_a_draw():
    one, other = rows("ababcabc"), rows("aabbccab", question="p")
    alone = with_spectrum(one, encode)["spectrum"][0]
    both = with_spectrum(pl.concat([other, one]).sample(fraction=1.0, shuffle=True, seed=3), encode)
    assert both.filter(question_id="q")["spectrum"].unique().to_list() == [alone]
    assert with_spectrum(rows("ababcabc", question="r"), encode)["spectrum"][0] != alone


def test_the_layer_table_under_spectrum_and_coverage():
    """Layer 2 says three things where layer 1 says one; both are always right."""
    parts = [rows("aaaaaa", f"q{n}", 1) for n in range(12)] + [rows("aabbcc", f"q{n}", 2) for n in range(12)]
    scored = pl.concat(parts).with_columns(
        cluster_id=pl.col("response").replace_strict({"a": 0, "b": 1, "c": 2}, return_dtype=pl.Int32)
    )
    given = with_spectrum(scored, encode)
    for diversity, low in (("spectrum", (log(6 / 6 * 5 + 1e-3) + 4 * log(1e-3)) / 5), ("coverage", 1.0)):
        layers, findings = layer_tables(
            [ScoredInput(given, "a" * 64)], weights=PRESETS["script"], diversity=diversity, n_bootstrap=200
        )
        assert layers["creativity_raw"][0] == approx(low) and layers["creativity_raw"][1] > low
        assert layers["is_best"].to_list() == [False, True]
        assert (layers["creativity_raw_low"] <= layers["creativity_raw"]).all()
        assert diversity != "spectrum" or "log-determinant" in said(findings, "formula")["sentence"]
    unready = layer_tables([ScoredInput(scored, "a" * 64)], diversity="spectrum", n_bootstrap=200)
    assert unready[0]["creativity_raw"].null_count() == 2
    assert "no question has 5 clustered correct answers at every layer" in said(unready[1], "best_layer")["sentence"]
