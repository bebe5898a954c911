"""Raw rows to checked questions: every refusal is one line that names the file, the row and the column."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hcl_cli.data.files import Records, type_name
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.schemas import QUESTIONS

if TYPE_CHECKING:
    import polars as pl

_SYNONYMS = {
    "question": ("prompt", "query", "input", "problem", "question_text", "q", "text"),
    "answers": ("answer", "gold", "aliases", "correct_answers", "possible_answers", "target", "output", "a", "label"),
}


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
