"""Responses -> correct or not, semantic cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hcl_cli.schemas import RESPONSES, SCORED
from hcl_cli.stages.clusterings import Clustering, Exact, Job
from hcl_cli.stages.llm_judge import LLM_COLUMN
from hcl_cli.stages.responses import GROUP, completed_responses
from hcl_cli.stages.scored_columns import CLUSTERINGS, JUDGES
from hcl_cli.stages.string_judges import string_verdicts

if TYPE_CHECKING:
    import polars as pl

# What an earlier scoring left beside the columns of SCORED.
_EARLIER = (
    rf"^(correct_(nli|{'|'.join(JUDGES)})|cluster_id_of_\w+"
    rf"|(cluster|meaning)_id_({'|'.join(CLUSTERINGS).replace('-', '_')}))$"
)


def scored(
    responses: pl.DataFrame,
    *,
    judges: Sequence[str] = ("alias",),
    clusterings: Sequence[Clustering] = (Exact(),),
    given: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The responses, judged and clustered, in the order of their rows.

    Judges, each true if it finds any accepted answer; `answer_form` is TriviaQA's normal form, safe for Unicode:

    - `exact`: the response's form equals the answer's;
    - `alias`: the answer's words stand in the response's form as whole words, side by side;
    - `contains`: the answer's form is a substring of the response's form, inside longer words too;
    - `published`: the lower-cased answer is a substring of the lower-cased response, as in the HCL script. That
      script also judged the header lines of its sample files ("Generated Response 1:"), in which an answer such as
      "1" or "on" was found; here only responses are judged.

    What `exact` accepts, `alias` accepts, and what `alias` accepts, `contains` accepts; `published` stands apart.
    An answer whose form is empty ("The") is skipped. Without any other the response is ungradable: `correct` is null.
    An empty response that can be graded is wrong.

    Clusters (`stages.clusterings`, `stages.nli_clusters`) are those of the responses of a group (same key but for
    `sample_index`), taken in order of `sample_index`; equal strings count once. `cluster_id` is the first clustering
    run on the correct responses alone (it is not `meaning_id` cut down: without the wrong ones other members come
    first); `meaning_id` runs over all of them. With several clusterings each has `cluster_id_NAME` and
    `meaning_id_NAME`; with several judges each has `cluster_id_of_JUDGE`, the first clustering run on what that judge
    calls correct.

    Args:
        responses: RESPONSES, or a table from elsewhere that `completed_responses` can complete. Further columns are
            carried along.
        judges: the first decides `correct`; if there are several, each has its column `correct_<judge>`. Beside the
            judges above, those that `given` has a column of.
        clusterings: the first decides.
        given: verdicts that were asked for elsewhere (`stages.llm_judge`, `stages.nli_judge`), one row per response:
            `correct_<judge>` and what else is known of them. All its columns are kept.
    Returns:
        SCORED, then further columns.
    Raises:
        BadInput: a column is missing or of the wrong type, a response is null, or two rows have the same key.
    Source: methods named above; the order of strictness is our own.
    """
    import polars as pl

    asked = {} if given is None else {name: given[name] for name in given.columns}
    _known("judge", judges, (*JUDGES, *(name.removeprefix("correct_") for name in asked)))
    _known("clustering", [one.name for one in clusterings], CLUSTERINGS)
    # Verdicts and clusters of an earlier scoring are not carried along.
    earlier = [name for name in SCORED.columns if name not in RESPONSES.columns]
    earlier += [name for name in responses.columns if re.fullmatch(_EARLIER, name) or re.fullmatch(LLM_COLUMN, name)]
    frame = completed_responses(responses.drop(earlier, strict=False))
    verdicts = {
        judge: string_verdicts(frame, judge) if judge in JUDGES else asked[f"correct_{judge}"]
        for judge in dict.fromkeys(judges)
    }
    frame = frame.with_columns(correct=verdicts[judges[0]], judge=pl.lit(judges[0]))
    frame = frame.with_columns(_cluster_columns(frame, clusterings, verdicts))
    if len(verdicts) > 1:
        frame = frame.with_columns(column.alias(f"correct_{judge}") for judge, column in verdicts.items())
    frame = frame.with_columns(**asked)
    further = [name for name in frame.columns if name not in SCORED.columns]
    return frame.select(*SCORED.columns, *further).cast({name: kind for name, kind in SCORED.polars_schema().items()})


def _known(what: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise ValueError(f"unknown {what} {unknown}; expected one of {', '.join(allowed)}")


def _cluster_columns(
    frame: pl.DataFrame, clusterings: Sequence[Clustering], verdicts: dict[str, pl.Series]
) -> list[pl.Series]:
    """`cluster_id`, `meaning_id`, `similarity_to_cluster`, `clustering` and those of further clusterings and judges,
    one value per row each."""
    import polars as pl

    texts = frame["response"].unique().sort()
    # Sorted, so that what is read together does not depend on the order of the rows.
    number = frame["response"].replace_strict(texts, np.arange(len(texts)), return_dtype=pl.Int64).to_numpy()
    distinct: list[str] = texts.to_list()
    first, several = clusterings[0], len(clusterings) > 1
    groups = _groups(frame)
    questions = frame["question"].to_list()
    of = {judge: column.fill_null(False).to_numpy() for judge, column in verdicts.items()}
    main = next(iter(of))
    columns: list[pl.Series] = []
    for clustering in clusterings:
        # The judges' clusters are those of the first clustering.
        wanted = {"": None} | {judge: of[judge] for judge in (of if clustering is first else [main])}
        jobs, places = [], []
        for judge, right in wanted.items():
            for rows in groups:
                taken = rows if right is None else rows[right[rows]]
                job, inverse = _job(questions[rows[0]], number[taken])
                jobs.append(job)
                places.append((judge, taken, inverse))
        placed = clustering.run(distinct, jobs)
        found = {judge: np.full(frame.height, -1, dtype=np.int32) for judge in wanted}
        similarity = np.full(frame.height, np.nan, dtype=np.float32)
        for (judge, rows, inverse), one in zip(places, placed, strict=True):
            found[judge][rows] = one.clusters[inverse]
            if not judge and one.similarity is not None:
                similarity[rows] = one.similarity[inverse]
        ids = {judge: pl.Series(values).replace(-1, None) for judge, values in found.items()}
        if clustering is first:
            columns += [ids[main].alias("cluster_id"), ids[""].alias("meaning_id")]
            columns += [
                pl.Series("similarity_to_cluster", similarity).fill_nan(None),
                pl.repeat(clustering.label, frame.height, dtype=pl.String, eager=True).alias("clustering"),
            ]
            if len(of) > 1:
                columns += [ids[judge].alias(f"cluster_id_of_{judge}") for judge in of]
        if several:
            name = clustering.name.replace("-", "_")
            columns += [ids[main].alias(f"cluster_id_{name}"), ids[""].alias(f"meaning_id_{name}")]
    return columns


def _job(question: str, numbers: NDArray[np.int64]) -> tuple[Job, NDArray[np.int64]]:
    """What is to be clustered of rows with these texts, and of each row which item it is."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # distinct strings by first appearance
    item = np.empty(len(order), dtype=np.int64)
    item[order] = np.arange(len(order))
    return Job(question, numbers[first[order]]), item[inverse]


def _groups(frame: pl.DataFrame) -> list[NDArray[np.int64]]:
    """Row numbers of each group, in order of `sample_index`."""
    import polars as pl

    grouped = frame.select(*GROUP, "sample_index", row=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = grouped.group_by(GROUP, maintain_order=True).agg(pl.col("row").sort_by("sample_index"))["row"]
    return [group.to_numpy() for group in rows]
