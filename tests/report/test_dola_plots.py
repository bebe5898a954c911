"""The figure of `hcl dola` shows the rows: shares of chosen layers, and differences with their intervals."""

from pathlib import Path

import pytest
from matplotlib.text import Text
from planted_dola import choice, chosen, compared, settings, study
from pytest import approx

from hcl_cli.errors import BadOption
from hcl_cli.report.dola_plots import _look, dola_figure, write_dola_figure
from hcl_cli.report.drawing import COLOURS

LOW = chosen("dola-low", [0, 2, 4], ("all tokens", "number"))


def panels(figure):
    return {axis.get_title(loc="left").replace("\n", " "): axis for axis in figure.axes if axis.get_title(loc="left")}


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def note(figure):
    return " ".join(figure.texts[-1].get_text().split())


def test_a_map_holds_the_shares_with_layers_and_kinds_named():
    axis = panels(dola_figure(LOW, []))["Layers chosen by dola-low"]
    cells = axis.images[0].get_array()
    assert cells.shape == (2, 3)
    for row in LOW:
        at = ["all tokens", "number"].index(row["token_kind"]), [0, 2, 4].index(row["exit_layer"])
        assert cells[at] == approx(row["share"])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "2", "4"]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["all tokens (400)", "number (400)"]
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axis.texts}
    assert written == {
        (kind, layer): f"{cells[kind, layer]:.2f}"[1:] for kind in range(2) for layer in range(3)
        if cells[kind, layer] >= 0.005
    }  # fmt: skip


def test_layers_that_were_never_chosen_are_shown_where_the_candidates_are_known():
    axis = panels(dola_figure(LOW, [], [settings("dola-low", (0, 1, 2, 3, 4))]))["Layers chosen by dola-low"]
    cells = axis.images[0].get_array()
    assert cells.shape == (2, 5) and cells[:, [1, 3]].max() == 0 and list(cells.sum(axis=1)) == approx([1, 1])


def test_one_scale_for_all_maps_and_no_map_where_nothing_is_chosen():
    rows = [*LOW, *chosen("dola-high", [6], ("all tokens",)), *chosen("static:4", [4]), *chosen("s", [4])]
    found = panels(dola_figure(rows, [], [settings("s", (4,))]))
    assert list(found) == ["Layers chosen by dola-low", "Layers chosen by dola-high"]
    assert {axis.images[0].get_clim() for axis in found.values()} == {(0.0, 1.0)}
    (alone,) = panels(dola_figure(LOW, [])).values()
    highest = max(row["share"] for row in LOW)
    assert highest <= alone.images[0].get_clim()[1] <= highest + 0.1


def test_differences_and_their_intervals_are_the_rows():
    rows = [
        compared("vanilla"), compared("x", difference=0.1), compared("y", difference=-0.01),
        compared("vanilla", "exact"), compared("x", "exact", difference=-0.1),
    ]  # fmt: skip
    axis = panels(dola_figure([], rows))["Text metrics: difference to vanilla"]
    points = [line for line in axis.get_lines() if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_color(), line.get_markerfacecolor()) for line in points] == [
        (0.1, COLOURS[0], COLOURS[0]), (-0.01, COLOURS[1], "white"), (-0.1, COLOURS[0], COLOURS[0])
    ]  # fmt: skip
    bars = [bar.get_segments()[0] for bar in axis.collections]
    assert [list(bar[:, 0]) for bar in bars] == [approx([0.08, 0.12]), approx([-0.03, 0.01]), approx([-0.12, -0.08])]
    assert [bar[0, 1] for bar in bars] == [line.get_ydata()[0] for line in points]
    assert [text.get_text() for text in axis.texts] == [
        "+0.100 [+0.080, +0.120]", "-0.010 [-0.030, +0.010]", "-0.100 [-0.120, -0.080]"
    ]  # fmt: skip
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["BLEU, best answer", "exact match, best answer"]
    assert labels(dola_figure([], rows)) == ["x", "y"]


def test_multiple_choice_has_a_panel_of_its_own_and_a_warning():
    figure = dola_figure([], study())
    assert list(panels(figure)) == ["Text metrics: difference to vanilla", "Multiple choice: difference to vanilla"]
    names = [tick.get_text().replace("\n", " ") for tick in list(panels(figure).values())[1].get_yticklabels()]
    assert names[:2] == ["MC1, without constraint, not normalised", "MC1, with constraint, not normalised"]
    assert note(figure).endswith("seen only without the plausibility constraint may be an artefact.")
    assert "artefact" not in note(dola_figure([], [choice("x", difference=0.1, constrained=True)]))


def test_several_datasets_are_named_in_the_titles_and_methods_look_the_same():
    rows = [
        compared("y", difference=0.1),
        compared("x", difference=0.1, dataset="e"),
        compared("y", difference=0, dataset="e"),
    ]
    figure = dola_figure(LOW, rows)
    assert list(panels(figure)) == [
        "lab, d: Layers chosen by dola-low", "lab, d: Text metrics: difference to vanilla",
        "lab, e: Text metrics: difference to vanilla",
    ]  # fmt: skip
    marks = [line.get_color() for line in list(panels(figure).values())[2].get_lines() if len(line.get_xdata()) == 1]
    assert marks == [COLOURS[1], COLOURS[0]]
    assert dola_figure(LOW, rows[:1]).get_suptitle() == "lab, d"


def test_many_methods_have_distinct_looks():
    assert len({tuple(_look(at).values()) for at in range(21)}) == 21


def test_nothing_and_unknown_intervals_are_drawn_as_such():
    assert [text.get_text() for text in dola_figure([], []).texts][0].startswith("no layers chosen and nothing")
    row = compared("x", difference=0.1) | {"difference_low": None, "difference_high": None}
    axis = panels(dola_figure([], [row]))["Text metrics: difference to vanilla"]
    assert len(axis.collections) == 0 and [text.get_text() for text in axis.texts] == ["+0.100"]


def test_the_file_is_the_same_each_time_and_no_name_is_markup(tmp_path: Path):
    rows = [*LOW, *chosen("_$x_1$ <b>\n", range(30))]
    against = [compared("_$x_1$ <b>\n", "m$\\frac$", difference=0.1, baseline="$v_1$")]
    for name in ("a.svg", "b.svg"):
        write_dola_figure(tmp_path / name, rows, against)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    texts = [one.get_text() for one in dola_figure(rows, against).findobj(Text)]
    assert "Layers chosen by _$x_1$ <b>" in {text.strip() for text in texts}
    assert any("m$\\frac$" in text for text in texts) and "method minus $v_1$" in texts
    with pytest.raises(BadOption, match=r"^--figure .*x.gif: .*expected one of"):
        write_dola_figure(tmp_path / "x.gif", rows, against)


def test_methods_of_which_no_difference_is_known_are_named():
    rows = [compared("vanilla"), compared("x", difference=0.1), compared("y"), compared("z")]
    assert "No difference from vanilla is known of y and z, not shown here." in note(dola_figure([], rows))
    assert "No difference" not in note(dola_figure([], rows[:2]))
