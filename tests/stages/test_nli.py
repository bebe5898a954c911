"""Clusters and verdicts by entailment: against brute force over all pairs, by hand, and with the planted model."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from planted_nli import ENTAILMENT, NEUTRAL, relation

from hcl_cli.measures.clusters import RULES, asking, told
from hcl_cli.models.entailment import find_entailment, load_entailment
from hcl_cli.stages.clusterings import Job
from hcl_cli.stages.nli_clusters import Entailed
from hcl_cli.stages.nli_judge import nli_verdicts
from hcl_cli.stages.score import scored


class Table:
    """A model that reads its verdicts from a function of two texts, and counts what it is asked."""

    n_cut = 0

    def __init__(self, verdict, sure: float = 0.8) -> None:  # type: ignore[no-untyped-def]
        self.verdict, self.sure = verdict, sure
        self.asked: list[tuple[str, str]] = []

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        assert len(set(pairs)) == len(pairs)
        self.asked += pairs
        found = np.full((len(pairs), 3), (1 - self.sure) / 2, dtype=np.float32)
        for row, pair in enumerate(pairs):
            found[row, self.verdict(*pair)] = self.sure
        return found


def published_equivalent(model, one: str, other: str, strict: bool) -> bool:  # type: ignore[no-untyped-def]
    """As in jlko/semantic_uncertainty, are_equivalent (0 contradiction, 1 neutral, 2 entailment)."""
    implications = [model.verdict(one, other), model.verdict(other, one)]
    if strict:
        return implications == [2, 2]
    return 0 not in implications and implications != [1, 1]


def ids_of(texts: Sequence[str], equivalent, *, take_over: bool) -> list[int]:  # type: ignore[no-untyped-def]
    """get_semantic_ids of that code, which takes over; and the same where the first cluster keeps its members."""
    ids = [-1] * len(texts)
    next_id = 0
    for i, one in enumerate(texts):
        if ids[i] == -1:
            ids[i] = next_id
            for j in range(i + 1, len(texts)):
                if (take_over or ids[j] == -1) and equivalent(one, texts[j]):
                    ids[j] = next_id
            next_id += 1
    return ids


TEXTS = [f"t{at}" for at in range(7)]
tables = st.fixed_dictionaries({pair: st.integers(0, 2) for pair in itertools.permutations(TEXTS, 2)})
jobs_of_texts = st.lists(st.lists(st.integers(0, len(TEXTS) - 1), max_size=7, unique=True), max_size=4)


@settings(max_examples=60)
@given(tables, jobs_of_texts, st.booleans(), st.sampled_from(RULES))
def test_every_rule_is_that_of_all_pairs_and_greedy_ones_are_the_published_loops(table, picks, strict, rule) -> None:  # type: ignore[no-untyped-def]
    jobs = [Job("", np.array(items, dtype=np.int64)) for items in picks]
    model = Table(lambda one, other: table[one, other])
    found = Entailed(model, "nli-strict" if strict else "nli-loose", rule).run(TEXTS, jobs)
    assert len(set(model.asked)) == len(model.asked)  # no pair twice, over all jobs and rounds
    assert len(model.asked) <= sum(len(items) * (len(items) - 1) for items in picks)

    def equivalent(one: str, other: str) -> bool:
        return published_equivalent(model, one, other, strict)

    for items, placed in zip(picks, found, strict=True):
        texts = [TEXTS[item] for item in items]

        def strength(pairs: NDArray[np.int64], texts: list[str] = texts) -> NDArray[np.float64]:
            alike = [equivalent(texts[a], texts[b]) for a, b in pairs.tolist()]
            return np.where(alike, float(np.float32(0.8) if strict else 1 - np.float32(0.1)), -np.inf)

        if rule.startswith("greedy"):
            expected = ids_of(texts, equivalent, take_over=rule == "greedy-last")
        else:
            expected = told(asking(rule, len(texts), np.argsort(items).tolist()), strength).tolist()
        assert placed.clusters.tolist() == expected
        assert placed.similarity is None


@settings(max_examples=40)
@given(tables, st.permutations(range(len(TEXTS))), st.booleans())
def test_components_and_complete_do_not_depend_on_the_order(table, order, strict) -> None:  # type: ignore[no-untyped-def]
    for rule in ("components", "complete"):
        clustering = Entailed(Table(lambda a, b: table[a, b]), "nli-strict" if strict else "nli-loose", rule)
        plain, shuffled = clustering.run(TEXTS, [Job("", np.arange(7)), Job("", np.array(order))])
        parts = [
            {frozenset(np.array(items)[placed.clusters == one].tolist()) for one in placed.clusters}
            for items, placed in ((range(7), plain), (order, shuffled))
        ]
        assert parts[0] == parts[1]


def test_the_order_decides_greedy_clusters_by_entailment() -> None:
    """a ~ b ~ c but a and c are unrelated: with b first all three are together."""
    chain = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")}
    model = Table(lambda one, other: ENTAILMENT if (one, other) in chain else NEUTRAL)
    jobs = [Job("", np.array(items)) for items in ([0, 1, 2], [1, 0, 2], [0, 2, 1])]
    # In the last one b is alike to both first members: it stays with the first, or goes to the last.
    for rule, expected in (
        ("greedy", [[0, 0, 1], [0, 0, 0], [0, 1, 0]]),
        ("greedy-last", [[0, 0, 1], [0] * 3, [0, 1, 1]]),
    ):
        placed = Entailed(model, rule=rule).run(["a", "b", "c"], jobs)
        assert [one.clusters.tolist() for one in placed] == expected


def test_strict_and_loose_by_hand() -> None:
    """A city entails `city`, which is neutral the other way: alike to the loose rule alone."""
    texts = ["blue", "city", "lutetia", "paris", "rome"]
    job = [Job("", np.array([3, 2, 1, 4, 0]))]  # paris lutetia city rome blue
    strict, loose = (
        Entailed(Table(relation), name).run(texts, job)[0].clusters.tolist() for name in ("nli-strict", "nli-loose")
    )
    assert strict == [0, 0, 1, 2, 3]
    assert loose == [0, 0, 0, 1, 2]  # by first members: rome contradicts paris, whatever it says of city


def test_second_directions_are_asked_only_where_the_first_leaves_it_open() -> None:
    model = Table(relation)
    Entailed(model).run(["paris", "rome"], [Job("", np.array([0, 1]))])
    assert model.asked == [("paris", "rome")]
    model = Table(relation)
    Entailed(model).run(["lutetia", "paris"], [Job("", np.array([1, 0]))] * 50)
    assert sorted(model.asked) == [("lutetia", "paris"), ("paris", "lutetia")]


def test_the_question_stands_in_front_or_not() -> None:
    for with_question, expected in ((True, {"q1 paris", "q1 rome", "q2 paris", "q2 rome"}), (False, {"paris", "rome"})):
        model = Table(lambda one, other: relation(one.split()[-1], other.split()[-1]))
        clustering = Entailed(model, with_question=with_question)
        clustering.run(["paris", "rome"], [Job("q1", np.array([0, 1])), Job("q2", np.array([0, 1]))])
        assert {text for pair in model.asked for text in pair} == expected
        assert clustering.label == ("nli-strict" if with_question else "nli-strict+no-question")


def test_numbers_keep_apart_and_are_not_asked_about_and_blanks_are_one_cluster() -> None:
    texts = ["", " ", "in 1912", "in 1913", "nineteen twelve", "the year 1912"]
    model = Table(lambda _one, _other: ENTAILMENT)
    job = [Job("", np.array([2, 0, 3, 1, 5]))]
    assert Entailed(model).run(texts, job)[0].clusters.tolist() == [0, 1, 0, 1, 0]
    model = Table(lambda _one, _other: ENTAILMENT)
    guarded = Entailed(model, numbers=True)
    assert guarded.run(texts, job)[0].clusters.tolist() == [0, 1, 2, 1, 0]
    assert not any({"in 1912", "in 1913"} == set(pair) for pair in model.asked)
    assert guarded.label == "nli-strict+numbers"


def frame(*rows: tuple[str, list[str] | None, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"question": [q for q, _, _ in rows], "answers": [a for _, a, _ in rows], "response": [r for _, _, r in rows]},
        schema={"question": pl.String, "answers": pl.List(pl.String), "response": pl.String},
    ).with_columns(exit_layer=pl.lit(1, pl.Int16), sample_index=pl.int_range(pl.len(), dtype=pl.Int32))


def test_verdicts_by_hand() -> None:
    model = Table(lambda one, other: relation(one.split()[-1], other.split()[-1]))
    table = frame(
        ("q", ["paris"], "paris"), ("q", ["paris"], "lutetia"), ("q", ["paris"], "rome"), ("q", ["paris"], "blue"),
        ("q", ["paris"], "city"),  # entailed by "q paris"
        ("q", ["city"], "rome"),  # entails "q city"
        ("q", ["rome", "paris"], "lutetia"), ("q", ["paris"], "  "), ("q", None, "paris"), ("q", ["", " "], "paris"),
        ("q", ["paris"], "lutetia"),
    )  # fmt: skip
    done: list[tuple[int, int]] = []
    found = nli_verdicts(table, model, progress=lambda *counts: done.append(counts))
    assert found["correct_nli"].to_list() == [
        True, True, False, False, True, True, True, False, None, None, True,
    ]  # fmt: skip
    assert done[-1] == (7, 7)
    # What fits in the first direction is not asked in the second; a later reference only where the earlier fail.
    assert ("q paris", "q lutetia") not in model.asked and ("q lutetia", "q rome") in model.asked
    assert not any(text.strip() in ("q", "") for pair in model.asked for text in pair)
    shuffled = nli_verdicts(table[::-1], Table(model.verdict))
    assert shuffled["correct_nli"].to_list() == found["correct_nli"].to_list()[::-1]


def test_the_planted_model_through_the_stage(planted_nli: Path) -> None:
    model = load_entailment(find_entailment(str(planted_nli)))
    rows = [("where is it", ["paris"], text) for text in ("lutetia", "paris", "roma", "city", "azure", "rome", "")]
    table = frame(*rows)
    given_ = nli_verdicts(table, model)
    found = scored(
        table, judges=["nli", "exact"], clusterings=[Entailed(model, name) for name in ("nli-strict", "nli-loose")],
        given=given_,
    )  # fmt: skip
    assert found["correct"].to_list() == [True, True, False, True, False, False, False]
    assert found["meaning_id"].to_list() == [0, 0, 1, 2, 3, 1, 4]
    assert found["meaning_id_nli_loose"].to_list() == [0, 0, 1, 0, 2, 1, 3]
    assert found["cluster_id"].to_list() == [0, 0, None, 1, None, None, None]
    assert found["cluster_id_of_exact"].to_list() == [None, 0, None, None, None, None, None]
    assert set(found["clustering"]) == {"nli-strict"}
    again = scored(found)
    assert not [name for name in again.columns if "nli" in name]


@pytest.mark.parametrize("text", ["x " * 5000, "東京都", "กรุงเทพ", "القاهرة", "🙂🙃", "\u200b", "१२"])
def test_answers_of_any_length_and_script_have_a_verdict_and_a_cluster(planted_nli: Path, text: str) -> None:
    model = load_entailment(find_entailment(str(planted_nli)))
    table = frame(*(("where is it", ["paris"], answer) for answer in (text, "lutetia", text)))
    given_ = nli_verdicts(table, model)
    found = scored(table, judges=["nli"], clusterings=[Entailed(model)], given=given_)
    assert found["correct"].null_count() == 0 and found["meaning_id"].null_count() == 0
    assert found["correct"][1] and found["meaning_id"][0] == found["meaning_id"][2]
