"""A model without some blocks, held to a new model of that many blocks into which the weights were copied by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.models.attention import measured_attention
from hcl_cli.models.check import check_model
from hcl_cli.models.contrast_methods import Method
from hcl_cli.models.contrast_scores import contrast_logprobs
from hcl_cli.models.cut import blocks_after, without_blocks
from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.hidden import Item, hidden_states
from hcl_cli.models.load import loaded_from

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox", "opt", "cohere",
    "granite", "olmo2", "mixtral", "falcon", "llama32",
)  # fmt: skip
WIDE = (
    "stablelm", "starcoder2", "qwen2_moe", "qwen3_moe", "olmoe", "glm", "cohere2", "olmo3", "nemotron", "smollm3",
    "exaone4", "granitemoe", "biogpt", "gptj", "mpt",
)  # fmt: skip
IDS = torch.tensor([[0, 5, 7, 20, 33, 44, 51, 60, 3, 9, 12, 77, 81, 90, 4, 8]])  # twice as long as the windows


def copied(loaded: Any, removed: Sequence[int], **options: Any) -> Any:
    """A new model with fewer blocks and the old weights: nothing of ours."""
    from transformers import AutoModelForCausalLM

    old = loaded.model
    kept = [index for index in range(old.config.num_hidden_layers) if index + 1 not in removed]
    config = copy.deepcopy(old.config)
    config.num_hidden_layers = len(kept)
    for name in ("layer_types", "mlp_layer_types", "no_rope_layers"):
        if getattr(config, name, None) is not None:
            setattr(config, name, [getattr(old.config, name)[index] for index in kept])
    for name, value in options.items():
        setattr(config, name, value)
    weights = {}
    for name, value in old.state_dict().items():
        numbered = re.fullmatch(r"(.*?\.(?:layers|h|blocks)\.)(\d+)(\..*)", name)
        if numbered is None:
            weights[name] = value
        elif int(numbered[2]) in kept:
            weights[f"{numbered[1]}{kept.index(int(numbered[2]))}{numbered[3]}"] = value
    new = AutoModelForCausalLM.from_config(config, attn_implementation=loaded.attention).eval()
    new.load_state_dict(weights)
    return new


def logits_of(model: Any, **options: Any) -> Any:
    with torch.inference_mode():
        return model(IDS, **options).logits


def generated(model: Any) -> list[int]:
    found: list[int] = model.generate(IDS, max_new_tokens=12, do_sample=False, eos_token_id=None)[0].tolist()
    return found


def says_the_same(loaded: Any, removed: Sequence[int], **options: Any) -> None:
    whole = logits_of(loaded.model)
    expected = copied(loaded, removed, **options)
    with without_blocks(loaded, removed) as cut:
        assert cut.n_layers == loaded.n_layers - len(removed)
        assert torch.equal(logits_of(cut.model), logits_of(expected))
        assert torch.equal(logits_of(cut.model, use_cache=False), logits_of(expected, use_cache=False))
        assert generated(cut.model) == generated(expected)
        assert not torch.equal(logits_of(cut.model), whole)
        check_model(cut)  # exits, padding, the engine's cache, rows of unequal depth


@pytest.mark.parametrize("removed", [(2,), (1, 3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_is_a_model_of_fewer_blocks(
    family: str, removed: tuple[int, ...], tiny_model: Callable[..., Any]
) -> None:
    """Equal, not near: the same operations on the same numbers. (1, 3) leaves gemma one kind of attention."""
    says_the_same(tiny_model(family), removed)


@pytest.mark.long
@pytest.mark.parametrize("removed", [(2,), (1, 3), (2, 3, 4)])
@pytest.mark.parametrize("family", WIDE)
def test_a_cut_model_of_further_families(family: str, removed: tuple[int, ...], tiny_model: Callable[..., Any]) -> None:
    says_the_same(tiny_model(family), removed)


@pytest.mark.parametrize(
    ("family", "options", "removed", "expected"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, (1,), {}),
        ("qwen2_moe", {"decoder_sparse_step": 2}, (1,), {"decoder_sparse_step": 1, "mlp_only_layers": [1]}),
        ("qwen3_moe", {"mlp_only_layers": [1, 3]}, (1, 3), {"mlp_only_layers": [0, 1]}),
        ("smollm3", {"no_rope_layer_interval": 2}, (1,), {}),
    ],
)
def test_what_depends_on_the_place_of_a_block_moves_with_it(
    family: str, options: dict[str, Any], removed: tuple[int, ...], expected: dict[str, Any],
    tiny_model: Callable[..., Any],
) -> None:  # fmt: skip
    """Windows from a block on, a mixture of experts in every second block, dense blocks by number, rotary positions in
    some blocks."""
    loaded = tiny_model(family, **options)
    says_the_same(loaded, removed, **expected)
    with without_blocks(loaded, removed) as cut:
        for name, value in expected.items():
            assert getattr(cut.anatomy.config, name) == value


def test_a_count_of_leading_blocks_falls_with_what_goes_from_among_them(tiny_model: Callable[..., Any]) -> None:
    """Blocks 3 and 4 have windows (from the third on): without block 1, that is from the second on."""
    loaded = tiny_model("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=2)
    with without_blocks(loaded, [1]) as cut:
        config = cut.model.config
        assert (config.max_window_layers, config.num_hidden_layers) == (1, 3)
        assert config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    with without_blocks(loaded, [4]) as cut:
        assert cut.model.config.max_window_layers == 2


@pytest.mark.parametrize("family", ["llama32", "gemma3_text", "gpt2"])
def test_all_other_code_runs_on_a_cut_model(family: str, tiny_model: Callable[..., Any]) -> None:
    """Sampling at every exit, hidden states of every layer, attention and contrasted layers, as of a loaded model of
    three blocks."""
    loaded = tiny_model(family)
    prompts = [Prompt("a", tuple(IDS[0, :9].tolist())), Prompt("b", tuple(IDS[0, 3:].tolist()))]
    cells = [Cell(prompt, layer, 0, 3) for prompt in (0, 1) for layer in (1, 2, 3)]
    sampling = Sampling(temperature=0.8, top_p=0.9, top_k=0, max_new_tokens=6, seed=1, stop=())
    items = [Item("a", prompts[0].token_ids), Item("b", prompts[1].token_ids)]
    expected = loaded_from(copied(loaded, [2]), loaded.tokenizer, family)
    contrasts = contrasts_of(loaded)
    with without_blocks(loaded, [2]) as cut:
        ours, theirs = decode(cut, prompts, cells, sampling), decode(expected, prompts, cells, sampling)
        assert ours.token_ids == theirs.token_ids
        states = hidden_states(cut, items, token="mean").states
        np.testing.assert_array_equal(states, hidden_states(expected, items, token="mean").states)
        assert cut.relative_costs() == expected.relative_costs()
        assert attention_of(cut) == attention_of(expected)
        assert contrasts_of(cut) == contrasts_of(expected) != contrasts


def attention_of(loaded: Any) -> list[tuple[int, list[float]]]:
    """Mean entropy of attention per block and head, in the order in which blocks report."""
    found: list[tuple[int, list[float]]] = []

    def receive(block: int, statistics: Any) -> None:
        found.append((block, statistics.entropy.mean((0, 2)).tolist()))

    with measured_attention(loaded, receive), torch.inference_mode():
        loaded.model(IDS, use_cache=False)
    assert [block for block, _ in found] == [1, 2, 3]
    return found


def contrasts_of(loaded: Any) -> list[list[float]]:
    """Log-probabilities of a continuation when layers 1 and 2 are contrasted with the last."""
    method = Method("layers", candidates=(1, 2))
    ((scores,),) = contrast_logprobs(loaded, [IDS[0, :9].tolist()], [[IDS[0, 9:].tolist()]], [method])
    return [scores.scores[True, True][0].tolist(), scores.mature_logprobs[0].tolist()]


def test_nothing_remains_of_a_cut_that_fails(tiny_model: Callable[..., Any]) -> None:
    """Logits bit for bit, configuration and block numbers, also where the block changes the configuration itself."""
    loaded = tiny_model("gemma3_text")
    whole, settings, blocks = logits_of(loaded.model), loaded.model.config.to_dict(), loaded.anatomy.blocks
    with pytest.raises(RuntimeError, match="boom"):
        with without_blocks(loaded, [1, 2]) as cut:
            cut.model.config.dtype = "float16"
            assert [block.self_attn.layer_idx for block in cut.anatomy.blocks] == [0, 1]
            raise RuntimeError("boom")
    assert torch.equal(logits_of(loaded.model), whole)
    assert loaded.model.config.to_dict() == settings
    assert loaded.anatomy.decoder.layers is blocks
    assert [block.self_attn.layer_idx for block in blocks] == [0, 1, 2, 3]


def test_a_cut_model_can_be_cut_again_in_its_own_numbers(tiny_model: Callable[..., Any]) -> None:
    """Without block 2, block 3 is the second: cutting the second leaves 1 and 4."""
    loaded = tiny_model("gemma2")
    with without_blocks(loaded, [2, 3]) as cut:
        expected = logits_of(cut.model)
    with without_blocks(loaded, [2]) as outer:
        once = logits_of(outer.model)
        with without_blocks(outer, [2]) as inner:
            assert inner.n_layers == 2
            assert torch.equal(logits_of(inner.model), expected)
        assert torch.equal(logits_of(outer.model), once)
        with pytest.raises(ValueError, match="cut already"):  # block numbers of the whole model mean nothing here
            with without_blocks(loaded, [2]):
                pass


def test_weights_are_shared_and_not_copied(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    with without_blocks(loaded, [1]) as cut:
        assert cut.anatomy.blocks[0] is loaded.anatomy.blocks[1]
        assert len(cut.anatomy.decoder.layers) == 3


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ([], "no block to remove: expected 1 to 3 of the 4 blocks of llama"),
        ([1, 2, 3, 4], "all 4 blocks of llama would be removed"),
        ([0, 2], "block 0 cannot be removed: llama has blocks 1..4"),
        ([5], "block 5 cannot be removed: llama has blocks 1..4"),
    ],
)
def test_a_cut_that_cannot_be_made_is_one_line(removed: list[int], said: str, tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(BadOption, match=re.escape(said)) as caught:
        with without_blocks(tiny_model("llama"), removed):
            pass
    assert "\n" not in str(caught.value)


def test_the_blocks_behind_an_exit(tiny_model: Callable[..., Any]) -> None:
    assert blocks_after(tiny_model("llama"), 1) == (2, 3, 4)
    for exit_layer in (0, 4):
        with pytest.raises(BadOption, match=rf"--keep-first {exit_layer}: llama has 4 blocks; keep 1 to 3"):
            blocks_after(tiny_model("llama"), exit_layer)


def test_blocks_that_share_weights_are_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = copy.deepcopy(tiny_model("llama"))
    blocks = loaded.anatomy.blocks
    blocks[3].mlp.up_proj.weight = blocks[1].mlp.up_proj.weight
    with pytest.raises(BadInput, match="blocks 2 and 4 of a .* share weights") as caught:
        with without_blocks(loaded, [1]):
            pass
    assert "\n" not in str(caught.value)


def test_blocks_that_read_the_keys_of_others_are_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = copy.deepcopy(tiny_model("llama"))
    loaded.model.config.num_kv_shared_layers = 2
    with pytest.raises(BadInput, match="2 of its blocks read the keys and values of another block"):
        with without_blocks(loaded, [1]):
            pass
