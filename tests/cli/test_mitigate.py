"""`hcl mitigate` through the program, on a model whose mistakes training can mend because they are all alike."""

import itertools
import json
from pathlib import Path
from typing import Any

import planted
import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

QUICK: list[object] = [
    "--bootstrap", 200, "-n", 4, "--epochs", 8, "--patience", 8, "--rank", 2, "--learning-rate", 0.01, "--tau", 1,
    "--ce-weight", 3,
]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """36 questions that end with ask-hard. The model answers lyon, paris or red; rome and blue are right."""
    asked = itertools.product(planted.WORDS[6:], planted.WORDS[6:])
    return [
        {"question_id": f"{one}-{two}", "question": f"{one} {two} ask-hard", "answers": ["rome", "blue"],
         "response": answer, "correct": answer in ("rome", "blue"), "finish_reason": "eos", "exit_layer": layer,
         "sample_index": index, "model": "planted", "dataset": "hard"}
        for one, two in asked
        for index, (answer, layer) in enumerate((("rome", 4), ("blue", 3), ("lyon", 4), ("red", 3)))
    ]  # fmt: skip


def written(path: Path, some: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return path


@pytest.fixture
def run(tmp_path: Path, planted_model: Path) -> list[object]:
    """The command on the planted answers."""
    (tmp_path / "prompt.txt").write_text("{question}")
    scored = written(tmp_path / "scored.jsonl", rows())
    return ["mitigate", scored, "-m", planted_model, "--prompt", tmp_path / "prompt.txt", *QUICK]


def test_mistakes_that_are_all_alike_are_mended_on_questions_never_seen(
    hcl: Hcl, run: list[object], tmp_path: Path, planted_model: Path
) -> None:
    """The planted truth: nearly every answer was wrong before; after training on other questions nearly none is, the
    interval says so, and the table has every metric of every variant. The export loads, and answers as measured."""
    done = hcl(*run, "--blocks", "3", "--variants", "chosen,random-layers,cross-entropy", "--export", tmp_path / "out",
               "--table", tmp_path / "table.md")  # fmt: skip
    table = pl.read_parquet(done.path)
    assert table["variant"].unique(maintain_order=True).to_list() == ["given", "cross-entropy", "random-layers"]
    assert table.group_by("variant").len()["len"].to_list() == [8, 8, 8]
    assert set(table["dataset"]) == {"hard:held-out"} and set(table["model"]) == {planted_model.name}
    by = {(row["variant"], row["metric"]): row for row in table.iter_rows(named=True)}
    row = by["given", "hallucination-rate"]
    assert row["before"] > 0.8 and row["after"] < 0.1 and row["difference_high"] < -0.5
    assert row["blocks"] == [3] and row["lead_over"] == "random-layers" and row["n_units"] >= 8
    random = by["random-layers", "hallucination-rate"]
    assert random["blocks"] != [3] and random["seed"] == 0 and random["lead"] is None
    assert row["lead"] == pytest.approx(row["after"] - random["after"])
    assert by["given", "perplexity"]["after"] < by["given", "perplexity"]["before"]
    assert by["given", "contrastive-loss"]["lead"] is None
    assert by["given", "contrastive-loss"]["after"] < by["given", "contrastive-loss"]["before"]
    for words in ("given trains blocks 3", "epoch 8 of 8", "36 questions", "have a contrast", "hallucination rate"):
        assert words in done.err
    assert "hallucination rate" in (tmp_path / "table.md").read_text()

    again = hcl("sample", written(tmp_path / "q.jsonl", rows()[::4]), "-m", tmp_path / "out" / "merged", "-n", 4,
                "--prompt", tmp_path / "prompt.txt", "--exit-layers", 4)  # fmt: skip
    assert set(pl.read_parquet(again.path)["response"]) <= {"rome", "blue"}
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_hit_trains_nothing_and_an_export_is_made_once(
    hcl: Hcl, run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is a hit that imports nothing heavy; --export then trains the chosen blocks again, says so, and
    writes the bytes that the first run wrote; a third run finds the export."""
    from hcl_cli.cli.loading import ModelChoice

    scored = hcl("score", run[1], "--judge", "exact", "--cluster", "exact").path  # ours: read without Polars
    few: list[object] = ["mitigate", scored, *run[2:], "--blocks", 3, "--variants", "chosen", "--epochs", 1]
    first = hcl(*few, "--export", tmp_path / "one")
    assert heavy_imports(tmp_path, *few, "--quiet") == []
    second = hcl(*few, "--export", tmp_path / "two")
    assert second.path == first.path and "given is trained again" in second.err
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len(one) > 6
    monkeypatch.setattr(ModelChoice, "load", lambda *_: pytest.fail("the model was loaded"))
    third = hcl(*few, "--export", tmp_path / "two")
    assert third.code == 0 and "stays" in third.err
    other = hcl(*few, "--seed", 1, "--export", tmp_path / "two")
    assert other.code == 2 and "not empty" in other.err


def test_the_same_seed_gives_the_same_bytes_and_each_option_another_key(hcl: Hcl, run: list[object]) -> None:
    few: list[object] = [*run, "--blocks", 3, "--variants", "chosen", "--epochs", 1]
    first = hcl(*few).path
    bytes_of_first = first.read_bytes()
    assert hcl(*few, "--force").path.read_bytes() == bytes_of_first

    def key(*more: object) -> str:
        return hcl(*few, *more, "--dry-run").out.split()[1]

    settings: list[list[object]] = [
        ["--blocks", "2"], ["--blocks", "eavss"], ["--variants", "chosen,all-layers"], ["--answers-of", "last"],
        ["--epochs", 2], ["--patience", 1], ["--learning-rate", 0.02], ["--rank", 3], ["--alpha", 4], ["--tau", 0.2],
        ["--ce-weight", 0.5], ["--most-answers", 2], ["-n", 5], ["--temperature", 1.0], ["--judge", "exact"],
        ["--bootstrap", 300], ["--seed", 1], ["--batch-tokens", 64], ["--dtype", "float64"],
    ]  # fmt: skip
    keys = [key(), *(key(*setting) for setting in settings)]
    assert len(set(keys)) == len(keys) and keys[0].startswith(first.stem)
    assert key("--device", "cpu") == keys[0]


def test_blocks_by_contrast(hcl: Hcl, run: list[object]) -> None:
    """A quarter of four blocks is one; half is two."""
    done = hcl(*run, "--variants", "chosen", "--epochs", 1, "--fraction", 0.5)
    table = pl.read_parquet(done.path)
    assert set(table["variant"]) == {"eavss"} and set(table["n_blocks"]) == {2}


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (lambda row: row | {"correct": True}, [], "column correct: of 144 distinct answers all are correct"),
        (lambda row: row | {"correct": False}, [], "all are hallucinated"),
        (lambda row: row | {"correct": None}, [], "none has a verdict"),
        (lambda row: row if row["response"] != "blue" else None, [],
         "none of 22 training questions has two different correct answers and a hallucinated one"),
        (lambda row: row | {"answers": None}, [], "column answers: none of"),
        (lambda row: row | {"model": "gpt2"}, [], "answers of gpt2, but --model is planted; a model learns from"),
        (lambda row: row if row["question_id"] == "red-red" else None, [], "of 1 questions none falls to"),
        (None, ["--blocks", "5"], "--blocks 5: planted has layers 1..4, asked was 5"),
        (None, ["--blocks", "late"], "--blocks 'late': 'late' is not a layer"),
        (None, ["--blocks", "all"], "--blocks: all 4 blocks are trained, so none can be drawn; leave random"),
        (None, ["--fraction", "0"], "--fraction 0: expected 0 < F <= 1"),
        (None, ["--variants", "chosen,some"], "--variants chosen,some: 'some' is none; expected one or more of chosen"),
        (None, ["--variants", "all-layers"], "expected chosen among them"),
        (None, ["--learning-rate", "1e3"], "is no longer a finite number; use a lower one"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    hcl: Hcl, run: list[object], tmp_path: Path, change: Any, arguments: list[object], words: str
) -> None:
    if change is not None:
        written(tmp_path / "scored.jsonl", [made for row in rows() if (made := change(row)) is not None])
    done = hcl(*run, *arguments)
    errors = [line for line in done.err.splitlines() if not line.startswith("mitigate: ")]
    assert done.code == 2 and done.out == ""
    assert len(errors) == 1 and words in errors[0]


def test_without_peft_one_line_says_how_to_get_it(hcl: Hcl, run: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    from hcl_cli.models import adapters

    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    done = hcl(*run)
    assert done.code == 2 and done.err.splitlines() == [
        "hcl: hcl mitigate: needs peft; install it with pip install 'hcl-cli[mitigate]'"
    ]


def test_an_input_is_needed(hcl: Hcl, tmp_path: Path) -> None:
    """Nothing on stdin, no file: no default."""
    assert "stdin is empty" in hcl("mitigate").err
    (tmp_path / "responses.jsonl").write_text('{"question": "a", "response": "b"}\n')
    assert "correct" in hcl("mitigate", tmp_path / "responses.jsonl", "-m", "lab").err


@pytest.mark.long
def test_the_default_run_on_the_lab(hcl: Hcl) -> None:
    """`hcl sample -n 20 | hcl score --cluster exact | hcl mitigate`, about a minute: every metric of three variants."""
    scored = hcl("score", "--cluster", "exact", stdin=f"{hcl('sample', '-n', 20).path}\n")
    done = hcl("mitigate", stdin=f"{scored.path}\n")
    table = pl.read_parquet(done.path)
    assert table["variant"].unique(maintain_order=True).to_list() == ["eavss", "random-layers", "all-layers"]
    assert table.height == 24 and set(table["n_blocks"]) == {2, 10}
    lower = table.filter(metric="contrastive-loss")
    assert (lower["after"] < lower["before"]).all()
