"""Decoding by contrasting layers, for any decoder: several methods and samples of some questions in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hcl_cli.models.contrast_batch import ContrastBatch, ContrastCell, Contrasted
from hcl_cli.models.contrast_methods import (
    VANILLA,
    Method,
    as_published,
    bucket,
    parse_method,
    parse_methods,
    ties_embeddings,
)
from hcl_cli.models.contrast_scores import ContrastScores, contrast_logprobs
from hcl_cli.models.decode import DEFAULT_BATCH_TOKENS, check_prompts, run_or_halve, stop_filter, texts_of
from hcl_cli.models.plan import Cell, plan_batches
from hcl_cli.models.ragged import ragged
from hcl_cli.models.streams import FINISH_REASONS, Prompt, Sampling

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

__all__ = [
    "VANILLA",
    "ContrastCell",
    "ContrastScores",
    "ContrastStreams",
    "Method",
    "as_published",
    "bucket",
    "contrast_logprobs",
    "decode_contrast",
    "parse_method",
    "parse_methods",
    "ties_embeddings",
]


@dataclass(frozen=True)
class ContrastStreams:
    """Answers in columns, one entry per stream, in the order of (cell, sample).

    Attributes:
        prompt, method: index into the prompts, into the methods.
        sample_index: 0..
        token_ids: generated tokens, the end-of-sequence token included.
        text: decoded, special tokens left out, cut before a stop string.
        finish_reason: eos | stop | length.
        n_tokens: length of `token_ids`.
        mean_prob, mean_logprob, mean_max_prob: means over tokens of the chosen token's probability, its logarithm in
            nats, and the likeliest token's probability under the contrasted distribution, penalty included, before
            temperature, top-k and top-p; float32.
        mean_mature_logprob: of the tokens under the last layer alone, without penalty, nats; float32.
        premature_layers: for each stream and token the layer that was contrasted, after so many blocks; None under
            `vanilla`.
        divergences: of that layer from the last one, nats, under the method's divergence; None likewise.
    """

    prompt: NDArray[np.int32]
    method: NDArray[np.int32]
    sample_index: NDArray[np.int32]
    token_ids: list[tuple[int, ...]]
    text: list[str]
    finish_reason: list[str]
    n_tokens: NDArray[np.int32]
    mean_prob: NDArray[np.float32]
    mean_logprob: NDArray[np.float32]
    mean_max_prob: NDArray[np.float32]
    mean_mature_logprob: NDArray[np.float32]
    premature_layers: list[tuple[int, ...] | None]
    divergences: list[tuple[float, ...] | None]

    def __len__(self) -> int:
        return len(self.text)


def decode_contrast(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    methods: Sequence[Method],
    sampling: Sampling,
    samples: int = 1,
    *,
    cells: Sequence[ContrastCell] | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    share: bool = True,
    progress: Callable[[int], None] | None = None,
) -> ContrastStreams:
    """Answer every question under every method.

    Draws have the addresses of `hcl sample` at exit layer L: sample i of every method uses the same numbers, and
    `vanilla` without a penalty gives the very answers of `hcl sample`. The prompt is computed once for all methods and
    samples of a question, and so is every token as long as answers agree, whatever their methods.

    Args:
        methods: candidates below L.
        samples: samples 0..samples-1 of every prompt and method.
        cells: in place of that, which samples of which methods of which prompts.
        batch_tokens: budget of a batch, see `plan_batches`; with `average_over_batch` it decides the company.
        share: let streams with equal tokens share a row. Off only to measure what it gains.
        progress: called with the number of streams that have just been finished.
    Returns:
        one entry per sample, in the order of the cells (prompts, then methods, then samples).
    Raises:
        BadInput: a prompt that is empty, does not fit the model's positions or has tokens that the model lacks, or
            logits that are not finite.
        EnvironmentRefused: a single stream does not fit the memory.
        ValueError: a candidate layer outside 0..L-1.
    Source: DoLa, arXiv 2309.03883.
    """
    for method in methods:
        if any(not 0 <= layer < loaded.n_layers for layer in method.candidates):
            raise ValueError(f"method {method.name}: candidates {method.candidates} outside 0..{loaded.n_layers - 1}")
    if cells is None:
        cells = [
            ContrastCell(prompt, loaded.n_layers, 0, samples, method)
            for prompt in range(len(prompts))
            for method in range(len(methods))
        ]
    check_prompts(loaded, prompts, cells, sampling)
    lengths = [len(prompt.token_ids) for prompt in prompts]
    queue = plan_batches(list(cells), lengths, sampling.max_new_tokens, batch_tokens)[::-1]
    stops = stop_filter(loaded, sampling.stop)
    finished: list[Contrasted] = []

    def whole(batch: list[Cell]) -> str | None:
        asked = [methods[cell.method] for cell in batch if isinstance(cell, ContrastCell)]
        name = next((method.name for method in asked if method.averages), None)
        return name and (
            f"which cannot be halved: {name} averages over it, so that other answers would come out; lower "
            "--batch-tokens to say what is averaged over, or use @per-row"
        )

    with ragged(loaded.anatomy, loaded.shared_prompt) as step:

        def run(batch: list[Cell], ceiling: int | None) -> Contrasted:
            ours = [cell for cell in batch if isinstance(cell, ContrastCell)]
            return ContrastBatch(loaded, step, prompts, ours, methods, sampling, stops, share, ceiling).contrasted()

        while queue:
            done = run_or_halve(loaded, prompts, queue, run, whole)
            if done is not None:
                finished.append(done)
                if progress is not None:
                    progress(len(done.method))
    return _collected(loaded, cells, methods, finished, sampling)


def _collected(
    loaded: LoadedModel,
    cells: Sequence[ContrastCell],
    methods: Sequence[Method],
    finished: Sequence[Contrasted],
    sampling: Sampling,
) -> ContrastStreams:
    """Bring the batches' streams into the order of the cells and decode their text."""
    where = {
        (int(part.finished.prompt[i]), int(part.method[i]), int(part.finished.sample_index[i])): (number, i)
        for number, part in enumerate(finished)
        for i in range(len(part.method))
    }
    keys = [(cell.prompt, cell.method, sample) for cell in cells for sample in range(cell.first, cell.stop)]
    places = [where[key] for key in keys]
    parts = [(finished[number], i, int(finished[number].finished.n_tokens[i])) for number, i in places]

    def mean(values: list[float]) -> NDArray[np.float32]:
        return (np.array(values, dtype=np.float64) / np.array([n for _, _, n in parts])).astype(np.float32)

    token_ids = [tuple(part.finished.tokens[i, :n].tolist()) for part, i, n in parts]
    reasons = [FINISH_REASONS[part.finished.reason[i]] for part, i, _ in parts]
    contrasts = [bool(methods[method].candidates) for _, method, _ in keys]
    prompt, method, sample = np.array(keys, dtype=np.int32).reshape(-1, 3).T
    return ContrastStreams(
        prompt=prompt,
        method=method,
        sample_index=sample,
        token_ids=token_ids,
        text=texts_of(loaded, token_ids, reasons, sampling),
        finish_reason=reasons,
        n_tokens=np.array([n for _, _, n in parts], dtype=np.int32),
        mean_prob=mean([part.finished.sum_prob[i] for part, i, _ in parts]),
        mean_logprob=mean([part.finished.sum_logprob[i] for part, i, _ in parts]),
        mean_max_prob=mean([part.finished.sum_max_prob[i] for part, i, _ in parts]),
        mean_mature_logprob=mean([part.sum_mature[i] for part, i, _ in parts]),
        premature_layers=[
            tuple(part.premature_layers[i, :n].tolist()) if has else None
            for (part, i, n), has in zip(parts, contrasts, strict=True)
        ],
        divergences=[
            tuple(part.divergences[i, :n].tolist()) if has else None
            for (part, i, n), has in zip(parts, contrasts, strict=True)
        ],
    )
