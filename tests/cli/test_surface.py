"""What a user meets first: help, version, completion, one line on stdout, quiet pipes, and a quick start."""

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl

from hcl_cli import __version__
from hcl_cli.cli import app

Spawn = Callable[..., "subprocess.Popen[bytes]"]
HEAVY = ("torch", "transformers", "datasets", "sentence_transformers", "evaluate", "polars", "matplotlib", "scipy")

_IMPORTS = """
import sys, runpy
sys.argv = {argv!r}
try:
    from hcl_cli.cli.app import main
    main()
except SystemExit as end:
    code = end.code
print("IMPORTED", *(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


def heavy_imports(folder: Path, *arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None) -> list[str]:
    """The heavy libraries that one call imports, in a fresh process."""
    script = _IMPORTS.format(argv=["hcl", *map(str, arguments)], heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, input=stdin, capture_output=True, env=os.environ | (env or {})
    )
    assert done.returncode in (0, 1), done.stderr  # completion scripts may end with 1
    return done.stderr.decode().rpartition("IMPORTED")[2].split()


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["sample", "--help"], ["hcb", "--help"], ["datasets"], ["models"], ["store", "ls"]],
)
def test_looking_around_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    assert heavy_imports(tmp_path, *arguments) == []


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    env = {"_HCL_COMPLETE": "complete_bash", "COMP_WORDS": "hcl sam", "COMP_CWORD": "1"}
    assert heavy_imports(tmp_path, env=env) == []


def test_a_cache_hit_imports_nothing_heavy(hcl: Hcl, tmp_path: Path, planted_model: Path) -> None:
    questions = pl.DataFrame({"question_id": ["one"], "question": ["ask-one"], "answers": [["paris"]]})
    questions.write_parquet(tmp_path / "q.parquet")
    run = ["sample", "q.parquet", "-m", planted_model, "-n", 2]
    sampled = hcl(*run).out
    scored = hcl("score", stdin=sampled).out
    hcl("hcb", stdin=scored)
    assert heavy_imports(tmp_path, *run) == []
    assert heavy_imports(tmp_path, "score", stdin=sampled.encode()) == []
    assert heavy_imports(tmp_path, "hcb", stdin=scored.encode()) == []


def test_every_command_has_help_with_an_example(hcl: Hcl) -> None:
    program = app.program()
    names = [[name] for name in app.COMMANDS]
    names += [["store", name] for name in program.load("store").commands]
    for name in names:
        shown = hcl(*name, "--help")
        assert shown.code == 0
        if name != ["store"]:
            assert "Example: " in shown.out, name
            assert "hcl " + name[0] in shown.out


def test_the_list_of_commands_says_what_they_say_of_themselves() -> None:
    program = app.program()
    for name, (_, _, line) in app.COMMANDS.items():
        assert program.load(name).help.splitlines()[0] == line


def test_version(hcl: Hcl) -> None:
    assert hcl("--version").out == f"hcl {__version__}\n"


def test_stdout_is_one_line_and_people_read_stderr(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    sampled = hcl(*planted_run, "-n", 2)
    assert sampled.path.is_absolute()
    assert sampled.path.is_relative_to(tmp_path / ".hcl" / "sample")
    assert "24 responses of planted on questions.jsonl" in sampled.err
    assert "\x1b" not in sampled.err  # no colour, no bar: stderr is not a terminal
    assert hcl(*planted_run, "-n", 2, "--quiet").err == ""


def test_json_says_what_was_made(hcl: Hcl, planted_run: list[object]) -> None:
    first = json.loads(hcl(*planted_run, "-n", 2, "--json").out)
    assert first.keys() == {"path", "key", "table", "rows", "cached", "inputs", "also"}
    assert (first["table"], first["rows"], first["cached"], first["also"]) == ("responses", 24, False, [])
    scored = json.loads(hcl("score", "--cluster", "exact", "--json", stdin=json.dumps(first)).out)
    assert scored["inputs"][0]["key"] == first["key"]
    layers = json.loads(hcl("hcb", "--json", stdin=json.dumps(scored)).out)
    assert [other["table"] for other in layers["also"]] == ["findings"]
    assert Path(layers["also"][0]["path"]).is_file()


def test_a_copy_is_placed_and_named(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    copied = hcl(*planted_run, "-n", 2, "-o", "mine.parquet").path
    assert copied == tmp_path / "mine.parquet"
    stored = hcl(*planted_run, "-n", 2).path
    assert stored != copied
    assert copied.read_bytes() == stored.read_bytes()


def test_no_cache_neither_reads_nor_writes_the_store(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    alone = hcl(*planted_run, "-n", 2, "--no-cache", "-o", "alone.parquet").path
    assert not (tmp_path / ".hcl").exists()
    assert pl.read_parquet(alone).equals(pl.read_parquet(hcl(*planted_run, "-n", 2).path))


def test_no_cache_gives_the_layer_table_and_no_second_file(hcl: Hcl, tmp_path: Path) -> None:
    """Both tables of `hcl hcb` were written to -o FILE, the findings last; then reading them as layers failed."""
    (tmp_path / "r.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    scored = hcl("score", "r.jsonl", "--cluster", "exact").path
    alone = hcl("hcb", scored, "--no-cache", "-o", "alone.parquet", "--json")
    assert json.loads(alone.out)["also"] == []
    assert "Layer 1 is the only one" in alone.err
    assert not (tmp_path / ".hcl" / "hcb").exists()
    assert (tmp_path / "alone.parquet").read_bytes() == hcl("hcb", scored).path.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["alone.parquet"]


def test_force_computes_again(hcl: Hcl, planted_run: list[object]) -> None:
    path = hcl(*planted_run, "-n", 2).path
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert json.loads(hcl(*planted_run, "-n", 2, "--force", "--json").out)["cached"] is False
    assert path.stat().st_mtime_ns > before[0]
    assert path.read_bytes() == before[1]


def test_variables_and_files_give_defaults_and_flags_win(
    hcl: Hcl, planted_run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def samples(*more: object) -> int:
        return int(json.loads(hcl(*planted_run, "--json", *more).out)["rows"]) // 12

    (tmp_path / "hcl.toml").write_text("samples = 3\n")
    assert samples() == 3
    monkeypatch.setenv("HCL_SAMPLES", "4")
    assert samples() == 4
    assert samples("-n", 5) == 5
    monkeypatch.setenv("HCL_STORE", str(tmp_path / "elsewhere"))
    assert hcl(*planted_run).path.is_relative_to(tmp_path / "elsewhere")


def test_the_stores_own_commands_take_variables_and_files_too(
    hcl: Hcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`HCL_STORE=x hcl store gc` looked after `.hcl` instead."""
    (tmp_path / "hcl.toml").write_text("store = 'from-file'\njson = true\n")
    assert hcl("store", "path").path == tmp_path / "from-file"
    assert hcl("store", "ls").out == "[]\n"
    monkeypatch.setenv("HCL_STORE", str(tmp_path / "from-variable"))
    monkeypatch.setenv("HCL_JSON", "0")
    assert hcl("store", "path").path == tmp_path / "from-variable"
    assert hcl("store", "ls").out == ""


def test_a_limit_for_sampling_does_not_cut_what_cat_prints(
    hcl: Hcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "a?"}\n' * 3)
    monkeypatch.setenv("HCL_LIMIT", "1")
    assert hcl("cat", "r.jsonl").out.count("\n") == 3


def test_questions_come_from_stdin_only_for_a_dash(hcl: Hcl, planted_run: list[object]) -> None:
    command, file, *rest = planted_run
    piped = hcl(command, "-", *rest, "-n", 1, stdin=f"{file}\n")
    assert piped.path == hcl(command, file, *rest, "-n", 1, stdin="not read\n").path


def test_a_while_read_loop_keeps_its_lines_and_nothing_hangs(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    script = (
        f"printf 'r.jsonl\\nr.jsonl\\n' | while read -r file; do {sys.executable} -m hcl_cli score --cluster exact -q "
        f'"$file"; done; {sys.executable} -m hcl_cli score -q </dev/null; echo "code $?"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    first, second, code = done.stdout.splitlines()
    assert first == second
    assert code == "code 2"
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    rows = pl.DataFrame({"question": ["a?"] * 50_000, "answers": [["b"]] * 50_000, "response": ["b"] * 50_000})
    rows.write_parquet(tmp_path / "r.parquet")
    script = f"set -o pipefail; {sys.executable} -m hcl_cli cat r.parquet | head -n 1"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"question": "a?", "answers": ["b"], "response": "b"}


def test_show_tells_recipe_and_lineage(hcl: Hcl, planted_run: list[object]) -> None:
    sampled = hcl(*planted_run, "-n", 2)
    layers = hcl("hcb", stdin=hcl("score", "--cluster", "exact", stdin=sampled.out).out)
    shown = json.loads(hcl("show", "--json", stdin=layers.out).out)
    assert shown["recipe"]["stage"] == "hcb"
    assert shown["lineage"][0]["recipe"]["stage"] == "score"
    assert shown["lineage"][0]["lineage"][0]["recipe"]["options"]["samples"] == 2
    text = hcl("show", stdin=layers.out).out
    assert "from scored" in text
    assert "from responses" in text
    assert str(sampled.path.parent.parent.parent) not in json.dumps(shown["recipe"])


def test_cat_and_export_give_the_rows(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    path = hcl(*planted_run, "-n", 2).path
    rows = pl.read_parquet(path)
    lines = hcl("cat", path, "--limit", 3, "--columns", "response,answers").out.splitlines()
    assert [json.loads(line) for line in lines] == rows.head(3).select("response", "answers").to_dicts()
    as_csv = pl.read_csv(hcl("cat", path, "-f", "csv").out.encode())
    assert as_csv["response"].to_list() == rows["response"].to_list()
    assert json.loads(as_csv["answers"][0]) == rows["answers"][0].to_list()
    assert pl.read_ndjson(hcl("export", path, "rows.jsonl").path)["text"].to_list() == rows["text"].to_list()
    assert pl.read_parquet(hcl("export", path, "rows.parquet").path).equals(rows)


def test_two_spellings_of_one_column_mapping_are_one_recipe(
    hcl: Hcl, planted_run: list[object], tmp_path: Path
) -> None:
    (tmp_path / "questions.jsonl").write_text('{"question": "a?", "answers": "b", "prompt": "c?", "gold": "d"}\n')

    def key(*more: str) -> str:
        return str(json.loads(hcl(*planted_run, "--dry-run", "--json", *more).out)["key"])

    mapped = key("--columns", "question=prompt,answers=gold")
    assert key("--columns", " answers = gold, question=prompt") == mapped
    assert key("--columns", "answers=answers") == key() != mapped


def test_a_miss_is_told_in_the_words_of_the_command_line(hcl: Hcl, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "a?", "answers": ["b"], "response": "b"}\n')
    hcl("score", "r.jsonl", "--cluster", "exact")
    asked = hcl("score", "r.jsonl", "--cluster", "exact", "--judge", "exact,alias", "--dry-run").out
    assert asked.endswith(': --judge was ["alias"], now ["exact", "alias"]\n')


def test_an_exported_parquet_is_the_same_artifact(hcl: Hcl, planted_run: list[object]) -> None:
    """It was written anew by Polars and lost its recipe: `hcl show` took it for somebody else's file."""
    made = hcl(*planted_run, "-n", 2).path
    copied = hcl("export", made, "copy.parquet").path
    assert copied.read_bytes() == made.read_bytes()
    assert json.loads(hcl("show", copied, "--json").out)["recipe"]["stage"] == "sample"


def test_other_peoples_types_are_printed(hcl: Hcl, tmp_path: Path) -> None:
    """Binary aborted the JSONL writer, structs the CSV one, each with a stack."""
    rows = {"b": [b"\xff"], "s": [{"x": 1, "y": [2]}], "inner": [[b"\xff"]], "when": [dt.datetime(2020, 1, 1)]}
    pl.DataFrame(rows).write_parquet(tmp_path / "odd.parquet")
    line = json.loads(hcl("cat", "odd.parquet").out)
    assert (line["b"], line["s"], line["inner"]) == ("/w==", {"x": 1, "y": [2]}, '["/w=="]')
    cells = pl.read_csv(hcl("export", "odd.parquet", "odd.csv").path).row(0)
    assert cells[:3] == ("/w==", '{"x": 1, "y": [2]}', '["/w=="]')
    stream = hcl("export", "odd.parquet", "odd.arrow").path
    assert pl.read_ipc(stream)["b"].to_list() == [b"\xff"]


def test_store_commands(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    path = hcl(*planted_run, "-n", 2).path
    assert hcl("store", "path").path == tmp_path / ".hcl"
    assert [entry["path"] for entry in json.loads(hcl("store", "ls", "--json").out)] == [str(path)]
    assert hcl("store", "verify").code == 0
    gone = hcl("store", "gc")
    assert "shard whose rows are in a finished artifact" in gone.out
    assert path.is_file()
    assert hcl(*planted_run, "-n", 2).path == path
    assert str(path) in hcl("store", "gc", "--older-than", "0s").out
    assert not path.exists()


def test_the_engines_default_budget_is_the_commands() -> None:
    from hcl_cli.cli.sample import DEFAULT_BATCH_TOKENS
    from hcl_cli.models import decode

    assert DEFAULT_BATCH_TOKENS == decode.DEFAULT_BATCH_TOKENS


def test_secrets_reach_no_artifact_log_or_error(
    hcl: Hcl, planted_run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SECRETSECRETSECRET")
    made = hcl(*planted_run, "-n", 1, "-v")
    wrong = hcl("sample", "-m", "someone/no-such-model")
    assert wrong.code in (2, 4)
    for path in (tmp_path / ".hcl").rglob("*"):
        assert path.is_dir() or b"SECRETSECRET" not in path.read_bytes()
    assert "SECRETSECRET" not in made.err + made.out + wrong.err
