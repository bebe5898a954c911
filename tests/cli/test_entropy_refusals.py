"""`hcl entropy` and what cannot be used: one line, exit code 2, and nothing measured."""

import json
from pathlib import Path

import pytest
from calling import Hcl


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--of", "heads"], ["--of heads", "layers, attention, tokens"]),
        (["--of", "layers,layers"], ["--of", "twice"]),
        (["--of", ""], ["--of", "layers, attention, tokens"]),
        (["--varentropy", "x"], ["--varentropy x", "surprisal-variance"]),
        (["--weights", "even"], ["--weights even", "published"]),
        (["--long-texts", "maybe"], ["--long-texts maybe", "truncate"]),
        (["--answers-of", "first"], ["--answers-of first", "last"]),
        (["--save", "x"], ["--save x", "--confidence"]),
        (["--html", "x.html"], ["--html", "--confidence"]),
        (["--confidence", "--apply", "x"], ["--apply x", "drop one"]),
        (["--confidence", "--aggregate"], ["--aggregate"]),
        (["--confidence"], ["--confidence", "scored answers"]),
        (["--apply", "nowhere"], ["nowhere"]),
        (["--critic", "http://127.0.0.1:1/v1"], ["--critic", "--critic-model"]),
        (["--critic", "http://127.0.0.1:1/v1", "--critic-model", "m"], ["--critic", "hcl score"]),
        (["--group-by", "mood"], ["--group-by mood", "tone"]),
        (["--group-by", "text_id"], ["one text"]),
        (["--group-by", "spans"], ["--group-by spans", "--critic"]),
        (["--max-tokens", "1"], ["--max-tokens 1"]),
        (["--permutations", "3"], ["--permutations 3"]),
        (["--figure", "x.gif"], ["--figure x.gif"]),
        (["--attention", "flash"], ["--attention flash"]),
        (["-d", "lab"], ["texts.jsonl", "--dataset lab"]),
        (["--no-cache"], ["--no-cache", "-o"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_used(
    hcl: Hcl, planted_model: Path, texts: Path, arguments: list[str], words: list[str]
) -> None:
    result = hcl("entropy", texts, "-m", planted_model, *arguments)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    last = result.err.splitlines()[-1]
    for word in words:
        assert word in last


@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        ([{"text": ""}], [], ["text", "expected"]),
        ([{"text": "paris"}], [], ["1 token", "at least 2"]),
        ([{"text": "red " * 70}], [], ["70 tokens", "64", "--long-texts truncate"]),
        ([{"text": "red green", "spans": [[4, 99]]}], ["--group-by", "spans"], ["spans"]),
        ([{"text": "red green", "spans": [[4, 2]]}], ["--group-by", "spans"], ["spans"]),
        ([{"text": "red green", "spans": [[4, 9]]}], ["--group-by", "spans"], ["marked against ordinary"]),
        ([{"text": "red green", "g": "x"}, {"text": "red blue", "g": "y"}], ["--group-by", "g"], ["one text", "'x'"]),
        ([{"text": "red green", "g": "x"}, {"text": "red blue", "g": "x"}], ["--group-by", "g"], ["all 2 texts"]),
        ([{"question": "ask-one", "response": "paris", "correct": True}] * 1, ["--group-by", "correct"], ["all 1"]),
        ([{"question": "ask-one", "response": "", "correct": True}], [], ["no answer to measure"]),
        ([{"word": "red"}], [], ["question or text", "--columns"]),
        ([{"question": "ask-one", "text": "paris"}], [], ["question and text", "call the text response"]),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_inputs_that_cannot_be_used(
    hcl: Hcl, planted_model: Path, tmp_path: Path, rows: list[dict[str, object]], arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "prompt.txt").write_text("{question}")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = hcl("entropy", "in.jsonl", "-m", planted_model, "--prompt", "prompt.txt", *arguments)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    for word in words:
        assert word in result.err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--confidence"], ["--apply", "nowhere"]])
def test_what_cannot_work_is_refused_before_anything_is_measured(
    hcl: Hcl, planted_model: Path, texts: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after the last text, which may be hours later."""
    monkeypatch.setattr("hcl_cli.cli.loading.ModelChoice.load", lambda _: pytest.fail("the model was loaded"))
    assert hcl("entropy", texts, "-m", planted_model, *arguments).code == 2


def test_whose_answers_says_nothing_about_texts(hcl: Hcl, planted_model: Path, texts: Path) -> None:
    first = hcl("entropy", texts, "-m", planted_model)
    assert hcl("entropy", texts, "-m", planted_model, "--answers-of", "4").path == first.path
