"""`hcl dola` through the program: its answers, its columns, and that `score` reads them."""

import json
from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

LAYERS = planted.N_LAYERS


@pytest.fixture
def run(planted_run: list[object]) -> list[object]:
    """Arguments of `hcl dola` on the planted model and its questions."""
    return ["dola", *planted_run[1:]]


def test_vanilla_gives_the_answers_of_the_last_exit(hcl: Hcl, run: list[object], planted_run: list[object]) -> None:
    drawing = ["-n", 8, "--temperature", 1.5, "--top-p", 0.9]
    ours = pl.read_parquet(hcl(*run, "--methods", "vanilla", *drawing).path)
    theirs = pl.read_parquet(hcl(*planted_run, "--exit-layers", LAYERS, *drawing).path)
    key = ["question_id", "sample_index"]
    joined = ours.join(theirs, on=key, suffix="_sampled")
    assert joined.height == 24
    assert joined["text"].to_list() == joined["text_sampled"].to_list()
    assert joined["mean_mature_logprob"].to_list() == pytest.approx(joined["mean_logprob_sampled"].to_list(), abs=1e-5)
    assert ours["premature_layers"].null_count() == ours.height
    assert set(ours["exit_layer"]) == {LAYERS} and set(ours["strategy"]) == {"contrast"}


def test_every_token_names_its_premature_layer(hcl: Hcl, run: list[object]) -> None:
    rows = pl.read_parquet(hcl(*run, "--methods", "dola:1-3,static:2").path)
    assert rows["method"].to_list() == ["dola:1-3", "static:2"] * 3
    for row in rows.iter_rows(named=True):
        assert len(row["premature_layers"]) == len(row["divergences"]) == len(row["tokens"]) == row["n_tokens"]
        assert set(row["premature_layers"]) <= ({1, 2, 3} if row["method"] == "dola:1-3" else {2})
        assert all(0 <= value <= 0.6932 for value in row["divergences"])


def test_another_method_computes_only_its_own_answers(
    hcl: Hcl, run: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.stages import dola

    hcl(*run, "--methods", "vanilla,static:1")
    answered, asked = dola.answered, []

    def noted(loaded, questions, missing, *rest, **names):
        asked.extend(missing)
        return answered(loaded, questions, missing, *rest, **names)

    monkeypatch.setattr(dola, "answered", noted)
    hcl(*run, "--methods", "vanilla,static:1,static:2")
    assert sorted(asked) == [("hard", "static:2"), ("many", "static:2"), ("one", "static:2")]


def test_answers_go_on_to_score(hcl: Hcl, run: list[object]) -> None:
    made = hcl(*run, "--methods", "vanilla,dola:1-3")
    judged = hcl("score", "--cluster", "exact", stdin=made.out)
    scored = pl.read_parquet(judged.path)
    assert scored["correct"].null_count() == 0
    assert scored.select("question_id", "method", "premature_layers").equals(
        pl.read_parquet(made.path).select("question_id", "method", "premature_layers")
    )
    assert "holds table dola" in hcl("hcb", stdin=made.out).err
    balanced = hcl("hcb", "--figure", "hcb.svg", stdin=judged.out)
    layers = pl.read_parquet(balanced.path)
    assert layers.select("method", "exit_layer").rows() == [("vanilla", LAYERS), ("dola:1-3", LAYERS)]
    wrong = scored.group_by("method", "question_id").agg((~pl.col("correct")).mean())
    wrong = dict(wrong.group_by("method").agg(pl.col("correct").mean()).iter_rows())
    assert layers["hallucination_rate"].to_list() == pytest.approx([wrong["vanilla"], wrong["dola:1-3"]])
    assert "is best" in balanced.err or "tie for the best" in balanced.err
    assert Path("hcb.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "deeper"], ["--methods 'deeper'", "vanilla"]),
        (["--methods", "static:4"], ["static:4"]),
        (["--methods", "dola:9"], ["dola:9"]),
        (["--methods", "vanilla,vanilla"], ["vanilla is there twice"]),
        (["--methods", "dola:1,2,dola:2,1"], ["dola:1,2 and dola:2,1 are one method"]),
        (["--methods", "vanilla@norm"], ["'norm' means nothing for vanilla"]),
        (["--alpha", "1.5"], ["--alpha 1.5", "0 to 1"]),
        (["--penalty", "0"], ["--penalty 0"]),
        (["--divergence", "kl"], ["--divergence kl", "jsd"]),
        (["--penalty-on", "none"], ["--penalty-on none"]),
        (["--n-shots", "2"], ["--n-shots 2"]),
        (["--prompt", "nowhere"], ["nowhere"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_used(hcl: Hcl, run: list[object], arguments: list[str], words: list[str]) -> None:
    result = hcl(*run, *arguments)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    for word in words:
        assert word in result.err.splitlines()[-1]


def test_json_and_the_lab_prompt_with_pairs(hcl: Hcl, tmp_path: Path) -> None:
    done = hcl(
        "dola", "-d", "lab", "--limit", 2, "--prompt", "truthfulqa", "--n-shots", 1, "--max-new-tokens", 3, "--json"
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["table"], answer["rows"]) == ("dola", 6)
    assert "Jensen-Shannon" in done.err


def test_a_hit_imports_nothing_heavy(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    first = hcl(*run, "--methods", "vanilla,static:1")
    assert hcl(*run, "--methods", "vanilla,static:1").out == first.out
    assert heavy_imports(tmp_path, *run, "--methods", "vanilla,static:1") == []


REFERENCES = [
    {"question_id": "one", "question": "ask-one", "answers": ["paris"], "best_answer": "paris",
     "correct_answers": ["paris"], "incorrect_answers": ["lyon", "rome"]},
    {"question_id": "many", "question": "ask-many", "answers": ["red", "green"], "best_answer": "red",
     "correct_answers": ["red", "green"], "incorrect_answers": ["lyon"]},
    {"question_id": "hard", "question": "ask-hard", "answers": ["rome"], "best_answer": "rome",
     "correct_answers": ["rome"], "incorrect_answers": ["paris"]},
]  # fmt: skip


def test_answers_are_scored_and_compared_with_vanilla(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    """Exact match by hand: the share of greedy answers that are an accepted one."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REFERENCES))
    call = [*run, "--methods", "vanilla,static:1", "--metrics", "exact,bleu", "--table", "t.csv", "--json"]
    done = hcl(*call)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in answer["also"]}
    assert set(tables) == {"text-scores", "compared"}
    rows = pl.read_parquet(answer["path"])
    accepted = {row["question_id"]: row["correct_answers"] for row in REFERENCES}
    for method in ("vanilla", "static:1"):
        own = rows.filter(pl.col("method") == method)
        share = sum(response in accepted[name] for name, response in own.select("question_id", "response").rows()) / 3
        found = tables["compared"].filter(
            (pl.col("method") == method) & (pl.col("metric") == "exact") & (pl.col("against") == "correct")
        )
        assert found["value"].to_list() == pytest.approx([share])
    assert (tmp_path / "t.csv").read_text().count("\n") > 4
    assert json.loads(hcl(*call).out)["cached"]


def test_multiple_choice_is_scored_under_every_method(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REFERENCES))
    done = hcl(*run, "--methods", "vanilla,dola:1-3", "--metrics", "none", "--choices", "--json")
    assert done.code == 0, done.err
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"]}
    assert set(tables["choices"]["metric"]) == {"mc1", "mc2", "mc3"}
    assert set(tables["choices-compared"]["method"]) == {"vanilla", "dola:1-3"}


def test_multiple_choice_needs_wrong_answers(hcl: Hcl, run: list[object]) -> None:
    result = hcl(*run, "--choices")
    assert result.code == 2 and "incorrect_answers" in result.err.splitlines()[-1]


def test_factor_is_scored_as_found_and_tidied(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    row = {"prefix": "ask-one", "completion": "paris", "contradictions": ["lyon", "rome", "red"]}
    (tmp_path / "factor.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"prefix": "ask-hard"}) + "\n")
    call = [*run, "--methods", "vanilla,static:1", "--metrics", "none", "--factor", "factor.jsonl", "--json"]
    done = hcl(*call)
    assert done.code == 0, done.err
    found = [pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"] if one["table"] == "choices-compared"]
    assert {one["dataset"][0] for one in found} == {"factor.jsonl", "factor.jsonl, tidied"}
    for one in found:
        vanilla = one.filter((pl.col("method") == "vanilla") & (pl.col("metric") == "factor-sum"))
        # After "ask-one" the last layer prefers paris; after "ask-hard" it does not (see planted.ADDED).
        assert vanilla["value"].to_list() == [0.5]


def test_a_metric_of_the_library_evaluate_alone(hcl: Hcl, run: list[object]) -> None:
    done = hcl(*run, "--methods", "vanilla,static:1", "--metrics", "evaluate:hcl_exact_match", "--json")
    assert done.code == 0, done.err
    (one,) = json.loads(done.out)["also"]
    found = pl.read_parquet(one["path"])
    assert all(name.startswith("evaluate:hcl_exact_match/") for name in found["metric"]) and found.height == 2
