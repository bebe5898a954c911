"""Judges and clusters: golden tables, the published rules restated, laws. The encoder is a small planted one."""

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from polars.testing import assert_frame_equal

from hcl_cli.schemas import SCORED
from hcl_cli.stages.clusterings import Cosine, Exact
from hcl_cli.stages.score import scored
from hcl_cli.stages.scored_columns import JUDGES

# Where each word points, in degrees: cos 30 = .87 is alike at 0.8, cos 60 = .5 is not.
DEGREES = {"zero": 0, "thirty": 30, "sixty": 60, "far": 180, "Zero": 0}


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    radians = np.deg2rad([DEGREES[text] for text in texts])
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def responses(texts: Sequence[str | None], answers: object = ("Paris",), **columns: object) -> pl.DataFrame:
    """Samples 0.. of one question at one exit layer."""
    n = len(texts)
    return pl.DataFrame(
        {
            "question": ["q"] * n,
            "answers": pl.Series([None if answers is None else list(answers)] * n, dtype=pl.List(pl.String)),
            "response": pl.Series(texts, dtype=pl.String),
            "exit_layer": [4] * n,
            "sample_index": range(n),
            **columns,
        }
    )


def verdicts(texts: Sequence[str], answers: object, judge: str) -> list[bool | None]:
    return scored(responses(texts, answers), judges=[judge])["correct"].to_list()


# --- judges ---


def test_judges_by_hand() -> None:
    """One row per response, one column per judge: exact, alias, contains, published."""
    expected = {
        "Niger": (True, True, True, True),
        "the NIGER!": (True, True, True, True),
        "It is Niger.": (False, True, True, True),
        "It is Nigeria.": (False, False, True, True),
        "Ni-ger": (False, False, False, False),
        "N i g e r": (False, False, False, False),
        "Chad": (False, False, False, False),
        "": (False, False, False, False),
        "...": (False, False, False, False),
    }
    table = scored(responses(list(expected), ["Niger"]), judges=("exact", "alias", "contains", "published"))
    columns = [f"correct_{judge}" for judge in ("exact", "alias", "contains", "published")]
    assert dict(zip(expected, table.select(columns).rows(), strict=True)) == expected
    assert table["correct"].to_list() == table["correct_exact"].to_list()
    assert table["judge"].unique().to_list() == ["exact"]


def test_published_has_no_normal_form() -> None:
    """ "U.S." is lost in "the US" under either, but "x-ray" in "X ray" only under `published`."""
    assert verdicts(["X ray"], ["x-ray"], "published") == [False]
    assert verdicts(["X ray"], ["x-ray"], "alias") == [True]
    assert verdicts(["at the"], ["t th"], "published") == [True]
    assert verdicts(["at the"], ["t th"], "contains") == [False]


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("answers", [None, [], [None], [""], [" "]])
def test_without_answers_nothing_can_be_graded(judge: str, answers: list[str | None] | None) -> None:
    assert verdicts(["Paris", ""], answers, judge) == [None, None]


@pytest.mark.parametrize("judge", ["alias", "exact", "contains"])
def test_an_answer_that_vanishes_matches_nothing(judge: str) -> None:
    """The band "The The" or the vitamin "A" normalise to nothing, and nothing is a substring of everything."""
    assert verdicts(["anything", "The The"], ["The The", "?"], judge) == [None, None]
    assert verdicts(["anything", "", "Matt Johnson"], ["The", "Matt Johnson"], judge) == [False, False, True]


def test_the_same_response_is_judged_against_its_own_answers() -> None:
    frame = pl.DataFrame(
        {
            "question": ["France?", "Peru?", "?", "France?"],
            "answers": [["Paris"], ["Lima"], None, ["Paris"]],
            "response": ["Paris", "Paris", "Paris", "Lima"],
        }
    )
    assert scored(frame)["correct"].to_list() == [True, False, None, False]


words = st.text(alphabet=st.sampled_from("nigerNa -.’é'1"), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(words, min_size=1, max_size=5), st.lists(words, max_size=3), words)
def test_order_of_strictness_and_more_answers(texts: list[str], answers: list[str], more: str) -> None:
    """exact <= alias <= contains; and one more accepted answer never makes a right response wrong."""
    tables = [scored(responses(texts, given_), judges=JUDGES) for given_ in (answers, [more, *answers])]
    for table in tables:
        graded = table.filter(pl.col("correct").is_not_null())
        assert (graded["correct_exact"] <= graded["correct_alias"]).all()
        assert (graded["correct_alias"] <= graded["correct_contains"]).all()
    for judge in JUDGES:
        before, after = (table[f"correct_{judge}"].fill_null(False) for table in tables)
        assert (before <= after).all()


def test_scripts_without_blanks_between_words_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """ "The answer is Paris" holds the answer, and token boundaries cannot see it."""
    texts = ["答えはパリです", "巴黎", "答案是巴黎", "ปารีสครับ", "Это Париж", "Paris"]
    with caplog.at_level("WARNING"):
        table = scored(responses(texts, ["巴黎", "パリ", "Париж"]), judges=["alias", "contains", "exact"])
    assert table["correct_alias"].to_list() == [False, True, False, False, True, False]
    assert table["correct_contains"].to_list() == [True, True, True, False, True, False]
    assert [record.getMessage() for record in caplog.records] == [
        "3 distinct responses were taken for wrong in a script that puts no blanks between words (Chinese, Japanese, "
        "Thai, ...), where alias finds whole texts alone: contains looks inside them too"
    ]
    caplog.clear()
    scored(responses(["Париж", "no", "Αθήνα", "서울"], ["Париж"]))  # scripts with blanks
    assert not caplog.records


# --- clusters ---


def clusters(texts: Sequence[str], answers: object, **columns: object) -> pl.DataFrame:
    table = scored(responses(texts, answers, **columns), judges=["exact"], clusterings=[Cosine(encode)])
    return table.select("cluster_id", "meaning_id", "similarity_to_cluster")


def test_cosine_clusters_by_hand() -> None:
    """The wrong "thirty" comes first and holds all three together; among the right ones "zero" and "sixty" part."""
    table = clusters(["thirty", "zero", "sixty", "zero", "far"], ["zero", "sixty"])
    assert table["cluster_id"].to_list() == [None, 0, 1, 0, None]
    assert table["meaning_id"].to_list() == [0, 0, 0, 0, 1]
    assert table["similarity_to_cluster"].to_list() == pytest.approx([1, 0.8660254, 0.8660254, 0.8660254, 1], abs=1e-6)


def test_clusters_follow_sample_index_not_rows() -> None:
    table = clusters(["zero", "thirty", "sixty"], ["zero", "thirty", "sixty"], sample_index=[1, 0, 2])
    assert table["cluster_id"].to_list() == [0, 0, 0]
    table = clusters(["zero", "thirty", "sixty"], ["zero", "thirty", "sixty"], sample_index=[0, 1, 2])
    assert table["cluster_id"].to_list() == [0, 0, 1]


def test_every_key_column_but_the_sample_parts_groups() -> None:
    """The same strings at another layer, temperature or question start again at 0."""
    texts = ["zero", "far", "far", "zero"]
    for column in ({"exit_layer": [2, 2, 4, 4]}, {"temperature": [0.6, 0.6, 1.0, 1.0]}, {"question_id": list("aabb")}):
        table = clusters(texts, ["zero", "far"], **column)
        assert table["meaning_id"].to_list() == [0, 1, 0, 1], column


def test_blank_responses_are_one_cluster_of_their_own() -> None:
    """They are never embedded (the planted encoder does not know them) and are wrong, not ungradable."""
    table = clusters(["zero", "", "far", " ", "zero", "\n"], ["zero"])
    assert table["meaning_id"].to_list() == [0, 1, 2, 1, 0, 1]
    assert table["cluster_id"].to_list() == [0, None, None, None, 0, None]
    assert table["similarity_to_cluster"].to_list() == [1, 1, 1, 1, 1, 1]
    assert clusters(["", ""], ["zero"])["meaning_id"].to_list() == [0, 0]


def test_exact_clusters_are_equal_words() -> None:
    texts = ["The Niger!", "niger", "Nigeria", "?!", "?!", "The", "the ", "", " "]
    table = scored(responses(texts, ["Niger", "Nigeria"]))
    assert table["meaning_id"].to_list() == [0, 0, 1, 2, 2, 3, 3, 4, 4]
    assert table["cluster_id"].to_list() == [0, 0, 1, None, None, None, None, None, None]
    assert table["similarity_to_cluster"].null_count() == len(texts)


def published_clusters(texts: Sequence[str], vectors: dict[str, NDArray[np.float32]], threshold: float) -> list[int]:
    """The script's rule for one file: a table of embeddings keyed by string, one pass over its keys."""
    table = {text: vectors[text] for text in texts}
    representatives: list[str] = []
    cluster_of: dict[str, int] = {}
    for text, vector in table.items():
        for number, representative in enumerate(representatives):
            if float(vector.astype(float) @ table[representative].astype(float)) >= threshold:
                cluster_of[text] = number
                break
        else:
            cluster_of[text] = len(representatives)
            representatives.append(text)
    return [cluster_of[text] for text in texts]


# Cosines on this grid are k / sqrt(m), never near the thresholds: rounding cannot decide.
GRID = np.array([v for v in itertools.product((-1, 0, 1), repeat=3) if any(v)], dtype=np.float32)
VECTORS = {f"w{i}": (v / np.linalg.norm(v)).astype(np.float32) for i, v in enumerate(GRID)}
rows_of_groups = st.lists(
    st.tuples(st.sampled_from(("p", "q")), st.sampled_from((2, 4)), st.sampled_from(list(VECTORS))), max_size=30
)


@settings(deadline=None, max_examples=60)
@given(rows_of_groups, st.sets(st.sampled_from(list(VECTORS))), st.sampled_from((0.3, 0.6, 0.8)), st.randoms())
def test_clusters_equal_the_published_rule(
    rows: list[tuple[str, int, str]], right: set[str], threshold: float, random: object
) -> None:
    """On random samples, per question and layer: over all answers, and over the right ones alone."""
    frame = pl.DataFrame(
        {
            "question": [question for question, _, _ in rows],
            "answers": pl.Series([sorted(right)] * len(rows), dtype=pl.List(pl.String)),
            "response": [text for _, _, text in rows],
            "exit_layer": [layer for _, layer, _ in rows],
            "sample_index": range(len(rows)),
        },
        schema_overrides={"question": pl.String, "response": pl.String, "exit_layer": pl.Int16},
    )
    cosine = Cosine(lambda texts: np.stack([VECTORS[text] for text in texts]), threshold)
    table = scored(frame, judges=["exact"], clusterings=[cosine])
    for _, group in table.group_by("question", "exit_layer", maintain_order=True):
        texts = group["response"].to_list()
        assert group["meaning_id"].to_list() == published_clusters(texts, VECTORS, threshold)
        correct = group.filter("correct") if right else group.clear()
        assert correct["cluster_id"].to_list() == published_clusters(correct["response"].to_list(), VECTORS, threshold)
        assert group["cluster_id"].null_count() == group.height - correct.height
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = scored(frame[order], judges=["exact"], clusterings=[cosine])
    assert_frame_equal(shuffled, table[order])


# --- the table ---


def test_each_distinct_string_is_embedded_once_and_in_the_same_order() -> None:
    seen: list[list[str]] = []

    def counted(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.append(list(texts))
        return encode(texts)

    frame = responses(["zero", "far", "zero", "", "sixty", "far"])
    reports: list[tuple[int, int]] = []
    scored(frame, clusterings=[Cosine(counted, progress=lambda done, total: reports.append((done, total)))])
    scored(frame.reverse(), clusterings=[Cosine(counted)])
    assert seen == [["far", "zero", "sixty"]] * 2  # by length, then by text
    assert reports == [(3, 3)]


def test_the_result_is_a_scored_table_with_what_came_along() -> None:
    frame = responses(["zero", "far"], ["zero"], note=["x", "y"])
    table = scored(frame, clusterings=[Cosine(encode)])
    assert table.schema == pl.Schema({**SCORED.polars_schema(), "note": pl.String()})
    again = scored(table, judges=["exact"])  # earlier verdicts give way
    assert again["judge"].to_list() == ["exact", "exact"]
    assert again["note"].to_list() == ["x", "y"]
    several = scored(table, judges=["exact", "alias"], clusterings=[Cosine(encode), Exact()])
    assert set(several.columns) - set(again.columns) == {
        "correct_exact", "correct_alias", "cluster_id_of_exact", "cluster_id_of_alias", "cluster_id_cosine",
        "meaning_id_cosine", "cluster_id_exact", "meaning_id_exact",
    }  # fmt: skip
    assert scored(several).columns == again.columns


def test_every_judge_and_every_clustering_has_clusters_of_its_own() -> None:
    """Two spellings of one answer, a wrong one with the answer in it, and a wrong one."""
    texts = ["zero", "Zero", "zero and far", "far", "zero"]
    vectors = {"zero": 0, "Zero": 10, "zero and far": 50, "far": 90}

    def encode_(texts_: list[str]) -> NDArray[np.float32]:
        angles = np.deg2rad([vectors[text] for text in texts_])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    table = scored(responses(texts, ["zero"]), judges=["exact", "alias"], clusterings=[Exact(), Cosine(encode_, 0.75)])
    assert table["clustering"].to_list() == ["exact"] * 5
    assert table["cluster_id"].to_list() == [0, 0, None, None, 0] == table["cluster_id_of_exact"].to_list()
    assert table["cluster_id_of_alias"].to_list() == [0, 0, 1, None, 0]
    assert table["meaning_id"].to_list() == [0, 0, 1, 2, 0] == table["meaning_id_exact"].to_list()
    # cos 50 = .64 and cos 40 = .77: the third is alike to the fourth only, and comes first.
    assert table["meaning_id_cosine"].to_list() == [0, 0, 1, 1, 0]
    assert table["cluster_id_cosine"].to_list() == [0, 0, None, None, 0]
    assert table["similarity_to_cluster"].null_count() == 5  # of the first clustering


def test_an_empty_table_stays_empty() -> None:
    for clustering in (Cosine(encode), Exact()):
        table = scored(responses([]), clusterings=[clustering])
        assert table.height == 0
        assert table.schema == SCORED.polars_schema()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown judge \['nli'\]"):
        scored(responses(["zero"]), judges=["nli"])
    with pytest.raises(ValueError, match=r"unknown clustering \['kmeans'\]"):
        scored(responses(["zero"]), clusterings=[Cosine(encode, name="kmeans")])
