"""What a stream says does not depend on what decodes beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hcl_cli.models import batch
from hcl_cli.models.decode import Cell, Prompt, Sampling, Streams, decode

# The stop strings end most answers, so that streams, rows and whole questions leave their batches at all times.
SAMPLING = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=16, stop=("e", "a", "n"), seed=5)


def prompts_of(n: int, vocab: int) -> list[Prompt]:
    rng = np.random.default_rng(3)
    return [Prompt(f"question {i}", tuple(rng.integers(3, vocab, 4 + (7 * i) % 11).tolist())) for i in range(n)]


def table(streams: Streams, prompts: list[Prompt]) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """(question, exit layer, sample) -> all that is known of the answer."""
    return {
        (prompts[streams.prompt[i]].question_id, int(streams.exit_layer[i]), int(streams.sample_index[i])): (
            streams.token_ids[i], streams.text[i], streams.finish_reason[i], int(streams.n_tokens[i]),
            float(streams.mean_prob[i]), float(streams.mean_logprob[i]), float(streams.mean_max_prob[i]),
        )
        for i in range(len(streams))
    }  # fmt: skip


def grid(n_prompts: int, layers: tuple[int, ...], n: int) -> list[Cell]:
    return [Cell(p, k, 0, n) for p in range(n_prompts) for k in layers]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_in_float64_every_row_is_equal_in_any_company(tiny_model: Callable[..., Any], family: str) -> None:
    """Batch size, order of questions, sharing, n from 20 to 50, limit from 2 to 6, a few exits to all.

    Prompts stored once (the library's `sdpa` models) and copied to every row (the others) agree as well. Models
    that need the library's `eager` attention are left out: it takes its softmax in float32 whatever the dtype.
    """
    loaded = tiny_model(family, "float64")
    assert loaded.shared_prompt
    prompts = prompts_of(6, loaded.vocab_size)
    full = table(decode(loaded, prompts, grid(6, (1, 2, 3, 4), 50), SAMPLING), prompts)
    assert len(full) == 6 * 4 * 50

    def part(cells: list[Cell], asked: list[Prompt] = prompts, shared_prompt: bool = True, **options: Any) -> None:
        found = table(decode(replace(loaded, shared_prompt=shared_prompt), asked, cells, SAMPLING, **options), asked)
        assert len(found) == sum(cell.stop - cell.first for cell in cells)
        assert all(full[key] == row for key, row in found.items())

    part(grid(6, (1, 2, 3, 4), 50), prompts[::-1], batch_tokens=2000)  # many small batches
    part(grid(2, (1, 4), 3), batch_tokens=1)  # one stream at a time
    part(grid(6, (1, 2, 3, 4), 20))
    part([Cell(p, k, 20, 50) for p in range(6) for k in (1, 2, 3, 4)])  # only what n = 20 lacked
    part(grid(2, (1, 2, 3, 4), 50), prompts[:2])
    part(grid(6, (2, 4), 50))
    part(grid(2, (1, 2, 3, 4), 50), share=False)
    part(grid(6, (1, 2, 3, 4), 50), shared_prompt=False)


def test_parts_of_prompts_logits_and_draws_change_no_row(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large vocabulary or many questions go through the head, the draw and the first step in parts."""
    loaded = tiny_model("llama", "float64")
    prompts = prompts_of(6, loaded.vocab_size)
    # Prompts of unequal depth, in another order than that of their depth.
    cells = [Cell(p, k, 0, 8) for p, deepest in enumerate((2, 4, 1, 3, 4, 2)) for k in range(1, deepest + 1)]
    whole = table(decode(loaded, prompts, cells, SAMPLING), prompts)
    row_bytes = 8 * loaded.vocab_size
    monkeypatch.setattr(batch, "PROMPT_TOKENS", 30)
    monkeypatch.setattr(batch, "HEAD_BYTES", 7 * row_bytes)
    monkeypatch.setattr(batch, "DRAW_BYTES", {loaded.device.type: 3 * row_bytes})
    assert table(decode(loaded, prompts, cells, SAMPLING), prompts) == whole


def test_questions_that_end_take_their_prompts_along_at_every_depth(tiny_model: Callable[..., Any]) -> None:
    """Two deep questions and two shallow ones; the first of each ends at once, the second goes on as if alone."""
    loaded = tiny_model("llama", "float64")
    prompts = prompts_of(4, loaded.vocab_size)
    cells = [Cell(0, 4, 0, 1), Cell(1, 4, 0, 1), Cell(2, 1, 0, 1), Cell(3, 1, 0, 1)]
    greedy = Sampling(temperature=0.0, max_new_tokens=8, stop=())
    endless = replace(loaded, eos_ids=frozenset())
    alone = [decode(endless, prompts, [cell], greedy).token_ids[0] for cell in cells]
    ends = {alone[0][0], alone[2][0]}
    assert ends.isdisjoint(alone[1] + alone[3])
    together = decode(replace(loaded, eos_ids=frozenset(ends)), prompts, cells, greedy)
    assert together.token_ids == [alone[0][:1], alone[1], alone[2][:1], alone[3]]


def test_in_float32_all_but_one_stream_in_ten_thousand_is_equal(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    prompts = prompts_of(10, loaded.vocab_size)
    cells = grid(10, (1, 2, 3, 4), 250)
    sampling = replace(SAMPLING, max_new_tokens=6)
    one = table(decode(loaded, prompts, cells, sampling), prompts)
    other = table(decode(loaded, prompts, cells, sampling, batch_tokens=30_000), prompts)
    assert len(one) == 10_000
    unequal = [key for key in one if one[key][0] != other[key][0]]
    assert len(unequal) <= 1
    equal = one.keys() - set(unequal)
    found, expected = (np.array([rows[key][4:] for key in equal]) for rows in (other, one))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_same_plan_gives_the_same_bytes(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    prompts = prompts_of(6, loaded.vocab_size)
    cells = grid(6, (1, 2, 3, 4), 30)
    first, again = (decode(loaded, prompts, cells, SAMPLING, batch_tokens=4000) for _ in range(2))
    assert table(first, prompts) == table(again, prompts)


def test_streams_come_in_the_order_of_the_cells(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    prompts = prompts_of(3, loaded.vocab_size)
    cells = [Cell(2, 3, 4, 6), Cell(0, 1, 0, 2), Cell(2, 1, 7, 8), Cell(1, 4, 3, 3), Cell(2, 3, 0, 1)]
    streams = decode(loaded, prompts, cells, SAMPLING, batch_tokens=60)
    assert streams.prompt.tolist() == [2, 2, 0, 0, 2, 2]
    assert streams.exit_layer.tolist() == [3, 3, 1, 1, 1, 3]
    assert streams.sample_index.tolist() == [4, 5, 0, 1, 7, 0]
    one_by_one = [decode(loaded, prompts, [cell], SAMPLING) for cell in cells]
    assert streams.token_ids == [ids for part in one_by_one for ids in part.token_ids]
