"""`hcl hcb --diversity coverage` and `spectrum` through the program."""

import json
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports


@pytest.fixture
def scored(hcl: Hcl, tmp_path: Path) -> Path:
    """Ten questions at two layers; layer 2 has six right answers of two kinds, layer 1 six of one."""
    lines = []
    for question in range(10):
        for layer, texts in ((1, ["Paris"] * 6), (2, ["Paris", "a blue whale"] * 3)):
            for at, text in enumerate(texts):
                lines.append(
                    {"model": "m", "dataset": "d", "question": f"q{question}", "answers": ["Paris", "a blue whale"],
                     "response": text, "exit_layer": layer, "sample_index": at}
                )  # fmt: skip
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return hcl("score", "answers.jsonl").path


def test_both_through_the_program(hcl: Hcl, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for diversity, words in (("coverage", "70 % of the correct answers are covered"), ("spectrum", "log-determinant")):
        call = ["hcb", scored, "--diversity", diversity, "--bootstrap", 100]
        done = hcl(*call, "--table", "t.md", "--figure", "f.svg", "--compare", "--power")
        assert done.code == 0, done.err
        layers = pl.read_parquet(done.path)
        assert layers["creativity_raw"][0] < layers["creativity_raw"][1]
        assert layers["is_best"].to_list() == [False, True] and layers["n_creativity_questions"].to_list() == [10, 10]
        assert words in " ".join(done.err.split()) and words in (tmp_path / "t.md").read_text()
        assert hcl(*call).path == done.path and heavy_imports(tmp_path, *call) == []


def test_keys(hcl: Hcl, scored: Path) -> None:
    def key(*more: object) -> str:
        done = hcl("hcb", scored, "--bootstrap", 100, "--dry-run", *more)
        assert done.code == 0, done.err
        return done.out.split()[1]

    assert len({key("--diversity", name) for name in ("clusters", "rarefied", "coverage", "entropy", "spectrum")}) == 5
    from hcl_cli.models.encoders import find_encoder

    folder = find_encoder().folder  # the default one by its folder is the default one
    assert key("--diversity", "spectrum") == key("--diversity", "spectrum", "--embedder", folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--diversity", "width"],
            "--diversity width: expected one of clusters, rarefied, coverage, entropy, spectrum",
        ),
        (["--embedder", "x"], "--embedder x: reads answers for --diversity spectrum alone; add it"),
        (["--diversity", "spectrum", "--embedder", "./no"], "--embedder ./no: no such folder"),
    ],
)
def test_bad_options_are_one_line(hcl: Hcl, scored: Path, options: list[object], words: str) -> None:
    done = hcl("hcb", scored, *options)
    assert done.code == 2 and done.err.count("\n") == 1 and words in done.err
