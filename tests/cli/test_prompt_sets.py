"""The prompt sets through the program: sampled like any other questions, and listed."""

import json

import polars as pl
from calling import Hcl


def test_both_kinds_are_sampled_and_only_one_can_be_graded(hcl: Hcl) -> None:
    made = hcl("sample", "-d", "prompts", "--limit", 4, "-n", 1, "--exit-layers", 2, "--max-new-tokens", 4)
    judged = hcl("score", made.path, "--cluster", "exact")
    frame = pl.read_parquet(judged.path)
    assert frame["question_id"].to_list() == [
        "instructions-factual-001", "instructions-creative-001", "instructions-factual-002",
        "instructions-creative-002",
    ]  # fmt: skip
    assert frame["correct"].is_null().to_list() == [False, True, False, True]
    assert frame["dataset"].unique().to_list() == ["prompts"]


def test_they_are_listed_with_their_licence(hcl: Hcl) -> None:
    listed = {row["name"]: row for row in json.loads(hcl("datasets", "--json").out)}
    for name in ("prompts", "prompts-openings"):
        assert (listed[name]["kind"], listed[name]["rows"], listed[name]["licence"]) == ("questions", 200, "CC0-1.0")
