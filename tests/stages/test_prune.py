"""BLOCKS: a planted block that does nothing goes first by every criterion that can know it, and rows by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.cli.prune_options import parse_bound
from hcl_cli.errors import BadOption
from hcl_cli.measures.activations import Epsilon
from hcl_cli.measures.block_scores import random_scores
from hcl_cli.measures.block_selection import Selection
from hcl_cli.models.cut import without_blocks
from hcl_cli.models.load import loaded_from
from hcl_cli.schemas import BLOCKS
from hcl_cli.stages.eavss import JudgedAnswers
from hcl_cli.stages.prune import Read, Scoring, block_table

Row = dict[str, Any]

IDLE = 3  # the planted block
ONE = Selection(fraction=None, n=1)
EPSILON = Epsilon(0.01, relative=True)


@pytest.fixture(scope="module")
def planted(tiny_model: Callable[..., Any]) -> Any:
    """A Llama of four blocks whose third adds nothing."""
    model = copy.deepcopy(tiny_model("llama").model)
    with torch.no_grad():
        model.model.layers[IDLE - 1].self_attn.o_proj.weight.zero_()
        model.model.layers[IDLE - 1].mlp.down_proj.weight.zero_()
    return loaded_from(model, tiny_model("llama").tokenizer, "planted")


@pytest.fixture(scope="module")
def read(planted: Any) -> Read:
    """What the model itself says when it draws: a random text may be likelier without a block."""
    begun = torch.tensor([[0, token] for token in range(3, 11)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = planted.model.generate(begun, max_new_tokens=16, do_sample=True, eos_token_id=None, top_k=0)
    return Read(tuple(map(tuple, found.tolist())), (1,) * len(begun))


def table(loaded: Any, read: Read, criteria: tuple[str, ...] = (), selection: Selection = ONE, **options: Any) -> Any:
    """Rows by (criterion, activations, seed), in the order of blocks, and what was said."""
    said: list[str] = []
    scoring = Scoring(criteria, selection, **{"epsilon": EPSILON, "n_resamples": 100, "n_permutations": 50} | options)
    frame = block_table(loaded, read, scoring, model="m", dataset="d", say=said.append)
    assert dict(frame.schema) == BLOCKS.polars_schema()
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in frame.iter_rows(named=True):
        assert (row["model"], row["dataset"]) == ("m", "d")
        found.setdefault((row["criterion"], row["activations"], row["seed"]), []).append(row)
    assert all([row["block"] for row in rows] == [1, 2, 3, 4] for rows in found.values())
    return found, said


def column(rows: list[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


def removed(rows: list[Row]) -> list[int]:
    return [row["block"] for row in rows if row["removed"]]


def loss_without(loaded: Any, read: Read, gone: tuple[int, ...]) -> float:
    """Mean loss of the tokens that count, one text at a time by the library's own logits."""
    total, n = 0.0, 0
    with without_blocks(loaded, gone) if gone else nullcontext(loaded) as cut, torch.inference_mode():
        for text, first in zip(read.texts, read.firsts, strict=True):
            ids = torch.tensor([text])
            logits = cut.model(ids, use_cache=False).logits[0, first - 1 : -1].double()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, first:], reduction="sum"))
            n += len(text) - first
    return total / n


def test_a_block_that_does_nothing_goes_first(planted: Any, read: Read) -> None:
    """Its influence, angle, Taylor score and damage are 0; greedy removes it first, and the loss stays as it was."""
    criteria = ("avss", "block-influence", "angular", "perplexity", "taylor")
    found, said = table(planted, read, criteria, greedy=True, activations=("mlp",))
    assert said == []
    for criterion in criteria:
        (rows,) = (rows for key, rows in found.items() if key[0] == criterion)
        assert removed(rows) == [IDLE] and rows[IDLE - 1]["rank"] == 1, criterion
        assert sorted(column(rows, "rank")) == [1, 2, 3, 4]
        others = [row["damage"] for row in rows if row["block"] != IDLE]
        assert abs(rows[IDLE - 1]["damage"]) < 1e-6 < 0.1 < min(others)
        assert rows[IDLE - 1]["damage_low"] == pytest.approx(0, abs=1e-6)
    assert found["taylor", None, None][IDLE - 1]["score"] == 0
    for criterion in ("block-influence", "angular"):
        scores = column(found[criterion, "residual", None], "score")
        assert abs(scores[IDLE - 1]) < 1e-3 and min(scores[:2] + scores[3:]) > 0.05
    assert set(found) == {
        ("avss", "mlp", None), ("block-influence", "residual", None), ("angular", "residual", None),
        ("perplexity", None, None), ("taylor", None, None), ("greedy", None, None),
    }  # fmt: skip
    whole = loss_without(planted, read, ())
    greedy = found["greedy", None, None]
    assert removed(greedy) == [IDLE]
    assert column(greedy, "rank") == [None, None, 1, None]
    assert greedy[IDLE - 1]["score"] == pytest.approx(whole, rel=1e-6)


def test_what_the_loss_is_without_each_block(planted: Any, read: Read) -> None:
    """`perplexity` and `damage` are those of the model without the block; the interval holds the value."""
    rows = table(planted, read, ("perplexity",), damage=False)[0]["perplexity", None, None]
    whole = loss_without(planted, read, ())
    for row in rows:
        without = loss_without(planted, read, (row["block"],))
        assert row["score"] == pytest.approx(math.exp(without), rel=1e-4)
        assert row["damage"] == pytest.approx(without - whole, abs=1e-5)
        assert row["score_low"] <= row["score"] <= row["score_high"]
    single = Read(read.texts[:1], read.firsts[:1])
    alone = table(planted, single, ("perplexity",))[0]["perplexity", None, None]
    for name in ("score_low", "score_high", "damage_low", "damage_high"):
        assert column(alone, name) == [None] * 4


def test_damage_only_where_it_is_asked_for(planted: Any, read: Read) -> None:
    (rows,) = table(planted, read, ("magnitude",), damage=False)[0].values()
    for name in ("damage", "damage_low", "damage_high"):
        assert column(rows, name) == [None] * 4


def test_rows_of_weights_by_hand(planted: Any, read: Read) -> None:
    """Shares of the score and their sums by depth, the norm of all weights, nothing of activations."""
    (rows,) = table(planted, read, ("magnitude",), Selection(fraction=0.5), damage=False)[0].values()
    parameters = [list(block.parameters()) for block in planted.model.model.layers]
    sizes = [sum(float(weight.detach().double().abs().sum()) for weight in of_block) for of_block in parameters]
    squares = [sum(float(weight.detach().double().pow(2).sum()) for weight in of_block) for of_block in parameters]
    assert column(rows, "score") == pytest.approx(sizes)
    assert column(rows, "normalised") == pytest.approx([size / sum(sizes) for size in sizes])
    assert column(rows, "cumulative") == pytest.approx([sum(sizes[: n + 1]) / sum(sizes) for n in range(4)])
    assert column(rows, "weight_norm") == pytest.approx([square**0.5 for square in squares])
    order = sorted(range(4), key=lambda block: sizes[block])
    assert column(rows, "rank") == [order.index(block) + 1 for block in range(4)]
    assert removed(rows) == sorted(block + 1 for block in order[:2])
    for name in ("activations", "seed", "variance", "sparsity", "epsilon", "l1_norm", "p_value", "score_low"):
        assert column(rows, name) == [None] * 4


def test_orders_that_any_criterion_has_to_beat(planted: Any, read: Read) -> None:
    """`last` takes the deepest, `first` the first, `random` one order per seed; none has shares."""
    two = Selection(fraction=None, n=2)
    found, _ = table(planted, read, ("random", "last", "first"), two, random_seeds=(7, 8), damage=False)
    assert list(found) == [("random", None, 7), ("random", None, 8), ("last", None, None), ("first", None, None)]
    assert column(found["last", None, None], "rank") == [4, 3, 2, 1]
    assert removed(found["last", None, None]) == [3, 4]
    assert column(found["first", None, None], "rank") == [1, 2, 3, 4]
    assert removed(found["first", None, None]) == [1, 2]
    for seed in (7, 8):
        scores = random_scores(4, seed)
        rows = found["random", None, seed]
        assert column(rows, "rank") == [int(score) + 1 for score in scores]
        assert removed(rows) == [block for block in (1, 2, 3, 4) if scores[block - 1] < 2]
    assert all(row["normalised"] is None and row["cumulative"] is None for rows in found.values() for row in rows)


def test_kinds_of_activations_have_rows_of_their_own(planted: Any, read: Read) -> None:
    """Only `avss` reads other kinds. A block that adds nothing is all zeros behind its attention and its MLP."""
    kinds = ("residual", "attention", "mlp")
    found, _ = table(planted, read, ("avss", "angular"), activations=kinds, damage=False)
    assert list(found) == [*(("avss", kind, None) for kind in kinds), ("angular", "residual", None)]
    for kind in ("attention", "mlp"):
        idle = found["avss", kind, None][IDLE - 1]
        assert (idle["variance"], idle["sparsity"], idle["l1_norm"], idle["score"]) == (0, 1, 0, 0)
    variances = [column(found["avss", kind, None], "variance")[0] for kind in kinds]
    assert len(set(variances)) == 3
    row = found["avss", "residual", None][0]
    assert row["score"] == pytest.approx(row["variance"] / row["sparsity"])
    assert row["score_low"] < row["score"] < row["score_high"]


def test_given_blocks_and_steps_of_the_search(planted: Any, read: Read) -> None:
    """What the user names has no score and no rank; a search has the loss after each step."""
    two = Selection(fraction=0.5, n=None, protected=frozenset({IDLE}))
    found, _ = table(planted, read, (), two, given=(2, 4), greedy=True, damage=False)
    assert list(found) == [("greedy", None, None), ("given", None, None)]
    given = found["given", None, None]
    assert removed(given) == [2, 4]
    assert column(given, "rank") == column(given, "score") == [None] * 4
    greedy = found["greedy", None, None]
    gone: list[int] = []
    for step in (1, 2):  # the idle block, which would go first, is protected
        losses = {
            block: loss_without(planted, read, tuple(sorted((*gone, block)))) for block in {1, 2, 4}.difference(gone)
        }
        (row,) = (row for row in greedy if row["rank"] == step)
        assert row["block"] == min(losses, key=lambda block: losses[block])
        assert row["score"] == pytest.approx(min(losses.values()), rel=1e-5)
        gone.append(row["block"])
    assert removed(greedy) == sorted(gone)
    assert column(greedy, "score").count(None) == column(greedy, "rank").count(None) == 2


def test_the_published_rule_removes_the_first_blocks(planted: Any, read: Read) -> None:
    """The authors add up in the order of depth: blocks 1 and 2 go, whatever they have; sorted, the idle one goes."""
    lowest = table(planted, read, ("block-influence",), damage=False)[0]["block-influence", "residual", None]
    sums = column(lowest, "cumulative")
    published = Selection("published", (sums[1] + sums[3]) / 2)
    (rows,) = table(planted, read, ("block-influence",), published, damage=False)[0].values()
    assert removed(rows)[:2] == [1, 2] and 4 not in removed(rows)
    cumulative = Selection("cumulative", 0.01)
    (rows,) = table(planted, read, ("block-influence",), cumulative, damage=False)[0].values()
    assert removed(rows) == [IDLE]


def test_blocks_without_a_score_go_last_and_it_is_said(planted: Any, read: Read) -> None:
    """Where no activation is below the bound there is no AVSS; the idle block alone has one. Two cannot go then."""
    tiny = {"epsilon": Epsilon(1e-30), "activations": ("mlp",), "damage": False}
    found, said = table(planted, read, ("avss",), **tiny)
    rows = found["avss", "mlp", None]
    assert column(rows, "score") == [None, None, 0, None]
    assert column(rows, "rank") == [2, 3, 1, 4] and removed(rows) == [IDLE]
    assert len(said) == 1 and said[0].startswith("avss: 3 of 4 blocks have no score") and "go last" in said[0]
    with pytest.raises(BadOption, match="--criterion avss: 2 blocks to remove, but only 1 of 4") as caught:
        table(planted, read, ("avss",), Selection(fraction=None, n=2), **tiny)
    assert "\n" not in str(caught.value)


def test_a_contiguous_run_is_that_of_the_angle_between_its_ends(planted: Any, read: Read) -> None:
    """Block 2 is made to undo block 1: both turn the state far, yet together not at all. By the sum of their angles a
    run with the idle block would go."""
    before: list[torch.Tensor] = []
    blocks = planted.model.model.layers
    handles = [
        blocks[0].register_forward_pre_hook(lambda _block, args: before.__setitem__(slice(None), args[:1])),
        blocks[1].register_forward_hook(lambda *_: before[0].clone()),
    ]
    try:
        (rows,) = table(planted, read, ("angular",), Selection("contiguous", None, 2), damage=False)[0].values()
    finally:
        for handle in handles:
            handle.remove()
    scores = column(rows, "score")
    assert scores[0] + scores[1] > scores[2] + scores[3]
    assert removed(rows) == [1, 2]


@pytest.fixture(scope="module")
def judged(read: Read) -> Read:
    """Two answers to each of four questions, the second of them wrong; an answer begins at token 5."""
    wrong = np.arange(8) % 2 == 1
    answers = JudgedAnswers(read.texts, (5,) * 8, wrong, np.arange(8) // 2, 0, 0, 0)
    factual = [place for place in range(8) if not wrong[place]]
    return Read(tuple(read.texts[place] for place in factual), (5,) * 4, answers)


def test_answers_are_measured_on_their_own_tokens(planted: Any, judged: Read) -> None:
    """Activations: every answer without its prompt. Likelihood: the factual ones alone, without their prompts."""
    found, _ = table(planted, judged, ("avss", "perplexity", "hsav", "hss", "eavss"))
    assert judged.answers is not None
    whole = loss_without(planted, judged, ())
    for row in found["perplexity", None, None]:
        without = loss_without(planted, judged, (row["block"],))
        assert row["score"] == pytest.approx(math.exp(without), rel=1e-4)
        assert row["damage"] == pytest.approx(without - whole, abs=1e-5)
    with torch.inference_mode():  # [answer, token, hidden] behind block 2
        states = [
            planted.model(torch.tensor([text]), output_hidden_states=True).hidden_states[2][0, 5:].double()
            for text in judged.answers.sequences
        ]
    variances = np.array([float(own.var(-1, correction=0).mean()) for own in states])
    assert found["avss", "residual", None][1]["variance"] == pytest.approx(variances.mean(), rel=1e-4)
    hsav, hss = found["hsav", "residual", None], found["hss", "residual", None]
    assert hsav[1]["score"] == pytest.approx(variances[1::2].mean(), rel=1e-4)
    order = sorted(range(4), key=lambda place: -hsav[place]["score"])  # the lower of equals: block 3 repeats block 2
    assert column(hsav, "rank") == [order.index(place) + 1 for place in range(4)]
    assert column(hss, "score") == column(hsav, "sparsity")
    assert hss[int(np.argmin(column(hss, "score")))]["rank"] == 1
    eavss = found["eavss", "residual", None]
    assert eavss[int(np.argmax(column(eavss, "score")))]["removed"]
    assert all(0 < row["p_value"] <= row["p_adjusted"] <= 1 for row in eavss)
    assert column(hsav, "p_value") == column(found["avss", "residual", None], "p_value") == [None] * 4


def test_answers_to_questions_are_measured_from_their_first_token(planted: Any, read: Read) -> None:
    """Texts count from their first token, answers behind a question from where they begin."""
    answers = Read(read.texts, (5,) * 8)
    whole, own = (
        table(planted, each, ("avss",), damage=False)[0]["avss", "residual", None] for each in (read, answers)
    )
    with torch.inference_mode():
        states = [
            planted.model(torch.tensor([text]), output_hidden_states=True).hidden_states[1][0].double()
            for text in read.texts
        ]
    for rows, first in ((whole, 0), (own, 5)):
        expected = np.mean([float(state[first:].var(-1, correction=0).mean()) for state in states])
        assert rows[0]["variance"] == pytest.approx(expected, rel=1e-4)


def test_everything_is_measured_once(planted: Any, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass for all activation criteria of all kinds, one for perplexity and damage."""
    from hcl_cli.models import block_losses, block_statistics

    calls = []
    for module, name in ((block_statistics, "block_statistics"), (block_losses, "block_losses")):
        own = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, own=own, name=name, **k: calls.append(name) or own(*a, **k))
    criteria = ("avss", "block-influence", "angular", "perplexity")
    table(planted, read, criteria, activations=("residual", "mlp"))
    assert sorted(calls) == ["block_losses", "block_statistics"]


def test_a_bound_that_is_none_is_one_line() -> None:
    assert parse_bound("0.01rms") == Epsilon(0.01, relative=True)
    assert parse_bound("1e-5") == Epsilon(1e-5)
    for text in ("0", "-1", "nan", "small", "0rms"):
        with pytest.raises(BadOption, match=f"--epsilon {text}: expected a number above 0") as caught:
            parse_bound(text)
        assert "\n" not in str(caught.value)
