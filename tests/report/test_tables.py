"""Exports: what stands in them, and that no name breaks the format."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl_cli.errors import BadOption, EnvironmentRefused
from hcl_cli.report.tables import latex_escaped, markdown_escaped, table_text, write_table
from hcl_cli.schemas import LAYERS


def layer(exit_layer, *, best=False, model="lab"):
    row = dict.fromkeys(LAYERS.columns) | {"model": model, "exit_layer": exit_layer, "n_questions": 3, "n_samples": 6}
    row |= {"n_graded": 6, "n_creativity_questions": 3, "p_best": 1.0 if best else 0.0, "is_best": best}
    for name in ("hallucination_rate", "creativity_raw", "creativity", "hcb"):
        row |= {name: 1 / 3, f"{name}_low": 0.25, f"{name}_high": 0.5}
    return row | {"in_best_set": best}


SAID = {**dict.fromkeys(["model", "dataset", "strategy", "method", "temperature", "top_p", "source"])}
FORMULA = SAID | {"statistic": "formula", "sentence": "HCB = 0.5 x a_b & c"}


def test_markdown_by_hand():
    lines = table_text([layer(1), layer(2, best=True)], ".md", [FORMULA]).splitlines()
    rate = r"0.33 \[0.25, 0.50\]"
    assert lines[0] == "**lab**"
    assert lines[2] == "| Layer | Hallucination | Creativity | Creativity, scaled | HCB | Wins |  |"
    assert lines[4] == f"| 1 | {rate} | {rate} | {rate} | {rate} | 0 % |  |"
    bold = " | ".join(f"**{cell}**" for cell in ("2", rate, rate, rate, rate, "100 %", "best"))
    assert lines[5] == f"| {bold} |"
    assert lines[-1] == r"HCB = 0.5 x a\_b &amp; c."


def test_csv_holds_every_column_unrounded():
    rows = list(csv.DictReader(io.StringIO(table_text([layer(1, model='a,"b"\nc'), layer(2)], ".csv"))))
    assert list(rows[0]) == list(LAYERS.columns)
    assert rows[0]["model"] == 'a,"b"\nc'
    assert float(rows[0]["hcb"]) == 1 / 3
    assert rows[1]["relative_cost"] == ""


def test_latex_by_hand():
    text = table_text([layer(1), layer(2, best=True)], ".tex", [FORMULA])
    assert r"1 & 0.33 [0.25, 0.50] & 0.33 [0.25, 0.50] & 0.33 [0.25, 0.50] & 0.33 [0.25, 0.50] & 0 \% &  \\" in text
    assert r"\textbf{2}" in text
    assert r"HCB = 0.5 x a\_b \& c." in text
    assert text.count(r"\begin{tabular}{rrrrrrl}") == text.count(r"\end{tabular}") == 1


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_name_breaks_the_table(name):
    rows = [layer(1, model=name or "x"), layer(2, best=True, model=name or "x")]
    lines = [line for line in table_text(rows, ".md").splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {8}
    escaped = markdown_escaped(name)
    assert "<" not in escaped and not re.search(r"(?<!\\)(\\\\)*[`*_\[|]", escaped)
    plain = latex_escaped(name).replace(r"\&", "").replace(r"\%", "").replace(r"\$", "").replace(r"\#", "")
    assert not re.search(r"[&%$#~^]", plain)
    assert "\n" not in latex_escaped(name)


@pytest.mark.parametrize("name", ["t.txt", "t", "t.html", ".md"])
def test_another_ending_is_refused_in_one_line(tmp_path: Path, name):
    with pytest.raises(BadOption, match=r"^--table .*expected one of .md, .csv, .tex$"):
        write_table([layer(1)], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_writing_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path):
    target = tmp_path / "t.MD"
    target.write_text("old")
    write_table([layer(1, best=True)], target)
    assert target.read_text() == table_text([layer(1, best=True)], ".md")
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_refuses_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(EnvironmentRefused, match=r"^--table .*No such file or directory; choose another place$"):
        write_table([layer(1)], tmp_path / "absent" / "t.md")


def test_methods_stand_in_the_first_column_to_the_left():
    rows = [layer(10) | {"method": "vanilla"}, layer(10, best=True) | {"method": "dola_low"}]
    lines = table_text(rows, ".md").splitlines()
    assert lines[2].startswith("| Method | Hallucination |") and lines[3].startswith("| --- | ---: |")
    assert lines[4].startswith("| vanilla | ") and lines[5].startswith(r"| **dola\_low** | ")
    assert r"\begin{tabular}{lrrrrrl}" in table_text(rows, ".tex")
