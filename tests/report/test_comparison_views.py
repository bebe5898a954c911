"""Tests, power and published claims on a terminal and in files: the rows, nothing else."""

import csv
import io

import pytest
from rich.console import Console
from test_terminal import OF_LAB, finding, layer

from hcl_cli.errors import BadOption
from hcl_cli.report.comparison_tables import comparison_table_text, power_table_text
from hcl_cli.report.comparison_terminal import comparison_report
from hcl_cli.report.findings_tables import claims, claims_markdown
from hcl_cli.report.power_terminal import power_report
from hcl_cli.report.tables import table_text
from hcl_cli.report.terminal import layer_report
from hcl_cli.schemas import COMPARISONS, POWER

CURVE = {"model": "lab", "dataset": "lab", "strategy": "early-exit", "temperature": 0.6, "top_p": 0.9}
METRICS = ("hallucination_rate", "creativity_raw", "hcb")


def comparison(kind, one, other, metric, *, difference=-0.123, half=0.08, p=0.0004, **more):
    row = dict.fromkeys(COMPARISONS.columns) | CURVE
    row |= {"kind": kind, "exit_layer": one, "other_exit_layer": other, "metric": metric, "n_questions": 1234}
    row |= {"value": 0.5, "other_value": 0.5 - difference, "difference": difference, "p_adjusted": p, "note": None}
    row |= {"p_permutation": None if kind == "best" else p / 2, "p_bootstrap": p, "correction": "max-T over 9 pairs"}
    for name, width in (("difference", half / 2), ("band", half)):
        row |= {f"{name}_low": difference - width, f"{name}_high": difference + width}
    return row | more


def family(kind, n_layers=10, **more):
    pairs = [(k, 10) if kind == "reference" else (7, k) for k in range(1, n_layers)]
    return [comparison(kind, one, other, metric, **more) for one, other in pairs for metric in METRICS]


def between(**more):
    return [
        comparison(kind, one, other, metric, other_model="base", correction="Holm over 1", p_bootstrap=0.5, **more)
        for kind, one, other in (("models_at_best", 7, 10), ("models_at_last", 10, 10))
        for metric in ("hallucination_rate", "creativity_raw", "hcb_common")
    ]


def power(kind, one, other, metric="hcb", n=20, **more):
    row = dict.fromkeys(POWER.columns) | CURVE
    row |= {"kind": kind, "exit_layer": one, "other_exit_layer": other, "metric": metric, "n_samples": n}
    row |= {"is_present": n == 20, "difference": -0.0213, "n_questions": 442, "questions_80": 2211}
    row |= {"questions_90": 2900, "questions_80_corrected": 4742, "questions_90_corrected": 6000}
    return row | {"detectable_80": 0.157, "detectable_80_corrected": 0.2} | more


POWERS = [
    *(power("neighbours", k, k + 1, metric) for k in range(1, 4) for metric in METRICS),
    *(power("best_reference", 8, 10, "hallucination_rate", n) for n in (1, 5, 10, 20, 50)),
    power("best_second", 8, 7),
]


def shown(renderables, width=80):
    console = Console(file=io.StringIO(), width=width)
    for renderable in renderables:
        console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("rows", [family("reference"), family("best"), between(), family("pair")])
def test_eighty_columns_hold_the_tests(rows):
    lines = shown(comparison_report(rows)).splitlines()
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert sum("-0.12 [-0." in line for line in lines) == (6 if rows[0]["other_model"] else 9)


def test_a_row_is_a_layer_with_stars_for_the_corrected_p_value():
    text = shown(comparison_report([*family("reference"), *family("best", p=0.03)]))
    assert "early-exit, T 0.6, top-p 0.9: each layer minus the last, 10" in " ".join(text.split())
    assert "the best layer, 7, minus each other" in " ".join(text.split())
    rows = [line.split() for line in text.splitlines() if line.split()[:1] == ["3"]]
    assert rows[0] == ["3", *["-0.12", "[-0.20,", "-0.04]", "***"] * 3]
    assert rows[1] == ["3", *["-0.12", "[-0.20,", "-0.04]", "*"] * 3]
    assert "1,234 questions; max-T over 9 pairs" in text


def test_wide_terminals_print_the_corrected_p_value():
    text = shown(comparison_report(family("reference", p=0.0123)), 120)
    assert " ".join(text.split()).count("-0.04] .012") == 27 and "*" not in text


def test_many_clusters_are_told_with_one_decimal():
    rows = family("reference", difference=-12.3, half=3.0)
    lines = shown(comparison_report([row for row in rows if row["metric"] == "creativity_raw"])).splitlines()
    assert any("-12.3 [-15.3, -9.3]" in line for line in lines) and max(map(len, lines)) <= 80


def test_models_are_told_with_the_test_that_there_is():
    text = shown(comparison_report(between()))
    assert "Compared: lab against base (lab, early-exit, T 0.6, top-p 0.9)" in text
    assert "best 7, 10" in text and "last 10, 10" in text and "HCB, common" in text
    assert ".500b" not in text and "b: from the bootstrap" not in text
    text = shown(comparison_report(between(p_permutation=None)))
    assert ".500b" in text and "unlike numbers of layers" in text


def test_what_was_not_compared_is_said_and_nothing_to_compare_too():
    note = comparison("models_at_last", None, None, None, other_model="base", note="they share no question")
    assert "lab against base: not compared, they share no question." in shown(comparison_report([note]))
    assert "Nothing to compare" in shown(comparison_report([]))


def test_methods_and_names_are_no_markup():
    rows = [comparison("reference", 10, 10, m, method="[bold]x|y", other_method="vanilla") for m in METRICS]
    text = shown(comparison_report(rows), 120)
    assert "each method minus vanilla" in text and "[bold]x|y" in text
    assert "[bold]x\\|y".replace("[", "\\[").replace("]", "\\]") in comparison_table_text(rows, ".md")


def test_comparisons_as_files():
    rows = [*family("reference"), *family("best"), *between()]
    text = comparison_table_text(rows, ".md")
    assert text.count("| Layer | Metric |") == 2 and text.count("| Layers | Metric |") == 1
    line = next(line for line in text.splitlines() if line.startswith("| 1 | Hallucination"))
    assert line.replace("\\", "") == (
        "| 1 | Hallucination | 0.50 | 0.62 | -0.12 [-0.16, -0.08] | [-0.20, -0.04] | <.001 | **<.001** | <.001 |"
    ).replace("<", "&lt;")
    assert "\\begin{tabular}{llrrrrrrr}" in comparison_table_text(rows, ".tex")
    read = list(csv.DictReader(io.StringIO(comparison_table_text(rows, ".csv"))))
    assert len(read) == len(rows) and read[0]["difference"] == "-0.123" and list(read[0]) == list(COMPARISONS.columns)
    with pytest.raises(BadOption, match="ending"):
        comparison_table_text(rows, ".txt")


def test_eighty_columns_hold_the_power_and_the_best_layer_comes_first():
    lines = shown(power_report(POWERS)).splitlines()
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    named = [line.split("  ")[0] for line in lines if " - " in line]
    assert named[:3] == ["8 - 10, last", "8 - 7, second", "1 - 2"]
    (of_second,) = [line.split() for line in lines if line.startswith("8 - 7, second")]
    assert of_second[-5:] == ["HCB", "-0.021", "2,211", "4,742", "0.157"]
    assert "442 questions, 20 samples of each per layer" in lines
    assert any(
        line.split() == ["Pair", "Metric", "n", "=", *" n = ".join(["1", "5", "10", "20", "50"]).split()]
        for line in lines
    )
    assert "No power can be told" in shown(power_report([]))


def test_power_as_files():
    text = power_table_text(POWERS, ".md")
    assert "| 8 - 10, last | Hallucination | -0.021 | **20** | 2,211 | 2,900 | 4,742 | 6,000 | 0.157 | 0.200 |" in text
    assert "\\begin{tabular}" in power_table_text(POWERS, ".tex")
    assert len(list(csv.reader(io.StringIO(power_table_text(POWERS, ".csv"))))) == len(POWERS) + 1
    never = power_table_text([power("neighbours", 1, 2, questions_80=None, questions_90=10**9)], ".md")
    assert "| - | &gt;10 million |" in never


OTHER = OF_LAB | {"model": "base"}
FINDINGS = [
    finding("correlation_over_layers", "-", estimate=0.5, low=0.4, high=0.6, published="More creative [paper]"),
    finding("creativity_hallucination_correlation", "-", estimate=-0.75, low=-0.82, high=-0.67, **OF_LAB),
    finding("best_layer", "-", estimate=3.0, low=2.0, high=3.0, published="not the last [paper]", **OF_LAB),
    finding("best_minus_last", "-", estimate=0.2, low=0.1, high=0.3, p_value=0.0001, **OF_LAB),
    finding("best_minus_last", "-", estimate=0.0, low=None, high=None, p_value=1.0, **OTHER),
    finding("best_depth", "-", estimate=0.8, low=0.7, high=0.9),
    finding("best_depth_of_model", "-", estimate=0.75, low=None, high=None, model="lab"),
    finding("best_exit_saves", "-", estimate=0.02, low=-0.01, high=0.05, **OF_LAB | {"exit_layer": 3}),
]
LAYERS = [layer(n, best=n == 3, model=model) for model in ("lab", "base") for n in (2, 3, 4)]


def test_findings_stand_beside_what_is_published():
    found = {claim.name: claim for claim in claims(LAYERS, FINDINGS)}
    over_layers = found["creativity and hallucination over layers, r"]
    assert over_layers.measured == ["mean +0.50 [0.40, 0.60]", "lab: -0.75 [-0.82, -0.67]"]
    assert over_layers.published == "More creative [paper]"
    assert found["best layer"].measured == ["lab: 3 [2, 3]"]
    lead = found["HCB of the best layer less that of the last"].measured
    assert lead == ["lab: +0.20 [0.10, 0.30], p < 0.001", "base: 0.00, p = 1.000"]
    assert found["relative depth of the best layer"].measured == ["mean 0.80 [0.70, 0.90]", "lab: 0.75"]
    saved = found["what the best exit saves"]
    assert saved.measured == ["lab: exit 3 costs 75 %, hallucination +0.02 [-0.01, 0.05]"] and saved.published == ""
    assert claims(LAYERS, []) == [] and claims_markdown(LAYERS, []) == ""


def test_the_claims_are_shown_for_several_curves_and_in_every_markdown_table():
    several = shown(layer_report(LAYERS, FINDINGS))
    assert "Findings beside the published claims" in several and max(map(len, several.splitlines())) <= 80
    alone = shown(layer_report(LAYERS[:3], FINDINGS))
    assert "Findings beside" not in alone
    text = table_text(LAYERS[:3], ".md", FINDINGS)
    assert "| best layer | 3 \\[2, 3\\] | not the last \\[paper\\] |" in text
    assert "Findings beside" not in table_text(LAYERS[:3], ".tex", FINDINGS)
