"""What a judge says of methods and layers, on a terminal: in per cent, with intervals, names never markup."""

import io

from rich.console import Console

from hcl_cli.report.judged_terminal import judged_report


def row(metric="true", value=0.5, **other):
    """One row of JUDGED."""
    found = {"model": "lab", "dataset": "truthfulqa", "strategy": "contrast", "method": "vanilla", "temperature": 0.0}
    found |= {"top_p": 1.0, "exit_layer": 10, "judge": "llm_truth", "metric": metric, "value": value}
    found |= {"value_low": 0.25, "value_high": 0.75, "baseline": None, "difference": None, "difference_low": None}
    found |= {"difference_high": None, "n_questions": 817, "n_paired": None, "n_responses": 817, "n_judged": 817}
    return found | {"asked_model": "judge", "reported_model": "judge-2"} | other


def shown(*rows, width=80):
    console = Console(file=io.StringIO(), width=width)
    for renderable in judged_report(rows):
        console.print(renderable)
    return console.file.getvalue()


def test_methods_stand_beside_vanilla():
    better = row(method="dola-low", value=0.625, baseline="vanilla", difference=0.125, difference_low=-0.01,
                 difference_high=0.26)  # fmt: skip
    lines = [line.split() for line in shown(row(), better).splitlines()]
    assert ["%Truth,", "llm_truth"] in lines
    assert ["vanilla", "50.0", "[25.0,", "75.0]", "817"] in lines
    assert ["dola-low", "62.5", "[25.0,", "75.0]", "12.5", "[-1.0,", "26.0]", "817"] in lines
    assert "minus vanilla" in shown(row(), better) and "minus" not in shown(row())
    assert "judged by judge, reported as judge-2" in shown(row())


def test_layers_of_one_curve_and_rows_without_any_name():
    layers = [row(method=None, exit_layer=layer, metric=metric) for layer in (4, 2) for metric in ("correct", "f1")]
    text = shown(*layers)
    assert text.index("layer 2") < text.index("layer 4") < text.index("F1 of the two, x 100")
    bare = row(**dict.fromkeys(("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer")))
    assert ["all", "50.0", "[25.0,", "75.0]", "817"] in [line.split() for line in shown(bare).splitlines()]


def test_what_is_unknown_is_a_dash_and_names_are_no_markup():
    text = shown(row(value=None, value_low=None, value_high=None, n_questions=0), row(method="[red]x[/red]"))
    assert ["vanilla", "-", "0"] in [line.split() for line in text.splitlines()] and "[red]x[/red]" in text
    assert max(map(len, text.splitlines())) <= 80
    assert shown() == ""
