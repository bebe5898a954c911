"""Sets whose answers are given: questions with right and wrong answers, and prefixes with their continuations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.data.named import Named, mapped, open_named
from hcl_cli.data.rows import (
    cells,
    identifier,
    no_column,
    present,
    reference_texts,
    refuse_repeated,
    require_columns,
    text_id,
)
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.records import Convert, Records, text, texts

if TYPE_CHECKING:
    import polars as pl

CHOICE_COLUMNS = ("question_id", "question", "best_answer", "correct_answers", "incorrect_answers")
COMPLETION_COLUMNS = ("question_id", "prefix", "completion", "contradictions")
N_FALSE = 3  # false continuations of a prefix, as FACTOR has them


@dataclass(frozen=True)
class ChoiceSet:
    """A set with given answers that can be named without being read.

    Attributes:
        name: the built-in or Hub name, or the last part of the file's name; never a path.
        identity: "sha256:<hex>" of the file's bytes, or "hub:<name>@<commit>:<config>:<split>". A column mapping is
            not in it; whoever writes a recipe adds it.
        licence: of a built-in set, else None.
    """

    name: str
    identity: str
    licence: str | None
    _named: Named = field(repr=False, compare=False)
    _columns: dict[str, str] = field(repr=False)
    _read: Callable[[Records, Mapping[str, str]], pl.DataFrame] = field(repr=False, compare=False)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        return self._read(self._named.records(()), self._columns)

    def load(self) -> pl.DataFrame:
        """The rows, validated, in the file's order: `choice_frame` or `completion_frame` says which columns.

        Raises:
            BadInput: one line that names the file, the row and the column.
            BadOption: `--columns` names a column that is not there.
        """
        return self._frame


def open_choices(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> ChoiceSet:
    """Questions with a best, the correct and the incorrect answers: `truthfulqa`, or a file with the same columns.

    Args:
        name: what `--dataset` says: a built-in name, a file or `hub:...`.
        columns: our column -> column of the file, for CHOICE_COLUMNS.
        memo: a JSON file that remembers commits and numbers of rows, or None.
        warn: is told which commit is used when the Hub gave no answer.
    Raises:
        BadOption, BadInput: unknown name, unreadable file, with the nearest names.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    named = open_named(name, "questions", memo=memo, warn=warn)
    return _opened(named, mapped(columns, CHOICE_COLUMNS), choice_frame)


def open_completions(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> ChoiceSet:
    """Prefixes with a factual and three false continuations: `factor_expert`, or a file with the same columns.

    Arguments and errors are those of `open_choices`, with COMPLETION_COLUMNS and what `--factor` says.
    """
    named = open_named(name, "completions", memo=memo, warn=warn, option="--factor")
    return _opened(named, mapped(columns, COMPLETION_COLUMNS), completion_frame)


def _opened(
    named: Named, columns: dict[str, str], read: Callable[[Records, Mapping[str, str]], pl.DataFrame]
) -> ChoiceSet:
    return ChoiceSet(named.name, named.identity, named.licence, named, columns, read)


def choice_frame(records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """Checked questions with answers from raw rows.

    Answers are trimmed; blank and repeated ones of a list are dropped. The best answer is one of the correct ones:
    where the file does not list it there, it is put in front. Of a list in its place the first is taken.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all of CHOICE_COLUMNS; `question_id` may be absent, then the ids are hashes
            of the questions' texts.
    Returns:
        CHOICE_COLUMNS: `correct_answers` and `incorrect_answers` are lists that are never empty. An answer may be in
        both (TruthfulQA has two such).
    """
    require_columns(records, columns, CHOICE_COLUMNS[1:])
    rows = _converted(
        records,
        columns,
        "question",
        {
            "question": _content("the text of a question"),
            "best_answer": _best,
            "correct_answers": _answers,
            "incorrect_answers": _answers,
        },
    )
    pairs = zip(rows["best_answer"], rows["correct_answers"], strict=True)
    rows["correct_answers"] = [true if best in true else [best, *true] for best, true in pairs]
    return _frame(rows, CHOICE_COLUMNS, lists=CHOICE_COLUMNS[3:])


def completion_frame(records: Records, columns: Mapping[str, str]) -> pl.DataFrame:
    """Checked prefixes with continuations from raw rows.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all of COMPLETION_COLUMNS; `question_id` may be absent, then the ids are
            hashes of the prefixes. `contradictions` may be three columns `contradiction_0` to `contradiction_2`.
    Returns:
        COMPLETION_COLUMNS: texts as they stand; `contradictions` is a list of three.
    """
    numbered = [f"contradiction_{i}" for i in range(N_FALSE)]
    split = (
        columns["contradictions"] == "contradictions"
        and not present("contradictions", records.names)
        and all(name in records.names for name in numbered)
    )
    require_columns(records, columns, ("prefix", "completion") if split else COMPLETION_COLUMNS[1:])
    convert: dict[str, Convert] = {
        "prefix": _content("the text to be continued"),
        "completion": _content("the text of a continuation"),
    }
    if not split:
        convert["contradictions"] = _false
    rows = _converted(records, columns, "prefix", convert)
    if split:
        single = _content("the text of a continuation")
        parts = [records.converted(name, single) for name in numbered]
        rows["contradictions"] = [list(three) for three in zip(*parts, strict=True)]
    return _frame(rows, COMPLETION_COLUMNS, lists=("contradictions",))


def _converted(
    records: Records, columns: Mapping[str, str], content: str, convert: Mapping[str, Convert]
) -> dict[str, list[Any]]:
    """Every column through its conversion, with ids; `content` is the column that ids are made from without any."""
    with_ids = present(columns["question_id"], records.names)
    if not with_ids and columns["question_id"] != "question_id":
        raise BadOption(no_column("question_id", columns["question_id"], records))
    if not records.places:
        raise BadInput(f"{records.name}: no rows, expected one {content} per row")
    rows = {
        target: records.converted(columns[target], one, cells(records, columns[target]))
        for target, one in convert.items()
    }
    if with_ids:
        source = columns["question_id"]
        rows["question_id"] = records.converted(source, identifier, cells(records, source))
    else:
        rows["question_id"] = [text_id(one) for one in rows[content]]
    refuse_repeated(records, columns, rows, with_ids, names=("question_id", content), why="to score it twice")
    return rows


def _frame(rows: Mapping[str, list[Any]], columns: Sequence[str], *, lists: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    types = {column: pl.List(pl.String()) if column in lists else pl.String() for column in columns}
    return pl.DataFrame({column: rows[column] for column in columns}, schema=types)


def _content(expected: str) -> Convert:
    def convert(value: Any) -> str | None:
        if not isinstance(value, str) or not value.strip():  # a number is likelier the wrong column than a text
            raise ValueError(expected)
        return text(value)

    return convert


def _best(value: Any) -> str:
    return _answers(value)[0]


def _answers(value: Any) -> list[str]:
    found = reference_texts(value)
    if not found:
        raise ValueError("at least one answer (text or a list of texts); leave the question out")
    return found


def _false(value: Any) -> list[str]:
    found = texts(value) if not isinstance(value, str) or value.strip().startswith("[") else None
    if found is None or len(found) != N_FALSE or not all(one.strip() for one in found):
        raise ValueError(f"a list of {N_FALSE} false continuations")
    return found
