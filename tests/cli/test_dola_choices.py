"""`hcl dola` on given answers: multiple choice and FACTOR, without decoding where no answer is wanted."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from calling import Hcl
from dola_files import REFERENCES, write_references

CHOICES = ["--methods", "vanilla,dola:1-3", "--metrics", "none", "--choices", "--json"]


@pytest.fixture
def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding anything is a failure."""
    from hcl_cli.stages import dola as stage

    def answered(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(stage, "answered", answered)


def made(out: str) -> dict[str, list[pl.DataFrame]]:
    """All tables of a call, the main one first, by name."""
    answer = json.loads(out)
    tables: dict[str, list[pl.DataFrame]] = {}
    for one in [answer, *answer["also"]]:
        tables.setdefault(one["table"], []).append(pl.read_parquet(one["path"]))
    return tables


def test_multiple_choice_is_scored_under_every_method_without_decoding(
    hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None
) -> None:
    write_references(tmp_path)
    done = hcl(*dola, *CHOICES)
    assert done.code == 0, done.err
    tables = made(done.out)
    assert json.loads(done.out)["table"] == "choices-compared" and set(tables) == {"choices", "choices-compared"}
    rows, compared = tables["choices"][0], tables["choices-compared"][0]
    assert set(rows["metric"]) == {"mc1", "mc2", "mc3"} and set(rows["question_id"]) == {"one", "many", "hard"}
    assert compared["method"].unique(maintain_order=True).to_list() == ["vanilla", "dola:1-3"]
    ways = compared.filter(method="dola:1-3").select("constrained", "normalised", "outside").unique().rows()
    assert set(ways) == {
        (False, False, None), (False, True, None), (True, False, "excluded"), (True, False, "published"),
        (True, True, "excluded"), (True, True, "published"),
    }  # fmt: skip
    # What has to do with decoding alone does not ask for other scores; what scores does.
    key = json.loads(done.out)["key"]
    for options in (["--temperature", 1, "-n", 3], ["--penalty", 2], ["--seed", 5]):
        inputs = json.loads(hcl(*dola, *CHOICES, *options).out)
        assert (inputs["key"] == key) == ("--seed" not in options)
    assert json.loads(hcl(*dola, *CHOICES, "--bootstrap", 100).out)["key"] != key
    assert json.loads(hcl(*dola, *CHOICES, "--alpha", 0.3).out)["key"] != key
    few = made(hcl(*dola, *CHOICES, "--limit", 2).out)
    assert few["choices"][0].equals(rows.filter(pl.col("question_id") != "hard"))
    assert set(few["choices-compared"][0]["n_questions"]) <= {0, 1, 2}


def test_the_published_ways_of_multiple_choice_are_asked_for(
    hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None
) -> None:
    write_references(tmp_path)
    tables = made(hcl(*dola, *CHOICES, "--published-choices").out)
    assert "mc2-published" in set(tables["choices"][0]["metric"]) & set(tables["choices-compared"][0]["metric"])


def test_an_interruption_costs_a_block_and_another_method_only_itself(
    hcl: Hcl, dola: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli import dola_choices
    from hcl_cli.stages import choices as stage

    write_references(tmp_path)
    monkeypatch.setattr(dola_choices, "CHOICES_BLOCK", 1)
    scored, calls, stop = stage.choice_rows, [], [2]

    def noted(loaded: Any, asked: Any, methods: Any, **names: Any) -> Any:
        if len(calls) == stop[0]:
            raise KeyboardInterrupt
        calls.append(([one.question_id for one in asked], [method.name for method in methods]))
        return scored(loaded, asked, methods, **names)

    monkeypatch.setattr(stage, "choice_rows", noted)
    assert hcl(*dola, *CHOICES).code == 130
    stop[0] = 100
    done = hcl(*dola, *CHOICES)
    assert done.code == 0, done.err
    both = ["vanilla", "dola:1-3"]
    assert calls == [(["one"], both), (["many"], both), (["hard"], both)]
    more = hcl(*dola, "--methods", "vanilla,static:1,dola:1-3", *CHOICES[2:])
    assert calls[3:] == [([name], ["static:1"]) for name in ("one", "many", "hard")]
    order = made(more.out)["choices-compared"][0]["method"].unique(maintain_order=True).to_list()
    assert order == ["vanilla", "static:1", "dola:1-3"]


def test_columns_of_given_answers_can_be_named(hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None) -> None:
    write_references(tmp_path)
    plain = made(hcl(*dola, *CHOICES).out)["choices"][0]
    names = {"question": "q", "correct_answers": "good", "incorrect_answers": "bad", "answers": "gold"}
    rows = [{names.get(name, name): value for name, value in row.items()} for row in REFERENCES]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = hcl(*dola, *CHOICES, "--columns", "question=q,answers=gold")
    assert refused.code == 2 and "--columns correct_answers=" in refused.err.splitlines()[-1]
    pairs = ",".join(f"{ours}={theirs}" for ours, theirs in names.items())
    done = hcl(*dola, *CHOICES, "--columns", pairs)
    assert done.code == 0, done.err
    assert made(done.out)["choices"][0].equals(plain)


def test_without_a_store(hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None) -> None:
    write_references(tmp_path)
    kept = made(hcl(*dola, *CHOICES).out)["choices-compared"][0]
    done = hcl(*dola, *CHOICES, "--no-cache", "-o", "out.parquet")
    assert done.code == 0, done.err
    assert pl.read_parquet("out.parquet").equals(kept)
    for _ in range(2):
        dry = hcl(*dola, *CHOICES, "--dry-run")
        assert dry.code == 0 and json.loads(dry.out)["hit"]
    assert not json.loads(hcl(*dola, *CHOICES, "--dry-run", "--alpha", 0.2).out)["hit"]


def test_multiple_choice_needs_wrong_answers(hcl: Hcl, dola: list[object]) -> None:
    result = hcl(*dola, "--choices")
    assert result.code == 2 and "incorrect_answers" in result.err.splitlines()[-1]


def test_factor_is_scored_as_found_and_tidied(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    row = {"prefix": "ask-one", "completion": "paris", "contradictions": ["lyon", "rome", "red"]}
    (tmp_path / "factor.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"prefix": "ask-hard"}) + "\n")
    call = [*dola, "--methods", "vanilla,static:1", "--metrics", "none", "--factor", "factor.jsonl", "--json"]
    done = hcl(*call)
    assert done.code == 0, done.err
    found = made(done.out)["choices-compared"]
    assert {one["dataset"][0] for one in found} == {"factor.jsonl", "factor.jsonl, tidied"}
    for one in found:
        vanilla = one.filter((pl.col("method") == "vanilla") & (pl.col("metric") == "factor-sum"))
        # After "ask-one" the last layer prefers paris; after "ask-hard" it does not (see planted.ADDED).
        assert vanilla["value"].to_list() == [0.5]


def test_a_tidied_continuation_is_another_text(hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None) -> None:
    """ "paris ." is two words, of which the mean is above that of "lyon"; "paris." is one that is not known."""
    row = {"prefix": "ask-one", "completion": "lyon", "contradictions": ["paris .", "green .", "blue ."]}
    (tmp_path / "factor.jsonl").write_text(json.dumps(row))
    done = hcl(*dola, "--methods", "vanilla", "--metrics", "none", "--factor", "factor.jsonl", "--json")
    assert done.code == 0, done.err
    found = made(done.out)["choices-compared"]
    means = {one["dataset"][0]: one.filter(metric="factor-mean")["value"].item() for one in found}
    assert means == {"factor.jsonl": 0.0, "factor.jsonl, tidied": 1.0}


def test_factor_texts_that_are_too_long_are_counted(
    hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None
) -> None:
    row = {"prefix": "ask-one", "completion": "paris", "contradictions": ["lyon", "rome", "red"]}
    long = row | {"prefix": "red " * 64 + "ask-one"}
    (tmp_path / "factor.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(long))
    done = hcl(
        *dola,
        "--methods",
        "vanilla,static:1",
        "--metrics",
        "none",
        "--factor",
        "factor.jsonl",
        "--table",
        "t.md",
        "--json",
    )
    assert done.code == 0, done.err
    compared = made(done.out)["choices-compared"][0]
    assert set(compared["n_too_long"]) == {1} and set(compared["n_questions"]) == {1}
    said = "1 of 2 texts do not fit the model's positions and are left out."
    assert said in " ".join(done.err.split()) and said in (tmp_path / "t.md").read_text()


REFUSED = {
    "no columns": (["--choices"], "no column best_answer and no column correct_answers"),
    "metric": (["--metrics", "evaluate:./missing"], "--metrics evaluate:./missing"),
    "encoder": (["--metrics", "bertscore", "--encoder", "./missing"], "--encoder ./missing: no such folder"),
    "factor": (["--factor", "factor.jsonl"], "factor.jsonl, line 1, column contradictions"),
    "factor's set": (["--factor", "truthfulqa"], "--factor truthfulqa: the set holds questions, not completions"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_cannot_be_scored_is_refused_before_anything_is_decoded(
    hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None, case: str
) -> None:
    options, says = REFUSED[case]
    (tmp_path / "factor.jsonl").write_text('{"prefix": "a", "completion": "b", "contradictions": ["c"]}')
    result = hcl(*dola, *options)
    assert result.code == 2, result.err
    assert says in result.err.splitlines()[-1] and "Traceback" not in result.err and result.out == ""


@pytest.mark.parametrize("change", [{"incorrect_answers": []}, {"question": "red " * 64 + "ask-many"}], ids=str)
def test_a_question_that_cannot_be_scored_is_refused_before_anything_is_decoded(
    hcl: Hcl, dola: list[object], tmp_path: Path, undecoded: None, change: dict[str, Any]
) -> None:
    rows = [REFERENCES[0], REFERENCES[1] | change]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = hcl(*dola, "--choices")
    assert result.code == 2 and result.out == ""
    says = "line 2, column incorrect_answers" if "incorrect_answers" in change else "positions with its longest answer"
    assert says in result.err.splitlines()[-1]


def test_an_empty_list_of_wrong_answers_does_not_stop_other_metrics(
    hcl: Hcl, dola: list[object], tmp_path: Path
) -> None:
    rows = [REFERENCES[0], REFERENCES[1] | {"incorrect_answers": []}]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = hcl(*dola, "--methods", "vanilla", "--metrics", "f1", "--json")
    assert done.code == 0, done.err
    assert "1 of 2 answers have no reference in incorrect_answers: left out there" in done.err
    n = dict(made(done.out)["compared"][0].select("against", "n_questions").rows())
    assert (n["best"], n["correct"], n["incorrect"]) == (2, 2, 1)


def test_differences_are_from_the_baseline_that_is_named(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    write_references(tmp_path)
    control = "vanilla@alpha=0.1@penalty=1.2"
    call = [*dola, "--methods", f"vanilla,{control},static:1", "--metrics", "exact", "--choices", "--json"]

    def rows(*more: object) -> dict[str, pl.DataFrame]:
        done = hcl(*call, *more)
        assert done.code == 0, done.err
        return {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"]}

    plain, controlled = rows(), rows("--baseline", control)
    for name in ("compared", "choices-compared"):
        for table, base in ((plain[name], "vanilla"), (controlled[name], control)):
            assert set(table["baseline"].drop_nulls()) == {base}
            assert base not in set(table.drop_nulls("baseline")["method"])
    ways = ["constrained", "normalised", "outside", "metric"]
    compared = controlled["choices-compared"]
    of_control = compared.filter(method=control).select(*ways, base="value")
    joined = compared.filter(method="static:1").join(of_control, on=ways, how="left", nulls_equal=True)
    # Each way of scoring against the same way of scoring the control; where that has no such way, against nothing.
    assert joined.filter("constrained")["baseline"].to_list() == [control] * joined["constrained"].sum()
    assert joined["constrained"].sum() > 0 and joined.filter(~pl.col("constrained"))["baseline"].null_count() > 0
    found, expected = joined["difference"].to_list(), (joined["value"] - joined["base"]).to_list()
    assert [one is None for one in found] == [one is None for one in expected]
    assert [one for one in found if one is not None] == pytest.approx([one for one in expected if one is not None])
    refused = hcl(*dola, "--methods", "vanilla", "--baseline", "static:1")
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "--baseline static:1: is not among --methods; expected one of vanilla" in refused.err
