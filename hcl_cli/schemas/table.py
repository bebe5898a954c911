"""What a table is: columns with types, units and a key.

Types are written as names (`string`, `int16`, `int32`, `int64`, `float32`, `float64`, `bool`, `list[string]`,
`list[int16]`, `list[float32]`, `list[float64]`, `vector`), so that reading this file imports neither Polars nor Arrow:
a cache hit must not pay for them. A `vector` is a fixed-size list of float16 or float32 whose width the frame decides,
the same in every row (a hidden state).
Unknown is null, never 0, -1 or NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


# What names a curve: a model, a data set and a protocol.
CURVE = {
    "model": "string", "dataset": "string", "strategy": "string", "method": "string", "temperature": "float64",
    "top_p": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """One kind of table.

    Attributes:
        name: the name written into the artifact's footer.
        key: columns that together are unique; rows are kept in the order their stage made them.
        columns: name -> type name, in order.
        required: columns that a file from elsewhere must have; the others are filled with null.
        not_null: columns that may not hold null even in a file from elsewhere (the key's are, if absent, filled
            by the stage that reads them).
        read_from: names of tables that have all of its columns and may be read in its place.
        extra: whether further columns are allowed and carried along (SCORED: one per extra judge).
    """

    name: str
    key: tuple[str, ...]
    columns: dict[str, str]
    required: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    extra: bool = False
    read_from: tuple[str, ...] = ()
    made_by: str = field(default="")

    @property
    def vectors(self) -> tuple[str, ...]:
        """The columns whose width the frame decides."""
        return tuple(name for name, kind in self.columns.items() if kind == "vector")

    def polars_schema(self) -> pl.Schema:
        """The table's columns as Polars types; a vector has width 0 here."""
        import polars as pl

        types: dict[str, pl.DataType] = {
            "string": pl.String(), "int16": pl.Int16(), "int32": pl.Int32(), "int64": pl.Int64(),
            "float32": pl.Float32(), "float64": pl.Float64(), "bool": pl.Boolean(),
            "list[string]": pl.List(pl.String()), "list[int16]": pl.List(pl.Int16()),
            "list[float32]": pl.List(pl.Float32()), "list[float64]": pl.List(pl.Float64()),
            "vector": pl.Array(pl.Float32(), 0),
        }  # fmt: skip
        return pl.Schema({name: types[kind] for name, kind in self.columns.items()})

    def arrow_schema(self) -> pa.Schema:
        """The table's columns as Arrow types, as they stand in a Parquet file (large strings and lists).

        A vector has width 0 here.
        """
        import pyarrow as pa

        types: dict[str, pa.DataType] = {
            "string": pa.large_string(), "int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(),
            "float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_(),
            "list[string]": pa.large_list(pa.large_string()), "list[int16]": pa.large_list(pa.int16()),
            "list[float32]": pa.large_list(pa.float32()), "list[float64]": pa.large_list(pa.float64()),
            "vector": pa.list_(pa.float32(), 0),
        }  # fmt: skip
        return pa.schema([pa.field(name, types[kind]) for name, kind in self.columns.items()])


def with_intervals(*rates: str) -> dict[str, str]:
    """Columns of estimates, each followed by the ends of its 95 % interval."""
    return {f"{rate}{end}": "float64" for rate in rates for end in ("", "_low", "_high")}
