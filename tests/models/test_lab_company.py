"""No answer depends on its company, on the model that every command runs by default."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hcl_cli.models.decode import Cell, Prompt, Sampling, Streams, decode, tokenize_prompt
from hcl_cli.models.load import load_model
from hcl_cli.resources import data_file

PROMPT = "Answer the following question with no other comment.\nQuestion: {}\nAnswer:"
SAMPLING = Sampling(seed=2)
ALL = tuple(range(1, 11))


def prompts_of(loaded: Any, n: int) -> list[Prompt]:
    import polars as pl

    questions = pl.read_parquet(sorted(data_file("lab").glob("questions*.parquet"))[0]).head(n)
    rows = zip(questions["question_id"], questions["question"], strict=True)
    return [Prompt(key, tokenize_prompt(loaded, PROMPT.format(text))) for key, text in rows]


def table(streams: Streams, prompts: list[Prompt]) -> dict[tuple[str, int, int], tuple[Any, ...]]:
    """(question, exit layer, sample) -> all that is known of the answer."""
    return {
        (prompts[streams.prompt[i]].question_id, int(streams.exit_layer[i]), int(streams.sample_index[i])): (
            streams.token_ids[i], streams.text[i], streams.finish_reason[i],
            float(streams.mean_prob[i]), float(streams.mean_logprob[i]), float(streams.mean_max_prob[i]),
        )
        for i in range(len(streams))
    }  # fmt: skip


def grid(n_prompts: int, layers: tuple[int, ...], n: int, first: int = 0) -> list[Cell]:
    return [Cell(p, k, first, n) for p in range(n_prompts) for k in layers]


@pytest.fixture(scope="module")
def lab() -> Any:
    return load_model(data_file("models", "lab"), dtype="float64", device="cpu")


def test_in_float64_every_row_of_the_lab_is_equal_in_any_company(lab: Any) -> None:
    """Batch size, order of questions, sharing, n from 20 to 50, limit from 10 to 30, a few exits to all."""
    prompts = prompts_of(lab, 30)
    full = table(decode(lab, prompts, grid(30, ALL, 50), SAMPLING), prompts)
    assert len(full) == 30 * 10 * 50

    def part(cells: list[Cell], asked: list[Prompt] = prompts, **options: Any) -> None:
        found = table(decode(lab, asked, cells, SAMPLING, **options), asked)
        assert len(found) == sum(cell.stop - cell.first for cell in cells)
        assert all(full[key] == row for key, row in found.items())

    part(grid(30, ALL, 50), prompts[::-1], batch_tokens=100_000)
    part(grid(10, ALL, 20), prompts[:10])
    part(grid(30, ALL, 50, first=20))
    part(grid(30, (4, 8), 50))
    part(grid(3, ALL, 50), share=False)
    part(grid(2, (3, 10), 4), batch_tokens=1)


def test_in_float32_all_but_one_stream_in_ten_thousand_of_the_lab_is_equal(lab: Any) -> None:
    loaded = load_model(data_file("models", "lab"), dtype="float32", device="cpu")
    prompts = prompts_of(loaded, 20)
    sampling = replace(SAMPLING, temperature=1.0)
    one = table(decode(loaded, prompts, grid(20, ALL, 50), sampling), prompts)
    other = table(decode(loaded, prompts, grid(20, ALL, 50), sampling, batch_tokens=100_000), prompts)
    assert len(one) == 10_000
    unequal = [key for key in one if one[key][0] != other[key][0]]
    assert len(unequal) <= 1
    equal = sorted(one.keys() - set(unequal))
    found, expected = (np.array([rows[key][3:] for key in equal]) for rows in (other, one))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
