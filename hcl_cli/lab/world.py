"""The lab world: facts, questions and statements, built from `data/lab/world/` without any random state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hcl_cli.lab import relations as rel
from hcl_cli.lab.facts import Fact, read_rows, relation_facts
from hcl_cli.lab.questions import (
    Question,
    letter_questions,
    list_questions,
    relation_questions,
    two_step_questions,
    with_splits,
)
from hcl_cli.lab.statements import Statement, statements_of

__all__ = ["Fact", "Question", "Statement", "World", "load_world"]


@dataclass(frozen=True)
class World:
    facts: tuple[Fact, ...]
    questions: tuple[Question, ...]
    statements: tuple[Statement, ...]


@cache
def load_world() -> World:
    """The world of `data/lab/world/`: the same facts, questions and statements on every machine."""
    facts = {relation.name: relation_facts(relation) for relation in rel.RELATIONS}
    questions = [
        question for relation in rel.RELATIONS for question in relation_questions(relation, facts[relation.name])
    ]
    questions += list_questions() + letter_questions(facts) + two_step_questions(facts)
    members = tuple(
        Fact("members", category, member, rank, "common")
        for rank, (category, member) in enumerate(read_rows("members"))
    )
    statements = [item for relation in rel.RELATIONS for item in statements_of(relation, facts[relation.name])]
    return World(
        facts=tuple(fact for group in facts.values() for fact in group) + members,
        questions=with_splits(questions),
        statements=tuple(statements),
    )
