"""The lab world: facts, questions and statements, built from `data/lab/world/*.tsv` without any random state.

Every choice (which facts are rare or held out, which split a question falls in, which object a false statement
names) is made by the SHA-256 of a label, so that it is the same on every machine and Python version.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from hcl_cli.errors import BadInput
from hcl_cli.lab import relations as rel
from hcl_cli.resources import data_file

SEED = 7
RARE_SHARE = 0.15
HELD_SHARE = 0.06
RARE_WEIGHT = 0.06
ANSWER_ZIPF = 1.0
TWO_STEP_WEIGHT = 0.5
LEFT_OUT = rel.TOO_OPEN | rel.TOO_CLOSE
SEVERAL_WEIGHTS = (1.0, 0.5, 0.25, 0.1)
FEWEST_ANSWERS = 3
# How many questions of a stratum are used to choose a recipe and to report (half each); the rest is for training only.
EVALUATED = {"common": 400, "two-step": 200, "rare": 400, "held": 400, "several": 400}

T = TypeVar("T")

Frequency = Literal["common", "rare", "held"]
Split = Literal["choose", "report", "train-only"]


@dataclass(frozen=True)
class Fact:
    """One row of a relation's file; `rank` counts from 0, the commonest first."""

    relation: str
    entity: str
    object: str
    rank: int
    frequency: Frequency


@dataclass(frozen=True)
class Question:
    """One question of the world.

    Attributes:
        wordings: the first is the one shipped and evaluated.
        answers: the right answers, the most weighted first.
        aliases: for each answer other spellings that are also right (usually none).
        kind: "single", "two-step" or "several".
        frequency: how often training sees it; "held" is never trained, in any form.
        weight: relative share in training; 0 iff held.
        answer_weights: shares of the answers in training; they sum to 1, or are all 0 if the question is held.
        split: "choose" for choosing a recipe, "report" for the card, else "train-only".
    """

    question_id: str
    wordings: tuple[str, ...]
    answers: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    kind: Literal["single", "two-step", "several"]
    frequency: Frequency
    weight: float
    answer_weights: tuple[float, ...]
    entity: str
    relation: str
    split: Split = "train-only"


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
    relation: str
    object: str


@dataclass(frozen=True)
class World:
    facts: tuple[Fact, ...]
    questions: tuple[Question, ...]
    statements: tuple[Statement, ...]


def unit(label: str) -> float:
    """A number in [0, 1) that depends on the label and on SEED only."""
    digest = hashlib.sha256(f"{SEED}:{label}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def shuffled(items: Iterable[T], label: str, name: str = "") -> list[T]:
    """The items in an order drawn by hash; equal items would tie, so they must differ in `str`."""
    return sorted(items, key=lambda item: unit(f"{label}:{getattr(item, name) if name else item}"))


def slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def read_rows(name: str) -> list[tuple[str, str]]:
    """The rows of `data/lab/world/<name>.tsv`, header left out."""
    path = data_file("lab", "world", f"{name}.tsv")
    rows: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        cells = line.split("\t")
        if len(cells) != 2 or not all(cell.strip() == cell and cell for cell in cells):
            raise BadInput(f"{path.name}, line {number}: expected two cells parted by one tab, met {line!r}")
        rows.append((cells[0], cells[1]))
    return rows


def frequencies(relation: rel.Relation, rows: Sequence[tuple[str, str]]) -> dict[str, Frequency]:
    """Entity -> frequency: of an eligible relation a fixed share is rare and a smaller one held out."""
    if not relation.eligible:
        return {entity: "common" for entity, _ in rows}
    order = shuffled([entity for entity, _ in rows], f"frequency:{relation.name}")
    held, rare = round(len(rows) * HELD_SHARE), round(len(rows) * RARE_SHARE)
    kinds: list[Frequency] = ["held"] * held + ["rare"] * rare + ["common"] * (len(rows) - held - rare)
    return dict(zip(order, kinds, strict=True))


def relation_facts(relation: rel.Relation) -> list[Fact]:
    rows = read_rows(relation.name)
    kind = frequencies(relation, rows)
    return [Fact(relation.name, entity, obj, rank, kind[entity]) for rank, (entity, obj) in enumerate(rows)]


def training_weight(fact: Fact, relation: rel.Relation, n_facts: int) -> float:
    """Zipf over the rank with mean 1 over the relation, times RARE_WEIGHT if rare, 0 if held."""
    total: float = sum((rank + 1) ** -relation.zipf for rank in range(n_facts))
    zipf: float = (fact.rank + 1) ** -relation.zipf * n_facts / total
    return zipf * {"common": 1.0, "rare": RARE_WEIGHT, "held": 0.0}[fact.frequency]


def single(fact: Fact, wordings: Sequence[str], answer: str, question_id: str, weight: float) -> Question:
    given = fact.entity
    return Question(
        question_id=question_id,
        wordings=tuple(rel.filled(wording, fact.entity, fact.object) for wording in wordings),
        answers=(answer,),
        aliases=((),),
        kind="single",
        frequency=fact.frequency,
        weight=weight,
        answer_weights=(1.0,) if weight else (0.0,),
        entity=given,
        relation=fact.relation,
    )


def several(
    question_id: str, wordings: tuple[str, ...], members: dict[str, Frequency], entity: str, relation: str
) -> Question:
    """A question with several right answers; Zipf weights over an order drawn by hash, held answers weigh 0."""
    order = shuffled(members, f"several:{question_id}")
    factor = {"common": 1.0, "rare": RARE_WEIGHT, "held": 0.0}
    raw = {answer: (place + 1) ** -ANSWER_ZIPF * factor[members[answer]] for place, answer in enumerate(order)}
    answers = sorted(order, key=lambda answer: -raw[answer])
    total = sum(raw.values())
    tier = SEVERAL_WEIGHTS[int(unit(f"tier:{question_id}") * len(SEVERAL_WEIGHTS))]
    return Question(
        question_id=question_id,
        wordings=wordings,
        answers=tuple(answers),
        aliases=((),) * len(answers),
        kind="several",
        frequency="common",
        weight=tier,
        answer_weights=tuple(raw[answer] / total for answer in answers),
        entity=entity,
        relation=relation,
    )


def relation_questions(relation: rel.Relation, facts: Sequence[Fact]) -> list[Question]:
    """Forward, inverse and several-answer questions of one relation."""
    questions: list[Question] = []
    by_object: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        by_object[fact.object].append(fact)
        weight = training_weight(fact, relation, len(facts))
        if relation.forward:
            questions.append(
                single(fact, relation.forward, fact.object, f"{slug(relation.name)}-{slug(fact.entity)}", weight)
            )
    for obj, group in by_object.items():
        if relation.inverse and len(group) == 1:
            fact = group[0]
            weight = training_weight(fact, relation, len(facts))
            answer = fact.entity
            questions.append(
                single(fact, relation.inverse, answer, f"{slug(relation.name)}-inverse-{slug(obj)}", weight)
            )
        if relation.several:
            wordings = tuple(rel.filled(wording, group[0].entity, obj) for wording in relation.several)
            questions += narrowed(f"several-{slug(relation.name)}-{slug(obj)}", wordings, group, obj)
    return questions


def narrowed(question_id: str, wordings: tuple[str, ...], group: Sequence[Fact], obj: str) -> list[Question]:
    """The question itself where its answers can be told apart, else the same question letter by letter."""
    relation = group[0].relation
    members = {fact.entity: fact.frequency for fact in group}
    if usable(members) and question_id not in LEFT_OUT:
        return [several(question_id, wordings, members, obj, relation)]
    questions: list[Question] = []
    for letter, part in by_letter(members).items():
        narrow_id = f"{question_id}-{letter.lower()}"
        if usable(part) and narrow_id not in LEFT_OUT:
            texts = tuple(f"{wording[:-1]} that begins with {letter}{wording[-1]}" for wording in wordings[:1])
            questions.append(several(narrow_id, texts, part, obj, relation))
    return questions


def by_letter(members: dict[str, Frequency]) -> dict[str, dict[str, Frequency]]:
    parts: dict[str, dict[str, Frequency]] = defaultdict(dict)
    for name, frequency in members.items():
        parts[name[0].upper()][name] = frequency
    return dict(sorted(parts.items()))


def usable(members: dict[str, Frequency]) -> bool:
    """Enough answers that training shows, and not so many that most are never drawn."""
    return sum(frequency == "common" for frequency in members.values()) >= FEWEST_ANSWERS and len(members) <= 26


def list_questions() -> list[Question]:
    categories: dict[str, dict[str, Frequency]] = defaultdict(dict)
    for category, member in read_rows("members"):
        categories[category][member] = "common"
    return [
        several(f"several-list-{slug(category)}", rel.list_wordings(category), members, category, "members")
        for category, members in categories.items()
        if f"several-list-{slug(category)}" not in LEFT_OUT
    ]


def letter_questions(facts: dict[str, list[Fact]]) -> list[Question]:
    questions: list[Question] = []
    for kind, names, wordings in rel.LETTER_QUESTIONS:
        # What an entity is called is no held fact, so all of them are asked for.
        members: dict[str, Frequency] = {fact.entity: "common" for name in names for fact in facts[name]}
        for letter, part in by_letter(members).items():
            question_id = f"several-letter-{kind}-{letter.lower()}"
            if usable(part) and question_id not in LEFT_OUT:
                texts = tuple(wording.format(letter=letter) for wording in wordings)
                questions.append(several(question_id, texts, part, letter, f"letter-{kind}"))
    return questions


def two_step_questions(facts: dict[str, list[Fact]]) -> list[Question]:
    """Two steps over facts that are both common; "common" is therefore their frequency too."""
    relation = {item.name: item for item in rel.RELATIONS}
    questions: list[Question] = []
    for first, second, wordings in rel.TWO_STEP:
        answer = {fact.entity: fact for fact in facts[second]}
        for fact in facts[first]:
            target = answer.get(fact.entity)
            if target is None or fact.frequency != "common" or target.frequency != "common":
                continue
            questions.append(
                Question(
                    question_id=f"two-step-{slug(second)}-{slug(fact.object)}",
                    wordings=tuple(rel.filled(wording, fact.entity, fact.object) for wording in wordings),
                    answers=(target.object,),
                    aliases=((),),
                    kind="two-step",
                    frequency="common",
                    weight=TWO_STEP_WEIGHT * training_weight(fact, relation[first], len(facts[first])),
                    answer_weights=(1.0,),
                    entity=fact.entity,
                    relation=second,
                )
            )
    return questions


def stratum(question: Question) -> str:
    """What is evaluated apart: several, two-step, and single questions by frequency."""
    return question.frequency if question.kind == "single" else question.kind


def with_splits(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Every stratum is dealt alternately to "choose" and "report", relation by relation, up to its limit."""
    dealt: dict[str, Split] = {}
    for name, limit in EVALUATED.items():
        by_relation: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            if stratum(question) == name:
                by_relation[question.relation].append(question)
        # Any prefix of `ordered` holds the relations in proportion.
        ordered = spread({key: shuffled(part, "split", "question_id") for key, part in by_relation.items()}, name)
        for place, question in enumerate(ordered[:limit]):
            dealt[question.question_id] = ("choose", "report")[place % 2]
    return tuple(
        Question(**{**vars(question), "split": dealt.get(question.question_id, "train-only")}) for question in questions
    )


def spread(groups: dict[str, list[T]], label: str) -> list[T]:
    """All items, interleaved so that every prefix holds the groups nearly in proportion to their sizes."""
    placed = [
        ((place + unit(f"spread:{label}:{name}")) / len(group), name, item)
        for name, group in sorted(groups.items())
        for place, item in enumerate(group)
    ]
    return [item for _, _, item in sorted(placed, key=lambda entry: (entry[0], entry[1]))]


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
