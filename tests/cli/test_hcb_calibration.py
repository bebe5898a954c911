"""`hcl hcb --calibration` from the command line: artifact, files, hits, refusals."""

import json
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from pytest import approx
from test_surface import heavy_imports

from hcl_cli.schemas import LAYER_CALIBRATION


@pytest.fixture
def scored(hcl: Hcl, planted_run: list[object]) -> Path:
    return hcl("score", "--cluster", "exact", stdin=hcl(*planted_run, "-n", 4).out).path


def calibration_of(made: str) -> dict[str, object]:
    (found,) = [other for other in json.loads(made)["also"] if other["table"] == "layer_calibration"]
    return dict(found)


def test_the_table_is_an_artifact_beside_the_layer_table(hcl: Hcl, scored: Path) -> None:
    made = hcl("hcb", scored, "--calibration", "--json")
    assert json.loads(made.out)["table"] == "layers"
    found = pl.read_parquet(str(calibration_of(made.out)["path"]))
    assert found.schema == LAYER_CALIBRATION.polars_schema()
    answers = pl.read_parquet(scored)
    for row in found.to_dicts():
        here = answers.filter(pl.col("exit_layer") == row["exit_layer"])
        prob, correct = here["mean_logprob"].cast(pl.Float64).exp(), here["correct"]
        assert (row["n_questions"], row["n_answers"]) == (3, 12)
        assert row["accuracy"] == approx(correct.mean())
        assert row["brier"] == approx(((prob - correct.cast(pl.Float64)) ** 2).mean())
    assert made.err.index("HCB =") < made.err.index("Calibration: planted") < made.err.index("exp(mean_logprob)")
    assert "Calibration" not in hcl("hcb", scored).err


def test_files_are_written_and_a_hit_computes_and_imports_nothing(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    run = ["hcb", scored, "--calibration", "--calibration-table", "c.md", "--calibration-figure", "c.svg"]
    made = hcl(*run, "--json")
    text, drawn = (tmp_path / "c.md").read_text(), (tmp_path / "c.svg").read_bytes()
    assert "hcb: calibration table in c.md\nhcb: calibration figure in c.svg\n" in made.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")}
    assert hcl(*run, "--json").err == made.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")} == before
    assert ((tmp_path / "c.md").read_text(), (tmp_path / "c.svg").read_bytes()) == (text, drawn)
    assert heavy_imports(tmp_path, *run[:5]) == []


def test_each_option_is_in_the_recipe_and_the_layer_table_does_not_depend_on_it(hcl: Hcl, scored: Path) -> None:
    runs = ([], ["--confidence", "mean-prob"], ["--bootstrap", 300], ["--seed", 1])
    made = [hcl("hcb", scored, "--calibration", "--json", *more).out for more in runs]
    assert len({calibration_of(one)["key"] for one in made}) == 4
    same = hcl("hcb", scored, "--calibration", "--json", "--confidence", "mean_logprob", "--weights", "0.3").out
    assert calibration_of(same)["key"] == calibration_of(made[0])["key"]
    assert json.loads(made[0])["key"] == json.loads(made[1])["key"]


def test_without_a_store_it_is_shown_and_not_kept(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    alone = hcl("hcb", scored, "--calibration", "--no-cache", "-o", "layers.parquet", "--calibration-table", "c.csv")
    assert "Calibration: planted" in alone.err
    assert pl.read_csv(tmp_path / "c.csv").columns == list(LAYER_CALIBRATION.columns)
    assert not (tmp_path / ".hcl" / "hcb").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--confidence", "mean-prob"], "--confidence mean-prob: speaks of what --calibration computes"),
        (["--calibration-table", "c.md"], "--calibration-table c.md: speaks of what --calibration computes"),
        (["--calibration", "--confidence", "mine"], "--confidence mine: there is no such column"),
        (["--calibration", "--confidence", "n_tokens"], "gives a confidence outside [0, 1]"),
        (["--calibration", "--confidence", "drafted"], "--confidence drafted: no graded answer has a value"),
        (["--calibration", "--confidence", ""], "expected mean-logprob, mean-prob, mean-max-prob or a column"),
        (["--calibration", "--calibration-figure", "c.gif"], "--calibration-figure c.gif: the ending says the format"),
        (["--calibration", "--calibration-table", "c.txt"], "--calibration-table c.txt: the ending says the format"),
        (["--calibration", "--calibration-figure", "no/c.png"], "the folder no does not exist"),
        (
            ["--calibration", "--calibration-table", "c.md", "--table", "c.md"],
            "--calibration-table c.md: --table writes the same file",
        ),
    ],
)
def test_bad_options_are_one_line(hcl: Hcl, scored: Path, options: list[str], said: str, tmp_path: Path) -> None:
    refused = hcl("hcb", scored, *options)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1
    assert said in refused.err
    assert not list(tmp_path.glob("c.*"))


def test_a_default_for_entropy_is_none_for_hcb(hcl: Hcl, scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`confidence` is a switch of `hcl entropy`: set for it, it must not become the name of a column here."""
    monkeypatch.setenv("HCL_CONFIDENCE", "1")
    Path("hcl.toml").write_text("confidence = true\n")
    assert hcl("hcb", scored).code == 0
    assert "exp(mean_logprob)" in hcl("hcb", scored, "--calibration").err
