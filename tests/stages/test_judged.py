"""Judges' verdicts by layer and method: rates by hand, pairing, and what counts nowhere."""

from typing import Any

import polars as pl
from pytest import approx

from hcl_cli.llm.judge_prompts import JUDGE_PROMPTS
from hcl_cli.llm.requests import Reply
from hcl_cli.schemas import JUDGED
from hcl_cli.stages.judged import judged_table
from hcl_cli.stages.llm_judge import judging
from hcl_cli.stages.score import scored

GRADES = {"C": "CORRECT", "I": "INCORRECT", "N": "NOT_ATTEMPTED", "?": "who knows"}
YES = {"y": "YES", "n": "NO", "?": "perhaps"}


def rows(**by_method: list[str]) -> pl.DataFrame:
    """One response per question and method; each its own text, so that each is asked about."""
    return pl.DataFrame(
        [
            {"question_id": f"q{i}", "question": f"q{i}?", "answers": ["a"], "method": method, "exit_layer": 4,
             "model": "m", "dataset": "d", "response": f"{method} {i} {grade}"}
            for method, grades in by_method.items() for i, grade in enumerate(grades)
        ]
    )  # fmt: skip


def table(frame: pl.DataFrame, *names: str, spelled: dict[str, str] = GRADES) -> pl.DataFrame:
    """JUDGED of a frame whose responses end in the grades they get: one character for each prompt."""
    prompts = [JUDGE_PROMPTS[name] for name in names]
    asked = judging(frame, prompts)
    replies = []
    for request in asked.requests:
        grade = request.prompt.partition("<response>\n")[2].partition("\n")[0].split()[-1]
        at = next(i for i, prompt in enumerate(prompts) if request.prompt.startswith(prompt.template[:40]))
        replies.append(Reply(spelled[grade[at]], "m-1", "stop"))
    first = tuple(prompt.judge for prompt in prompts if prompt.asks == "correct")
    made = scored(frame, judges=first, given=asked.verdicts(replies))
    return judged_table(made, prompts, asked_model="judge", n_bootstrap=200)


def value(made: pl.DataFrame, metric: str, **where: Any) -> Any:
    found = made.filter(pl.col("metric") == metric, *(pl.col(name) == one for name, one in where.items()))
    return found.row(0, named=True)


def test_simpleqa_by_hand() -> None:
    """C C I N and one reply without a grade: of four judged, 2/4 right, 1/4 wrong, 1/4 not attempted; 2/3; 4/7."""
    made = table(rows(vanilla=list("CCIN?")), "simpleqa")
    wanted = {
        "correct": 1 / 2,
        "incorrect": 1 / 4,
        "not-attempted": 1 / 4,
        "correct-given-attempted": 2 / 3,
        "f1": 4 / 7,
    }
    assert dict(made.select("metric", "value").iter_rows()) == approx(wanted)
    assert made.select("n_questions", "n_responses", "n_judged", "n_paired").unique().row(0) == (4, 5, 4, None)
    assert made.select("judge", "asked_model", "reported_model").unique().row(0) == ("llm_simpleqa", "judge", "m-1")
    assert made.filter((pl.col("value") < pl.col("value_low")) | (pl.col("value") > pl.col("value_high"))).is_empty()
    assert made.columns == list(JUDGED.columns)


def test_truth_and_info_by_hand() -> None:
    """yy yn ny y? : truth 3/4, info 2/3, both 1/3 of the three that both judged."""
    made = table(rows(vanilla=["yy", "yn", "ny", "y?"]), "truth", "info", spelled=YES)
    assert dict(made.select("metric", "value").iter_rows()) == approx(
        {"true": 3 / 4, "informative": 2 / 3, "true-and-informative": 1 / 3}
    )
    assert made["n_judged"].to_list() == [4, 3, 3]
    assert made["judge"].to_list() == ["llm_truth", "llm_info", "llm_truth+llm_info"]


def test_differences_from_vanilla_are_on_shared_questions() -> None:
    """dola: 1 1 0 -, vanilla: 0 1 - 0. Shared are the first two: (1 + 1) / 2 - (0 + 1) / 2."""
    made = table(rows(dola=list("CCI?"), vanilla=list("IC?I")), "simpleqa")
    row = value(made, "correct", method="dola")
    assert (row["value"], row["difference"], row["n_questions"], row["n_paired"]) == (approx(2 / 3), 0.5, 3, 2)
    assert row["baseline"] == "vanilla" and row["difference_low"] <= 0.5 <= row["difference_high"]
    assert value(made, "correct-given-attempted", method="dola")["difference"] == approx(0.5)
    own = value(made, "correct", method="vanilla")
    assert (own["baseline"], own["difference"]) == (None, None)


def test_a_question_counts_once_however_many_samples_it_has() -> None:
    frame = pl.concat([rows(vanilla=["C", "I"]), rows(vanilla=["I"]).with_columns(response=pl.lit("more C"))])
    made = table(frame, "simpleqa")
    assert value(made, "correct")["value"] == approx(0.5)  # not 2/3
    frame = frame.with_columns(exit_layer=pl.Series([4, 4, 5], dtype=pl.Int64))
    assert table(frame, "simpleqa").filter(metric="correct")["value"].to_list() == approx([0.5, 1.0])


def test_nothing_judged_is_null() -> None:
    made = table(rows(vanilla=["?", "?"]), "simpleqa")
    assert made["value"].null_count() == made.height == 5
    assert made["n_judged"].to_list() == [0] * 5


def test_the_order_of_rows_does_not_matter() -> None:
    frame = rows(vanilla=list("CINCI"), dola=list("NCCIC"))
    made, turned = (table(one, "simpleqa") for one in (frame, frame.reverse()))
    assert made.sort("method", "metric").equals(turned.sort("method", "metric"))
