"""The two ways from generated text to answer, with the traps of the published one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl_cli.measures.cleaning import clean_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Paris\nQuestion: next", "Paris"),
        ("\n\n  Paris \r\nLyon", "Paris"),
        ("A.C. Milan", "A.C. Milan"),
        ("1. Paris 2. Lyon", "1. Paris 2. Lyon"),
        (" \n\t ", ""),
    ],
)
def test_plain_keeps_the_first_line_that_says_something(text: str, answer: str) -> None:
    assert clean_answer(text, "plain") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("1. Paris 2. Lyon", " Paris 2"),  # between the first and the second dot
        ("2.Paris", "Paris"),
        (" A. Paris.", " Paris"),  # the test looks past the leading blank, the cut does not
        ("A.C. Milan", "C"),  # the trap
        ("3. Paris. Lyon", "3. Paris. Lyon"),
        ("1) Paris 2) Lyon", "1) Paris 2) Lyon"),  # rule 2 is meant for this and never meets it
        ("1", "1"),  # rule 2 meets this and raises in the script
        (" 1 ", " 1 "),
        ("A: 1", "A: 1"),  # rule 3, the same
        ("A: 2) x", "A: 2) x"),
        ("\nParis", ""),  # the trap: an answer on the second line is lost
        ("1.\nParis.", ""),  # rule 1 first, then rule 4
        ("Paris\nLyon", "Paris"),
        (" Paris ", " Paris "),
    ],
)
def test_published_follows_the_script(text: str, answer: str) -> None:
    assert clean_answer(text, "published") == answer


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("12A.:) \n\raé"), max_size=12))
def test_an_answer_is_one_line_of_the_text(text: str) -> None:
    for how in ("plain", "published"):
        answer = clean_answer(text, how)
        assert answer in text
        assert "\n" not in answer
    assert bool(clean_answer(text, "plain")) == bool(text.strip())


def test_an_unknown_cleaning_is_named() -> None:
    with pytest.raises(ValueError, match="unknown cleaning 'chat'; expected one of plain, published"):
        clean_answer("Paris", "chat")
