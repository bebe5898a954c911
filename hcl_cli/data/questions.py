"""Questions from a built-in set, a file or the Hub: checked row by row, named by content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.data.candidates import candidates_of, columns_read, one_row_per_question
from hcl_cli.data.named import Named, mapped, open_named
from hcl_cli.data.rows import question_frame, reference_frame, with_further
from hcl_cli.errors import BadOption, shown
from hcl_cli.records import Records
from hcl_cli.schemas import QUESTIONS

if TYPE_CHECKING:
    import polars as pl

COLUMNS = tuple(QUESTIONS.columns)  # question_id, question, answers
REFERENCE_COLUMNS = ("best_answer", "correct_answers", "incorrect_answers")


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
    _named: Named = field(repr=False, compare=False)
    _columns: dict[str, str] = field(repr=False)
    _memo: Path | None = field(repr=False, compare=False, default=None)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        wanted = {name for source in self._columns.values() for name in columns_read(source)}
        return question_frame(self._records(tuple(sorted(wanted))), self._columns)

    @cached_property
    def _whole(self) -> pl.DataFrame:
        records = self._records(())
        return with_further(question_frame(records, self._columns), records, self._columns)

    def _records(self, wanted: tuple[str, ...]) -> Records:
        return one_row_per_question(self._named.records(wanted), self._columns)

    def load(self, *, extra: bool = False) -> pl.DataFrame:
        """The rows, validated: `question_id`, `question`, `answers`, in the file's order.

        Blank and repeated answers within a list are dropped. A question may have an empty list (nothing can grade
        it), but not every question.

        Args:
            extra: also every other column of the file, as it stands there, e.g. to group by.
        Raises:
            BadInput: one line that names the file, the row and the column.
            BadOption: `--columns` names a column that is not there.
        """
        return self._whole if extra else self._frame

    def references(self, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
        """`question_id` and those of REFERENCE_COLUMNS that the file has, each a list of texts that may be empty.

        Args:
            columns: our column -> column of the file, for REFERENCE_COLUMNS.
        Raises:
            BadInput: one line that names the file, the row and the column.
            BadOption: `columns` names a column that is not there.
        """
        found = reference_frame(self._records(()), mapped(columns, REFERENCE_COLUMNS))
        return self.load().select("question_id").with_columns(*found.iter_columns())

    @cached_property
    def n_questions(self) -> int:
        """How many questions: from the footer of a Parquet file or from the memo, else by reading the set."""
        named, section = self._named, "rows"
        if candidates_of(self._columns["answers"]) is not None:  # fewer than rows, and how many depends on the mapping
            key = ",".join(f"{ours}={theirs}" for ours, theirs in sorted(self._columns.items()))
            named, section = replace(named, parquet=None), f"questions of {key}"
        if "_frame" not in self.__dict__ and (known := named.known_rows(self._memo, section)) is not None:
            return known
        rows = self.load().height
        named.remember_rows(rows, self._memo, section)
        return rows


def parse_columns(text: str, targets: Sequence[str] = COLUMNS) -> dict[str, str]:
    """`question=prompt,answers=answer.aliases` as {"question": "prompt", "answers": "answer.aliases"}.

    The right side is a column of the file; dots lead into an object. `answers=answer[label=1]` takes the answers from
    the rows with that label, where a question has several rows (see `data.candidates`). The left side is one of
    `targets`: by default the columns of questions. Raises BadOption.
    """
    expected = "expected name=column pairs with a comma between, like --columns question=prompt,answers=gold"
    pairs: dict[str, str] = {}
    for part in text.split(","):
        target, equals, source = (piece.strip() for piece in part.partition("="))
        if not equals or not source:
            raise BadOption(f"--columns {shown(text)}: {shown(part)!r} is not a pair; {expected}")
        if target not in targets:
            raise BadOption(f"--columns {shown(text)}: {shown(target)!r} cannot be set, only {', '.join(targets)} can")
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
    mapping = mapped(columns, COLUMNS)
    named = open_named(name, "questions", memo=memo, warn=warn)
    return QuestionSet(named.name, named.identity, named.licence, named, mapping, memo)
