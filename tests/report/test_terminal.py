"""The terminal table: what it says, that it fits, that names are not markup."""

import io

import pytest
from rich.console import Console

from hcl_cli.report.labels import curves_of, number, one_line, share, with_interval
from hcl_cli.report.terminal import layer_report


def layer(exit_layer, *, best=False, in_set=False, model="lab", creativity=2.0, **other):
    """One row of LAYERS."""
    row = {"model": model, "dataset": "lab", "strategy": "early-exit", "method": None, "temperature": 0.6}
    row |= {"top_p": 0.9, "source": None, "exit_layer": exit_layer, "n_questions": 100, "n_samples": 2000}
    row |= {"n_graded": 1990, "n_creativity_questions": 100, "relative_cost": exit_layer / 4}
    for name, value in (
        ("hallucination_rate", 0.25),
        ("creativity_raw", creativity),
        ("creativity", 0.5),
        ("hcb", 0.7),
    ):
        row |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    row |= {"confidence": None, "confidence_low": None, "confidence_high": None}
    return row | {"p_best": 0.71 if best else 0.29, "is_best": best, "in_best_set": in_set or best} | other


def finding(statistic, sentence, **key):
    row = dict.fromkeys(("model", "dataset", "strategy", "method", "temperature", "top_p", "source", "exit_layer"))
    return row | {"statistic": statistic, "estimate": 3.0, "n": 100, "sentence": sentence} | key


def shown(layers, findings=(), width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    for renderable in layer_report(layers, findings):
        console.print(renderable)
    return console.file.getvalue()


OF_LAB = {"model": "lab", "dataset": "lab", "strategy": "early-exit", "temperature": 0.6, "top_p": 0.9}


def test_a_row_tells_every_rate_with_its_interval_and_the_share_of_wins():
    lines = shown([layer(2), layer(3, best=True), layer(4, in_set=True)]).splitlines()
    rows = [line.split() for line in lines if "0.25 [0.20, 0.30]" in line]
    assert rows == [
        ["2", "0.25", "[0.20,", "0.30]", "2.00", "[1.95,", "2.05]", "0.70", "[0.65,", "0.75]", "29", "%"],
        ["★", "3", "0.25", "[0.20,", "0.30]", "2.00", "[1.95,", "2.05]", "0.70", "[0.65,", "0.75]", "71", "%"],
        ["≈", "4", "0.25", "[0.20,", "0.30]", "2.00", "[1.95,", "2.05]", "0.70", "[0.65,", "0.75]", "29", "%"],
    ]


def test_sentences_formula_and_counts_stand_below():
    text = shown(
        [layer(2), layer(3, best=True)],
        [
            finding("formula", "HCB = 0.3 x creativity"),
            finding("best_layer", "Layer 3 is best.", **OF_LAB),
            finding("best_layer", "Another curve's sentence.", **(OF_LAB | {"model": "other"})),
        ],
    )
    assert "Layer 3 is best." in text and "HCB = 0.3 x creativity" in text
    assert "100 questions, 2,000 responses per layer" in text
    assert "Another curve" not in text


@pytest.mark.parametrize("creativity", [0.0, 9.97, 12.0, 123.4])
def test_no_line_is_cut_at_80_columns(creativity):
    layers = [layer(n, best=n == 3, creativity=creativity, model="a" * 200) for n in range(1, 41)]
    text = shown(layers)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("0.70 [0.65, 0.75]") == 40


def test_a_wide_terminal_shows_more():
    text = shown([layer(2), layer(3, best=True)], width=120)
    assert "scaled" in text and "0.50 [0.45, 0.55]" in text and "Cost" in text


def test_names_are_not_markup_and_carry_no_control_characters():
    text = shown([layer(2, best=True, model="[red]x[/] \x1b[31m\n:smile:")])
    assert "[red]x[/]" in text and ":smile:" in text
    assert "\x1b" not in text


def test_unknown_is_a_dash_and_nothing_is_marked():
    unknown = dict.fromkeys(["hcb", "hcb_low", "hcb_high", "p_best", "is_best", "in_best_set", "creativity_raw_high"])
    text = shown([layer(2, creativity=2.0, **unknown)])
    assert "-" in text.split("0.25 [0.20, 0.30]")[1]
    assert "★" not in text and "None" not in text


def test_a_terminal_without_unicode_gets_ascii_marks():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    for renderable in layer_report([layer(2), layer(3, best=True), layer(4, in_set=True)]):
        console.print(renderable)
    stream.flush()
    marks = [line[0] for line in stream.buffer.getvalue().decode("ascii").splitlines() if "0.25 [0.20" in line]
    assert marks == [" ", "*", "~"]


def test_several_curves_are_told_apart_by_what_differs():
    layers = [layer(1, best=True), layer(1, best=True, model="other"), layer(1, best=True, temperature=1.0)]
    assert [curve.short for curve in curves_of(layers)] == ["lab, T 0.6", "other, T 0.6", "lab, T 1"]
    assert curves_of(layers)[1].name == "other, lab, early-exit, T 0.6, top-p 0.9"


def test_numbers_as_text():
    assert number(-0.001) == "0.00"
    assert number(None) == "-"
    assert with_interval({"hcb": 0.5, "hcb_low": None, "hcb_high": None}, "hcb") == "0.50"
    assert [share(x) for x in (0.0, 0.001, 0.71, 0.999, 1.0, None)] == ["0 %", "<1 %", "71 %", ">99 %", "100 %", "-"]
    assert one_line("a\nb\x07") == "a b\ufffd"


def methods(*names, **other):
    return [layer(10, method=name, strategy="contrast", best=name == names[-1], **other) for name in names]


def test_methods_are_the_rows_of_one_table():
    given = methods("vanilla", "dola-high@published", "dola-low")
    of_curve = OF_LAB | {"strategy": "contrast"}
    text = shown(given, [finding("best_method", "Method dola-low is best.", **of_curve)])
    lines = text.splitlines()
    assert lines[0] == "lab, lab, contrast, T 0.6, top-p 0.9"
    assert lines[1].split() == ["Method", "Hallucination", "Creativity", "HCB", "Wins"]
    assert [line.split()[0] for line in lines[3:6]] == ["vanilla", "dola-high", "@published"]
    assert lines[6].split()[:2] == ["★", "dola-low"]
    assert max(map(len, lines)) <= 80
    assert "Method dola-low is best." in text and "2,000 responses per method" in text
    assert "Cost" in shown(given, width=120)


def test_rows_of_one_method_at_several_layers_are_layers():
    lines = shown([layer(n, method="vanilla", strategy="contrast") for n in (2, 4)]).splitlines()
    assert lines[0] == "lab, lab, contrast, vanilla, T 0.6, top-p 0.9"
    assert lines[1].split()[0] == "Layer"


def test_a_method_name_is_not_markup_and_stays_in_its_line():
    (curve,) = curves_of(methods("[red]a[/red]\x1b[31m\nb", "vanilla"))
    assert curve.label(curve.layers[0]) == "[red]a[/red]\ufffd[31m b"
    assert "[red]" in shown(methods("[red]a[/red]", "vanilla"))
