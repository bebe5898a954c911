"""`hcl lens` from a question to its views: golden on a model whose every layer is known, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import planted
import polars as pl
import pytest
from calling import Hcl
from pytest import approx
from test_bad_input import refused
from test_surface import heavy_imports

from hcl_cli.cli.lens_options import parse_candidates, parse_position
from hcl_cli.errors import BadOption

RUN = ("--prompt", "raw")  # the planted words are the whole prompt


def law(layer: int, token: str, *, norm: bool = True) -> np.ndarray:
    """What the planted model says behind `token` after `layer` blocks: [vocab]."""
    rows = [planted._added(block, token) for block in range(layer)]
    raw = planted.STRENGTH / 10 * np.sum(rows, axis=0) if rows else np.zeros(len(planted.WORDS))
    scores = (planted.scores(layer, token) if layer else raw) if norm or layer == planted.N_LAYERS else raw
    return np.exp(scores) / np.exp(scores).sum()


def table(hcl: Hcl, model: Path, *arguments: object) -> pl.DataFrame:
    return pl.read_parquet(hcl("lens", *arguments, "-m", model, *RUN).path)


def test_options_on_the_planted_model(hcl: Hcl, planted_model: Path) -> None:
    """One word, two words: the second is the planted law behind the first."""
    frame = table(hcl, planted_model, "ask-one", "--options", "paris, lyon, red </s>")
    words = planted.WORDS
    for layer in range(5):
        first, second = law(layer, "ask-one"), law(layer, "red")
        probs = [
            first[words.index("paris")],
            first[words.index("lyon")],
            first[words.index("red")] * second[words.index("</s>")],
        ]
        rows = frame.filter(exit_layer=layer)
        assert rows["candidate"].to_list() == ["paris", "lyon", "red </s>"]
        assert rows["n_tokens"].to_list() == [1, 1, 2]
        assert rows["prob"].to_list() == approx(probs, rel=1e-5)
        assert rows["logprob"].to_list() == approx(np.log(probs).tolist(), abs=1e-5)
        assert rows["share"].to_list() == approx((np.array(probs) / sum(probs)).tolist(), rel=1e-5)
        assert rows["entropy"][0] == approx(-(first * np.log(first)).sum(), abs=1e-5)
    # Block 1 favours lyon, every later sum paris; before any block all words are alike and the first option wins.
    tops = frame.filter("is_top").sort("exit_layer")["candidate"].to_list()
    assert tops == ["paris", "lyon", "paris", "paris", "paris"]
    assert frame["stays_from"].unique().to_list() == [2]
    assert frame.filter(exit_layer=0)["entropy"][0] == approx(np.log(12))
    assert frame.select("model", "dataset", "prompt", "readout", "position", "token", "scoring").unique().rows() == [
        ("planted", None, "ask-one", "norm", 0, "ask-one", "full")
    ]


def test_by_hand_without_the_norm(hcl: Hcl, planted_model: Path) -> None:
    """After block 1 the scores are 4 (1, 1.2, 1): e^4, e^4.8, e^4 and nine ones."""
    frame = table(hcl, planted_model, "ask-one", "--no-norm", "--top", 3)
    sum_ = 2 * np.exp(4) + np.exp(4.8) + 9
    rows = {row["candidate"]: row for row in frame.filter(exit_layer=1).to_dicts()}
    # Of the last layer's three likeliest the third is the first of two equals, lyon or rome by token id.
    assert list(rows) == ["paris", "lyon", "rome"]
    assert rows["paris"]["prob"] == approx(np.exp(4) / sum_, rel=1e-5)
    assert rows["lyon"]["prob"] == approx(np.exp(4.8) / sum_, rel=1e-5)
    assert [row["is_top"] for row in rows.values()] == [False, True, False]
    last = frame.filter(exit_layer=4)
    assert last["prob"].to_list() == approx(np.sort(law(4, "ask-one"))[::-1][:3].tolist(), rel=1e-5)
    assert frame["readout"].unique().to_list() == ["no-norm"]
    assert frame["share"].null_count() == frame.height


def test_the_first_token_alone(hcl: Hcl, planted_model: Path) -> None:
    asked = ("ask-many", "--options", "red green,red blue,lyon", "--scoring", "first-token")
    result = hcl("lens", *asked, "-m", planted_model, *RUN)
    frame = pl.read_parquet(result.path)
    assert "begin with the same token ('red green' and 'red blue': 'red')" in result.err
    for layer in range(5):
        of = law(layer, "ask-many")
        expected = [of[planted.WORDS.index(word)] for word in ("red", "red", "lyon")]
        assert frame.filter(exit_layer=layer)["prob"].to_list() == approx(expected, rel=1e-5)
    assert frame["scoring"].unique().to_list() == ["first-token"]


def test_every_position_reads_the_token_before(hcl: Hcl, planted_model: Path) -> None:
    result = hcl("lens", "ask-one ask-hard paris", "--position", "all", "--top", 2, "-m", planted_model, *RUN)
    frame = pl.read_parquet(result.path)
    for position, word in enumerate(("ask-one", "ask-hard", "paris")):
        rows = frame.filter(position=position)
        assert rows["token"].unique().to_list() == [word]
        for layer in range(1, 5):
            top = rows.filter("is_top", exit_layer=layer)
            assert top["prob"].item() == approx(law(layer, word).max(), rel=1e-5)
    # After ask-hard blocks 1 to 3 say "lyon", as does the whole model (0.2 for rome is too little).
    assert frame.filter(position=1, exit_layer=4)["candidate"].to_list() == ["paris", "lyon"]
    assert "token" in result.err
    one = table(hcl, planted_model, "ask-one ask-hard paris", "--position", "1", "--top", 2)
    assert one.equals(frame.filter(position=1))
    assert table(hcl, planted_model, "ask-one ask-hard paris", "--position", "-2", "--top", 2).equals(one)


def test_a_file_of_questions_with_options_of_their_own(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"question_id": "a", "question": "ask-one", "pick": ["lyon", "paris", "lyon"]}\n'
        '{"question_id": "b", "question": "ask-many", "pick": ["red", "green", "blue"]}\n'
        '{"question_id": "c", "question": "ask-hard", "pick": ["rome"]}\n'
    )
    frame = table(hcl, planted_model, "--input", "q.jsonl", "--options", "column:pick")
    at = frame.filter(exit_layer=4)
    assert at.select("prompt_id", "candidate").rows() == [
        ("a", "lyon"), ("a", "paris"), ("b", "red"), ("b", "green"), ("b", "blue"), ("c", "rome"),
    ]  # fmt: skip
    assert at.filter(prompt_id="b")["prob"].to_list() == approx(
        [law(4, "ask-many")[planted.WORDS.index(word)] for word in ("red", "green", "blue")], rel=1e-5
    )
    assert at["share"][-1] == 1.0
    assert frame["dataset"].unique().to_list() == ["q.jsonl"]
    # Nobody grades anything: a file without answers is as good, and so are tokens instead of options.
    few = table(hcl, planted_model, "--input", "q.jsonl", "--limit", 2, "--options", "paris,red")
    assert few["prompt_id"].unique(maintain_order=True).to_list() == ["a", "b"]
    plain = table(hcl, planted_model, "--input", "q.jsonl", "--columns", "question=question_id")
    assert plain["prompt"].unique(maintain_order=True).to_list() == ["a", "b", "c"]


def test_a_text_from_stdin_only_for_a_dash(hcl: Hcl, planted_model: Path) -> None:
    arguments = ("--options", "paris,lyon", "-m", planted_model, *RUN)
    assert hcl("lens", "-", *arguments, stdin="ask-one\n").path == hcl("lens", "ask-one", *arguments).path
    assert hcl("lens", "ask-one", *arguments, stdin="not read\n").path == hcl("lens", "ask-one", *arguments).path
    refused(hcl("lens", *arguments, stdin="ask-one\n"), "nothing to look at", "--input")
    refused(hcl("lens", "-", *arguments, stdin="\n"), "stdin is empty")
    refused(hcl("lens", "-", *arguments, stdin=b"\xff\n"), "not UTF-8")


def test_a_hit_shows_the_same_and_imports_nothing_heavy(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question_id": "a", "question": "ask-one"}\n')
    for what in (("ask-one paris", "--options", "paris,lyon"), ("--input", "q.jsonl", "--position", "all")):
        run = ("lens", *what, "-m", planted_model, *RUN)
        first = hcl(*run)
        again = hcl(*run, "--html", "page.html", "--table", "t.md", "--figure", "f.svg")
        assert again.path == first.path
        shown = [line for line in first.err.splitlines() if not line.startswith("lens: ")]
        assert again.err.splitlines()[: len(shown)] == shown
        assert "ask-one" in (tmp_path / "page.html").read_text()
        assert "ask-one" in (tmp_path / "t.md").read_text()
        assert (tmp_path / "f.svg").read_text().startswith("<?xml")
        assert heavy_imports(tmp_path, *run, "--html", "page.html", "--table", "t.csv") == []
    assert hcl(*run, "--quiet").err == ""


def test_what_changes_the_key(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("{question}")

    def key(*more: object) -> str:
        run = ("lens", "ask-one", "--options", "paris,lyon", "-m", planted_model, "--dry-run", "--json", *more)
        return str(json.loads(hcl(*run).out)["key"])

    base = key(*RUN)
    changed = [
        key(), key("--prompt", "t.txt"), key(*RUN, "--no-norm"), key(*RUN, "--scoring", "first-token"),
        key(*RUN, "--position", "0"), key(*RUN, "--dtype", "float64"), key(*RUN, "--attention", "eager"),
        key(*RUN, "--options", "lyon,paris"), key(*RUN, "--position", "all"),
    ]  # fmt: skip
    assert len({base, *changed}) == 10
    same = [
        key(*RUN, "--device", "cpu"), key(*RUN, "--show-layers", "0,4"), key(*RUN, "--html", "x.html"),
        key(*RUN, "--options", " paris ,lyon"), key(*RUN, "--position", "last"), key(*RUN, "--seed", 5),
    ]  # fmt: skip
    assert set(same) == {base}


def test_settings_that_say_nothing_about_a_call_are_no_error(
    hcl: Hcl, planted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`limit` set for sampling refused every text, `top` every list of options."""
    one = hcl("lens", "ask-one", "-m", planted_model, *RUN).path
    two = hcl("lens", "ask-one", "--options", "paris,lyon", "-m", planted_model, *RUN).path
    (tmp_path / "hcl.toml").write_text("limit = 3\n[lens]\nscoring = 'first-token'\n")
    monkeypatch.setenv("HCL_OPTIONS", "a,b")
    assert hcl("lens", "ask-one", "-m", planted_model, *RUN).path == one
    monkeypatch.setenv("HCL_TOP", "13")
    monkeypatch.setenv("HCL_SCORING", "full")
    assert hcl("lens", "ask-one", "--options", "paris,lyon", "-m", planted_model, *RUN).path == two


def test_only_the_layers_asked_for_are_shown(hcl: Hcl, planted_model: Path) -> None:
    run = ("lens", "ask-one", "--options", "paris,lyon", "-m", planted_model, *RUN)
    shown = hcl(*run, "--show-layers", "0,2-4:2")
    assert next(line.split() for line in shown.err.splitlines() if line.startswith("layer")) == [
        "layer", "0", "2", "4",
    ]  # fmt: skip
    assert pl.read_parquet(shown.path)["exit_layer"].n_unique() == 5


def test_the_lab_model_and_its_tokenizer_need_no_options(hcl: Hcl) -> None:
    result = hcl("lens", "What is the capital of France?", "--options", "Paris,Rome,Lyon")
    frame = pl.read_parquet(result.path)
    last = frame.filter(exit_layer=10)
    assert last.filter("is_top")["candidate"].to_list() == ["Paris"]
    assert last["prob"][0] > 0.9
    # The template ends in "Answer:", so the options begin with a blank: " Par", "is".
    assert last["n_tokens"].to_list()[0] == 2
    likeliest = pl.read_parquet(hcl("lens", "What is the capital of France?").path).filter("is_top", exit_layer=10)
    assert likeliest["candidate"].to_list() == [" Par"]
    assert likeliest["prob"].item() >= last["prob"][0]


def test_a_tuned_lens_is_trained_kept_and_used(hcl: Hcl, planted_model: Path, tmp_path: Path) -> None:
    texts = [{"text_id": str(at), "text": f"{word} paris"} for at, word in enumerate(("ask-one", "ask-many") * 10)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in texts))
    run = ("lens", "ask-one", "--options", "paris,lyon", "-m", planted_model, *RUN, "--tuned", "tuned")
    first = hcl(*run, "--train-tuned", "texts.jsonl")
    assert "tuned lens of planted on texts.jsonl in tuned: mean KL to the last layer" in first.err
    before, after = (float(word) for word in first.err.split("mean KL to the last layer ")[1].split()[0:4:3])
    assert after < before
    frame = pl.read_parquet(first.path)
    assert frame["readout"].unique().to_list() == ["tuned"]
    plain = table(hcl, planted_model, "ask-one", "--options", "paris,lyon")
    assert frame.filter(exit_layer=4)["prob"].to_list() == approx(plain.filter(exit_layer=4)["prob"].to_list())
    final = plain.filter(exit_layer=4)["prob"][0]
    distance = [abs(one.filter(exit_layer=1)["prob"][0] - final) for one in (frame, plain)]
    assert distance[0] < distance[1]
    assert hcl(*run).path == first.path
    assert heavy_imports(tmp_path, *run) == []
    refused(hcl(*run, "--train-tuned", "texts.jsonl"), "--tuned tuned", "already there")
    refused(hcl("lens", "ask-one", "-m", "lab", "--tuned", "tuned"), "another model", "--train-tuned")
    (tmp_path / "file").write_text("x")
    refused(hcl(*run[:-1], "file", "--train-tuned", "texts.jsonl"), "--tuned file")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["", "--options", "a,b"], ["the text is empty"]),
        (["  "], ["the text is empty"]),
        (["red " * 80], ["80 tokens", "64 positions"]),
        (["ask-one", "--options", "paris"], ["--options paris", "two or more"]),
        (["ask-one", "--options", "paris,,lyon"], ["--options", "empty"]),
        (["ask-one", "--options", ""], ["--options", "empty"]),
        (["ask-one", "--options", "paris, paris"], ["'paris' is given twice"]),
        (["ask-one", "--options", '"paris,lyon'], ["--options"]),
        (["ask-one", "--options", "column:answers"], ["--options column:answers", "--input"]),
        (["ask-one", "--scoring", "best"], ["--scoring best", "first-token"]),
        (["ask-one", "--position", "99"], ["--position 99", "1 tokens", "-1"]),
        (["ask-one", "--position", "-2"], ["--position -2"]),
        (["ask-one", "--position", "middle"], ["--position middle", "all"]),
        (["ask-one", "--show-layers", "5"], ["--show-layers 5", "0..4"]),
        (["ask-one", "--show-layers", "some"], ["--show-layers"]),
        (["ask-one", "--top", "0"], ["--top 0"]),
        (["ask-one", "--top", "13"], ["--top 13", "12 tokens"]),
        (["ask-one", "--columns", "question=x"], ["--columns question=x", "--input"]),
        (["ask-one", "--input", "q.jsonl"], ["name one of the two"]),
        (["--input", "q.jsonl", "--options", "column:nope"], ["--options column:nope", "q.jsonl"]),
        (["--input", "q.jsonl", "--options", "column:"], ["--options column:", "column:answers"]),
        (["--input", "q.jsonl", "--options", "column:none"], ["question 'a'", "no options"]),
        (["--input", "q.jsonl", "--options", "column:empty"], ["column empty", "no question has an option"]),
        (["--input", "bad.jsonl"], ["bad.jsonl", "no column question", "--columns question="]),
        (["--input", "nowhere.jsonl"], ["nowhere.jsonl", "no such file"]),
        (["ask-one", "--figure", "f.gif"], ["--figure f.gif", ".svg"]),
        (["ask-one", "--html", "f.txt"], ["--html f.txt", ".html"]),
        (["ask-one", "--table", "no/t.md"], ["--table no/t.md"]),
        (["--input", "q.jsonl", "--table", "q.csv", "-o", "q.jsonl"], ["-o q.jsonl"]),
        (["ask-one", "--prompt", "nothing"], ["--prompt nothing"]),
        (["ask-one", "--prompt", "chat"], ["--prompt chat"]),
        (["ask-one", "--tuned", "nowhere"], ["--tuned nowhere", "--train-tuned"]),
        (["ask-one", "--tuned", "x", "--no-norm"], ["--tuned x and --no-norm"]),
        (["ask-one", "--train-tuned", "wikitext2"], ["--train-tuned wikitext2", "--tuned DIR"]),
        (["ask-one", "--train-tuned", "x.txt", "--tuned", "d", "--dry-run"], ["--train-tuned and --dry-run"]),
        (["ask-one", "--trust-remote-code", "other"], ["--trust-remote-code other"]),
        (["ask-one", "--dtype", "int8"], ["--dtype int8"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_be_looked_at_is_said_in_one_line(
    hcl: Hcl, planted_model: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"question_id": "a", "question": "ask-one", "none": [], "empty": []}\n'
        '{"question_id": "b", "question": "ask-many", "none": ["red"], "empty": []}\n'
    )
    (tmp_path / "bad.jsonl").write_text('{"ask": "ask-one"}\n')
    raw = [] if "--prompt" in arguments else RUN
    refused(hcl("lens", *arguments, "-m", planted_model, *raw), *words)


def test_options_with_commas_and_positions_with_signs() -> None:
    assert parse_candidates('none, "Paris, France",two ', None) == (("none", "Paris, France", "two"), None)
    assert parse_candidates("column: answers", "q.jsonl") == (None, "answers")
    assert parse_candidates(None, None) == (None, None)
    assert [parse_position(text) for text in ("last", "all", "7", "-3")] == [-1, None, 7, -3]
    with pytest.raises(BadOption, match="--position 1.5"):
        parse_position("1.5")


def test_more_than_a_text_on_stdin(tmp_path: Path, planted_model: Path) -> None:
    """A pipe with somebody's data in it is refused before it fills the memory."""
    script = f"head -c 2000000 /dev/zero | {sys.executable} -m hcl_cli lens - -m {planted_model}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "more than 1048576 bytes" in done.stderr
