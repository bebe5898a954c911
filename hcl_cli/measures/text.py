"""Short answers: normal forms, equality, containment and token F1.

Two published normal forms, and one of ours (`answer_form`) in which the judges compare.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_TRIVIAQA_PUNCTUATION = str.maketrans({mark: " " for mark in string.punctuation + "‘’´`"})
_SQUAD_PUNCTUATION = str.maketrans("", "", string.punctuation)


def triviaqa_normalised(text: str) -> str:
    """Lower case, punctuation (ASCII and ‘ ’ ´ `) to blanks, articles to blanks, one blank between words.

    May be empty ("The", "?!").

    Source: mandarjoshi90/triviaqa, official evaluation script.
    """
    # "_" is ASCII punctuation, so the script's own step for it is part of the table.
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_TRIVIAQA_PUNCTUATION)).split())


def squad_normalised(text: str) -> str:
    """Lower case, ASCII punctuation *deleted*, articles to blanks, one blank between words.

    Not the TriviaQA form: "ABC-123" is "abc123" here and "abc 123" there.

    Source: Rajpurkar et al. 2016, official evaluation script.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_SQUAD_PUNCTUATION)).split())


@cache
def _unicode_marks() -> dict[int, str | None]:
    """Punctuation of every script to a blank, invisible format characters to nothing."""
    table: dict[int, str | None] = {}
    for point in range(128, sys.maxunicode + 1):
        kind = unicodedata.category(chr(point))
        if kind[0] == "P":
            table[point] = " "
        elif kind == "Cf":
            table[point] = None
    return table


def answer_form(text: str) -> str:
    """The form in which answers are compared: TriviaQA's, made safe for Unicode.

    For ASCII text it equals `triviaqa_normalised`. For other text, before that: canonical composition (NFC) and case
    folding, so that "é" typed in two ways and "Gauß" / "GAUSS" are equal; invisible format characters (soft hyphen,
    zero-width space) are dropped; and punctuation of every script becomes a blank, so that “Paris” is `paris`.

    Source: the additions to TriviaQA's form are our own.
    """
    if not text.isascii():
        folded = unicodedata.normalize("NFC", text).casefold().translate(_unicode_marks())
        text = unicodedata.normalize("NFC", folded)  # folding and dropping marks can leave something to compose
    return triviaqa_normalised(text)


# Scripts that put no blank between words: Thai to Myanmar, Khmer, Japanese kana, Han and its compatibility forms.
_UNSPACED = re.compile(
    r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def has_unspaced_script(text: str) -> bool:
    """Whether the text holds letters of a script without blanks between words, where `contains_tokens` finds none."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def contains_tokens(form: str, answer: str) -> bool:
    """Whether the words of `answer` stand in `form` as whole words, side by side. Both are normal forms.

    "niger" is not in "nigeria", "12" not in "1912". An empty answer is in nothing. A script without blanks between
    words has no such boundaries: there only an equal text matches. In the normal form a number is cut at its marks,
    so "12" is in "12,000" and "3" in "3.14": known, and the same in TriviaQA's script.
    """
    return bool(answer) and f" {answer} " in f" {form} "


def contains_published(response: str, answer: str) -> bool:
    """Whether the lower-cased answer is a substring of the lower-cased response: no normal form, no boundaries.

    "on" is in "London". The script would also find an empty answer everywhere; here a blank answer is in nothing.

    Source: ZicongHe2002/HCL-Spark, Judgment.py.
    """
    return bool(answer.strip()) and answer.lower() in response.lower()


def exact_match(
    prediction: str, references: Iterable[str], normalised: Callable[[str], str] = triviaqa_normalised
) -> bool:
    """Whether the prediction's normal form is that of a reference (EM). Source: TriviaQA's official script."""
    form = normalised(prediction)
    return any(form == normalised(reference) for reference in references)


def token_f1(
    prediction: str, references: Iterable[str], normalised: Callable[[str], str] = triviaqa_normalised
) -> float:
    """Largest F1 over references between the multisets of words; in [0, 1], 0 without overlap or references.

    Source: TriviaQA's and SQuAD's official scripts.
    """
    words = Counter(normalised(prediction).split())
    best = 0.0
    for reference in references:
        accepted = Counter(normalised(reference).split())
        overlap = (words & accepted).total()
        if overlap:
            # 2PR / (P + R) with P = overlap / |words| and R = overlap / |accepted|
            best = max(best, 2 * overlap / (words.total() + accepted.total()))
    return best
