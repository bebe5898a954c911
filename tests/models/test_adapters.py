"""Adapters lie on the chosen blocks only, start without effect, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.models import adapters
from hcl_cli.models.adapters import Adapter, Lora, adapted, linear_names, merged, switched_on

IDS = torch.tensor([[5, 9, 30, 41, 17, 60, 8]])
FAMILIES = ("llama", "gpt2", "opt", "gemma2", "gpt_neox", "mixtral")


def logits(loaded: Any) -> Any:
    with torch.inference_mode():
        return loaded.model(input_ids=IDS, use_cache=False).logits


def snapshot(loaded: Any) -> dict[str, Any]:
    return {name: weight.clone() for name, weight in loaded.model.state_dict().items()}


def changed(before: dict[str, Any], loaded: Any) -> set[str]:
    now = loaded.model.state_dict()
    assert list(now) == list(before)
    return {name for name, weight in now.items() if not torch.equal(weight, before[name])}


def drawn(loaded: Any, blocks: tuple[int, ...], seed: int = 0) -> Adapter:
    """Adapters as if trained: B is not 0."""
    generator = torch.Generator().manual_seed(seed)
    with adapted(loaded, blocks, Lora(rank=3, alpha=6), seed) as adapting:
        with torch.no_grad():
            for one in adapting.parameters:
                one.add_(torch.randn(one.shape, generator=generator) * 0.1)
        return adapting.taken()


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_is_the_model_with_adapters_on_and_other_blocks_keep_every_bit(
    tiny_model: Callable[..., Any], family: str
) -> None:
    """In every family: new adapters change no logit; trained ones added to the weights give the logits that they give
    beside them, differ from the model's own, and change the linear layers of blocks 1, 2 and 4 only; afterwards the
    model is what it was, to the last bit."""
    loaded = tiny_model(family)
    before, own = snapshot(loaded), logits(loaded)
    flags = [one.requires_grad for one in loaded.model.parameters()]
    with adapted(loaded, (1, 2, 4), Lora(rank=3)):
        assert torch.equal(logits(loaded), own)
    adapter = drawn(loaded, (1, 2, 4))
    with switched_on(loaded, adapter):
        beside = logits(loaded)
    with merged(loaded, adapter):
        inside = logits(loaded)
        expected = {f"{name}.weight" for name in linear_names(loaded, (1, 2, 4))}
        assert changed(before, loaded) == expected
    assert float((beside - own).abs().max()) > 0.05
    torch.testing.assert_close(inside, beside, rtol=1e-4, atol=1e-4)
    assert not changed(before, loaded) and torch.equal(logits(loaded), own)
    assert [one.requires_grad for one in loaded.model.parameters()] == flags
    assert adapter.n_parameters == sum(
        3 * sum(loaded.model.get_submodule(name).weight.shape) for name in linear_names(loaded, (1, 2, 4))
    )


def test_every_linear_layer_of_a_block_and_no_other(tiny_model: Callable[..., Any]) -> None:
    """Four of attention and three of the MLP in a Llama; the transposed ones of GPT-2 count."""
    names = linear_names(tiny_model("llama"), (3,))
    assert [name.removeprefix("model.layers.2.") for name in names] == [
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
    ]  # fmt: skip
    assert linear_names(tiny_model("gpt2"), (1,)) == [
        f"transformer.h.0.{part}" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]


def test_first_values_follow_the_seed_and_the_layer_and_nothing_else(tiny_model: Callable[..., Any]) -> None:
    """A layer's adapter begins alike whichever other blocks have one, another seed begins elsewhere, and the global
    generator is not touched."""
    loaded = tiny_model("llama")

    def first(blocks: tuple[int, ...], seed: int) -> dict[str, Any]:
        with adapted(loaded, blocks, Lora(rank=3), seed) as adapting:
            return dict(adapting.taken().weights)

    state = torch.random.get_rng_state()
    alone, among, other = first((2,), 0), first((1, 2, 3), 0), first((2,), 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(weight, among[name]) for name, weight in alone.items())
    a = [name for name in alone if "lora_A" in name]
    assert len(a) == 7 and not any(torch.equal(alone[name], other[name]) for name in a)
    assert all(float(alone[name].abs().max()) <= alone[name].shape[1] ** -0.5 for name in a)


def test_the_model_is_given_back_after_a_failure(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("gpt2")
    before, adapter = snapshot(loaded), drawn(loaded, (1,))
    for context in (lambda: adapted(loaded, (1, 2), Lora()), lambda: merged(loaded, adapter)):
        with pytest.raises(KeyError), context():
            raise KeyError("broke off")
        assert not changed(before, loaded)
        assert not any("lora" in name for name, _ in loaded.model.named_modules())


def test_blocks_that_share_weights_are_refused(tiny_model: Callable[..., Any]) -> None:
    """Training block 1 would train block 3 with it."""
    loaded = tiny_model("llama", seed=31)  # of this test's own, since it changes it
    loaded.anatomy.blocks[2].mlp = loaded.anatomy.blocks[0].mlp
    with pytest.raises(BadInput, match="blocks 1 and 3 share weights.*--blocks"):
        linear_names(loaded, (1, 2))
    assert linear_names(loaded, (2, 4))


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(BadOption, match=r"hcl mitigate: needs peft; install it with pip install 'hcl-cli\[mitigate\]'"):
        adapters.require_peft("hcl mitigate")
