"""Methods compared: means and corpus BLEU by hand, paired differences, intervals equal to plain resampling."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sacrebleu

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.intervals import bca_interval
from hcl_cli.schemas import COMPARED
from hcl_cli.stages.text_comparison import compared
from hcl_cli.stages.text_scores import text_scores

SETS = Path(__file__).parents[2] / "data" / "sets"


def scores_of(
    values: dict[str, dict[str, list[float]]], metric: str = "rouge-l", against: str = "best"
) -> pl.DataFrame:
    """method -> question -> one value per sample."""
    rows = [
        ("m", "d", question, method, sample, metric, against, value)
        for method, questions in values.items()
        for question, samples in questions.items()
        for sample, value in enumerate(samples)
    ]
    names = ("model", "dataset", "question_id", "method", "sample_index", "metric", "against", "value")
    empty = {"encoder": pl.lit(None, dtype=pl.String), "counts": pl.lit(None, dtype=pl.List(pl.Float32))}
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(**empty)


def test_means_by_hand() -> None:
    """A question counts once, however many samples it has: vanilla (1 + 0.5) / 2, dola (0.2 + 0.4 + 0.6) / 3.
    Their difference is over a and b, which both answered: ((0.2 - 1) + (0.4 - 0.5)) / 2."""
    table = compared(
        scores_of({"vanilla": {"a": [1, 1, 1], "b": [0, 1]}, "dola": {"c": [0.6], "b": [0.4], "a": [0.1, 0.3]}}),
        n_bootstrap=50,
    )
    assert table.schema == COMPARED.polars_schema()
    first, second = table.rows(named=True)
    assert (first["method"], first["value"], first["n_questions"]) == ("vanilla", 0.75, 2)
    assert [first[name] for name in ("baseline", "difference", "difference_low", "n_paired")] == [None] * 4
    assert (second["method"], second["baseline"], second["n_questions"], second["n_paired"]) == (
        "dola",
        "vanilla",
        3,
        2,
    )
    assert (second["value"], second["difference"]) == pytest.approx((0.4, -0.45))
    assert second["value_low"] < second["value"] < second["value_high"]


def test_without_the_baseline() -> None:
    table = compared(scores_of({"dola": {"a": [0.5], "b": [0.25]}}), n_bootstrap=20)
    row = table.row(0, named=True)
    assert row["value"] == 0.375
    assert [row[name] for name in ("baseline", "difference", "n_paired")] == [None] * 3


def test_no_common_question() -> None:
    row = compared(scores_of({"vanilla": {"a": [0.5]}, "dola": {"b": [0.25]}}), n_bootstrap=20).row(1, named=True)
    assert (row["value"], row["difference"], row["n_paired"]) == (0.25, None, 0)


def test_differences_are_paired() -> None:
    """A method that is 0.1 better at every question is so in every resample, however far questions differ."""
    values = np.linspace(0, 0.9, 60)
    table = compared(
        scores_of(
            {
                "vanilla": {f"q{i}": [value] for i, value in enumerate(values)},
                "dola": {f"q{i}": [value + 0.1 * (1 + 0.01 * (i % 2))] for i, value in enumerate(values)},
            }
        )
    )
    row = table.filter(method="dola").row(0, named=True)
    assert row["difference"] == pytest.approx(0.1005)
    assert row["difference_high"] - row["difference_low"] < 0.001
    assert row["value_high"] - row["value_low"] > 0.1


def test_two_sets_stay_apart() -> None:
    scores = scores_of({"vanilla": {"a": [0.5]}, "dola": {"a": [0.75]}})
    other = scores.with_columns(dataset=pl.lit("e"), value=pl.col("value") - 0.5)
    table = compared(pl.concat([scores, other]), n_bootstrap=20)
    assert table.select("dataset", "method", "value", "difference").rows() == [
        ("d", "vanilla", 0.5, None),
        ("d", "dola", 0.75, 0.25),
        ("e", "vanilla", 0.0, None),
        ("e", "dola", 0.25, 0.25),
    ]


def test_corpus_bleu_with_intervals() -> None:
    """Against sacrebleu on the answers themselves, every resample written out; two samples per question."""
    questions = pl.read_parquet(SETS / "truthfulqa.parquet").head(40)
    answers = pl.concat(
        questions.with_columns(
            method=pl.lit(method),
            sample_index=sample,
            response=pl.concat_str(
                pl.col("best_answer").str.split(" ").list.slice(0, 12 - cut).list.join(" "), pl.lit(".")
            ),
        )
        for method, sample, cut in (("vanilla", 0, 0), ("vanilla", 1, 3), ("dola", 0, 4), ("dola", 1, 5))
    )
    scores = text_scores(answers, ["bleu"]).filter(metric="bleu", against="best")
    table = compared(scores, n_bootstrap=30, seed=4)

    def bleu(rows: list[int], method: str) -> float:
        given = answers.filter(method=method)
        chosen = [row + 40 * sample for row in rows for sample in (0, 1)]
        hypotheses, references = (given[name].gather(chosen).to_list() for name in ("response", "best_answer"))
        settings = {"smooth_method": "none", "force": True}
        return sacrebleu.corpus_bleu(hypotheses, [references], **settings).score / 100

    everything = list(range(40))
    counts = np.concatenate(list(resample_counts(40, 30, 4))).astype(int)
    resamples = [np.repeat(everything, count).tolist() for count in counts]
    without = [[row for row in everything if row != left_out] for left_out in everything]
    one, two = table.rows(named=True)
    for estimate, name, of in (
        (one, "value", lambda rows: bleu(rows, "vanilla")),
        (two, "value", lambda rows: bleu(rows, "dola")),
        (two, "difference", lambda rows: bleu(rows, "dola") - bleu(rows, "vanilla")),
    ):
        assert estimate[name] == pytest.approx(of(everything), abs=1e-12)
        jackknife = np.array([of(rows) for rows in without])
        low, high = bca_interval(
            np.array([of(everything)]),
            np.array([[of(rows)] for rows in resamples]),
            (jackknife.mean() - jackknife)[:, None],
        )
        assert (estimate[f"{name}_low"], estimate[f"{name}_high"]) == pytest.approx((low[0], high[0]), abs=1e-9)
    assert one["n_questions"] == two["n_paired"] == 40


def test_without_resamples() -> None:
    answers = pl.DataFrame({"question_id": ["a", "b"], "method": ["vanilla"] * 2, "sample_index": [0, 0]})
    answers = answers.with_columns(
        response=pl.lit("it is in the city"), best_answer=pl.lit("it is in the city of Paris")
    )
    table = compared(text_scores(answers, ["bleu"]), n_bootstrap=0)
    row = table.filter(metric="bleu").row(0, named=True)
    assert (row["value"], row["value_low"]) == (pytest.approx(np.exp(1 - 7 / 5)), None)


def test_rows_may_come_in_any_order() -> None:
    draw = np.random.default_rng(1)
    scores = scores_of({method: {f"q{i}": [float(draw.random())] for i in range(30)} for method in ("vanilla", "dola")})
    table = compared(scores, n_bootstrap=100).sort("method")
    assert compared(scores.sample(fraction=1, shuffle=True, seed=3), n_bootstrap=100).sort("method").equals(table)


def test_where_resamples_cannot_differ_there_is_no_interval() -> None:
    """Corpus BLEU without a matched 4-gram is 0 in every resample: [0, 0] would claim to know it. One question decides
    nothing either, whatever the metric."""
    answers = pl.DataFrame({"question_id": list("abc"), "method": ["vanilla"] * 3, "sample_index": [0] * 3})
    answers = answers.with_columns(response=pl.lit("in the city"), best_answer=pl.lit("at the river of it"))
    (row,) = compared(text_scores(answers, ["bleu"]), n_bootstrap=100).filter(metric="bleu").rows(named=True)
    assert (row["value"], row["value_low"], row["value_high"], row["n_questions"]) == (0.0, None, None, 3)
    one = compared(scores_of({"vanilla": {"a": [0.5]}, "dola": {"a": [0.75]}}, "token-f1"), n_bootstrap=100)
    assert one["value"].to_list() == [0.5, 0.75] and one["difference"].to_list() == [None, 0.25]
    for name in ("value_low", "value_high", "difference_low", "difference_high"):
        assert one[name].null_count() == 2


def test_the_encoder_goes_on_to_the_comparison() -> None:
    scores = scores_of({"vanilla": {"a": [0.5], "b": [0.1]}}, "bertscore").with_columns(encoder=pl.lit("mini layer 6"))
    assert compared(scores, n_bootstrap=20)["encoder"].to_list() == ["mini layer 6"]
