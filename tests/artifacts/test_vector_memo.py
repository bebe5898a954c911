"""Kept vectors: read back bit by bit, by any number of writers, and never damaged ones."""

from pathlib import Path

import numpy as np
import pytest

from hcl_cli.artifacts.vector_memo import VectorMemo
from hcl_cli.errors import EnvironmentRefused


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_what_was_added_is_found_by_others(tmp_path: Path) -> None:
    warned: list[str] = []
    one, other = (VectorMemo(tmp_path / "new", 3, warned.append) for _ in range(2))
    values = np.array([[0.1, 0.2, 0.7], [1, 0, 0]], dtype=np.float32)
    assert one.find([key(0)]) == {}
    one.add([key(0), key(1)], values)
    one.add([key(2)], values[:1])
    other.add([key(0), key(256)], values)  # keys with zero bytes at their ends
    for memo in (one, VectorMemo(tmp_path / "new", 3, warned.append)):
        found = memo.find([key(1), key(2), key(9)])
        assert list(found) == [key(1), key(2)] and np.array_equal(found[key(1)], values[1])
    assert np.array_equal(VectorMemo(tmp_path / "new", 3, warned.append).find([key(256)])[key(256)], values[1])
    assert VectorMemo(tmp_path / "new", 2, warned.append).find([key(1)]) == {}  # another width is another thing
    assert not warned


def test_a_damaged_file_is_not_read_and_said(tmp_path: Path) -> None:
    warned: list[str] = []
    VectorMemo(tmp_path, 3, warned.append).add([key(1)], np.ones((1, 3), dtype=np.float32))
    (path,) = tmp_path.glob("*.npy")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert VectorMemo(tmp_path, 3, warned.append).find([key(1)]) == {}
    assert len(warned) == 1 and warned[0].startswith(f"{path}: does not match its name and is not read")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memo = VectorMemo(tmp_path / "file" / "memo", 3, print)
    with pytest.raises(EnvironmentRefused):
        memo.add([key(1)], np.ones((1, 3), dtype=np.float32))
