"""Scored responses that people have judged too -> how good each judge is, the people taken for the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput
from hcl_cli.measures.agreement import agreement_of, share_of
from hcl_cli.schemas import JUDGE_CALIBRATION
from hcl_cli.stages.agreement import columns_of
from hcl_cli.stages.scored_columns import judges_of
from hcl_cli.stages.scored_groups import stream_of

if TYPE_CHECKING:
    import polars as pl

HUMAN = "human"


def with_people(responses: pl.DataFrame) -> pl.DataFrame:
    """The responses with the people's verdict as true, false or null; 1 and 0 are read so.

    Raises:
        BadInput: the column holds anything else, or null in every row.
    """
    import polars as pl

    verdict = responses[HUMAN]
    if verdict.dtype.is_integer() and verdict.drop_nulls().is_in([0, 1]).all():
        verdict = verdict.cast(pl.Boolean)
    if verdict.dtype == pl.Null or (responses.height and verdict.null_count() == responses.height):
        raise BadInput(f"column {HUMAN}: null in every row, expected people's verdicts, true or false")
    if verdict.dtype != pl.Boolean:
        raise BadInput(f"column {HUMAN}: {verdict.dtype}, expected true, false or null (people's verdict)")
    return responses.with_columns(verdict)


def judge_calibration(scored: pl.DataFrame, *, n_bootstrap: int = 2000, seed: int = 0) -> pl.DataFrame:
    """Precision, recall, F1, specificity, share of equal verdicts and Cohen's kappa of each judge against people.

    Every answer counts 1; intervals are over questions (`measures.agreement`). What people could not agree on (null) is
    told apart: the share that the judge calls right.

    Args:
        scored: SCORED with a column `human` of true, false and null.
        n_bootstrap, seed: of the resamples of questions.
    Returns:
        JUDGE_CALIBRATION, by data set and judge, in the order of the rows and columns.
    Raises:
        BadInput: as `with_people`.
    """
    import polars as pl

    scored = with_people(scored)
    named = {judge: f"correct_{judge}" for judge in judges_of(scored.columns)}
    if not named and scored.height:
        named = {scored["judge"][0]: "correct"}
    rows = []
    for (dataset,), frame in scored.group_by("dataset", maintain_order=True):
        rows += [
            {"dataset": dataset, **_row(frame, judge, column, n_bootstrap, seed)} for judge, column in named.items()
        ]
    return pl.DataFrame(rows, schema=JUDGE_CALIBRATION.polars_schema(), orient="row")


def _row(frame: pl.DataFrame, judge: str, column: str, n_bootstrap: int, seed: int) -> dict[str, Any]:
    import polars as pl

    yes, people = pl.col(column), pl.col(HUMAN)
    graded = frame.filter(yes.is_not_null())
    counts = graded.group_by("question_id").agg(
        both=(yes & people).sum(), one=(yes & ~people).sum(), other=(~yes & people).sum(),
        neither=(~yes & ~people).sum(), open_yes=(yes & people.is_null()).sum(),
        open_no=(~yes & people.is_null()).sum(),
    ).sort("question_id")  # fmt: skip
    stream = stream_of(counts["question_id"].to_list())
    cells = counts.select(pl.col("both", "one", "other", "neither").cast(pl.Float64)).to_numpy()
    debatable = counts.select(pl.col("open_yes", "open_no").cast(pl.Float64)).to_numpy()
    found = agreement_of(cells, n_bootstrap, seed, stream)
    estimates = {
        "precision": found.precision, "recall": found.recall, "f1": found.f1, "specificity": found.specificity,
        "share_equal": found.share_equal, "kappa": found.kappa,
        "debatable_accepted": share_of(debatable, n_bootstrap, seed, stream),
    }  # fmt: skip
    return {
        "judge": judge,
        "n": int(cells.sum()),
        "n_questions": int((cells.sum(axis=1) > 0).sum()),
        "n_right": int(cells[:, [0, 2]].sum()),
        "n_ungraded": frame.height - graded.height,
        "n_debatable": int(debatable.sum()),
        **{name: value for key, estimate in estimates.items() for name, value in columns_of(key, estimate).items()},
    }
