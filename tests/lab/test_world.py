"""The lab world: what its questions and statements promise, checked against the tracked rows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl_cli.errors import BadInput
from hcl_cli.lab import facts as facts_module
from hcl_cli.lab import relations as rel
from hcl_cli.lab.build_world import (
    close_answers,
    contained_answers,
    normalised,
    questions_frame,
    shipped_questions,
    statements_frame,
    with_counts,
)
from hcl_cli.lab.facts import Fact, read_rows, slug, spread
from hcl_cli.lab.questions import several, stratum, training_weight
from hcl_cli.lab.statements import other_objects
from hcl_cli.lab.world import World, load_world
from hcl_cli.models.encoders import find_encoder, load_encoder
from hcl_cli.resources import data_file

WORLD = load_world()
ROWS = {relation.name: read_rows(relation.name) for relation in rel.RELATIONS}
HELD = [fact for fact in WORLD.facts if fact.frequency == "held"]


def test_the_readme_counts_the_world() -> None:
    """After a change of the rows, `python -m hcl_cli.lab.build_world` writes the counts and both Parquet files anew."""
    text = data_file("lab", "README.md").read_text(encoding="utf-8")
    counts = Counter(fact.relation for fact in WORLD.facts)
    stated = {name: int(n) for name, n in re.findall(r"^\| `(\w+)\.tsv` \| (\d+) \|", text, re.MULTILINE)}
    assert stated == dict(counts)
    assert sum(counts.values()) >= 800
    assert f"{len(WORLD.facts):,} facts, {len(WORLD.questions):,} questions" in text
    assert with_counts(text, WORLD) == text


def test_every_tracked_file_is_used() -> None:
    tracked = {path.stem for path in data_file("lab", "world").glob("*.tsv")}
    assert tracked == {relation.name for relation in rel.RELATIONS} | {"members"}


def test_an_entity_stands_once_in_its_file() -> None:
    for name, rows in ROWS.items():
        repeated = [entity for entity, n in Counter(entity for entity, _ in rows).items() if n > 1]
        assert repeated == [], name


def test_questions_have_their_own_ids_wordings_and_answers() -> None:
    assert len({question.question_id for question in WORLD.questions}) == len(WORLD.questions)
    wordings = Counter(wording for question in WORLD.questions for wording in question.wordings)
    assert [wording for wording, n in wordings.items() if n > 1] == []
    for question in WORLD.questions:
        assert len(set(map(normalised, question.answers))) == len(question.answers) == len(question.answer_weights)
        assert len(question.aliases) == len(question.answers)
        assert all(answer and answer == answer.strip() and answer.isascii() for answer in question.answers)
        assert all(len(answer.split()) <= 6 for answer in question.answers)
        assert all(
            wording.isascii() and "{" not in wording and wording[-1] in "?." and wording[0].isupper()
            for wording in question.wordings
        )
        assert (len(question.answers) == 1) == (question.kind != "several")


def test_choose_and_report_are_large_disjoint_and_alike() -> None:
    sizes = Counter((stratum(question), question.split) for question in WORLD.questions)
    at_least = {"common": 400, "two-step": 140, "rare": 150, "held": 70, "several": 140}
    for name, least in at_least.items():
        choose, report = sizes[name, "choose"], sizes[name, "report"]
        assert abs(choose - report) <= 1
        assert choose + report >= least
    texts = {split: {q.wordings[0] for q in WORLD.questions if q.split == split} for split in ("choose", "report")}
    assert texts["choose"].isdisjoint(texts["report"])


def test_held_facts_are_in_nothing_that_training_shows() -> None:
    trained = [
        (question, wording, answer)
        for question in WORLD.questions
        for wording in question.wordings
        for answer, weight in zip(question.answers, question.answer_weights, strict=True)
        if question.weight * weight > 0
    ]
    assert len(HELD) >= 50
    for fact in HELD:
        pair = {fact.entity, fact.object}
        for question, wording, answer in trained:
            if question.relation == fact.relation and question.kind != "two-step" and answer in pair:
                (other,) = pair - {answer}
                assert not re.search(rf"(?<!\w){re.escape(other)}(?!\w)", wording), (fact, wording, answer)
            if question.kind == "two-step" and question.entity == fact.entity:
                assert question.relation != fact.relation, (fact, wording)
                assert fact.object not in wording, (fact, wording)


def test_held_questions_weigh_nothing_and_rare_ones_little() -> None:
    for question in WORLD.questions:
        assert (question.weight == 0) == (question.frequency == "held")
        assert sum(question.answer_weights) == pytest.approx(0 if question.frequency == "held" else 1)
    assert {question.kind for question in WORLD.questions if question.frequency != "common"} == {"single"}
    kinds = Counter(fact.frequency for fact in WORLD.facts if fact.relation in ROWS and fact.relation != "members")
    eligible = sum(len(ROWS[relation.name]) for relation in rel.RELATIONS if relation.eligible)
    assert kinds["rare"] / eligible == pytest.approx(0.15, abs=0.01)
    assert kinds["held"] / eligible == pytest.approx(0.06, abs=0.01)


def test_training_weight_by_hand() -> None:
    """Two facts at exponent 1: 1 and 1/2 share 2, so 4/3 and 2/3; a rare one has .06 of that, a held one nothing."""
    relation = rel.Relation("r", "t", zipf=1.0)
    weights = [
        training_weight(Fact("r", "e", "o", rank, frequency), relation, 2)
        for rank, frequency in ((0, "common"), (1, "common"), (1, "rare"), (0, "held"))
    ]
    assert weights == pytest.approx([4 / 3, 2 / 3, 0.04, 0])


def test_answer_weights_by_hand() -> None:
    """1, 1/2 and 1/3 in some order, the held one struck out: the two left are in the ratio of two of these."""
    question = several("q", ("Name one.",), {"x": "common", "y": "common", "z": "held"}, "e", "r")
    assert question.answers[-1] == "z" and question.answer_weights[-1] == 0
    ratio = question.answer_weights[0] / question.answer_weights[1]
    assert any(ratio == pytest.approx(expected) for expected in (2.0, 3.0, 1.5))


def test_several_answers_are_complete_in_the_world() -> None:
    """Recomputed from the rows: no right answer of the world is missing from a list, or it would be judged wrong."""
    names = {
        "letter-state": {entity for entity, _ in ROWS["state_capital"]},
        "letter-element": {entity for entity, _ in ROWS["symbol"]},
        "letter-country": {
            entity for name in ("capital", "continent", "language", "currency") for entity, _ in ROWS[name]
        },
    }
    lists = read_rows("members")
    asked = 0
    for question in (question for question in WORLD.questions if question.kind == "several"):
        if question.relation in names:
            expected = {name for name in names[question.relation] if name[0].upper() == question.entity}
        elif question.relation == "members":
            expected = {member for category, member in lists if category == question.entity}
        else:
            expected = {entity for entity, obj in ROWS[question.relation] if obj == question.entity}
            if letter := re.search(r" begins with ([A-Z])", question.wordings[0]):
                expected = {entity for entity in expected if entity[0].upper() == letter[1]}
        assert set(question.answers) == expected, question.question_id
        asked += 1
    assert asked >= 140


def test_a_single_answer_is_the_only_one_in_the_world() -> None:
    for question in (question for question in WORLD.questions if "-inverse-" in question.question_id):
        (answer,) = question.answers
        (obj,) = {obj for entity, obj in ROWS[question.relation] if entity == answer}
        assert [entity for entity, other in ROWS[question.relation] if other == obj] == [answer]


def test_no_answer_stands_inside_another_of_its_kind() -> None:
    assert contained_answers(WORLD) == []


def test_a_contained_answer_is_found() -> None:
    members = {"Guinea": "common", "Equatorial Guinea": "common", "Guineafowl": "common"}
    world = World((), (several("q", ("Name one.",), members, "e", "members"),), ())
    assert contained_answers(world) == [("q", "Guinea", "Equatorial Guinea")]


def test_right_answers_of_a_question_can_be_told_apart_by_the_embedder() -> None:
    """No two at cosine 0.75 or more; two that are (Norway and Sweden, measured .80) are found."""
    encode = load_encoder(find_encoder()).encode
    assert close_answers(WORLD, encode) == []
    near = {"Norway": "common", "Sweden": "common", "Brazil": "common"}
    world = World((), (several("q", ("Name one.",), near, "e", "r"),), ())
    (found,) = close_answers(world, encode)
    assert found[0] == "q" and set(found[1:3]) == {"Norway", "Sweden"} and found[3] >= 0.75


def test_statements_are_true_and_false_as_labelled() -> None:
    assert len({item.statement_id for item in WORLD.statements}) == len(WORLD.statements) >= 800
    assert len({item.statement for item in WORLD.statements}) == len(WORLD.statements)
    for item in WORLD.statements:
        assert ((item.entity, item.object) in ROWS[item.relation]) == (item.label == 1), item
        assert not (item.held and item.judged)
    held = {(fact.relation, fact.entity) for fact in HELD}
    assert {(item.relation, item.entity) for item in WORLD.statements if item.held} == held


def test_an_entity_is_judged_in_all_its_statements_or_in_none() -> None:
    verdicts: dict[str, set[bool]] = {}
    for item in WORLD.statements:
        if not item.held:
            verdicts.setdefault(item.entity, set()).add(item.judged)
    assert [entity for entity, kinds in verdicts.items() if len(kinds) > 1] == []
    share = sum(True in kinds for kinds in verdicts.values()) / len(verdicts)
    assert 0.4 < share < 0.6


def test_an_object_says_nothing_about_the_label() -> None:
    """Each object is named as often falsely as truly within its relation; so a guess from the object is right half
    the time, and among the judged and the never judged alone not much oftener."""
    counts = Counter((item.relation, item.object, item.label) for item in WORLD.statements)
    assert all(counts[relation, obj, 0] == counts[relation, obj, 1] for relation, obj, _ in counts)
    for judged in (True, False):
        part = [item for item in WORLD.statements if item.judged is judged]
        counts = Counter((item.relation, item.object, item.label) for item in part)
        best = sum(
            max(counts[relation, obj, 0], counts[relation, obj, 1]) for relation, obj in {key[:2] for key in counts}
        )
        assert best / len(part) < 0.53
        assert sum(item.label for item in part) * 2 == len(part)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), max_size=30))
def test_other_objects_are_a_rearrangement_without_a_fixed_one(objects: list[str]) -> None:
    drawn = other_objects(objects, "test")
    impossible = len(objects) < 2 or max(Counter(objects).values()) * 2 > len(objects)
    assert (drawn is None) == impossible
    if drawn is not None:
        assert sorted(drawn) == sorted(objects)
        assert all(one != other for one, other in zip(objects, drawn, strict=True))


def test_the_shipped_files_are_those_of_the_world() -> None:
    assert pl.read_parquet(data_file("lab", "questions.parquet")).equals(questions_frame(WORLD))
    assert pl.read_parquet(data_file("lab", "statements.parquet")).equals(statements_frame(WORLD))


def test_the_shipped_questions_are_enough_and_every_prefix_is_balanced() -> None:
    shipped = shipped_questions(WORLD)
    n_several = sum(question.kind == "several" for question in shipped)
    assert len(shipped) >= 300 and n_several >= 100
    assert {question.split for question in shipped} == {"choose", "report"}
    share = Counter(stratum(question) for question in shipped)
    for n in (10, 30, 100, 200):
        prefix = Counter(stratum(question) for question in shipped[:n])
        for name, count in share.items():
            assert abs(prefix[name] - n * count / len(shipped)) <= 2, (n, name)


def test_spread_keeps_every_prefix_in_proportion() -> None:
    mixed = spread({"a": list("a" * 20), "b": list("b" * 10)}, "test")
    assert all(abs(mixed[:n].count("a") - 2 * n / 3) <= 2 for n in range(31))


def test_a_bad_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.tsv").write_text("entity\tobject\nFrance\tParis\nSpain Madrid\n", encoding="utf-8")
    monkeypatch.setattr(facts_module, "data_file", lambda *parts: tmp_path / parts[-1])
    with pytest.raises(BadInput, match=r"bad\.tsv, line 3: .*'Spain Madrid'"):
        read_rows("bad")


def test_words_inside_sentences() -> None:
    wordings = {question.question_id: question.wordings[0] for question in WORLD.questions}
    assert wordings["currency-united-kingdom"] == "What is the currency of the United Kingdom?"
    assert wordings["sides-octagon"] == "How many sides does an octagon have?"
    assert wordings["several-element-group-alkali-metal"] == "Name an alkali metal."
    assert wordings["several-list-european-river"] == "Name a European river."
    assert slug("Port-au-Prince") == "port-au-prince"


def test_the_world_needs_no_heavy_library() -> None:
    code = (
        "import sys; from hcl_cli.lab.world import load_world; load_world();"
        "print(sorted({'torch', 'polars', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
