"""From scored answers to questions with two kinds of answers, and to parts that share no question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.errors import BadInput
from hcl_cli.stages.contrast_pairs import (
    AnsweredQuestion,
    answered_questions,
    distinct_answers,
    drawn_answers,
    part_of,
    split,
)


def scored(*rows: tuple[str, int, str, bool | None, str]) -> pl.DataFrame:
    """(question, exit layer, text, verdict, finish reason)."""
    return pl.DataFrame(
        [
            {"question_id": f"id {asked}", "exit_layer": layer, "sample_index": index, "question": asked,
             "answers": ["x"], "response": text.strip(), "text": text, "correct": correct, "finish_reason": end,
             "model": "tiny"}
            for index, (asked, layer, text, correct, end) in enumerate(rows)
        ],
        schema_overrides={"correct": pl.Boolean},
    )  # fmt: skip


ROWS = (
    ("Who?", 1, " Paris", False, "eos"),
    ("Who?", 1, " Shakespeare", True, "length"),
    ("Who?", 2, " Shakespeare", True, "eos"),
    ("Who?", 2, " William", True, "stop"),
    ("Who?", 2, "", False, "eos"),
    ("Where?", 2, " Denmark", None, "eos"),
    ("Where?", 2, " France", True, "eos"),
    ("What?", 1, " whale", True, "eos"),
    ("What?", 2, " whale", False, "eos"),
)


def test_equal_answers_count_once_and_what_is_left_out_is_counted() -> None:
    """By hand: Shakespeare of two layers is one answer, which ended by itself in one; the empty answer, the one without
    a verdict and the one with two verdicts are left out."""
    found = distinct_answers(scored(*ROWS), model="tiny")
    assert found.frame.select("question_id", "answer", "correct", "ended").rows() == [
        ("id Who?", " Paris", False, True),
        ("id Who?", " Shakespeare", True, True),
        ("id Who?", " William", True, False),
        ("id Where?", " France", True, True),
    ]
    assert (found.n_empty, found.n_ungraded, found.n_contradictory, found.exit_layers) == (1, 1, 1, (1, 2))
    last = distinct_answers(scored(*ROWS, ("Who?", 2, " Rome", False, "eos")), model="tiny", answers_of="last")
    assert last.exit_layers == (2,) and " Paris" not in last.frame["answer"]


def test_questions_as_the_model_reads_them(tiny_model: Callable[..., Any]) -> None:
    """The answer's own tokens end before the end-of-sequence token, which stands only where the model wrote one."""
    loaded = tiny_model("llama")
    answers = distinct_answers(scored(*ROWS), model="tiny").frame
    found = answered_questions(loaded, answers, "Question: {}\nAnswer:".format, special_tokens=True)
    assert [one.question_id for one in found] == ["id Who?", "id Where?"]
    who, where = found
    assert who.has_contrast and not where.has_contrast
    assert [len(who.factual), len(who.hallucinated)] == [2, 1]
    shakespeare, william = who.factual
    assert shakespeare.ids[-1] == 1 and shakespeare.stop == len(shakespeare.ids) - 1
    assert william.ids[-1] != 1 and william.stop == len(william.ids)
    assert loaded.tokenizer.decode(william.ids[william.first : william.stop]) == " William"
    assert loaded.tokenizer.decode(shakespeare.ids[shakespeare.first : shakespeare.stop]) == " Shakespeare"
    with pytest.raises(BadInput, match="answer 'id Who.*128 positions"):
        answered_questions(loaded, answers, lambda asked: asked * 100, special_tokens=True)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (tuple(row for row in ROWS if row[3]), "all are correct, expected both.*--answers-of all"),
        (tuple(row for row in ROWS if row[3] is False), "all are hallucinated"),
        (tuple(row for row in ROWS if row[3] is None), "none has a verdict"),
    ],
)
def test_one_kind_of_answers_is_refused(rows: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        distinct_answers(scored(*rows), model="tiny")
    assert "\n" not in str(refused.value)


def test_answers_of_another_model_are_refused() -> None:
    """A model is taught by its own mistakes; a file that says nothing of a model is taken."""
    with pytest.raises(BadInput, match="column model: answers of 'tiny', but --model is 'lab'"):
        distinct_answers(scored(*ROWS), model="lab")
    assert distinct_answers(scored(*ROWS).drop("model"), model="lab").frame.height == 4


@given(st.lists(st.text(min_size=1, max_size=5), min_size=40, max_size=80, unique=True), st.integers(0, 2**32 - 1))
def test_no_question_is_in_two_parts_and_other_questions_move_none(ids: list[str], seed: int) -> None:
    """Every question is in exactly one part, the same one whatever else is there and in whatever order."""
    try:
        parts = split(ids, seed)
    except BadInput as empty:
        assert "none falls to" in str(empty)
        return
    assert sorted(name for names in parts.values() for name in names) == sorted(ids)
    assert all(part_of(name, seed) == part for part, names in parts.items() for name in names)
    backwards = split(ids[::-1], seed)
    assert {part: names[::-1] for part, names in backwards.items()} == parts


def test_parts_have_their_shares_and_another_seed_deals_anew() -> None:
    """Of 20,000 questions half are trained on, 15 % validate, 35 % test, within 1.5 %; under another seed as many of
    each part fall anywhere: a third part shared would be chance (.5^2 + .15^2 + .35^2 = .395)."""
    names = [str(number) for number in range(20_000)]
    parts = split(names, 0)
    assert [len(parts[part]) / 20_000 for part in ("train", "validation", "test")] == pytest.approx(
        [0.5, 0.15, 0.35], abs=0.015
    )
    assert sum(part_of(name, 0) == part_of(name, 1) for name in names) / 20_000 == pytest.approx(0.395, abs=0.02)


def test_too_few_questions_for_three_parts() -> None:
    with pytest.raises(BadInput, match="--seed 0: of 1 questions none falls to"):
        split(["only one"], 0)


def test_drawn_answers_are_some_of_each_kind(tiny_model: Callable[..., Any]) -> None:
    """At most so many, all if there are not more, others at another address, whatever the order they came in."""
    answers = distinct_answers(
        scored(*((("Who?", 1, f" {name}", name < "m", "eos")) for name in "abcdefgxyz")), model="tiny"
    ).frame
    (one,) = answered_questions(tiny_model("llama"), answers, "Q: {}\nA:".format, special_tokens=True)
    drawn = drawn_answers(one, 4, "epoch 1")
    assert len(drawn.factual) == 4 and set(drawn.factual) < set(one.factual) and drawn.hallucinated == one.hallucinated
    turned = AnsweredQuestion(one.question_id, one.factual[::-1], one.hallucinated)
    assert set(drawn_answers(turned, 4, "epoch 1").factual) == set(drawn.factual)
    assert any(set(drawn_answers(one, 4, f"epoch {n}").factual) != set(drawn.factual) for n in range(2, 6))
