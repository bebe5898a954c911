"""Questions to answers of several decoding methods: vanilla, and the last layer contrasted with an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hcl_cli.measures.cleaning import clean_answer
from hcl_cli.models.contrast import Method, decode_contrast
from hcl_cli.models.contrast_batch import ContrastCell
from hcl_cli.models.decode import Sampling
from hcl_cli.models.load import LoadedModel
from hcl_cli.models.vocabulary import token_text
from hcl_cli.schemas import DOLA
from hcl_cli.stages.sample import Protocol, tokenised_prompt

if TYPE_CHECKING:
    import polars as pl

STRATEGY = "contrast"


def answered(
    loaded: LoadedModel,
    questions: pl.DataFrame,
    missing: Mapping[tuple[str, str], tuple[int, int]],
    methods: Sequence[Method],
    sampling: Sampling,
    protocol: Protocol,
    *,
    model: str,
    dataset: str,
) -> pl.DataFrame:
    """The missing answers of one block of questions.

    Args:
        loaded: the model.
        questions: QUESTIONS rows of the block.
        missing: (question_id, method) -> (first, stop): the sample indices first..stop-1 to draw.
        methods: all that the cells name.
        sampling, protocol: as for `stages.sample.sampled`.
        model, dataset: names for the rows.
    Returns:
        DOLA rows, one per missing cell and sample.
    Raises:
        BadInput: a prompt that leaves no room for an answer, unless `protocol.truncate`.
    """
    import polars as pl

    wanted = list({question_id for question_id, _ in missing})
    rows = questions.filter(pl.col("question_id").is_in(wanted)).to_dicts()  # in the set's order
    place = {row["question_id"]: index for index, row in enumerate(rows)}
    number = {method.name: index for index, method in enumerate(methods)}
    prompts = [tokenised_prompt(loaded, row, sampling, protocol) for row in rows]
    cells = [
        ContrastCell(place[question_id], loaded.n_layers, first, stop, number[name])
        for (question_id, name), (first, stop) in missing.items()
    ]
    streams = decode_contrast(loaded, prompts, methods, sampling, cells=cells, batch_tokens=protocol.batch_tokens)
    asked = [rows[index] for index in streams.prompt]
    used = [methods[index] for index in streams.method]
    n = len(asked)
    return pl.DataFrame(
        {
            "model": [model] * n,
            "dataset": [dataset] * n,
            "strategy": [STRATEGY] * n,
            "method": [method.name for method in used],
            "temperature": [sampling.temperature] * n,
            "top_p": [sampling.top_p] * n,
            "question_id": [row["question_id"] for row in asked],
            "exit_layer": [loaded.n_layers] * n,
            "sample_index": streams.sample_index,
            "question": [row["question"] for row in asked],
            "answers": [row["answers"] for row in asked],
            "response": [clean_answer(text, protocol.clean) for text in streams.text],
            "text": streams.text,
            "n_tokens": streams.n_tokens,
            "finish_reason": streams.finish_reason,
            "mean_prob": streams.mean_prob,
            "mean_logprob": streams.mean_logprob,
            "mean_max_prob": streams.mean_max_prob,
            "drafted": [None] * n,
            "accepted_drafts": [None] * n,
            "verifications": [None] * n,
            "relative_cost": [None] * n,  # the heads of the candidates come on top of the whole model
            "tokens": [[token_text(loaded.tokenizer, token) for token in ids] for ids in streams.token_ids],
            "premature_layers": [None if one is None else list(one) for one in streams.premature_layers],
            "divergences": [None if one is None else list(one) for one in streams.divergences],
            "mean_mature_logprob": streams.mean_mature_logprob,
            "divergence": [method.divergence if method.candidates else None for method in used],
            "readout": [method.readout if method.candidates else None for method in used],
        },
        schema=DOLA.polars_schema(),
    )
