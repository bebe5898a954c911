"""Sampled tokens follow the exact distribution of their exit, and the test that says so has teeth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.exits import exit_at

N_SAMPLES = 4000
LEVEL = 1e-3
PROMPT = (0, 70, 71, 72, 73, 90)


def exact_law(loaded: Any, token_ids: tuple[int, ...], layer: int, temperature: float, top_p: float) -> np.ndarray:
    """The next token's distribution by the library alone: cut model, its own temperature and top-p."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    ids = torch.tensor([token_ids])
    with torch.inference_mode(), exit_at(loaded.model, layer) as model:
        logits = model(input_ids=ids).logits[:, -1].double()
    return TopPLogitsWarper(top_p)(ids, TemperatureLogitsWarper(temperature)(ids, logits)).softmax(-1)[0].numpy()


def chi_square(counts: Counter[int], law: np.ndarray) -> float:
    """P-value of the counts under the law; cells with expectation below 5 are pooled."""
    n = sum(counts.values())
    observed = np.array([counts.get(token, 0) for token in range(len(law))], dtype=float)
    expected = law * n
    if observed[expected == 0].any():
        return 0.0  # a token that the law excludes
    small = expected < 5
    seen = np.append(observed[~small], observed[small].sum())
    hoped = np.append(expected[~small], expected[small].sum())
    if hoped[-1] < 5 and len(hoped) > 1:
        seen, hoped = np.append(seen[:-2], seen[-2:].sum()), np.append(hoped[:-2], hoped[-2:].sum())
    if len(hoped) == 1:
        return 1.0  # one token has all the weight, and it was drawn
    return float(stats.chi2.sf(((seen - hoped) ** 2 / hoped).sum(), len(hoped) - 1))


def p_values(loaded: Any, drawn: Sampling, temperature: float, top_p: float) -> np.ndarray:
    """First token, and second given each of the three commonest first ones, for every exit layer."""
    cells = [Cell(0, k, 0, N_SAMPLES) for k in range(1, loaded.n_layers + 1)]
    streams = decode(loaded, [Prompt("a question", PROMPT)], cells, drawn)
    values = []
    for layer in range(1, loaded.n_layers + 1):
        answers = [ids for ids, k in zip(streams.token_ids, streams.exit_layer, strict=True) if k == layer]
        first = Counter(ids[0] for ids in answers)
        values.append(chi_square(first, exact_law(loaded, PROMPT, layer, temperature, top_p)))
        for token, _ in first.most_common(3):
            second = Counter(ids[1] for ids in answers if ids[0] == token)
            values.append(chi_square(second, exact_law(loaded, (*PROMPT, token), layer, temperature, top_p)))
    return np.array(values)


def holm_rejects(p: np.ndarray) -> bool:
    """Whether Holm's procedure rejects anything: it does iff the smallest p-value is below level / number of tests."""
    return bool(p.min() < LEVEL / len(p))


def sampling(temperature: float, top_p: float) -> Sampling:
    return Sampling(temperature=temperature, top_p=top_p, max_new_tokens=2, stop=(), seed=11)


def test_first_and_second_tokens_follow_the_exact_law(tiny_model: Callable[..., Any]) -> None:
    loaded = replace(tiny_model("llama", "float64"), eos_ids=frozenset())
    settings = ((0.6, 0.9), (1.0, 1.0))
    every = [p_values(loaded, sampling(temperature, top_p), temperature, top_p) for temperature, top_p in settings]
    assert not holm_rejects(np.concatenate(every))  # over all settings, exits, first and second tokens at once


def test_the_law_test_sees_a_wrong_temperature_and_a_wrong_top_p(tiny_model: Callable[..., Any]) -> None:
    loaded = replace(tiny_model("llama", "float64"), eos_ids=frozenset())
    assert holm_rejects(p_values(loaded, sampling(0.7, 0.9), 0.6, 0.9))
    assert holm_rejects(p_values(loaded, sampling(0.6, 0.85), 0.6, 0.9))


def test_streams_are_independent_of_each_other(tiny_model: Callable[..., Any]) -> None:
    """Two exits, and two questions with the same text, do not repeat each other's draws."""
    loaded = replace(tiny_model("llama", "float64"), eos_ids=frozenset())
    prompts = [Prompt("a", PROMPT), Prompt("b", PROMPT)]
    cells = [Cell(p, k, 0, 2000) for p in (0, 1) for k in (3, 4)]
    streams = decode(loaded, prompts, cells, sampling(1.0, 1.0))
    first = np.array([ids[0] for ids in streams.token_ids]).reshape(4, 2000)
    laws = [exact_law(loaded, PROMPT, cell.exit_layer, 1.0, 1.0) for cell in cells]
    for i in range(4):
        for j in range(i):
            chance = float((laws[i] * laws[j]).sum())
            assert stats.binomtest(int((first[i] == first[j]).sum()), 2000, chance).pvalue > LEVEL / 6
