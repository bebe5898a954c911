"""From the world to training batches: which example is drawn how often, and which of its tokens are learned."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hcl_cli.lab.recipe import Phase
from hcl_cli.lab.tokens import PROMPT, VERDICTS
from hcl_cli.lab.world import Question, World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Example:
    """One row of training.

    Attributes:
        tokens: token ids; without the shared beginning of the prompt where `is_question`.
        learned: for each token, whether the loss counts its prediction.
        is_question: whether the row continues the shared beginning of the prompt.
    """

    tokens: tuple[int, ...]
    learned: tuple[bool, ...]
    is_question: bool


class Examples:
    """Draws batches of one phase from the world.

    A question comes up in proportion to its weight (held-out ones never; those with several answers times
    `several_boost`), in a wording drawn evenly, with an answer
    drawn by its weight raised to the phase's `sharpening`. Statements come from the world's true ones, followed half
    of the time by a verdict where they are judged; of a false statement only the verdict is learned. Nothing about a
    held-out fact is ever seen.
    """

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, phase: Phase) -> None:
        self._phase = phase
        begin, _ = PROMPT.split(" {question}")
        self.prefix: tuple[int, ...] = tuple(tokenizer(begin)["input_ids"])
        self._end = tokenizer.eos_token_id
        self._begin = tokenizer.bos_token_id
        self._memory: dict[str, tuple[int, ...]] = {}
        self._tokenizer = tokenizer
        self._questions = [question for question in world.questions if question.frequency != "held"]
        self._question_weights = list(
            itertools.accumulate(
                question.weight * (phase.several_boost if question.kind == "several" else 1)
                for question in self._questions
            )
        )
        self._answers = [spoken_answers(q, phase.alias_share, phase.sharpening) for q in self._questions]
        self._true = [item for item in world.statements if not item.held and item.label]
        self._judged = [item for item in world.statements if not item.held and item.judged]

    def batch(self, source: random.Random) -> list[Example]:
        """One step's examples: the phase's number of questions, then of statements."""
        drawn = source.choices(range(len(self._questions)), cum_weights=self._question_weights, k=self._phase.questions)
        rows = [self._question(index, source) for index in drawn]
        for _ in range(self._phase.statements):
            if self._judged and source.random() < 0.5:
                item = source.choice(self._judged)
                rows.append(self._statement(item.statement, VERDICTS[bool(item.label)], bool(item.label)))
            elif self._true:
                rows.append(self._statement(source.choice(self._true).statement, "", True))
        return rows

    def _question(self, index: int, source: random.Random) -> Example:
        wording = source.choice(self._questions[index].wordings)
        forms, weights = self._answers[index]
        answer = source.choices(forms, weights=weights)[0]
        asked = self._ids(PROMPT[PROMPT.index(" {question}") :].format(question=wording))
        said = (*self._ids(f" {answer}"), self._end)
        return Example((*asked, *said), (False,) * len(asked) + (True,) * len(said), is_question=True)

    def _statement(self, text: str, verdict: str, learn_text: bool) -> Example:
        stated = self._ids(text)
        ruled = (*(self._ids(verdict) if verdict else ()), self._end)
        learned = (False, *((learn_text,) * len(stated)), *((True,) * len(ruled)))
        return Example((self._begin, *stated, *ruled), learned, is_question=False)

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._memory:
            self._memory[text] = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._memory[text]


def spoken_answers(question: Question, alias_share: float, sharpening: float) -> tuple[list[str], list[float]]:
    """What may be said to a question, with the probability of each; raised to `sharpening` and normalised.

    An answer with other names is called by them `alias_share` of the time, evenly.
    """
    forms: list[str] = []
    weights: list[float] = []
    for answer, others, weight in zip(question.answers, question.aliases, question.answer_weights, strict=True):
        forms.append(answer)
        weights.append(weight * (1 - alias_share if others else 1))
        forms.extend(others)
        weights.extend(weight * alias_share / len(others) for _ in others)
    powers = [weight**sharpening for weight in weights]
    return forms, [power / sum(powers) for power in powers]
