"""All exits and samples of some questions, decoded together.

A row is a question and the tokens chosen after it; every stream (one sample of one exit) sits on the row that equals
its own tokens. A row is computed once however many streams sit on it, as deep as the deepest of them needs, and
tapped at the exits of the others. Streams draw with their own random numbers; a row forks when they disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.models.plan import Cell, halves, plan_batches
from hcl_cli.models.stops import StopFilter, decoded, first_stop
from hcl_cli.models.streams import FINISH_REASONS, Finished, Prompt, Sampling, Streams

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

__all__ = [
    "DEFAULT_BATCH_TOKENS",
    "Cell",
    "Prompt",
    "Sampling",
    "Streams",
    "decode",
    "tokenize_prompt",
    "truncate_left",
]

log = logging.getLogger(__name__)

F = TypeVar("F")

# Streams x (prompt + new tokens), counted as if nothing were shared. Measured in benchmarks/sampler.py.
DEFAULT_BATCH_TOKENS = 1 << 20


def tokenize_prompt(loaded: LoadedModel, text: str) -> tuple[int, ...]:
    """Token ids of a prompt exactly as `tokenizer(text)` gives them: what the tokenizer adds by default is added."""
    return tuple(int(token) for token in loaded.tokenizer(text)["input_ids"])


def truncate_left(token_ids: Sequence[int], limit: int) -> tuple[int, ...]:
    """The last `limit` tokens of a prompt. The caller says so to the user."""
    return tuple(token_ids[-limit:]) if limit > 0 else ()


def decode(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    cells: Sequence[Cell],
    sampling: Sampling,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    share: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Streams:
    """Sample every cell.

    Args:
        cells: which samples of which exits of which prompts; `Cell.prompt` is an index into `prompts`.
        batch_tokens: budget of a batch, see `plan_batches`. Which streams share a batch depends on nothing else,
            unless memory runs short; then a batch is halved and a warning is logged.
        share: let streams with equal tokens share a row. Off only to measure what it gains.
        progress: called with the number of streams that have just been finished.
    Returns:
        one entry per sample, in the order of the cells.
    Raises:
        BadInput: a prompt that is empty, does not fit the model's positions or has tokens that the model lacks, or
            logits that are not finite.
        EnvironmentRefused: a single stream does not fit the memory.
    """
    from hcl_cli.models.batch import Batch
    from hcl_cli.models.ragged import ragged

    check_prompts(loaded, prompts, cells, sampling)
    batches = plan_batches(list(cells), [len(p.token_ids) for p in prompts], sampling.max_new_tokens, batch_tokens)
    stops = stop_filter(loaded, sampling.stop)
    finished: list[Finished] = []
    with ragged(loaded.anatomy, loaded.shared_prompt) as step:

        def run(batch: list[Cell], ceiling: int | None) -> Finished:
            return Batch(loaded, step, prompts, batch, sampling, stops, share, ceiling).run()

        queue = batches[::-1]
        while queue:
            done = run_or_halve(loaded, prompts, queue, run)
            if done is not None:
                finished.append(done)
                if progress is not None:
                    progress(len(done.prompt))
    return collected(loaded, cells, finished, sampling)


def run_or_halve(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    queue: list[list[Cell]],
    run: Callable[[list[Cell], int | None], F],
    whole: Callable[[list[Cell]], str | None] = lambda _batch: None,
) -> F | None:
    """Run the last batch of the queue (with the bytes it may use), or put its two halves back.

    Args:
        whole: says why a batch must not be halved and what to do, or None.
    """
    import torch

    from hcl_cli.models.cache import MemoryCeiling
    from hcl_cli.models.memory import is_out_of_memory, usable_bytes

    batch = queue.pop()
    ceiling = usable_bytes(loaded.device)
    try:
        with torch.inference_mode():
            return run(batch, ceiling)
    except FloatingPointError as error:
        raise BadInput(
            f"--model {loaded.name}: {error}, in {str(loaded.dtype).removeprefix('torch.')}; use --dtype float32 "
            "(or bfloat16 where float16 overflows), and if that does not help another model"
        ) from error
    except (MemoryCeiling, MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryCeiling) or is_out_of_memory(error)):
            raise
        parts = halves(batch)
        if parts is None:
            raise EnvironmentRefused(
                f"not enough memory on {loaded.device} for one answer of question "
                f"{prompts[batch[0].prompt].question_id} ({error}); use a shorter prompt or a smaller --dtype"
            ) from error
        n_streams = sum(cell.stop - cell.first for cell in batch)
        if (why := whole(batch)) is not None:
            raise EnvironmentRefused(
                f"not enough memory on {loaded.device} for a batch of {n_streams} answers, {why}"
            ) from error
        log.warning("a batch of %d streams was halved: %s", n_streams, str(error).splitlines()[0])
        queue.extend(parts[::-1])
    if loaded.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def stop_filter(loaded: LoadedModel, stop: tuple[str, ...]) -> StopFilter:
    """The filter of these stop strings, made once per model."""
    if stop not in loaded._filters:
        loaded._filters[stop] = StopFilter(loaded.tokenizer, loaded.vocab_size, stop)
    found: StopFilter = loaded._filters[stop]
    return found


def check_prompts(loaded: LoadedModel, prompts: Sequence[Prompt], cells: Sequence[Cell], sampling: Sampling) -> None:
    """Refuse prompts that the model cannot take, see `decode`."""
    for cell in cells:
        if not 1 <= cell.exit_layer <= loaded.n_layers:
            raise ValueError(f"exit layer {cell.exit_layer} is outside 1..{loaded.n_layers}")
    n_embeddings = int(loaded.model.get_input_embeddings().weight.shape[0])
    for index in sorted({cell.prompt for cell in cells}):
        prompt = prompts[index]
        length = len(prompt.token_ids)
        if length == 0:
            raise BadInput(f"question {prompt.question_id}: its prompt has no tokens; expected at least one")
        if max(prompt.token_ids) >= n_embeddings:
            raise BadInput(
                f"question {prompt.question_id}: its prompt has token {max(prompt.token_ids)}, but {loaded.name} knows "
                f"0..{n_embeddings - 1}; its tokenizer belongs to another model"
            )
        limit = loaded.max_positions
        if limit is not None and length + sampling.max_new_tokens > limit:
            raise BadInput(
                f"question {prompt.question_id}: prompt of {length} tokens and {sampling.max_new_tokens} new ones "
                f"exceed the {limit} positions of {loaded.name}; lower --max-new-tokens or truncate the prompt"
            )


def collected(loaded: LoadedModel, cells: Sequence[Cell], finished: Sequence[Finished], sampling: Sampling) -> Streams:
    """Bring the batches' streams into the order of the cells and decode their text."""
    wanted = [
        np.concatenate([np.full(c.stop - c.first, value(c)) for c in cells] or [np.zeros(0, int)])
        for value in (lambda c: c.prompt, lambda c: c.exit_layer)
    ]
    samples = np.concatenate([np.arange(c.first, c.stop) for c in cells] or [np.zeros(0, int)])

    def joined(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in finished] or [np.zeros(0)])

    prompt, exit_layer, sample = (joined(name).astype(np.int64) for name in ("prompt", "exit_layer", "sample_index"))
    order = np.empty(len(samples), dtype=np.int64)
    order[np.lexsort((samples, wanted[1], wanted[0]))] = np.lexsort((sample, exit_layer, prompt))
    n_tokens = joined("n_tokens").astype(np.int32)[order]
    reasons = [FINISH_REASONS[code] for code in joined("reason").astype(np.int64)[order]]
    rows = [row[:n] for part in finished for row, n in zip(part.tokens, part.n_tokens, strict=True)]
    token_ids = [tuple(rows[index].tolist()) for index in order]
    return Streams(
        prompt=prompt[order].astype(np.int32),
        exit_layer=exit_layer[order].astype(np.int16),
        sample_index=sample[order].astype(np.int32),
        token_ids=token_ids,
        text=texts_of(loaded, token_ids, reasons, sampling),
        finish_reason=reasons,
        n_tokens=n_tokens,
        mean_prob=(joined("sum_prob")[order] / n_tokens).astype(np.float32),
        mean_logprob=(joined("sum_logprob")[order] / n_tokens).astype(np.float32),
        mean_max_prob=(joined("sum_max_prob")[order] / n_tokens).astype(np.float32),
        **{name: joined(name).astype(np.int32)[order] for name in ("drafted", "accepted_drafts", "verifications")},
    )


def texts_of(
    loaded: LoadedModel, token_ids: list[tuple[int, ...]], reasons: list[str], sampling: Sampling
) -> list[str]:
    """The text of each stream; equal answers are decoded once."""
    bodies = [ids[:-1] if reason == "eos" else ids for ids, reason in zip(token_ids, reasons, strict=True)]
    distinct = list(dict.fromkeys(bodies))
    if not distinct:
        return []
    text_of = dict(zip(distinct, decoded(loaded.tokenizer, [list(ids) for ids in distinct]), strict=True))
    texts = [text_of[body] for body in bodies]
    for index, reason in enumerate(reasons):
        if reason == "stop":
            texts[index] = texts[index][: first_stop(texts[index], sampling.stop, sampling.stop_after_text)]
    return texts
