"""The calibration of layers on a terminal, in files and as a figure: the rows, nothing else."""

import csv
import io
import re
from pathlib import Path

import pytest
from planted_calibration import NUMBERS, calibration_row
from pytest import approx
from rich.console import Console

from hcl_cli.errors import BadOption
from hcl_cli.report.calibration_plots import calibration_figure, write_calibration_figure
from hcl_cli.report.calibration_tables import calibration_table_text, write_calibration_table
from hcl_cli.report.calibration_terminal import calibration_report
from hcl_cli.schemas import LAYER_CALIBRATION

ROWS = [calibration_row(2), calibration_row(4, 0.6)]
OTHER = [calibration_row(1, 0.3, model="[bold]$a_b^"), calibration_row(3, 0.4, model="[bold]$a_b^")]


def shown(rows, width=80):
    console = Console(file=io.StringIO(), width=width)
    for renderable in calibration_report(rows):
        console.print(renderable)
    return console.file.getvalue()


def test_eighty_columns_hold_the_four_numbers_with_their_intervals():
    lines = shown(ROWS).splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if line.startswith("   2")]
    expected = ["0.51 [0.41, 0.61]", "0.52 [0.42, 0.62]", "0.53 [0.43, 0.63]", "0.55 [0.45, 0.65]"]
    assert re.findall(r"[\d.]+ \[.*?\]", row) == expected
    assert lines[1].split() == ["Exit", "Accuracy@50", "Coverage@50", "ECE", "Brier"]
    assert "Confidence of an answer: exp(mean_logprob). 100 questions, 500 answers per layer." in shown(ROWS, 200)


def test_wide_terminals_also_get_accuracy_confidence_and_auroc():
    lines = shown(ROWS, 110).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[1].split()[-3:] == ["Accuracy", "Confidence", "AUROC"]
    assert [line.split()[-3:] for line in lines if line.startswith("   2")] == [["0.50", "0.57", "0.56"]]


def test_what_is_unknown_is_a_dash_and_what_was_left_out_is_said():
    lost = {"n_questions_left_out": 3, "n_questions": 1, "n_answers": 1}
    rows = [calibration_row(1, known=False, n_answers_left_out=20, **lost)]
    rows.append(calibration_row(2, n_answers_left_out=1_040, **lost))
    text = shown(rows, 250)
    assert re.search(r"^ +1( +-)+$", text, flags=re.MULTILINE)
    assert (
        "1 question, 1 answer per layer; left out for want of a verdict or a confidence (at every layer): "
        "3 questions, 20 to 1,040 responses per layer." in text
    )


def test_names_are_no_markup():
    assert "Calibration: [bold]$a_b^" in shown(OTHER)
    assert r"\[bold\]\$a\_b^" in calibration_table_text(OTHER, ".md")
    assert r"[bold]\$a\_b\textasciicircum{}" in calibration_table_text(OTHER, ".tex")


def test_csv_holds_every_column_unrounded():
    first, second = csv.DictReader(io.StringIO(calibration_table_text(ROWS, ".csv")))
    assert list(first) == list(LAYER_CALIBRATION.columns)
    assert {name: float(second[name]) for name in NUMBERS} == {name: ROWS[1][name] for name in NUMBERS}
    assert first["temperature"] == ""


@pytest.mark.parametrize("ending", [".md", ".tex"])
def test_a_table_per_curve_with_every_number_and_its_interval(ending):
    text = calibration_table_text(ROWS + OTHER, ending).replace("\\[", "[").replace("\\]", "]")
    assert text.count("Accuracy@50 ") == 2
    (row,) = [line for line in text.splitlines() if re.match(r"(\| )?4 ", line)]
    values = re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", row)
    columns = [ROWS[1][name] for name in NUMBERS]
    assert [tuple(map(float, cell)) for cell in values] == [approx((v, v - 0.1, v + 0.1)) for v in columns]
    assert text.rstrip().endswith("intervals over questions.")


def lines_of(axis):
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()]


def test_the_four_panels_are_the_rows():
    figure = calibration_figure(ROWS)
    titles = ("Accuracy@50", "Coverage@50", "ECE", "Brier")
    names = ("accuracy_at_50", "coverage_at_50", "ece", "brier")
    for axis, title, name in zip(figure.axes, titles, names, strict=True):
        assert axis.get_title(loc="left") == title
        assert lines_of(axis) == [([2, 4], [row[name] for row in ROWS])]
        (band,) = axis.collections
        corners = band.get_paths()[0].vertices
        for row in ROWS:
            ends = corners[corners[:, 0] == row["exit_layer"]][:, 1]
            assert [ends.min(), ends.max()] == approx([row[f"{name}_low"], row[f"{name}_high"]])


def test_curves_of_unlike_depth_share_a_relative_axis_and_a_legend():
    figure = calibration_figure(ROWS + OTHER)
    assert figure.axes[2].get_xlabel() == "exit layer / deepest exit layer"
    assert [x for x, _ in lines_of(figure.axes[0])] == [approx([1 / 2, 1]), approx([1 / 3, 1])]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lab", "[bold]$a_b^"]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_rows_give_the_same_bytes_also_where_nothing_is_known(tmp_path: Path, ending):
    rows = [*ROWS, calibration_row(6, known=False), calibration_row(1, known=False, model="n")]
    for name in "ab":
        write_calibration_figure(rows, tmp_path / f"{name}.{ending}")
    drawn = (tmp_path / f"a.{ending}").read_bytes()
    assert drawn == (tmp_path / f"b.{ending}").read_bytes()
    assert drawn.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])


def test_one_layer_and_unknown_panels_are_drawn():
    single = calibration_figure([calibration_row(3)])
    assert len(single.axes[0].collections) == 1
    unknown = calibration_figure([calibration_row(3, known=False)])
    assert [text.get_text() for axis in unknown.axes for text in axis.texts] == ["unknown"] * 4


METHODS = [
    calibration_row(10, value, method=method, strategy="contrast", n_questions_left_out=2)
    for value, method in ((0.3, "vanilla"), (0.4, "dola-high@published"))
]


def test_decoding_methods_stand_where_layers_do():
    lines = shown(METHODS).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[0] == "Method"
    (row,) = [line for line in lines if line.startswith("vanilla")]
    assert row.split()[1:5] == ["0.31", "[0.21,", "0.41]", "0.32"]  # coverage@50 without its interval: no room
    assert "0.32 [0.22, 0.42]" in shown(METHODS, 120)
    assert "500 answers per method; left out for want of a verdict or a confidence (under every method): 2" in (
        shown(METHODS, 300)
    )
    for ending, name in ((".md", "dola-high@published"), (".tex", "dola-high@published")):
        text = calibration_table_text(METHODS, ending)
        assert "Method" in text and name in text and "Layer " not in text


def test_methods_have_panels_of_their_own_beside_those_of_layers():
    figure = calibration_figure(METHODS)
    assert len(figure.axes) == 4
    for axis, name in zip(figure.axes, ("accuracy_at_50", "coverage_at_50", "ece", "brier"), strict=True):
        assert lines_of(axis) == [([row[name]], [place]) for place, row in enumerate(METHODS)]
        spans = [band.get_segments()[0] for band in axis.collections]
        assert [list(span[:, 0]) for span in spans] == [[row[f"{name}_low"], row[f"{name}_high"]] for row in METHODS]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["vanilla", "dola-high@published"]
    both = calibration_figure(ROWS + METHODS)
    assert [axis.get_title(loc="left") for axis in both.axes] == ["Accuracy@50", "Coverage@50", "ECE", "Brier"] * 2


def test_other_endings_are_refused(tmp_path: Path):
    with pytest.raises(BadOption, match="expected one of .png, .svg, .pdf"):
        write_calibration_figure(ROWS, tmp_path / "f.gif")
    with pytest.raises(BadOption, match=r"--calibration-table: the ending '.txt' is not known"):
        write_calibration_table(ROWS, tmp_path / "t.txt")
    assert not list(tmp_path.iterdir())
