"""`hcl hcb --rejection` from the command line: artifacts, files, hits, refusals."""

import json
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from pytest import approx
from test_surface import heavy_imports

from hcl_cli.schemas import LAYERS, REJECTION, UNCERTAINTY


@pytest.fixture
def scored(hcl: Hcl, planted_run: list[object]) -> Path:
    return hcl("score", "--cluster", "exact", stdin=hcl(*planted_run, "-n", 4).out).path


def also(made: str) -> dict[str, dict[str, object]]:
    return {other["table"]: other for other in json.loads(made)["also"]}


def test_the_tables_are_artifacts_beside_the_layer_table(hcl: Hcl, scored: Path) -> None:
    made = hcl("hcb", scored, "--rejection", "--json")
    found = also(made.out)
    uncertainty, rejected = (pl.read_parquet(str(found[name]["path"])) for name in ("uncertainty", "rejection"))
    assert uncertainty.schema == UNCERTAINTY.polars_schema()
    assert rejected.schema == REJECTION.polars_schema()
    layers = pl.read_parquet(json.loads(made.out)["path"])
    assert layers.schema == LAYERS.polars_schema()
    answers = pl.read_parquet(scored)
    for row in uncertainty.filter(measure="predictive_entropy").to_dicts():
        here = answers.filter(exit_layer=row["exit_layer"])
        assert (row["n_questions"], row["n_answers"]) == (3, 12)
        assert row["mean"] == approx(-here["mean_logprob"].mean(), abs=1e-6)
        kept = rejected.filter(exit_layer=row["exit_layer"], measure=row["measure"], share_kept=1.0)
        assert kept["accuracy"].to_list() == approx([here["correct"].mean()])
    of_entropy = uncertainty.filter(measure="semantic_entropy")
    assert layers["semantic_entropy"].to_list() == of_entropy["mean"].to_list()
    assert layers["semantic_entropy_aurac"].to_list() == of_entropy["aurac"].to_list()
    assert made.err.index("HCB =") < made.err.index("Uncertainty: planted") < made.err.index("SE: semantic entropy")
    assert "Uncertainty" not in hcl("hcb", scored).err


def test_files_are_written_and_a_hit_computes_and_imports_nothing(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    run = ["hcb", scored, "--rejection", "--rejection-table", "c.md", "--rejection-figure", "c.svg"]
    made = hcl(*run, "--json")
    text, drawn = (tmp_path / "c.md").read_text(), (tmp_path / "c.svg").read_bytes()
    assert "hcb: rejection table in c.md\nhcb: rejection figure in c.svg\n" in made.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")}
    assert hcl(*run, "--json").err == made.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")} == before
    assert ((tmp_path / "c.md").read_text(), (tmp_path / "c.svg").read_bytes()) == (text, drawn)
    assert heavy_imports(tmp_path, *run[:5]) == []


def test_the_resamples_are_in_the_recipe_and_what_does_not_matter_is_not(hcl: Hcl, scored: Path) -> None:
    runs = ([], ["--bootstrap", 300], ["--seed", 1])
    made = [also(hcl("hcb", scored, "--rejection", "--json", *more).out) for more in runs]
    for name in ("uncertainty", "rejection"):
        assert len({found[name]["key"] for found in made}) == 3
    same = hcl("hcb", scored, "--rejection", "--json", "--weights", "0.3", "--diversity", "entropy").out
    assert also(same)["rejection"]["key"] == made[0]["rejection"]["key"]


def test_without_a_store_it_is_shown_and_not_kept(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    alone = hcl("hcb", scored, "--rejection", "--no-cache", "-o", "layers.parquet", "--rejection-table", "c.csv")
    assert "Uncertainty: planted" in alone.err
    assert pl.read_csv(tmp_path / "c.csv").columns == list(UNCERTAINTY.columns)
    assert not (tmp_path / ".hcl" / "hcb").exists()


def test_one_sample_per_question_is_said_in_a_line(hcl: Hcl, planted_run: list[object]) -> None:
    alone = hcl("score", "--cluster", "exact", stdin=hcl(*planted_run, "-n", 1).out).path
    made = hcl("hcb", alone, "--rejection", "--rejection-figure", "f.svg", "--rejection-table", "t.md")
    assert made.code == 0
    assert "an entropy of one sample says nothing" in " ".join(made.err.split())


def test_a_file_from_elsewhere(hcl: Hcl, tmp_path: Path) -> None:
    rows = [
        {"question": question, "response": "x", "correct": correct, "meaning_id": meaning, "exit_layer": 1}
        for question, answers in {"a": [(0, True), (0, True)], "b": [(0, False), (1, False)]}.items()
        for meaning, correct in answers
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = hcl("hcb", "mine.jsonl", "--rejection", "--json")
    found = pl.read_parquet(str(also(made.out)["uncertainty"]["path"]))
    assert dict(zip(found["measure"], found["auroc"], strict=True)) == {
        "semantic_entropy": None, "semantic_entropy_discrete": 1.0, "predictive_entropy": None, "answer_logprob": None,
    }  # fmt: skip
    assert "no likelihoods (mean_logprob)" in " ".join(made.err.split())
    bare = [{name: value for name, value in row.items() if name != "meaning_id"} for row in rows]
    (tmp_path / "bare.jsonl").write_text("\n".join(map(json.dumps, bare)))
    assert hcl("hcb", "bare.jsonl").code == 0
    refused = hcl("hcb", "bare.jsonl", "--rejection")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "--rejection: no answer has a meaning_id; run `hcl score` on it" in refused.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rejection-table", "c.md"], "--rejection-table c.md: speaks of what --rejection computes"),
        (["--rejection-figure", "c.svg"], "--rejection-figure c.svg: speaks of what --rejection computes"),
        (["--rejection", "--rejection-figure", "c.gif"], "--rejection-figure c.gif: the ending says the format"),
        (["--rejection", "--rejection-table", "c.txt"], "--rejection-table c.txt: the ending says the format"),
        (["--rejection", "--rejection-figure", "no/c.png"], "the folder no does not exist"),
        (
            ["--rejection", "--rejection-table", "c.md", "--table", "c.md"],
            "--rejection-table c.md: --table writes the same file",
        ),
    ],
)
def test_bad_options_are_one_line(hcl: Hcl, scored: Path, options: list[str], said: str, tmp_path: Path) -> None:
    refused = hcl("hcb", scored, *options)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1
    assert said in refused.err
    assert not list(tmp_path.glob("c.*"))
