"""Scored responses -> the rows of every curve: one model, data set and protocol each, columns checked.

Where a protocol holds several decoding methods, each read at one layer (answers of `hcl dola`), the curve runs over
the methods instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

GROUP = ("model", "dataset", "strategy", "method", "temperature", "top_p")
METHOD = GROUP.index("method")
BASELINE = "vanilla"  # the method that others are measured against
SPECTRUM = "spectrum"  # of embeddings, which `stages.spectrum` puts beside the rows


@dataclass(frozen=True)
class ScoredInput:
    """One table of scored responses and the SHA-256 (hex) of the file it was read from."""

    frame: pl.DataFrame
    digest: str


def stream_of(question_ids: Sequence[str]) -> int:
    """The random stream of resamples of these questions, named by their ids in order."""
    joined = "\n".join(question_ids).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(joined).digest()[:8], "little")


@dataclass(frozen=True)
class Part:
    """The rows of one group in one input, or of several that differ in their method alone."""

    group: tuple[Any, ...]
    number: int
    digest: str
    frame: pl.DataFrame
    over_methods: bool = False

    @property
    def axis(self) -> str:
        """The column that the curve runs over."""
        return "method" if self.over_methods else "exit_layer"

    def positions(self) -> pl.DataFrame:
        """A row per position with its `axis` and `layer`: layers rising, methods by name behind `vanilla`."""
        import polars as pl

        layers = self.frame.group_by(self.axis).agg(layer=pl.col("exit_layer").first())
        return layers.sort(pl.col(self.axis) != BASELINE if self.over_methods else self.axis, self.axis)


def read_groups(
    inputs: Sequence[ScoredInput], prepare: Callable[[pl.DataFrame, int], pl.DataFrame] | None = None
) -> list[tuple[dict[str, Any], Part]]:
    """The rows of every curve: the values of `GROUP` and `source` (`method` is null over methods), and the rows.

    Args:
        inputs: as for `read_curves`, with its order and its errors.
        prepare: (an input's frame, its number) -> the rows that count; None for `conformed`.
    """
    if not inputs:
        raise BadInput("hcb needs at least one table of scored responses; make one with `hcl score`")
    seen: dict[str, int] = {}
    for number, given in enumerate(inputs, start=1):
        if given.digest in seen:
            raise BadInput(f"inputs {seen[given.digest]} and {number} have the same content; name each file once")
        seen[given.digest] = number
    parts = _methods_joined(
        [
            Part(group, number, given.digest, frame)
            for number, given in enumerate(inputs, start=1)
            for group, frame in _grouped((prepare or conformed)(given.frame, number))
        ]
    )
    holders = [part.group for part in parts]
    found = []
    for part in sorted(parts, key=lambda part: (_sortable(part.group), part.digest)):
        source = part.digest[:8] if holders.count(part.group) > 1 else None
        found.append(({**dict(zip(GROUP, part.group, strict=True)), "source": source}, part))
    return found


def _methods_joined(parts: Sequence[Part]) -> list[Part]:
    """Parts that differ in their method alone, each with one layer, become one part over methods.

    They may come from several inputs, unless two of these hold the same method: then each input stays by itself.
    """
    joined, by_rest = [], dict[tuple[Any, ...], list[Part]]()
    for part in parts:
        if part.group[METHOD] is None:
            joined.append(part)
        else:
            by_rest.setdefault((*part.group[:METHOD], None, *part.group[METHOD + 1 :]), []).append(part)
    for rest, alike in by_rest.items():
        if any(part.frame["exit_layer"].n_unique() > 1 for part in alike):
            joined += alike
            continue
        methods = [part.group[METHOD] for part in alike]
        distinct = len(set(methods)) == len(methods)
        numbers = {part.number for part in alike}
        for together in [alike] if distinct else [[p for p in alike if p.number == n] for n in sorted(numbers)]:
            joined += together if len(together) == 1 else [_over_methods(rest, together)]
    return joined


def _over_methods(group: tuple[Any, ...], parts: Sequence[Part]) -> Part:
    import polars as pl

    return Part(group, parts[0].number, parts[0].digest, pl.concat([part.frame for part in parts]), True)


def _sortable(group: tuple[Any, ...]) -> list[tuple[bool, Any]]:
    return [(value is not None, value if value is not None else "") for value in group]


def conformed(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    """The columns that the layer table needs, with what a foreign file may lack filled in; rows keep their order."""
    import polars as pl

    if frame.height == 0:
        raise BadInput(f"input {number} has no rows; hcb needs scored responses")
    if "correct" not in frame.columns:
        raise BadInput(f"input {number} has no column correct; run `hcl score` on it first")
    types: dict[str, Any] = {
        "model": pl.String, "dataset": pl.String, "strategy": pl.String, "method": pl.String,
        "temperature": pl.Float64, "top_p": pl.Float64, "question_id": pl.String, "question": pl.String,
        "exit_layer": pl.Int16, "sample_index": pl.Int32, "correct": pl.Boolean, "cluster_id": pl.Int32,
        "mean_prob": pl.Float64, "relative_cost": pl.Float64, "n_tokens": pl.Int64, "drafted": pl.Int64,
        "accepted_drafts": pl.Int64, "verifications": pl.Int64, "meaning_id": pl.Int32, "mean_logprob": pl.Float64,
        SPECTRUM: pl.Float64,
    }  # fmt: skip
    columns = []
    for name, kind in types.items():
        column = frame[name] if name in frame.columns else pl.Series(name, [None] * frame.height, dtype=kind)
        try:
            columns.append(column.cast(kind))
        except pl.exceptions.PolarsError:
            raise BadInput(
                f"input {number}, column {name}: {column.dtype} cannot be read as {kind}; correct the column"
            ) from None
    table = pl.DataFrame(columns).with_columns(question_id=pl.coalesce("question_id", "question"))
    unlabelled = table["question_id"].null_count()
    if unlabelled:
        raise BadInput(f"input {number}: {unlabelled} rows have neither question_id nor question; name their question")
    without_layer = table["exit_layer"].null_count()
    if 0 < without_layer < table.height:
        raise BadInput(f"input {number}: {without_layer} rows have no exit_layer and the others do; fill it everywhere")
    # A file from elsewhere without the column holds one model, stopped nowhere: one layer.
    table = table.with_columns(pl.col("exit_layer").fill_null(1))
    _refuse_repeats(table, number)
    correct = table.filter("correct")
    unclustered = correct["cluster_id"].null_count()
    if 0 < unclustered < correct.height:
        raise BadInput(
            f"input {number}: {unclustered} correct rows have no cluster_id and others do; run `hcl score` on it again"
        )
    return table


def _refuse_repeats(table: pl.DataFrame, number: int) -> None:
    """The same sample twice would count twice; a file without sample_index says nothing about that."""
    if table["sample_index"].null_count():
        return
    key = [*GROUP, "question_id", "exit_layer", "sample_index"]
    repeated = table.height - table.select(key).n_unique()
    if repeated:
        first = table.filter(table.select(key).is_duplicated()).row(0, named=True)
        raise BadInput(
            f"input {number}: {repeated} rows repeat another's sample, the first for question "
            f"{first['question_id']!r}, exit_layer {first['exit_layer']}, sample_index {first['sample_index']}; "
            "keep each sample once"
        )


def _grouped(table: pl.DataFrame) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return [(tuple(key), frame) for key, frame in table.group_by(GROUP)]
