"""Labelled texts: the bundled set keeps what its notes promise, other people's files are mapped or refused."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from hcl_cli.data.labelled import open_labelled, parse_labels
from hcl_cli.data.questions import parse_columns
from hcl_cli.data.sources import SOURCES
from hcl_cli.errors import BadInput, BadOption, HclError
from hcl_cli.measures.text import answer_form
from hcl_cli.resources import data_file

SST2 = {"idx": [0, 1, 2], "sentence": ["a joy ", "a mess ", "a joy "], "label": [1, 0, 1]}
COLUMNS = {"text": "sentence", "text_id": "idx"}
LABELS = {"0": "negative", "1": "positive"}


def jsonl(folder: Path, *rows: object) -> str:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "a.jsonl")


# ------------------------------------------------------------------------------------------------ the bundled set


def test_the_sentences_are_balanced_at_every_even_prefix_and_as_the_notes_say() -> None:
    opened = open_labelled("sentiment")
    frame = opened.load()
    assert SOURCES["sentiment"].file == next(iter(data_file("sentiment").glob("*.parquet")))
    assert opened.licence == "CC0-1.0" and opened.words == ("negative", "positive")
    assert frame.columns == ["text_id", "text", "label", "topic"]
    assert frame["label"].to_list() == ["positive", "negative"] * 100
    assert frame.group_by("topic", "label").len()["len"].to_list() == [10] * 20
    assert frame["topic"].head(20).n_unique() == 10
    assert frame["text_id"].to_list() == [f"sentiment-{kind}-{n:03}" for n in range(1, 101) for kind in "pn"]
    notes = data_file("sentiment", "README.md").read_text("utf-8")
    for label, part in frame.group_by("label"):
        words = part["text"].str.split(" ").list.len()
        said = rf"\| {label[0]} \| 100 \| {words.mean():.1f} \({words.min()} to {words.max()}\) \|"
        assert re.search(said, notes), said


def test_no_sentence_is_there_twice_or_names_its_label() -> None:
    texts = open_labelled("sentiment").load()["text"]
    assert len({answer_form(one) for one in texts}) == 200
    assert not texts.str.to_lowercase().str.contains("positive|negative").any()
    assert all(one == one.strip() and one.isascii() and one[-1] in ".!" for one in texts)


# ------------------------------------------------------------------------------------------- other people's files


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_sst2_as_the_hub_has_it(tmp_path: Path, ending: str) -> None:
    """`sentence`, `label` 0 or 1, `idx`; the text keeps its trailing blank."""
    frame = pl.DataFrame(SST2, schema={"idx": pl.Int32, "sentence": pl.String, "label": pl.Int64})
    path = tmp_path / f"sst2.{ending}"
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}[ending](path)
    columns = parse_columns("text=sentence,text_id=idx", ("text_id", "text", "label"))
    opened = open_labelled(str(path), columns=columns, labels=parse_labels("0=negative,1=positive"))
    assert opened.words == ("negative", "positive")
    rows = opened.load().select("text_id", "text", "label").rows()
    assert rows == [("0", "a joy ", "positive"), ("1", "a mess ", "negative"), ("2", "a joy ", "positive")]


def test_words_as_labels_ids_by_content_and_further_columns(tmp_path: Path) -> None:
    rows = [
        {"text": one, "label": label, "year": 2020} for one, label in (("a", " sport "), ("b", "law"), ("a", "law"))
    ]
    opened = open_labelled(jsonl(tmp_path, *rows))
    frame = opened.load()
    assert opened.words == ("law", "sport") and frame["label"].to_list() == ["sport", "law", "law"]
    ids = frame["text_id"].to_list()
    assert len(set(ids)) == 3 and ids[2] == f"{ids[0]}-2" and frame["year"].to_list() == [2020] * 3
    truths = [{"id": n, "text": str(n), "label": n > 1} for n in range(3)]
    assert open_labelled(jsonl(tmp_path, *truths)).load()["label"].to_list() == ["false", "false", "true"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"sentence": "x", "label": "a"}], r"no column text .*, like --columns text=sentence"),
        ([{"text": "x", "sentiment": "a"}], r"no column label .*, like --columns label=sentiment"),
        (
            [{"text": "x", "label": 1}],
            "line 1, column label: 1, expected a word; say what the numbers mean",
        ),
        ([{"text": "x", "label": "0"}], "column label: .0., expected a word; say what the numbers mean"),
        ([{"text": "x", "label": None}], "column label: null, expected a label"),
        ([{"text": "x", "label": ["a"]}], r"column label: \[.a.\], expected a label"),
        ([{"text": " ", "label": "a"}], "column text: .*, expected a text that is not blank"),
        ([{"text": 3, "label": "a"}], "column text: 3, expected a text that is not blank"),
        ([{"text": "x", "label": "a"}], "column label: all 1 labels are 'a', expected 2 to 20 labels"),
        ([{"text": "x", "label": f"w{n}"} for n in range(21)], "column label: 21 different labels, expected 2 to 20"),
        ([{"id": 1, "text": "x", "label": "a"}, {"id": 1, "text": "y", "label": "b"}], "text_id '1' is already in"),
        ([], "a.jsonl"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, rows: list[object], said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        open_labelled(jsonl(tmp_path, *rows)).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "labels", "said"),
    [
        (COLUMNS, {"0": "negative", "1": "positive"}, r"line 2, column label: -1, expected one of 0, 1"),
        (COLUMNS | {"text": "sentense"}, LABELS, "--columns text=sentense: a.jsonl has no such column.*text=sentence"),
        (COLUMNS | {"text_id": "id"}, None, "label: 1, expected a word"),
        (COLUMNS | {"text_id": "number"}, LABELS, "--columns text_id=number: a.jsonl has no such column"),
        ({"topic": "x"}, LABELS, "--columns topic=x: 'topic' cannot be set here, only text_id, text, label can"),
    ],
)
def test_mappings_that_do_not_fit(tmp_path: Path, columns: dict[str, str], labels: dict[str, str], said: str) -> None:
    """The second row is as SST-2's test split has it: without a label."""
    path = jsonl(tmp_path, {"idx": 0, "sentence": "x", "label": 1}, {"idx": 1, "sentence": "y", "label": -1})
    with pytest.raises(HclError, match=said):
        open_labelled(path, columns=columns, labels=labels).load()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0=negative", "one label, and nothing to tell it from"),
        ("0,1", "'0' is not a pair"),
        ("0=a,0=b", "0 is there twice"),
        ("0=a,1=a", "a is there twice"),
        ("0=a,1=", "is not a pair"),
    ],
)
def test_label_words_that_cannot_be_used(given: str, said: str) -> None:
    with pytest.raises(BadOption, match=f"^--labels {given}: .*{said}"):
        parse_labels(given)


def test_a_set_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(BadOption, match="the set holds questions, not labelled"):
        open_labelled("lab")
    with pytest.raises(BadOption, match="did you mean sentiment"):
        open_labelled("sentimant")
