"""Questions from a built-in set, a file or the Hub: checked row by row, named by content."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.data.files import FORMATS, Records, file_format, read_records, type_name
from hcl_cli.data.sources import SOURCES
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, shown
from hcl_cli.memo import recall, remember
from hcl_cli.schemas import QUESTIONS

if TYPE_CHECKING:
    import polars as pl

COLUMNS = tuple(QUESTIONS.columns)  # question_id, question, answers
_SYNONYMS = {
    "question": ("prompt", "query", "input", "problem", "question_text", "q", "text"),
    "answers": ("answer", "gold", "aliases", "correct_answers", "possible_answers", "target", "output", "a", "label"),
}


@dataclass(frozen=True)
class QuestionSet:
    """Questions that can be named without being read.

    Attributes:
        name: the built-in or Hub name, or the last part of the file's name; never a path.
        identity: "sha256:<hex>" of the file's bytes, or "hub:<name>@<commit>:<config>:<split>". A column mapping is
            not in it; whoever writes a recipe adds it.
        licence: of a built-in set, else None.
    """

    name: str
    identity: str
    licence: str | None
    _columns: dict[str, str] = field(repr=False)
    _records: Callable[[tuple[str, ...]], Records] = field(repr=False, compare=False)
    _parquet: Path | None = field(repr=False, compare=False, default=None)
    _memo: Path | None = field(repr=False, compare=False, default=None)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        wanted = {source for path in self._columns.values() for source in (path, path.split(".")[0])}
        return question_frame(self._records(tuple(sorted(wanted))), self._columns)

    def load(self) -> pl.DataFrame:
        """The rows, validated: `question_id`, `question`, `answers`, in the file's order.

        Blank and repeated answers within a list are dropped. A question may have an empty list (nothing can grade
        it), but not every question.

        Raises:
            BadInput: one line that names the file, the row and the column.
            BadOption: `--columns` names a column that is not there.
        """
        return self._frame

    @cached_property
    def n_questions(self) -> int:
        """How many rows: from the footer of a Parquet file or from the memo, else by reading the set."""
        if "_frame" not in self.__dict__:
            if self._parquet is not None and (rows := _footer_rows(self._parquet)) is not None:
                return rows
            remembered = recall(self._memo, "rows").get(self.identity)
            if isinstance(remembered, int) and remembered > 0:
                return remembered
        rows = self.load().height
        if self._parquet is None:
            remember(self._memo, "rows", {self.identity: rows})
        return rows


def _footer_rows(file: Path) -> int | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(file).num_rows) or None
    except (pa.ArrowException, OSError, ValueError):
        return None  # damaged: load() says how


def parse_columns(text: str) -> dict[str, str]:
    """`question=prompt,answers=answer.aliases` as {"question": "prompt", "answers": "answer.aliases"}.

    The right side is a column of the file; dots lead into an object. Raises BadOption.
    """
    expected = "expected name=column pairs with a comma between, like --columns question=prompt,answers=gold"
    pairs: dict[str, str] = {}
    for part in text.split(","):
        target, equals, source = (piece.strip() for piece in part.partition("="))
        if not equals or not source:
            raise BadOption(f"--columns {shown(text)}: {shown(part)!r} is not a pair; {expected}")
        if target not in COLUMNS:
            raise BadOption(f"--columns {shown(text)}: {shown(target)!r} cannot be set, only {', '.join(COLUMNS)} can")
        if target in pairs:
            raise BadOption(f"--columns {shown(text)}: {target} is given twice")
        pairs[target] = source
    return pairs


def open_questions(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> QuestionSet:
    """The question set that `--dataset` names; its rows are read by `load()`.

    Args:
        name: a built-in name, the path of a Parquet, CSV or JSONL file, or `hub:NAME[:config[:split]][@revision]`.
            A file that is called like a built-in set is written `./name`.
        columns: our column -> column of the file, as `parse_columns` gives it.
        memo: a JSON file that remembers commits and numbers of rows, or None.
        warn: is told which commit is used when the Hub gave no answer.
    Raises:
        BadOption, BadInput: unknown name, unreadable file, with the nearest names.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    mapping = {column: column for column in COLUMNS} | dict(columns or {})
    if name.startswith("hub:"):
        from hcl_cli.data.hub import open_hub

        commit = open_hub(name, memo=memo, warn=warn)
        return QuestionSet(commit.name, commit.identity, None, mapping, lambda wanted: commit.records(), _memo=memo)
    if name in SOURCES:
        source = SOURCES[name]
        if source.kind != "questions":
            raise BadOption(
                f"--dataset {name}: the set holds {source.kind}, not questions; `hcl datasets` shows which sets do"
            )
        return _open_file(source.file, name, mapping, source.licence, memo)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if os.path.exists(path):
        return _open_file(path, _file_name(path), mapping, None, memo)
    if "/" in name or path.suffix.lower() in FORMATS:
        raise BadInput(f"{shown(name)}: no such file")
    questions = [source.name for source in SOURCES.values() if source.kind == "questions"]
    near = difflib.get_close_matches(name.lower(), questions, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "expected a built-in set, a file or hub:NAME;"
    raise BadOption(f"--dataset {shown(name)}: no such data set or file; {hint} `hcl datasets` lists them all")


def _file_name(path: Path) -> str:
    # A name that is not valid UTF-8 arrives with lone surrogates, which no table can hold.
    return (path.name or path.resolve().name).encode("utf-8", "replace").decode("utf-8")


def _open_file(path: Path, name: str, columns: dict[str, str], licence: str | None, memo: Path | None) -> QuestionSet:
    label = shown(name)
    if os.path.isdir(path):
        raise BadInput(f"{label}: a folder, expected a Parquet, CSV or JSONL file of questions")
    if not os.path.isfile(path):
        raise BadInput(f"{label}: not a regular file; write it to a .parquet, .csv or .jsonl file first")
    kind = file_format(path)
    digest = hashlib.sha256(_read(path, label)).hexdigest()

    def records(wanted: tuple[str, ...]) -> Records:
        data = _read(path, label)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadInput(f"{label}: the file was changed while it was in use; run the command again")
        return read_records(data, kind, label, wanted)

    return QuestionSet(name, f"sha256:{digest}", licence, columns, records, path if kind == "parquet" else None, memo)


def _read(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentRefused(f"{label}: cannot be read ({error.strerror})") from None


# ------------------------------------------------------------------------------------------------ rows


def question_frame(records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """Checked QUESTIONS rows from raw ones.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all three; `question_id` may be absent from the rows, then the ids are
            hashes of the question's text.
    """
    import polars as pl

    _require_columns(records, columns)
    with_ids = _present(columns["question_id"], records.columns)
    if not with_ids and columns["question_id"] != "question_id":
        raise BadOption(_no_column("question_id", columns["question_id"], records))
    if not records.rows:
        raise BadInput(f"{records.name}: no rows, expected one question per row")
    ids: dict[str, int] = {}
    questions, answers = [], []
    for place, row in records.rows:
        question = _question(records, place, row, columns["question"])
        identifier = _identifier(records, place, row, columns["question_id"]) if with_ids else text_id(question)
        if identifier in ids:
            what = f"question_id {shown(identifier, 60)!r}" if with_ids else f"question {shown(question, 60)!r}"
            column = columns["question_id"] if with_ids else columns["question"]
            advice = "" if with_ids else "; give every row its own question_id to ask it twice"
            raise BadInput(
                f"{records.at(place, column)}: {what} is already in {records.unit} {ids[identifier]}{advice}"
            )
        ids[identifier] = place
        questions.append(question)
        answers.append(_answers(records, place, row, columns["answers"]))
    if not any(answers):
        raise BadInput(f"{records.name}, column {shown(columns['answers'])}: no question has an accepted answer")
    rows = {"question_id": list(ids), "question": questions, "answers": answers}
    return pl.DataFrame(rows, schema=QUESTIONS.polars_schema())


def text_id(question: str) -> str:
    """The id of a question that came without one: 16 hex digits of the SHA-256 of its text."""
    return "q-" + hashlib.sha256(question.encode()).hexdigest()[:16]


def _present(source: str, names: tuple[str, ...]) -> bool:
    return source in names or source.split(".")[0] in names


def _no_column(target: str, source: str, records: Records) -> str:
    near = difflib.get_close_matches(source, records.columns, n=1)
    hint = f"; did you mean {target}={shown(near[0])}?" if near else ""
    return f"--columns {target}={shown(source)}: {records.name} has no such column (it has {_listed(records)}){hint}"


def _listed(records: Records) -> str:
    return shown(", ".join(records.columns) or "none", 200)


def _require_columns(records: Records, columns: Mapping[str, str]) -> None:
    missing = [target for target in ("question", "answers") if not _present(columns[target], records.columns)]
    for target in missing:
        if columns[target] != target:
            raise BadOption(_no_column(target, columns[target], records))
    if missing:
        guesses = (f"{target}={_guess(target, records)}" for target in missing)
        raise BadInput(
            f"{records.name}: no column {' and no column '.join(missing)} (it has {_listed(records)}); "
            f"name them, like --columns {','.join(guesses)}"
        )


def _guess(target: str, records: Records) -> str:
    lower = {name.lower(): name for name in records.columns}
    return next((shown(lower[word]) for word in (target, *_SYNONYMS[target]) if word in lower), "COLUMN")


def _cell(row: Mapping[str, Any], source: str) -> Any:
    """The value at a column, or at a dotted path into its objects; None where the path ends early."""
    if source in row:
        return row[source]
    head, *steps = source.split(".")
    value = row.get(head)
    for step in steps:
        value = _step(value, step)
    return value


def _step(value: Any, step: str) -> Any:
    if isinstance(value, str):
        value = _json_in_text(value, "{", "}")
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list):
        return [item.get(step) if isinstance(item, dict) else None for item in value]
    return None


def _json_in_text(text: str, first: str, last: str) -> Any:
    """The JSON value in a cell that looks like one, else the text as it is."""
    trimmed = text.strip()
    if trimmed.startswith(first) and trimmed.endswith(last):
        try:
            return json.loads(trimmed)
        except (ValueError, RecursionError):
            return text
    return text


def _text(records: Records, place: int, column: str, value: object, what: str) -> str:
    if value is None:
        raise BadInput(f"{records.at(place, column)}: null, expected {what}")
    if not isinstance(value, str):
        met = f" ({value})" if isinstance(value, int | float) else ""
        raise BadInput(f"{records.at(place, column)}: {type_name(value)}{met}, expected {what}")
    if not value.strip():
        raise BadInput(f"{records.at(place, column)}: empty, expected {what}")
    if (surrogate := re.search("[\ud800-\udfff]", value)) is not None:
        raise BadInput(f"{records.at(place, column)}: {shown(surrogate[0])} is half a character, expected valid text")
    return value


def _question(records: Records, place: int, row: Mapping[str, Any], column: str) -> str:
    return _text(records, place, column, _cell(row, column), "the text of a question")


def _identifier(records: Records, place: int, row: Mapping[str, Any], column: str) -> str:
    value = _cell(row, column)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _text(records, place, column, value, "an id (text or a whole number)")


def _answers(records: Records, place: int, row: Mapping[str, Any], column: str) -> list[str]:
    what = "an accepted answer (text or a list of texts)"
    value = _cell(row, column)
    if isinstance(value, str) and (trimmed := value.strip()).startswith("[") and trimmed.endswith("]"):
        value = _json_in_text(value, "[", "]")
        if isinstance(value, str):
            # ['a', 'b'] taken as one answer would make every response wrong without a word.
            raise BadInput(f'{records.at(place, column)}: {shown(value, 40)} is not a JSON list, like ["one", "two"]')
    if isinstance(value, dict):
        value = _from_object(records, place, column, value)
    if not isinstance(value, list):
        return [_text(records, place, column, value, what)]
    given = [item for item in value if not (isinstance(item, str) and not item.strip())]
    if value and not given:
        raise BadInput(f"{records.at(place, column)}: blank answers only, expected {what}")
    return list(dict.fromkeys(_text(records, place, column, item, what) for item in given))


def _from_object(records: Records, place: int, column: str, value: dict[str, Any]) -> Any:
    """The answers of two well-known shapes: {value, aliases} of TriviaQA on the Hub, {text: [...]} of SQuAD."""
    if isinstance(value.get("aliases"), list):
        first = value.get("value")
        return ([first] if isinstance(first, str) else []) + value["aliases"]
    if isinstance(value.get("text"), list):
        return value["text"]
    raise BadInput(
        f"{records.at(place, column)}: an object with {shown(', '.join(map(str, value)) or 'no keys', 80)}; "
        f"say which part holds the answers, like --columns answers={shown(column)}.aliases"
    )
