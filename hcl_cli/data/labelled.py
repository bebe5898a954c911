"""Labelled texts (sentiment and the like) from a built-in set, a file or the Hub: every label a word that can be said.

SST-2 as the Hub has it (`sentence`, `label` 0 or 1, `idx`) is read with the columns `text=sentence,text_id=idx` and the
label words `0=negative,1=positive`; its test split has no labels (-1) and is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.data.named import Named, mapped, open_named
from hcl_cli.data.rows import cells, identifier, no_column, present, refuse_repeated, require_columns, with_further
from hcl_cli.data.texts import hashed_id
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.records import Records, text

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("text_id", "text", "label")
MOST_LABELS = 20
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


@dataclass(frozen=True)
class LabelledSet:
    """Labelled texts that can be named without being read.

    Attributes:
        name: the built-in or Hub name, or the last part of the file's name; never a path.
        identity: "sha256:<hex>" of the file's bytes, or "hub:<name>@<commit>:<config>:<split>". Neither a column
            mapping nor the label words are in it; whoever writes a recipe adds them.
        licence: of a built-in set, else None.
    """

    name: str
    identity: str
    licence: str | None
    _named: Named = field(repr=False, compare=False)
    _columns: dict[str, str] = field(repr=False)
    _labels: dict[str, str] = field(repr=False)

    @cached_property
    def _frame(self) -> pl.DataFrame:
        return labelled_frame(self._named.records(()), self._columns, self._labels)

    def load(self) -> pl.DataFrame:
        """The rows, validated, in the file's order: `text_id`, `text`, `label`, then the file's other columns.

        `text_id` is the file's `text_id` or `id`, else "t-" and 16 hex digits of the SHA-256 of the text, with "-2",
        "-3" for its repetitions; unique. `text` is untouched and never blank. `label` is the label's word.

        Raises:
            BadInput: one line that names the file, the row and the column; labels that are numbers without words,
                one label only, or more than MOST_LABELS.
            BadOption: `--columns` names a column that is not there.
        """
        return self._frame

    @property
    def words(self) -> tuple[str, ...]:
        """The labels' words: as they were given, else those of the file in alphabetical order."""
        return tuple(self._labels.values()) or tuple(sorted(set(self._frame["label"])))


def open_labelled(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    memo: Path | None = None,
    warn: Callable[[str], None] | None = None,
) -> LabelledSet:
    """The labelled texts that are named; they are read by `load()`.

    Args:
        name: a built-in name (`sentiment`), the path of a Parquet, CSV or JSONL file with `text` and `label`, or
            `hub:NAME[:config[:split]][@revision]`.
        columns: our column -> column of the file, for any of COLUMNS.
        labels: label of the file -> its word, as `parse_labels` gives it; where labels are words already, none.
        memo: a JSON file that remembers commits, or None.
        warn: is told which commit is used when the Hub gave no answer.
    Raises:
        BadOption, BadInput: unknown name, unreadable file, with the nearest names.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    mapping = mapped(columns, COLUMNS)
    named = open_named(name, "labelled", memo=memo, warn=warn)
    return LabelledSet(named.name, named.identity, named.licence, named, mapping, dict(labels or {}))


def parse_labels(given: str) -> dict[str, str]:
    """`0=negative,1=positive` as {"0": "negative", "1": "positive"}: label of the file -> its word.

    Raises:
        BadOption: no pairs, fewer than two, or a label or word that is there twice.
    """
    expected = "expected label=word pairs with a comma between, like --labels 0=negative,1=positive"
    found: dict[str, str] = {}
    for part in given.split(","):
        label, equals, word = (piece.strip() for piece in part.partition("="))
        if not equals or not label or not word:
            raise BadOption(f"--labels {shown(given)}: {shown(part)!r} is not a pair; {expected}")
        if label in found or word in found.values():
            twice = label if label in found else word
            raise BadOption(f"--labels {shown(given)}: {shown(twice)} is there twice; {expected}")
        found[label] = word
    if len(found) < 2:
        raise BadOption(f"--labels {shown(given)}: one label, and nothing to tell it from; {expected}")
    return found


def labelled_frame(records: Records, columns: Mapping[str, str], labels: Mapping[str, str]) -> pl.DataFrame:
    """Checked labelled texts from raw rows; see `LabelledSet.load`.

    Args:
        records: raw rows.
        columns: our column -> theirs, for all of COLUMNS; `text_id` need not be there.
        labels: label of the file -> its word, or empty where the labels are words.
    """
    import polars as pl

    columns = dict(columns)
    require_columns(records, columns, ("text", "label"))
    if columns["text_id"] == "text_id" and "text_id" not in records.names and "id" in records.names:
        columns["text_id"] = "id"
    with_ids = present(columns["text_id"], records.names)
    if not with_ids and columns["text_id"] not in ("text_id", "id"):
        raise BadOption(no_column("text_id", columns["text_id"], records))
    if not records.places:
        raise BadInput(f"{records.name}: no rows, expected one labelled text per row")
    convert: dict[str, Callable[[Any], Any]] = {
        "text_id": identifier,
        "text": _text,
        "label": lambda value: _word(value, labels),
    }
    rows: dict[str, list[Any]] = {
        target: records.converted(source, convert[target], cells(records, source))
        for target, source in columns.items()
        if target != "text_id" or with_ids
    }
    if with_ids:
        refuse_repeated(records, columns, rows, True, names=("text_id", "text"))
    else:
        rows["text_id"] = _hashed_ids(rows["text"])
    n_labels = len(set(rows["label"]))
    if not 1 < n_labels <= MOST_LABELS:
        met = f"all {len(rows['label'])} labels are {shown(rows['label'][0], 40)!r}" if n_labels == 1 else n_labels
        raise BadInput(
            f"{records.name}, column {shown(columns['label'])}: {met}"
            f"{'' if n_labels == 1 else ' different labels'}, expected 2 to {MOST_LABELS} labels; "
            "name the column that holds them, like --columns label=COLUMN"
        )
    frame = pl.DataFrame({target: rows[target] for target in COLUMNS}, schema=dict.fromkeys(COLUMNS, pl.String()))
    return with_further(frame, records, columns)


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():  # a number is likelier the wrong column than a text
        raise ValueError("a text that is not blank")
    return text(value)


def _word(value: Any, labels: Mapping[str, str]) -> str:
    """The word of one label."""
    whole = isinstance(value, float) and value.is_integer()
    label = str(int(value)) if whole else ("" if value is None else str(value)).strip()
    if labels:
        if label not in labels:
            raise ValueError(f"one of {', '.join(map(shown, labels))}, the labels that have words")
        return labels[label]
    if _NUMBER.fullmatch(label):
        raise ValueError("a word; say what the numbers mean, like --labels 0=negative,1=positive")
    if not label or not isinstance(value, str | bool):
        raise ValueError("a label (a word or a few)")
    return label.lower() if isinstance(value, bool) else label


def _hashed_ids(contents: Sequence[str]) -> list[str]:
    """Ids for a set without any; a repetition is a row of its own."""
    seen: Counter[str] = Counter()
    ids = []
    for one in contents:
        seen[one] += 1
        ids.append(hashed_id(one) + (f"-{seen[one]}" if seen[one] > 1 else ""))
    return ids
