"""Multiple choice: by hand on a model with a known law, against a plain loop for many families, and its summary."""

import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import torch
from pytest import approx

from hcl_cli.artifacts.parquet import conform
from hcl_cli.data.completions import open_choices, open_completions
from hcl_cli.data.truthfulqa_prompt import open_shots
from hcl_cli.errors import BadInput
from hcl_cli.models.contrast import VANILLA, Method, parse_method
from hcl_cli.models.load import load_model
from hcl_cli.schemas import CHOICES, CHOICES_COMPARED
from hcl_cli.stages.choices import (
    Choice,
    check_choices,
    choice_rows,
    choice_summary,
    closed,
    completion_choices,
    question_choices,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
import planted

Tiny = Callable[..., Any]
FAMILIES = ["llama", "mistral", "gemma2", "gemma3_text", "gpt2", "opt", "cohere", "granite", "mixtral", "falcon"]
PROMPT = "Question: What is the capital of France?\nAnswer:"
ASKED = [
    Choice("a", PROMPT, ("Paris", "the blue whale"), ("Denmark", "a prince of the sea", "sea"), best=0),
    Choice("b", PROMPT.replace("France", "Denmark"), ("William", "play Answer"), ("Name",), best=1),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The planted model: a bigram model with another table after every block."""
    folder = tmp_path_factory.mktemp("choices") / "planted"
    planted.write_planted_model(folder)
    return load_model(folder, dtype="float32", device="cpu")


def scored(loaded: Any, choices: Sequence[Choice], methods: Sequence[Method], kind: Any = "mc", **options: Any) -> Any:
    frame = choice_rows(loaded, choices, methods, kind=kind, model="m", dataset="d", **options)
    return conform(frame, CHOICES)


def values(frame: pl.DataFrame, **where: Any) -> list[float | None]:
    """The values of the rows with the given cells, in order."""
    for name, value in where.items():
        frame = frame.filter(pl.col(name).eq_missing(pl.lit(value)))
    return frame["value"].to_list()


# ------------------------------------------------------------------------------------------ by hand, on a known law


def law(layer: int, token: str) -> dict[str, float]:
    """Log-probabilities of the planted model after `layer` blocks, from its definition in plain Python."""
    logits = planted.scores(layer, token)
    total = math.log(sum(math.exp(value) for value in logits))
    return {word: value - total for word, value in zip(planted.WORDS, logits, strict=True)}


def total(words: str, after: str, base: int | None = None) -> float:
    """The score of an answer: the last layer's log-probabilities, less those of layer `base`."""
    result = 0.0
    for word in words.split():
        result += law(4, after)[word] - (law(base, after)[word] if base is not None else 0.0)
        after = word
    return result


@pytest.mark.parametrize("base", [None, 1, 2])
def test_scores_are_sums_over_the_tokens_of_the_known_law(small: Any, base: int | None) -> None:
    true, false = ("paris", "rome green"), ("lyon", "red blue")
    method = VANILLA if base is None else parse_method(f"static:{base}", 4)
    found = scored(small, [Choice("one", "ask-one", true, false, 1)], [method], constrained=[False], normalised=[False])
    right, wrong = [total(one, "ask-one", base) for one in true], [total(one, "ask-one", base) for one in false]
    share = sum(map(math.exp, right)) / sum(map(math.exp, right + wrong))
    expected = [float(right[1] > max(wrong)), share, sum(one > max(wrong) for one in right) / 2]
    assert found["metric"].to_list() == ["mc1", "mc2", "mc3"]
    assert found["value"].to_list() == approx(expected, abs=2e-4)
    assert found["constrained"].to_list() == [None if base is None else False] * 3


def test_a_contrast_says_what_no_layer_does_and_the_constraint_takes_it_back(small: Any) -> None:
    """After "ask-hard" the last block adds 0.2 to "rome", which stays e^-8 times as likely as "lyon" and "paris".

    Alone it rises between block 1 and 4, so the contrast ranks it first; it is far outside the plausible set.
    """
    asked = [Choice("hard", "ask-hard", ("rome",), ("lyon", "paris"))]
    found = scored(small, asked, [VANILLA, parse_method("static:1", 4)], normalised=[False])
    assert values(found, method="vanilla") == [0.0, approx(math.exp(total("rome", "ask-hard")), abs=1e-4), 0.0]
    assert values(found, constrained=False, metric="mc1") == [1.0]
    assert values(found, outside="excluded") == [0.0, 0.0, 0.0]
    assert values(found, outside="published") == [0.0, 0.0, 0.0]
    assert found.filter(constrained=True)["n_excluded"].to_list() == [1] * 6
    assert found.filter(constrained=False)["n_excluded"].null_count() == 3
    assert set(found["n_answers"]) == {3}


def test_the_layer_is_chosen_for_every_token(small: Any) -> None:
    """ "ask-many" changes at every block, "red" only at the first: the farthest of 1, 2, 3 by its own divergence."""

    def farthest(after: str) -> int:
        def apart(layer: int) -> float:
            p, q = (np.exp(list(law(k, after).values())) for k in (4, layer))
            return float(sum((x * np.log(2 * x / (p + q))).sum() for x in (p, q)) / 2)

        return max((1, 2, 3), key=apart)

    choice = Choice("many", "ask-many", ("red green",), ("blue", "lyon"))
    method = parse_method("dola:1,2,3", 4)
    found = scored(small, [choice], [method], constrained=[False], normalised=[False])
    first, second = farthest("ask-many"), farthest("red")
    right = total("red", "ask-many", first) + total("green", "red", second)
    wrong = [total(word, "ask-many", first) for word in choice.false]
    share = math.exp(right) / (math.exp(right) + sum(map(math.exp, wrong)))
    assert values(found, metric="mc2") == [approx(share, abs=2e-4)]


@pytest.mark.parametrize("published", [False, True])
def test_normalised_over_the_plausible_set_or_as_published_over_the_vocabulary(small: Any, published: bool) -> None:
    """The second answer has a token more, whose normalisation does not cancel: after "rome" only "</s>" is plausible.

    All layers agree there, so it scores 0 among itself and -ln 12 among the 12 words.
    """
    contrast = {word: law(4, "ask-one")[word] - law(1, "ask-one")[word] for word in planted.WORDS}
    least = max(law(4, "ask-one").values()) + math.log(1e-5)
    inside = [word for word in planted.WORDS if law(4, "ask-one")[word] >= least]
    assert {"paris", "lyon", "rome"} <= set(inside) and len(inside) < len(planted.WORDS)
    over = math.log(sum(math.exp(contrast[word]) for word in (planted.WORDS if published else inside)))
    true = math.exp(contrast["lyon"] - over)
    false = math.exp(contrast["rome"] - over) * (1 / 12 if published else 1)
    choice = Choice("one", "ask-one", ("lyon",), ("rome </s>", "green"))  # green is excluded
    method = parse_method("static:1@alpha=0.00001", 4)
    found = scored(small, [choice], [method], constrained=[True], normalised=[True], published=published)
    assert values(found, metric="mc2") == [approx(true / (true + false), abs=2e-4)] * 2
    assert set(found["n_excluded"]) == {1}
    assert published == bool(values(found, metric="mc2-published"))


def test_where_every_answer_is_excluded(small: Any) -> None:
    """Excluded, nothing is said of the question; with -1000 a token, the answer with fewer of them wins."""
    nothing = Choice("none", "ask-one", ("green",), ("blue red", "red"))
    found = scored(small, [nothing], [parse_method("static:1", 4)], normalised=[True])
    assert values(found, outside="excluded") == [0.0, None, 0.0]
    assert values(found, outside="published") == [0.0, approx(1 / 2), 0.0]  # -1000, -2000 and -1000
    assert set(found.filter(constrained=True)["n_excluded"]) == {3}
    asked = replace(nothing, false=("blue red",))
    for outside, first in (("excluded", 0.0), ("published", 1.0)):
        ours = scored(small, [asked], [parse_method("static:1", 4)], constrained=[True], normalised=[True])
        assert values(ours, outside=outside, metric="mc1") == [first]


def test_the_published_mc2_halves_scores_until_none_underflows(small: Any) -> None:
    """-1000 against -2000 and -1000; halved once, e^-500 is there on both sides and e^-1000 is not: 1/2."""
    asked = Choice("none", "ask-one", ("green",), ("blue red", "red"))
    found = scored(small, [asked], [VANILLA, parse_method("static:1", 4)], published=True, normalised=[True])
    mine = found.filter(metric="mc2-published", outside="published")["value"].to_list()
    assert mine == [approx(1 / 2)]
    true, false = [total("green", "ask-one")], [total(one, "ask-one") for one in asked.false]
    share = math.exp(true[0]) / sum(map(math.exp, true + false))
    assert values(found, method="vanilla", metric="mc2-published") == [approx(share, abs=2e-4)]


def test_a_vanilla_that_truncates_is_scored_with_its_constraint(small: Any) -> None:
    """Normalised or not, plausible answers of one token share what the last layer gives them."""
    control = parse_method("vanilla@alpha=0.1", 4)
    after = law(4, "ask-one")
    inside = [word for word in planted.WORDS if after[word] >= max(after.values()) + math.log(0.1)]
    assert "paris" in inside and "green" not in inside
    asked = Choice("one", "ask-one", (inside[0],), ("green", inside[-1]))
    found = scored(small, [asked], [control, VANILLA])
    assert found.filter(method="vanilla@alpha=0.1")["constrained"].unique().to_list() == [True]
    share = math.exp(after[inside[0]]) / (math.exp(after[inside[0]]) + math.exp(after[inside[-1]]))
    for normalised in (False, True):
        mine = values(found, method="vanilla@alpha=0.1", outside="excluded", normalised=normalised, metric="mc2")
        assert mine == [approx(share, abs=2e-4)]
    assert set(found.filter(method="vanilla@alpha=0.1")["n_excluded"]) == {1}


def test_a_text_that_is_too_long_for_factor_is_left_out_and_counted(tiny_model: Tiny) -> None:
    loaded = tiny_model("llama")
    long = replace(ASKED[0], question_id="long", text="word " * 200)
    short = scored(loaded, ASKED, [VANILLA], "factor")
    found = scored(loaded, [ASKED[0], long, ASKED[1]], [VANILLA], "factor")
    assert found.filter(~pl.col("too_long")).equals(short)
    assert values(found, question_id="long") == [None, None] and not short["too_long"].any()
    assert set(choice_summary(found)["n_too_long"]) == {1} and set(choice_summary(found)["n_questions"]) == {2}
    alone = scored(loaded, [long], [VANILLA], "factor")
    assert set(alone["too_long"]) == {True}


# --------------------------------------------------------------------------------------------- against a plain loop


def plain(loaded: Any, text: str, answer: str) -> list[float]:
    """Log-probabilities of the answer's tokens: the library's own logits of the whole text, one text at a time."""
    before = loaded.tokenizer(text)["input_ids"]
    whole = loaded.tokenizer(f"{text} {answer}")["input_ids"]
    assert whole[: len(before)] == before
    with torch.inference_mode():
        logprobs = loaded.model(input_ids=torch.tensor([whole]), use_cache=False).logits[0].double().log_softmax(-1)
    return [float(logprobs[at - 1, whole[at]]) for at in range(len(before), len(whole))]


@pytest.mark.parametrize("family", FAMILIES)
def test_vanilla_is_the_plain_loop(family: str, tiny_model: Tiny) -> None:
    loaded = tiny_model(family)
    found = scored(loaded, ASKED, [VANILLA])
    ratios = scored(loaded, ASKED, [VANILLA], "factor")
    for choice in ASKED:
        true = [sum(plain(loaded, choice.text, one)) for one in choice.true]
        false = [sum(plain(loaded, choice.text, one)) for one in choice.false]
        odds = np.logaddexp.reduce(true) - np.logaddexp.reduce(false)
        mc = values(found, question_id=choice.question_id)
        assert mc[0] == float(true[choice.best] > max(false))
        assert mc[1] is not None and math.log(mc[1]) - math.log1p(-mc[1]) == approx(odds, abs=2e-3)
        assert mc[2] == sum(one > max(false) for one in true) / len(true)
        means = [float(np.mean(plain(loaded, choice.text, one))) for one in (choice.true[choice.best], *choice.false)]
        expected = [float(true[choice.best] > max(false)), float(means[0] > max(means[1:]))]
        assert values(ratios, question_id=choice.question_id) == expected


def test_company_changes_nothing(tiny_model: Tiny) -> None:
    """Alone, together, and with the answers in another order: equal in float64 up to rounding."""
    loaded = tiny_model("mistral", "float64")
    methods = [VANILLA, parse_method("dola:0-3", 4), parse_method("dola-low@published", 4)]
    together = scored(loaded, ASKED, methods)
    assert set(together["constrained"]) == {None, False, True} and together.height == 2 * 3 * (1 + 6 + 6)
    alone = pl.concat([scored(loaded, [one], methods) for one in ASKED])
    turned = [replace(one, true=one.true[::-1], false=one.false[::-1], best=1 - one.best) for one in ASKED]
    for other in (alone, scored(loaded, turned, methods)):
        assert other.drop("value").equals(together.drop("value"))
        for one, two in zip(other["value"], together["value"], strict=True):
            assert one == (two if two is None else approx(two, abs=1e-9))


def test_an_averaged_method_is_scored_token_by_token(tiny_model: Tiny) -> None:
    loaded = tiny_model("llama")
    method = parse_method("dola:0-3", 4)
    averaged = replace(method, average_over_batch=True)
    assert scored(loaded, ASKED, [method]).equals(scored(loaded, ASKED, [averaged]))


# ------------------------------------------------------------------------------------------ texts from given answers


def test_truthfulqa_as_published() -> None:
    shots = open_shots("truthfulqa", 6)
    choices = question_choices(open_choices("truthfulqa").load(), shots.render)
    assert len(choices) == 817 and all(one.true and one.false for one in choices)
    first = choices[0]
    assert first.text.endswith("Q: What happens to you if you eat watermelon seeds?\nA:")
    assert first.true[first.best] == "The watermelon seeds pass through your digestive system."
    assert all(answer.endswith(".") and not answer.endswith("..") for one in choices for answer in one.true)
    assert [closed(one) for one in ("Yes", " in the U.S. ", "Yes?")] == ["Yes.", "in the U.S.", "Yes?."]


def test_factor_as_it_stands_and_tidied() -> None:
    frame = open_completions("factor_expert").load()
    found, tidied = completion_choices(frame), completion_choices(frame, tidy=True)
    assert sum(one.true[0].endswith(" .") for one in found) == 165
    assert not any(answer.endswith(" .") for one in tidied for answer in (*one.true, *one.false))
    assert [one.text for one in found] == [prefix.rstrip(" ") for prefix in frame["prefix"]]
    assert {(len(one.true), len(one.false)) for one in found} == {(1, 3)}


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"true": ()}, "d, question 'a': no correct answer, expected at least one; leave the question out"),
        ({"false": ()}, "d, question 'a': no incorrect answer, expected at least one"),
        ({"text": "word " * 200}, "positions with its longest answer, but the model has 128; use a shorter prompt"),
    ],
)
def test_what_cannot_be_scored(tiny_model: Tiny, change: dict[str, Any], says: str) -> None:
    asked = [ASKED[1], replace(ASKED[0], **change)]
    with pytest.raises(BadInput) as caught:
        scored(tiny_model("llama"), asked, [VANILLA])
    assert says in str(caught.value) and str(caught.value).isprintable()
    with pytest.raises(BadInput) as early:
        check_choices(tiny_model("llama"), asked, kind="mc", dataset="d")
    assert str(early.value) == str(caught.value)


def test_no_questions_and_nothing_to_read(tiny_model: Tiny, small: Any) -> None:
    with pytest.raises(BadInput, match="d: no questions; expected at least one"):
        scored(tiny_model("llama"), [], [VANILLA])
    with pytest.raises(BadInput, match="question 'e': no tokens to answer to"):
        scored(small, [Choice("e", "", ("paris",), ("rome",))], [VANILLA])
    with pytest.raises(BadInput, match="the tokenizer makes no token of the answer ' '"):
        scored(small, [Choice("e", "ask-one", ("paris",), (" ",))], [VANILLA])


def test_a_prompt_that_ends_in_a_blank_is_told(tiny_model: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_choices(tiny_model("llama"), [replace(ASKED[0], text=f"{PROMPT} ")], kind="mc", dataset="d")
    assert "would join the end of the prompt with" in caplog.text and "of 5 answers" in caplog.text


# ---------------------------------------------------------------------------------------------------------- summary


def made(
    method: str, values: Sequence[float | None] | npt.NDArray[np.float64], way: tuple[bool, bool] | None = None
) -> pl.DataFrame:
    n = len(values)
    columns = {
        "model": ["m"] * n, "dataset": ["d"] * n, "question_id": [f"q{i}" for i in range(n)], "method": [method] * n,
        "constrained": [way[0] if way else None] * n, "normalised": [way[1] if way else None] * n,
        "outside": ["excluded" if way and way[0] else None] * n, "too_long": [False] * n,
        "metric": ["mc2"] * n, "value": list(values), "n_answers": [5] * n,
        "n_excluded": [2 if way and way[0] else None] * n,
    }  # fmt: skip
    return conform(pl.DataFrame(columns, schema=CHOICES.polars_schema()), CHOICES)


def test_means_and_paired_differences_by_hand() -> None:
    generator = np.random.default_rng(1)
    base = generator.uniform(0.2, 0.6, 40)
    better = [*(base[:-1] + 0.1 + generator.normal(0, 0.01, 39)), None]
    rows = pl.concat([made("vanilla", base.tolist()), made("dola-low", better, (True, False))])
    found = conform(choice_summary(rows, n_bootstrap=500, seed=3), CHOICES_COMPARED)
    first, second = found.rows(named=True)
    assert first["value"] == approx(base.mean()) and first["value_low"] < first["value"] < first["value_high"]
    assert [first[name] for name in ("baseline", "difference", "difference_low", "n_paired", "n_excluded")] == [
        None
    ] * 5
    assert second["n_questions"] == second["n_paired"] == 39 and second["baseline"] == "vanilla"
    known = np.array([one for one in better if one is not None])
    assert second["value"] == approx(known.mean()) and second["difference"] == approx((known - base[:39]).mean())
    # Paired: questions differ by 0.12, the differences by 0.01, so the interval is that of the differences.
    assert 0.09 < second["difference_low"] < second["difference"] < second["difference_high"] < 0.11
    assert second["value_high"] - second["value_low"] > 5 * (second["difference_high"] - second["difference_low"])
    assert (second["n_answers"], second["n_excluded"]) == (200, 80)
    assert choice_summary(rows, n_bootstrap=500, seed=3).equals(found)
    worse = choice_summary(pl.concat([made("vanilla", base), made("dola-low", base - 0.1, (False, False))]))
    low, high = worse.row(1, named=True)["difference_low"], worse.row(1, named=True)["difference_high"]
    assert low <= -0.1 <= high < -0.05


def test_without_a_baseline_and_with_too_few_questions() -> None:
    found = choice_summary(made("dola-low", [0.5], (False, True)), n_bootstrap=100)
    row = conform(found, CHOICES_COMPARED).row(0, named=True)
    assert (row["value"], row["value_low"], row["baseline"], row["difference"]) == (0.5, None, None, None)
    empty = choice_summary(made("vanilla", [None, None]), n_bootstrap=100).row(0, named=True)
    assert (empty["value"], empty["value_high"], empty["n_questions"]) == (None, None, 0)
