"""What `hcl prune` says on a terminal: every block, every pair, what is kept, in the richest form that fits."""

import io

import pytest
from planted_prune import CRITERIA, block, compared, retained, study_blocks, study_compared, study_retained
from rich.console import Console

from hcl_cli.report.prune_labels import block_list, estimate, names_of, prune_rows, significant
from hcl_cli.report.prune_terminal import prune_report
from hcl_cli.report.prune_words import prune_sentences

TWO = [
    block(1, score=0.5, rank=2, damage=0.25, normalised=0.25),
    block(2, score=1.5, rank=1, removed=True, damage=-0.01, normalised=0.75),
]


def shown(blocks=(), pairs=(), kept=(), width=80, **options):
    console = Console(file=io.StringIO(), width=width, **options)
    for renderable in prune_report(blocks, pairs, kept):
        console.print(renderable)
    return console.file.getvalue()


def lines(text, n, after=0):
    return [line.split() for line in text.splitlines()[after : after + n]]


def said(*tables):
    (run,) = prune_rows(*tables)
    return prune_sentences(run)


# ------------------------------------------------------------------------------------------------------ blocks


def test_one_criterion_by_hand():
    text = shown(TWO)
    assert text.splitlines()[0] == "lab, texts"
    assert lines(text, 3, after=1) == [
        ["Block", "avss", "Norm.", "Rank", "Damage"],
        ["1", "0.500", "[0.450,", "0.550]", "0.250", "2", "+0.250", "[+0.248,", "+0.252]"],
        ["2", "1.50", "[1.35,", "1.65]", "0.750", "1×", "-0.010", "[-0.012,", "-0.008]"],
    ]
    assert "× removed   rank 1 goes first\n" in text and text.splitlines()[5].endswith("nats per token   [ ] 95 %")


def test_an_ascii_terminal_gets_an_x():
    class Ascii(io.StringIO):
        encoding = "ascii"

    console = Console(file=Ascii(), width=80)
    for renderable in prune_report(TWO, [], [retained()]):
        console.print(renderable)
    text = console.file.getvalue()
    assert text.isascii() and " 1x " in text and text.splitlines()[4].startswith("x removed")


def test_up_to_four_criteria_have_scores_and_more_have_ranks():
    four = study_blocks(4, ("avss", "block-influence", "last", "first"))
    assert lines(shown(four), 3, after=1)[1:] == [
        ["Block", "avss", "influence", "last", "first", "Damage"],
        ["1", "0.0497", "1×", "0.855", "4", "3.00", "4", "1.00", "1×", "+2.058", "[+1.914,", "+2.223]"],
    ]
    five = study_blocks(4, ("avss", "angular", "taylor", "last", "first"))
    assert lines(shown(five), 2, after=1) == [
        ["Block", "avss", "angular", "taylor", "last", "first", "Damage"],
        ["1", "1×", "4", "4", "4", "1×", "+2.058", "[+1.914,", "+2.223]"],
    ]


def test_thirteen_criteria_are_letters_with_a_key():
    text = shown(study_blocks(10))
    assert lines(text, 2, after=1) == [
        ["Block", *"abcdefghijkl", "random", "Damage"],
        ["1", "1×", "10", "1×", "1×", "10", "10", "10", "10", "10", "7", "10", "1×", "1/5", "+2.005"],
    ]
    assert "a avss   b avss-published   c eavss" in text and "l first\n" in text
    assert "random: how many seeds remove it" in text


def test_more_than_fit_even_so_are_folded_with_every_block_again():
    names = [f"criterion-{at}" for at in range(40)]
    text = shown(study_blocks(4, names))
    heads = [line.split() for line in text.splitlines() if line.startswith("Block")]
    assert len(heads) == 2 and [title for head in heads for title in head[1:]] == [
        *"abcdefghijklmnopqrstuvwxyz", *map(str, range(27, 41)), "Damage"
    ]  # fmt: skip
    assert sum(line.lstrip().startswith("4 ") for line in text.splitlines()) == len(heads)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("criteria", [("avss",), ("avss", "eavss", "block-influence", "random"), CRITERIA])
@pytest.mark.parametrize("n_blocks", [10, 32])
def test_rows_stay_within_the_width_whole(width, criteria, n_blocks):
    text = shown(study_blocks(n_blocks, criteria), study_compared(criteria), study_retained(n_blocks, criteria), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width and "…" not in text
    assert "+2.00" in text


def test_a_deep_model_shows_every_second_block_and_all_removed_ones():
    rows = [block(at, score=float(at), rank=at, removed=at in (2, 3, 4)) for at in range(1, 61)]
    text = shown(rows)
    numbers = [int(words[0]) for words in map(str.split, text.splitlines()[2:34])]
    assert numbers == sorted({*range(1, 61, 2), 2, 4}) and "28 more blocks are in the table" in text


def test_unknown_is_a_dash_and_names_are_no_markup():
    strange = "[red]a[/]\n"
    row = block(1, strange, None, None, spread=None, model="[b]m[/b]", dataset="d\x1b[31m")
    text = shown([row, block(2, "avss", 1.0)])
    assert "[b]m[/b], d" in text and "\x1b" not in text and "[red]a[/]" in text
    assert lines(text, 1, after=2) == [["1", "-", "-"]]
    assert shown([]).strip() == "no blocks to show"


def test_activations_and_seeds_are_named_where_they_tell_apart():
    alone = names_of([("avss", "mlp", None), ("random", None, 3)])
    assert (alone(("avss", "mlp", None)), alone(("random", None, 3))) == ("avss", "random")
    both = names_of([("avss", "mlp", None), ("avss", "residual", None), ("random", None, 3), ("random", None, 4)])
    assert both(("avss", "mlp", None)) == "avss (mlp)" and both(("random", None, 3)) == "random, seed 3"


def test_one_criterion_on_two_data_sets_is_two_tables_and_two_criteria_on_two_are_one():
    other = [row | {"dataset": "answers"} for row in TWO]
    assert [run.name for run in prune_rows(TWO + other)] == ["lab, texts", "lab, answers"]
    of_answers = [row | {"criterion": "eavss"} for row in other]
    (run,) = prune_rows(TWO + of_answers)
    assert run.name == "lab, texts, answers" and list(run.damages) == ["texts"]


def test_numbers_of_any_size():
    assert [significant(value) for value in (0, 0.0123456, 1.5, 23.45, 12345.6, 2.5e6, 2.5e-7, None, -0.5)] == [
        "0", "0.0123", "1.50", "23.4", "12,346", "2.50e+06", "2.50e-07", "-", "-0.500"
    ]  # fmt: skip
    assert significant(float("nan")) == "-" and significant(float("inf")) == "inf"
    assert estimate({"a": 0.0003, "a_low": -0.02, "a_high": 0.02}, "a") == "0.0003 [-0.0200, 0.0200]"
    assert block_list([9, 1, 2, 5, 6, 7]) == "1, 2, 5 to 7 and 9"


# --------------------------------------------------------------------------------------------------- agreement


def test_correlations_with_the_damage_and_between_two_criteria():
    pairs = [compared(), compared("last", value=-0.25), compared("avss", "last", 0.5, p_value=None)]
    text = shown(pairs=pairs).splitlines()
    assert text[0] == "Rank correlation with the true damage" and text[1].split() == ["Spearman", "p", "both", "remove"]
    assert [line.split() for line in text[2:4]] == [
        ["avss", "0.90", "[0.85,", "0.95]", "0.004", "1", "of", "2"],
        ["last", "-0.25", "[-0.30,", "-0.20]", "0.004", "1", "of", "2"],
    ]
    assert text[6].split() == ["avss", "/", "last", "0.50", "[0.45,", "0.55]", "-", "1", "of", "2"]


def test_many_pairs_are_a_triangle_under_the_letters_of_the_blocks():
    names = ("avss", "angular", "last", "first")
    pairs = [
        compared(a, b, (10 * at + other) / 100)
        for at, a in enumerate(names)
        for other, b in enumerate(names)
        if at < other
    ]
    text = shown(study_blocks(4, names), pairs)
    at = text.splitlines().index("Rank correlation between criteria")
    assert lines(text, 5, after=at + 1) == [
        ["a", "b", "c"], ["b", "0.01"], ["c", "0.02", "0.12"], ["d", "0.03", "0.13", "0.23"],
        ["a", "avss", "b", "angular", "c", "last", "d", "first"],
    ]  # fmt: skip


def test_a_pair_that_is_told_both_ways_counts_once():
    pairs = [compared("last", "first", -1.0), compared("first", "last", -1.0)]
    assert said([], pairs) == [
        "last and first have a rank correlation of -1.00 [-1.05, -0.95]; the interval lies below 0."
    ]


def test_seeds_of_random_are_told_by_mean_and_spread():
    pairs = [compared(), *(compared("random", value=value, seed=seed) for seed, value in enumerate((-0.1, 0.1, 0.3)))]
    text = shown(pairs=pairs)
    assert "random (3 seeds) 0.10 (-0.10 to 0.30) - 1.0 of 2" in " ".join(text.split())
    assert said([], pairs)[-1].endswith("random has a rank correlation with it of 0.10 (-0.10 to 0.30) over 3 seeds.")


def test_random_alone_is_shown_by_its_counts():
    rows = study_blocks(4, ("random",))
    text = shown(rows, study_compared(("random",)))
    assert lines(text, 2, after=1) == [["Block", "random", "Damage"], ["1", "3/5", "+2.058", "[+1.914,", "+2.223]"]]
    assert "random has a rank correlation with the true damage of 0.09 (" in text


# ----------------------------------------------------------------------------------------------- quality that is kept


def test_quality_by_hand():
    rows = [retained(), retained("random", after=0.45, seed=0), retained("random", after=0.35, seed=1)]
    text = shown(kept=rows).splitlines()
    assert text[1] == "answer accuracy on lab   higher is better, whole: 0.600 [0.570, 0.630]"
    assert text[2].split() == ["avss", "2", "0.500", "[0.475,", "0.525]", "83.3", "%", "[78.3,", "88.3]"]
    assert " ".join(text[3].split()) == "random (2 seeds) 2 0.400 (0.350 to 0.450) 66.7 % (58.3 to 75.0)"


def test_of_several_numbers_of_blocks_that_of_the_rule_is_shown_and_the_rest_counted():
    kept = study_retained(8, ("avss",), sizes=(1, 2, 3))
    text = shown(study_blocks(8, ("avss",)), [], kept)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("avss  ")] == ["2"] * 4
    assert "8 more rows, of other numbers of blocks; --retained-table FILE.csv has all" in " ".join(text.split())
    largest = shown(kept=kept)
    assert [line.split()[1] for line in largest.splitlines() if line.startswith("avss  ")] == ["3"] * 4


def test_very_many_rows_are_shares_alone():
    rows = [retained(f"c{at}", f"m{place}", 0.3 + at / 100) for at in range(13) for place in range(6)]
    text = shown(kept=rows)
    assert "Share kept, per cent" in text and "Before" not in text and "[" not in text.split("n: blocks")[0]
    assert lines(text, 1, after=2) == [["c0", "2", *["50.0"] * 6]]
    assert "Whole model: m0 on lab 0.600, m1 on lab 0.600" in " ".join(text.split())


# ----------------------------------------------------------------------------------------------------------- words


def test_what_is_removed_and_what_the_damage_is():
    assert said(TWO) == [
        "avss removes block 2 of 2.",
        "Alone, block 2 does the least damage, -0.010 [-0.012, -0.008] nats per token, and block 1 the most, "
        "+0.250 [+0.248, +0.252].",
        "The loss is lower without block 2 (the interval lies below 0).",
    ]


def test_undefined_scores_and_blocks_that_only_hallucinate_are_told():
    rows = [
        block(1, "avss", None, None, sparsity=0.0), block(2, "avss", 1.0, 1), block(1, "hsav", 1.0, 1, True),
        block(1, "eavss", 0.2, 1, True, p_adjusted=0.01), block(2, "eavss", 0.1, 2, p_adjusted=0.05),
    ]  # fmt: skip
    assert said(rows) == [
        "avss removes no block.", "hsav and eavss remove block 1 of 2.",
        "avss is undefined at block 1 (a sparsity of 0).",
        "hsav and eavss name the blocks that are likeliest to hallucinate, not the least important ones. By "
        "permutation the contrast of eavss is beyond chance at block 1 (adjusted p below 0.05).",
    ]  # fmt: skip
    none = [row | {"p_adjusted": 0.05} for row in rows if row["criterion"] == "eavss"]
    assert said(none)[-1].endswith("is beyond chance at no block (adjusted p of at least 0.05).")


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        (({1, 2}, {1, 2}), "Both importance criteria remove the same blocks."),
        (({1, 2}, {1, 3}), "Both importance criteria remove block 1, and differ in the rest."),
        (({1, 2}, {3, 4}), "No block is removed by both importance criteria."),
    ],
)
def test_whether_criteria_remove_the_same(removed, expected):
    rows = [
        block(at, name, removed=at in own)
        for name, own in zip(("magnitude", "taylor"), removed, strict=True)
        for at in range(1, 5)
    ]
    assert said(rows)[-1] == expected
    # Neither what names hallucinating blocks nor an order without a measure counts.
    others = [block(at, name, removed=at == 4) for name in ("eavss", "last") for at in range(1, 5)]
    assert expected in said(rows + others)


def test_agreement_with_the_damage_leaves_out_what_measures_it_and_what_means_something_else():
    pairs = [compared("perplexity", value=0.99), compared("eavss", value=-0.9), compared("last", value=0.2, spread=0.3)]
    assert said([], [*pairs, compared("taylor", value=0.6)]) == [
        "With the true damage taylor agrees best, 0.60 [0.55, 0.65], and last least, 0.20 [-0.10, 0.50]. The interval "
        "lies above 0 for 1 of 2 importance criteria. perplexity orders blocks by this damage itself and is no check "
        "of it."
    ]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (0.5, "The loss is beyond chance: -0.100 [-0.130, -0.070], paired."),
        (0.7, "The gain is beyond chance: +0.100 [+0.065, +0.135], paired."),
        (0.59, "The paired interval of the difference, -0.010 [-0.040, +0.020], holds 0."),
    ],
)
def test_the_cost_of_one_criterion(after, expected):
    (sentence,) = said([], [], [retained(after=after)])
    assert sentence.startswith("Answer accuracy on lab: 0.600 [0.570, 0.630] before, ") and sentence.endswith(expected)
    lower = {"higher": False, "metric": "perplexity"}
    (sentence,) = said([], [], [retained(after=0.5, **lower)])
    assert "The gain is beyond chance" in sentence
    (sentence,) = said([], [], [retained(difference_low=None)])
    assert sentence.endswith("83.3 % [78.3, 88.3] is kept.")


def test_how_many_criteria_beat_the_mean_of_random_and_how_many_surely():
    """The mean of the seeds is 0.5: b lies above it but its interval, 0.49 to 0.55, does not."""
    kept = [
        retained("a", after=0.6), retained("b", after=0.52), retained("c", after=0.4),
        retained("random", after=0.4, seed=0), retained("random", after=0.6, seed=1),
    ]  # fmt: skip
    assert said([], [], kept) == [
        "Answer accuracy on lab: most is kept by a, 100.0 % [95.0, 105.0], least by c, 66.7 % [61.7, 71.7].",
        "2 of 3 criteria are better than the mean of 2 seeds of random, 0.500 (0.400 to 0.600); 1 with their whole "
        "interval. Not better: c.",
    ]
    downwards = [row | {"higher_is_better": False} for row in kept]
    assert said([], [], downwards)[-1].endswith("1 with their whole interval. Not better: a and b.")
    other_size = [row | {"n_blocks": 3} if row["variant"] == "random" else row for row in kept]
    assert not any("random" in sentence for sentence in said([], [], other_size))
    one_seed = said([], [], [*kept[1:3], kept[3]])[-1]
    assert one_seed.startswith("1 of 2 criteria are better than the one seed of random, 0.400 [0.380, 0.420]; 1 with")


def test_criteria_that_remove_different_numbers_are_not_on_equal_terms():
    (sentence, *_) = said([], [], [retained("a"), retained("b", n_blocks=5)])
    assert sentence.endswith("; the criteria remove 2 to 5 blocks, so this is no comparison on equal terms.")


def test_of_many_measures_counts_are_told():
    kept = [
        retained(name, f"m{at}", after, seed=seed)
        for at in range(5)
        for name, after, seed in (("a", 0.7 if at else 0.5, None), ("random", 0.5, 0), ("random", 0.6, 1))
    ]
    assert said([], [], kept) == [
        "a: 1 of 5 measures are worse beyond chance, 4 better; 4 of 5 beat the mean of 2 seeds of random, 4 with the "
        "whole interval."
    ]


def test_notes_say_what_is_resampled_and_what_chance_gives():
    text = " ".join(
        shown(study_blocks(4, ("avss", "last")), study_compared(("avss", "last")), study_retained(4)).split()
    )
    assert "Activations: residual. Sparsity: share of activations nearer to 0 than 0.01." in text
    assert "Intervals of quality: 95 % over 200 texts, 200 questions and 5 runs, each for itself." in text
    assert "p: permutation of blocks; were all orders unrelated, about 0.2 of 3 would still be below 0.05." in text
