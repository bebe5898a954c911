"""`hcl probe` through the program, on a model whose states show the last token and nothing else."""

import itertools
import json
from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

LAYERS = planted.N_LAYERS
QUICK = ["--bootstrap", 200, "--seeds", 2, "--epochs", 3, "--hidden", "8"]


@pytest.fixture
def statements(tmp_path: Path) -> Path:
    """48 statements of three topics: those that end in paris are true, those that end in lyon are false."""
    path = tmp_path / "statements.jsonl"
    pairs = itertools.product(("red", "green", "blue", "rome"), ("red", "green", "blue", "rome", "paris", "lyon"))
    rows = [
        {"statement": f"{one} {two} {last}", "label": last == "paris", "topic": ("a", "b", "c")[number % 3]}
        for number, (one, two) in enumerate(pairs)
        for last in ("paris", "lyon")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tables(answered: dict[str, object]) -> dict[str, pl.DataFrame]:
    """The command's tables by name."""
    also = {one["table"]: pl.read_parquet(one["path"]) for one in answered["also"]}  # type: ignore[attr-defined]
    return also | {str(answered["table"]): pl.read_parquet(str(answered["path"]))}


def test_every_layer_knows_what_its_state_shows(hcl: Hcl, planted_model: Path, statements: Path) -> None:
    done = hcl("probe", statements, "-m", planted_model, "--classifier", "logistic", *QUICK, "--json")
    assert done.code == 0, done.err
    found = tables(json.loads(done.out))
    assert set(found) == {"probes", "hidden", "probe_summary", "probe_scores", "reliability"}
    hidden = found["hidden"]
    assert hidden.height == 48 * (LAYERS + 2)
    assert hidden["state"].dtype == pl.Array(pl.Float32, 2 * len(planted.WORDS))
    summary = found["probe_summary"].filter(pl.col("classifier") == "logistic")
    assert summary.select("exit_layer", "normed").rows() == [
        *((layer, False) for layer in range(LAYERS + 1)), (LAYERS, True),
    ]  # fmt: skip
    assert summary["test_acc"].to_list() == [1.0] * (LAYERS + 2)
    assert summary["in_best_set"].all()
    probes = found["probes"].filter((pl.col("classifier") == "logistic") & ~pl.col("control"))
    assert set(probes["fold"]) == {"a", "b", "c"} and set(probes["n_test"]) == {16}
    assert set(found["probe_scores"]["statement_id"]) == set(hidden["statement_id"])
    assert "majority class" in done.err and "bag of words" in done.err


def test_a_second_probe_reads_the_same_states(
    hcl: Hcl, planted_model: Path, statements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.probe_plan import Plan

    run = ["probe", statements, "-m", planted_model, *QUICK, "--no-baselines", "--no-control"]
    hcl(*run, "--classifier", "mass-mean")
    monkeypatch.setattr(Plan, "compute", lambda *_: pytest.fail("extracted again"))
    second = hcl(*run, "--classifier", "logistic", "--split", "random", "--folds", 4)
    assert set(pl.read_parquet(second.path)["fold"]) == {"0", "1", "2", "3"}


def test_another_classifier_asks_the_model_nothing(
    hcl: Hcl, planted_model: Path, statements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither states nor the baselines of the language model are read again."""
    from hcl_cli.cli.loading import ModelChoice

    run = ["probe", statements, "-m", planted_model, *QUICK, "--no-control", "--classifier"]
    first = hcl(*run, "mass-mean", "--json")
    monkeypatch.setattr(ModelChoice, "load", lambda *_: pytest.fail("the model was loaded"))
    second = hcl(*run, "logistic", "--json")
    assert second.code == 0, second.err
    told = [
        tables(json.loads(one.out))["probe_summary"].filter(pl.col("exit_layer").is_null()) for one in (first, second)
    ]
    assert "bag of words" in told[0]["classifier"].to_list() and told[0].equals(told[1])


def test_a_hit_imports_nothing_heavy_and_shows_the_same(
    hcl: Hcl, planted_model: Path, statements: Path, tmp_path: Path
) -> None:
    run = ["probe", statements, "-m", planted_model, *QUICK, "--classifier", "mass-mean"]
    first, second = hcl(*run), hcl(*run)
    assert second.out == first.out
    assert first.err.splitlines()[-5:] == second.err.splitlines()[-5:]
    assert heavy_imports(tmp_path, *run) == []


def test_the_first_statements_are_of_every_topic_and_grow_into_more(
    hcl: Hcl, planted_model: Path, statements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.probe_plan import Plan

    lines = statements.read_text().splitlines(keepends=True)
    statements.write_text("".join(sorted(lines, key=lambda line: json.loads(line)["topic"])))
    run = ["probe", statements, "-m", planted_model, *QUICK, "--classifier", "mass-mean", "--no-baselines", "--json"]
    some = tables(json.loads(hcl(*run, "--limit", 24).out))
    assert some["probe_summary"]["n_folds"].unique().to_list() == [3]
    assert some["probe_scores"]["topic"].value_counts().sort("topic")["count"].unique().to_list() == [8 * (LAYERS + 2)]
    counted = []
    compute = Plan.compute
    monkeypatch.setattr(
        Plan, "compute", lambda plan, block, missing: counted.append(len(missing)) or compute(plan, block, missing)
    )
    grown = tables(json.loads(hcl(*run).out))["hidden"]
    assert counted == [24 * (LAYERS + 1)]
    assert grown.height == 48 * (LAYERS + 2)
    assert grown["statement_id"][: 24 * (LAYERS + 2)].to_list() == some["hidden"]["statement_id"].to_list()


def test_a_split_that_cannot_be_made_is_refused_before_any_state_is_read(
    hcl: Hcl, planted_model: Path, statements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.probe_plan import Plan

    monkeypatch.setattr(Plan, "compute", lambda *_: pytest.fail("read too early"))
    done = hcl("probe", statements, "-m", planted_model, *QUICK, "--split", "published")
    assert done.code == 2 and "--split published" in done.err.splitlines()[-1]


def test_keeping_probes_names_each_table_once(hcl: Hcl, planted_model: Path, statements: Path) -> None:
    run = ["-m", planted_model, *QUICK, "--classifier", "mass-mean", "--no-control", "--json"]
    done = hcl("probe", statements, *run, "--save", "kept")
    named = [one["table"] for one in json.loads(done.out)["also"]]
    assert sorted(named) == ["hidden", "probe_scores", "probe_summary", "reliability"]


def test_another_prompt_is_warned_of_once(hcl: Hcl, planted_model: Path, statements: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("red {statement}")
    run = ["probe", statements, "-m", planted_model, *QUICK, "--classifier", "mass-mean"]
    hcl(*run, "--no-control", "--no-baselines", "--save", "kept")
    used = hcl(*run, "--prompt", "prompt.txt", "--apply", "kept")
    assert used.code == 0 and used.err.count("in another prompt") == 1


def test_the_largest_seeds_can_be_used(hcl: Hcl, planted_model: Path, statements: Path) -> None:
    quick = ["--no-baselines", "--epochs", 1, "--hidden", "4", "--layers", 1, "--bootstrap", 100]
    done = hcl("probe", statements, "-m", planted_model, *quick, "--seed", 2**32 - 1, "--seeds", 2)
    assert done.code == 0, done.err
    assert set(pl.read_parquet(done.path)["seed"].drop_nulls()) == {2**32 - 1, 2**32}


def test_scored_answers_are_told_apart_by_question(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    rows = [
        {"question_id": f"q{n}", "question": "ask-one", "answers": ["paris"], "sample_index": 0,
         "response": "paris" if n % 2 else "lyon", "correct": bool(n % 2)}
        for n in range(30)
    ]  # fmt: skip
    (tmp_path / "scored.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompt.txt").write_text("{question}")
    run = ["probe", "scored.jsonl", "-m", planted_model, "--prompt", "prompt.txt", "--classifier", "logistic", *QUICK]
    done = hcl(*run, "--json")
    assert done.code == 0, done.err
    found = tables(json.loads(done.out))
    assert "Statements are answers here" in done.err
    scores = found["probe_scores"].filter((pl.col("classifier") == "logistic") & (pl.col("exit_layer") == LAYERS))
    assert scores.filter(~pl.col("normed")).select((pl.col("p_true") > 0.5) == pl.col("label")).to_series().all()
    assert set(scores["group_id"]) == {f"q{n}" for n in range(30)}


def test_probes_are_kept_and_used_on_new_statements(
    hcl: Hcl, planted_model: Path, statements: Path, tmp_path: Path
) -> None:
    run = ["-m", planted_model, "--classifier", "logistic,mass-mean", *QUICK]
    kept = hcl("probe", statements, *run, "--save", "kept")
    assert kept.code == 0, kept.err
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".safetensors", ".json"}
    (tmp_path / "new.jsonl").write_text('{"statement": "blue blue paris"}\n{"statement": "blue blue lyon"}\n')
    used = hcl("probe", "new.jsonl", *run, "--apply", "kept")
    assert used.code == 0, used.err
    rows = pl.read_parquet(used.path)
    assert rows["label"].null_count() == rows.height == 2 * 2 * (LAYERS + 2)
    told = rows.filter((pl.col("classifier") == "logistic") & (pl.col("exit_layer") == LAYERS) & ~pl.col("normed"))
    assert told["p_true"][0] > 0.5 > told["p_true"][1]
    refused = hcl("probe", "new.jsonl", *run, "--apply", "kept", "--token", "mean")
    assert refused.code == 2 and "--token" in refused.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--classifier", "forest"], ["--classifier forest", "logistic"]),
        (["--classifier", "mlp,mlp"], ["twice"]),
        (["--hidden", "8,none"], ["--hidden 8,none"]),
        (["--token", "first"], ["--token first", "last"]),
        (["--split", "half"], ["--split half", "random"]),
        (["--split", "published"], ["--split published"]),
        (["--preset", "mine"], ["--preset mine"]),
        (["--state-dtype", "int8"], ["--state-dtype int8"]),
        (["--layers", "7"], ["--layers 7", "0..4"]),
        (["--prompt", "nowhere.txt"], ["--prompt nowhere.txt"]),
        (["--folds", "1"], ["--folds 1"]),
        (["--seeds", "0"], ["--seeds 0"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--save", "a", "--apply", "b"], ["drop one"]),
        (["--table", "x.md", "--apply", "b"], ["--table", "--apply b", "drop one"]),
        (["--published-table", "statements.jsonl"], ["--published-table", ".md"]),
        (["--apply", "nowhere"], ["nowhere"]),
        (["--save", "statements.jsonl"], ["--save statements.jsonl", "folder"]),
        (["-d", "true_false"], ["name the input once"]),
        (["--figure", "x.gif"], ["--figure x.gif"]),
        (["--limit", "5"], ["5 statements", "at least 10"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_used(
    hcl: Hcl, planted_model: Path, statements: Path, arguments: list[str], words: list[str]
) -> None:
    result = hcl("probe", statements, "-m", planted_model, *arguments)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    for word in words:
        assert word in result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("red paris", "maybe", "a")] * 12, ["label", "maybe"]),
        ([(f"{word} paris", True, "a") for word in planted.WORDS], ["all 12 statements are true"]),
        ([("red paris", True, "a"), ("red lyon", False, "a")], ["statements"]),
        ([(f"{'red ' * n}paris", n % 2 == 0, "ab"[n % 2]) for n in range(12)], ["topic"]),
        ([(f"{'red ' * (n + 60)}paris", n % 2 == 0, None) for n in range(12)], ["positions"]),
    ],
    ids=["labels that are not 0/1", "one class", "too few", "a topic with one class", "longer than the context"],
)
def test_statements_that_cannot_be_used(
    hcl: Hcl, planted_model: Path, tmp_path: Path, rows: list[tuple[str, object, str]], words: list[str]
) -> None:
    named = [dict(zip(("statement", "label", "topic"), row, strict=True)) for row in rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    result = hcl("probe", "in.jsonl", "-m", planted_model, *QUICK)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    for word in words:
        assert word in result.err.splitlines()[-1]
