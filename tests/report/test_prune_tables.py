"""Blocks, agreement and the quality kept as files: every column, no name breaks the format, the claim is marked."""

import csv
import io
import re
from pathlib import Path

import pytest
from planted_prune import (
    block,
    compared,
    mitigated,
    retained,
    study_blocks,
    study_compared,
    study_mitigated,
    study_retained,
)

from hcl_cli.errors import BadOption, EnvironmentRefused
from hcl_cli.report.mitigate_tables import mitigate_table_text, write_mitigate_table
from hcl_cli.report.prune_tables import prune_table_text, write_prune_table
from hcl_cli.report.retained_tables import retained_table_text, write_retained_table
from hcl_cli.schemas.blocks import BLOCKS, RETAINED

TWO = [
    block(1, score=0.5, rank=2, damage=0.25, normalised=0.25, cumulative=0.25),
    block(2, score=1.5, rank=1, removed=True, damage=-0.01, normalised=0.75, cumulative=1.0),
]
SEEDS = [retained("random", after=0.45, seed=0), retained("random", after=0.35, seed=1)]
STRANGE = "a|b`*<i>\n$x_1$\\"


def tables(text):
    """Cells of each Markdown table, escapes kept."""
    found = re.split(r"\n\n", text)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in part.splitlines()]
        for part in found
        if part.startswith("|")
    ]


def plain(row):
    return [cell.replace("\\", "") for cell in row]


# ----------------------------------------------------------------------------------------------------- blocks


def test_one_criterion_in_markdown_by_hand():
    text = prune_table_text(TWO, [compared()], [], ".md")
    blocks, damage = tables(text)
    assert text.startswith("**lab, texts**\n\n| Block |")
    assert blocks[0] == ["Block", "avss", "Normalised", "Cumulative", "Rank", "", "Damage"]
    assert plain(blocks[2]) == ["1", "0.500 [0.450, 0.550]", "0.250", "0.250", "2", "", "+0.250 [+0.248, +0.252]"]
    assert plain(blocks[3]) == [
        "2", "**1.50 [1.35, 1.65]**", "0.750", "1.000", "**1**", "**removed**", "-0.010 [-0.012, -0.008]"
    ]  # fmt: skip
    assert plain(damage[2]) == ["avss", "0.90 [0.85, 0.95]", "0.004", "1 of 2"]
    last = text.rstrip().splitlines()[-1]
    assert last.startswith("Rank 1 goes first. Damage: rise of the loss without the block alone, nats per token. avss")


def test_several_criteria_stand_beside_each_other_with_ranks_in_brackets():
    names = ("avss", "last", "random")
    blocks, _, pairs, kept = tables(
        prune_table_text(study_blocks(4, names), study_compared(names), study_retained(4, names), ".md")
    )
    assert blocks[0] == ["Block", "avss", "last", "random, seeds that remove it", "Damage"]
    assert plain(blocks[2]) == ["1", "**0.0497 (1)**", "3.00 (4)", "3 of 5", "+2.058 [+1.914, +2.223]"]
    assert [row[:2] for row in pairs[2:]] == [["avss", "last"]]
    assert len(kept) == 2 + 4 * 3 and kept[2][0] == "perplexity on wikitext2 (lower is better)"
    assert plain(kept[4])[1:4] == ["random (5 seeds)", "1", "23.4 [22.5, 24.3]"]


def test_many_pairs_are_a_triangle_with_every_value_once():
    names = ("avss", "angular", "last", "first")
    rows = [
        compared(a, b, (10 * at + other) / 100)
        for at, a in enumerate(names)
        for other, b in enumerate(names)
        if at < other
    ]
    (triangle,) = tables(prune_table_text([], rows, [], ".md"))
    assert triangle[0] == ["Rank correlation", "avss", "angular", "last"]
    assert triangle[2:] == [
        ["angular", "0.01", "", ""],
        ["last", "0.02", "0.12", ""],
        ["first", "0.03", "0.13", "0.23"],
    ]


def test_latex_by_hand():
    text = prune_table_text(TWO, [], [retained("50 % & more"), retained("x", "mc1")], ".tex")
    assert text.count(r"\begin{tabular}{rrrrrrr}") == 1 and text.count(r"\begin{tabular}{llrrrrr}") == 1
    assert r"2 & \textbf{1.50 [1.35, 1.65]} & 0.750 & 1.000 & \textbf{1} & \textbf{removed} & -0.010" in text
    assert r"answer accuracy on lab (higher is better) & 50 \% \& more & 2 & 0.600 [0.570, 0.630] & 0.500" in text
    assert r" & 83.3 \% [78.3, 88.3] \\" in text and text.count("\\addlinespace") == 1


def test_csv_holds_every_column_of_blocks_unrounded():
    rows = [block(1, 'a,"b"\nc', 1 / 3), block(2, "random", None, None, seed=4)]
    first, second = csv.DictReader(io.StringIO(prune_table_text(rows, [compared()], [retained()], ".csv")))
    assert list(first) == list(BLOCKS.columns) and float(first["score"]) == 1 / 3 and first["criterion"] == 'a,"b"\nc'
    assert (second["score"], second["seed"], second["removed"], second["damage"]) == ("", "4", "False", "")


# --------------------------------------------------------------------------------------------- the share that is kept


def test_shares_with_a_column_per_measure_then_lines_then_the_claim():
    kept = [retained(), *SEEDS, retained(metric="perplexity", after=30.0, before=20.0, higher=False)]
    blocks = [block(at, removed=at < 3) for at in range(1, 9)]
    shares, lines = tables(retained_table_text(kept, ".md", blocks))
    assert shares[0] == ["Share kept", "Removed", "answer accuracy on lab", "perplexity on lab"]
    assert plain(shares[2]) == ["avss", "2 of 8 (25 %)", "83.3 % [78.3, 88.3]", "66.7 % [61.7, 71.7]"]
    assert plain(shares[3]) == ["random (2 seeds)", "2 of 8 (25 %)", "66.7 % (58.3 to 75.0)", "-"]
    assert plain(lines[2]) == [
        "avss", "answer accuracy on lab", "2 of 8 (25 %)", "0.600 [0.570, 0.630]", "0.500 [0.475, 0.525]",
        "-0.100 [-0.130, -0.070]", "83.3 % [78.3, 88.3]",
    ]  # fmt: skip
    assert plain(lines[-1]) == [
        "AVSS, published [paper: abstract]", "performance on the paper's own tasks", "about 25 %", "", "", "",
        "over 90 %",
    ]  # fmt: skip


def test_ours_is_held_against_the_claim_only_where_about_as_many_blocks_went():
    kept = [retained(after=0.58), retained(metric="mc1", after=0.5), retained("last", after=0.59)]
    for n_blocks, is_held in ((8, True), (10, True), (7, True), (6, False), (11, False)):
        text = retained_table_text(kept, ".md", [block(at, removed=at < 3) for at in range(1, n_blocks + 1)])
        assert (f"Without 2 of {n_blocks}" in text) == is_held
    said = retained_table_text(kept, ".md", [block(at, removed=at < 3) for at in range(1, 9)])
    assert "avss keeps over 90 % of 1 of 2 measures (answer accuracy on lab), 1 with the whole interval." in said
    unsure = retained_table_text([retained(after=0.56)], ".md", [block(at, removed=at < 3) for at in range(1, 9)])
    assert "1 of 1 measures (answer accuracy on lab), 0 with the whole interval." in unsure
    assert "Without" not in retained_table_text(kept, ".md") and "arXiv 2411.02117" in retained_table_text(kept, ".md")


def test_shares_show_one_number_of_blocks_and_the_csv_has_all():
    kept = study_retained(8, ("avss",), sizes=(1, 2, 3))
    text = retained_table_text(kept, ".md", study_blocks(8, ("avss",)))
    assert "8 more rows, of other numbers of blocks, are in the CSV." in text and len(tables(text)[1]) == 2 + 4 + 1
    rows = list(csv.DictReader(io.StringIO(retained_table_text(kept, ".csv"))))
    assert list(rows[0]) == list(RETAINED.columns) and len(rows) == 12
    assert (rows[1]["blocks"], float(rows[1]["after"]), rows[1]["lead"]) == ("2 3", kept[1]["after"], "")


def test_size_and_speed_are_no_performance():
    kept = [retained(metric="parameters", after=900.0, before=1000.0, dataset="", higher_is_better=None), retained()]
    shares, lines = tables(retained_table_text(kept, ".md"))
    assert shares[0] == ["Share kept", "Removed", "answer accuracy on lab"] and lines[3][1] == "parameters"


# --------------------------------------------------------------------------------------------------------- mitigation


def test_mitigation_in_markdown_by_hand():
    rows = [
        mitigated(lead=-0.03),
        mitigated("random-layers", after=0.43),
        mitigated("all-layers", after=0.41, lead=-0.02),
    ]
    text = mitigate_table_text(rows, ".md")
    ((header, _, *lines),) = tables(text)
    assert header == ["Measure", "Trained blocks", "n", "Before", "After", "Difference", "Lead over random-layers"]
    assert plain(lines[0]) == [
        "hallucination rate on lab (lower is better)", "eavss", "3", "0.450 [0.430, 0.470]", "0.400 [0.380, 0.420]",
        "-0.050 [-0.070, -0.030]", "**-0.030 [-0.050, -0.010]**",
    ]  # fmt: skip
    assert plain(lines[1])[-1] == "-" and plain(lines[2])[-1] == "-0.020 [-0.040, 0.000]"


def test_mitigation_in_latex_and_csv():
    text = mitigate_table_text(study_mitigated(), ".tex")
    assert text.count("\\addlinespace") == 3 and text.count(r"\textbf{") == 4
    rows = list(csv.DictReader(io.StringIO(mitigate_table_text(study_mitigated(), ".csv"))))
    assert len(rows) == len(study_mitigated()) and rows[0]["blocks"] == "4 5 9"


# -------------------------------------------------------------------------------------------------------------- all


def test_no_name_breaks_the_format():
    of = {"model": STRANGE, "dataset": STRANGE}
    blocks = [
        *TWO,
        block(1, STRANGE, **of),
        block(2, STRANGE, **of, seed=1, damage=1.0),
        block(2, STRANGE, **of, seed=2),
    ]
    pairs = [compared(STRANGE, STRANGE, **of, other_seed=1), compared(STRANGE, **of)]
    kept = [retained(STRANGE, STRANGE, **of, unit=STRANGE), retained("random", STRANGE, **of)]
    leads = [mitigated(STRANGE, STRANGE, lead=1.0, **of) | {"lead_over": STRANGE}]
    for written in (
        lambda ending: prune_table_text(blocks, pairs, kept, ending),
        lambda ending: retained_table_text(kept, ending, blocks),
        lambda ending: mitigate_table_text(leads, ending),
    ):
        text = written(".md")
        assert all(len({len(row) for row in table}) == 1 for table in tables(text)) and "<i>" not in text
        tex = written(".tex")
        assert r"a\textbar{}b`*\textless{}i\textgreater{} \$x\_1\$\textbackslash{}" in tex and "<i>\n" not in tex


def test_another_ending_and_a_missing_folder_are_refused_in_one_line(tmp_path: Path):
    for write in (
        lambda path: write_prune_table(TWO, [], [], path),
        lambda path: write_retained_table([retained()], path),
        lambda path: write_mitigate_table([mitigated()], path),
    ):
        with pytest.raises(BadOption, match=r"^--table .*x.doc: .*expected one of .md, .csv, .tex$"):
            write(tmp_path / "x.doc")
        with pytest.raises(EnvironmentRefused, match=r"^--table .*choose another place$"):
            write(tmp_path / "none" / "x.md")
    for written in (lambda end: prune_table_text(TWO, [], [], end), lambda end: mitigate_table_text([], end)):
        with pytest.raises(BadOption, match="expected one of"):
            written(".doc")
    write_prune_table(TWO, [], [], tmp_path / "x.MD")
    assert (tmp_path / "x.MD").read_text() == prune_table_text(TWO, [], [], ".md")


def test_nothing_is_an_empty_page():
    assert (
        prune_table_text([], [], [], ".md") == retained_table_text([], ".tex") == mitigate_table_text([], ".md") == ""
    )
