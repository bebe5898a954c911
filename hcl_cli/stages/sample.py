"""Questions and exit layers to responses: what the model says if it stops after k blocks.

The engine (`models/decode.py`) decodes all exits and samples of a block of questions in one pass; this stage turns
questions into prompts and streams into rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hcl_cli.errors import BadInput
from hcl_cli.measures.cleaning import clean_answer
from hcl_cli.models.anatomy import head_share
from hcl_cli.models.decode import Cell, Prompt, Sampling, Streams, decode
from hcl_cli.models.load import LoadedModel
from hcl_cli.models.speculative import decode_speculative
from hcl_cli.schemas import RESPONSES

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Protocol:
    """How answers are asked for and read.

    Attributes:
        render: question -> prompt text.
        special_tokens: whether the tokenizer adds its own (BOS); False for a chat template, which writes them itself.
        clean: "plain" or "published", see `measures.cleaning.clean_answer`.
        truncate: cut prompts that leave no room for the answer at their left end instead of refusing them.
        batch_tokens: token budget of one batch.
        draft_tokens: longest draft of `self-speculative`; None for `early-exit`.
        advice: what to do about a prompt that leaves no room, in the command's own options.
    """

    render: Callable[[str], str]
    special_tokens: bool
    clean: str
    truncate: bool
    batch_tokens: int
    draft_tokens: int | None = None
    advice: str = "shorten them, or cut prompts at their left end with --long-prompts truncate"


def sampled(
    loaded: LoadedModel,
    questions: pl.DataFrame,
    missing: Mapping[tuple[str, int], tuple[int, int]],
    sampling: Sampling,
    protocol: Protocol,
    *,
    model: str,
    dataset: str,
) -> pl.DataFrame:
    """The missing responses of one block of questions.

    Args:
        loaded: the model.
        questions: QUESTIONS rows of the block.
        missing: (question_id, exit_layer) -> (first, stop): the sample indices first..stop-1 to draw.
        sampling: temperature, top-p and so on, and the seed.
        protocol: prompt, cleaning, long prompts, batch budget.
        model, dataset: names for the rows.

    Returns:
        RESPONSES rows, one per missing cell and sample; order as the cells'.

    Raises:
        BadInput: a prompt that leaves no room for an answer, unless `protocol.truncate`.
    """
    import polars as pl

    wanted = list({question_id for question_id, _ in missing})
    rows = questions.filter(pl.col("question_id").is_in(wanted)).to_dicts()  # in the set's order
    place = {row["question_id"]: index for index, row in enumerate(rows)}
    prompts = [tokenised_prompt(loaded, row, sampling, protocol) for row in rows]
    cells = [
        Cell(prompt=place[question_id], exit_layer=layer, first=first, stop=stop)
        for (question_id, layer), (first, stop) in missing.items()
    ]
    drafts = protocol.draft_tokens
    if drafts is None:
        streams = decode(loaded, prompts, cells, sampling, batch_tokens=protocol.batch_tokens)
    else:
        streams = decode_speculative(
            loaded, prompts, cells, sampling, draft_tokens=drafts, batch_tokens=protocol.batch_tokens
        )
    cleaned = {text: clean_answer(text, protocol.clean) for text in set(streams.text)}
    asked = [rows[index] for index in streams.prompt]
    n = len(asked)
    return pl.DataFrame(
        {
            "model": [model] * n,
            "dataset": [dataset] * n,
            "strategy": ["early-exit" if drafts is None else "self-speculative"] * n,
            "method": [None] * n,
            "temperature": [sampling.temperature] * n,
            "top_p": [sampling.top_p] * n,
            "question_id": [row["question_id"] for row in asked],
            "exit_layer": streams.exit_layer,
            "sample_index": streams.sample_index,
            "question": [row["question"] for row in asked],
            "answers": [row["answers"] for row in asked],
            "response": [cleaned[text] for text in streams.text],
            "text": streams.text,
            "n_tokens": streams.n_tokens,
            "finish_reason": streams.finish_reason,
            "mean_prob": streams.mean_prob,
            "mean_logprob": streams.mean_logprob,
            "mean_max_prob": streams.mean_max_prob,
            "drafted": [None] * n if drafts is None else streams.drafted,
            "accepted_drafts": [None] * n if drafts is None else streams.accepted_drafts,
            "verifications": [None] * n if drafts is None else streams.verifications,
            "relative_cost": _relative_costs(loaded, streams, drafts is not None),
        },
        schema=RESPONSES.polars_schema(),
    )


def _relative_costs(loaded: LoadedModel, streams: Streams, speculative: bool) -> list[float]:
    """FLOPs per token of each answer as a share of the full model's, attention scores left out.

    Self-speculative: every draft and every newest token runs through all blocks once and through the head of the full
    model, every draft also through the head at the exit. So it costs more than plain decoding; what it saves is time.
    """
    costs = loaded.relative_costs()
    if not speculative:
        return [costs[layer - 1] for layer in streams.exit_layer]
    head = head_share(loaded.anatomy)
    run = streams.drafted + streams.verifications + head * streams.drafted
    found: list[float] = (run / streams.n_tokens).tolist()
    return found


def tokenised_prompt(loaded: LoadedModel, row: Mapping[str, object], sampling: Sampling, protocol: Protocol) -> Prompt:
    """A question as the model reads it, with room for the answer.

    Raises:
        BadInput: a prompt without tokens, or one that leaves no room, unless `protocol.truncate`.
    """
    text = protocol.render(str(row["question"]))
    ids = tuple(loaded.tokenizer(text, add_special_tokens=protocol.special_tokens)["input_ids"])
    question_id = str(row["question_id"])
    if not ids:
        raise BadInput(f"question {question_id!r}: its prompt has no tokens; use a --prompt with some text around it")
    if loaded.max_positions is not None and len(ids) + sampling.max_new_tokens > loaded.max_positions:
        room = loaded.max_positions - sampling.max_new_tokens
        if room < 1 or not protocol.truncate:
            raise BadInput(
                f"question {question_id!r}: its prompt has {len(ids)} tokens and --max-new-tokens is "
                f"{sampling.max_new_tokens}, but the model has {loaded.max_positions} positions; "
                f"{protocol.advice}"
            )
        log.warning("question %s: prompt cut from %d to its last %d tokens", question_id, len(ids), room)
        ids = ids[-room:]
    return Prompt(question_id, ids)
