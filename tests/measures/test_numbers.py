"""Numbers of a text, by hand; what is not known is pinned too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.measures.numbers import numbers_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The war ended in 1912.", ["1912"]),
        ("1,000,000 people", ["1000000"]),
        ("1 000 m", ["1000"]),
        ("3.14 and 3.140", ["3.14", "3.14"]),
        ("the 12th of the 1990s", ["12", "1990"]),
        ("1990-1995", ["1990", "1995"]),
        ("-5 degrees", ["-5"]),
        ("twenty-one", ["21"]),
        ("two hundred and five", ["205"]),
        ("one million two hundred thousand five", ["1200005"]),
        ("the third man", ["3"]),
        ("one two three", ["1", "2", "3"]),
        ("nineteen twelve", ["12", "19"]),
        ("a Boeing B52", ["52"]),
        ("١٩١٢", ["1912"]),
        ("１９１２年", ["1912"]),
        ("१२", ["12"]),
        ("十二", ["12"]),
        ("一九一二", ["1912"]),
        ("一个", []),
        ("Paris", []),
        ("", []),
        ("someone's attention often", []),
        # Known gaps: a comma as the decimal mark, words of other languages, Roman numerals.
        ("3,5", ["3", "5"]),
        ("zwölf", []),
        ("XIV", []),
    ],
)
def test_numbers_by_hand(text: str, expected: list[str]) -> None:
    assert list(numbers_in(text)) == sorted(expected)


@given(st.lists(st.integers(0, 10**7), max_size=5))
def test_spellings_of_the_same_numbers_agree(values: list[int]) -> None:
    plain = " and ".join(map(str, values))
    assert numbers_in(plain) == numbers_in("; ".join(f"{value:,}" for value in values))
    assert sorted(numbers_in(plain)) == sorted(map(str, values))


@given(st.text(max_size=60))
def test_any_text_has_sorted_numbers(text: str) -> None:
    found = numbers_in(text)
    assert list(found) == sorted(found) and all(one.lstrip("-").replace(".", "", 1).isdigit() for one in found)
