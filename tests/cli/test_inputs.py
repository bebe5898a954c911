"""stdin and arguments: one path a line, a few kilobytes at most, and a clear line for everything else."""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from calling import Hcl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.cli.inputs import input_paths, optional_input
from hcl_cli.errors import BadInput, BadOption

Feed = Callable[[bytes], None]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Feed]:
    opened: list[TextIO] = []

    def put(data: bytes) -> None:
        source = tmp_path / "stdin"
        source.write_bytes(data)
        opened.append(source.open(encoding="utf-8"))
        monkeypatch.setattr("sys.stdin", opened[-1])
        for earlier in opened[:-1]:
            earlier.close()

    yield put
    opened[-1].close()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "some file.parquet"
    path.write_bytes(b"PAR1")
    return path


def test_a_line_is_a_path_or_a_json_object(feed: Feed, artifact: Path) -> None:
    for line in (f"{artifact}\n", f"{artifact}", f"\n{artifact}\r\n", json.dumps({"path": str(artifact)}) + "\n"):
        feed(line.encode())
        assert input_paths([], "hcl score") == [artifact]
        feed(line.encode())
        assert input_paths(["-"], "hcl score") == [artifact]


def test_an_argument_means_stdin_is_not_read(feed: Feed, artifact: Path) -> None:
    """In a `while read` loop the loop's own lines must still be there after the command."""
    feed(b"next line of the loop\n")
    import sys

    assert input_paths([str(artifact)], "hcl score") == [artifact]
    assert sys.stdin.read() == "next line of the loop\n"


def test_several_lines_only_where_several_are_taken(feed: Feed, artifact: Path) -> None:
    feed(f"{artifact}\n{artifact}\n".encode())
    assert input_paths([], "hcl hcb", most=None) == [artifact, artifact]
    feed(f"{artifact}\n{artifact}\n".encode())
    with pytest.raises(BadInput, match="reads one file and got 2"):
        input_paths([], "hcl score")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "stdin is empty"),
        (b"\n \n", "stdin is empty"),
        (b"PAR1\x00\x01", "holds a Parquet file itself"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a\x00b", "zero byte"),
        (b"x" * 20_000, "more than"),
        (b"no-such-file.parquet\n", "no such file"),
        (b"{broken\n", "neither a path nor a --json object"),
        (b'{"key": 1}\n', "neither a path nor a --json object"),
        (b'{"path": 3}\n', "is not text"),
        (b"[" * 5000, "no such file"),
    ],
)
def test_what_is_not_a_path_is_one_clear_line(feed: Feed, data: bytes, reason: str) -> None:
    feed(data)
    with pytest.raises(BadInput, match=reason) as error:
        input_paths([], "hcl score")
    assert "\n" not in str(error.value)


def test_a_path_with_a_newline_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file") as error:
        input_paths([f"{tmp_path}/a\nb"], "hcl score")
    assert "\n" not in str(error.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        input_paths([str(tmp_path)], "hcl score")


def test_an_endless_stdin_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr("sys.stdin", endless)
        with pytest.raises(BadInput, match="more than"):
            input_paths([], "hcl score")


def test_the_null_device_is_an_empty_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(BadInput, match="stdin is empty"):
            input_paths([], "hcl score")


def test_a_terminal_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Screen("typed"))
    with pytest.raises(BadInput, match="nothing to read"):
        input_paths([], "hcl hcb")


# ------------------------------------------------------------------------------- commands that have a default


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """stdin as the reading end of a pipe whose writer is gone."""
    opened: list[TextIO] = []

    def put(data: bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        opened.append(os.fdopen(reader))
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield put
    for one in opened:
        one.close()


def test_a_pipe_or_a_file_is_read_where_nothing_is_named(feed: Feed, pipe: Feed, artifact: Path) -> None:
    for put in (feed, pipe):
        put(f"{artifact}\n".encode())
        assert optional_input(None, None, "hcl entropy") == artifact
        put(f"{artifact}\n".encode())
        assert optional_input("-", None, "hcl entropy") == artifact


def test_an_empty_pipe_is_an_error_and_never_the_default(feed: Feed, pipe: Feed) -> None:
    """The command before it in the pipe failed: going on with the lab's questions would look like its answer."""
    for put in (feed, pipe):
        for data in (b"", b"\n"):
            put(data)
            with pytest.raises(BadInput, match="^hcl entropy: stdin is empty"):
                optional_input(None, None, "hcl entropy")


def test_a_named_data_set_or_file_means_stdin_is_not_read(pipe: Feed, artifact: Path) -> None:
    import sys

    for argument, dataset, expected in ((None, "wikitext2", None), (str(artifact), None, artifact)):
        pipe(b"next line of the loop\n")
        assert optional_input(argument, dataset, "hcl entropy") == expected
        assert sys.stdin.read() == "next line of the loop\n"


def test_a_terminal_the_null_device_and_a_closed_stdin_mean_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with os.fdopen(slave) as terminal, Path(os.devnull).open() as nothing:
        for source in (terminal, nothing, None):
            monkeypatch.setattr("sys.stdin", source)
            assert optional_input(None, None, "hcl entropy") is None
        monkeypatch.setattr("sys.stdin", terminal)
    assert optional_input(None, None, "hcl entropy") is None  # now closed
    os.close(master)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(BadInput, match="stdin is closed"):
        optional_input("-", None, "hcl entropy")


def test_a_file_and_a_data_set_are_two_inputs(artifact: Path) -> None:
    with pytest.raises(BadOption, match="some file.parquet and --dataset lab: name the input once"):
        optional_input(str(artifact), "lab", "hcl entropy")
    with pytest.raises(BadInput, match="hcl entropy: gone.parquet: no such file"):
        optional_input("gone.parquet", None, "hcl entropy")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_paths_or_refused(feed: Feed, data: bytes) -> None:
    feed(data)
    try:
        paths = input_paths([], "hcl hcb", most=None)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert all(path.is_file() for path in paths)


@pytest.mark.parametrize(
    ("command", "target"),
    [
        (["sample", "-d", "lab", "--prompt"], ["-o"]), (["entropy", "-d", "lab", "--prompt"], ["--table"]),
        (["lens", "text", "--prompt"], ["--table"]), (["probe", "-d", "lab-statements", "--prompt"], ["--table"]),
        (["probe", "-d"], ["--published-table"]),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_no_command_writes_over_a_file_that_it_reads(
    hcl: Hcl, tmp_path: Path, command: list[str], target: list[str]
) -> None:
    """A prompt's file was not looked at."""
    named = tmp_path / "named.md"
    named.write_text("Q: {question}")
    result = hcl(*command, named, *target, named)
    assert result.code == 2 and f"{target[0]} {named}: is the file that is read" in result.err.splitlines()[-1]
    assert named.read_text() == "Q: {question}"
