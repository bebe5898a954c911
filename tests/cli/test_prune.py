"""`hcl prune` through the program: what it makes, keeps, writes and refuses, on the planted model of four blocks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import planted
import polars as pl
import pytest
from calling import Hcl
from test_surface import heavy_imports

QUICK: list[object] = ["--bootstrap", 100, "--permutations", 20]
NONE: list[object] = ["--metrics", "none"]
MEASURED = "answer-accuracy:questions.jsonl,parameters"


@pytest.fixture
def run(planted_run: list[object]) -> list[object]:
    """The command on the planted model and its questions."""
    return ["prune", *planted_run[1:], *QUICK]


def written(path: Path, rows: list[tuple[str, str, bool | None]]) -> Path:
    """Judged answers of anybody."""
    dicts = [
        {"question": question, "answers": ["?"], "response": response, "correct": correct}
        for question, response, correct in rows
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in dicts))
    return path


def made(out: str) -> dict[str, Path]:
    """The artifacts that --json names, by table."""
    answer = json.loads(out)
    return {one["table"]: Path(one["path"]) for one in [answer, *answer["also"]]}


def kept_qualities(folder: Path) -> list[list[int]]:
    """The removed blocks of every QUALITY artifact of a store."""
    frames = [pl.read_parquet(path) for path in (folder / ".hcl" / "prune").glob("*.parquet")]
    return sorted(frame["removed"].to_list()[0] for frame in frames if "unit_index" in frame.columns)


def removed(frame: pl.DataFrame, criterion: str) -> list[int]:
    return frame.filter(pl.col("removed") & (pl.col("criterion") == criterion))["block"].to_list()


def test_a_run_makes_three_tables_and_a_second_one_nothing(
    hcl: Hcl, run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.cli.loading import ModelChoice

    call = [*run, "--metrics", MEASURED, "--json", "--random-seeds", 2]
    first = hcl(*call)
    assert first.code == 0, first.err
    tables = made(first.out)
    assert list(tables) == ["blocks", "criteria-compared", "retained"]
    blocks, retained = (pl.read_parquet(tables[name]) for name in ("blocks", "retained"))
    criteria = ["avss", "block-influence", "angular", "perplexity", "taylor", "magnitude", "random", "last"]
    assert blocks["criterion"].unique(maintain_order=True).to_list() == criteria
    assert blocks.height == 4 * 9 and set(blocks["dataset"]) == {"questions.jsonl"}
    assert removed(blocks, "last") == [4]  # a quarter of four
    assert set(retained["metric"]) == {"answer-accuracy", "parameters"} and retained.height == 2 * 9
    weights = retained.filter(metric="parameters", variant="last")
    assert (
        weights["before"].item() - weights["after"].item() == 3 * 24 * 12 + 4 * 24 * 8 + 2 * 24
    )  # MLP, attention, norms
    compared = pl.read_parquet(tables["criteria-compared"])
    assert compared.filter(other="damage").height == 9 and compared.height == 9 * 8 // 2 + 9
    assert len(kept_qualities(tmp_path)) == 1 + blocks.filter("removed")["block"].n_unique()

    monkeypatch.setattr(ModelChoice, "load", lambda *_: pytest.fail("the model was loaded"))
    second = hcl(*call)
    assert json.loads(second.out)["cached"] and made(second.out) == tables
    assert "from the store" in second.err and first.err.split("planted, ")[1] == second.err.split("planted, ")[1]
    assert heavy_imports(tmp_path, *call) == []


def test_each_option_that_changes_a_row_changes_the_key(hcl: Hcl, run: list[object]) -> None:
    def key(*more: object) -> str:
        done = hcl(*run, *more, "--dry-run")
        assert done.code == 0, done.err
        return done.out.split()[1]

    settings: list[list[object]] = [
        ["--limit", 2], ["--max-tokens", 9], ["--prompt", "plain"], ["-c", "avss"], ["--activations", "mlp"],
        ["--epsilon", "1e-5"], ["--random-seeds", 2], ["--no-damage"], ["--permutations", 30], ["--fraction", 0.5],
        ["--n", 1], ["--rule", "contiguous"], ["--protect", "first:1"], ["--search", "greedy"], ["--remove", "2"],
        ["--keep-first", 2], ["--bootstrap", 200], ["--seed", 1], ["--batch-tokens", 64], ["--dtype", "float64"],
        ["--attention", "eager"],
    ]  # fmt: skip
    keys = [key(), *(key(*setting) for setting in settings)]
    assert len(set(keys)) == len(keys)
    assert key("--device", "cpu") == key("--metrics", "parameters") == keys[0]
    assert key("--export", "new", "--export-criterion", "avss") == keys[0]


def test_scored_answers_come_through_the_pipe(hcl: Hcl, planted_run: list[object], planted_model: Path) -> None:
    """Every criterion of hallucination; the prompt is that of the answers."""
    sampled = hcl(*planted_run, "-n", 8, "--temperature", 1.5, "--exit-layers", 4)
    scored = hcl("score", "--cluster", "exact", stdin=sampled.out)
    done = hcl(
        "prune", "-c", "hss,eavss,hsav", "-m", planted_model, *QUICK, *NONE, "--n", 1, "--json", stdin=scored.out
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert scored.path.stem in answer["inputs"][0]["key"]
    frame = pl.read_parquet(answer["path"])
    assert frame["criterion"].unique(maintain_order=True).to_list() == ["eavss", "hsav", "hss"]
    assert set(frame["activations"]) == {"residual"} and set(frame["dataset"]) == {"questions.jsonl"}
    assert "hallucinated; likelihoods are those of the" in done.err


def test_answers_by_hand(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    """Likelihood: the tokens of the factual answers alone; without block 4 the model's law is that of its exit 3.
    Activations: the tokens of all answers, behind block 1 of the planted law."""
    rows = [("ask-one", "paris", True), ("ask-many", "red", True), ("ask-many", "green", True),
            ("ask-hard", "ask-many", False), ("ask-one", "lyon", None)]  # fmt: skip
    path = written(tmp_path / "judged.jsonl", rows)
    done = hcl("prune", path, *run[2:], *NONE, "-c", "avss,perplexity,hsav", "--n", 1)
    frame = pl.read_parquet(done.path)

    def loss(layer: int, question: str, answer: str) -> float:
        logits = planted.scores(layer, question)
        return float(np.log(np.exp(logits).sum()) - logits[planted.WORDS.index(answer)])

    factual = [row[:2] for row in rows if row[2]]
    without = np.mean([loss(3, *pair) for pair in factual])
    last = frame.filter(criterion="perplexity", block=4)
    assert last["score"].item() == pytest.approx(np.exp(without), rel=1e-4)
    assert last["damage"].item() == pytest.approx(without - np.mean([loss(4, *pair) for pair in factual]), abs=1e-4)

    def variance(word: str) -> float:
        return float(np.var(np.concatenate([np.eye(12)[planted.WORDS.index(word)], planted._added(0, word)])))

    of_answers = [variance(row[1]) for row in rows if row[2] is not None]
    assert frame.filter(criterion="avss", block=1)["variance"].item() == pytest.approx(np.mean(of_answers), rel=1e-4)
    assert frame.filter(criterion="hsav", block=1)["score"].item() == pytest.approx(of_answers[3], rel=1e-4)
    assert "1 of them hallucinated; likelihoods are those of the 3 factual ones; 1 without a verdict" in done.err


def test_a_checkpoint_without_the_blocks_is_loaded_by_the_library(
    hcl: Hcl, run: list[object], tmp_path: Path, planted_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    done = hcl(*run, *NONE, "-c", "first,last", "--n", 1, "--export", "out", "--export-criterion", "first")
    assert done.code == 0, done.err
    assert "checkpoint without blocks 1 in out" in done.err
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    whole: Any = AutoModelForCausalLM.from_pretrained(planted_model)
    assert model.config.num_hidden_layers == len(model.model.layers) == 3
    for mine, its in zip(model.model.layers, whole.model.layers[1:], strict=True):
        assert (mine.mlp.down_proj.weight == its.mlp.down_proj.weight).all()
    again = hcl(*run, *NONE, "-c", "first,last", "--n", 1, "--export", "out", "--export-criterion", "first")
    assert again.code == 2 and "--export out: this folder is not empty" in again.err
    assert "Traceback" not in again.err and again.out == ""


def test_the_first_blocks_are_the_model_that_exits_early(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    done = hcl(*run, *NONE, "--keep-first", 2, "--export", "early")
    frame = pl.read_parquet(done.path)
    assert set(frame["criterion"]) == {"given"} and removed(frame, "given") == [3, 4]
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "early").eval()
    for word in planted.WORDS[3:]:
        with torch.inference_mode():
            logits = model(torch.tensor([[planted.WORDS.index(word)]])).logits[0, -1]
        np.testing.assert_allclose(logits.double(), planted.scores(2, word), atol=1e-3)


def test_every_size_of_a_sweep_has_rows_figures_and_tables(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    call = [*run, "-c", "first", "--n", 1, "--metrics", MEASURED, "--sweep", "2-3", "--protect", "last:1", "--json"]
    files = ["--figure", "a.svg", "--activations-figure", "b.svg", "--quality-figure", "c.svg", "--table", "d.md",
             "--retained-table", "e.csv"]  # fmt: skip
    done = hcl(*call, *files)
    assert done.code == 0, done.err
    rows = pl.read_parquet(made(done.out)["retained"]).filter(metric="parameters")
    assert rows.select("variant", "n_blocks").rows() == [("first", 1), ("first", 2), ("first", 3)]
    assert rows["blocks"].to_list() == [[1], [1, 2], [1, 2, 3]]
    assert rows["after"].is_sorted(descending=True) and rows["after"].n_unique() == 3
    assert kept_qualities(tmp_path) == [[], [1], [1, 2], [1, 2, 3]]
    for name in files[1::2]:
        assert (tmp_path / name).stat().st_size > 100 and f"in {name}" in done.err


def test_criteria_that_agree_are_measured_once(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    """`first` and the user remove block 1: the whole model and one cut one are measured, and a further criterion adds
    one more to what the store has."""
    one = hcl(*run, "-c", "first", "--remove", 1, "--n", 1, "--metrics", "parameters", "--json")
    rows = pl.read_parquet(made(one.out)["retained"])
    assert rows.select("variant", "n_blocks").rows() == [("first", 1), ("given", 1)]
    assert kept_qualities(tmp_path) == [[], [1]]
    hcl(*run, "-c", "first,last", "--n", 1, "--metrics", "parameters")
    assert kept_qualities(tmp_path) == [[], [1], [4]]


def test_what_a_sweep_cannot_have_is_said(hcl: Hcl, run: list[object]) -> None:
    """A search orders what it removed, blocks given are in no order; neither is a score that is undefined."""
    call = ["-c", "last", "--search", "greedy", "--remove", 2, "--n", 1, "--sweep", "1-3", "--metrics", "parameters"]
    done = hcl(*run, *call, "--json")
    rows = pl.read_parquet(made(done.out)["retained"])
    sizes = rows.group_by("variant", maintain_order=True).agg("n_blocks").sort("variant").rows()
    assert sizes == [("given", [1]), ("greedy", [1]), ("last", [1, 2, 3])]
    said = "orders 1 blocks, so --sweep has nothing of it at 2, 3; search further with --n"
    assert f"prune: greedy {said}" in done.err.splitlines()
    assert "prune: given orders 0 blocks, so --sweep has nothing of it at 2, 3" in done.err.splitlines()
    assert "undefined" not in done.err


def test_a_sweep_takes_no_block_without_a_score(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    """Behind an answer the MLP of block 1 alone says anything; the others have a variance of 0, hence no contrast."""
    path = written(tmp_path / "judged.jsonl", [("ask-one", "paris", True), ("ask-many", "lyon", False)])
    call = ["-c", "eavss", "--activations", "mlp", "--n", 1, "--metrics", "parameters", "--sweep", "1-2", "--json"]
    done = hcl("prune", path, *run[2:], *call)
    blocks, retained = (pl.read_parquet(made(done.out)[name]) for name in ("blocks", "retained"))
    assert blocks["score"].is_not_null().to_list() == [True, False, False, False]
    assert retained["blocks"].to_list() == [[1]]
    assert "prune: eavss mlp orders 1 blocks, so --sweep has nothing of it at 2" in done.err.splitlines()
    assert "prune: eavss: 3 of 4 blocks have no score (a sparsity, a variance or a state of 0)" in done.err


def test_without_a_store(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    done = hcl(*run, "-c", "first", "--metrics", "parameters", "--no-cache", "-o", "mine.parquet", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["also"] == [] and (tmp_path / "mine.parquet").is_file()
    assert not list((tmp_path / ".hcl").rglob("*.parquet"))
    assert "parameters" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fraction", "0"], "--fraction 0: expected more than 0 and less than 1"),
        (["--fraction", "1"], "--fraction 1: expected more than 0 and less than 1"),
        (["--fraction", "1.5"], "--fraction 1.5: expected more than 0 and less than 1"),
        (["--fraction", "0.1"], "--fraction 0.1: less than one of 4 blocks"),
        (["--fraction", "nan"], "--fraction nan: expected more than 0"),
        (["--n", "0"], "--n 0: expected at least 1 block"),
        (["--n", "4"], "--n 4: the model has 4 blocks, so none would be left"),
        (["--fraction", "0.5", "--n", "2"], "--fraction 0.5 and --n 2: say once"),
        (["--n", "2", "--rule", "cumulative"], "--n 2: --rule cumulative needs a share"),
        (["-c", "deepest"], "--criterion deepest: 'deepest' is none; expected all or some of avss"),
        (["-c", "avss,last,avss"], "avss is there twice"),
        (["-c", "eavss"], "--criterion eavss: compares hallucinated with factual answers"),
        (["--activations", "heads"], "--activations heads: expected some of residual, attention, mlp"),
        (["--protect", "middle:2"], "--protect middle:2: expected first:N, last:N or both"),
        (["--protect", "first:2,last:2"], "--protect leaves 0 of 4"),
        (["--protect", "first:9"], "--protect first:9: the model has 4 blocks"),
        (["--rule", "best"], "--rule best: expected lowest or cumulative or published or contiguous"),
        (["--search", "all"], "--search all"),
        (["--search", "greedy", "--rule", "cumulative", "--fraction", "0.2"], "--fraction 0.2: less than one of 4"),
        (
            ["--search", "greedy", "--rule", "published", "--protect", "first:2", "--fraction", "0.8"],
            "--fraction 0.8: 3 blocks to remove, but --protect leaves 2 of 4",
        ),
        (["--epsilon", "0"], "--epsilon 0: expected a number above 0"),
        (["--epsilon", "0", "--dry-run"], "--epsilon 0: expected a number above 0"),
        (["--remove", "1-4"], "--remove 1-4: nothing of planted's 4 blocks would be left"),
        (["--remove", "5"], "--remove 5: planted has blocks 1..4, asked was 5; try --remove 2,4"),
        (["--remove", "2", "--keep-first", "2"], "--remove 2 and --keep-first 2: say once"),
        (["--keep-first", "4"], "--keep-first 4: planted has 4 blocks; expected 1 to 3"),
        (["--keep-first", "0"], "--keep-first 0: planted has 4 blocks; expected 1 to 3"),
        (["--sweep", "99"], "--sweep 99: 1 to 3 blocks can be removed"),
        (["--sweep", "3-1"], "--sweep 3-1: '3-1' is no number or range"),
        (["--metrics", "beauty"], "--metrics beauty: there is no metric 'beauty'"),
        (["--metrics", "none", "--sweep", "1"], "--metrics none: measures no quality"),
        (["--export", "new"], "--export: 8 criteria remove blocks"),
        (["--export", "new", "--export-criterion", "greedy"], "--export-criterion greedy: is not measured here"),
        (["--export", "new", "--export-criterion", "random"], "--export-criterion random: removes blocks in several"),
        (["--export-criterion", "avss"], "--export-criterion avss: says what --export writes"),
        (["--figure", "a.txt"], "--figure a.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_used(hcl: Hcl, run: list[object], arguments: list[str], words: str) -> None:
    refused(hcl(*run, *arguments), words)
    assert not Path("new").exists()


def refused(done: Any, words: str) -> None:
    assert done.code == 2 and done.out == "", done.err
    errors = [line for line in done.err.splitlines() if not line.startswith("prune: ")]
    assert len(errors) == 1 and words in errors[0], done.err


def test_data_that_cannot_be_used(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    model = run[2:]
    refused(hcl("prune", *model), "stdin is empty")
    refused(hcl("prune", *model, "-d", "lab-statements"), "--dataset lab-statements: holds statements")
    judged = written(tmp_path / "judged.jsonl", [("ask-one", "paris", True), ("ask-many", "red", True)])
    refused(hcl("prune", judged, *model), "judged.jsonl: column correct: all 2 judged answers are factual")
    judged = written(tmp_path / "judged.jsonl", [("ask-one", "lyon", False)])
    refused(hcl("prune", judged, *model), "judged.jsonl: column correct: all 1 judged answers are hallucinated")
    (tmp_path / "responses.jsonl").write_text('{"question": "ask-one", "response": "paris", "answers": []}\n')
    refused(hcl("prune", "responses.jsonl", *model, "-c", "eavss"), "--criterion eavss: compares hallucinated")


def test_no_file_that_is_read_is_written_over(hcl: Hcl, run: list[object], tmp_path: Path) -> None:
    """A prompt or the set of a metric was written over by a table of the same name."""
    (tmp_path / "ask.md").write_text("{question}")
    (tmp_path / "own.csv").write_text("text\nask-one paris\n")
    for arguments, said in (
        (["--prompt", "ask.md", "--table", "ask.md"], "--table ask.md: is the file that is read"),
        (["--metrics", "perplexity:own.csv", "--retained-table", "own.csv"], "--retained-table own.csv: is the file"),
        (["--table", "x.md", "--retained-table", "x.md"], "--retained-table x.md: --table writes the same file"),
    ):
        found = hcl(*run, *arguments)
        assert found.code == 2 and said in found.err, found.err
    assert (tmp_path / "ask.md").read_text() == "{question}" and "ask-one" in (tmp_path / "own.csv").read_text()
