"""Input files: ours checked, everybody's accepted by content, and one clear line for what cannot be used."""

import hashlib
import json
import random
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hcl_cli.artifacts.store import Store, read_any, read_source, write_copy
from hcl_cli.errors import BadInput
from hcl_cli.schemas import LAYERS, QUESTIONS, RESPONSES, SCORED

ROWS = [
    {"question": "Who?", "answers": ["Ada", "Ada Lovelace"], "response": "Ada", "exit_layer": 3, "mean_prob": 0.5},
    {"question": "Where?", "answers": ["Rome"], "response": "", "exit_layer": 4, "mean_prob": None},
]


def jsonl(path, rows):
    path.write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    return path


def refusal(path, table=RESPONSES):
    """The one line that a file is refused with, after its name and what parts that from the rest."""
    with pytest.raises(BadInput) as failure:
        read_source(path, table)
    text = str(failure.value)
    assert text.startswith((f"{path}: ", f"{path}, "))
    assert "\n" not in text
    return text[len(f"{path}: ") :]


def check_rows(source):
    frame = source.frame().collect()
    assert frame.select(*RESPONSES.columns).schema == RESPONSES.polars_schema()
    assert frame.select(*ROWS[0]).to_dicts() == ROWS
    assert frame["cluster" if "cluster" in frame.columns else "model"].null_count() == 2


# Ours


def test_ours_is_known_by_its_recipe(store, plan):
    artifact = plan.make(store)
    source = store.read(artifact.path, RESPONSES)
    assert (source.is_ours, source.key, source.sha256) == (True, artifact.key, artifact.sha256)
    assert source.recipe == plan.recipe().document()
    assert source.frame().collect().equals(plan.expected())
    assert read_any(artifact.path).table == RESPONSES


def test_a_copy_is_still_ours_and_has_the_same_identity(store, plan, tmp_path):
    artifact = plan.make(store)
    copy = read_source(write_copy(artifact, tmp_path / "mine.parquet"), RESPONSES)
    assert (copy.key, copy.sha256, copy.is_ours) == (artifact.key, artifact.sha256, True)


def test_the_wrong_stage_is_named(store, plan):
    assert refusal(plan.make(store).path, SCORED) == (
        "holds table responses, expected scored; make one with `hcl score`"
    )


def test_ours_damaged_renamed_or_replaced_is_refused(store, plan, tmp_path):
    path = plan.make(store).path
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert refusal(path) == "its bytes do not match its .sha256; make it again with --force, or copy it again"
    path.write_bytes(whole)
    other = path.with_name("0123456789abcdef.parquet")
    other.write_bytes(whole)
    assert "not its name's; it was renamed or replaced" in refusal(other)


def test_a_copy_with_a_flipped_bit_never_gives_other_rows(store, plan, tmp_path):
    """A copy has no .sha256 beside it; its page checksums notice what its footer does not."""
    whole = plan.make(store, limit=2).path.read_bytes()
    expected = plan.expected(2)
    copy = tmp_path / "copy.parquet"
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        copy.write_bytes(damaged)
        try:
            rows = read_source(copy, RESPONSES).frame().collect()
        except BadInput:
            refused += 1
        else:
            assert rows.equals(expected)
    assert refused > 100


def test_truncated_copies_are_refused(store, plan, tmp_path):
    whole = plan.make(store, limit=2).path.read_bytes()
    copy = tmp_path / "copy.parquet"
    for length in [*range(1, 12), *range(12, len(whole), 97), len(whole) - 1]:
        copy.write_bytes(whole[:length])
        refusal(copy)


# Everybody's


def test_jsonl_csv_and_parquet_give_the_same_rows(tmp_path):
    sources = [read_source(jsonl(tmp_path / "a.jsonl", ROWS), RESPONSES)]
    (tmp_path / "a.csv").write_text(
        "\ufeffmean_prob,question,answers,response,exit_layer\r\n"
        '0.5,Who?,"[""Ada"", ""Ada Lovelace""]",Ada,3\r\n'
        ",Where?,Rome,,4\r\n"
    )
    sources.append(read_source(tmp_path / "a.csv", RESPONSES))
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    sources.append(read_source(tmp_path / "a.parquet", RESPONSES))
    pl.DataFrame(ROWS).with_columns(
        pl.col("exit_layer").cast(pl.Float64), pl.col("mean_prob").fill_null(float("nan"))
    ).to_pandas().to_parquet(tmp_path / "pandas.parquet")
    sources.append(read_source(tmp_path / "pandas.parquet", RESPONSES))
    for source in sources:
        check_rows(source)
        assert (source.is_ours, source.key, source.recipe) == (False, None, None)
    assert sources[0].sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()


def test_what_is_kept_exactly(tmp_path):
    (tmp_path / "a.csv").write_text("question_id,question,answers,response\n007,a,b,\n")
    row = read_source(tmp_path / "a.csv", RESPONSES).frame().collect().to_dicts()[0]
    assert (row["question_id"], row["answers"], row["response"], row["model"]) == ("007", ["b"], "", None)
    source = read_source(
        jsonl(tmp_path / "a.jsonl", [{"question_id": 7, "question": "q", "answers": "one", "response": "r"}]), RESPONSES
    )
    row = source.frame().collect().to_dicts()[0]
    assert (row["question_id"], row["answers"]) == ("7", ["one"])


def test_further_columns_are_kept_where_the_table_has_room(tmp_path):
    rows = [{**row, "note": {"a": 1}, "mixed": value} for row, value in zip(ROWS, [1, "x"], strict=True)]
    kept = read_source(jsonl(tmp_path / "a.jsonl", rows), RESPONSES)
    assert kept.frame().collect().select("note", "mixed").to_dicts() == [
        {"note": {"a": 1}, "mixed": "1"},
        {"note": {"a": 1}, "mixed": '"x"'},
    ]
    layers = [{"exit_layer": 1, "hallucination_rate": 0.5, "creativity_raw": 1.5, "hcb": 0.3, "note": "n"}]
    dropped = read_source(jsonl(tmp_path / "b.jsonl", layers), LAYERS)
    assert dropped.ignored == ("note",)
    assert "note" not in dropped.frame().collect().columns


def test_a_foreign_file_can_become_an_artifact(tmp_path, store):
    from hcl_cli.artifacts.recipe import Input, Recipe

    rows = [{**row, "note": {"a": 1}} for row in ROWS]
    source = read_source(jsonl(tmp_path / "a.jsonl", rows), RESPONSES)
    recipe = Recipe("responses", "score", 1, inputs=(Input(source.sha256, source.key),))
    artifact = store.produce(recipe, RESPONSES, source.frame().collect)
    assert artifact.frame().collect().equals(source.frame().collect())
    assert artifact.inputs == [{"sha256": source.sha256, "key": None}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.csv", "question,answers,response\n", "has no rows"),
        ("a.jsonl", '{"question": "q"}', "table responses needs columns answers, response; the file has question"),
        ("a.csv", "question,response\nq,r\n", "table responses needs column answers; the file has question, response"),
        ("a.jsonl", '{"question": "q", "answers": ["a", 1], "response": "r"}',
         'line 1, column answers: ["a", 1], expected text or a list of texts'),
        ("a.jsonl", '\n{"question": null, "answers": null, "response": "r"}',
         "line 2, column question: null, expected a value in every row"),
        ("a.jsonl", '{"question": "q", "answers": [], "response": "", "exit_layer": 40000}',
         "line 1, column exit_layer: 40000, expected a whole number below 32768"),
        ("a.jsonl", '{"question": "q", "answers": [], "response": "", "exit_layer": 0}',
         "line 1, column exit_layer: 0, expected 1 or more: layers count from 1"),
        ("a.csv", "question,answers,response,sample_index\nq,a,r,\nq,a,r,-3\n",
         "line 3, column sample_index: -3, expected 0 or more"),
        ("a.csv", "question,answers,response,temperature\nq,a,r,inf\n",
         "line 2, column temperature: Infinity, expected a finite number"),
        ("a.parquet", "question,answers", "is not a Parquet file"),
        ("a.parquet", "PAR1PAR1", "not a whole Parquet file"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_file_row_and_column(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert refusal(tmp_path / name).startswith(message)


def test_duplicate_ids_are_told_with_both_places(tmp_path):
    rows = [{"question_id": i, "question": "q", "answers": []} for i in ("c", "a", "b", "c", "a")]
    assert refusal(jsonl(tmp_path / "a.jsonl", rows), QUESTIONS) == (
        'line 4: question_id "c" is already in line 1; expected each once'
    )


def test_columns_of_parquet_that_cannot_be_taken_whole_are_told_by_row(tmp_path):
    def refused(**columns):
        pl.DataFrame({"question": ["q"], "answers": ["a"], "response": ["r"], **columns}).write_parquet(path)
        return refusal(path)

    path = tmp_path / "a.parquet"
    assert refused(answers=[["a", None]]) == 'row 1, column answers: ["a", null], expected text or a list of texts'
    assert refused(exit_layer=[1.5]) == "row 1, column exit_layer: 1.5, expected a whole number"
    assert refused(exit_layer=[0]) == "row 1, column exit_layer: 0, expected 1 or more: layers count from 1"
    assert refused(temperature=[float("inf")]) == "row 1, column temperature: Infinity, expected a finite number"
    pq.write_table(pa.table({"n": pa.array([Decimal(3)], pa.decimal256(50, 0))}), path)
    with pytest.raises(BadInput, match="column n: cannot be read .numbers of more than 38 digits"):
        read_any(path)  # a panic of Polars, with a stack


# Anything at all

cells = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.text(max_size=3), max_size=2)
)
objects = st.dictionaries(st.sampled_from([*RESPONSES.columns, "extra", ""]), cells, max_size=6)
texts = (
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(objects.map(json.dumps), max_size=4).map(lambda lines: "\n".join(lines).encode())
    | st.text(alphabet="question,answers,response\n\"[]'", max_size=120).map(
        lambda text: b"question,answers,response\n" + text.encode()
    )
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=texts, ending=st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet", ""]))
@example(content=b'{"question": "q", "answers": [], "response": "", "\\ud800": 1}', ending=".jsonl")
@example(content=b'{"question": "q", "answers": [], "response": "", "extra": "\\ud800"}', ending=".jsonl")
@example(content=b"[" * 5000, ending=".jsonl")
@example(content=b'{"question": "q", "answers": "' + b"[" * 3000 + b'", "response": ""}', ending=".jsonl")
@example(content=b'{"question": "q", "answers": [], "response": "", "extra": ' + b"9" * 400 + b"}", ending=".jsonl")
def test_any_bytes_are_read_or_refused_in_one_line(content, ending, tmp_path):
    path = tmp_path / f"fuzz{ending}"
    path.write_bytes(content)
    for table in (RESPONSES, None):
        try:
            source = read_source(path, table) if table else read_any(path)
        except BadInput as refused:
            assert str(refused).startswith(str(path))
            assert "\n" not in str(refused)
            str(refused).encode()
        else:
            frame = source.frame().collect()
            assert frame.height >= 0
            assert not table or frame["question"].null_count() == frame["response"].null_count() == 0


def test_a_store_reads_any_input(tmp_path):
    source = Store(tmp_path / "none", warn=print).read(jsonl(tmp_path / "a.jsonl", ROWS), RESPONSES)
    check_rows(source)
    assert not (tmp_path / "none").exists()
