"""`hcl hcb --compare`, `--power` and the warning of noise from the command line: artifacts, files, hits, refusals."""

import json
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

from hcl_cli.schemas import COMPARISONS, POWER


@pytest.fixture
def scored(hcl: Hcl, planted_run: list[object]) -> Path:
    return hcl("score", "--cluster", "exact", stdin=hcl(*planted_run, "-n", 4).out).path


def table_of(made: str, name: str) -> dict[str, str]:
    (found,) = [other for other in json.loads(made)["also"] if other["table"] == name]
    return dict(found)


def test_tests_and_power_are_artifacts_beside_the_layer_table(hcl: Hcl, scored: Path) -> None:
    made = hcl("hcb", scored, "--compare", "--power", "--json")
    assert json.loads(made.out)["table"] == "layers"
    found = pl.read_parquet(table_of(made.out, "comparisons")["path"])
    power = pl.read_parquet(table_of(made.out, "power")["path"])
    assert found.schema == COMPARISONS.polars_schema() and power.schema == POWER.polars_schema()
    layers = pl.read_parquet(json.loads(made.out)["path"])
    last = layers["exit_layer"].max()
    rates = dict(layers.select("exit_layer", "hallucination_rate").rows())
    rows = found.filter(kind="reference", metric="hallucination_rate")
    assert rows.height == layers.height - 1
    for row in rows.to_dicts():
        assert row["difference"] == pytest.approx(rates[row["exit_layer"]] - rates[last])
    assert made.err.index("HCB =") < made.err.index("Compared: planted") < made.err.index("Power: planted")
    plain = hcl("hcb", scored).err
    assert "Compared:" not in plain and "Power:" not in plain


def test_files_are_written_and_a_hit_computes_and_imports_nothing(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    run = ["hcb", scored, "--compare", "--compare-table", "c.md", "--power", "--power-table", "p.csv"]
    made = hcl(*run, "--json")
    texts = [(tmp_path / name).read_text() for name in ("c.md", "p.csv")]
    assert "cannot be told apart from it with 3 questions" in made.err  # the warning is on a hit too
    assert "hcb: comparisons in c.md\n" in made.err and "hcb: power table in p.csv\n" in made.err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")}
    assert hcl(*run, "--json").err == made.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".hcl").rglob("*.parquet")} == before
    assert [(tmp_path / name).read_text() for name in ("c.md", "p.csv")] == texts
    assert heavy_imports(tmp_path, *run) == []


def test_what_can_change_a_row_is_in_the_recipe(hcl: Hcl, scored: Path) -> None:
    runs = ([], ["--all-pairs"], ["--bootstrap", 300], ["--seed", 1], ["--weights", "0.3"], ["--diversity", "entropy"])
    made = [hcl("hcb", scored, "--compare", "--power", "--json", *more).out for more in runs]
    assert len({table_of(one, "comparisons")["key"] for one in made}) == 6
    # The power table has no resamples.
    assert [table_of(one, "power")["key"] == table_of(made[0], "power")["key"] for one in made] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    kinds = [pl.read_parquet(table_of(one, "comparisons")["path"])["kind"].unique() for one in made[:2]]
    assert "pair" not in kinds[0] and "pair" in kinds[1]


def test_without_a_store_they_are_shown_and_not_kept(hcl: Hcl, scored: Path, tmp_path: Path) -> None:
    alone = hcl("hcb", scored, "--compare", "--power", "--no-cache", "-o", "layers.parquet", "--compare-table", "c.csv")
    assert "Compared: planted" in alone.err and "Power: planted" in alone.err
    assert pl.read_csv(tmp_path / "c.csv").columns == list(COMPARISONS.columns)
    assert not (tmp_path / ".hcl" / "hcb").exists()


def noisy(path: Path, n_questions: int = 12) -> Path:
    """Layer 3 answers one question more than layer 2, and mostly others."""
    rows = [
        {
            "question": f"q{n}",
            "response": "a",
            "exit_layer": layer,
            "correct": right,
            "cluster_id": 0 if right else None,
        }
        for n in range(n_questions)
        for layer, rights in ((1, [False]), (2, [n % 2 == 0]), (3, [n % 2 == 1 or n == 0]))
        for right in rights
    ]
    pl.DataFrame(rows, schema_overrides={"cluster_id": pl.Int32}).write_parquet(path)
    return path


def test_a_best_layer_within_noise_is_warned_of_in_one_line_also_on_a_hit(hcl: Hcl, tmp_path: Path) -> None:
    given = noisy(tmp_path / "noisy.parquet")
    said = "hcl hcb: layer 3 is best, but layer 2 cannot be told apart from it with 12 questions; about "
    for _ in range(2):
        warned = hcl("hcb", given, "--quiet")
        assert warned.code == 0 and warned.err.startswith(said) and warned.err.count("\n") == 1
        assert warned.err.endswith("would tell 3 from 2 with 80 % power: hcl hcb --power\n")
    assert hcl("hcb", given).err.count("hcl hcb: layer 3 is best, but") == 1


def test_a_clear_best_layer_is_not_warned_of(hcl: Hcl, tmp_path: Path) -> None:
    rows = pl.read_parquet(noisy(tmp_path / "noisy.parquet", 40)).filter(pl.col("exit_layer") != 2)
    rows.with_columns(correct=pl.col("exit_layer") == 3, cluster_id=pl.lit(0, dtype=pl.Int32)).write_parquet(
        "c.parquet"
    )
    assert hcl("hcb", "c.parquet", "--quiet").err == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--all-pairs"], "--all-pairs: speaks of what --compare computes; add --compare"),
        (["--compare-table", "c.md"], "--compare-table c.md: speaks of what --compare computes; add --compare"),
        (["--compare", "--power-table", "p.md"], "--power-table p.md: speaks of what --power computes; add --power"),
        (["--compare", "--compare-table", "c.txt"], "--compare-table c.txt: the ending says the format"),
        (["--power", "--power-table", "no/p.md"], "the folder no does not exist"),
        (["--compare", "--compare-table", "c.md", "--table", "c.md"], "writes the same file"),
    ],
)
def test_bad_options_are_one_line(hcl: Hcl, scored: Path, options: list[str], said: str, tmp_path: Path) -> None:
    refused = hcl("hcb", scored, *options)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1
    assert said in refused.err
    assert not list(tmp_path.glob("[cp].*"))
