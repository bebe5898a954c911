"""Greedy removal is the best single removal, repeated, and takes a block that does nothing first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from hcl_cli.errors import BadOption
from hcl_cli.models.cut import without_blocks
from hcl_cli.stages.greedy import greedy_removal

TEXTS = [(3, 9, 200, 14, 7), (5, 6), (40, 41, 42, 43, 44, 45, 46, 47, 48, 300)]


def loss_of(loaded: Any, removed: Sequence[int]) -> float:
    """Mean loss per token without some blocks, one text at a time by the library's own logits."""
    total = 0.0
    with without_blocks(loaded, removed) as cut, torch.inference_mode():
        for text in TEXTS:
            ids = torch.tensor([text])
            logits = cut.model(ids, use_cache=False).logits[0, :-1].double()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
    return total / sum(len(text) - 1 for text in TEXTS)


@pytest.mark.parametrize("family", ["llama32", "gemma3_text", "gpt2"])
def test_each_step_is_the_best_of_all_single_removals(family: str, tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model(family)
    path = greedy_removal(loaded, TEXTS, 3)
    removed: list[int] = []
    for step in path.steps:
        left = [block for block in (1, 2, 3, 4) if block not in removed]
        expected = {block: loss_of(loaded, [*removed, block]) for block in left}
        assert step.losses.blocks == tuple(left)
        assert step.losses.mean_without.tolist() == pytest.approx(list(expected.values()), rel=1e-5)
        assert step.block == min(expected, key=lambda block: expected[block])
        removed.append(step.block)
        assert step.loss == pytest.approx(expected[step.block], rel=1e-5)
    assert path.removed == tuple(removed)
    assert path.losses[1:] == tuple(step.loss for step in path.steps)
    assert path.losses[1] == pytest.approx(path.steps[1].losses.mean_whole, rel=1e-6)
    assert loaded.n_layers == len(loaded.anatomy.decoder.get_submodule(loaded.anatomy.blocks_name)) == 4


def own_texts(loaded: Any) -> list[tuple[int, ...]]:
    """What the model itself says when it draws: on random texts a random model may be better without a block."""
    torch.manual_seed(0)
    begun = torch.tensor([[0, token] for token in range(3, 11)])
    found = loaded.model.generate(begun, max_new_tokens=24, do_sample=True, eos_token_id=None, top_k=0)
    return [tuple(ids) for ids in found.tolist()]


def test_a_block_that_does_nothing_goes_first_unless_it_is_protected(tiny_model: Callable[..., Any]) -> None:
    loaded = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            loaded.anatomy.blocks[1].get_submodule(name).weight.zero_()
    texts = own_texts(loaded)
    path = greedy_removal(loaded, texts, 2)
    assert path.removed[0] == 2
    assert path.losses[2] > path.losses[1] + 0.1 and path.losses[1] == path.losses[0]
    assert greedy_removal(loaded, texts, 1).removed == path.removed[:1]
    held = greedy_removal(loaded, texts, 2, protected=(2, 4))
    assert sorted(held.removed) == [1, 3]
    assert held.steps[0].losses.blocks == (1, 3)


def test_the_lower_of_equals_goes(tiny_model: Callable[..., Any]) -> None:
    """Blocks 2 and 3 both do nothing."""
    loaded = copy.deepcopy(tiny_model("llama"))
    with torch.no_grad():
        for index in (1, 2):
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                loaded.anatomy.blocks[index].get_submodule(name).weight.zero_()
    assert greedy_removal(loaded, own_texts(loaded), 2).removed == (2, 3)


def test_progress_is_over_all_steps(tiny_model: Callable[..., Any]) -> None:
    seen: list[tuple[int, int]] = []
    greedy_removal(tiny_model("llama"), TEXTS, 2, batch_tokens=1, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(done, 6) for done in (1, 2, 3, 4, 5, 6)]


@pytest.mark.parametrize(
    ("n_blocks", "protected", "said"),
    [
        (0, (), "0 blocks to remove one after the other: expected 1 to 3 of the 4 blocks of llama"),
        (4, (), "4 blocks .*: expected 1 to 3 of the 4 blocks of llama$"),
        (3, (1, 2), "3 blocks .*: expected 1 to 2 of the 4 blocks of llama, since 2 are protected"),
    ],
)
def test_more_than_may_go_is_one_line(
    n_blocks: int, protected: tuple[int, ...], said: str, tiny_model: Callable[..., Any]
) -> None:
    with pytest.raises(BadOption, match=said) as caught:
        greedy_removal(tiny_model("llama"), TEXTS, n_blocks, protected=protected)
    assert "\n" not in str(caught.value)
