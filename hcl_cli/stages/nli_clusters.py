"""Semantic clusters by entailment: the rules of all groups run side by side, and what they ask is asked together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hcl_cli.measures.clusters import Asking, Clusters, Pairs, Strengths, asking
from hcl_cli.measures.numbers import numbers_in
from hcl_cli.models.entailment import CONTRADICTION, ENTAILMENT, NEUTRAL, EntailmentModel
from hcl_cli.stages.clusterings import Job, Placed, Progress, blanks, labelled, with_apart

_Asked = tuple[str, str, str]  # question (empty: none), premise, hypothesis
_Name = tuple[str, tuple[int, ...]]  # of a job: question, numbers of its texts


@dataclass(frozen=True)
class Entailed:
    """Bidirectional entailment, as in semantic entropy.

    Two responses are alike

    - `nli-strict`: if each entails the other;
    - `nli-loose`: if neither contradicts the other and not both directions are neutral.

    Only pairs that a rule needs are asked, each distinct one once, and the second direction only where the first
    leaves the answer open. None of that changes the result: a pair that is not asked cannot change it.

    Attributes:
        model: tells whether one text entails another.
        name: nli-strict or nli-loose.
        rule: how clusters are made of what is alike (`measures.clusters`); the published code's is `greedy-last`. For
            `complete`, a pair is the more alike the larger the smaller of its two probabilities of entailment (strict)
            or the smaller the larger of contradiction (loose): ours.
        numbers: texts that state different numbers are never alike.
        with_question: premise and hypothesis are "question response", as published for DeBERTa.
        progress: called with (groups done, groups).
        memo: probabilities that are known, by (question, premise, hypothesis); shared by runs over the same texts.
    Source: Kuhn et al. 2023, Farquhar et al. 2024; jlko/semantic_uncertainty, get_semantic_ids.
    """

    model: EntailmentModel
    name: str = "nli-strict"
    rule: str = "greedy"
    numbers: bool = False
    with_question: bool = True
    progress: Progress | None = None
    memo: dict[_Asked, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """See `Clustering`."""
        return labelled(self.name, self.rule, self.numbers) + ("" if self.with_question else "+no-question")

    def run(self, texts: Sequence[str], jobs: Sequence[Job]) -> list[Placed]:
        """See `Clustering`."""
        apart = blanks(texts)
        compared = [job.items[[apart[item] is None for item in job.items]] for job in jobs]
        # Many layers say the same: equal jobs are done once.
        names = [
            (job.question if self.with_question else "", tuple(items.tolist()))
            for job, items in zip(jobs, compared, strict=True)
        ]
        found = self._clusters(texts, dict.fromkeys(names))
        return [
            with_apart(job.items, apart, lambda _, name=name: (found[name], None))  # type: ignore[misc]
            for job, name in zip(jobs, names, strict=True)
        ]

    def _clusters(self, texts: Sequence[str], names: Iterable[_Name]) -> dict[_Name, Clusters]:
        found: dict[_Name, Clusters] = {}
        waiting: dict[_Name, tuple[Asking, Pairs]] = {}
        stated = {text: numbers_in(text) for text in texts} if self.numbers else None

        def go_on(name: _Name, rule: Asking, told: Strengths | None) -> None:
            try:
                waiting[name] = rule, next(rule) if told is None else rule.send(told)
            except StopIteration as done:
                waiting.pop(name, None)
                found[name] = done.value

        n_all = 0
        for name in names:
            n_all += 1
            items = np.array(name[1], dtype=np.int64)
            go_on(name, asking(self.rule, len(items), np.argsort(items).tolist()), None)
        while waiting:
            asked = {
                name: [(name[0], texts[name[1][one]], texts[name[1][other]]) for one, other in pairs.tolist()]
                for name, (_, pairs) in waiting.items()
            }
            apart = {
                one
                for of in asked.values()
                for one in of
                if stated is not None and stated[one[1]] != stated[one[2]]
            }  # fmt: skip
            needed = [one for of in asked.values() for one in of if one not in apart]
            self._ask(needed)
            self._ask([(q, b, a) for q, a, b in needed if not self._decided(self.memo[q, a, b])])
            for name, of in asked.items():
                told = [-np.inf if one in apart else self._strength(*one) for one in of]
                go_on(name, waiting[name][0], np.array(told, dtype=np.float64))
            if self.progress is not None:
                self.progress(len(found), n_all)
        return found

    def _ask(self, needed: Iterable[_Asked]) -> None:
        new = sorted({one for one in needed if one not in self.memo})
        if new:
            told = self.model.probabilities([(_said(q, a), _said(q, b)) for q, a, b in new])
            self.memo.update(zip(new, told, strict=True))

    def _decided(self, told: NDArray[np.float32]) -> bool:
        """Whether one direction already says that the pair is not alike."""
        kind = int(told.argmax())
        return kind == CONTRADICTION if self.name == "nli-loose" else kind != ENTAILMENT

    def _strength(self, question: str, one: str, other: str) -> float:
        forward = self.memo[question, one, other]
        if self._decided(forward):
            return -np.inf
        backward = self.memo[question, other, one]
        if self._decided(backward):
            return -np.inf
        if self.name == "nli-strict":
            return float(min(forward[ENTAILMENT], backward[ENTAILMENT]))
        if int(forward.argmax()) == int(backward.argmax()) == NEUTRAL:
            return -np.inf
        return float(1 - max(forward[CONTRADICTION], backward[CONTRADICTION]))


def _said(question: str, text: str) -> str:
    return f"{question} {text}" if question else text
