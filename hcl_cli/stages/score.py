"""Responses -> correct or not, semantic cluster."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hcl_cli.measures.clusters import cosine_clusters, equal_clusters
from hcl_cli.measures.text import answer_form, contains_published, contains_tokens
from hcl_cli.schemas import RESPONSES, SCORED
from hcl_cli.stages.llm_judge import LLM_COLUMN
from hcl_cli.stages.responses import GROUP, completed_responses

if TYPE_CHECKING:
    import polars as pl

JUDGES = ("alias", "exact", "contains", "published")
CLUSTERS = ("cosine", "exact")
_BLOCK = 4096  # distinct strings that are embedded between two reports of progress

Encode = Callable[[list[str]], NDArray[np.float32]]
Progress = Callable[[int, int], None]
Judge = Callable[[str, Sequence[str]], bool]


def scored(
    responses: pl.DataFrame,
    *,
    judges: Sequence[str] = ("alias",),
    cluster: str = "cosine",
    threshold: float = 0.8,
    encode: Encode | None = None,
    progress: Progress | None = None,
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

    Clusters, among the responses of a group (same key but for `sample_index`), taken in order of `sample_index`:

    - `cosine`: greedy by first members (`cosine_clusters`) over the embeddings of the responses as they are. Equal
      strings count once. Blank responses have no meaning to compare: they form one cluster, alike to nothing else;
    - `exact`: equal `answer_form`; where that is empty, equal case-folded text.

    `cluster_id` is this clustering run on the correct responses alone (it is not `meaning_id` cut down: without the
    wrong ones other members come first); `meaning_id` runs over all of them.

    Args:
        responses: RESPONSES, or a table from elsewhere that `completed_responses` can complete. Further columns are
            carried along.
        judges: the first decides `correct`; if there are several, each has its column `correct_<judge>`. Beside the
            judges above, those that `given` has a column of.
        cluster: `cosine` or `exact`.
        threshold: the cosine from which on two responses are alike.
        encode: texts to unit vectors [n, d]; needed by `cosine`. It sees each distinct string once, 1.5 KB each.
        progress: called with (strings embedded, strings to embed).
        given: verdicts that were asked for elsewhere (`stages.llm_judge`), one row per response: `correct_<judge>` and
            what else is known of them. All its columns are kept.
    Returns:
        SCORED, then further columns.
    Raises:
        BadInput: a column is missing or of the wrong type, a response is null, or two rows have the same key.
    Source: methods named above; the order of strictness is our own.
    """
    import polars as pl

    asked = {} if given is None else {name: given[name] for name in given.columns}
    _known("judge", judges, (*JUDGES, *(name.removeprefix("correct_") for name in asked)))
    _known("cluster", (cluster,), CLUSTERS)
    if cluster == "cosine" and encode is None:
        raise ValueError("cosine clusters need an encoder")
    # Verdicts and clusters of an earlier scoring are not carried along.
    earlier = [name for name in SCORED.columns if name not in RESPONSES.columns]
    earlier += [f"correct_{judge}" for judge in JUDGES]
    earlier += [name for name in responses.columns if re.fullmatch(LLM_COLUMN, name)]
    frame = completed_responses(responses.drop(earlier, strict=False))
    verdicts = {
        judge: _verdicts(frame, judge) if judge in JUDGES else asked[f"correct_{judge}"]
        for judge in dict.fromkeys(judges)
    }
    frame = frame.with_columns(correct=verdicts[judges[0]], judge=pl.lit(judges[0]))
    frame = frame.with_columns(_cluster_columns(frame, cluster, threshold, encode, progress))
    if len(verdicts) > 1:
        frame = frame.with_columns(column.alias(f"correct_{judge}") for judge, column in verdicts.items())
    frame = frame.with_columns(**asked)
    further = [name for name in frame.columns if name not in SCORED.columns]
    return frame.select(*SCORED.columns, *further).cast({name: kind for name, kind in SCORED.polars_schema().items()})


def judge_agreement(table: pl.DataFrame) -> pl.DataFrame:
    """How far the judges of a scored table agree, one row per pair; empty if it was judged by one.

    Returns:
        judge, other, n (responses graded by both), share_equal in [0, 1], kappa (Cohen 1960) in [-1, 1]: null if both
        judges give one and the same verdict throughout, where chance alone explains all.
    """
    import polars as pl

    judges = [judge for judge in JUDGES if f"correct_{judge}" in table.columns]
    judges += [name.removeprefix("correct_") for name in table.columns if re.fullmatch(r"correct_llm_\w+", name)]
    rows = []
    for judge, other in itertools.combinations(judges, 2):
        pair = table.select(a=f"correct_{judge}", b=f"correct_{other}").drop_nulls()
        a, b = (pair[name].to_numpy().astype(np.float64) for name in ("a", "b"))
        equal = chance = None
        if pair.height:
            equal = float((a == b).mean())
            chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
        kappa = None if equal is None or chance is None or chance == 1 else (equal - chance) / (1 - chance)
        rows.append((judge, other, pair.height, equal, kappa))
    schema = {
        "judge": pl.String, "other": pl.String, "n": pl.Int64, "share_equal": pl.Float64, "kappa": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def _known(what: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in names if name not in allowed]
    if unknown or not names:
        raise ValueError(f"unknown {what} {unknown}; expected one of {', '.join(allowed)}")


# --- judging -------------------------------------------------------------------------------------------------------

_form = lru_cache(maxsize=1 << 16)(answer_form)


def _verdicts(frame: pl.DataFrame, judge: str) -> pl.Series:
    """One verdict per row; each distinct (answers, response) is judged once."""
    import polars as pl

    pairs = frame.select("answers", "response")
    # Lists are told apart by number: they are long, and the same for all responses to a question.
    lists = pairs.select("answers").unique(maintain_order=True).with_row_index("list")
    numbered = pairs.join(lists, on="answers", how="left", nulls_equal=True, maintain_order="left")
    numbered = numbered.select("list", "response")
    distinct = numbered.unique(maintain_order=True)
    accepted = [_accepted(answers, judge) for answers in lists["answers"].to_list()]
    accepts = _JUDGE[judge]
    verdict = [
        accepts(response, accepted[number]) if accepted[number] else None for number, response in distinct.iter_rows()
    ]
    judged = distinct.with_columns(verdict=pl.Series(verdict, dtype=pl.Boolean))
    joined = numbered.join(judged, on=["list", "response"], how="left", nulls_equal=True, maintain_order="left")
    return joined["verdict"]


def _accepted(answers: Sequence[str | None] | None, judge: str) -> list[str]:
    """The answers that a judge can look for: those with something left in the form that it compares."""
    given = [answer for answer in answers or () if answer is not None]
    if judge == "published":
        return [answer for answer in given if answer.strip()]
    return [form for form in dict.fromkeys(map(_form, given)) if form]


def _exact(response: str, forms: Sequence[str]) -> bool:
    return _form(response) in forms


def _alias(response: str, forms: Sequence[str]) -> bool:
    text = _form(response)
    return any(contains_tokens(text, form) for form in forms)


def _contains(response: str, forms: Sequence[str]) -> bool:
    text = _form(response)
    return any(form in text for form in forms)


def _published(response: str, answers: Sequence[str]) -> bool:
    return any(contains_published(response, answer) for answer in answers)


_JUDGE: dict[str, Judge] = {"exact": _exact, "alias": _alias, "contains": _contains, "published": _published}


# --- clustering ----------------------------------------------------------------------------------------------------


def _cluster_columns(
    frame: pl.DataFrame, cluster: str, threshold: float, encode: Encode | None, progress: Progress | None
) -> list[pl.Series]:
    """`cluster_id`, `meaning_id` and `similarity_to_cluster`, one value per row."""
    import polars as pl

    texts = frame["response"].unique().sort()
    # Sorted, so that what is embedded together does not depend on the order of the rows.
    number = frame["response"].replace_strict(texts, np.arange(len(texts)), return_dtype=pl.Int64).to_numpy()
    distinct: list[str] = texts.to_list()
    correct = frame["correct"].fill_null(False).to_numpy()
    if cluster == "cosine" and encode is not None:
        clustered = _cosine(distinct, threshold, encode, progress)
    else:
        clustered = _exact_meaning(distinct)

    cluster_id = np.full(frame.height, -1, dtype=np.int32)
    meaning_id = np.empty(frame.height, dtype=np.int32)
    similarity = np.empty(frame.height, dtype=np.float32)
    for rows in _groups(frame):
        meaning_id[rows], similarity[rows] = _by_first_appearance(number[rows], clustered)
        right = rows[correct[rows]]
        cluster_id[right], _ = _by_first_appearance(number[right], clustered)
    similarities = pl.Series("similarity_to_cluster", similarity)
    return [
        pl.Series("cluster_id", cluster_id).replace(-1, None),
        pl.Series("meaning_id", meaning_id),
        similarities
        if cluster == "cosine"
        else pl.repeat(None, frame.height, dtype=pl.Float32, eager=True).alias("similarity_to_cluster"),
    ]


Clustered = Callable[[NDArray[np.int64]], tuple[NDArray[np.int32], NDArray[np.float32]]]


def _by_first_appearance(
    numbers: NDArray[np.int64], clustered: Clustered
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Clusters and similarities of one group's rows; equal strings (equal numbers) collapse into one item."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # distinct strings by first appearance
    clusters, similarity = clustered(numbers[first[order]])
    item = np.empty(len(order), dtype=np.int64)
    item[order] = np.arange(len(order))
    return clusters[item[inverse]], similarity[item[inverse]]


def _cosine(distinct: list[str], threshold: float, encode: Encode, progress: Progress | None) -> Clustered:
    """Greedy cosine clusters of strings, given by their numbers in `distinct`."""
    blank = np.array([not text.strip() for text in distinct], dtype=np.bool_)
    wanted = np.flatnonzero(~blank)
    row = np.full(len(distinct), -1, dtype=np.int64)  # of each string in `vectors`
    # By length, so that a block holds little padding; then by text, so that the order is always the same.
    by_length = sorted(wanted.tolist(), key=lambda index: (len(distinct[index]), distinct[index]))
    row[by_length] = np.arange(len(by_length))
    blocks = []
    for start in range(0, len(by_length), _BLOCK):
        blocks.append(encode([distinct[index] for index in by_length[start : start + _BLOCK]]))
        if progress is not None:
            progress(min(start + _BLOCK, len(by_length)), len(by_length))
    vectors = np.concatenate(blocks) if blocks else np.zeros((0, 1), dtype=np.float32)

    def clustered(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        spoken = ~blank[numbers]
        clusters, similarity = cosine_clusters(vectors[row[numbers[spoken]]], threshold)
        if spoken.all():
            return clusters, similarity
        # The blank ones come in as one more cluster, numbered by where the first of them stands.
        keys = np.full(len(numbers), -1, dtype=np.int32)
        keys[spoken] = clusters
        similarities = np.ones(len(numbers), dtype=np.float32)
        similarities[spoken] = similarity
        return equal_clusters(keys.tolist()), similarities

    return clustered


def _exact_meaning(distinct: list[str]) -> Clustered:
    """Clusters of strings of equal form, given by their numbers in `distinct`."""
    forms = [(form, "") if (form := _form(text)) else ("", text.casefold().strip()) for text in distinct]
    meaning = equal_clusters(forms)

    def clustered(numbers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        return equal_clusters(meaning[numbers].tolist()), np.ones(len(numbers), dtype=np.float32)

    return clustered


def _groups(frame: pl.DataFrame) -> list[NDArray[np.int64]]:
    """Row numbers of each group, in order of `sample_index`."""
    import polars as pl

    grouped = frame.select(*GROUP, "sample_index", row=pl.int_range(pl.len(), dtype=pl.Int64))
    rows = grouped.group_by(GROUP, maintain_order=True).agg(pl.col("row").sort_by("sample_index"))["row"]
    return [group.to_numpy() for group in rows]
