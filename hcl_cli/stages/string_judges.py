"""The judges that look for an accepted answer in the response's text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from hcl_cli.measures.text import answer_form, contains_published, contains_tokens, has_unspaced_script

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Judge = Callable[[str, Sequence[str]], bool]

form_of = lru_cache(maxsize=1 << 16)(answer_form)


def string_verdicts(frame: pl.DataFrame, judge: str) -> pl.Series:
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
    if judge == "alias":
        missed = [
            response
            for (_, response), is_right in zip(distinct.iter_rows(), verdict, strict=True)
            if is_right is False and has_unspaced_script(response)
        ]
        if missed:
            log.warning(
                "%d distinct responses were taken for wrong in a script that puts no blanks between words (Chinese, "
                "Japanese, Thai, ...), where alias finds whole texts alone: contains looks inside them too",
                len(missed),
            )
    judged = distinct.with_columns(verdict=pl.Series(verdict, dtype=pl.Boolean))
    joined = numbered.join(judged, on=["list", "response"], how="left", nulls_equal=True, maintain_order="left")
    return joined["verdict"]


def _accepted(answers: Sequence[str | None] | None, judge: str) -> list[str]:
    """The answers that a judge can look for: those with something left in the form that it compares."""
    given = [answer for answer in answers or () if answer is not None]
    if judge == "published":
        return [answer for answer in given if answer.strip()]
    return [form for form in dict.fromkeys(map(form_of, given)) if form]


def _exact(response: str, forms: Sequence[str]) -> bool:
    return form_of(response) in forms


def _alias(response: str, forms: Sequence[str]) -> bool:
    text = form_of(response)
    return any(contains_tokens(text, form) for form in forms)


def _contains(response: str, forms: Sequence[str]) -> bool:
    text = form_of(response)
    return any(form in text for form in forms)


def _published(response: str, answers: Sequence[str]) -> bool:
    return any(contains_published(response, answer) for answer in answers)


_JUDGE: dict[str, Judge] = {"exact": _exact, "alias": _alias, "contains": _contains, "published": _published}
