"""Files from elsewhere, as both rooms read them: formats, decoding, places, lists and types."""

import json
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hcl_cli.errors import BadInput, HclError
from hcl_cli.records import (
    Records,
    check_file,
    file_format,
    read_bytes,
    read_records,
    real_number,
    text,
    texts,
    truth,
    whole_number,
)


def read(path: Path, content: str | bytes | None = None) -> Records:
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = read_bytes(path, path.name)
    return read_records(data, file_format(path, data, path.name), path.name)


def refusal(path: Path, content: str | bytes | None = None) -> str:
    with pytest.raises(HclError) as caught:
        read(path, content)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(path.name)
    return message


def test_byte_order_mark_crlf_blank_lines_and_cells_over_several_lines(tmp_path: Path) -> None:
    table = read(tmp_path / "w.csv", b'\xef\xbb\xbfq , a\r\n\r\n"Who\r\nis it?",\r\n\r\n"x, ""y""",007\r\n')
    assert table.columns == {"q": ["Who\r\nis it?", 'x, "y"'], "a": [None, "007"]}
    assert [table.at(i, "q") for i in (0, 1)] == ["w.csv, line 3, column q", "w.csv, line 6, column q"]
    lines = b'\xef\xbb\xbf\r\n{"q": "Who\\r\\nis it?", "a": null}\r\n \r\n{"b": "\xe2\x80\xa8", "q": 7}\r\n'
    for name in ("w.jsonl", "no ending", "w.txt"):
        table = read(tmp_path / name, lines)
        assert table.columns == {"q": ["Who\r\nis it?", 7], "a": [None, None], "b": [None, "\u2028"]}
        assert table.places == [2, 4]


def test_a_cell_longer_than_the_csv_module_likes(tmp_path: Path) -> None:
    """Passages of more than 131,072 characters failed with `field larger than field limit`."""
    long = "why " * 50_000 + "?"
    assert read(tmp_path / "q.tsv", f"q\ta\n{long}\tx\n").columns == {"q": [long], "a": ["x"]}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.parquet", "", ": the file is empty"),
        ("e.jsonl", "\n \n", ": the file holds blank lines only"),
        ("b.csv", "\n\r\n", ": the file holds blank lines only"),
        ("u.csv", b"q,a\na,Wh\xff?\n", ", line 2: byte 0xff is not valid UTF-8; save the file as UTF-8"),
        ("u.jsonl", b'\xef\xbb\xbf{"q": "A?"}\n{"q": "\xff"}', ", line 2: byte 0xff is not valid UTF-8"),
        ("u16.csv", "q,a\nA?,x\n".encode("utf-16"), ", line 1: byte 0xff is not valid UTF-8"),
        ("r.csv", "q,a\nb\n", ", line 2: 1 cells, but the header names 2 columns"),
        ("r2.csv", 'q,a\n"Who\n?",x\nWhere?,y,z\n', ", line 4: 3 cells, but the header names 2 columns"),
        ("q.csv", 'q,a\n"Who?,x\n', ", line 2: broken CSV"),
        ("t.csv", "q, q\n", ", line 1: column 'q' is there twice"),
        ("j.jsonl", '{"q": 1}\n{"q": ', ", line 2: broken JSON (Expecting value, character 6)"),
        ("j.jsonl", '[{"q": 1}]', ', line 1: [{"q": 1}], expected one JSON object per line'),
        ("j.jsonl", "[" * 100_000, ", line 1: broken JSON (maximum recursion depth exceeded"),
        ("j.jsonl", '{"q": ' + "9" * 5000 + "}", ", line 1: broken JSON (Exceeds the limit (4300 digits)"),
        ("j.jsonl", '{"q": 1}\n{"q": 1, "a": 2, "q": 3}', ", line 2: broken JSON (key 'q' twice in one object)"),
        ("j.jsonl", '{"q": {"\\u001b": 1, "\\u001b": 1}}', ", line 1: broken JSON (key '\\\\x1b' twice in one object)"),
        ("j.jsonl", '{"\\ud800": 1}', ", line 1: column name \\ud800 holds half a character"),
        ("z.parquet", "PAR1 and then nothing of the kind", ": not a readable Parquet file"),
        ("z.parquet", "q,a\n", ": is not a Parquet file; expected one, or CSV or JSONL under its own ending"),
        ("z.txt", "Who?", ": its format is not known; expected the ending .parquet, .csv"),
    ],
)  # fmt: skip
def test_what_cannot_be_parsed_is_said_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    assert refusal(tmp_path / name, content).startswith(name + said)


def test_parquet_rows_are_counted_from_one(tmp_path: Path) -> None:
    pl.DataFrame({"q": ["a", "b"], "n": [1, 2]}).write_parquet(tmp_path / "q.parquet")
    (tmp_path / "named otherwise.csv").write_bytes((tmp_path / "q.parquet").read_bytes())
    for name in ("q.parquet", "named otherwise.csv"):
        table = read(tmp_path / name)
        assert (table.values("q"), table.values("n")) == (["a", "b"], [1, 2])
        assert table.at(1) == f"{name}, row 2"


def test_invalid_utf8_inside_a_parquet_file_names_the_row(tmp_path: Path) -> None:
    """Polars would read such a page without a word or panic; the check is ours."""
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"A?", b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"q": bad}), tmp_path / "q.parquet")
    assert refusal(tmp_path / "q.parquet") == "q.parquet, row 2, column q: not valid UTF-8"


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, said in [
        (tmp_path, "x: is a folder, expected a Parquet, CSV or JSONL file"),
        (tmp_path / "none", "x: no such file; expected a Parquet, CSV or JSONL file"),
        (tmp_path / ("x" * 5000), "x: no such file"),
        (tmp_path / "\0", "x: no such file"),
        (Path("/dev/null"), "x: is not a regular file"),
    ]:
        with pytest.raises(BadInput) as caught:
            check_file(path, "x")
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["Paris", ""], ["Paris", ""]),
        ([], []),
        (None, None),
        ("", [""]),
        (" Paris", [" Paris"]),
        (' ["Paris", "paris"] ', ["Paris", "paris"]),
        ("[]", []),
        ("[sic] Paris", ["[sic] Paris"]),
        ("[0, 1)", ["[0, 1)"]),
        ("Paris [France]", ["Paris [France]"]),
    ],
)
def test_a_list_of_texts(value: object, expected: object) -> None:
    assert texts(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['Paris', 'paris']", "a JSON list"),  # as pandas writes a list
        ("['Paris' 'paris']", "a JSON list"),  # as NumPy does: Python reads it as the one text Parisparis
        ("['Paris'\n 'paris']", "a JSON list"),
        ('["Paris", "par', "a JSON list"),  # cut off
        ("[" * 3000 + "]", "a JSON list"),
        ("[Paris]", "a JSON list"),
        ("[1, 2]", "a list of texts"),
        (["Paris", None], "a list of texts"),
        (["Paris", 1], "a list of texts"),
        (["\ud800"], "half characters"),
        (5, "a list of texts"),
        (True, "a list of texts"),
        ({"a": 1}, "a list of texts"),
    ],
)
def test_what_looks_like_a_list_and_is_none_is_refused(value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        texts(value)


def test_types_are_taken_exactly_or_refused() -> None:
    nan, integer = float("nan"), whole_number("int16")
    assert [text(value) for value in ("007", 7, None, "")] == ["007", "7", None, ""]
    assert [integer(v) for v in (3, 3.0, " 3 ", Decimal(3), -32768, None, nan)] == [3, 3, 3, 3, -32768, None, None]
    assert [real_number(value) for value in (1, "0.5", None, nan, "nan")] == [1.0, 0.5, None, None, None]
    assert [truth(v) for v in (True, 0, 1.0, "1", " FALSE", None)] == [True, False, True, True, False, None]
    for convert, values in [
        (text, [1.5, True, [], b"x", "\ud800"]),
        (integer, [1.5, Decimal("1.5"), "1.5", True, "one", "", b"1", [1], float("inf"), 32768]),
        (real_number, [True, "high", "", [1], 10**400]),
        (truth, ["yes", 2, nan, [], b"1", ""]),
    ]:
        for value in values:
            with pytest.raises(ValueError, match="text|whole number|number|true or false"):
                convert(value)


def test_a_refused_value_is_named_and_cut(tmp_path: Path) -> None:
    lines = json.dumps({"n": 1}) + "\n\n" + json.dumps({"n": "\x1b" * 90})
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "n.jsonl", lines).converted("n", whole_number("int32"))
    place, met, expected = str(caught.value).replace(": ", "|", 1).replace(", expected ", "|").split("|")
    assert (place, expected) == ("n.jsonl, line 3, column n", "a whole number")
    assert met.isprintable() and len(met) == 60
