"""Greedy decoding at every exit is what the library generates with the model cut to that many blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.exits import exit_at

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox", "opt", "cohere",
    "granite", "olmo2", "mixtral", "falcon", "llama32",
)  # fmt: skip
WIDE = (
    "stablelm", "starcoder2", "qwen2_moe", "qwen3_moe", "olmoe", "glm", "cohere2", "olmo3", "nemotron",
    "smollm3", "exaone4", "granitemoe", "biogpt", "gptj", "mpt",
)  # fmt: skip
SEEDS = {"gemma2": 1}  # the first seed whose certainty spans as widely as the others'
NEW_TOKENS = 24
GREEDY = Sampling(temperature=0.0, stop=(), max_new_tokens=NEW_TOKENS)


def prompts_of(lengths: tuple[int, ...], vocab: int, seed: int = 1) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [Prompt(f"q{i}", tuple(rng.integers(3, vocab, n).tolist())) for i, n in enumerate(lengths)]


def library_greedy(loaded: Any, token_ids: tuple[int, ...], layer: int) -> tuple[tuple[int, ...], torch.Tensor]:
    """Tokens and the top probability of each, by the library alone: the cut model, one prompt, no padding."""
    with exit_at(loaded.model, layer) as model:
        out = model.generate(
            torch.tensor([token_ids]),
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    top = torch.stack(out.logits).softmax(-1).max(-1).values[:, 0]
    return tuple(out.sequences[0, len(token_ids) :].tolist()), top


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_at_every_exit_equals_the_cut_model(tiny_model: Callable[..., Any], family: str) -> None:
    """Prompts of unequal length in one batch, one longer than the sliding window, token for token in float32."""
    loaded = replace(tiny_model(family, seed=SEEDS.get(family, 0)), eos_ids=frozenset())
    prompts = prompts_of((5, 13, 9), loaded.vocab_size)
    cells = [Cell(p, k, 0, 1) for p in range(len(prompts)) for k in range(1, loaded.n_layers + 1)]
    streams = decode(loaded, prompts, cells, GREEDY)
    tops = []
    for index, cell in enumerate(cells):
        expected, top = library_greedy(loaded, prompts[cell.prompt].token_ids, cell.exit_layer)
        assert len(expected) == NEW_TOKENS
        assert streams.token_ids[index] == expected, f"prompt {cell.prompt}, exit {cell.exit_layer}"
        assert streams.mean_max_prob[index] == pytest.approx(float(top.mean()), abs=1e-4)
        tops.append(top)
    certainty = torch.cat(tops)
    assert certainty.min() < 0.1 and certainty.max() > 0.9, "the model cannot tell a wrong engine"
    for p in range(len(prompts)):
        answers = {ids for ids, cell in zip(streams.token_ids, cells, strict=True) if cell.prompt == p}
        assert len(answers) == loaded.n_layers, "exits that answer alike cannot be told apart"


@pytest.mark.long
@pytest.mark.parametrize("family", WIDE)
def test_greedy_of_further_families_equals_the_cut_model(tiny_model: Callable[..., Any], family: str) -> None:
    """The same equality, wider: without the demand that every exit of these answers differently."""
    loaded = replace(tiny_model(family), eos_ids=frozenset())
    prompts = prompts_of((5, 13, 9), loaded.vocab_size)
    cells = [Cell(p, k, 0, 1) for p in range(len(prompts)) for k in range(1, loaded.n_layers + 1)]
    streams = decode(loaded, prompts, cells, GREEDY)
    for index, cell in enumerate(cells):
        expected, _ = library_greedy(loaded, prompts[cell.prompt].token_ids, cell.exit_layer)
        assert streams.token_ids[index] == expected, f"prompt {cell.prompt}, exit {cell.exit_layer}"
    assert len(set(streams.token_ids)) > len(prompts), "an engine that ignored the exit would pass"
