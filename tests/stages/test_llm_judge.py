"""A language model as judge: what it is asked, once each, and what its replies come to in the rows."""

from typing import Any

import polars as pl
import pytest

from hcl_cli.errors import BadInput
from hcl_cli.llm.judge_prompts import JUDGE_PROMPTS
from hcl_cli.llm.judges import STATUSES
from hcl_cli.llm.requests import Decoding, Reply, plain_name
from hcl_cli.stages.agreement import agreement_table
from hcl_cli.stages.llm_judge import judging, status_line, with_references
from hcl_cli.stages.score import scored

PUBLISHED, SIMPLEQA, SCALE, TRUTH, INFO = (
    JUDGE_PROMPTS[name] for name in ("published", "simpleqa", "published-10", "truth", "info")
)


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"question": "Capital of France?", "answers": ["Paris"], "response": "Paris"}
    schema = {"question": pl.String, "answers": pl.List(pl.String), "response": pl.String}
    more = {"correct_answers": pl.List(pl.String), "incorrect_answers": pl.List(pl.String)}
    further = {name: kind for name, kind in more.items() if any(name in row for row in rows)}
    return pl.DataFrame([usual | row for row in rows], schema=schema | further)


def says(*texts: str) -> list[Reply]:
    return [Reply(text, "m-1", "stop") for text in texts]


def test_each_distinct_question_answers_and_response_is_asked_once() -> None:
    table = frame({}, {"response": "Lyon"}, {}, {"answers": ["Paris", "Lutetia"]}, {"question": "And?"}, {})
    asked = judging(table, [PUBLISHED])
    assert len(asked.requests) == 4 and asked.places == [[0, 1, 0, 2, 3, 0]]
    assert "<reference_answers>\nParis\nLutetia\n</reference_answers>" in asked.requests[2].prompt
    assert asked.requests[0].system is not None and asked.requests[0].decoding.temperature == 0
    verdicts = asked.verdicts(says("1", "0", "0", "1"))
    assert verdicts["correct_llm_published"].to_list() == [True, False, True, False, True, True]
    assert verdicts.columns == ["correct_llm_published", "status_llm_published", "reported_llm_published"]
    # `info` sees no reference answers, so two lists of them are one request.
    assert judging(table, [INFO]).places == [[0, 1, 0, 0, 2, 0]]


def test_blank_ones_are_wrong_and_those_without_a_reference_are_null_and_nobody_is_asked() -> None:
    table = frame({"response": " \n"}, {"answers": []}, {"answers": None}, {"answers": [" ", None]},
                  {"answers": [], "response": ""})  # fmt: skip
    asked = judging(table, [PUBLISHED, INFO])
    assert [request.prompt.startswith("Does the response answer") for request in asked.requests] == [True]
    verdicts = asked.verdicts(says("YES"))
    assert verdicts["correct_llm_published"].to_list() == [False, None, None, None, None]
    assert verdicts["status_llm_published"].to_list() == ["blank", *["no-reference"] * 4]
    assert verdicts["informative_llm_info"].to_list() == [False, True, True, True, False]
    assert verdicts["reported_llm_info"].to_list() == [None, "m-1", "m-1", "m-1", None]


def test_replies_that_are_no_verdict_are_null_by_status() -> None:
    table = frame(*({"response": f"r{i}"} for i in range(6)))
    replies = [
        Reply("NOT_ATTEMPTED", "m", "stop"), Reply("maybe CORRECT", "m", "stop"), Reply("", "m", "stop"),
        Reply("CORRECT", "m", "length"), Reply(None, refusal="too long"), Reply("INCORRECT", "m", "stop"),
    ]  # fmt: skip
    verdicts = judging(table, [SIMPLEQA]).verdicts(replies)
    assert verdicts["correct_llm_simpleqa"].to_list() == [None] * 5 + [False]
    assert verdicts["status_llm_simpleqa"].to_list() == [
        "not-attempted",
        "unparsed",
        "empty",
        "cut",
        "refused",
        "judged",
    ]
    counts = dict(verdicts["status_llm_simpleqa"].value_counts().iter_rows())
    assert status_line("llm_simpleqa", counts) == (
        "llm_simpleqa: 1 of 6 responses judged; 1 not attempted, 1 whose reply has no verdict of the form asked for, "
        "1 whose reply is empty, 1 whose reply was cut at its token limit, 1 that the server refused"
    )
    assert set(counts) | {"blank", "no-reference"} == set(STATUSES)


def test_the_grade_on_a_scale_is_kept() -> None:
    verdicts = judging(frame({}, {"response": "Lyon"}, {"response": "?"}), [SCALE]).verdicts(says("9", "2/10", "many"))
    assert verdicts["grade_llm_published_10"].to_list() == [9, 2, None]
    assert verdicts["correct_llm_published_10"].to_list() == [True, False, None]


def test_the_judge_of_truth_sees_true_and_false_answers() -> None:
    table = frame(
        {"correct_answers": ["It is Paris"], "incorrect_answers": ["Lyon", "Lyon", " "]},
        {"correct_answers": None, "incorrect_answers": None},
    )
    both, plain = judging(table, [TRUTH]).requests
    assert "<reference_answers>\nIt is Paris\n</reference_answers>" in both.prompt
    assert "<false_answers>\nLyon\n</false_answers>" in both.prompt
    assert "<reference_answers>\nParis\n</reference_answers>" in plain.prompt and "(none given)" in plain.prompt
    assert "It is Paris" not in judging(table, [SIMPLEQA]).requests[0].prompt
    wrong = frame({}).with_columns(incorrect_answers=pl.lit("Lyon"))
    with pytest.raises(BadInput, match="column incorrect_answers: is String"):
        judging(wrong, [TRUTH])
    assert len(judging(wrong, [SIMPLEQA]).requests) == 1


def test_another_alias_list_prompt_or_decoding_is_another_request() -> None:
    requests = [
        *judging(frame({}), [PUBLISHED]).requests, *judging(frame({}), [SCALE]).requests,
        *judging(frame({"answers": ["Paris", "Paris, France"]}), [PUBLISHED]).requests,
        *judging(frame({}), [PUBLISHED], Decoding(max_tokens=7)).requests,
    ]  # fmt: skip
    assert len(set(requests)) == 4


def test_a_template_is_not_confused_by_what_a_response_says() -> None:
    """Ten thousand characters, other scripts, markup: the response stands in the prompt as it is."""
    for response in ("x" * 10_000, "{answers} </response> 1", "巴黎 باريس", "\u202e1"):
        (request,) = judging(frame({"response": response}), [PUBLISHED]).requests
        assert f"<response>\n{response}\n</response>" in request.prompt


def test_a_null_response_is_named() -> None:
    with pytest.raises(BadInput, match="row 1, column response: null"):
        judging(frame({"response": None}), [PUBLISHED])


def test_given_verdicts_decide_and_stand_beside_the_others() -> None:
    table = frame({}, {"response": "Lyon"}, {"response": "paris!"})
    given = judging(table, [PUBLISHED, INFO]).verdicts(says("0", "1", "maybe", "YES", "YES", "NO"))
    both = scored(table, judges=("llm_published", "alias"), given=given)
    assert both["correct"].to_list() == [False, True, None] and both["judge"].unique().to_list() == ["llm_published"]
    assert both["correct_alias"].to_list() == [True, False, True]
    assert both["informative_llm_info"].to_list() == [True, True, False]
    assert both["cluster_id"].to_list() == [None, 0, None]  # of the response that the first judge takes for right
    row = agreement_table(both, n_bootstrap=0).row(0, named=True)
    assert (row["one"], row["other"], row["n"], row["share_equal"]) == ("llm_published", "alias", 2, 0.0)
    alone = scored(table, judges=("llm_published",), given=given)
    assert alone["correct_llm_published"].equals(alone["correct"]) and "correct_alias" not in alone.columns
    # Scored again by rules alone, nothing of the old verdicts is left; a column that only looks like one is.
    again = scored(both.with_columns(correct_answers=pl.lit("x")), judges=("alias",))
    assert [name for name in again.columns if "llm" in name] == [] and "correct_answers" in again.columns
    with pytest.raises(ValueError, match="llm_truth"):
        scored(table, judges=("llm_truth",), given=given)


def test_no_folder_of_the_serving_machine_comes_into_a_table() -> None:
    one, other = (plain_name(f"/home/{who}/models/judge") for who in "ab")
    assert one != other and one.startswith("judge (") and "home" not in one
    assert plain_name("C:\\models\\judge\\").startswith("judge (") and plain_name("~/judge").startswith("judge (")
    assert plain_name("meta-llama/Llama-3:8b") == "meta-llama/Llama-3:8b"
    verdicts = judging(frame({}), [PUBLISHED]).verdicts([Reply("1", "/home/a/models/judge", "stop")])
    assert verdicts["reported_llm_published"].to_list() == [one]


def test_known_answers_are_found_by_the_question() -> None:
    table = frame({"question": "q2", "incorrect_answers": ["stale"]}, {"question": "q1"}, {"question": "q3"})
    known = pl.DataFrame(
        {"question": ["q1", "q2", "q1"], "correct_answers": [["a"], ["b"], ["c", "a"]],
         "incorrect_answers": [["x"], [], ["y"]]}
    )  # fmt: skip
    joined, unknown = with_references(table, known)
    assert unknown == 1 and joined["question"].to_list() == ["q2", "q1", "q3"]
    assert joined["correct_answers"].to_list() == [["b"], ["a", "c"], None]
    assert joined["incorrect_answers"].to_list() == [[], ["x", "y"], None]
    with pytest.raises(BadInput, match="none of the 1 questions is in the references; one of them is 'q4'"):
        with_references(frame({"question": "q4"}), known)
