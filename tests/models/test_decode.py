"""How answers end, what is refused, and what runs at all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.models import decode as decode_module
from hcl_cli.models.batch import Batch
from hcl_cli.models.decode import Cell, Prompt, Sampling, decode, tokenize_prompt, truncate_left
from hcl_cli.models.stops import StopFilter, first_stop

PROMPTS = [Prompt("a", (0, 70, 71, 72)), Prompt("b", (0, 80, 81, 82, 83, 84, 85))]


def streams_of(loaded: Any, cells: list[Cell] | None = None, **options: Any) -> Any:
    cells = cells or [Cell(p, k, 0, 20) for p in (0, 1) for k in (2, 4)]
    options = {"temperature": 1.2, "top_p": 1.0, "max_new_tokens": 30, **options}
    return decode(loaded, PROMPTS, cells, Sampling(**options))


def test_an_answer_ends_with_its_first_eos_which_counts_but_is_not_text(tiny_model: Callable[..., Any]) -> None:
    loaded = replace(tiny_model("llama"), eos_ids=frozenset({1, 70, 90, 200}))
    streams = streams_of(loaded, stop=())
    assert set(streams.finish_reason) == {"eos", "length"}
    for ids, reason, text, n in zip(
        streams.token_ids, streams.finish_reason, streams.text, streams.n_tokens, strict=True
    ):
        ends = [i for i, token in enumerate(ids) if token in loaded.eos_ids]
        assert ends == ([len(ids) - 1] if reason == "eos" else [])
        assert n == len(ids) and (reason == "eos" or n == 30)
        body = ids[:-1] if reason == "eos" else ids
        assert text == loaded.tokenizer.decode(list(body), skip_special_tokens=True)


def plain_end(loaded: Any, ids: tuple[int, ...], stops: tuple[str, ...], after_text: bool) -> int | None:
    """Tokens until a stop string is complete, by decoding after every token; None if there is none."""
    for n in range(1, len(ids) + 1):
        text = loaded.tokenizer.decode(list(ids[:n]), skip_special_tokens=True)
        start = len(text) - len(text.lstrip()) if after_text else 0
        if any(text.find(stop, start) >= 0 for stop in stops):
            return n
    return None


@pytest.mark.parametrize("after_text", [True, False])
@pytest.mark.parametrize("stops", [("\n",), ("e", " t"), ("he",), ("é", "\N{REPLACEMENT CHARACTER}"), ("th", "\n")])
def test_stop_strings_end_an_answer_where_plain_decoding_finds_them(
    tiny_model: Callable[..., Any], stops: tuple[str, ...], after_text: bool
) -> None:
    """Against decoding after every token of the same streams without a stop: the draws do not depend on it."""
    loaded = tiny_model("llama")
    free = streams_of(loaded, stop=())
    stopped = streams_of(loaded, stop=stops, stop_after_text=after_text)
    hits = 0
    for i, ids in enumerate(free.token_ids):
        body = ids[:-1] if free.finish_reason[i] == "eos" else ids
        end = plain_end(loaded, body, stops, after_text)
        if end is None:
            assert (stopped.token_ids[i], stopped.finish_reason[i]) == (ids, free.finish_reason[i])
            assert stopped.text[i] == free.text[i]
        else:
            hits += 1
            assert (stopped.token_ids[i], stopped.finish_reason[i]) == (ids[:end], "stop")
            text = loaded.tokenizer.decode(list(ids[:end]), skip_special_tokens=True)
            assert stopped.text[i] == text[: first_stop(text, stops, after_text)]
    assert 0 < hits, "no stream met a stop string, so nothing was tested"


def test_the_earliest_stop_string_cuts_the_text() -> None:
    assert first_stop("one two", ("two", "e"), after_text=True) == 2
    assert first_stop(" \n one\n", ("\n", "x"), after_text=True) == 6
    assert first_stop(" \n one\n", ("\n", "x"), after_text=False) == 1
    assert first_stop("one", ("two",), after_text=True) is None


def test_the_filter_lets_nearly_all_tokens_pass_undecoded(tiny_tokenizer: Any) -> None:
    found = StopFilter(tiny_tokenizer, len(tiny_tokenizer), ("\n",))
    pieces = [tiny_tokenizer.decode([token]) for token in range(len(tiny_tokenizer))]
    ascii_pieces = [i for i, piece in enumerate(pieces) if piece.isascii() and i > 2]
    assert [i for i in ascii_pieces if found.can_end[i]] == [i for i in ascii_pieces if "\n" in pieces[i]]
    with pytest.raises(BadOption, match="cannot be empty"):
        StopFilter(tiny_tokenizer, len(tiny_tokenizer), ("",))


def test_means_are_of_the_distribution_before_temperature_and_top_p(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama", "float64")
    streams = decode(loaded, PROMPTS, [Cell(1, 4, 0, 5)], Sampling(temperature=0.7, top_p=0.8, stop=()))
    for i, ids in enumerate(streams.token_ids):
        text = torch.tensor([[*PROMPTS[1].token_ids, *ids]])
        with torch.inference_mode():
            law = loaded.model(input_ids=text).logits[0, len(PROMPTS[1].token_ids) - 1 : -1].log_softmax(-1)
        logprob = law[torch.arange(len(ids)), torch.tensor(ids)]
        expected = (logprob.exp().mean(), logprob.mean(), law.max(-1).values.exp().mean())
        found = (streams.mean_prob[i], streams.mean_logprob[i], streams.mean_max_prob[i])
        np.testing.assert_allclose(found, [float(value) for value in expected], rtol=1e-6)


def test_top_k_draws_only_the_k_likeliest(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama", "float64")
    streams = decode(
        loaded, PROMPTS, [Cell(0, 4, 0, 600)], Sampling(temperature=1.5, top_p=1.0, top_k=3, max_new_tokens=1, stop=())
    )
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([PROMPTS[0].token_ids])).logits[0, -1]
    assert {ids[0] for ids in streams.token_ids} == set(logits.topk(3).indices.tolist())


def test_blocks_that_no_live_stream_needs_do_not_run(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda _m, args, _out, layer=i: ran.append((layer, args[0].shape[0])))
        for i, block in enumerate(loaded.anatomy.blocks)
    ]
    try:
        cells = [Cell(0, 1, 0, 9), Cell(1, 2, 0, 4)]
        decode(loaded, PROMPTS, cells, Sampling(stop=(), max_new_tokens=3, temperature=2.0, top_p=1.0), share=False)
    finally:
        for handle in handles:
            handle.remove()
    # Two prompts, of which one is two blocks deep; then 13 rows, of which four are.
    assert ran == [(0, 2), (1, 1), (0, 13), (1, 4), (0, 13), (1, 4)]
    assert len(loaded.model.model.layers) == 4 and loaded.model.config.num_hidden_layers == 4


def test_equal_streams_share_a_row(tiny_model: Callable[..., Any]) -> None:
    """Greedy streams of one question and exit agree for ever: 50 samples are one row per distinct answer."""
    loaded = tiny_model("llama")
    rows: list[int] = []
    handle = loaded.anatomy.blocks[0].register_forward_hook(lambda _m, args, _out: rows.append(args[0].shape[0]))
    try:
        decode(loaded, PROMPTS, [Cell(0, 3, 0, 50)], Sampling(temperature=0.0, stop=(), max_new_tokens=5))
    finally:
        handle.remove()
    assert rows == [1, 1, 1, 1, 1]


def test_prompts_are_tokenized_as_the_tokenizer_does(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    ids = tokenize_prompt(loaded, "Question: Who?\nAnswer:")
    assert ids[0] == 0 and list(ids) == loaded.tokenizer("Question: Who?\nAnswer:")["input_ids"]
    assert truncate_left(ids, 3) == ids[-3:] and truncate_left(ids, 0) == ()


def test_prompts_that_do_not_fit_are_refused_by_name(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    fits = Prompt("fits", tuple([5] * 118))
    assert decode(loaded, [fits], [Cell(0, 1, 0, 1)], Sampling(max_new_tokens=10)).n_tokens[0] <= 10
    for prompt in (Prompt("too long", tuple([5] * 119)), Prompt("empty", ())):
        with pytest.raises(BadInput, match=f"question {prompt.question_id}"):
            decode(loaded, [fits, prompt], [Cell(1, 1, 0, 1)], Sampling(max_new_tokens=10))


def test_little_memory_halves_batches_and_changes_no_answer(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hcl_cli.models import memory

    loaded = tiny_model("llama", "float64")
    plenty = streams_of(loaded)
    monkeypatch.setattr(memory, "usable_bytes", lambda device: 400_000)
    with caplog.at_level(logging.WARNING, logger=decode_module.__name__):
        little = streams_of(loaded)
    assert "was halved" in caplog.text
    assert little.token_ids == plenty.token_ids and (little.mean_prob == plenty.mean_prob).all()
    monkeypatch.setattr(memory, "usable_bytes", lambda device: 100)
    with pytest.raises(EnvironmentRefused, match="not enough memory"):
        streams_of(loaded)


@pytest.mark.parametrize("words", ["MPS backend out of memory (MPS allocated: 9 GB)", "can't allocate memory: 9 bytes"])
def test_devices_that_only_say_in_words_that_memory_ran_out_halve_batches_too(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: str
) -> None:
    """Only CUDA has a class for it; any other RuntimeError is a fault and keeps its stack."""
    loaded = tiny_model("llama", "float64")
    plenty, run, left = streams_of(loaded), Batch.run, [words]

    def failing_once(self: Batch) -> Any:
        if left:
            raise RuntimeError(left.pop())
        return run(self)

    monkeypatch.setattr(Batch, "run", failing_once)
    with caplog.at_level(logging.WARNING, logger=decode_module.__name__):
        halved = streams_of(loaded)
    assert words.split(":")[0] in caplog.text and halved.token_ids == plenty.token_ids
    left.append("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        streams_of(loaded)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.9)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(
    tiny_model: Callable[..., Any], temperature: float, top_p: float, value: float
) -> None:
    """float16 that overflows after the prompt gave token 0 and a mean probability of NaN, without a word."""
    loaded = tiny_model("llama", "float16")
    calls = iter(range(1000))

    def overflow(_module: Any, _args: Any, output: Any) -> Any:
        return output + value if next(calls) > 2 else output

    handle = loaded.anatomy.unembedding.register_forward_hook(overflow)
    try:
        with pytest.raises(BadInput, match="not finite, in float16; use --dtype float32"):
            streams_of(loaded, temperature=temperature, top_p=top_p)
    finally:
        handle.remove()


def test_a_prompt_with_tokens_that_the_model_lacks_is_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    last = loaded.vocab_size - 1
    decode(loaded, [Prompt("fits", (0, last))], [Cell(0, 1, 0, 1)], Sampling(max_new_tokens=1))
    with pytest.raises(BadInput, match=f"question beyond: its prompt has token {last + 1}, but llama knows 0..{last}"):
        decode(loaded, [Prompt("beyond", (0, last + 1))], [Cell(0, 1, 0, 1)], Sampling())


def test_padding_that_attention_turns_into_nan_spreads_to_no_answer(tiny_model: Callable[..., Any]) -> None:
    """A padded position sees no token; some attention (on some devices) gives NaN there, and 0 * NaN is NaN."""
    loaded = tiny_model("llama", "float64")
    clean = streams_of(loaded)

    def unseen_is_nan(_module: Any, _args: Any, output: Any) -> Any:
        if output.shape[1] == 7:  # the prompts: the shorter one stands first, behind three padded positions
            output = output.clone()
            output[0, :3] = float("nan")
        return output

    handle = loaded.anatomy.blocks[0].register_forward_hook(unseen_is_nan)
    try:
        assert streams_of(loaded).token_ids == clean.token_ids
    finally:
        handle.remove()


def test_nothing_asked_gives_nothing(tiny_model: Callable[..., Any]) -> None:
    assert len(decode(tiny_model("llama"), PROMPTS, [Cell(0, 1, 3, 3)], Sampling())) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(tiny_model: Callable[..., Any], dtype: str) -> None:
    """Confidence of the first greedy token at each exit, within the rounding of 8 or 11 bits."""
    cells = [Cell(p, k, 0, 1) for p in (0, 1) for k in (1, 2, 3, 4)]
    sampling = Sampling(temperature=0.0, stop=(), max_new_tokens=1)
    exact = decode(tiny_model("llama"), PROMPTS, cells, sampling)
    half = decode(tiny_model("llama", dtype), PROMPTS, cells, sampling)
    np.testing.assert_allclose(half.mean_max_prob, exact.mean_max_prob, atol=0.05)
