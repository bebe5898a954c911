"""stdout and stderr that are closed, full, or read by somebody who leaves early."""

import subprocess
import sys
from pathlib import Path

import pytest
from calling import Hcl

HCL = f"{sys.executable} -m hcl_cli"
ROW = '{"question": "a?", "answers": ["b"], "response": "b"}\n'
SCORE = f"{HCL} score r.jsonl --cluster exact"


def shell(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    (folder / "r.jsonl").write_text(ROW)
    call = ["bash", "-c", f"set -o pipefail; {script}"]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("listing", ["datasets", "models", "--help"])
def test_a_listing_whose_reader_leaves_ends_quietly(tmp_path: Path, listing: str) -> None:
    """rich ends a closed pipe with exit code 1, which `set -o pipefail` took for a fault."""
    done = shell(tmp_path, f"{HCL} {listing} | true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("redirection", "words"), [(">/dev/full", "No space left"), (">&-", "closed")])
def test_a_path_that_cannot_be_printed_is_one_line(tmp_path: Path, redirection: str, words: str) -> None:
    """It was a stack of forty lines and exit code 1, after hours of work."""
    done = shell(tmp_path, f"{SCORE} -q {redirection}")
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "stdout" in done.stderr
    assert words in done.stderr
    assert len(list((tmp_path / ".hcl" / "score").glob("*.parquet"))) == 1
    assert str(tmp_path) in shell(tmp_path, SCORE).stdout


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(true)"])
def test_messages_that_nobody_can_read_stop_nothing(tmp_path: Path, redirection: str) -> None:
    """A full disk under the log file ended `hcl sample 2>log` with exit code 1."""
    done = shell(tmp_path, f"{SCORE} {redirection} | {HCL} hcb {redirection}")
    assert done.returncode == 0
    assert Path(done.stdout.removesuffix("\n")).is_file()


def test_nothing_to_do_is_told_on_stderr(hcl: Hcl) -> None:
    shown = hcl()
    assert (shown.code, shown.out) == (2, "")
    assert "Usage: hcl" in shown.err
    assert hcl("store").out == ""
    assert hcl("store").err == "hcl: Missing command; see hcl store --help\n"
