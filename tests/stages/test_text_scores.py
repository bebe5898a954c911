"""Text scores of answers: values by hand, the harness's variants, and what is refused."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hcl_cli.stages.text_scores as stage
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.measures.text_metrics import corpus_bleu
from hcl_cli.schemas import TEXT_SCORES
from hcl_cli.stages.text_scores import counts_of, parse_metrics, text_scores

SETS = Path(__file__).parents[2] / "data" / "sets"
ROW = {
    "question_id": "q1",
    "method": "vanilla",
    "sample_index": 0,
    "response": "the blue sky",
    "best_answer": "blue",
    "correct_answers": ["blue", "the sky is blue"],
    "incorrect_answers": ["green", "blue sky"],
}


def frame(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**ROW, **change} for change in changes] or [ROW])


def value(scores: pl.DataFrame, metric: str, against: str) -> float:
    return float(scores.filter(metric=metric, against=against)["value"].item())


def test_token_f1_by_hand() -> None:
    """'blue sky' (the article falls away) has F1 2/3 with 'blue', 4/5 with 'sky is blue', 1 with 'blue sky'."""
    scores = text_scores(frame(), ["f1", "exact"])
    f1 = {against: value(scores, "token-f1", against) for against in scores["against"].unique()}
    assert f1 == pytest.approx(
        {"best": 2 / 3, "correct": 4 / 5, "incorrect": 1, "max": 4 / 5, "diff": -1 / 5, "acc": 0}
    )
    exact = {against: value(scores, "exact", against) for against in scores["against"].unique()}
    assert exact == {"best": 0, "correct": 0, "incorrect": 1, "max": 0, "diff": -1, "acc": 0}


def test_no_comment_is_among_the_correct_ones_of_the_variants_alone() -> None:
    scores = text_scores(frame({"response": "I have no comment"}), ["exact", "rouge"])
    assert [value(scores, "exact", against) for against in ("correct", "max", "diff", "acc")] == [0, 1, 1, 1]
    assert [value(scores, "rouge-l", against) for against in ("correct", "max")] == [0, 1]


def test_table_and_order() -> None:
    answers = frame({"question_id": "q2"}, {"method": "dola"}, {"sample_index": 1}).with_columns(model=pl.lit("m"))
    scores = text_scores(answers, ["bleu", "f1"])
    assert scores.schema == TEXT_SCORES.polars_schema()
    assert not scores.select(TEXT_SCORES.key).is_duplicated().any()
    key = scores.select("question_id", "method", "sample_index").unique(maintain_order=True).rows()
    assert key == [("q2", "vanilla", 0), ("q1", "dola", 0), ("q1", "vanilla", 1)]
    kinds = ["best", "correct", "incorrect"]
    variants = ["max", "diff", "acc"]
    expected = [("bleu", kind) for kind in kinds]
    expected += [(metric, kind) for metric in ("bleu-sentence", "token-f1") for kind in kinds + variants]
    assert scores.head(15).select("metric", "against").rows() == expected
    assert set(scores["model"]) == {"m"} and set(scores["dataset"]) == {None}


def test_corpus_bleu_has_counts_and_no_value() -> None:
    scores = text_scores(frame({"response": "the sky is blue"}), ["bleu"])
    rows = scores.filter(metric="bleu", against="correct")
    assert rows["value"].to_list() == [None]
    assert counts_of(rows).tolist() == [[4, 1, 4, 3, 2, 1, 4, 3, 2, 1]]
    assert corpus_bleu(counts_of(rows)).tolist() == [1]
    assert scores.filter(pl.col("metric") != "bleu")["counts"].null_count() == 6


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = pl.read_parquet(SETS / "truthfulqa.parquet").head(7)
    answers = pl.concat(
        questions.with_columns(
            method=pl.lit(method), sample_index=0, response=pl.col("incorrect_answers").list.get(place)
        )
        for place, method in enumerate(("vanilla", "dola"))
    )
    seen: list[tuple[int, int]] = []
    whole = text_scores(answers, ["bleu", "rouge"])
    monkeypatch.setattr(stage, "_BLOCK", 3)
    parts = text_scores(answers, ["bleu", "rouge"], progress=lambda done, n: seen.append((done, n)))
    assert parts.equals(whole)
    assert seen == [(3, 14), (6, 14), (9, 14), (12, 14), (14, 14)]


def test_bertscore_is_asked_for_each_pair_once_and_named() -> None:
    asked: list[tuple[str, str]] = []

    def lengths(pairs: list[tuple[str, str]]) -> np.ndarray:
        asked.extend(pairs)
        return np.array([[0, 0, len(reference) / 100] for _, reference in pairs])

    scores = text_scores(frame({}, {"method": "dola"}), ["bertscore"], bertscore=lengths, encoder="E layer 3")
    assert sorted(asked) == sorted(set(asked))
    assert {response for response, _ in asked} == {"the blue sky"}
    assert set(scores["encoder"]) == {"E layer 3"}
    assert value(scores.filter(method="dola"), "bertscore", "correct") == len("the sky is blue") / 100
    assert value(scores.filter(method="dola"), "bertscore", "max") == len("I have no comment.") / 100


def test_full_stops_are_the_harness_s_alone() -> None:
    """Its BLEU and ROUGE read references that all end in one; BERTScore's encoder reads each reference once."""
    asked: list[str] = []

    def nothing(pairs: list[tuple[str, str]]) -> np.ndarray:
        asked.extend(reference for _, reference in pairs)
        return np.zeros((len(pairs), 3))

    answers = frame({"response": "the sky is blue."})
    scores = text_scores(answers, ["bleu", "bertscore"], bertscore=nothing, encoder="E layer 3")
    assert sorted(asked) == ["I have no comment.", "blue", "blue sky", "green", "the sky is blue"]
    assert value(scores, "bleu-sentence", "max") == pytest.approx(1)
    assert value(scores, "bleu-sentence", "correct") == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_a_set_with_accepted_answers_only() -> None:
    answers = frame().drop("best_answer", "correct_answers", "incorrect_answers").with_columns(answers=["blue sky"])
    scores = text_scores(answers.with_columns(pl.concat_list("answers")), ["f1"])
    assert scores.select("against", "value").rows() == [("correct", 1.0)]


def test_a_question_without_a_kind_of_reference_is_left_out_of_that_kind_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`incorrect_answers: []` says nothing about the metrics that read correct ones."""
    whole = text_scores(frame({}, {"question_id": "q2"}), ["bleu", "f1"])
    scores = text_scores(frame({}, {"question_id": "q2", "incorrect_answers": []}), ["bleu", "f1"])
    kept = {"best", "correct"}
    of_q2 = scores.filter(question_id="q2")
    assert set(of_q2["against"]) == kept and of_q2["metric"].n_unique() == 3
    assert scores.filter(question_id="q1").equals(whole.filter(question_id="q1"))
    assert of_q2.equals(whole.filter(pl.col("question_id") == "q2", pl.col("against").is_in(kept)))
    assert caplog.messages == ["1 of 2 answers have no reference in incorrect_answers: left out there"]
    nowhere = text_scores(frame({"incorrect_answers": []}), ["f1"])
    assert set(nowhere["against"]) == kept


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (frame().clear(), "no answers to score"),
        (
            frame().drop("best_answer", "correct_answers", "incorrect_answers"),
            "references are missing: nothing",
        ),
        (frame({"best_answer": " ", "correct_answers": [], "incorrect_answers": None}), "references are missing"),
        (frame().drop("method"), "column method is missing"),
        (frame({}, {"question_id": "q2", "response": None}), "row 2, column response: null"),
        (frame({}, {}), r"row 2: question, method and sample \(q1, vanilla, 0\) stand in another row too"),
    ],
)
def test_refused(answers: pl.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        text_scores(answers, ["f1"])
    assert "\n" not in str(error.value)


def test_names_of_metrics() -> None:
    assert parse_metrics("all").own == ("bleu", "rouge", "bertscore", "f1", "exact")
    chosen = parse_metrics("f1, evaluate:./mine,evaluate:wer,f1")
    assert (chosen.own, chosen.foreign) == (("f1",), ("./mine", "wer"))
    for text in ("", "blue", "f1,,exact", "evaluate:"):
        with pytest.raises(BadOption, match="--metrics .*is no metric; expected all, bleu, rouge"):
            parse_metrics(text)


@pytest.mark.parametrize(
    ("metric", "module", "library"),
    [
        ("bleu", "sacrebleu", "sacrebleu"),
        ("rouge", "rouge_score", "rouge-score"),
        ("bertscore", "bert_score", "bert-score"),
    ],
)
def test_missing_library(metric: str, module: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else real(name))
    expected = rf"--metrics {metric} needs {library}, which is not installed; pip install 'hcl-cli\[metrics\]'"
    with pytest.raises(EnvironmentRefused, match=f"^{expected}$"):
        parse_metrics(f"f1,{metric}")
    assert parse_metrics("f1").own == ("f1",)
