"""Scored answers -> the contrast of blocks: which answers count, from which token, and a planted block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from hcl_cli.errors import BadInput
from hcl_cli.measures.activations import Epsilon
from hcl_cli.stages.eavss import JudgedAnswers, answer_scores, answer_statistics, contrast_of, judged_answers

PROMPT = "Question: {}\nAnswer:"


def scored(*rows: tuple[str, str, bool | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"question": question, "answers": ["?"], "response": response, "correct": correct}
            for question, response, correct in rows
        ],
        schema_overrides={"correct": pl.Boolean},
    )


def read(frame: pl.DataFrame, loaded: Any, **options: Any) -> JudgedAnswers:
    return judged_answers(frame, loaded, PROMPT.format, special_tokens=True, **options)


def test_distinct_answers_count_once_from_their_first_token(tiny_model: Callable[..., Any]) -> None:
    """Two copies are one; an answer without a verdict and an empty one are left out and counted."""
    loaded = tiny_model("llama")
    found = read(
        scored(("Who?", "Ann", False), ("Who?", "Ann", False), ("Who?", "Bob", True), ("How?", "So", None),
               ("How?", "", False), ("How?", "well", True)), loaded,
    )  # fmt: skip
    assert found.hallucinated.tolist() == [True, False, False]
    assert found.groups == ("hallucinated", "factual", "factual")
    assert found.question.tolist() == [0, 0, 1]
    assert (found.n_ungraded, found.n_empty, found.n_cut) == (1, 1, 0)
    said = [
        loaded.tokenizer.decode(ids[first:]) for ids, first in zip(found.sequences, found.measured_from, strict=True)
    ]
    assert said == [" Ann", " Bob", " well"]
    prompts = [ids[:first] for ids, first in zip(found.sequences, found.measured_from, strict=True)]
    assert prompts[0] == tuple(loaded.tokenizer(PROMPT.format("Who?"))["input_ids"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a?", "x", True), ("b?", "y", True)], "column correct: all 2 judged answers are factual, so there is no "),
        ([("a?", "x", False)], "column correct: all 1 judged answers are hallucinated, so there is no factual one"),
        ([("a?", "x", None)], "column correct: null in all 1 distinct answers"),
        ([("a?", "", True)], "all 1 responses are empty"),
    ],
)
def test_one_kind_of_answers_is_refused(
    tiny_model: Callable[..., Any], rows: list[tuple[str, str, bool | None]], words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read(scored(*rows), tiny_model("llama"))
    assert "\n" not in str(caught.value)


def test_responses_without_verdicts_are_refused(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(BadInput, match="no column correct.*hcl score"):
        read(scored(("a?", "x", True)).drop("correct"), tiny_model("llama"))


def test_a_long_answer_is_cut_or_refused(tiny_model: Callable[..., Any]) -> None:
    rows = scored(("a?", "x", True), ("a?", "y" * 200, False))
    with pytest.raises(BadInput, match="128 can be read at most"):
        read(rows, tiny_model("llama"))
    found = read(rows, tiny_model("llama"), cut=True)
    assert (len(found.sequences[1]), found.n_cut) == (128, 1)


@contextmanager
def louder(loaded: Any, block: int, marker: int) -> Iterator[None]:
    """The MLP of one block (1..L) gives three times its output in texts that hold a token."""
    seen: list[torch.Tensor] = []

    def look(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        seen[:] = [(kwargs["input_ids"] == marker).any(1)]

    def scale(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        return output * torch.where(seen[0], 3.0, 1.0)[:, None, None]

    handles = [
        loaded.anatomy.decoder.register_forward_pre_hook(look, with_kwargs=True),
        loaded.anatomy.blocks[block - 1].mlp.register_forward_hook(scale, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_a_planted_block_is_found(tiny_model: Callable[..., Any]) -> None:
    """The MLP of block 3 is louder in wrong answers (they hold a tilde): it has the highest contrast and the smallest
    p-value, and with nothing planted no block is significant."""
    loaded = tiny_model("llama")
    rows = [(f"question {name}?", f"{word} of {name}" + ("~" if wrong else "!"), not wrong)
            for name in "abcdefghijkl" for word, wrong in
            (("ship", True), ("tree", False), ("moon", True), ("stone", False), ("lake", False))]  # fmt: skip
    answers = read(scored(*rows), loaded)
    marker = loaded.tokenizer("~", add_special_tokens=False)["input_ids"][0]
    assert [marker in ids for ids in answers.sequences] == answers.hallucinated.tolist()

    def contrast() -> Any:
        statistics = answer_statistics(loaded, answers, activations=("mlp",), epsilon=Epsilon(0.05))
        return statistics, contrast_of(statistics, answers, activations="mlp", n_permutations=999, n_resamples=200)

    with louder(loaded, 3, marker):
        statistics, found = contrast()
    assert int(np.argmax(found.contrast)) == 2 and found.contrast[2] > 1.0
    assert found.p_adjusted[2] == 0.001 and found.low[2] > 0.5
    assert (found.n_questions, found.n_one_kind) == (12, 0)
    scores = answer_scores(statistics, found, "eavss", activations="mlp")
    assert scores.score.tolist() == found.contrast.tolist() and np.isnan(scores.normalised).all()
    hsav = answer_scores(statistics, found, "hsav", activations="mlp")
    np.testing.assert_allclose(hsav.cumulative, np.cumsum(found.hsav) / found.hsav.sum())
    wrong = answers.hallucinated
    of_kind = statistics.activations["mlp"]
    weight = statistics.n_tokens[wrong] / statistics.n_tokens[wrong].sum()
    np.testing.assert_allclose(found.hss, weight @ of_kind.sparsity[wrong])
    assert abs(contrast()[1].contrast[2]) < 0.3  # without the plant
