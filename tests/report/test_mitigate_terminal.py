"""What `hcl mitigate` says on a terminal: before, after, and whether the choice of blocks had a part in it."""

import io

import pytest
from planted_prune import mitigated, study_mitigated
from rich.console import Console

from hcl_cli.report.mitigate_terminal import mitigate_report
from hcl_cli.report.mitigate_words import mitigate_sentences


def shown(rows, width=80):
    console = Console(file=io.StringIO(), width=width)
    for renderable in mitigate_report(rows):
        console.print(renderable)
    return console.file.getvalue()


def test_a_row_per_variant_with_difference_and_lead():
    rows = [mitigated(lead=-0.03), mitigated("random-layers", after=0.43, blocks=[1, 2])]
    lines = [line.split() for line in shown(rows).splitlines()]
    assert lines[1] == ["n", "After", "Difference", "Lead", "over", "random-layers"]
    assert " ".join(lines[2]) == "hallucination rate on lab lower is better, before: 0.450 [0.430, 0.470]"
    assert lines[3] == ["eavss", "3", "0.400", "-0.050", "[-0.070,", "-0.030]", "-0.030", "[-0.050,", "-0.010]"]
    assert lines[4] == ["random-layers", "3", "0.430", "-0.020", "[-0.040,", "0.000]", "-"]
    wide = [line.split() for line in shown(rows, 120).splitlines()]
    assert wide[3][2:5] == ["0.400", "[0.380,", "0.420]"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_rows_stay_within_the_width_whole(width):
    text = shown(study_mitigated(), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width and "…" not in text
    assert "-0.035 [-0.055, -0.015]" in text and "-0.025 (-0.030 to -0.020)" in text and "( ) over seeds" in text


@pytest.mark.parametrize(
    ("lead", "after", "higher", "expected"),
    [
        (-0.03, 0.4, False, "the interval excludes 0, and eavss is better."),
        (-0.03, 0.4, True, "the interval excludes 0, and eavss is worse."),
        (0.03, 0.4, False, "the interval excludes 0, and eavss is worse."),
        (-0.03, 0.4, None, "the interval excludes 0."),
        (-0.01, 0.4, False, "the interval holds 0, so its gain cannot be told from that of random-layers."),
        (-0.02, 0.44, False, "the interval holds 0."),
    ],
)
def test_whether_the_lead_excludes_0(lead, after, higher, expected):
    """A lead that ends exactly at 0 holds it; a gain is only spoken of where the difference itself excludes 0."""
    *_, sentence = mitigate_sentences([mitigated(after=after, lead=lead, higher_is_better=higher)])
    assert sentence.startswith("hallucination rate on lab: eavss minus random-layers is -0" if lead < 0 else "halluc")
    assert sentence.endswith(f"]: {expected}")


def test_what_changed_and_what_was_trained():
    rows = [
        mitigated(), mitigated(metric="ece", after=0.5), mitigated(metric="auroc", after=0.46, higher_is_better=True),
        mitigated("random-layers", seed=0), mitigated("random-layers", seed=1),
    ]  # fmt: skip
    assert mitigate_sentences(rows) == [
        "Trained blocks: eavss: 4, 5 and 9.",
        "After training eavss, 2 of 3 measures differ beyond chance: better in hallucination rate on lab; worse in ECE "
        "on lab.",
        "No lead over other blocks is known, so a gain may be that of plain fine-tuning.",
    ]


def test_other_variants_are_told_by_where_their_lead_excludes_0():
    rows = [
        mitigated(lead=-0.03), mitigated("all-layers", lead=-0.03), mitigated("all-layers", "ece", lead=0.03),
        mitigated("all-layers", "brier", lead=0.01), mitigated("plain", lead=0.01),
    ]  # fmt: skip
    said = mitigate_sentences(rows)
    assert "The lead of plain over random-layers excludes 0 in 0 of 1 measures." in said
    assert (
        "The lead of all-layers over random-layers excludes 0 in 2 of 3 measures: better in hallucination rate on lab; "
        "worse in ECE on lab."
    ) in said


def test_several_draws_are_counted_and_a_value_before_may_depend_on_the_blocks():
    """The lead is over the first draw alone: the others show whether that draw was a lucky one."""
    rows = [
        mitigated(lead=-0.03) | {"lead_over": "random-layers 0"},
        *(mitigated("random-layers", after=after, seed=seed) for seed, after in enumerate((0.43, 0.4, 0.39))),
    ]
    said = mitigate_sentences(rows)[-1]
    assert said.endswith("and eavss is better. Its value is better than those of 1 of 3 draws.")
    upwards = [row | {"higher_is_better": True} for row in rows]
    assert mitigate_sentences(upwards)[-1].endswith("Its value is better than those of 1 of 3 draws.")
    own = [mitigated(metric="cosine-margin"), mitigated("all-layers", "cosine-margin", before=0.2)]
    assert "cosine margin on lab   lower is better, before: 0.200 to 0.450, by blocks" in shown(own)


def test_leads_without_an_interval_and_how_many_chance_would_give():
    bare = mitigated(lead=-0.3, lead_low=None, lead_high=None)
    assert mitigate_sentences([bare])[2].endswith("is -0.300; whether that is more than chance is unknown.")
    many = [mitigated(metric=f"m{at}", lead=-0.3) for at in range(6)]
    assert mitigate_sentences(many)[-1] == (
        "Were the choice of blocks of no matter, about 0.3 of 6 leads would still exclude 0."
    )


def test_names_are_no_markup_and_unknown_is_a_dash():
    unknown = dict.fromkeys(
        (*(f"{name}{end}" for name in ("after", "difference") for end in ("", "_low", "_high")), "n_blocks")
    )
    row = mitigated("[red]x[/]\n", "[b]m", model="[i]q", unit="[u]") | unknown
    text = shown([row])
    assert text.splitlines()[0] == "[i]q" and "[b]m on lab" in text and "n = 120 [u]." in text
    assert text.splitlines()[3].split() == ["[red]x[/]", "-", "-", "-"] and "Lead" not in text.splitlines()[1]
    assert shown([]).strip() == "nothing was measured"
