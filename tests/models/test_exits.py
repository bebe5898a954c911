"""The plain cut, which the engine is held to everywhere else, held to a cut that uses nothing of ours."""

from collections.abc import Callable
from typing import Any

import pytest

from hcl_cli.models.exits import exit_at


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3_text", "gpt2", "gpt_neox", "phi3"])
def test_the_cut_of_the_tests_is_the_cut_by_hand(family: str, tiny_model: Callable[..., Any]) -> None:
    """`exit_at` is the oracle of the engine's tests and finds its parts with the engine's own anatomy, so it is held
    once to a cut that names each family's list of blocks by hand and uses nothing of ours."""
    import torch

    model = tiny_model(family).model
    ids = torch.arange(3, 23)[None]
    lists = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
    where, _, name = lists.get(family, "model.layers").rpartition(".")
    owner = model.get_submodule(where)
    whole = getattr(owner, name)
    config = model.config
    for layer in (1, 2, len(whole) - 1):
        with exit_at(model, layer), torch.inference_mode():
            ours = model(ids).logits
        try:
            setattr(owner, name, torch.nn.ModuleList(whole[:layer]))
            config.num_hidden_layers = layer
            with torch.inference_mode():
                by_hand = model(ids, use_cache=False).logits
        finally:
            setattr(owner, name, whole)
            config.num_hidden_layers = len(whole)
        assert torch.equal(ours, by_hand)
        assert not torch.equal(ours, model(ids).logits)
