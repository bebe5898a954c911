"""The memo: losing or damaging it costs time and nothing else."""

import json
from pathlib import Path

import pytest

from hcl_cli.memo import recall, remember


def test_what_is_remembered_is_recalled_and_sections_do_not_mix(tmp_path: Path) -> None:
    memo = tmp_path / "store" / "memo.json"
    remember(memo, "files", {"a": [1, 2]})
    remember(memo, "commits", {"a": "x"})
    remember(memo, "files", {"b": [3]})
    assert recall(memo, "files") == {"a": [1, 2], "b": [3]}
    assert recall(memo, "commits") == {"a": "x"}
    assert [file.name for file in memo.parent.iterdir()] == ["memo.json"]  # no temporary file stays


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b'{"files": 3}', b"[" * 100_000])
def test_a_damaged_memo_is_empty_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    memo = tmp_path / "memo.json"
    memo.write_bytes(content)
    assert recall(memo, "files") == {}
    remember(memo, "files", {"a": 1})
    assert json.loads(memo.read_text())["files"] == {"a": 1}


def test_no_memo_and_no_place_for_one_are_silent(tmp_path: Path) -> None:
    remember(None, "files", {"a": 1})
    assert recall(None, "files") == {}
    (tmp_path / "file").write_text("in the way")
    remember(tmp_path / "file" / "memo.json", "files", {"a": 1})
    assert recall(tmp_path / "file" / "memo.json", "files") == {}
    assert (tmp_path / "file").read_text() == "in the way"
