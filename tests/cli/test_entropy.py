"""`hcl entropy` through the program, on a model whose law is known by construction."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import planted
import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))
from loopback import says, serving

LAYERS = planted.N_LAYERS


def distribution(layer: int, token: str) -> np.ndarray:
    scores = planted.scores(layer, token) if layer else np.zeros(len(planted.WORDS))
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def of_kind(path: Path, kind: str) -> pl.DataFrame:
    return pl.read_parquet(path).filter(pl.col("kind") == kind)


@pytest.fixture
def scored(hcl: Hcl, planted_run: list[object]) -> Path:
    sampled = hcl(*planted_run, "-n", 12, "--temperature", 1.5, "--exit-layers", 4)
    return hcl("score", "--cluster", "exact", stdin=sampled.out).path


def test_every_layer_has_the_planted_entropy(hcl: Hcl, planted_model: Path, texts: Path) -> None:
    """By plain Python from the construction: exits 0..4, each token predicted by the one before it."""
    rows = of_kind(hcl("entropy", texts, "-m", planted_model).path, "layers")
    words = {row["text_id"]: row["text"].split() for row in map(json.loads, texts.read_text().splitlines())}
    assert rows.height == (LAYERS + 1) * sum(len(text) - 1 for text in words.values())
    for row in rows.iter_rows(named=True):
        before, word = words[row["text_id"]][row["position"] - 1 : row["position"] + 1]
        p = distribution(row["exit_layer"], before)
        surprisal = -np.log(p)
        entropy = float(p @ surprisal)
        assert row["token"] == word and row["step"] == row["position"] - 1
        assert row["entropy"] == pytest.approx(entropy, abs=2e-5)
        assert row["varentropy"] == pytest.approx(float(p @ (surprisal - entropy) ** 2), abs=5e-5)
        assert row["entropy_normalised"] == pytest.approx(entropy / math.log(len(planted.WORDS)), abs=1e-5)
        assert row["logprob"] == pytest.approx(-surprisal[planted.WORDS.index(word)], abs=5e-5)


def test_without_the_norm_only_the_last_layer_is_the_models_own(hcl: Hcl, planted_model: Path, texts: Path) -> None:
    normed = of_kind(hcl("entropy", texts, "-m", planted_model).path, "layers")
    plain = of_kind(hcl("entropy", texts, "-m", planted_model, "--no-norm").path, "layers")
    assert plain["readout"].unique().to_list() == ["no-norm"]
    assert plain.filter(pl.col("exit_layer") == LAYERS)["entropy"].to_list() == pytest.approx(
        normed.filter(pl.col("exit_layer") == LAYERS)["entropy"].to_list()
    )
    row = plain.filter((pl.col("text_id") == "a") & (pl.col("exit_layer") == 1)).row(0, named=True)
    raw = planted.STRENGTH / 10 * planted._added(0, "ask-one")
    p = np.exp(raw) / np.exp(raw).sum()
    assert row["entropy"] == pytest.approx(float(-(p * np.log(p)).sum()), abs=2e-5)


def test_scored_answers_are_compared_by_verdict(hcl: Hcl, planted_model: Path, scored: Path) -> None:
    """The group table's means are the plain means over texts of the rows that the command wrote."""
    prompt = ["--prompt", "prompt.txt", "-m", planted_model]
    answered = json.loads(hcl("entropy", scored, *prompt, "--json").out)
    rows = of_kind(Path(answered["path"]), "layers")
    groups = pl.read_parquet(next(one["path"] for one in answered["also"] if one["table"] == "groups"))
    assert set(rows["group"]) == {"correct", "hallucinated"}
    verdicts = pl.read_parquet(scored)
    assert rows["text_id"].n_unique() == verdicts.select("question_id", "text").unique().height
    per_text = rows.group_by("text_id", "exit_layer", "group").agg(pl.col("entropy").cast(pl.Float64).mean())
    means = per_text.group_by("exit_layer", "group").agg(pl.col("entropy").mean())
    for row in groups.filter(pl.col("measure") == "entropy").iter_rows(named=True):
        mean = {
            group: means.filter((pl.col("exit_layer") == row["exit_layer"]) & (pl.col("group") == group))["entropy"][0]
            for group in ("correct", "hallucinated")
        }
        assert (row["group_a"], row["group_b"]) == ("correct", "hallucinated")
        assert row["mean_a"] == pytest.approx(mean["correct"], abs=1e-6)
        assert row["mean_b"] == pytest.approx(mean["hallucinated"], abs=1e-6)


def test_the_pipe_the_file_and_the_json_object_are_the_same_input(hcl: Hcl, planted_model: Path, scored: Path) -> None:
    options = ["-m", planted_model, "--prompt", "prompt.txt"]
    named = hcl("entropy", scored, *options).out
    assert hcl("entropy", *options, stdin=f"{scored}\n").out == named
    assert hcl("entropy", "-", *options, stdin=json.dumps({"path": str(scored)})).out == named


def test_another_grouping_measures_nothing_again(
    hcl: Hcl, planted_model: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.entropy_plan import Plan

    plain = hcl("entropy", texts, "-m", planted_model).path
    monkeypatch.setattr(Plan, "compute", lambda *_: pytest.fail("measured again"))
    grouped = hcl("entropy", texts, "-m", planted_model, "--group-by", "tone").path
    limited = hcl("entropy", texts, "-m", planted_model, "--limit", 2).path
    assert pl.read_parquet(plain)["group"].null_count() == pl.read_parquet(plain).height
    found = pl.read_parquet(grouped)
    assert dict(found.select("text_id", "group").unique().iter_rows()) == {
        "a": "calm", "b": "calm", "c": "loud", "d": "loud",
    }  # fmt: skip
    assert (
        pl.read_parquet(limited).drop("group").equals(found.filter(pl.col("text_id").is_in(["a", "b"])).drop("group"))
    )


def test_a_hit_imports_nothing_heavy_and_shows_the_same(
    hcl: Hcl, planted_model: Path, texts: Path, tmp_path: Path
) -> None:
    run = ["entropy", texts, "-m", planted_model, "--group-by", "tone", "--of", "layers,attention,tokens"]
    first, second = hcl(*run), hcl(*run)
    assert heavy_imports(tmp_path, *run) == []
    assert second.out == first.out
    shown = [line for line in first.err.splitlines() if " blocks of " not in line and " left out: " not in line]
    assert [line.replace(", from the store", "") for line in second.err.splitlines()] == shown


def test_own_answers_are_measured_as_they_were_generated(
    hcl: Hcl, planted_model: Path, planted_run: list[object]
) -> None:
    """Generated and measured, or sampled first and then read from the file: the same rows for the same answers."""
    drawing = ["-n", 6, "--temperature", 1.5]
    model = ["-m", planted_model, "--prompt", "prompt.txt"]
    own = pl.read_parquet(hcl("entropy", "questions.jsonl", *model, *drawing).path)
    sampled = hcl(*planted_run, *drawing, "--exit-layers", LAYERS).path
    read = pl.read_parquet(hcl("entropy", sampled, *model).path)
    answers = {
        f"{row['question_id']}#{row['sample_index']}": row["text"].split()
        for row in pl.read_parquet(sampled).iter_rows(named=True)
    }
    spoken = own.filter(pl.col("exit_layer") == LAYERS).group_by("text_id").agg(pl.col("token").sort_by("step"))
    assert {name: tokens for name, tokens in spoken.iter_rows()} == {n: a for n, a in answers.items() if a}
    for text_id in read["text_id"].unique():
        name, layer, first = text_id.split("#")
        assert layer == str(LAYERS)
        columns = ["step", "exit_layer", "token", "entropy", "varentropy", "logprob"]
        there = own.filter(pl.col("text_id") == f"{name}#{first}").select(columns)
        here = read.filter(pl.col("text_id") == text_id).select(columns)
        assert there["token"].to_list() == here["token"].to_list()
        np.testing.assert_allclose(there["entropy"], here["entropy"], atol=1e-5)


def test_spans_compare_marked_with_ordinary_tokens(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    rows = [
        {"text_id": "a", "text": "ask-one paris red blue", "spans": [[8, 13]]},
        {"text_id": "b", "text": "ask-many red green", "spans": [[13, 18]]},
        {"text_id": "c", "text": "ask-hard lyon rome", "spans": None},
    ]
    (tmp_path / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = hcl("entropy", "marked.jsonl", "-m", planted_model, "--group-by", "spans", "--json")
    assert "1 of 3 texts have no spans" in done.err
    answered = json.loads(done.out)
    rows_by_token = {
        (row["text_id"], row["token"]): row["group"] for row in pl.read_parquet(answered["path"]).iter_rows(named=True)
    }
    assert rows_by_token == {
        ("a", "paris"): "marked", ("a", "red"): "ordinary", ("a", "blue"): "ordinary",
        ("b", "red"): "ordinary", ("b", "green"): "marked", ("c", "lyon"): None, ("c", "rome"): None,
    }  # fmt: skip
    groups = pl.read_parquet(next(one["path"] for one in answered["also"] if one["table"] == "groups"))
    assert groups["permuted"].unique().to_list() == ["signs"]
    last = groups.filter((pl.col("exit_layer") == LAYERS) & (pl.col("measure") == "entropy")).row(0, named=True)

    def entropy(token: str) -> float:
        p = distribution(LAYERS, token)
        return float(-(p * np.log(p)).sum())

    marked = (entropy("ask-one") + entropy("red")) / 2
    ordinary = ((entropy("paris") + entropy("red")) / 2 + entropy("ask-many")) / 2
    assert last["difference"] == pytest.approx(marked - ordinary, abs=1e-4)


def test_a_critic_marks_where_wrong_answers_go_wrong(
    hcl: Hcl, planted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    answers = [("red blue lyon", False), ("paris", True), ("green lyon", False), ("", False), ("red lyon", False)]
    rows = [
        {"question": "ask-one", "answers": ["paris"], "sample_index": index, "response": words, "correct": correct}
        for index, (words, correct) in enumerate(answers)
    ]
    (tmp_path / "judged.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompt.txt").write_text("{question}")
    with serving() as server:
        server.behave = lambda call: says(json.dumps({"excerpt": "lyon" if "green" not in call.prompt else "nowhere"}))
        run = ["entropy", "judged.jsonl", "-m", planted_model, "--prompt", "prompt.txt", "--critic", server.url]
        run += ["--critic-model", "/srv/models/planted-1"]  # a local server may name its models by folders
        planned = hcl(*run, "--dry-run")
        assert "3 calls (0 answers at hand)" in planned.err and planned.out.startswith("miss ") and not server.calls
        done = hcl(*run, "--json")
        assert done.code == 0, done.err
        assert "asked about 3 of 4 answers, marked a span in 2" in done.err
        assert len(server.calls) == 3
        assert json.loads(hcl(*run, "--json").out)["path"] == json.loads(done.out)["path"]
        assert len(server.calls) == 3
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"]}
    assert tables["spans"]["status"].to_list() == ["marked", "correct", "unmatched", "marked"]
    measured = pl.read_parquet(json.loads(done.out)["path"]).filter(pl.col("exit_layer") == LAYERS)
    assert measured.select("token", "group").rows() == [
        ("red", "ordinary"), ("blue", "ordinary"), ("lyon", "marked"), ("paris", None), ("green", None),
        ("lyon", None), ("red", "ordinary"), ("lyon", "marked"),
    ]  # fmt: skip
    assert tables["groups"]["permuted"].unique().to_list() == ["signs"]
    for file in (tmp_path / ".hcl").rglob("*"):
        assert not file.is_file() or b"sk-very-secret" not in file.read_bytes(), file
        assert file.suffix != ".parquet" or b"/srv/models" not in file.read_bytes(), file


def test_all_answers_correct_is_said_and_the_measures_are_kept(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    """Nobody asked for groups: the comparison is left out in one line, what was measured is there."""
    rows = [{"question": "ask-one", "response": word, "correct": True} for word in ("paris", "lyon")]
    (tmp_path / "right.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompt.txt").write_text("{question}")
    result = hcl("entropy", "right.jsonl", "-m", planted_model, "--prompt", "prompt.txt")
    assert "all 2 graded answers are correct: nothing to compare" in result.err
    assert pl.read_parquet(result.path).height == 2 * (LAYERS + 1)


def test_the_model_is_the_one_that_answered_or_has_to_be_named(hcl: Hcl, scored: Path) -> None:
    result = hcl("entropy", scored)
    assert result.code == 2 and "planted" in result.err and "--model" in result.err


def test_a_text_file_is_one_text_and_long_ones_are_cut_where_asked(
    hcl: Hcl, planted_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "long.txt").write_text("red green " * 40)
    cut = hcl("entropy", "long.txt", "-m", planted_model, "--long-texts", "truncate")
    assert "1 of 1 texts cut" in cut.err
    assert pl.read_parquet(cut.path)["position"].max() == 63
    short = hcl("entropy", "long.txt", "-m", planted_model, "--max-tokens", 10)
    assert pl.read_parquet(short.path)["position"].max() == 9


@pytest.fixture(scope="module")
def judged_answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers to 24 planted questions: sure where they are right ("paris" after ask-one), unsure where wrong."""
    path = tmp_path_factory.mktemp("judged") / "judged.jsonl"
    rows = [
        {"question_id": f"q{n}", "question": "ask-one" if n % 2 else "ask-many", "answers": ["paris"],
         "response": "paris" if n % 2 else ("red", "green", "blue")[n % 3], "correct": bool(n % 2)}
        for n in range(24)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_confidence_is_fitted_kept_and_used_on_new_text(
    hcl: Hcl, planted_model: Path, judged_answers: Path, texts: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text("{question}")
    options = ["-m", planted_model, "--of", "layers,tokens", "--bootstrap", 200, "--permutations", 100]
    run = ["entropy", judged_answers, *options, "--prompt", "prompt.txt", "--confidence", "--save", "kept"]
    fitted = hcl(*run, "--html", "page.html", "--json")
    assert fitted.code == 0, fitted.err
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(fitted.out)["also"]}
    worth = {
        row["level"]: row for row in tables["confidence"].iter_rows(named=True) if row["predictor"] == "instrument"
    }
    assert worth["answer"]["auroc"] == 1.0 and worth["answer"]["n_questions"] == 24
    assert "Rated riskiest" in fitted.err
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "paris" in page
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {"instrument.safetensors", "instrument.json"}
    again = hcl(*run, "--json")
    first, second = json.loads(fitted.out), json.loads(again.out)
    assert second["cached"] and not first["cached"]
    assert [one["key"] for one in second["also"]] == [one["key"] for one in first["also"]]

    used = hcl("entropy", texts, *options, "--apply", "kept", "--json")
    assert used.code == 0, used.err
    risks = pl.read_parquet(next(one["path"] for one in json.loads(used.out)["also"] if one["table"] == "risks"))
    assert risks.filter(pl.col("level") == "token").height == 6
    told = dict(risks.filter(pl.col("level") == "token").select("token", "p_error").unique("token").iter_rows())
    assert told["paris"] < 0.5  # certain in ask-one, as in the answers that were right

    refused = hcl("entropy", texts, "-m", planted_model, "--of", "layers", "--no-norm", "--apply", "kept")
    assert refused.code == 2 and "the instrument needs" in refused.err.splitlines()[-1]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    hcl: Hcl, planted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.entropy_plan import Plan
    from hcl_cli.stages.versions import ENTROPY_BLOCK

    words = planted.WORDS[3:]
    rows = [{"text": f"{words[n % 9]} {words[n // 9 % 9]} {words[n % 7]}"} for n in range(2 * ENTROPY_BLOCK + 3)]
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["entropy", "many.jsonl", "-m", planted_model, "--of", "layers,attention"]
    whole = hcl(*run, "--store", "whole").path.read_bytes()
    compute, done = Plan.compute, []

    def interrupted(plan, block, missing):
        done.append(block.index)
        if len(done) == 2:
            raise KeyboardInterrupt
        return compute(plan, block, missing)

    monkeypatch.setattr(Plan, "compute", interrupted)
    assert hcl(*run).code == 130
    assert hcl(*run).path.read_bytes() == whole
    assert done == [0, 1, 1, 2]
