"""What `hcl dola` says on a terminal: every number, what is told apart from vanilla, and what may be an artefact."""

import io

import pytest
from planted_dola import choice, compared, settings, study
from rich.console import Console

from hcl_cli.report.dola_settings import layer_numbers, settings_sentences
from hcl_cli.report.dola_terminal import dola_report
from hcl_cli.report.dola_words import comparison_sentences, comparisons_of


def shown(rows, given=(), width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    for renderable in dola_report(rows, given):
        console.print(renderable)
    return console.file.getvalue()


def said(*rows):
    (comparison,) = comparisons_of(rows)
    return comparison_sentences(comparison)


def test_a_row_per_method_with_value_difference_and_n():
    rows = [
        compared("vanilla", "bleu", 0.3),
        compared("dola-low", "bleu", 0.25, -0.05),
        compared("x", "bleu", 0.31, 0.01),
    ]
    lines = shown(rows).splitlines()
    assert lines[0] == "lab, d" and lines[1].split() == ["Method", "Value", "minus", "vanilla", "n"]
    assert lines[2] == "BLEU, best answer"
    assert [line.split() for line in lines[3:6]] == [
        ["vanilla", "0.300", "[0.280,", "0.320]", "817"],
        ["-", "dola-low", "0.250", "[0.230,", "0.270]", "-0.050", "[-0.070,", "-0.030]", "817"],
        ["x", "0.310", "[0.290,", "0.330]", "+0.010", "[-0.010,", "+0.030]", "817"],
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_rows_stay_within_the_width_whole(width):
    text = shown(study(("dola-high@no-norm@alpha=0.05@penalty=1.3", "dola-low")), width=width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text and "+0.120 [+0.100, +0.140]" in text


def test_what_a_terminal_has_no_room_for_is_counted():
    text = shown(study())
    assert "7 more measures are in the table; --table FILE.csv has all" in text
    assert "all correct answers" not in text and "ROUGE-L, nearer a correct one" in text
    only = [compared("vanilla", against="correct"), compared("x", difference=0.1, against="correct")]
    assert "BLEU, all correct answers" in shown(only) and "more measures" not in shown(only)


def test_told_apart_by_the_paired_interval_alone():
    """The values' own intervals lie apart here, the difference's holds 0; and the other way round."""
    (sentence,) = said(compared("vanilla", value=0.1), compared("x", value=0.9, difference=0.01))
    assert sentence == "x cannot be told apart from vanilla in BLEU, best answer."
    (sentence,) = said(
        compared("vanilla", value=0.3), compared("x", value=0.31, difference=0.01, spread=0.005),
        compared("x", "rouge-l", difference=-0.1), compared("x", "exact", difference=0.0),
    )  # fmt: skip
    assert sentence == (
        "x is told apart from vanilla in 2 of 3 measures: higher in BLEU, best answer, lower in ROUGE-L, best answer."
    )
    touching = compared("x", difference=0.02)  # from exactly 0
    assert said(touching) == ["x cannot be told apart from vanilla in BLEU, best answer."]


def test_without_an_interval_nothing_is_said_to_differ():
    rows = compared("vanilla"), compared("x", value=0.9, difference=0.6, difference_low=None, difference_high=None)
    assert said(*rows) == ["x: nothing says whether it differs from vanilla; no paired interval is known."]
    assert said(compared("x"), compared("y", difference=0.5, baseline="x"))[0].startswith("y is told apart from x in 1")


@pytest.mark.parametrize(
    ("with_constraint", "expected"),
    [
        (0.1, "it is higher than vanilla there too"),
        (0.01, "it cannot be told apart from vanilla there"),
        (-0.1, "it is lower than vanilla there"),
    ],
)
def test_a_gain_in_multiple_choice_is_held_against_the_constraint(with_constraint, expected):
    rows = choice("x", difference=0.2), choice("x", difference=with_constraint, constrained=True)
    *_, warning, gain = said(*rows)
    assert warning.startswith("Without the plausibility constraint") and warning.endswith("may be an artefact.")
    assert gain.startswith("MC2 (not normalised) of x: +0.200 [+0.180, +0.220] without the constraint, ")
    assert gain.endswith(f"with it: {expected}.")


def test_a_gain_without_its_constrained_counterpart_says_so_and_no_gain_no_warning():
    other_way = choice("x", difference=0.2, constrained=True, normalised=True)
    assert said(choice("x", difference=0.2), other_way)[-1].endswith("; with it nothing was measured.")
    for rows in (
        [choice("x", difference=-0.2)],
        [choice("x", difference=0.2, constrained=True)],
        [compared("x", difference=0.2)],
    ):
        assert not any("artefact" in sentence for sentence in said(*rows))


def test_how_methods_decode():
    assert settings_sentences(
        [
            settings("vanilla"), settings("dola-low", (0, 2, 4, 6)), settings("static:4", (4,), penalty=1.0, alpha=0.0),
            settings("p", (1, 2), divergence="published", norm=False, average_over_batch=True, penalty_on="logits"),
            {"method": "bare", "candidates": [2, 5, 6]},
        ]
    ) == [
        "vanilla: the last layer alone, no repetition penalty.",
        "dola-low: the farthest of layers 0, 2, .., 6 by the Jensen-Shannon divergence, read through the final norm, "
        "alpha 0.1, repetition penalty 1.2 on contrasted scores.",
        "static:4: premature layer 4, read through the final norm, alpha 0 (no constraint), no repetition penalty.",
        "p: the farthest of layers 1 and 2 by the published code's reversed divergence, averaged over the batch, read "
        "without the final norm, alpha 0.1, repetition penalty 1.2 on the last layer's logits.",
        "bare: the farthest of layers 2, 5 and 6 by a divergence.",
        "dola-low and p differ from vanilla in more than the contrast, namely in the plausible set or the penalty: add "
        "the control vanilla@alpha=0.1@penalty=1.2 to --methods to tell these apart.",
    ]  # fmt: skip
    assert layer_numbers([1, 2, 3]) == "1, 2 and 3" and layer_numbers([0, 2, 4, 7]) == "0, 2, 4 and 7"


def test_counts_chance_and_encoder():
    text = " ".join(shown(study()).split())
    assert "n = 817 questions. Intervals: 95 % bootstrap over questions, differences paired, each for itself." in text
    assert "about 2.6 of all 52 differences would still be told apart from 0." in text
    assert "BERTScore by all-MiniLM-L6-v2; values of another encoder are not comparable." in text


def test_names_are_no_markup_and_unknown_is_a_dash():
    unknown = dict.fromkeys(("value", "value_low", "value_high", "n_questions"))
    row = compared("[red]x[/]\n", "[b]m") | unknown
    text = shown([row], [settings("a [bold]name[/]")])
    assert "[b]m, best answer" in text and "[red]x[/]" in text and "a [bold]name[/]" in text
    assert text.splitlines()[3].split() == ["[red]x[/]", "-", "-", "-"]
    assert shown([]).strip() == "nothing to compare"


def test_vanilla_contrasts_nothing_and_stands_beside_every_way_of_scoring():
    plain = {"constrained": None, "normalised": None}
    rows = [choice("vanilla", **plain), choice("x", difference=0.2), choice("x", difference=0.1, constrained=True)]
    lines = [line.split()[0] for line in shown(rows).splitlines()[2:8]]
    assert lines == ["MC2,", "vanilla", "+", "MC2,", "vanilla", "+"]
    alone = comparisons_of([choice("vanilla", **plain), choice("vanilla", "mc1", **plain)])[0].cells
    assert [(cell[0], len(own)) for cell, own in alone.items()] == [("mc2", 1), ("mc1", 1)]
    assert "Were there no difference anywhere, about 0.1 of all 2" in " ".join(shown(rows).split())


def test_the_control_is_named_and_recognised():
    control = settings("vanilla@penalty=1.2@alpha=0.1", alpha=0.1, penalty=1.2)
    said = settings_sentences([settings("vanilla"), control, settings("dola-low", (0, 2))])
    assert said[1] == "vanilla@penalty=1.2@alpha=0.1: the last layer alone, alpha 0.1, repetition penalty 1.2."
    assert said[3:] == [
        "vanilla@penalty=1.2@alpha=0.1 is the control of dola-low: it differs from it in the contrast alone."
    ]
    assert len(settings_sentences([settings("dola-low", (0, 2))])) == 1  # nothing to compare with
    assert len(settings_sentences([settings("vanilla"), settings("x", (0, 2), alpha=0.0, penalty=1.0)])) == 2


def test_below_multiple_choice_stands_only_what_applies_to_it():
    """A scored token has no company and no penalty."""
    given = [settings("vanilla"), settings("p", (1, 2), average_over_batch=True)]
    scored = settings_sentences(given, decoded=False, scored=True)
    assert scored == [
        "vanilla: the last layer alone.",
        "p: the farthest of layers 1 and 2 by the Jensen-Shannon divergence, read through the final norm, alpha 0.1.",
        "p differs from vanilla in more than the contrast, namely in the plausible set or the penalty: add the control "
        "vanilla@alpha=0.1 to --methods to tell these apart.",
    ]
    assert "In multiple choice every token has its own layer, and there is no penalty." in settings_sentences(
        given, scored=True
    )
    only_choice, both = (" ".join(shown(rows, given).split()) for rows in ([choice("p")], [choice("p"), compared("p")]))
    assert "averaged" not in only_choice and "penalty 1.2" not in only_choice
    assert "averaged over the batch" in both and "every token has its own layer" in both


@pytest.mark.parametrize(("n", "all_of"), [(6000, "all 6,000 answers have"), (4100, "4,100 of 6,000 answers have")])
def test_where_most_answers_are_excluded_nothing_is_called_lower(n, all_of):
    counted = {"constrained": True, "n_answers": 6000, "n_excluded": n}
    rows = [choice("x", "mc1", 0.0, -0.4, outside="excluded", **counted), choice("x", "mc2", difference=0.0)]
    sentences = said(*rows)
    assert sentences[0] == "x cannot be told apart from vanilla in MC2, without constraint, not normalised."
    assert sentences[1:] == [
        f"Under x {all_of} a token outside the plausible set: with -inf outside none of these can be said, so "
        "that values there tell little but that."
    ]
    assert not any(line.startswith("-") for line in shown(rows).splitlines())


def test_answers_with_a_token_outside_are_counted_once():
    counted = {"constrained": True, "n_answers": 6000, "n_excluded": 4100, "outside": "published"}
    rows = [choice("x", metric, difference=-0.1, **counted) for metric in ("mc1", "mc2")]
    assert said(*rows)[1:] == [
        "Under x 4,100 of 6,000 answers have a token outside the plausible set: a lower value there need not come from "
        "the contrast."
    ]
    assert "lower in MC1, with constraint (-1000 outside), not normalised" in said(*rows)[0]
    assert len(said(choice("x", difference=-0.1, **counted | {"n_excluded": 0}))) == 1


def test_a_terminal_shows_two_ways_of_multiple_choice_and_says_where_the_others_are():
    ways = [(False, False, None), (False, True, None)]
    ways += [(True, normalised, outside) for normalised in (False, True) for outside in ("excluded", "published")]
    rows = [
        choice("x", metric, constrained=constrained, normalised=normalised, outside=outside)
        for metric in ("mc1", "factor-sum")
        for constrained, normalised, outside in ways
    ]
    text = shown(rows)
    assert [line for line in text.splitlines() if line.startswith(("MC", "FACTOR"))] == [
        "MC1, without constraint, not normalised",
        "MC1, with constraint (-1000 outside), not normalised",
        "FACTOR, sum, without constraint, not normalised",
        "FACTOR, sum, with constraint (-1000 outside), normalised",
    ]
    assert "8 more measures are in the table; --table FILE.csv has all" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_long_name_stays_whole_and_no_interval_is_cut(width):
    name = "dola:16,18,20,22@published@per-row@alpha=0.05"
    text = shown([compared("vanilla"), compared(name, difference=-0.05)], width=width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "0.300 [0.280, 0.320]" in text and "-0.050 [-0.070, -0.030]" in text and "…" not in text
    line = next(line for line in text.splitlines() if line.lstrip(" -").startswith("dola:16"))
    # Where a part of it has room beside its numbers, it takes further lines, broken before a variant.
    assert (name in line) == (width != 80)
    if width == 80:
        assert [line.split()[0] for line in text.splitlines()[5:7]] == ["@published@per-row", "@alpha=0.05"]


def test_ways_of_multiple_choice_have_one_order_whichever_method_comes_first():
    """A vanilla that truncates knows the constrained ways alone, and stood first."""
    rows = [choice("vanilla@alpha=0.1", constrained=True, difference=0.1), choice("x"), compared("x")]
    names = [cell[:3] for cell in comparisons_of(rows)[0].cells]
    assert names == [("bleu", "best", None), ("mc2", None, False), ("mc2", None, True)]


def test_methods_have_one_order_in_all_measures():
    plain = {"constrained": None, "normalised": None}
    rows = [compared("x"), compared("vanilla"), choice("x"), choice("vanilla", **plain)]
    (comparison,) = comparisons_of(rows)
    assert [[row["method"] for row in own] for own in comparison.cells.values()] == [["x", "vanilla"]] * 2
