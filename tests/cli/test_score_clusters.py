"""`hcl score` with an entailment model, several clusterings, rules and the guard on numbers, through the program."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from calling import Hcl
from planted_nli import write_random_classifier
from test_surface import heavy_imports

ROWS = [
    ("where is it", "paris", "lutetia"), ("where is it", "paris", "paris"), ("where is it", "paris", "rome"),
    ("where is it", "paris", "city"), ("what is the capital", "roma", "rome"),
    ("what is the capital", "roma", "berlin"), ("what is the capital", "roma", ""), ("where is it", None, "paris"),
]  # fmt: skip


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    lines = [
        json.dumps({"question": question, "answers": [] if answer is None else [answer], "response": response,
                    "exit_layer": 1, "sample_index": at})
        for at, (question, answer, response) in enumerate(ROWS)
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def test_entailment_judges_and_clusters(
    hcl: Hcl, answers: Path, planted_nli: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["score", answers, "--judge", "nli,alias", "--cluster", "nli-strict,exact,nli-loose", "--nli-model",
            planted_nli]  # fmt: skip
    first = hcl(*call)
    table = pl.read_parquet(first.path)
    assert table["correct"].to_list() == [True, True, False, True, True, False, False, None]
    assert table["correct_alias"].to_list() == [False, True, False, False, False, False, False, None]
    assert table["judge"].unique().to_list() == ["nli"] and table["clustering"].unique().to_list() == ["nli-strict"]
    assert table["meaning_id"].to_list() == [0, 0, 1, 2, 0, 1, 2, 0]
    assert table["meaning_id_nli_loose"].to_list() == [0, 0, 1, 0, 0, 1, 2, 0]
    assert table["meaning_id_exact"].to_list() == [0, 1, 2, 3, 0, 1, 2, 1]
    assert table["cluster_id"].to_list() == [0, 0, None, 1, 0, None, None, None]
    assert table["cluster_id_of_alias"].to_list() == [None, 0, *[None] * 6]
    assert "8 responses judged by nli, clusters by nli-strict, exact, nli-loose; 1 without an accepted" in first.err

    from hcl_cli.models import entailment

    monkeypatch.setattr(entailment, "load_entailment", lambda *_: pytest.fail("the model was loaded"))
    second = hcl(*call)
    assert second.path == first.path and "from the store" in second.err
    # A file from elsewhere is read at every call, with Polars; the model's library is not.
    assert heavy_imports(tmp_path, *call) == ["polars"]


def test_each_option_changes_the_key_and_a_copy_of_the_model_does_not(
    hcl: Hcl, answers: Path, planted_nli: Path, tmp_path: Path
) -> None:
    call = ["score", answers, "--cluster", "nli-strict", "--nli-model"]

    def key(model: Path, *more: object) -> str:
        done = hcl(*call, model, *more, "--dry-run")
        assert done.code == 0, done.err
        return done.out.split()[1]

    other = write_random_classifier(
        tmp_path / "random", "deberta-v2", {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"},
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_biased_input=False,
    )  # fmt: skip
    changes: list[list[object]] = [
        ["--cluster", "nli-loose"], ["--cluster", "nli-strict,exact"], ["--cluster-rule", "components"],
        ["--cluster-rule", "complete"], ["--cluster-rule", "greedy-last"], ["--numbers-must-agree"],
        ["--no-nli-question"], ["--judge", "nli"],
    ]  # fmt: skip
    keys = {key(planted_nli), key(other), *(key(planted_nli, *change) for change in changes)}
    assert len(keys) == len(changes) + 2
    shutil.copytree(planted_nli, tmp_path / "copy")
    assert key(tmp_path / "copy") == key(planted_nli)
    # A random model of the published architecture: its verdicts mean nothing, its path is the same.
    table = pl.read_parquet(hcl(*call, other, "--judge", "nli").path)
    assert table["correct"].null_count() == 1 and table["meaning_id"].null_count() == 0


def test_a_labels_parts_are_in_the_column(hcl: Hcl, answers: Path, planted_nli: Path) -> None:
    done = hcl("score", answers, "--cluster", "nli-strict", "--nli-model", planted_nli, "--cluster-rule", "complete",
               "--numbers-must-agree", "--no-nli-question")  # fmt: skip
    assert pl.read_parquet(done.path)["clustering"].unique().to_list() == ["nli-strict+complete+numbers+no-question"]


def test_pairs_that_are_too_long_are_counted(hcl: Hcl, planted_nli: Path, tmp_path: Path) -> None:
    row = {"question": "where is it", "answers": ["paris"], "exit_layer": 1}
    texts = ["paris " * 2000, "lutetia"]  # 12,000 characters
    lines = [json.dumps({**row, "response": text, "sample_index": at}) for at, text in enumerate(texts)]
    (tmp_path / "long.jsonl").write_text("\n".join(lines))
    done = hcl("score", "long.jsonl", "--judge", "nli", "--cluster", "nli-strict", "--nli-model", planted_nli)
    assert pl.read_parquet(done.path)["correct"].null_count() == 0
    assert "pairs are longer than the entailment model reads: cut" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cluster", "kmeans"], "--cluster kmeans: 'kmeans' is not a clustering; expected one or more of"),
        (["--cluster", "exact,exact"], "--cluster exact,exact: a clustering is named twice"),
        (["--cluster-rule", "ward"], "--cluster-rule ward: expected one of greedy, greedy-last, components, complete"),
        (["--cluster", "exact", "--cluster-rule", "complete"], "--cluster-rule complete: equal words are clusters by"),
        (["--cluster", "exact", "--numbers-must-agree"], "--numbers-must-agree: equal words are clusters by"),
        (["--judge", "nli"], "--judge nli: needs an entailment model; name a folder or a Hub name"),
        (["--cluster", "nli-loose"], "--cluster nli-loose: needs an entailment model"),
        (["--nli-model", "x"], "--nli-model: speaks to an entailment model, but nothing uses one; add nli to --judge"),
        (["--no-nli-question"], "--nli-question: speaks to an entailment model, but nothing uses one"),
        (["--judge", "nli", "--nli-model", "two", "--cluster", "nli-loose"], "--cluster nli-loose: two does not tell"),
        (["--judge", "nli", "--nli-model", "./no"], "--nli-model ./no: no such folder"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(hcl: Hcl, answers: Path, tmp_path: Path, options: list[object], words: str) -> None:
    if "two" in options:
        write_random_classifier(tmp_path / "two", "bert", {0: "entailment", 1: "not_entailment"})
    done = hcl("score", answers, *options)
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1 and words in done.err, done.err


def test_an_interruption_loses_nothing_that_was_asked(
    hcl: Hcl, answers: Path, planted_nli: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model fails while it clusters: what it judged is kept, and nothing is asked twice."""
    from hcl_cli.models import entailment

    call = ["score", answers, "--judge", "nli", "--cluster", "nli-strict", "--nli-model", planted_nli]
    asked: list[tuple[str, str]] = []
    whole = entailment._Classifier.probabilities
    monkeypatch.setattr(entailment, "CHUNK", 2)

    def breaking(self: object, pairs: list[tuple[str, str]]) -> object:
        if len(asked) >= 6:
            raise KeyboardInterrupt
        asked.extend(pairs)
        return whole(self, pairs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(entailment._Classifier, "probabilities", breaking)
        assert hcl(*call).code == 130
    first = set(asked)
    asked.clear()

    def counting(self: object, pairs: list[tuple[str, str]]) -> object:
        asked.extend(pairs)
        return whole(self, pairs)  # type: ignore[arg-type]

    monkeypatch.setattr(entailment._Classifier, "probabilities", counting)
    done = hcl(*call)
    assert first and asked and not first & set(asked)
    alone = hcl(*call, "--store", tmp_path / "other")
    assert done.path.read_bytes() == alone.path.read_bytes()
    asked.clear()
    assert hcl(*call, "--cluster", "nli-strict,nli-loose", "--cluster-rule", "components").code == 0
    assert len(asked) < len(first)  # only what the loose relation asks beyond that
    asked.clear()
    both = [*call[:2], "--cluster", "nli-strict,nli-loose", "--nli-model", planted_nli]
    unkept = hcl(*both, "--no-cache", "-o", "new.parquet")
    assert unkept.code == 0 and asked and len(set(asked)) == len(asked)  # strict and loose ask together
