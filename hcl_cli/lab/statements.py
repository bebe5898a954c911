"""The statements of the lab world: of every fact one true and one false sentence in the same wording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hcl_cli.errors import BadInput
from hcl_cli.lab import relations as rel
from hcl_cli.lab.facts import Fact, slug, unit


@dataclass(frozen=True)
class Statement:
    """A true (label 1) or false (label 0) sentence about one fact.

    `judged`: the model is taught the verdict in training. `held`: the fact is never seen in training, in any form.
    """

    statement_id: str
    statement: str
    label: int
    topic: str
    entity: str
    judged: bool
    held: bool
    relation: str = ""
    object: str = ""


def other_objects(objects: Sequence[str], label: str) -> list[str] | None:
    """A rearrangement of the objects in which none stays with its own; None where one object is over half of them.

    Each object is used as often as it occurs, so that an object says nothing about a statement's label.
    """
    n = len(objects)
    order = sorted(range(n), key=lambda i: (objects[i], unit(f"{label}:{i}")))
    largest = max((objects.count(obj) for obj in set(objects)), default=0)
    if n < 2 or 2 * largest > n:
        return None
    result = [""] * n
    for place, i in enumerate(order):
        result[i] = objects[order[(place + largest) % n]]
    for step in range(20 * n):  # swaps that keep the rule: without them one class would always be mistaken for the next
        i, j = (int(unit(f"{label}:{step}:{side}") * n) for side in "ij")
        if objects[i] != result[j] and objects[j] != result[i]:
            result[i], result[j] = result[j], result[i]
    return result


def is_judged(entity: str) -> bool:
    """Half of the entities: the model is taught verdicts about them, whatever the relation."""
    return unit(f"judged:{entity}") < 0.5


def statements_of(relation: rel.Relation, facts: Sequence[Fact]) -> list[Statement]:
    """One true and one false statement of each fact, in the same wording."""
    if not relation.statement:
        return []
    groups: dict[bool, list[Fact]] = {True: [], False: []}
    for fact in facts:
        groups[fact.frequency != "held" and is_judged(fact.entity)].append(fact)
    false_objects: dict[str, str] = {}
    parts = list(groups.values())
    drawn = [
        other_objects([fact.object for fact in part], f"false:{relation.name}:{k}") for k, part in enumerate(parts)
    ]
    if None in drawn:  # a group too small or too uniform: draw over the whole relation
        parts = [list(facts)]
        drawn = [other_objects([fact.object for fact in facts], f"false:{relation.name}")]
    for part, objects in zip(parts, drawn, strict=True):
        if objects is None:
            raise BadInput(f"{relation.name}.tsv: one object is over half of the rows, so no false statements")
        false_objects |= {fact.entity: obj for fact, obj in zip(part, objects, strict=True)}
    statements: list[Statement] = []
    for fact in facts:
        wording = relation.statement[int(unit(f"wording:{fact.relation}:{fact.entity}") * len(relation.statement))]
        for label, obj in ((1, fact.object), (0, false_objects[fact.entity])):
            statements.append(
                Statement(
                    statement_id=f"{slug(relation.name)}-{slug(fact.entity)}-{'true' if label else 'false'}",
                    statement=rel.filled(wording, fact.entity, obj),
                    label=label,
                    topic=relation.topic,
                    entity=fact.entity,
                    judged=fact in groups[True],
                    held=fact.frequency == "held",
                    relation=relation.name,
                    object=obj,
                )
            )
    return statements
