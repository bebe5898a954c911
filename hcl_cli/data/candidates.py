"""Question sets with a row per candidate answer, one of whose columns says which candidates are right.

`answers=answer[label=1]` makes one question of the rows that share an id (or, without ids, a question), with the
`answer` of those whose `label` is 1 as its accepted answers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hcl_cli.data.rows import cells, no_column, present
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.records import Records, json_text

log = logging.getLogger(__name__)

_FORM = re.compile(r"([^\[\]=]+)\[([^\[\]=]+)=([^\[\]]+)\]")


@dataclass(frozen=True)
class Candidates:
    """The right side of `answers=ANSWER[MARK=VALUE]`.

    Attributes:
        answer: column of the candidate answers.
        mark: column that says which are right.
        value: what it says of these.
    """

    answer: str
    mark: str
    value: str

    def holds(self, found: Any) -> bool:
        """Whether a cell of the column `mark` says that the candidate is right: 1, 1.0, true and "1" are alike."""
        if isinstance(found, bool):
            return self.value.lower() in (("true", "1") if found else ("false", "0"))
        if isinstance(found, int | float):
            try:
                return float(self.value) == found
            except ValueError:
                return False
        return isinstance(found, str) and found.strip() == self.value


def candidates_of(source: str) -> Candidates | None:
    """What the right side of a column mapping says, if it has that form."""
    match = _FORM.fullmatch(source)
    return Candidates(*(part.strip() for part in match.groups())) if match else None


def columns_read(source: str) -> tuple[str, ...]:
    """The columns of a file that the right side of a column mapping may lead into."""
    found = candidates_of(source)
    paths = (source,) if found is None else (source, found.answer, found.mark)
    return tuple(name for path in paths for name in (path, path.split(".")[0]))


def one_row_per_question(records: Records, columns: Mapping[str, str]) -> Records:
    """The records as they are, or, if `answers` is mapped to candidates, a row per question.

    A question's row is that of its first right candidate, and has a further column, called like the right side of
    the mapping, that lists all of them. Questions without a right candidate are left out, which the log says.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all columns of QUESTIONS.
    Raises:
        BadOption: a column is not there, or no row is marked with the value.
        BadInput: a right candidate is null, or rows of one id ask different questions.
    """
    source = columns["answers"]
    wanted = candidates_of(source)
    if wanted is None or source in records.names:  # a column that happens to be called so
        return records
    for name in (wanted.answer, wanted.mark):
        if not present(name, records.names):
            raise BadOption(no_column("answers", name, records))
    key = next((columns[name] for name in ("question_id", "question") if present(columns[name], records.names)), None)
    if key is None:
        return records  # the check of required columns says it better
    ids = [json_text(one) for one in cells(records, key)]
    asked = cells(records, columns["question"]) if present(columns["question"], records.names) else ids
    answers, marks = cells(records, wanted.answer), cells(records, wanted.mark)
    first: dict[str, int] = {}
    right: dict[str, list[int]] = {}
    for i, one in enumerate(ids):
        other = first.setdefault(one, i)
        if asked[i] != asked[other]:
            raise BadInput(
                f"{records.at(i, columns['question'])}: {shown(json_text(asked[i]), 60)}, but {records.unit} "
                f"{records.places[other]} with the same {key} {shown(one, 30)} asks something else"
            )
        if wanted.holds(marks[i]):
            if answers[i] is None:
                raise BadInput(
                    f"{records.at(i, wanted.answer)}: null, expected an answer, since {wanted.mark} is right"
                )
            right.setdefault(one, []).append(i)
    if not right:
        met = ", ".join(sorted({json_text(mark) for mark in marks})[:5])
        raise BadOption(
            f"--columns answers={shown(source)}: no row of {records.name} has {shown(wanted.mark)} = "
            f"{shown(wanted.value)} (it has {shown(met) or 'no row'})"
        )
    if len(right) < len(first):
        log.warning(
            "%s: %d of %d questions have no row with %s = %s and are left out",
            records.name, len(first) - len(right), len(first), wanted.mark, wanted.value,
        )  # fmt: skip
    rows = [right[one] for one in first if one in right]  # in the order in which the questions appear
    kept = [of[0] for of in rows]
    return Records(
        records.name,
        records.kind,
        (*records.names, source),
        {name: _taken(column, kept) for name, column in records.columns.items()}
        | {source: [[answers[i] for i in of] for of in rows]},
        [records.places[i] for i in kept],
    )


def _taken(column: Any, rows: list[int]) -> Any:
    return [column[i] for i in rows] if isinstance(column, list) else column.take(rows)
