"""The figures of `hcl prune` show the rows: scores and removed blocks, statistics of activations, quality kept."""

from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from planted_prune import CRITERIA, block, retained, study_blocks, study_retained
from pytest import approx

from hcl_cli.errors import BadOption
from hcl_cli.report.drawing import COLOURS
from hcl_cli.report.prune_plots import (
    KEPT,
    REMOVED,
    activations_figure,
    blocks_figure,
    write_activations_figure,
    write_blocks_figure,
)
from hcl_cli.report.quality_plots import _look, quality_figure, write_quality_figure

ROWS = [
    block(1, score=0.5, rank=2, damage=0.25),
    block(2, score=1.5, rank=1, removed=True, damage=-0.25),
    block(3, score=0.75, rank=3, damage=0.5),
]
STRANGE = "_$x_1$ <b>\n"


def panels(figure):
    return {axis.get_title(loc="left").replace("\n", " "): axis for axis in figure.axes}


def labels(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def note(figure):
    return " ".join(figure.texts[-1].get_text().split())


def points(axis):
    """The marks: [(block, value, marker, edge colour)], blocks rising."""
    lines = [line for line in axis.get_lines() if line.get_marker() in ("o", "X")]
    return sorted(
        (*place, line.get_marker(), line.get_markeredgecolor())
        for line in lines
        for place in line.get_xydata().tolist()
    )


def bars(axis):
    """Intervals of kept blocks, then those of removed ones."""
    return [segment[:, 1].tolist() for one in axis.collections for segment in one.get_segments()]


# ----------------------------------------------------------------------------------------------------- blocks


def test_scores_removed_blocks_and_damage_are_the_rows():
    figure = blocks_figure(ROWS)
    found = panels(figure)
    assert list(found) == ["avss: 2 first, 3 last", "True damage, nats per token"]
    scores, damage = found.values()
    assert points(scores) == [(1, 0.5, "o", KEPT), (2, 1.5, "X", REMOVED), (3, 0.75, "o", KEPT)]
    assert bars(scores) == [approx([0.45, 0.55]), approx([0.675, 0.825]), approx([1.35, 1.65])]
    assert [value for _, value, *_ in points(damage)] == [0.25, -0.25, 0.5]
    assert [text.get_text() for text in scores.get_xticklabels()] == ["1", "2", "3"]
    assert figure.get_suptitle() == "lab, texts" and labels(figure)[:2] == ["kept", "removed"]


def test_seeds_of_random_are_one_panel_of_what_each_removes():
    rows = [
        block(at, "random", at / 10, at, at == gone, None, seed=seed)
        for seed, gone in ((4, 2), (7, 3))
        for at in (1, 2, 3)
    ]
    (axis,) = panels(blocks_figure(rows)).values()
    assert axis.get_title(loc="left") == "random, 2 seeds"
    crosses = [
        (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines() if line.get_marker() == "X"
    ]
    assert crosses == [([2], [0]), ([3], [1])]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["4", "7"]


def test_positive_scores_that_are_far_apart_are_on_a_logarithmic_axis():
    def scales(*scores, criterion="avss"):
        (axis,) = blocks_figure([block(at + 1, criterion, score) for at, score in enumerate(scores)]).axes
        return axis.get_yscale()

    assert scales(1.0, 100.0) == "log" and scales(1.0, 10.0) == scales(-1.0, 100.0) == scales(0.0, 100.0) == "linear"
    assert scales(1.0, 100.0, criterion="first") == "linear"


def test_undefined_scores_are_marked_and_hallucination_is_told():
    rows = [block(1, "hss", None, None, True), block(2, "hss", 1.0, 1), block(3, "hss", 2.0, 2)]
    figure = blocks_figure(rows)
    (axis,) = panels(figure).values()
    assert [(text.get_text(), text.get_position()[0], text.get_color()) for text in axis.texts] == [("?", 1, REMOVED)]
    assert note(figure).endswith("hss: the likeliest to hallucinate goes first. ?: the score is undefined.")
    (unknown,) = blocks_figure([block(1, score=None, rank=None)]).axes
    assert "unknown" in [text.get_text() for text in unknown.texts]


@pytest.mark.parametrize(("n_blocks", "criteria"), [(10, ("avss",)), (32, CRITERIA)])
def test_nothing_lies_over_anything_else(n_blocks, criteria):
    """Titles, tick labels and axes of all panels, and the legend, keep apart."""
    figure = blocks_figure(study_blocks(n_blocks, criteria))
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    extents = [axis.get_tightbbox(renderer) for axis in figure.axes]
    extents.append(figure.legends[0].get_window_extent(renderer))
    for at, one in enumerate(extents):
        for other in extents[at + 1 :]:
            overlap = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(overlap) < 1
    for axis in figure.axes:
        ends = [label.get_window_extent(renderer) for label in axis.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in zip(ends, ends[1:], strict=False))
        assert axis.get_xticks()[0] == 1 and axis.get_xticks()[-1] == n_blocks


# -------------------------------------------------------------------------------------------------- activations


def test_statistics_have_a_panel_each_and_repeated_ones_one_curve():
    rows = study_blocks(4, ("avss", "block-influence", "taylor"))
    figure = activations_figure([*rows, *(row | {"criterion": "x", "activations": None} for row in rows[:4])])
    found = panels(figure)
    assert list(found) == [
        "Activation variance", "L1 norm of activations", "L2 norm of activations", "Frobenius norm of weights",
        "Sparsity",
    ]  # fmt: skip
    for axis, name in zip(found.values(), ("variance", "l1_norm", "l2_norm", "weight_norm", "sparsity"), strict=True):
        (line,) = axis.get_lines()
        assert list(line.get_xdata()) == [1, 2, 3, 4] and list(line.get_ydata()) == [row[name] for row in rows[:4]]
    assert figure.get_suptitle() == "lab, texts, residual" and labels(figure) == []
    assert note(figure) == "Sparsity: share of activations nearer to 0 than 0.01. Means over tokens."


def test_kinds_of_activations_have_curves_of_their_own_and_weights_one():
    rows = study_blocks(4, ("avss",))
    figure = activations_figure([*rows, *(row | {"activations": "mlp", "variance": 1.0} for row in rows)])
    assert labels(figure) == ["lab, texts, residual", "lab, texts, mlp"]
    assert [len(axis.get_lines()) for axis in figure.axes] == [2, 2, 2, 1, 2]


def test_weights_alone_and_nothing_are_drawn():
    rows = [block(at, "magnitude", weight_norm=float(at)) for at in (1, 2)]
    figure = activations_figure(rows)
    assert list(panels(figure)["Frobenius norm of weights"].get_lines()[0].get_ydata()) == [1.0, 2.0]
    for empty in (figure.axes[0], *activations_figure([]).axes):
        assert [text.get_text() for text in empty.texts] == ["unknown"]


# ------------------------------------------------------------------------------------------------------- quality


def curves(axis):
    return {line.get_color(): (list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()}


def test_quality_starts_at_the_whole_model_and_follows_the_rows_with_bands():
    rows = [retained(after=0.4, n_blocks=3), retained(after=0.5, n_blocks=1), retained("last", after=0.3, n_blocks=3)]
    figure = quality_figure(rows)
    (axis,) = figure.axes
    assert curves(axis) == {COLOURS[0]: ([0, 1, 3], [0.6, 0.5, 0.4]), COLOURS[1]: ([0, 3], [0.6, 0.3])}
    band = axis.collections[0].get_paths()[0].vertices
    for at, middle in ((0, 0.6), (1, 0.5), (3, 0.4)):
        ends = band[band[:, 0] == at][:, 1]
        assert (ends.min(), ends.max()) == approx((0.95 * middle, 1.05 * middle))
    assert labels(figure) == ["avss", "last"] and axis.get_title(loc="left") == "answer accuracy on lab"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("blocks removed", "higher is better")
    assert note(figure).endswith("n = 200 questions.")


def test_seeds_of_random_are_grey_with_their_mean():
    rows = [
        retained("random", after=after, seed=seed, n_blocks=n)
        for seed, ends in ((0, (0.5, 0.4)), (1, (0.3, 0.1))) for n, after in zip((1, 2), ends, strict=True)
    ]  # fmt: skip
    figure = quality_figure([retained(n_blocks=1), *rows])
    (axis,) = figure.axes
    lines = [(line.get_color(), list(line.get_ydata())) for line in axis.get_lines()]
    assert lines[0][0] == COLOURS[0] and lines[1:] == [
        ("0.78", [0.6, 0.5, 0.4]), ("0.78", [0.6, 0.3, 0.1]), ("0.35", [0.6, approx(0.4), approx(0.25)])
    ]  # fmt: skip
    assert labels(figure) == ["avss", "random, mean", "random, each of 2 seeds"] and len(axis.collections) == 1


def test_every_measure_has_a_panel_with_the_same_looks():
    figure = quality_figure(study_retained(10, ("taylor", "avss"), sizes=(1, 2)))
    assert list(panels(figure)) == [
        "perplexity on wikitext2", "next-token accuracy on wikitext2", "answer accuracy on lab", "tokens per second"
    ]  # fmt: skip
    assert {tuple(curves(axis)) for axis in figure.axes} == {(COLOURS[0], COLOURS[1])}
    assert len({tuple(_look(at).values()) for at in range(28)}) == 28


def test_unknown_values_and_nothing_at_all_are_drawn():
    assert [text.get_text() for text in quality_figure([]).texts] == ["nothing was measured"]
    (axis,) = quality_figure([retained(after=0.5) | {"after": None}]).axes
    assert [text.get_text() for text in axis.texts] == ["unknown"]
    bare = dict.fromkeys(("after_low", "after_high", "before_low", "before_high"))
    (axis,) = quality_figure([retained(after=0.5, **bare)]).axes
    assert curves(axis) == {COLOURS[0]: ([0, 2], [0.6, 0.5])} and len(axis.collections) == 0


# ----------------------------------------------------------------------------------------------------------- all

WRITERS = (
    lambda path: write_blocks_figure(path, study_blocks(5, ("avss", "random", STRANGE))),
    lambda path: write_activations_figure(path, [*study_blocks(5, ("avss",)), block(1, model=STRANGE, l1_norm=1.0)]),
    lambda path: write_quality_figure(path, study_retained(8, ("random", STRANGE), sizes=(1, 2))),
)


@pytest.mark.parametrize("write", WRITERS)
def test_the_file_is_the_same_each_time_and_another_ending_is_refused(tmp_path: Path, write):
    for name in ("a.svg", "b.svg"):
        write(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    with pytest.raises(BadOption, match=r"^--figure .*x.gif: .*expected one of"):
        write(tmp_path / "x.gif")


def test_no_name_is_markup():
    of = {"model": STRANGE, "dataset": STRANGE}
    for figure in (
        blocks_figure([block(1, STRANGE, **of), block(2, STRANGE, **of)]),
        activations_figure([block(1, model=STRANGE, variance=1.0), block(1, variance=1.0)]),
        quality_figure([retained(STRANGE, STRANGE, **of)]),
    ):
        texts = [one for one in figure.findobj(Text) if "$x_1$" in one.get_text()]
        assert texts and not any(one.get_parse_math() for one in texts)
        assert any("_$x_1$ <b>" in one.get_text() for one in texts)
