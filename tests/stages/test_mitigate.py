"""Which blocks are trained, and what is measured of them on held-out questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.measures.contrastive import cosine_margin, info_nce
from hcl_cli.models.adapters import Lora
from hcl_cli.models.answer_pass import answer_pass
from hcl_cli.models.hidden_items import Item
from hcl_cli.stages.contrast_pairs import AnsweredQuestion
from hcl_cli.stages.contrastive_training import Training
from hcl_cli.stages.mitigate import (
    Parts,
    Variant,
    hallucination_prone,
    parts_of,
    planned_variants,
    random_blocks,
    trainings,
)
from hcl_cli.stages.mitigate_held_out import (
    ContrastReading,
    FactualReading,
    compared,
    held_out_metrics,
    held_out_questions,
)

FACTUAL, WRONG = (40, 50), (45, 55)


def question(number: int, factual: tuple[int, ...] = FACTUAL, wrong: tuple[int, ...] = WRONG) -> AnsweredQuestion:
    generator = torch.Generator().manual_seed(number)
    prompt = tuple(torch.randint(3, 39, (6,), generator=generator).tolist())

    def items(kind: str, tokens: tuple[int, ...]) -> tuple[Item, ...]:
        return tuple(Item(f"{number}{kind}{token}", (*prompt, token, token + 1, 1), 6, 8) for token in tokens)

    return AnsweredQuestion(f"q{number}", items("f", factual), items("h", wrong))


QUESTIONS = [question(number) for number in range(30)]


def test_what_is_trained() -> None:
    """By hand: the chosen blocks first, the same without the contrast, two draws of other blocks, all of them."""
    names = ("chosen", "random-layers", "all-layers", "cross-entropy")
    found = planned_variants(names, (2, 5), 6, chosen_by="eavss", random_seeds=[3, 4])
    assert found[:2] == [Variant("eavss", (2, 5)), Variant("cross-entropy", (2, 5), is_contrastive=False)]
    assert [one.label for one in found[2:]] == ["random-layers 3", "random-layers 4", "all-layers"]
    assert [one.seed for one in found] == [None, None, 3, 4, None]
    assert found[4].blocks == (1, 2, 3, 4, 5, 6)


@given(st.data())
def test_random_blocks_are_others_as_long_as_there_are_enough(data: st.DataObject) -> None:
    """As many as were chosen, none twice, none chosen if others suffice and all others if they do not."""
    n_layers = data.draw(st.integers(2, 12))
    blocks = st.lists(st.integers(1, n_layers), min_size=1, max_size=n_layers - 1, unique=True)
    chosen = tuple(sorted(data.draw(blocks)))
    found = random_blocks(chosen, n_layers, data.draw(st.integers(0, 2**32 - 1)))
    assert len(set(found)) == len(found) == len(chosen) and set(found) <= set(range(1, n_layers + 1))
    others = set(range(1, n_layers + 1)) - set(chosen)
    assert found == tuple(sorted(found)) and (set(found) <= others or others <= set(found))
    assert set(found) != set(chosen)


def test_every_other_block_is_drawn_about_as_often() -> None:
    """2 of 8 others in 400 draws: each about 100 times (standard deviation 8.7); the same seed draws the same."""
    draws = [random_blocks((3, 7), 10, seed) for seed in range(400)]
    counts = np.bincount([block for draw in draws for block in draw], minlength=11)[1:]
    assert counts[[2, 6]].tolist() == [0, 0] and (abs(counts[counts > 0] - 100) < 40).all()
    assert draws[:3] == [random_blocks((3, 7), 10, seed) for seed in range(3)]
    with pytest.raises(BadOption, match="all 3 blocks are trained, so none can be drawn"):
        random_blocks((1, 2, 3), 3, 0)


def test_questions_that_cannot_be_split_or_contrasted_are_refused() -> None:
    parts = parts_of(QUESTIONS, 0)
    assert sum(map(len, (parts.train, parts.validation, parts.test))) == 30
    ids = [{one.question_id for one in part} for part in (parts.train, parts.validation, parts.test)]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
    lone = [replace(one, factual=one.factual[:1]) for one in QUESTIONS]
    with pytest.raises(BadInput, match="training questions has two different correct answers.*--answers-of all"):
        parts_of(lone, 0)
    with pytest.raises(BadInput, match="none falls to|is held out"):
        parts_of(QUESTIONS[:2], 0)


def test_the_block_that_is_busier_on_hallucinations_is_chosen(tiny_model: Callable[..., Any]) -> None:
    """Planted: block 3's output is blown up at tokens of wrong answers alone; the contrast finds it whatever order the
    questions come in, and a fraction too small for a block still chooses one. Block 2 is louder still at the end of a
    sequence, which only wrong answers reach here: that is no token of an answer."""
    loaded = tiny_model("llama")
    louder = {2: torch.ones(352), 3: torch.ones(352)}
    louder[2][1] = 300.0
    louder[3][[45, 46, 55, 56]] = 30.0
    seen: dict[str, Any] = {}

    def read(_model: Any, _args: Any, kwargs: Any) -> None:
        seen["ids"] = kwargs["input_ids"]

    def blow_up(number: int) -> Callable[[Any, Any, Any], Any]:
        def hook(_block: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden * louder[number][seen["ids"]][..., None]
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    def quiet_again(number: int) -> Callable[[Any, Any, Any], Any]:
        def hook(_block: Any, args: Any, kwargs: Any) -> Any:
            return (args[0] / louder[number][seen["ids"]][..., None], *args[1:]), kwargs

        return hook

    blocks = loaded.anatomy.blocks
    handles = [loaded.anatomy.decoder.register_forward_pre_hook(read, with_kwargs=True)]
    for number in (2, 3):
        handles.append(blocks[number - 1].register_forward_hook(blow_up(number)))
        handles.append(blocks[number].register_forward_pre_hook(quiet_again(number), with_kwargs=True))
    open_ended = [
        replace(one, factual=tuple(replace(item, ids=item.ids[:-1]) for item in one.factual)) for one in QUESTIONS
    ]
    try:
        chosen = [hallucination_prone(loaded, rows, 0.25, batch_tokens=256) for rows in (open_ended, open_ended[::-1])]
        assert hallucination_prone(loaded, open_ended, 0.01, batch_tokens=256) == (3,)
    finally:
        for handle in handles:
            handle.remove()
    assert chosen == [(3,), (3,)]


def test_perplexity_of_factual_answers_is_that_of_the_library(tiny_model: Callable[..., Any]) -> None:
    """Summed over a question's answers, the end-of-sequence token counted; NaN without an answer."""
    loaded = tiny_model("gpt2")
    rows = [question(0), question(1, factual=()), question(2, factual=(41,))]
    found = FactualReading(rows)(loaded)["perplexity"]
    assert np.isnan(found[1]).all() and found[[0, 2], 1].tolist() == [6.0, 3.0]
    for place in (0, 2):
        total = 0.0
        for item in rows[place].factual:
            ids = torch.tensor([item.ids])
            labels = ids.clone()
            labels[0, :6] = -100
            with torch.inference_mode():
                total += 3 * float(loaded.model(input_ids=ids, labels=labels).loss)
        assert found[place, 0] == pytest.approx(total, rel=1e-4)


def test_contrast_of_held_out_questions(tiny_model: Callable[..., Any]) -> None:
    """Both numbers are means over the blocks; a question without a contrast has none."""
    loaded = tiny_model("llama")
    rows = [question(0), question(1, factual=(40,))]
    found = ContrastReading(rows, (2, 4), Training(temperature=0.5))(loaded)
    assert np.isnan(found["contrastive-loss"][1]).all() and np.isnan(found["cosine-margin"][1]).all()
    items = [*rows[0].factual, *rows[0].hallucinated]
    with torch.inference_mode():
        states = answer_pass(loaded, items, (2, 4), [False] * 4).states
    group, factual = torch.zeros(4, dtype=torch.int64), torch.tensor([True, True, False, False])
    losses = [float(info_nce(states[at], group, factual, 0.5)) for at in (0, 1)]
    margins = [float(cosine_margin(states[at], group, factual)) for at in (0, 1)]
    assert float(found["contrastive-loss"][0, 0]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(found["cosine-margin"][0, 0]) == pytest.approx(np.mean(margins), rel=1e-4)


def test_held_out_questions_keep_their_answers_and_their_order() -> None:
    scored = pl.DataFrame(
        {"question_id": ["b", "a", "a", "c"], "question": ["B?", "A?", "A?", "C?"], "response": ["x", "y", "z", "w"],
         "sample_index": [0, 0, 1, 0], "answers": [["x"], None, ["y", "z"], None]}
    )  # fmt: skip
    found = held_out_questions(scored, ["a", "b", "c"])
    assert found.rows() == [("a", "A?", ["y", "z"]), ("b", "B?", ["x"]), ("c", "C?", [])]
    with pytest.raises(BadInput, match="none of 1 held-out questions has an accepted answer"):
        held_out_questions(scored, ["c"])


def test_rows_of_every_variant(tiny_model: Callable[..., Any]) -> None:
    """Eight rows each; before is the same model for all; the lead is after minus after of the first random draw, which
    itself has none; a variant that trained nothing differs by exactly 0; the model is as it was at the end."""
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.stages.quality_answers import Asking

    loaded = tiny_model("llama")
    own = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    parts = Parts(tuple(QUESTIONS[:10]), tuple(QUESTIONS[10:14]), tuple(QUESTIONS[14:20]))
    asked = pl.DataFrame(
        {"question_id": [one.question_id for one in parts.test], "question": [f"Which {n}?" for n in range(6)],
         "answers": [["a"]] * 6}
    )  # fmt: skip
    training = Training(epochs=1, learning_rate=0.01, likelihood_weight=0.1, lora=Lora(2, 4))
    variants = [
        Variant("given", (2,)), Variant("random-layers", (4,), 0), Variant("random-layers", (3,), 1),
    ]  # fmt: skip
    seen: list[tuple[str, int]] = []
    trained = trainings(loaded, parts, variants, training, lambda one, epoch: seen.append((one.label, epoch.number)))
    assert seen == [(one.label, number) for one in variants for number in (0, 1)]
    asking = Asking(open_prompt("raw"), 2, 0.6, max_new_tokens=4)
    metrics = held_out_metrics(asked, parts, asking, dataset="set")
    rows = compared(loaded, trained, metrics, parts, training, model="tiny", n_bootstrap=200)
    assert rows.group_by("variant", "seed", maintain_order=True).len()["len"].to_list() == [8, 8, 8]
    by = {(row["variant"], row["seed"], row["metric"]): row for row in rows.iter_rows(named=True)}
    for metric in ("hallucination-rate", "creativity", "perplexity", "ece", "brier", "auroc"):
        given, first, second = (
            by[key] for key in (("given", None, metric), *(("random-layers", n, metric) for n in (0, 1)))
        )
        assert given["before"] == first["before"] == second["before"]
        assert given["lead_over"] == "random-layers 0" and first["lead_over"] is second["lead_over"] is None
        if given["after"] is not None:
            assert given["lead"] == pytest.approx(given["after"] - first["after"], abs=1e-9)
    lower = by["given", None, "perplexity"]
    assert lower["n_units"] == 6 and lower["unit"] == "questions" and lower["blocks"] == [2]
    assert lower["after"] != lower["before"] and by["given", None, "cosine-margin"]["lead"] is None
    assert all(torch.equal(weight, own[name]) for name, weight in loaded.model.state_dict().items())
