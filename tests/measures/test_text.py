"""Normal forms, containment and token F1: golden values, the published definitions restated, laws."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl_cli.measures.text import (
    answer_form,
    contains_published,
    contains_tokens,
    exact_match,
    squad_normalised,
    token_f1,
    triviaqa_normalised,
)

texts = st.text(alphabet=st.sampled_from("aAtThHeEnN _-.,'‘é1“”ßς\u00ad\u0301"), max_size=15)
anything = st.one_of(texts, st.text(max_size=20))


def official_triviaqa(text: str) -> str:
    """The official script, step by step."""
    text = text.replace("_", " ").lower()
    marks = set(string.punctuation + "‘’´`")
    text = "".join(mark if mark not in marks else " " for mark in text)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split()).strip()


@pytest.mark.parametrize(
    ("text", "triviaqa", "squad"),
    [
        ("The Eiffel Tower!", "eiffel tower", "eiffel tower"),
        ("ABC-123", "abc 123", "abc123"),
        ("snake_case", "snake case", "snakecase"),
        ("O’Brien", "o brien", "o’brien"),
        ("a man, an apple and the end", "man apple and end", "man apple and end"),
        ("U.S.A.", "u s", "usa"),  # the lone "a" goes as an article
        ("The", "", ""),
        ("?!", "", ""),
    ],
)
def test_normal_forms_by_hand(text: str, triviaqa: str, squad: str) -> None:
    assert triviaqa_normalised(text) == triviaqa
    assert squad_normalised(text) == squad


@settings(deadline=None)
@given(anything)
def test_triviaqa_form_is_the_official_one(text: str) -> None:
    assert triviaqa_normalised(text) == official_triviaqa(text)


@settings(deadline=None)
@given(st.text(alphabet=string.printable, max_size=20))
def test_answer_form_of_ascii_is_triviaqas(text: str) -> None:
    assert answer_form(text) == official_triviaqa(text)


@settings(deadline=None)
@given(anything)
def test_a_form_is_its_own_form(text: str) -> None:
    assert answer_form(answer_form(text)) == answer_form(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Bogot\u00e1", "Bogota\u0301"),  # composed and decomposed
        ("Gauß", "GAUSS"),
        ("ΟΔΟΣ", "οδος"),
        ("“Paris”", "paris"),
        ("soft\u00adhyphen", "softhyphen"),
        ("1914–1918", "1914-1918"),
        ("non\u00a0breaking", "non breaking"),
    ],
)
def test_answer_form_sees_through_unicode(one: str, other: str) -> None:
    assert answer_form(one) == answer_form(other)


def test_answer_form_keeps_accents() -> None:
    assert answer_form("Bogotá") != answer_form("Bogota")


@pytest.mark.parametrize(
    ("text", "answer", "tokens"),
    [
        ("It is Niger.", "Niger", True),
        ("It is Nigeria.", "Niger", False),
        ("in 1912", "12", False),
        ("in 1912", "1912", True),
        ("New York City", "York", True),
        ("New York City", "new city", False),  # not side by side
        ("the end of the road", "end of road", True),  # articles do not stand between
        ("12,000", "12", True),  # known: the form cuts numbers at their marks
        ("anything", "The", False),  # an answer that vanishes is in nothing
        ("", "", False),
    ],
)
def test_containment_has_word_boundaries(text: str, answer: str, tokens: bool) -> None:
    assert contains_tokens(answer_form(text), answer_form(answer)) is tokens


def test_published_containment_has_none() -> None:
    """An alias "on" was found in any London, and in every header line "Generated Response 1:"."""
    assert contains_published("London", "on")
    assert contains_published("Generated Response 1:", "on")
    assert contains_published("It is Nigeria", "niger")
    assert not contains_published("the  end", "the end")  # no normal form
    assert not contains_published("London", " ")  # the script says yes
    assert not contains_published("", "on")


def test_exact_match_and_f1_by_hand() -> None:
    assert exact_match("The Beatles.", ["Rolling Stones", "beatles"])
    assert not exact_match("Beatles, the band", ["beatles"])
    assert exact_match("ABC-123", ["abc123"], squad_normalised)
    assert not exact_match("ABC-123", ["abc123"])
    # "big red dog" and "red dog dog": 2 words in common of 3 and 3; "big" alone: 1 of 3 and 1, F1 = 2 * 1 / 4
    assert token_f1("big red dog", ["red dog dog", "big"]) == pytest.approx(2 / 3)
    assert token_f1("big red dog", ["big"]) == pytest.approx(0.5)
    assert token_f1("cat", ["dog"]) == 0
    assert token_f1("the", ["the"]) == 0
    assert token_f1("cat", []) == 0


@settings(deadline=None)
@given(texts, texts)
def test_f1_is_symmetric_and_one_only_for_equal_words(one: str, other: str) -> None:
    value = token_f1(one, [other])
    assert value == token_f1(other, [one])
    assert 0 <= value <= 1
    words = [sorted(triviaqa_normalised(text).split()) for text in (one, other)]
    assert (value == 1) == (words[0] == words[1] != [])
