"""Responses -> verdicts of an entailment model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcl_cli.models.entailment import ENTAILMENT, EntailmentModel
from hcl_cli.stages.clusterings import Progress
from hcl_cli.stages.responses import completed_responses

if TYPE_CHECKING:
    import polars as pl


def nli_verdicts(
    responses: pl.DataFrame,
    model: EntailmentModel,
    *,
    with_question: bool = True,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """`correct_nli`, one row per response: whether it entails, or is entailed by, "question reference" for any accepted
    answer; the response stands behind the question too.

    A blank response is wrong without asking, and without an accepted answer there is no verdict. Each distinct response
    to a question is asked about one reference after another until one fits, first whether it entails the reference;
    what is left out cannot change the verdict.

    Args:
        responses: RESPONSES, or a table from elsewhere that `completed_responses` can complete.
        model: tells whether one text entails another.
        with_question: put the question in front of response and reference.
        progress: called with (distinct responses decided, all of them).
    Raises:
        BadInput: as `completed_responses`.
    Source: ours; the question in front as in Kuhn et al. 2023.
    """
    import polars as pl

    frame = completed_responses(responses)
    cases = frame.select("question", "answers", "response")
    lists = cases.select("answers").unique(maintain_order=True).with_row_index("list")
    numbered = cases.join(lists, on="answers", how="left", nulls_equal=True, maintain_order="left").drop("answers")
    distinct = numbered.unique(maintain_order=True)
    accepted = [
        list(dict.fromkeys(answer for answer in answers or () if answer is not None and answer.strip()))
        for answers in lists["answers"].to_list()
    ]
    rows = distinct.select("question", "response", "list").rows()
    verdict: list[bool | None] = [
        None if not accepted[number] else False if not response.strip() else None for _, response, number in rows
    ]
    left = [at for at, (_, response, number) in enumerate(rows) if accepted[number] and response.strip()]
    n_left, reference = len(left), 0

    def said(question: str, text: str) -> str:
        return f"{question} {text}" if with_question else text

    while left:
        pairs = [
            (said(rows[at][0], rows[at][1]), said(rows[at][0], accepted[rows[at][2]][reference])) for at in left
        ]  # fmt: skip
        fits = model.probabilities(pairs).argmax(axis=1) == ENTAILMENT
        other = [at for at, one in enumerate(fits) if not one]
        if other:
            turned = model.probabilities([pairs[at][::-1] for at in other]).argmax(axis=1) == ENTAILMENT
            fits[other] = turned
        reference += 1
        still = []
        for at, one in zip(left, fits.tolist(), strict=True):
            more = reference < len(accepted[rows[at][2]])
            if one or not more:
                verdict[at] = bool(one)
            else:
                still.append(at)
        left = still
        if progress is not None:
            progress(n_left - len(left), n_left)
    judged = distinct.with_columns(correct_nli=pl.Series(verdict, dtype=pl.Boolean))
    keys = ["question", "response", "list"]
    return numbered.join(judged, on=keys, how="left", nulls_equal=True, maintain_order="left").select("correct_nli")
