"""Uncertainty and rejection on a terminal, in files and as a figure: the rows, nothing else."""

import csv
import io
import re
from pathlib import Path

import pytest
from planted_rejection import layer_row, rejection_rows, uncertainty_rows
from pytest import approx
from rich.console import Console

from hcl_cli.errors import BadOption
from hcl_cli.report.rejection_plots import rejection_figure, write_rejection_figure
from hcl_cli.report.rejection_tables import rejection_table_text, write_rejection_table
from hcl_cli.report.rejection_terminal import rejection_report
from hcl_cli.schemas import UNCERTAINTY

UNSURE = [*uncertainty_rows(2), *uncertainty_rows(4, 0.7)]
KEPT = [*rejection_rows(2), *rejection_rows(4, 0.4)]
LAYERS = [layer_row(2, is_best=True), layer_row(4)]
STRANGE = "[bold]$a_b^"


def shown(uncertainty=UNSURE, rejection=KEPT, width=80):
    console = Console(file=io.StringIO(), width=width)
    for renderable in rejection_report(uncertainty, rejection):
        console.print(renderable)
    return console.file.getvalue()


def test_eighty_columns_hold_every_number_of_a_layer():
    negative = {"auroc_lead": -0.12, "auroc_lead_low": -0.34, "auroc_lead_high": -0.01}
    lines = shown([*UNSURE, *(row | negative for row in uncertainty_rows(128))]).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["Exit", "SE", "AUROC", "Lead", "AURAC", "Discr.", "Answer"]
    (row,) = [line for line in lines if line.startswith("   2")]
    assert row.split(maxsplit=1)[1] == "1.00 0.80 [0.70, 0.90]   0.04 [-0.06, 0.14] 0.70 [0.60, 0.80]   0.78   0.74"
    # The widest there is.
    assert [line.split()[5:8] for line in lines if line.startswith(" 128")] == [["-0.12", "[-0.34,", "-0.01]"]]


def test_wide_terminals_also_get_predictive_entropy():
    lines = shown(width=110).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[1].split()[5:] == ["Predictive", "Discr.", "Answer"]
    assert [line.split()[-3:] for line in lines if line.startswith("   2")] == [["0.76", "0.78", "0.74"]]


def test_what_rejecting_half_gains_at_the_last_layer_is_said_either_way():
    text = shown(width=250)
    assert (
        "At layer 4, keeping the 50 questions of lowest semantic entropy raises accuracy from 0.40 [0.30, 0.45] to "
        "0.60 [0.50, 0.65]." in text
    )
    flat = [row | {"accuracy": 0.3, "accuracy_low": 0.2, "accuracy_high": 0.4} for row in KEPT]
    assert "does not raise accuracy: 0.30 [0.20, 0.40] against 0.30 [0.20, 0.40]." in shown(rejection=flat, width=250)


def test_what_is_unknown_is_a_dash_and_is_said_with_the_reason():
    lost = {"n_questions": 0, "n_questions_left_out": 9, "n_answers": 0}
    text = shown(uncertainty_rows(1, known=(), **lost), [], width=300)
    assert re.search(r"^ +1( +-)+$", text, flags=re.MULTILINE)
    assert "No question has graded answers and two or more samples with a meaning at every layer" in text
    text = shown(uncertainty_rows(1, n_questions_left_out=3), KEPT, width=300)
    assert "100 questions, 500 answers per layer; 3 questions left out for want of two samples with" in text
    only = ("semantic_entropy_discrete",)
    text = shown(uncertainty_rows(1, known=only), rejection_rows(1, known=only), width=300)
    assert "no likelihoods (mean_logprob), so only the discrete semantic entropy is known." in text
    assert re.search(r"^ +1 2\.00 0\.78 \[0\.68, 0\.88\] +- 0\.68 \[0\.58, 0\.78\] +- +0\.78 +-$", text, re.MULTILINE)
    assert "At layer 1, keeping the 50 questions" in text


def test_names_are_no_markup():
    strange = uncertainty_rows(1, model=STRANGE)
    assert f"Uncertainty: {STRANGE}" in shown(strange, [])
    assert r"\[bold\]\$a\_b^" in rejection_table_text(strange, [], ".md")
    assert r"[bold]\$a\_b\textasciicircum{}" in rejection_table_text(strange, [], ".tex")


def test_csv_holds_every_column_unrounded():
    rows = list(csv.DictReader(io.StringIO(rejection_table_text(UNSURE, KEPT, ".csv"))))
    assert list(rows[0]) == list(UNCERTAINTY.columns)
    assert [float(row["auroc"]) for row in rows] == [row["auroc"] for row in UNSURE]
    assert rows[2]["auroc_lead"] == ""


@pytest.mark.parametrize("ending", [".md", ".tex"])
def test_a_table_per_curve_with_every_measure_and_the_accuracy_at_four_shares(ending):
    other = uncertainty_rows(3, model="n")
    text = rejection_table_text([*UNSURE, *other], KEPT, ending).replace("\\[", "[").replace("\\]", "]")
    assert text.count("Mean, nats") == 2
    assert text.replace("\\", "").count("Accuracy, 50 % kept") == 2
    (row,) = [line for line in text.splitlines() if re.match(r"(\| )?4 .*discrete", line)]
    values = re.findall(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", row)
    accuracies = [0.4 + (1 - share) * 0.35 for share in (0.25, 0.5, 0.75, 1.0)]
    expected = [(0.68, 0.58, 0.78), (0.02, -0.08, 0.12), (0.58, 0.48, 0.68)]
    expected += [(one, one - 0.1, one + 0.05) for one in accuracies]
    assert [tuple(map(float, cell)) for cell in values] == [approx(one, abs=0.0051) for one in expected]
    assert text.rstrip().endswith("intervals over questions.")


def lines_of(axis):
    return {line.get_color(): list(line.get_ydata()) for line in axis.get_lines() if len(line.get_xdata()) > 2}


def test_the_panels_are_the_rows_of_the_best_a_middle_and_the_last_layer():
    layers = [layer_row(one, is_best=one == 4) for one in range(1, 8)]
    kept = [row for one in range(1, 8) for row in rejection_rows(one, one / 20)]
    figure = rejection_figure(kept, layers)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.axison]
    assert titles == ["layer 4 (best HCB)", "layer 7 (last)"]  # the middle is the best
    layers = [row | {"is_best": row["exit_layer"] == 2} for row in layers]
    figure = rejection_figure(kept, layers)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["layer 2 (best HCB)", "layer 4 (middle)", "layer 7 (last)"]
    for axis, layer in zip(figure.axes, (2, 4, 7), strict=True):
        rows = rejection_rows(layer, layer / 20)
        by_measure = [[row["accuracy"] for row in rows[start : start + 5]] for start in (0, 5, 10, 15)]
        assert list(lines_of(axis).values()) == by_measure
        (band,) = axis.collections
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (
            approx(min(row["accuracy_low"] for row in rows[:5])), approx(max(row["accuracy_high"] for row in rows[:5])),
        )  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "semantic entropy", "discrete semantic entropy", "predictive entropy", "the answer's own mean log-probability",
    ]  # fmt: skip


def test_every_curve_has_a_row_of_panels_and_methods_are_named():
    methods = [
        layer_row(10, method=name, strategy="contrast", is_best=name == "b") for name in ("vanilla", "a", "b", "c")
    ]
    kept = [row for one in methods for row in rejection_rows(10, method=one["method"], strategy="contrast")]
    figure = rejection_figure([*KEPT, *kept], [*LAYERS, *methods])
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.axison]
    assert titles == ["layer 2 (best HCB)", "layer 4 (last)", "b (best HCB)", "vanilla", "a"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_rows_give_the_same_bytes_also_where_nothing_is_known(tmp_path: Path, ending):
    layers = [*LAYERS, layer_row(1, model="n")]
    for name in "ab":
        write_rejection_figure(KEPT, layers, tmp_path / f"{name}.{ending}")
    drawn = (tmp_path / f"a.{ending}").read_bytes()
    assert drawn == (tmp_path / f"b.{ending}").read_bytes()
    assert drawn.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])


def test_a_layer_without_rows_is_unknown_and_no_interval_is_no_band():
    figure = rejection_figure([], [layer_row(3)])
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["unknown"]
    bare = [row | {"accuracy_low": None, "accuracy_high": None} for row in KEPT]
    assert all(not axis.collections for axis in rejection_figure(bare, LAYERS).axes)


def test_other_endings_are_refused(tmp_path: Path):
    with pytest.raises(BadOption, match="expected one of .png, .svg, .pdf"):
        write_rejection_figure(KEPT, LAYERS, tmp_path / "f.gif")
    with pytest.raises(BadOption, match=r"--rejection-table: the ending '.txt' is not known"):
        write_rejection_table(UNSURE, KEPT, tmp_path / "t.txt")
    assert not list(tmp_path.iterdir())
