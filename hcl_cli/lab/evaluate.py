"""What a lab model knows at each exit layer, and where its best balance lies: the numbers of its card and its bands."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hcl_cli.lab.tokens import PROMPT
from hcl_cli.lab.world import Question
from hcl_cli.measures.text import answer_form, contains_tokens

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

GROUPS = ("known", "two-step", "rare", "held", "several")
"""Questions by what training showed of them: common single facts, two-step ones, rarely seen, never seen, several."""

TEMPERATURES = (0.6, 1.0)


@dataclass(frozen=True)
class Asked:
    """A question as it is put, every accepted string, and its group."""

    question_id: str
    text: str
    accepted: tuple[str, ...]
    group: str


def asked(questions: Sequence[Question], split: str | None = None) -> list[Asked]:
    """The questions of one split (`choose`: to choose the recipe; `report`: for the card), in their first wording.

    Without a split, all of them.
    """
    return [
        Asked(q.question_id, q.wordings[0], (*q.answers, *itertools.chain(*q.aliases)), group(q))
        for q in questions
        if split is None or q.split == split
    ]


def group(question: Question) -> str:
    """One of GROUPS. Held and rare come before the form of the question."""
    if question.frequency in ("held", "rare"):
        return question.frequency
    return "known" if question.kind == "single" else question.kind


def is_right(response: str, accepted: Sequence[str]) -> bool:
    """Whether an accepted answer stands in the response as whole words, as the judge `alias` of `hcl score` says."""
    form = answer_form(response)
    return any(contains_tokens(form, answer_form(answer)) for answer in accepted)


def respond(
    loaded: LoadedModel, items: Sequence[Asked], n_samples: int, temperature: float, top_p: float = 0.9, seed: int = 0
) -> list[list[Counter[str]]]:
    """How often each answer was given, for each question and exit layer; through the engine of `hcl sample`."""
    from hcl_cli.measures.cleaning import clean_answer
    from hcl_cli.models.decode import Cell, Prompt, Sampling, decode, tokenize_prompt

    prompts = [Prompt(i.question_id, tokenize_prompt(loaded, PROMPT.format(question=i.text))) for i in items]
    layers = range(1, loaded.n_layers + 1)
    cells = [Cell(index, layer, 0, n_samples) for index in range(len(items)) for layer in layers]
    streams = decode(loaded, prompts, cells, Sampling(temperature=temperature, top_p=top_p, seed=seed))
    answers = [[Counter[str]() for _ in layers] for _ in items]
    for index, layer, text in zip(streams.prompt, streams.exit_layer, streams.text, strict=True):
        answers[index][layer - 1][clean_answer(text)] += 1
    return answers


def graded(
    responses: Sequence[Sequence[Counter[str]]], items: Sequence[Asked]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of wrong answers and number of distinct right ones; both [question, exit layer].

    Distinct means different in normal form, which is `--cluster exact`.

    Args:
        responses: for each question and exit layer, how often each answer was given.
    """
    error = np.zeros((len(items), len(responses[0])))
    distinct = np.zeros_like(error)
    for row, (by_exit, item) in enumerate(zip(responses, items, strict=True)):
        for column, answers in enumerate(by_exit):
            right = {text: count for text, count in answers.items() if is_right(text, item.accepted)}
            error[row, column] = 1 - sum(right.values()) / answers.total()
            distinct[row, column] = len({answer_form(text) for text in right})
    return error, distinct


def balance(error: NDArray[np.float64], distinct: NDArray[np.float64]) -> NDArray[np.float64]:
    """HCB of each exit layer, [exit layer]: half min-max scaled creativity, half one minus the hallucination rate.

    The weights `script` of `hcl hcb`. Where every layer is equally creative, that half is 0.5 of its weight.

    Args:
        error, distinct: [question, exit layer].
    """
    creativity = distinct.mean(0)
    span = np.ptp(creativity)
    scaled = (creativity - creativity.min()) / span if span else np.full_like(creativity, 0.5)
    result: NDArray[np.float64] = 0.5 * scaled + 0.5 * (1 - error.mean(0))
    return result


def share_best(
    error: NDArray[np.float64], distinct: NDArray[np.float64], resamples: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Share of bootstrap resamples of the questions in which each exit layer has the best HCB; [exit layer]."""
    source = np.random.default_rng(seed)
    wins = np.zeros(error.shape[1])
    for _ in range(resamples):
        rows = source.integers(0, len(error), len(error))
        wins[int(balance(error[rows], distinct[rows]).argmax())] += 1
    return wins / resamples
