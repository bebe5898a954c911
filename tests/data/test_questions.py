"""Question files: what is accepted, and the one line that says what is not."""

import csv
import io
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.data.questions import COLUMNS, open_questions, parse_columns
from hcl_cli.data.rows import text_id
from hcl_cli.data.sources import SOURCES
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, HclError
from hcl_cli.schemas import QUESTIONS

TWO = [
    {"question_id": "a", "question": "Who?", "answers": ["Ann", "Anna"]},
    {"question_id": "b", "question": "Where?", "answers": ["Here"]},
]


def rows_of(path: Path | str, **columns: str) -> list[dict[str, object]]:
    return open_questions(str(path), columns=columns).load().to_dicts()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path | str, **columns: str) -> str:
    """The message of the refusal; it must be one line that names the file and not its folder."""
    with pytest.raises(HclError) as caught:
        rows_of(path, **columns)
    message = str(caught.value)
    assert message.isprintable() and str(Path(path).parent) + os.sep not in message
    assert Path(path).name in message or type(caught.value) is BadOption
    return message


# ---------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("name", [n for n, s in SOURCES.items() if s.kind == "questions" and s.path[0] == "sets"])
def test_bundled_sets_pass_their_own_checks_unchanged(name: str) -> None:
    opened = open_questions(name)
    stored = pl.read_parquet(SOURCES[name].file).select(COLUMNS)
    assert opened.n_questions == stored.height == SOURCES[name].rows
    assert opened.load().equals(stored)
    assert (opened.name, opened.licence) == (name, SOURCES[name].licence)


def test_one_set_in_every_format_gives_the_same_rows_and_names(tmp_path: Path) -> None:
    pl.DataFrame(TWO).write_parquet(tmp_path / "q.parquet")
    write(tmp_path / "q.jsonl", "".join(json.dumps(row) + "\n" for row in TWO))
    write(tmp_path / "q.csv", 'question_id,question,answers\na,Who?,"[""Ann"", ""Anna""]"\nb,Where?,Here\n')
    write(tmp_path / "q.TSV", 'question_id\tquestion\tanswers\na\tWho?\t"[""Ann"", ""Anna""]"\nb\tWhere?\tHere\n')
    for file in ("q.parquet", "q.jsonl", "q.csv", "q.TSV"):
        opened = open_questions(str(tmp_path / file))
        assert opened.load().to_dicts() == TWO
        assert opened.load().schema == QUESTIONS.polars_schema()
        assert (opened.name, opened.n_questions) == (file, 2)


def test_names_with_blanks_unicode_and_links(tmp_path: Path) -> None:
    folder = tmp_path / "my data ☂"
    folder.mkdir()
    target = write(folder / "große fragen.jsonl", json.dumps(TWO[0]))
    link = tmp_path / "link to it.jsonl"
    link.symlink_to(target)
    through, direct = open_questions(str(link)), open_questions(str(target))
    assert (direct.name, through.name) == ("große fragen.jsonl", "link to it.jsonl")
    assert direct.identity == through.identity  # named by content, not by place


def test_identity_is_that_of_the_bytes(tmp_path: Path) -> None:
    # SHA-256 of b'{"question": "Who?", "answers": "Ann"}\n', by sha256sum.
    file = write(tmp_path / "q.jsonl", '{"question": "Who?", "answers": "Ann"}\n')
    assert open_questions(str(file)).identity == (
        "sha256:" + "666e78749e19eef64dbb28a25b23c277e6d6d0a1ef395d581f806b29669a7d3a"
    )
    changed = write(tmp_path / "r.jsonl", '{"question": "Who?", "answers": "Ana"}\n')
    assert open_questions(str(changed)).identity != open_questions(str(file)).identity


def test_a_file_that_changes_between_naming_and_reading_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", json.dumps(TWO[0]))
    opened = open_questions(str(file))
    write(file, json.dumps(TWO[1]))
    with pytest.raises(BadInput, match="q.jsonl: the file was changed while it was in use"):
        opened.load()


def test_ids_that_are_numbers_become_text_and_missing_ids_are_stable(tmp_path: Path) -> None:
    numbered = write(tmp_path / "n.jsonl", '{"question_id": 7, "question": "Who?", "answers": ["Ann"]}')
    assert rows_of(numbered)[0]["question_id"] == "7"
    frame = pl.DataFrame({"question_id": [2**40], "question": ["Who?"], "answers": [["Ann"]]})
    frame.write_parquet(tmp_path / "n.parquet")
    assert rows_of(tmp_path / "n.parquet")[0]["question_id"] == "1099511627776"
    # First 16 hex digits of SHA-256("Who?").
    assert text_id("Who?") == "q-d991a24e8e04231c"


def test_answers_lose_blanks_and_repeats_and_one_question_may_have_none(tmp_path: Path) -> None:
    file = write(
        tmp_path / "q.jsonl",
        '{"question": "A?", "answers": ["x", " ", "y", "x"]}\n{"question": "B?", "answers": []}\n',
    )
    assert [row["answers"] for row in rows_of(file)] == [["x", "y"], []]


def test_answers_in_the_shapes_of_well_known_sets(tmp_path: Path) -> None:
    trivia = {"value": "Sinclair Lewis", "aliases": ["Harry Lewis", "Sinclair Lewis"], "type": "WikipediaEntity"}
    squad = {"text": ["in 1066", "1066"], "answer_start": [3, 6]}
    popqa = '["politician", "political leader"]'
    lines = [
        {"q": "A?", "struct": trivia, "s": squad, "p": popqa},
        {"q": "B?", "struct": {"value": "x", "aliases": []}, "s": squad, "p": popqa},
    ]
    file = write(tmp_path / "h.jsonl", "\n".join(map(json.dumps, lines)))
    pl.DataFrame(lines).write_parquet(tmp_path / "h.parquet")
    for path in (file, tmp_path / "h.parquet"):
        by = [[row["answers"] for row in rows_of(path, question="q", answers=a)] for a in ("struct", "s", "p")]
        assert by[0] == [["Sinclair Lewis", "Harry Lewis"], ["x"]]
        assert by[1] == [["in 1066", "1066"]] * 2
        assert by[2] == [["politician", "political leader"]] * 2
        assert rows_of(path, question="q", answers="s.text")[0]["answers"] == ["in 1066", "1066"]
        assert rows_of(path, question="q", answers="struct.value")[1]["answers"] == ["x"]
    listed = write(tmp_path / "l.jsonl", '{"question": "A?", "answers": [{"text": "x"}, {"text": "y"}]}')
    assert rows_of(listed, answers="answers.text")[0]["answers"] == ["x", "y"]
    cell = write(tmp_path / "c.csv", 'question,meta\nA?,"{""gold"": [""x""]}"\n')
    assert rows_of(cell, answers="meta.gold")[0]["answers"] == ["x"]


def test_a_column_with_a_dot_in_its_name_wins_over_a_path(tmp_path: Path) -> None:
    file = write(tmp_path / "d.csv", "question,answer.gold\nA?,x\n")
    assert rows_of(file, answers="answer.gold")[0]["answers"] == ["x"]


def test_columns_of_a_built_in_set_can_be_chosen() -> None:
    chosen = open_questions("truthfulqa", columns={"answers": "incorrect_answers"}).load()
    assert (
        chosen["answers"][0].to_list() == pl.read_parquet(SOURCES["truthfulqa"].file)["incorrect_answers"][0].to_list()
    )


def test_the_number_of_rows_of_a_text_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, memo = write(tmp_path / "q.jsonl", json.dumps(TWO[0])), tmp_path / "memo.json"
    assert open_questions(str(file), memo=memo).n_questions == 1
    again = open_questions(str(file), memo=memo)
    write(file, "no longer readable")
    assert again.n_questions == 1  # not read again
    changed = open_questions(str(write(file, json.dumps(TWO[0]) + "\n" + json.dumps(TWO[1]))), memo=memo)
    assert changed.n_questions == 2


# ----------------------------------------------------------------------------------------------- refused

CSV = "question_id,question,answers\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.csv", "", "the file is empty"),
        ("h.csv", CSV, "no rows"),
        ("m.csv", "id,prompt,gold\n1,Who?,x\n",
         "no column question and no column answers (it has id, prompt, gold); "
         "name them, like --columns question=prompt,answers=gold"),
        ("m.jsonl", '{"question": "A?"}',
         "no column answers (it has question); name them, like --columns answers=COLUMN"),
        ("q.csv", CSV + "a,Who?,x\nb,  ,y\n", 'line 3, column question: "  ", expected the text of a question'),
        ("n.jsonl", '{"question": null, "answers": "x"}', "line 1, column question: null, expected the text"),
        ("w.jsonl", '{"question": 5, "answers": "x"}', "line 1, column question: 5, expected the text"),
        ("w.jsonl", '{"question": ["A?"], "answers": "x"}', 'line 1, column question: ["A?"], expected the text'),
        ("a.csv", CSV + "a,Who?,\n", "line 2, column answers: empty, expected an accepted answer"),
        ("a.jsonl", '{"question": "A?", "answers": [" "]}', 'column answers: [" "], expected an accepted answer'),
        ("a.jsonl", '{"question": "A?", "answers": {"gold": "x"}}',
         'line 1, column answers: {"gold": "x"}, expected text or a list; say which part holds the answers'),
        ("a.jsonl", '{"question": "A?", "answers": []}\n{"question": "B?", "answers": []}',
         "column answers: no question has an accepted answer"),
        ("p.csv", CSV + "a,Who?,\"['x', 'y']\"\n",
         "line 2, column answers: \"['x', 'y']\", expected text or a JSON list"),
        ("i.jsonl", '{"question_id": 1.5, "question": "A?", "answers": "x"}', "column question_id: 1.5, expected"),
        ("i.jsonl", '{"question_id": true, "question": "A?", "answers": "x"}', "column question_id: true, expected"),
        ("i.csv", CSV + " ,Who?,x\n", 'line 2, column question_id: " ", expected an id'),
        ("d.csv", CSV + "a,Who?,x\nb,Where?,y\na,When?,z\n",
         "line 4, column question_id: question_id 'a' is already in line 2"),
        ("d.jsonl", '{"question": "A?", "answers": "x"}\n\n{"question": "A?", "answers": "y"}',
         "line 3, column question: question 'A?' is already in line 1; give every row its own question_id"),
        ("z.txt", "Who?", "its format is not known; expected the ending .parquet, .csv"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_row_and_column(
    tmp_path: Path, name: str, content: str | bytes, said: str
) -> None:
    assert said in refusal(write(tmp_path / name, content))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    file = write(tmp_path / "q.csv", "prompt,gold\nWho?,x\n")
    message = refusal(file, question="promt", answers="gold")
    assert message.startswith("--columns question=promt: q.csv has no such column (it has prompt, gold)")
    assert message.endswith("did you mean question=prompt?")
    assert "--columns question_id=id: q.csv has no such column" in refusal(
        file, question="prompt", answers="gold", question_id="id"
    )
    nested = write(tmp_path / "n.jsonl", '{"question": "A?", "answer": {"value": "x"}}')
    assert "n.jsonl, line 1, column answer.aliases: null" in refusal(nested, answers="answer.aliases")


def test_names_that_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean triviaqa" in refusal("trivia-qa") and "`hcl datasets`" in refusal("trivia-qa")
    assert refusal("missing.csv") == "missing.csv: no such file"
    with pytest.raises(BadInput, match="^no/such/dir/q.csv: no such file$"):
        open_questions("no/such/dir/q.csv")
    assert "holds statements, not questions" in refusal("true_false")
    assert "\\n" in refusal("a\nb") and "\\x1b" in refusal("a\x1b[31mb")
    with pytest.raises(BadOption, match="no such data set"):
        open_questions("x" * 5000)
    with pytest.raises(BadOption, match="no such data set"):
        open_questions("nul\0byte")


def test_a_file_called_like_a_built_in_set_needs_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "triviaqa", "not a data file")
    assert open_questions("triviaqa").n_questions == 1000
    assert "its format is not known" in refusal("./triviaqa")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "q.csv", CSV)

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a mode of 000 does not stop root
    with pytest.raises(EnvironmentRefused, match=r"^q.csv: cannot be read \(Permission denied\)$"):
        open_questions(str(file))


# ----------------------------------------------------------------------------------------------- columns


def test_parse_columns() -> None:
    assert parse_columns(" question = prompt, answers=answer.aliases ") == {
        "question": "prompt",
        "answers": "answer.aliases",
    }
    for text, said in [
        ("", "is not a pair"),
        ("question", "is not a pair"),
        ("question=", "is not a pair"),
        ("question=a,,answers=b", "is not a pair"),
        ("prompt=question", "'prompt' cannot be set, only question_id, question, answers can"),
        ("question=a,question=b", "question is given twice"),
    ]:
        with pytest.raises(BadOption, match=said):
            parse_columns(text)


@given(st.text(max_size=60))
def test_parse_columns_gives_our_names_or_one_line(text: str) -> None:
    try:
        pairs = parse_columns(text)
    except BadOption as error:
        assert str(error).isprintable()
    else:
        assert set(pairs) <= set(COLUMNS) and all(source == source.strip() != "" for source in pairs.values())


# -------------------------------------------------------------------------------------------------- fuzz

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "aliases", "value"]), inner),
    max_leaves=6,
)
# Mostly usable cells, so that the odd one is met by the check of its own column.
_ROWS = st.lists(
    st.fixed_dictionaries(
        {"question": st.text(min_size=1) | _JSON, "answers": st.lists(st.text(max_size=4), min_size=1) | _JSON},
        optional={"question_id": st.integers(0, 3) | st.text(max_size=2) | _JSON, "other": _JSON},
    ),
    max_size=3,
)


def _parquet_bytes(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_parquet(sink)
    return sink.getvalue()


def _csv_bytes(rows: list[dict[str, object]]) -> bytes:
    sink = io.StringIO()
    table = csv.DictWriter(sink, COLUMNS, extrasaction="ignore")
    table.writeheader()
    table.writerows(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in r.items()} for r in rows
    )
    return sink.getvalue().encode("utf-8", "surrogatepass")


def _jsonl_bytes(rows: list[dict[str, object]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


_WHOLE = {
    ".parquet": _parquet_bytes(pl.DataFrame(TWO)),
    ".jsonl": _jsonl_bytes(TWO),
    ".csv": b'question_id,question,answers\r\na,Who?,"[""Ann""]"\r\nb,"Wh\nere?",Here\n',
}
_TYPED = st.sampled_from([
    pl.DataFrame({"question": ["A?", "B?"], "answers": column})
    for column in (
        [["x"], ["y"]], [["x"], []], ["x", "y"], [1, 2], [b"x", b"\xff"], [{"text": ["x"]}, {"text": []}], [None, None],
        [[["x"]], [["y"]]], [1.5, float("nan")], pl.Series(["x", "y"], dtype=pl.Categorical),
        pl.Series([10**12, -(10**18)]).cast(pl.Datetime("us")), pl.Series([1, 2]).cast(pl.Decimal(10, 2)),
    )
]).map(_parquet_bytes)  # fmt: skip


@st.composite
def _damaged(draw: st.DrawFn, ending: str) -> bytes:
    """A valid file with a few bytes overwritten, cut out or put in: gets further into a parser than noise does."""
    data = bytearray(_WHOLE[ending])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        patch = draw(st.binary(max_size=4))
        data[at : at + draw(st.integers(0, 8))] = patch
    return bytes(data)


_FILES = st.one_of(
    st.tuples(st.sampled_from([*_WHOLE]), st.binary(max_size=200)),
    *(st.tuples(st.just(ending), _damaged(ending)) for ending in _WHOLE),
    st.tuples(st.just(".jsonl"), _ROWS.map(_jsonl_bytes)),
    st.tuples(st.just(".csv"), _ROWS.map(_csv_bytes)),
    st.tuples(st.just(".csv"), st.text(alphabet='question,answers\n\r"[]{} ', max_size=80).map(str.encode)),
    st.tuples(st.just(".parquet"), _TYPED),
)


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=_FILES, path=st.sampled_from(["answers", "answers", "answers.text", "other.text"]))
def test_any_bytes_give_valid_questions_or_one_line(tmp_path: Path, file: tuple[str, bytes], path: str) -> None:
    target = write(tmp_path / f"any{file[0]}", file[1])
    try:
        frame = open_questions(str(target), columns={"answers": path}).load()
    except (BadInput, BadOption) as error:
        assert str(error).isprintable() and target.name in str(error)
        return
    assert frame.schema == QUESTIONS.polars_schema()
    assert frame.height > 0 and frame["question_id"].n_unique() == frame.height
    assert frame.null_count().row(0) == (0, 0, 0)
    for row in frame.iter_rows(named=True):
        assert row["question_id"].strip() and row["question"].strip()
        assert all(answer.strip() for answer in row["answers"])
        assert len(set(row["answers"])) == len(row["answers"])


def test_references_are_lists_in_every_format(tmp_path: Path) -> None:
    """A list in a CSV cell was read as one text, so that nothing matched it."""
    path = tmp_path / "q.csv"
    path.write_text(
        "question,answers,best_answer,right,incorrect_answers\n"
        'Where?,Paris,Paris,"[""Paris"", ""In Paris""]","[""Rome"", "" "", ""Lyon"", ""Rome""]"\n'
        "When?,1789,1789,In 1789,\n"
    )
    found = open_questions(str(path)).references({"correct_answers": "right"})
    assert found.rows() == [
        (open_questions(str(path)).load()["question_id"][0], ["Paris"], ["Paris", "In Paris"], ["Rome", "Lyon"]),
        (open_questions(str(path)).load()["question_id"][1], ["1789"], ["In 1789"], []),
    ]
    assert found.columns == ["question_id", "best_answer", "correct_answers", "incorrect_answers"]
    assert open_questions(str(path)).references().columns == ["question_id", "best_answer", "incorrect_answers"]
    with pytest.raises(BadOption, match="--columns correct_answers=wrong: q.csv has no such column"):
        open_questions(str(path)).references({"correct_answers": "wrong"})
    (tmp_path / "q.jsonl").write_text(
        '{"question": "a", "answers": "b"}\n{"question": "c", "answers": "d", "best_answer": 1}\n'
    )
    with pytest.raises(BadInput, match="q.jsonl, line 2, column best_answer: 1, expected text or a list of texts"):
        open_questions(str(tmp_path / "q.jsonl")).references()
