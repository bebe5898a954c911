"""Agreement of judges and clusterings by hand, against the adjusted Rand index, and what follows for the best layer."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx
from sklearn.metrics import adjusted_rand_score

from hcl_cli.errors import BadInput
from hcl_cli.measures.hcb import PRESETS
from hcl_cli.stages.agreement import agreement_table
from hcl_cli.stages.best_layers import best_layers
from hcl_cli.stages.judge_calibration import judge_calibration
from hcl_cli.stages.score import scored
from hcl_cli.stages.scored_columns import clusterings_of, judges_of
from hcl_cli.stages.scored_groups import ScoredInput


def answers(rows, **columns):  # type: ignore[no-untyped-def]
    frame = pl.DataFrame(rows, schema=["question", "answers", "response", "exit_layer"], orient="row")
    return frame.with_columns(
        pl.lit("m").alias("model"), pl.lit("d").alias("dataset"), pl.col("exit_layer").cast(pl.Int16),
        sample_index=pl.int_range(pl.len(), dtype=pl.Int32), **columns,
    )  # fmt: skip


def test_judges_by_hand() -> None:
    """`alias` takes 4 of 10 for right, `contains` one more (Nigeria): kappa .8; at layer 2 nothing differs."""
    rows = [("q", ["Niger"], text, 1) for text in ["Niger"] * 2 + ["Nigeria"] + ["Chad"] * 3]
    rows += [("q", ["Niger"], text, 2) for text in ["Niger"] * 2 + ["Chad"] * 2]
    table = scored(answers(rows), judges=["alias", "contains", "exact"])
    assert judges_of(table.columns) == ["alias", "contains", "exact"] and clusterings_of(table.columns) == []
    found = agreement_table(table, n_bootstrap=100)
    assert found.select("one", "other", "exit_layer").rows()[:4] == [
        ("alias", "contains", None), ("alias", "contains", 1), ("alias", "contains", 2), ("alias", "exact", None),
    ]  # fmt: skip
    whole, first, second = found.head(3).to_dicts()
    assert (whole["n"], whole["share_equal"], whole["kappa"]) == (10, approx(0.9), approx(0.8))
    assert (whole["n_only_one"], whole["n_only_other"], whole["n_questions_differing"]) == (0, 1, 1)
    assert (first["n"], first["n_only_other"], second["n"], second["kappa"]) == (6, 1, 4, 1.0)
    assert whole["where"] == "correct_alias != correct_contains"
    assert table.filter(pl.sql_expr(whole["where"]))["response"].to_list() == ["Nigeria"]
    ungraded = agreement_table(scored(answers([("q", None, "x", 1)]), judges=["alias", "exact"]))
    assert ungraded.select("n", "share_equal", "kappa").rows() == [(0, None, None)]
    assert agreement_table(scored(answers(rows))).height == 0


partitions = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12)


@given(partitions)
def test_kappa_over_pairs_is_the_adjusted_rand_index_of_one_group(labels) -> None:  # type: ignore[no-untyped-def]
    """Warrens 2008; checked against scikit-learn."""
    one, other = zip(*labels, strict=True)
    frame = answers([("q", ["x"], f"t{at}", 1) for at in range(len(labels))]).with_columns(
        pl.lit(None, pl.String).alias("strategy"), pl.lit(None, pl.String).alias("method"),
        pl.lit(None, pl.Float64).alias("temperature"), pl.lit(None, pl.Float64).alias("top_p"),
        question_id=pl.col("question"), meaning_id_exact=pl.Series(one), meaning_id_cosine=pl.Series(other),
    )  # fmt: skip
    (row,) = agreement_table(frame, n_bootstrap=0).to_dicts()
    n = len(labels)
    assert row["n"] == n * (n - 1) // 2
    same = [(a == b, c == d) for i, (a, c) in enumerate(labels) for b, d in labels[i + 1 :]]
    assert row["n_only_one"] == sum(a and not b for a, b in same)
    assert row["n_only_other"] == sum(b and not a for a, b in same)
    if row["kappa"] is not None:
        assert row["kappa"] == approx(adjusted_rand_score(one, other), abs=1e-9)


def test_repeated_answers_do_not_count_as_pairs_and_rows_may_come_in_any_order() -> None:
    rows = [("q", ["x"], text, layer) for layer in (1, 2) for text in ("w", "x", "w", "y", "w")]
    frame = scored(answers(rows), clusterings=[_Fixed("exact", "aabc"), _Fixed("cosine", "abbc")])
    found = agreement_table(frame, n_bootstrap=50)
    assert found.filter(pl.col("exit_layer").is_null())["n"].to_list() == [6]  # three pairs at each layer
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1)
    key = ["one", "other", "exit_layer"]
    assert agreement_table(shuffled, n_bootstrap=50).sort(key).equals(found.sort(key))


class _Fixed:
    """A clustering by the letter at the place of a text's letter in a string."""

    def __init__(self, name: str, letters: str) -> None:
        self.name = self.label = name
        self.letters = letters

    def run(self, texts, jobs):  # type: ignore[no-untyped-def]
        from hcl_cli.measures.clusters import equal_clusters
        from hcl_cli.stages.clusterings import Placed

        return [Placed(equal_clusters([self.letters["wxyz".index(texts[item])] for item in job.items])) for job in jobs]


# --- the best layer ---


def two_judges() -> pl.DataFrame:
    """Layer 1 is right by `exact` half of the time; layer 2 is right by `alias` alone, and more often."""
    numbers = np.random.default_rng(0)
    rows = []
    for question in range(40):
        for layer, spelling, share in ((1, "x", 0.5), (2, "it is x", 0.8)):
            for _ in range(4):
                rows.append((f"q{question}", ["x"], spelling if numbers.random() < share else "no", layer))
    return scored(answers(rows), judges=["exact", "alias", "contains"])


def test_the_best_layer_may_depend_on_the_judge() -> None:
    frame = two_judges()
    found = best_layers([ScoredInput(frame, "a" * 64)], weights=PRESETS["script"], n_bootstrap=200)
    assert found.select("judge", "clustering", "best", "is_first", "is_same").rows() == [
        ("exact", "exact", "1", True, True), ("alias", "exact", "2", False, False),
        ("contains", "exact", "2", False, False),
    ]  # fmt: skip
    first, alias, _ = found.to_dicts()
    assert first["sentence"] == (
        "Layer 1 is best under exact with clusters by exact, and under 0 of 2 other judges and clusterings: the choice "
        "depends on them."
    )
    assert alias["sentence"] == (
        "Under alias, clusters by exact, layer 2 is best instead of 1, the same in 0 % of resamples."
    )
    assert alias["p_same"] == 0 and alias["p_best"] == 1 and alias["n_questions"] == 40
    assert (alias["exit_layer"], alias["exit_layer_low"], alias["exit_layer_high"]) == (2, 2, 2)
    # The numbers are those of a table that this judge alone has scored.
    alone = scored(frame.drop("judge"), judges=["alias"])
    from hcl_cli.stages.hcb import layer_tables

    layers = layer_tables([ScoredInput(alone, "a" * 64)], n_bootstrap=200)[0].filter("is_best").to_dicts()[0]
    for name in ("hallucination_rate", "creativity_raw", "hcb"):
        assert alias[name] == layers[name] and alias[f"{name}_low"] == layers[f"{name}_low"]


def test_clusterings_that_agree_choose_the_same_layer_and_one_judge_has_no_table() -> None:
    rows = [(f"q{q}", ["w", "x", "y"], text, layer) for q in range(20) for layer, said in ((1, "wxy"), (2, "wwz"))
            for text in said]  # fmt: skip
    frame = scored(answers(rows), clusterings=[_Fixed("exact", "abcd"), _Fixed("cosine", "aabc")])
    found = best_layers([ScoredInput(frame, "a" * 64)], weights=PRESETS["script"], n_bootstrap=100)
    assert found.select("clustering", "best", "is_same", "p_same").rows() == [
        ("exact", "1", True, None), ("cosine", "1", True, 1.0),
    ]  # fmt: skip
    assert found["sentence"][0] == (
        "Layer 1 is best under alias with clusters by exact, and under every other judge and clustering (1)."
    )
    assert found["creativity_raw"].to_list() == [3.0, 2.0]
    plain = scored(answers(rows))
    assert best_layers([ScoredInput(plain, "a" * 64)], weights=PRESETS["script"]).height == 0


# --- people ---


def test_judges_against_people_by_hand() -> None:
    rows = [("q", ["x"], "x", 1)] * 3 + [("q", ["x"], "x y", 1)] * 2 + [("p", ["x"], "no", 1)] * 4 + [("p", [], "x", 1)]
    human = [True, True, False, True, None, False, False, True, None, True]
    table = scored(answers(rows, human=pl.Series(human)), judges=["exact", "alias"])
    exact, alias = judge_calibration(table, n_bootstrap=100).to_dicts()
    # exact: right 1 1 0 | 0 on "x y" | wrong 0 0 1; without a reference no verdict; two debatable ones apart.
    assert (exact["n"], exact["n_right"], exact["n_debatable"], exact["n_ungraded"]) == (7, 4, 2, 1)
    assert (exact["precision"], exact["recall"], exact["specificity"]) == (approx(2 / 3), approx(2 / 4), approx(2 / 3))
    assert (alias["precision"], alias["recall"]) == (approx(3 / 4), approx(3 / 4))
    assert (exact["debatable_accepted"], alias["debatable_accepted"]) == (0.0, 0.5)
    only = judge_calibration(scored(answers(rows, human=pl.Series(human)), judges=["alias"]), n_bootstrap=100)
    assert only.equals(pl.DataFrame([alias], schema=only.schema))
    with pytest.raises(BadInput, match="column human: String, expected true, false or null"):
        judge_calibration(table.with_columns(human=pl.lit("yes")))
    ones = judge_calibration(table.with_columns(pl.col("human").cast(pl.Int64)), n_bootstrap=100)
    assert ones.equals(judge_calibration(table, n_bootstrap=100))
    with pytest.raises(BadInput, match="column human: Int32, expected"):
        judge_calibration(table.with_columns(human=pl.lit(2)))
    with pytest.raises(BadInput, match="null in every row"):
        judge_calibration(table.with_columns(human=pl.lit(None, pl.Boolean)))
