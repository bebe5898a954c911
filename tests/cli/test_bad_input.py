"""Bad input: one line on stderr, exit code 2, nothing on stdout."""

import json
import shutil
from pathlib import Path

import pytest
from calling import Hcl, Result


def refused(result: Result, *words: str) -> None:
    """One line that says each of `words`; no stack; nothing on stdout."""
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "no-such-model-here"], ["no-such-model-here"]),
        (["-m", "./nowhere"], ["nowhere"]),
        (["--exit-layers", "0"], ["--exit-layers 0", "1..4"]),
        (["--exit-layers", "5"], ["--exit-layers 5", "1..4"]),
        (["--exit-layers", "some"], ["--exit-layers"]),
        (["-n", "0"], ["--samples/-n 0"]),
        (["-n", "many"], ["many"]),
        (["--temperature", "-0.1"], ["--temperature"]),
        (["--temperature", "nan"], ["--temperature"]),
        (["--top-p", "0"], ["--top-p 0"]),
        (["--top-p", "1.01"], ["--top-p 1.01"]),
        (["--top-k", "-1"], ["--top-k"]),
        (["--max-new-tokens", "0"], ["--max-new-tokens 0"]),
        (["--limit", "0"], ["--limit 0"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--batch-tokens", "0"], ["--batch-tokens 0"]),
        (["--dtype", "int8"], ["--dtype int8", "bfloat16"]),
        (["--device", "abacus"], ["--device abacus", "cpu"]),
        (["--strategy", "sideways"], ["--strategy sideways", "early-exit"]),
        (["--clean", "spotless"], ["--clean spotless"]),
        (["--long-prompts", "maybe"], ["--long-prompts maybe"]),
        (["--prompt", "no-such-prompt"], ["--prompt", "no-such-prompt"]),
        (["--prompt", "chat"], ["--prompt chat"]),
        (["--stop", "", "--stop", "x"], ["--stop"]),
        (["--no-cache"], ["--no-cache", "-o"]),
        (["--trust-remote-code", "other"], ["--trust-remote-code other"]),
        (["--store", "a\nb"], ["--store", "line break"]),
        (["-o", "no/such/folder/x.parquet"], ["-o no/such/folder/x.parquet"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["one-file-too-many", "more"], ["more"]),
        (["--columns", "question"], ["--columns"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_option_that_cannot_be_used(
    hcl: Hcl, planted_run: list[object], arguments: list[str], words: list[str]
) -> None:
    refused(hcl(*planted_run, *arguments), *words)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("q.jsonl", b'{"question": "a?"}\n', ["q.jsonl", "answers"]),
        ("q.csv", b"", ["q.csv", "empty"]),
        ("q.jsonl", b'{"question": "a?", "answers": ["x"]}\n{broken\n', ["q.jsonl, line 2"]),
        ("q.jsonl", b'{"question": 3, "answers": ["x"]}\n', ["q.jsonl, line 1, column question"]),
        ("q.parquet", b"PAR1 this is not one", ["q.parquet"]),
    ],
)
def test_a_questions_file_that_cannot_be_used(
    hcl: Hcl, tmp_path: Path, planted_model: Path, name: str, data: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    refused(hcl("sample", name, "-m", planted_model), *words)


def test_an_empty_data_set_name_is_not_the_default(hcl: Hcl) -> None:
    """`hcl sample -d "$UNSET"` sampled the lab's questions without a word."""
    refused(hcl("sample", "-d", ""), "--dataset", "no such data set")


def test_an_unknown_data_set_names_its_neighbours(hcl: Hcl) -> None:
    refused(hcl("sample", "-d", "triviqa"), "triviqa", "triviaqa")


def test_a_folder_without_config(hcl: Hcl, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    refused(hcl("sample", "-m", "./bare"), "config.json")


def test_weights_that_are_only_pickled_are_never_read(hcl: Hcl, tmp_path: Path, planted_model: Path) -> None:
    shutil.copytree(planted_model, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    refused(hcl("sample", "-m", "./pickled"), "pickle", "safetensors")


def test_a_model_that_is_not_a_causal_one(hcl: Hcl, tmp_path: Path, planted_model: Path) -> None:
    shutil.copytree(planted_model, tmp_path / "encoder")
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "num_hidden_layers": 2, "vocab_size": 12}
    (tmp_path / "encoder" / "config.json").write_text(json.dumps(config))
    refused(hcl("sample", "-m", "./encoder"), "causal")


def test_the_wrong_stage_in_the_pipe(hcl: Hcl, planted_run: list[object]) -> None:
    sampled = hcl(*planted_run, "-n", 1).out
    refused(hcl("hcb", stdin=sampled), "responses", "hcl score")
    scored = hcl("score", "--cluster", "exact", stdin=sampled).out
    refused(hcl("score", stdin=scored), "scored", "hcl sample")
    layers = hcl("hcb", stdin=scored).out
    refused(hcl("score", stdin=layers), "layers")


def test_two_pipes_mixed_up(hcl: Hcl, planted_run: list[object]) -> None:
    sampled = hcl(*planted_run, "-n", 1).out
    scored = hcl("score", "--cluster", "exact", stdin=sampled).out
    refused(hcl("score", stdin=sampled + scored), "2")
    refused(hcl("hcb", stdin=scored + sampled), "responses")
    refused(hcl("score", stdin=Path(sampled.strip()).read_bytes()), "Parquet file itself")


@pytest.mark.parametrize("command", ["score", "hcb", "show", "cat"])
def test_an_empty_pipe_is_an_error_and_never_the_default(hcl: Hcl, command: str) -> None:
    refused(hcl(command), "stdin is empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "--judge", "me", "x"], ["--judge me", "alias"]),
        (["score", "--judge", "alias,alias", "x"], ["twice"]),
        (["score", "--cluster", "vibes", "x"], ["--cluster vibes"]),
        (["score", "--threshold", "2", "x"], ["--threshold 2"]),
        (["score", "--embedder", "./nowhere", "x.jsonl"], ["nowhere"]),
        (["hcb", "--weights", "1.5", "x"], ["--weights"]),
        (["hcb", "--weights", "heavy", "x"], ["--weights"]),
        (["hcb", "--scale-hallucination", "log", "x"], ["--scale-hallucination"]),
        (["hcb", "--diversity", "yes", "x"], ["--diversity yes"]),
        (["hcb", "--bootstrap", "0", "x"], ["--bootstrap 0"]),
        (["hcb", "--figure", "f.gif", "x"], ["--figure f.gif", ".svg"]),
        (["hcb", "--table", "no/t.md", "x"], ["--table no/t.md"]),
        (["hcb", "nothing.parquet"], ["nothing.parquet", "no such file"]),
        (["cat", "--format", "xml", "x"], ["--format xml"]),
        (["export", "x", "y.docx"], ["y.docx"]),
        (["store", "gc", "--older-than", "soon"], ["--older-than soon"]),
        (["store", "gc", "--max-size", "-1"], ["--max-size"]),
        (["sampel"], ["sampel"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_other_commands_refuse_in_one_line(hcl: Hcl, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    refused(hcl(*arguments), *words)


def test_a_value_from_outside_is_named_with_its_place(
    hcl: Hcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hcl.toml").write_text("samples = 'few'\n")
    refused(hcl("sample"), "hcl.toml: samples = 'few'")
    monkeypatch.setenv("HCL_SAMPLES", "many")
    refused(hcl("sample"), "HCL_SAMPLES 'many'")


def test_settings_files_are_checked_too(hcl: Hcl, tmp_path: Path) -> None:
    (tmp_path / "hcl.toml").write_text("[sample]\ntemprature = 1.0\n")
    refused(hcl("sample"), "hcl.toml", "temprature")


def test_a_prompt_too_long_for_the_model_names_the_question(hcl: Hcl, tmp_path: Path, planted_model: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": "long", "question": "red " * 80, "answers": ["x"]}))
    refused(hcl("sample", "q.jsonl", "-m", planted_model, "-n", 1), "'long'", "--long-prompts truncate")
    cut = hcl("sample", "q.jsonl", "-m", planted_model, "-n", 1, "--long-prompts", "truncate")
    assert "prompt cut" in cut.err
    assert cut.path.is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "r.jsonl", "--cluster", "exact", "-o", "r.jsonl"],
        ["score", "r.jsonl", "--cluster", "exact", "-o", "link.jsonl"],
        ["export", "r.jsonl", "r.jsonl"],
        ["sample", "-d", "r.jsonl", "-m", "nowhere", "-o", "r.jsonl"],
        ["hcb", "s.csv", "--table", "s.csv"],
    ],
)
def test_an_input_is_never_written_over(hcl: Hcl, tmp_path: Path, arguments: list[str]) -> None:
    """`hcl score mine.jsonl -o mine.jsonl` replaced somebody's responses by a Parquet file."""
    (tmp_path / "r.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    (tmp_path / "link.jsonl").symlink_to("r.jsonl")
    (tmp_path / "s.csv").write_text("question,response,correct\na?,b,true\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    refused(hcl(*arguments), arguments[-1], "is the file that is read")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_an_export_that_cannot_be_written_is_one_line_and_leaves_nothing(hcl: Hcl, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "a?"}\n')
    (tmp_path / "device.csv").symlink_to("/dev/full")
    refused(hcl("export", "r.jsonl", "device.csv"), "device.csv", "not a regular file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.csv", "r.jsonl"]


def test_a_current_folder_with_a_line_break_is_refused(
    hcl: Hcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default store lies in it, so the one line on stdout was two."""
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    (folder / "r.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    monkeypatch.chdir(folder)
    refused(hcl("score", "r.jsonl", "--cluster", "exact"), "--store", "line break")
    refused(hcl("export", "r.jsonl", "r.csv"), "TARGET", "line break")
    assert hcl("score", "r.jsonl", "--cluster", "exact", "--store", tmp_path / "store").path.is_file()


def test_weights_that_are_cut_off(hcl: Hcl, tmp_path: Path, planted_model: Path) -> None:
    shutil.copytree(planted_model, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "q.jsonl").write_text('{"question": "ask-one", "answers": ["paris"]}\n')
    refused(hcl("sample", "q.jsonl", "-m", "./cut", "-n", 1), "cannot be loaded")
