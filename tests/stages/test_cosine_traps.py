"""What all-MiniLM-L6-v2 makes of short answers, and what the toolkit offers where it errs.

Cosines were measured; they are pinned to two decimals, so that a change of the encoder or of its use shows.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import polars as pl
import pytest

from hcl_cli.models.encoders import find_encoder, load_encoder
from hcl_cli.stages.clusterings import Cosine, Exact
from hcl_cli.stages.score import scored


@cache
def encoder():  # type: ignore[no-untyped-def]
    return load_encoder(find_encoder())


def cosine(one: str, other: str) -> float:
    first, second = encoder().encode([one, other])
    return float(first @ second)


def meanings(texts: Sequence[str], clustering) -> list[int]:  # type: ignore[no-untyped-def]
    frame = pl.DataFrame({"question": ["q"] * len(texts), "answers": [["x"]] * len(texts), "response": texts})
    frame = frame.with_columns(exit_layer=pl.lit(1, pl.Int16), sample_index=pl.int_range(pl.len(), dtype=pl.Int32))
    return scored(frame, judges=["exact"], clusterings=[clustering])["meaning_id"].to_list()


def minilm(**options):  # type: ignore[no-untyped-def]
    return Cosine(encoder().encode, reading=encoder().reading, **options)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("The war ended in 1912.", "The war ended in 1913.", 0.83),  # merged although the facts differ
        ("in 1912", "in 1913", 0.74),
        ("Paris", "It is the city of Paris", 0.81),
        ("Niger", "Nigeria", 0.83),  # merged although the countries differ
        ("München", "Munich", 0.80),  # just below the threshold: split although it is one city
        ("Япония", "Japan", 0.28),  # the same country in two languages
        ("北京", "上海", 0.38),
        ("ปารีส", "โตเกียว", 1.00),  # Paris and Tokyo in Thai: no word piece of either is known
    ],
)
def test_cosines_as_measured(one: str, other: str, expected: float) -> None:
    assert cosine(one, other) == pytest.approx(expected, abs=0.006)


def test_years_are_one_meaning_to_cosine_and_two_under_the_guard() -> None:
    texts = ["The war ended in 1912.", "The war ended in 1913.", "The war ended in nineteen hundred and twelve."]
    assert meanings(texts[:2], minilm()) == [0, 0]
    assert meanings(texts[:2], minilm(numbers=True)) == [0, 1]
    # The guard only keeps apart: whether the words of the same number are close enough is for the encoder to say.
    assert meanings(texts, minilm(numbers=True, threshold=0.7)) == [0, 1, 0]
    assert meanings(["Paris", "It is the city of Paris"], minilm(numbers=True)) == [0, 0]
    counted = ["seven moons", "eight moons", "7 moons"]
    assert meanings(counted, minilm(numbers=True, threshold=0.5)) == [0, 1, 0]


def test_words_in_an_unknown_script_are_alike_only_where_they_are_equal(caplog: pytest.LogCaptureFixture) -> None:
    """Both are one unknown token to this encoder, and have one and the same vector."""
    texts = ["ปารีส", "โตเกียว", "Paris", "ปารีส", "巴黎"]
    assert encoder().reading(texts).known.tolist() == [False, False, True, False, False]
    with caplog.at_level("WARNING"):
        assert meanings(texts, minilm()) == [0, 1, 2, 0, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "3 distinct responses hold no word that the sentence encoder knows (another script?): they are alike only "
        "where their words are equal; --embedder names another encoder"
    ]
    # Without a look at the tokens they were one meaning.
    assert meanings(texts[:2], Cosine(encoder().encode)) == [0, 0]
    assert meanings(texts, Exact()) == [0, 1, 2, 0, 3]


def test_other_languages_are_other_meanings_to_this_encoder() -> None:
    """A limit, not a feature: entailment or an encoder of many languages (--embedder) is the remedy."""
    assert meanings(["Japan", "Япония", "Japón"], minilm()) == [0, 1, 2]


def test_a_very_long_answer_is_cut_and_said(caplog: pytest.LogCaptureFixture) -> None:
    long = "It is the city of Paris. " * 400  # 10,000 characters
    with caplog.at_level("WARNING"):
        assert meanings([long, "Paris", long + "London."], minilm()) == [0, 1, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "2 distinct responses are longer than the sentence encoder reads: they were cut"
    ]
    assert np.isclose(cosine(long, long + "London."), 1.0)  # what was cut cannot tell them apart
