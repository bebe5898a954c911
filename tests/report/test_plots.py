"""The figure shows the rows: values, bands, best layers, names; and the same rows give the same bytes."""

import re
from pathlib import Path

import numpy as np
import pytest
from pytest import approx

from hcl_cli.errors import BadOption
from hcl_cli.report.plots import COLOURS, layer_figure, write_figure
from hcl_cli.schemas import LAYERS


def layer(exit_layer, hcb, *, best=False, in_set=False, model="lab", known=True):
    row = dict.fromkeys(LAYERS.columns) | {"model": model, "exit_layer": exit_layer, "n_questions": 9, "is_best": best}
    if known:
        for name, value in (("hallucination_rate", 1 - hcb), ("creativity_raw", 4 * hcb), ("hcb", hcb)):
            row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
    return row | {"in_best_set": in_set or best}


LAB = [layer(2, 0.3), layer(4, 0.8, best=True), layer(6, 0.7, in_set=True)]
OTHER = [layer(1, 0.2, model="$a_b^"), layer(3, 0.6, best=True, model="$a_b^")]
FORMULA = {"statistic": "formula", "sentence": "HCB = 0.3 x creativity"}


def lines(axis):
    return [line for line in axis.get_lines() if len(line.get_xdata()) > 1]


def test_curves_and_bands_are_the_rows():
    hallucination, creativity, hcb = layer_figure(LAB).axes
    for axis, values in ((hallucination, [0.7, 0.2, 0.3]), (creativity, [1.2, 3.2, 2.8]), (hcb, [0.3, 0.8, 0.7])):
        (curve,) = lines(axis)
        assert list(curve.get_xdata()) == [2, 4, 6]
        assert list(curve.get_ydata()) == approx(values)
        (band,) = axis.collections
        corners = band.get_paths()[0].vertices
        for x, y in zip([2, 4, 6], values, strict=True):
            at = corners[corners[:, 0] == x][:, 1]
            assert [at.min(), at.max()] == approx([y - 0.1, y + 0.1])
    assert [axis.get_title(loc="left") for axis in (hallucination, creativity, hcb)] == [
        "Hallucination rate", "Creativity", "HCB",
    ]  # fmt: skip


def test_the_best_layer_is_starred_and_its_set_filled():
    points = {
        line.get_xdata()[0]: (line.get_marker(), line.get_markerfacecolor())
        for line in layer_figure(LAB).axes[2].get_lines()
        if len(line.get_xdata()) == 1
    }
    assert points == {2: ("o", "white"), 4: ("*", COLOURS[0]), 6: ("o", COLOURS[0])}


def test_curves_of_unlike_depth_share_a_relative_axis():
    axis = layer_figure(LAB + OTHER).axes[0]
    assert axis.get_xlabel() == "exit layer / deepest exit layer"
    assert [list(line.get_xdata()) for line in lines(axis)] == [approx([1 / 3, 2 / 3, 1]), approx([1 / 3, 1])]
    assert layer_figure(LAB).axes[0].get_xlabel() == "exit layer"


def test_names_and_formula_are_shown_as_they_are(tmp_path: Path):
    write_figure(LAB + OTHER, tmp_path / "f.svg", [FORMULA])
    comments = re.findall(r"<!-- (.*?) -->", (tmp_path / "f.svg").read_text())
    assert {"lab", "$a_b^", "HCB = 0.3 x creativity."} <= set(comments)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, ending):
    for name in "ab":
        write_figure(LAB, tmp_path / f"{name}.{ending}", [FORMULA])
    drawn = (tmp_path / f"a.{ending}").read_bytes()
    assert drawn == (tmp_path / f"b.{ending}").read_bytes()
    assert drawn.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    assert b"Date" not in drawn and b"dc:date" not in drawn


def test_unknown_scores_and_single_layers_are_drawn_without_warning(tmp_path: Path):
    write_figure([layer(1, 0, known=False)], tmp_path / "none.png")
    write_figure([layer(7, 0.5, best=True, model="模型")], tmp_path / "one.png")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert [len(axis.get_lines()) for axis in layer_figure([layer(1, 0, known=False)]).axes] == [0, 0, 0]


def test_many_curves_stay_distinct_and_inside_the_page():
    rows = [layer(k, 0.1 * k, best=k == 3, model=f"model {n}") for n in range(9) for k in (1, 2, 3)]
    figure = layer_figure(rows)
    looks = {(line.get_color(), line.get_linestyle()) for line in lines(figure.axes[0])}
    assert len(looks) == 9
    figure.draw_without_rendering()
    height = figure.get_figheight() * figure.dpi
    (legend,) = figure.legends
    assert 0 <= legend.get_window_extent().y0 and legend.get_window_extent().y1 <= height
    assert legend.get_window_extent().y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes) + 1


def test_long_names_stay_inside_the_page():
    """A bug: six names of sixty letters made three columns, and the right one was cut at the edge."""
    for name in ("an-organisation/a-model-with-a-very-long-name-and-instruct-tuning-", "W" * 90):
        rows = [layer(k, 0.1 * k, best=k == 2, in_set=True, model=f"{name}{n}") for n in range(6) for k in (1, 2, 3)]
        figure = layer_figure(rows)
        figure.draw_without_rendering()
        extent = figure.legends[0].get_window_extent()
        assert 0 <= extent.x0 and extent.x1 <= figure.bbox.width
        assert 0 <= extent.y0 and extent.y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes) + 1


def test_a_single_layer_has_one_whole_tick_and_an_unknown_panel_says_so():
    """A bug: one layer stood between ticks at 0.96 and 1.04; panels without a value were empty from 0 to 1."""
    figure = layer_figure([layer(7, 0.5, best=True) | {"hcb": None}])
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [7]
    said = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert said == [[], [], ["unknown"]]


@pytest.mark.parametrize("name", ["f.jpg", "f", "f.gif"])
def test_another_ending_is_refused_in_one_line(tmp_path: Path, name):
    with pytest.raises(BadOption, match=r"^--figure .*expected one of .png, .svg, .pdf$"):
        write_figure(LAB, tmp_path / name)


def test_colours_are_distinct_for_people_who_confuse_red_and_green():
    """Okabe and Ito's palette: under a simulated deuteranopia (Machado 2009) no two colours coincide."""
    matrix = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in COLOURS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = linear @ matrix.T
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(COLOURS), 1)]
    assert distances.min() > 0.1


def methods(**hcb):
    return [layer(10, value, best=value == max(hcb.values())) | {"method": name} for name, value in hcb.items()]


def test_methods_have_a_line_each_with_their_interval():
    figure = layer_figure(methods(vanilla=0.3, low=0.8, high=0.7))
    hallucination, _, hcb = figure.axes
    assert [label.get_text() for label in hallucination.get_yticklabels()] == ["vanilla", "low", "high"]
    points = {line.get_ydata()[0]: (line.get_xdata()[0], line.get_marker()) for line in hcb.get_lines()}
    assert points == {0: (0.3, "o"), 1: (0.8, "*"), 2: (0.7, "o")}
    ends = [collection.get_segments()[0] for collection in hcb.collections]
    assert [(left[0], right[0], left[1]) for left, right in ends] == [
        approx((0.2, 0.4, 0)), approx((0.7, 0.9, 1)), approx((0.6, 0.8, 2)),
    ]  # fmt: skip
    top, bottom = hcb.get_ylim()[::-1]
    assert top < 0 < 2 < bottom  # the first method is the topmost
    assert "best method by HCB" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_layers_and_methods_have_panels_of_their_own():
    figure = layer_figure(LAB + [row | {"strategy": "contrast"} for row in methods(vanilla=0.3, low=0.8)])
    assert len(figure.axes) == 6
    assert figure.axes[0].get_xlabel() == "exit layer" and figure.axes[3].get_xlabel() == ""
    assert "best layer or method by HCB" in [text.get_text() for text in figure.legends[0].get_texts()]
