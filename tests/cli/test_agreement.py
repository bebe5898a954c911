"""Several judges and clusterings through the program: how far they agree, where they differ, and against people."""

import json
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """40 questions at two layers; `exact` prefers layer 1, `alias` layer 2; with people's verdicts."""
    lines = []
    for question in range(40):
        for layer, texts in ((1, ["x", "no"]), (2, ["it is x", "so x" if question % 4 else "no"])):
            for at, text in enumerate(texts):
                human = None if question == 0 else text != "no" and question != 1
                lines.append(
                    {"model": "m", "dataset": "d", "question": f"q{question}", "answers": ["x"], "response": text,
                     "exit_layer": layer, "sample_index": at, "human": human}
                )  # fmt: skip
    path = tmp_path / "judged.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def made(out: str) -> dict[str, pl.DataFrame]:
    answer = json.loads(out)
    return {one["table"]: pl.read_parquet(one["path"]) for one in (answer, *answer["also"])}


def test_agreement_people_and_where_they_differ(
    hcl: Hcl, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["score", judged, "--judge", "exact,alias", "--cluster", "exact", "--people-table", "judges.md"]
    first = hcl(*call, "--json")
    assert first.code == 0, first.err
    tables = made(first.out)
    assert set(tables) == {"scored", "agreement", "judge_calibration"}
    whole = tables["agreement"].filter(pl.col("exit_layer").is_null()).to_dicts()[0]
    assert (whole["n"], whole["n_only_one"], whole["n_only_other"], whole["n_questions_differing"]) == (160, 0, 70, 40)
    people = {row["judge"]: row for row in tables["judge_calibration"].to_dicts()}
    assert people["alias"]["n"] == 156 and people["alias"]["n_debatable"] == 4
    assert people["alias"]["recall"] == 1.0 and people["exact"]["recall"] == pytest.approx(38 / (38 + 38 + 29))
    assert "| alias | 0.97 " in (tmp_path / "judges.md").read_text() and "Judges against people" in first.err
    path = json.loads(first.out)["path"]
    assert f'hcl cat {path} --where "correct_exact != correct_alias"' in first.err
    rows = hcl("cat", path, "--where", "correct_exact != correct_alias", "--columns", "response")
    assert len(rows.out.splitlines()) == 70 and {json.loads(line)["response"] for line in rows.out.splitlines()} == {
        "it is x", "so x",
    }  # fmt: skip
    assert (
        hcl("export", path, "differing.csv", "--where", "correct_exact != correct_alias and exit_layer = 1").code == 0
    )
    assert len((tmp_path / "differing.csv").read_text().splitlines()) == 1
    for ending, start in ((".csv", "dataset,judge,"), (".tex", "\\begin{tabular}")):
        assert hcl(*call[:-1], f"judges{ending}").code == 0
        assert (tmp_path / f"judges{ending}").read_text().startswith(start)


def test_the_best_layer_under_every_judge(hcl: Hcl, judged: Path, tmp_path: Path) -> None:
    scored = hcl("score", judged, "--judge", "exact,alias,contains", "--cluster", "exact").path
    done = hcl("hcb", scored, "--bootstrap", 100, "--json")
    assert done.code == 0, done.err
    found = made(done.out)["best_layers"]
    assert found.select("judge", "best", "is_same").rows() == [
        ("exact", "1", True), ("alias", "2", False), ("contains", "2", False)
    ]  # fmt: skip
    said = " ".join(done.err.split())
    assert "Layer 1 is best under exact with clusters by exact, and under 0 of 2 other judges and clusterings" in said
    assert "Under alias, clusters by exact, layer 2 is best instead of 1" in said
    assert heavy_imports(tmp_path, "hcb", scored, "--bootstrap", 100) == []
    alone = hcl("score", judged, "--judge", "exact", "--cluster", "exact").path
    assert "best_layers" not in made(hcl("hcb", alone, "--bootstrap", 100, "--json").out)
    unkept = hcl("hcb", scored, "--bootstrap", 100, "--no-cache", "-o", "layers.parquet")
    assert unkept.code == 0 and "layer 2 is best instead of 1" in " ".join(unkept.err.split())


def test_the_built_in_people(hcl: Hcl, tmp_path: Path) -> None:
    call = ["score", "--people", "efficientqa", "--judge", "exact,alias", "--cluster", "exact"]
    done = hcl(*call, "--json")
    tables = made(done.out)
    assert tables["scored"].height == 3007 and tables["scored"]["dataset"].unique().to_list() == ["efficientqa"]
    exact, alias = tables["judge_calibration"].to_dicts()
    assert exact["n"] == alias["n"] == 2724 and exact["n_right"] == 1630
    assert exact["recall"] < alias["recall"] and exact["specificity"] >= alias["specificity"]
    assert json.loads(hcl(*call, "--json").out)["cached"] and heavy_imports(tmp_path, *call) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "--people", "triviaqa"], "--people triviaqa: expected efficientqa; a file with a column human"),
        (["score", "judged.jsonl", "--people", "efficientqa"], "--people efficientqa: stands in the place of"),
        (["score", "plain.jsonl", "--people-table", "t.md"], "--people-table t.md: plain.jsonl has no column human"),
        (["score", "judged.jsonl", "--people-table", "t.html"], "--people-table t.html: the ending says the format"),
        (["score", "odd.jsonl", "--cluster", "exact"], "column human: String, expected true, false or null"),
        (["cat", "judged.jsonl", "--where", "layer = 1"], '--where layer = 1: unable to find column "layer"; expected'),
        (["cat", "judged.jsonl", "--where", "exit_layer +"], "--where exit_layer +: "),
        (["cat", "judged.jsonl", "--where", "exit_layer"], "--where exit_layer: gives Int64; expected a condition"),
        (["cat", "judged.jsonl", "--where", "1 = 1"], "--where 1 = 1: names no column"),
        (["cat", "judged.jsonl", "--where", "max(exit_layer) = 2"], "does not speak of single rows"),
        (["cat", "judged.jsonl", "--where", "exit_layer = (select 1)"], "--where exit_layer = (select 1): "),
        (["cat", "judged.jsonl", "--where", "read_csv('x') = exit_layer"], "unsupported function 'read_csv'"),
        (["export", "judged.jsonl", "o.csv", "--where", "nothing"], '--where nothing: unable to find column "nothing"'),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(hcl: Hcl, judged: Path, tmp_path: Path, arguments: list[object], words: str) -> None:
    (tmp_path / "plain.jsonl").write_text('{"question": "q", "answers": ["x"], "response": "x"}')
    (tmp_path / "odd.jsonl").write_text('{"question": "q", "answers": ["x"], "response": "x", "human": "yes"}')
    done = hcl(*arguments)
    assert done.code == 2 and done.out == ""
    lines = [line for line in done.err.splitlines() if line.startswith("hcl: ")]
    assert len(lines) == 1 and words in lines[0], done.err
