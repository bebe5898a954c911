"""Scored responses -> how far judges, and clusterings, agree with one another."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.measures.agreement import agreement_of
from hcl_cli.schemas import AGREEMENT
from hcl_cli.stages.scored_columns import clusterings_of, judges_of, meaning_column
from hcl_cli.stages.scored_groups import stream_of

if TYPE_CHECKING:
    import polars as pl

CURVE = ("model", "dataset", "strategy", "method", "temperature", "top_p")


def agreement_table(scored: pl.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Every pair of judges, and every pair of clusterings, over all layers (exit_layer null) and at each.

    Judges: cases are responses that both graded. Clusterings: cases are pairs of distinct responses to one question at
    one layer, put together or not; over these, kappa is the adjusted Rand index if there is one such group (Warrens
    2008). Every case counts 1; intervals are over questions (`measures.agreement`).

    Args:
        scored: SCORED with the columns of several judges (`correct_JUDGE`) or clusterings (`meaning_id_NAME`).
        n_bootstrap, seed: of the resamples of questions.
    Returns:
        AGREEMENT, in the order of the rows' curves and of the columns; empty with one judge and one clustering.
    """
    import polars as pl

    judges, clusterings = judges_of(scored.columns), clusterings_of(scored.columns)
    rows: list[dict[str, Any]] = []
    for _, curve in scored.group_by(CURVE, maintain_order=True):
        layers = curve["exit_layer"].unique().sort().to_list()
        for kind, names in (("judge", judges), ("clustering", clusterings)):
            for one, other in itertools.combinations(names, 2):
                counts = _verdicts(curve, one, other) if kind == "judge" else _together(curve, one, other)
                for layer in [None, *(layers if len(layers) > 1 else [])]:
                    here = counts if layer is None else counts.filter(pl.col("exit_layer") == layer)
                    rows.append(
                        {
                            **{name: curve[name][0] for name in CURVE},
                            "exit_layer": layer, "kind": kind, "one": one, "other": other,
                            **_numbers(here, n_bootstrap, seed),
                            "where": condition(kind, one, other),
                        }
                    )  # fmt: skip
    return pl.DataFrame(rows, schema=AGREEMENT.polars_schema(), orient="row")


def condition(kind: str, one: str, other: str) -> str:
    """What `hcl cat --where` takes to list the rows on which two of them differ.

    Clusters are numbered by first appearance, so that the same clusters have the same numbers.
    """
    if kind == "judge":
        return f"correct_{one} != correct_{other}"
    return f"{meaning_column(one)} != {meaning_column(other)}"


def _verdicts(curve: pl.DataFrame, one: str, other: str) -> pl.DataFrame:
    """[question_id, exit_layer, both, one, other, neither]: numbers of responses."""
    import polars as pl

    a, b = pl.col(f"correct_{one}"), pl.col(f"correct_{other}")
    graded = curve.filter(a.is_not_null() & b.is_not_null())
    return graded.group_by("question_id", "exit_layer").agg(
        both=(a & b).sum(), one=(a & ~b).sum(), other=(~a & b).sum(), neither=(~a & ~b).sum()
    )


def _together(curve: pl.DataFrame, one: str, other: str) -> pl.DataFrame:
    """The same for pairs of distinct responses, from the sizes of the clusters and of what they share."""
    import polars as pl

    group = ("question_id", "exit_layer")
    a, b = meaning_column(one), meaning_column(other)
    distinct = curve.select(*group, "response", a, b).unique()

    def pairs(*by: str) -> pl.DataFrame:
        size = pl.col("size").cast(pl.Int64)
        sizes = distinct.group_by(*group, *by).agg(size=pl.len())
        return sizes.group_by(group).agg(n=(size * (size - 1) // 2).sum())

    every, both, of_a, of_b = pairs(), pairs(a, b), pairs(a), pairs(b)
    joined = every
    for name, frame in (("both", both), ("a", of_a), ("b", of_b)):
        joined = joined.join(frame.rename({"n": name}), on=group)
    return joined.select(
        *group, "both", one=pl.col("a") - pl.col("both"), other=pl.col("b") - pl.col("both"),
        neither=pl.col("n") - pl.col("a") - pl.col("b") + pl.col("both"),
    )  # fmt: skip


def _numbers(counts: pl.DataFrame, n_bootstrap: int, seed: int) -> dict[str, Any]:
    import polars as pl

    cells = ("both", "one", "other", "neither")
    table = counts.group_by("question_id").agg(pl.col(*cells).sum()).sort("question_id")
    table = table.filter(pl.sum_horizontal(cells) > 0)
    values = table.select(pl.col(*cells).cast(pl.Float64)).to_numpy()
    found = agreement_of(values, n_bootstrap, seed, stream_of(table["question_id"].to_list()))
    total = values.sum(axis=0).astype(int).tolist() if len(values) else [0, 0, 0, 0]
    return {
        "n": sum(total), "n_questions": len(values),
        **columns_of("share_equal", found.share_equal), **columns_of("kappa", found.kappa),
        "n_only_one": total[1], "n_only_other": total[2],
        "n_questions_differing": int(np.count_nonzero(values[:, 1] + values[:, 2])) if len(values) else 0,
    }  # fmt: skip


def columns_of(name: str, estimate: tuple[float, float, float]) -> dict[str, float | None]:
    """An estimate as three columns; rounded, so that the order in which a machine adds does not show."""
    ends = zip((name, f"{name}_low", f"{name}_high"), estimate, strict=True)
    return {column: None if math.isnan(value) else round(float(value), 12) for column, value in ends}
