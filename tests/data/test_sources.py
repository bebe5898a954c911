"""The bundled sets: they are there, they say their licence, and the notes beside them agree."""

import re

import polars as pl
import pytest

from hcl_cli.data.questions import open_questions
from hcl_cli.data.sources import SOURCES, Source
from hcl_cli.errors import EnvironmentRefused
from hcl_cli.resources import data_file

SETS = {name: source for name, source in SOURCES.items() if source.path[0] == "sets"}
NEEDED = {
    "questions": {"question_id", "question", "answers"},
    "statements": {"statement", "label"},
    "texts": {"text"},
    "completions": {"prefix", "completion", "contradictions"},
    "labelled": {"text_id", "text", "label"},
}


def test_every_bundled_file_is_a_source_and_the_other_way_round() -> None:
    assert {source.file.name for source in SETS.values()} == {f.name for f in data_file("sets").glob("*.parquet")}
    assert all(name == source.name for name, source in SOURCES.items())


@pytest.mark.parametrize("name", SOURCES)
def test_every_set_has_the_columns_of_its_kind(name: str) -> None:
    frame = pl.read_parquet(SOURCES[name].file)
    assert NEEDED[SOURCES[name].kind] <= set(frame.columns)
    assert SOURCES[name].rows == frame.height
    if SOURCES[name].kind == "questions":
        assert open_questions(name).load().equals(frame.select("question_id", "question", "answers"))


@pytest.mark.parametrize("name", SETS)
def test_columns_rows_and_licence_agree_with_the_notes(name: str) -> None:
    source = SETS[name]
    frame = pl.read_parquet(source.file)
    # The table of data/sets/README.md: | `name.parquet` | rows | columns | source | licence |
    line = re.search(rf"^\| `{name}\.parquet` \|.*$", data_file("sets", "README.md").read_text("utf-8"), re.M)
    cells = [cell.strip() for cell in line[0].strip("|").split("|")] if line else []
    assert int(cells[1].replace(",", "")) == source.rows == frame.height
    assert cells[2].split(", ") == frame.columns
    spdx = {name: name.replace("CC BY-SA ", "CC-BY-SA-") for name in re.findall(r"CC BY-SA \d\.\d", cells[4])}
    noted = re.findall(r"MIT|Apache-2\.0|CC-BY-SA-\d\.\d|CDLA-Sharing-1\.0", re.sub(
        r"CC BY-SA \d\.\d", lambda m: spdx[m[0]], cells[4]
    ))  # fmt: skip
    stated = re.findall(r"MIT|Apache-2\.0|CC-BY-SA-\d\.\d|CDLA-Sharing-1\.0", source.licence)
    assert set(noted) == set(stated) and stated
    assert name in data_file("sets", "LICENSES.md").read_text("utf-8")


def test_a_lost_file_is_one_clear_line() -> None:
    lost = Source("lost", "questions", "MIT", "", ("sets", "lost.parquet"), "")
    with pytest.raises(EnvironmentRefused, match="^the bundled data set lost is missing"):
        _ = lost.rows
