"""SciQ, WikiQA and SQuAD by `hub:` name: their documented mappings on rows of the same shape; rows per candidate."""

import json
import logging
import re
import shlex
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hcl_cli.data import hub
from hcl_cli.data.candidates import Candidates, candidates_of
from hcl_cli.data.questions import open_questions, parse_columns
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.hub import Resolved

RECIPES = Path(__file__).parents[2] / "data" / "sets" / "README.md"

# Rows in the shape of the sets' cards.
SCIQ = {
    "question": ["What do bees make?", "What pulls apples down?"],
    "distractor3": ["silk", "light"], "distractor1": ["wax paper", "heat"], "distractor2": ["milk", "sound"],
    "correct_answer": ["honey", "gravity"], "support": ["Bees collect nectar.", ""],
}  # fmt: skip
WIKI_QA = {
    "question_id": ["Q1", "Q1", "Q1", "Q2", "Q2", "Q11"],
    "question": ["how deep is the lake"] * 3 + ["who drew it"] * 2 + ["what is ice"],
    "document_title": ["Lake"] * 3 + ["Drawing"] * 2 + ["Ice"],
    "answer": ["It is cold.", "It is 40 m deep.", "Its depth is 40 m.", "It is old.", "It is blue.", "Frozen water."],
    "label": [0, 1, 1, 0, 0, 1],
}
SQUAD = {
    "id": ["5733a", "5733b"], "title": ["Lake", "Lake"], "context": ["The lake is deep.", "The lake is deep."],
    "question": ["What is deep?", "What is deep?"],  # the same text under two ids, as in the set
    "answers": [
        {"text": ["The lake", "lake", "The lake"], "answer_start": [0, 4, 0]},
        {"text": ["lake"], "answer_start": [4]},
    ],
}  # fmt: skip


def documented(name: str) -> list[str]:
    """The arguments of the recipe that reads the set."""
    (line,) = re.findall(rf"^hcl sample .*-d hub:{name}\b.*$", RECIPES.read_text(), flags=re.MULTILINE)
    return shlex.split(line)


def read_as_documented(monkeypatch: pytest.MonkeyPatch, name: str, rows: dict[str, Any]) -> list[dict[str, Any]]:
    """The set's questions through `hub:` and the real types of `datasets`, without a network."""
    import datasets

    features = datasets.Dataset.from_dict(rows).features
    if name.endswith("wiki_qa"):
        features["label"] = datasets.ClassLabel(names=["0", "1"])
    given = datasets.Dataset.from_dict(rows, features=features)

    class Builder:
        hash = "c" * 40

        def download_and_prepare(self) -> None:
            pass

        def as_dataset(self, split: str) -> Any:
            assert split == ("validation" if name.endswith("squad") else "test")
            return given

    monkeypatch.setattr(datasets, "load_dataset_builder", lambda address, config, revision: Builder())
    monkeypatch.setattr(hub, "resolve", lambda repository, **_: Resolved("c" * 40))
    arguments = documented(name)
    mapping = parse_columns(arguments[arguments.index("--columns") + 1])
    opened = open_questions(arguments[arguments.index("-d") + 1], columns=mapping)
    assert opened.n_questions == opened.load(extra=True).height
    return opened.load().to_dicts()


def test_sciq(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_as_documented(monkeypatch, "allenai/sciq", SCIQ)
    assert [(row["question"], row["answers"]) for row in rows] == [
        ("What do bees make?", ["honey"]), ("What pulls apples down?", ["gravity"]),
    ]  # fmt: skip


def test_wiki_qa(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("hcl_cli"), "propagate", True)
    rows = read_as_documented(monkeypatch, "microsoft/wiki_qa", WIKI_QA)
    assert rows == [
        {
            "question_id": "Q1", "question": "how deep is the lake",
            "answers": ["It is 40 m deep.", "Its depth is 40 m."],
        },
        {"question_id": "Q11", "question": "what is ice", "answers": ["Frozen water."]},
    ]  # fmt: skip
    said = "hub:microsoft/wiki_qa (test): 1 of 3 questions have no row with label = 1 and are left out"
    assert said in caplog.messages


def test_squad(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_as_documented(monkeypatch, "rajpurkar/squad", SQUAD) == [
        {"question_id": "5733a", "question": "What is deep?", "answers": ["The lake", "lake"]},
        {"question_id": "5733b", "question": "What is deep?", "answers": ["lake"]},
    ]


def write(folder: Path, ending: str) -> Path:
    path = folder / f"wiki{ending}"
    frame = pl.DataFrame(WIKI_QA)
    if ending == ".parquet":
        frame.write_parquet(path)
    elif ending == ".csv":
        frame.write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    return path


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_files_of_every_format_give_the_same_questions(tmp_path: Path, ending: str) -> None:
    opened = open_questions(str(write(tmp_path, ending)), columns={"answers": "answer[label=1]"})
    assert opened.load()["question_id"].to_list() == ["Q1", "Q11"]
    assert opened.load()["answers"].to_list() == [["It is 40 m deep.", "Its depth is 40 m."], ["Frozen water."]]
    more = opened.load(extra=True)
    assert more["document_title"].to_list() == ["Lake", "Ice"]
    assert more["answer"].to_list() == ["It is 40 m deep.", "Frozen water."]  # of the row that stands for the question
    assert more.columns == ["question_id", "question", "answers", "document_title", "answer", "label"]


def test_without_ids_rows_with_the_same_question_are_one(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [("A?", "x", True), ("B?", "y", False), ("A?", "z", True), ("A?", "x", True)]
    path.write_text("".join(json.dumps(dict(zip(("question", "a", "ok"), row, strict=True))) + "\n" for row in rows))
    (row,) = open_questions(str(path), columns={"answers": "a[ok=true]"}).load().to_dicts()
    assert (row["question"], row["answers"]) == ("A?", ["x", "z"])


def test_the_number_of_questions_is_not_that_of_rows_and_is_remembered_per_mapping(tmp_path: Path) -> None:
    path, memo = tmp_path / "wiki.parquet", tmp_path / "memo.json"
    pl.DataFrame(WIKI_QA).filter(pl.col("question_id") != "Q2").write_parquet(path)
    for label, n_questions in (("1", 2), ("0", 1), ("1", 2)):
        columns = {"answers": f"answer[label={label}]"}
        assert open_questions(str(path), columns=columns, memo=memo).n_questions == n_questions
    again = open_questions(str(path), columns={"answers": "answer[label=1]"}, memo=memo)
    again._named.__dict__["records"] = None  # a hit reads no row
    assert again.n_questions == 2


def test_a_column_that_is_called_like_the_mapping_wins(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "A?", "answer[label=1]": "x"}\n')
    assert open_questions(str(path), columns={"answers": "answer[label=1]"}).load()["answers"].to_list() == [["x"]]


@pytest.mark.parametrize(
    ("value", "held", "not_held"),
    [
        ("1", (1, 1.0, True, "1", " 1"), (0, False, None, "one", "", 2)),
        ("0", (0, 0.0, False, "0"), (1, True, None, "")),
        ("True", (True, "True"), (False, 1, "true")),
        ("yes", ("yes",), (True, 1, "no", None)),
    ],
)
def test_what_counts_as_the_value(value: str, held: tuple[Any, ...], not_held: tuple[Any, ...]) -> None:
    wanted = Candidates("answer", "label", value)
    assert all(wanted.holds(one) for one in held)
    assert not any(wanted.holds(one) for one in not_held)


def test_only_the_whole_form_is_read_as_candidates() -> None:
    assert candidates_of("answer[label=1]") == Candidates("answer", "label", "1")
    assert candidates_of("a.text[meta.ok=true]") == Candidates("a.text", "meta.ok", "true")
    assert [candidates_of(text) for text in ("answer", "a[0]", "a[x=]", "a[=1]", "[x=1]", "a[x=1].b")] == [None] * 6


@pytest.mark.parametrize(
    ("mapping", "change", "kind", "said"),
    [
        ("answer[label=2]", {}, BadOption, r"no row of wiki.jsonl has label = 2 \(it has 0, 1\)"),
        (
            "answer[lable=1]",
            {},
            BadOption,
            "answers=lable: wiki.jsonl has no such column .* did you mean answers=label",
        ),
        ("reply[label=1]", {}, BadOption, "answers=reply: wiki.jsonl has no such column"),
        ("answer[label=1]", {"answer": None}, BadInput, "wiki.jsonl, line 2, column answer: null, expected an answer"),
        ("answer[label=1]", {"answer": " "}, BadInput, "wiki.jsonl, line 2, .*expected an accepted answer"),
        ("answer[label=1]", {"answer": 5}, BadInput, "wiki.jsonl, line 2, .*expected text or a list of texts"),
        ("answer[label=1]", {"question": "why"}, BadInput, 'line 2, column question: "why", but line 1 with the same'),
    ],
)
def test_rows_that_cannot_be_used_are_one_clear_line(
    tmp_path: Path, mapping: str, change: dict[str, Any], kind: type[Exception], said: str
) -> None:
    rows = pl.DataFrame(WIKI_QA)[:2].to_dicts()
    rows[1] |= change
    (tmp_path / "wiki.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(kind, match=said) as caught:
        open_questions(str(tmp_path / "wiki.jsonl"), columns={"answers": mapping}).load()
    assert str(caught.value).isprintable()
