"""The numbers that a text states, in a form in which they can be compared."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

# 1912; 1,000,000; 1 000 000 (with a no-break or thin blank); 3.14; 12th; 1990s. A sign counts where no letter, digit or
# closing mark stands before it.
_NUMBER = re.compile(
    r"(?<![\w.])([-−]?)(\d{1,3}(?:[,   ]\d{3})+(?!\d)|\d+)(\.\d+)?(st|nd|rd|th|s)?(?![^\W_])", re.IGNORECASE
)
_LOOSE = re.compile(r"\d+(?:\.\d+)?")
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_ONES)} | {word: 10 * at for at, word in enumerate(_TENS, 2)}
_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12,
    **{f"{word}th": value for word, value in _WORDS.items() if word not in (
        "one", "two", "three", "five", "eight", "nine", "twelve", *_TENS)},
    **{f"{word[:-1]}ieth": _WORDS[word] for word in _TENS},
}  # fmt: skip
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_CHINESE = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_RUN = re.compile("[零〇一二两三四五六七八九十百千]+")
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}


def numbers_in(text: str) -> tuple[str, ...]:
    """The numbers of a text, each as often as it stands there, sorted; "1912" and "1,000.5" as "1912" and "1000.5".

    Known: digits of every script, thousands separated by commas or narrow blanks, decimals with a point, ordinals
    (`12th`) and decades (`1990s`), English number words and ordinals up to billions ("twenty-one", "two hundred and
    five", "third"), Chinese numerals where they stand between digits' places or two together (a single 一 is too often
    a part of a word). Not known: words of other languages, Roman numerals, a comma as the decimal mark ("3,5" are 3
    and 5). "second" and "one" are read as numbers wherever they stand, so that a guard may split what means the same;
    it never joins what differs.

    Source: ours.
    """
    plain = "".join(_digit(character) for character in unicodedata.normalize("NFKC", text))
    found: list[str] = []

    def taken(match: re.Match[str]) -> str:
        sign, whole, decimals, _ = match.groups()
        value = Decimal(re.sub(r"\D", "", whole) + (decimals or ""))
        found.append(_form(-value if sign else value))
        return " "

    rest = _NUMBER.sub(taken, plain)
    found += [_form(Decimal(number)) for number in _LOOSE.findall(rest)]  # inside words: B52, H2O
    found += map(str, _chinese(rest))
    found += map(str, _in_words(rest))
    return tuple(sorted(found))


def _digit(character: str) -> str:
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _form(value: Decimal) -> str:
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _in_words(text: str) -> list[int]:
    """Values of the runs of English number words."""
    words = re.findall(r"[a-z]+", text.lower())
    found: list[int] = []
    total, current, inside = 0, 0, False

    def close() -> None:
        nonlocal total, current, inside
        if inside:
            found.append(total + current)
        total, current, inside = 0, 0, False

    for at, word in enumerate(words):
        if word in _WORDS or word in _ORDINALS:
            value = _WORDS.get(word, _ORDINALS.get(word, 0))
            # "twenty one" and "hundred five" go on; "one two" and "nineteen twelve" are two numbers.
            fits = current % 100 == 0 if value >= 10 else current % 10 == 0 and current % 100 != 10
            if inside and not (fits and (current or total)):
                close()
            current, inside = current + value, True
            if word in _ORDINALS:
                close()
        elif word in _SCALES and inside:
            if word == "hundred":
                current *= 100
            else:
                total, current = total + current * _SCALES[word], 0
        elif word == "and" and inside and at + 1 < len(words) and words[at + 1] in _WORDS and current % 100 == 0:
            continue
        else:
            close()
    close()
    return found


def _chinese(text: str) -> list[int]:
    """Values of runs of at least two Chinese numerals: 十二 is 12, 一九一二 is 1912."""
    found = []
    for run in _CHINESE_RUN.findall(text):
        if len(run) < 2:
            continue
        if not any(character in _CHINESE_UNITS for character in run):
            found.append(int("".join(str(_CHINESE[character]) for character in run)))
            continue
        total, digit = 0, 0
        for character in run:
            if character in _CHINESE_UNITS:
                total += (digit or 1) * _CHINESE_UNITS[character]
                digit = 0
            else:
                digit = _CHINESE[character]
        found.append(total + digit)
    return found
