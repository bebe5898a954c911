"""What is lost without each block: a planted block that does nothing is found, and numbers by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.models.block_losses import BlockLosses, block_losses
from hcl_cli.models.cut import without_blocks
from hcl_cli.stages.damage import Estimate, block_damage, loss_sequences, perplexity_of, whole_loss

TEXTS = [("a", "Answer the following question with no other comment."), ("b", "What is the capital of France?"),
         ("c", "Name an animal that lives in the sea. Answer: the blue whale")]  # fmt: skip


def test_means_are_over_tokens_by_hand() -> None:
    """Two texts of 3 and 1 tokens. Whole 6 + 2 nats: 2 a token. Without block 1 9 + 3: 3 a token, perplexity e^3,
    damage 1 for both texts, so its interval is a point; without block 2 6 + 6: 3 a token, damage 0 and 4 a text."""
    losses = BlockLosses((1, 2), np.array([3, 1]), np.array([6.0, 2.0]), np.array([[9.0, 3.0], [6.0, 6.0]]))
    one, two = block_damage(losses, n_resamples=200)
    assert whole_loss(losses).value == 2.0
    assert (one.block, one.loss.value, one.damage) == (1, 3.0, Estimate(1.0, 1.0, 1.0))
    assert one.perplexity.value == pytest.approx(math.exp(3))
    assert (two.block, two.loss.value, two.damage.value) == (2, 3.0, 1.0)
    assert two.damage.low == 0.0 and two.damage.high == 4.0
    assert (losses.mean_whole, losses.mean_without.tolist()) == (2.0, [3.0, 3.0])


def test_one_text_has_no_interval_and_a_huge_loss_no_overflow() -> None:
    losses = BlockLosses((1,), np.array([2]), np.array([2.0]), np.array([[2000.0]]))
    (one,) = block_damage(losses)
    assert one.perplexity == Estimate(math.inf, None, None)
    assert one.damage == Estimate(999.0, None, None)
    assert perplexity_of(Estimate(0.0, None, math.log(2))) == pytest.approx((1.0, None, 2.0))


def test_the_damage_is_paired_over_texts() -> None:
    """Texts differ by nats, the rise hardly: its interval is narrow, and the same resamples give it either way."""
    generator = np.random.default_rng(0)
    whole = generator.uniform(100, 400, 30)
    losses = BlockLosses((1,), np.full(30, 100), whole, (whole + generator.uniform(9, 11, 30))[None])
    (one,) = block_damage(losses)
    assert one.damage.low is not None and one.damage.high is not None and one.loss.low is not None
    assert 0.095 < one.damage.low < one.damage.value < one.damage.high < 0.105
    assert one.loss.value - one.loss.low > 0.1


def test_a_planted_block_that_does_nothing_is_found(tiny_model: Callable[..., Any]) -> None:
    """Block 3 adds nothing to the stream: damage 0 for every text, the lowest perplexity, and removing it changes no
    logit."""
    loaded = copy.deepcopy(tiny_model("llama"))
    block = loaded.anatomy.blocks[2]
    with torch.no_grad():
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    torch.manual_seed(0)
    begun = torch.tensor([[0, token] for token in range(3, 11)])
    # Its own words, since on random ones a random model may be better without a block.
    sequences = loaded.model.generate(begun, max_new_tokens=24, do_sample=True, eos_token_id=None, top_k=0).tolist()
    losses = block_losses(loaded, sequences)
    found = block_damage(losses, n_resamples=200)
    assert losses.without[2].tolist() == losses.whole.tolist()
    assert found[2].damage == Estimate(0.0, 0.0, 0.0)
    assert min(found, key=lambda row: row.perplexity.value).block == 3
    assert all(row.damage.low is not None and row.damage.low > 0.05 for row in found if row.block != 3)
    ids = torch.tensor([sequences[0]])
    with torch.inference_mode():
        whole = loaded.model(ids).logits
        with without_blocks(loaded, [3]) as cut:
            assert torch.equal(cut.model(ids).logits, whole)


def test_texts_are_cut_and_begin_as_the_tokenizer_begins(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    whole = loss_sequences(loaded, TEXTS)
    assert [list(ids) for ids in whole] == [loaded.tokenizer(text)["input_ids"] for _, text in TEXTS]
    assert loss_sequences(loaded, TEXTS, max_tokens=5) == [ids[:5] for ids in whole]
    (long,) = loss_sequences(loaded, [("d", "sea " * 300)])
    assert len(long) == loaded.max_positions == 128


def test_bad_texts_are_one_line(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    with pytest.raises(BadOption, match="--max-tokens 1: expected at least 2"):
        loss_sequences(loaded, TEXTS, max_tokens=1)
    with pytest.raises(BadInput, match="no text to measure the loss on"):
        loss_sequences(loaded, [])
    with pytest.raises(BadInput, match="text 'empty': 1 token, at least 2"):
        loss_sequences(loaded, [("empty", "")])
