"""Self-speculative decoding: greedy answers and the law of sampled ones are the full model's, at every exit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.speculative import decode_speculative

LAB = Path(__file__).parents[2] / "data" / "models" / "lab"
# The shortest prompt is a single token: nothing of it is in the cache before the first round.
PROMPTS = [Prompt("a", (0, 70, 71, 72)), Prompt("b", (0, 80, 81, 82, 83, 84, 85)), Prompt("c", (0,))]
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=12, stop=())


def cells(layer: int, n: int = 1, prompts: int = 3) -> list[Cell]:
    return [Cell(prompt, layer, 0, n) for prompt in range(prompts)]


@pytest.mark.parametrize("layers", [(1, 3), pytest.param((2, 4), marks=pytest.mark.long)])
def test_greedy_answers_are_the_full_models_in_every_family(
    tiny_model: Callable[..., Any], families: tuple[str, ...], layers: tuple[int, ...]
) -> None:
    for family in families:
        loaded = tiny_model(family)
        full = decode(loaded, PROMPTS, cells(loaded.n_layers), GREEDY)
        for layer in layers:
            found = decode_speculative(loaded, PROMPTS, cells(layer), GREEDY, draft_tokens=3)
            assert found.token_ids == full.token_ids, (family, layer)
            assert found.mean_logprob == pytest.approx(full.mean_logprob, abs=1e-4)
            assert found.mean_max_prob == pytest.approx(full.mean_max_prob, abs=1e-4)
            assert found.finish_reason == full.finish_reason
            assert set(found.exit_layer) == {layer}


@pytest.mark.parametrize("draft_tokens", [1, 2, 6, 30])
def test_the_length_of_drafts_changes_no_greedy_answer(tiny_model: Callable[..., Any], draft_tokens: int) -> None:
    loaded = replace(tiny_model("llama"), eos_ids=frozenset({1, 70, 90, 200}))
    sampling = replace(GREEDY, stop=("e", "th"))
    full = decode(loaded, PROMPTS, cells(4), sampling)
    assert set(full.finish_reason) > {"length"} or set(full.finish_reason) & {"eos", "stop"}
    for layer in (1, 3):
        found = decode_speculative(loaded, PROMPTS, cells(layer), sampling, draft_tokens=draft_tokens)
        assert found.token_ids == full.token_ids and found.text == full.text
        assert found.finish_reason == full.finish_reason


def test_the_last_exit_drafts_what_it_verifies(tiny_model: Callable[..., Any]) -> None:
    """The published code cannot run there; every draft must be accepted."""
    loaded = tiny_model("gpt2")
    sampling = Sampling(temperature=1.3, top_p=0.8, max_new_tokens=21, stop=())
    found = decode_speculative(loaded, PROMPTS, cells(loaded.n_layers, 20), sampling, draft_tokens=6)
    open_ = np.array([reason == "length" for reason in found.finish_reason])
    assert open_.any()
    assert (found.accepted_drafts == found.drafted)[open_].all()
    # 6 drafts and a token of the full model, three times
    assert set(found.drafted[open_]) == {18} and set(found.verifications[open_]) == {3}


def test_counts_by_hand_when_nothing_is_accepted(tiny_model: Callable[..., Any], monkeypatch: Any) -> None:
    """Every round then emits one token, and the drafts shorten where the answer may have few tokens left."""
    from hcl_cli.models import speculative_batch

    monkeypatch.setattr(
        speculative_batch.SpeculativeBatch, "_uniforms", lambda _self, streams, _step, _purpose: np.ones(len(streams))
    )
    sampling = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=4, stop=())
    loaded = replace(tiny_model("llama"), eos_ids=frozenset())
    found = decode_speculative(loaded, PROMPTS[:1], cells(1, 1, 1), sampling, draft_tokens=2)
    assert found.n_tokens.tolist() == [4] and found.verifications.tolist() == [4]
    assert found.drafted.tolist() == [2 + 2 + 1 + 0] and found.accepted_drafts.tolist() == [0]


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_batch_and_company_change_no_answer(tiny_model: Callable[..., Any], family: str) -> None:
    """Windows of 8 tokens, soft caps: with float64 every answer is the same alone and in a batch."""
    loaded = tiny_model(family, dtype="float64")
    sampling = Sampling(temperature=1.2, top_p=0.9, max_new_tokens=10, stop=())
    whole = decode_speculative(loaded, PROMPTS, cells(2, 4), sampling, draft_tokens=3)
    single = decode_speculative(loaded, PROMPTS, cells(2, 4), sampling, draft_tokens=3, batch_tokens=1)
    grown = decode_speculative(loaded, PROMPTS[1:], [Cell(0, 2, 1, 3)], sampling, draft_tokens=3)
    assert whole.token_ids == single.token_ids
    assert whole.mean_logprob == pytest.approx(single.mean_logprob, abs=1e-6)
    assert whole.drafted.tolist() == single.drafted.tolist()
    assert grown.token_ids == whole.token_ids[5:7]


def test_the_model_is_as_before_also_after_an_error(tiny_model: Callable[..., Any], monkeypatch: Any) -> None:
    from hcl_cli.models import speculative_batch

    loaded = tiny_model("qwen2")
    ids = torch.tensor([[0, 70, 71, 72]])
    before = loaded.model(input_ids=ids).logits

    def broken(*_args: Any) -> None:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(speculative_batch.SpeculativeBatch, "_judged", broken)
    with pytest.raises(KeyError):
        decode_speculative(loaded, PROMPTS, cells(1), GREEDY)
    assert torch.equal(loaded.model(input_ids=ids).logits, before)
    assert loaded.anatomy.config.num_hidden_layers == 4
    assert not any("forward" in vars(block) for block in loaded.anatomy.blocks)


@pytest.fixture(scope="module")
def lab() -> tuple[Any, list[Prompt]]:
    """The lab model and questions with several right answers."""
    import polars as pl

    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.models.load import load_model

    loaded = load_model(LAB, dtype="float32", device="cpu")
    rows = pl.read_parquet(LAB.parents[1] / "lab" / "questions.parquet").filter(pl.col("answers").list.len() > 3)
    template = open_prompt("plain")
    prompts = [
        Prompt(name, tuple(loaded.tokenizer(template.render(question, loaded.tokenizer))["input_ids"]))
        for name, question in rows.select("question_id", "question").head(3).iter_rows()
    ]
    return loaded, prompts


def two_sample(one: Any, other: Any, prompt: int) -> float:
    """p-value of a chi-square test that two samples of answers to a prompt have one law; rare answers together."""
    from scipy.stats import chi2_contingency

    a, b = (
        Counter(text for text, of in zip(found.text, found.prompt, strict=True) if of == prompt)
        for found in (one, other)
    )
    often = [text for text in a | b if a[text] + b[text] >= 10]
    table = np.array([[*(c[text] for text in often), sum(c.values()) - sum(c[t] for t in often)] for c in (a, b)])
    return float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue)


def test_answers_follow_the_full_models_law_at_every_exit_and_early_exits_do_not(lab: tuple[Any, list[Prompt]]) -> None:
    """The published command samples the full model whatever its exit layer is (methods of arXiv 2503.02851)."""
    loaded, prompts = lab
    n, p_values = 300, []
    for layer in range(1, 11):
        sampling = Sampling(temperature=1.0, top_p=0.9, seed=layer)
        full = decode(loaded, prompts, cells(10, n), sampling)  # anew each time: then the tests are independent
        found = decode_speculative(loaded, prompts, cells(layer, n), sampling)
        p_values += [two_sample(full, found, prompt) for prompt in range(3)]
        if layer <= 5:
            early = decode(loaded, prompts, cells(layer, n), sampling)
            assert max(two_sample(full, early, prompt) for prompt in range(3)) < 1e-6
    assert min(p_values) > 0.05 / len(p_values) / 10  # ten times stricter than Bonferroni's 5 %
    assert 0.35 < np.mean(p_values) < 0.65


def test_deeper_exits_have_more_drafts_accepted(lab: tuple[Any, list[Prompt]]) -> None:
    loaded, prompts = lab
    rates = []
    for layer in (1, 5, 9):
        found = decode_speculative(loaded, prompts, cells(layer, 40), Sampling(temperature=1.0, top_p=0.9))
        rates.append(found.accepted_drafts.sum() / found.drafted.sum())
        assert (found.accepted_drafts <= found.drafted).all()
        assert (found.n_tokens <= found.accepted_drafts + found.verifications).all()
    assert rates[0] < rates[1] < rates[2]
