"""`hcl sample --strategy self-speculative` through the program, and what `hcl hcb` says of its answers."""

from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl

LAYERS = planted.N_LAYERS
DRAWING = ["-n", 30, "--temperature", 1.5, "--top-p", 0.9]


def test_rows_count_drafts_and_passes_of_the_full_model(hcl: Hcl, planted_run: list[object]) -> None:
    rows = pl.read_parquet(hcl(*planted_run, "--strategy", "self-speculative", *DRAWING).path)
    assert set(rows["strategy"]) == {"self-speculative"} and set(rows["exit_layer"]) == set(range(1, LAYERS + 1))
    assert rows.select("drafted", "accepted_drafts", "verifications").null_count().sum_horizontal()[0] == 0
    # Every pass gives the drafts that it accepted and one token more, but where an accepted draft ends the answer.
    left = rows["accepted_drafts"] + rows["verifications"] - rows["n_tokens"]
    assert set(left) <= {0, 1} and (rows["accepted_drafts"] <= rows["drafted"]).all()
    last = rows.filter(exit_layer=LAYERS)
    assert last["accepted_drafts"].sum() >= 0.9 * last["drafted"].sum()
    assert (rows["relative_cost"] > 1).all()
    plain = pl.read_parquet(hcl(*planted_run, *DRAWING).path)
    assert plain["drafted"].null_count() == plain["verifications"].null_count() == plain.height


def test_greedy_answers_of_every_exit_are_those_of_the_last(hcl: Hcl, planted_run: list[object]) -> None:
    greedy = ["-n", 1, "--temperature", 0]
    drafted = pl.read_parquet(hcl(*planted_run, "--strategy", "self-speculative", *greedy).path)
    plain = pl.read_parquet(hcl(*planted_run, "--exit-layers", LAYERS, *greedy).path)
    said = dict(plain.select("question_id", "text").iter_rows())
    assert all(text == said[name] for name, text in drafted.select("question_id", "text").iter_rows())


def test_growing_computes_only_what_is_missing_and_changes_no_answer(hcl: Hcl, planted_run: list[object]) -> None:
    run = [*planted_run, "--strategy", "self-speculative", "--temperature", 1.5, "--draft-tokens", 2]
    few = pl.read_parquet(hcl(*run, "-n", 3, "--exit-layers", "2").path)
    many = pl.read_parquet(hcl(*run, "-n", 8, "--exit-layers", "1,2").path)
    key = ["question_id", "exit_layer", "sample_index"]
    both = few.join(many, on=key, suffix="_grown")
    assert both.height == few.height == 9
    assert both["text"].to_list() == both["text_grown"].to_list()


def test_the_layer_table_says_how_many_drafts_were_accepted_and_what_follows(
    hcl: Hcl, planted_run: list[object]
) -> None:
    answers = hcl(*planted_run, "--strategy", "self-speculative", *DRAWING)
    balanced = hcl("hcb", stdin=hcl("score", "--cluster", "exact", stdin=answers.out).out)
    rows, layers = pl.read_parquet(answers.path), pl.read_parquet(balanced.path)
    counted = rows.group_by("exit_layer").agg(pl.col("accepted_drafts", "drafted", "verifications", "n_tokens").sum())
    counted = counted.sort("exit_layer")
    assert layers["acceptance_rate"].to_list() == pytest.approx(
        (counted["accepted_drafts"] / counted["drafted"]).to_list()
    )
    assert layers["tokens_per_verification"].to_list() == pytest.approx(
        (counted["n_tokens"] / counted["verifications"]).to_list()
    )
    assert "follow the full model's law whatever the layer" in " ".join(balanced.err.split())
    early = hcl("hcb", stdin=hcl("score", "--cluster", "exact", stdin=hcl(*planted_run, *DRAWING).out).out)
    assert pl.read_parquet(early.path)["acceptance_rate"].null_count() == LAYERS
    assert "verified by the full model" not in " ".join(early.err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--draft-tokens", "3"], ["--draft-tokens 3", "--strategy self-speculative"]),
        (["--strategy", "speculative"], ["--strategy speculative", "self-speculative"]),
        (["--strategy", "self-speculative", "--draft-tokens", "0"], ["--draft-tokens 0", "1 to 64"]),
    ],
)
def test_what_cannot_be_is_one_line(
    hcl: Hcl, planted_run: list[object], arguments: list[str], words: list[str]
) -> None:
    found = hcl(*planted_run, *arguments)
    assert found.code == 2 and found.out == "" and found.err.strip().count("\n") == 0
    assert all(word in found.err for word in words), found.err


def test_the_length_of_drafts_is_in_the_key_and_early_exit_has_none(hcl: Hcl, planted_run: list[object]) -> None:
    paths = {
        Path(hcl(*planted_run, "-n", 1, *more).path).name
        for more in (
            [], ["--strategy", "self-speculative"], ["--strategy", "self-speculative", "--draft-tokens", 6],
            ["--strategy", "self-speculative", "--draft-tokens", 5],
        )
    }  # fmt: skip
    assert len(paths) == 3
