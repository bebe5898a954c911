"""Raw rows to checked rows: every refusal is one line that names the file, the row and the column."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from hcl_cli.columns import as_found
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.records import Convert, Records, text, texts
from hcl_cli.schemas import QUESTIONS

if TYPE_CHECKING:
    import polars as pl

_SYNONYMS = {
    "question": ("prompt", "query", "input", "problem", "question_text", "q", "text"),
    "answers": ("answer", "gold", "aliases", "correct_answers", "possible_answers", "target", "output", "a", "label"),
    "text": ("body", "content", "passage", "story", "document", "article", "sentence", "response", "completion"),
    "statement": ("text", "sentence", "claim", "proposition", "fact"),
    "label": ("is_true", "truth", "true", "correct", "answer", "target", "y", "sentiment", "class"),
    "best_answer": ("best answer", "best", "right_answer", "answer", "answers"),
    "correct_answers": ("correct answers", "correct", "right_answers", "true_answers", "answers"),
    "incorrect_answers": ("incorrect answers", "incorrect", "wrong_answers", "false_answers"),
    "prefix": ("turncated_prefixes", "truncated_prefix", "context", "prompt", "text"),
    "completion": ("factual", "continuation", "true_completion"),
    "contradictions": ("contradiction", "false_completions", "non_factual"),
}


def question_frame(records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """Checked QUESTIONS rows from raw ones.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all three; `question_id` may be absent from the rows, then the ids are
            hashes of the question's text.
    """
    import polars as pl

    require_columns(records, columns)
    with_ids = present(columns["question_id"], records.names)
    if not with_ids and columns["question_id"] != "question_id":
        raise BadOption(no_column("question_id", columns["question_id"], records))
    if not records.places:
        raise BadInput(f"{records.name}: no rows, expected one question per row")
    convert: dict[str, Convert] = {
        "question_id": identifier,
        "question": _question,
        "answers": partial(_answers, columns["answers"]),
    }
    rows = {
        target: records.converted(source, convert[target], cells(records, source))
        for target, source in columns.items()
        if target != "question_id" or with_ids
    }
    rows.setdefault("question_id", [text_id(question) for question in rows["question"]])
    refuse_repeated(records, columns, rows, with_ids)
    if not any(rows["answers"]):
        raise BadInput(f"{records.name}, column {shown(columns['answers'])}: no question has an accepted answer")
    return pl.DataFrame({column: rows[column] for column in QUESTIONS.columns}, schema=QUESTIONS.polars_schema())


def refuse_repeated(
    records: Records,
    columns: Mapping[str, str],
    rows: Mapping[str, list[Any]],
    with_ids: bool,
    *,
    names: tuple[str, str] = ("question_id", "question"),
    why: str = "to ask it twice",
) -> None:
    """Raise BadInput if an id, or without ids a content, is there twice. `names`: our columns of the two."""
    first: dict[str, int] = {}
    for i, one in enumerate(rows[names[0]]):
        if first.setdefault(one, i) != i:
            target = names[0] if with_ids else names[1]
            advice = "" if with_ids else f"; give every row its own {names[0]} {why}"
            raise BadInput(
                f"{records.at(i, columns[target])}: {target} {shown(rows[target][i], 60)!r} is already in "
                f"{records.unit} {records.places[first[one]]}{advice}"
            )


def text_id(question: str) -> str:
    """The id of a question that came without one: 16 hex digits of the SHA-256 of its text."""
    return "q-" + hashlib.sha256(question.encode()).hexdigest()[:16]


def present(source: str, names: tuple[str, ...]) -> bool:
    """Whether a column, or the object that a dotted path leads into, is there."""
    return source in names or source.split(".")[0] in names


def reference_texts(value: Any) -> list[str]:
    """The conversion to references: a list of texts, trimmed, blank and repeated ones dropped; maybe none is left."""
    return list(dict.fromkeys(one.strip() for one in texts(value) or [] if one.strip()))


def reference_frame(records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """The references of raw rows, each kind a list of texts: those of `columns` that the file has.

    Args:
        records: raw rows.
        columns: our column -> theirs. One that is renamed must be there.
    """
    import polars as pl

    found = {}
    for target, source in columns.items():
        if present(source, records.names):
            found[target] = records.converted(source, reference_texts, cells(records, source))
        elif source != target:
            raise BadOption(no_column(target, source, records))
    return pl.DataFrame(found, schema=dict.fromkeys(found, pl.List(pl.String())))


def no_column(target: str, source: str, records: Records) -> str:
    """What is said of a column that `--columns` names and the file lacks."""
    near = difflib.get_close_matches(source, records.names, n=1)
    hint = f"; did you mean {target}={shown(near[0])}?" if near else ""
    return f"--columns {target}={shown(source)}: {records.name} has no such column (it has {_listed(records)}){hint}"


def _listed(records: Records) -> str:
    return shown(", ".join(records.names) or "none", 200)


def require_columns(
    records: Records, columns: Mapping[str, str], required: tuple[str, ...] = ("question", "answers")
) -> None:
    """Raise BadOption or BadInput unless every required column of ours is there under its name in the file."""
    missing = [target for target in required if not present(columns[target], records.names)]
    for target in missing:
        if columns[target] != target:
            raise BadOption(no_column(target, columns[target], records))
    if missing:
        guesses = (f"{target}={_guess(target, records)}" for target in missing)
        raise BadInput(
            f"{records.name}: no column {' and no column '.join(missing)} (it has {_listed(records)}); "
            f"name them, like --columns {','.join(guesses)}"
        )


def with_further(frame: pl.DataFrame, records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """The frame with every other column of the file behind its own, as the file has them.

    A column that became one of ours is not repeated under its old name, and one that is called like one of ours but
    is not used gives way.
    """
    taken = {*frame.columns, *columns.values()}
    return frame.with_columns(as_found(records, name) for name in records.names if name not in taken)


def _guess(target: str, records: Records) -> str:
    lower = {name.lower(): name for name in records.names}
    return next((shown(lower[word]) for word in (target, *_SYNONYMS[target]) if word in lower), "COLUMN")


def cells(records: Records, source: str) -> list[Any]:
    """The values of a column, or at a dotted path into its objects; None where the path ends early."""
    if source in records.names:
        return records.values(source)
    head, *steps = source.split(".")
    values = records.values(head)
    for step in steps:
        values = [_step(value, step) for value in values]
    return values


def _step(value: Any, step: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list):
        return [item.get(step) if isinstance(item, dict) else None for item in value]
    return None


def _question(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():  # a number is likelier the wrong column than a question
        raise ValueError("the text of a question")
    return text(value)


def identifier(value: Any) -> str | None:
    """The conversion to an id: text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError("an id (text or a whole number)")
    return text(value)


def _answers(column: str, value: Any) -> list[str]:
    """Blank and repeated answers are dropped; a list that was empty from the start stays one."""
    if isinstance(value, dict):
        value = _from_object(column, value)
    given = texts(value)
    found = list(dict.fromkeys(answer for answer in given or [] if answer.strip()))
    if given is None or (given and not found):
        raise ValueError("an accepted answer (text or a list of texts)")
    return found


def _from_object(column: str, value: dict[str, Any]) -> Any:
    """The answers of two well-known shapes: {value, aliases} of TriviaQA on the Hub, {text: [...]} of SQuAD."""
    if isinstance(value.get("aliases"), list):
        first = value.get("value")
        return ([first] if isinstance(first, str) else []) + value["aliases"]
    if isinstance(value.get("text"), list):
        return value["text"]
    raise ValueError(
        f"text or a list; say which part holds the answers, like --columns answers={shown(column)}.aliases"
    )
