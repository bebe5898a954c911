"""The questions of the lab world: one answer (both ways round), two steps, several answers; and their splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hcl_cli.lab import relations as rel
from hcl_cli.lab.facts import Fact, Frequency, read_rows, shuffled, slug, spread, unit

RARE_WEIGHT = 0.06
ANSWER_ZIPF = 1.0
TWO_STEP_WEIGHT = 0.5
SEVERAL_WEIGHTS = (1.0, 0.5, 0.25, 0.1)
FEWEST_ANSWERS = 3
MOST_ANSWERS = 26
LEFT_OUT = rel.TOO_OPEN | rel.TOO_CLOSE
# How many questions of a stratum are used to choose a recipe and to report (half each); the rest is for training only.
EVALUATED = {"common": 400, "two-step": 200, "rare": 400, "held": 400, "several": 400}

Split = Literal["choose", "report", "train-only"]


@dataclass(frozen=True)
class Question:
    """One question of the world.

    Attributes:
        wordings: the first is the one shipped and evaluated.
        answers: the right answers, the most weighted first.
        aliases: for each answer other spellings that are also right (usually none).
        kind: "single", "two-step" or "several".
        frequency: how often training sees it; "held" is never trained, in any form.
        weight: relative share in training among questions of the same kind (kinds are mixed by the recipe); 0 iff held.
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


def training_weight(fact: Fact, relation: rel.Relation, n_facts: int) -> float:
    """Zipf over the rank with mean 1 over the relation, times RARE_WEIGHT if rare, 0 if held."""
    total: float = sum((rank + 1) ** -relation.zipf for rank in range(n_facts))
    zipf: float = (fact.rank + 1) ** -relation.zipf * n_facts / total
    return zipf * {"common": 1.0, "rare": RARE_WEIGHT, "held": 0.0}[fact.frequency]


def single(fact: Fact, wordings: Sequence[str], answer: str, question_id: str, weight: float) -> Question:
    return Question(
        question_id=question_id,
        wordings=tuple(rel.filled(wording, fact.entity, fact.object) for wording in wordings),
        answers=(answer,),
        aliases=((),),
        kind="single",
        frequency=fact.frequency,
        weight=weight,
        answer_weights=(1.0,) if weight else (0.0,),
        entity=fact.entity,
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
            questions += narrowed(f"several-{slug(relation.name)}-{slug(obj)}", wordings, group, relation.letters)
    return questions


def narrowed(question_id: str, wordings: tuple[str, ...], group: Sequence[Fact], letters: bool) -> list[Question]:
    """The question itself where its answers can be told apart, else, with `letters`, letter by letter."""
    relation, obj = group[0].relation, group[0].object
    members = {fact.entity: fact.frequency for fact in group}
    if usable(members) and question_id not in LEFT_OUT:
        return [several(question_id, wordings, members, obj, relation)]
    questions: list[Question] = []
    for letter, part in by_letter(members).items() if letters else ():
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
    return (
        sum(frequency == "common" for frequency in members.values()) >= FEWEST_ANSWERS and len(members) <= MOST_ANSWERS
    )


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
    return tuple(replace(question, split=dealt.get(question.question_id, "train-only")) for question in questions)
