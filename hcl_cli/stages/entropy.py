"""Texts -> ENTROPY rows: how unsure every layer, every attention head and the final distribution is of each token.

One forward per batch measures all of it (`models/layer_entropy.py`, `models/attention.py`). A row at position p
speaks of the step that predicts the token at p: of query p - 1.

Varentropy of attention has three definitions, which the option names:

- `surprisal-variance`: of -ln A over the keys of one row. Layers and tokens always have this one.
- `head-variance`: of the row entropies across the heads of a block, at one position; the same in each head's row.
- `row-variance`: of the row entropies over the query rows of one forward call, as published with a key-value cache.
  A text with a prompt stands for a generation: the prompt is one call, whose row (step 0) holds the means over the
  prompt's queries and the variance over them (`n_averaged` says how many), and every later token is a call with one
  query, whose row-variance is 0. A plain text is one call of all its measured queries: each row keeps its own entropy
  and carries the variance of the whole call, and so does each mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hcl_cli.errors import BadInput, shown

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.load import LoadedModel

KINDS = ("layers", "attention", "tokens")
VARENTROPIES = ("surprisal-variance", "row-variance", "head-variance")


@dataclass(frozen=True)
class Text:
    """One sequence to be measured.

    Attributes:
        text_id: its name, unique.
        question_id: the question it answers; None for a plain text.
        ids: prompt and text.
        first: position of the first measured token, >= 1: the length of the prompt, or 1 for a plain text.
        marks: per measured token whether it lies inside a span; None for a text without spans.
    """

    text_id: str
    question_id: str | None
    ids: tuple[int, ...]
    first: int
    marks: tuple[bool, ...] | None = None


@dataclass(frozen=True)
class Measurement:
    """What is measured and kept.

    Attributes:
        norm: whether `layers` are read through the final norm (`readout` norm) or not (`no-norm`).
        varentropy: one of VARENTROPIES; speaks of attention.
        aggregate: kinds of which only means are kept.
        batch_tokens: budget of one forward: texts times the longest of them.
    """

    norm: bool
    varentropy: str
    aggregate: frozenset[str]
    batch_tokens: int


def measured(
    loaded: LoadedModel,
    texts: Mapping[str, Text],
    wanted: Mapping[tuple[str, str], object],
    measurement: Measurement,
    *,
    model: str,
    dataset: str,
) -> pl.DataFrame:
    """Measure the wanted kinds of one block of texts.

    Args:
        loaded: the model.
        texts: text_id -> text.
        wanted: (text_id, kind) of KINDS; the values are not read.
        measurement: how layers are read, which varentropy, which kinds become means, batch budget.
        model, dataset: names for the rows.

    Returns:
        ENTROPY rows without group, cell by cell in the order of `wanted`; within one by position, exit_layer and
        head. Of an aggregated kind: means over positions by exit_layer, head and marked, then means over layers and
        heads by position.

    Raises:
        BadInput: a text without a token to measure, longer than the model's positions or with tokens that it lacks,
            or values that are not finite.
        EnvironmentRefused: a single text does not fit the memory.
    """
    from hcl_cli.stages.entropy_rows import entropy_frame

    if measurement.varentropy not in VARENTROPIES:
        raise ValueError(f"varentropy {measurement.varentropy!r} is none of {VARENTROPIES}")
    kinds: dict[str, set[str]] = {}
    for text_id, kind in wanted:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is none of {KINDS}")
        kinds.setdefault(text_id, set()).add(kind)
    for text_id in kinds:
        _check(loaded, texts[text_id])
    pieces: dict[tuple[str, str], pl.DataFrame] = {}
    queue = _batches([(texts[text_id], frozenset(of)) for text_id, of in kinds.items()], measurement.batch_tokens)[::-1]
    while queue:
        pieces.update(_measure_or_halve(loaded, queue, measurement))
    return entropy_frame(
        [
            (
                {
                    "model": model,
                    "dataset": dataset,
                    "text_id": text_id,
                    "question_id": texts[text_id].question_id,
                    "kind": kind,
                    "readout": _readout(kind, measurement),
                },
                pieces[text_id, kind],
            )
            for text_id, kind in wanted
        ]
    )


def _readout(kind: str, measurement: Measurement) -> str | None:
    if kind == "attention":
        return None
    return "norm" if kind == "tokens" or measurement.norm else "no-norm"


def _check(loaded: LoadedModel, text: Text) -> None:
    name, n = f"text '{shown(text.text_id)}'", len(text.ids)
    if not 1 <= text.first or (text.marks is not None and len(text.marks) != max(0, n - text.first)):
        raise ValueError(f"{name}: first {text.first} and its marks do not belong to {n} tokens")
    if n <= text.first:
        what = f"{n} token{'' if n == 1 else 's'}" + (f", all of its prompt ({text.first})" if text.first > 1 else "")
        raise BadInput(
            f"{name}: {what}, so there is nothing to measure; expected a token with another before it that predicts "
            "it; use a longer text or leave it out"
        )
    if loaded.max_positions is not None and n > loaded.max_positions:
        raise BadInput(
            f"{name}: {n} tokens, but the model has {loaded.max_positions} positions; cut it with --long-texts "
            "truncate or use a shorter text"
        )
    n_embeddings = int(loaded.model.get_input_embeddings().weight.shape[0])
    known = min(n_embeddings, loaded.vocab_size)
    if max(text.ids) >= n_embeddings or max(text.ids[text.first :]) >= known:
        raise BadInput(
            f"{name}: it has token {max(text.ids)}, but {loaded.name} knows 0..{known - 1}; its tokenizer belongs to "
            "another model"
        )


Job = tuple[Text, frozenset[str]]


def _batches(jobs: Iterable[Job], batch_tokens: int) -> list[list[Job]]:
    """Texts of like kinds and lengths together, longest first, at most `batch_tokens` with padding (or one text)."""
    batches: list[list[Job]] = []
    for job in sorted(jobs, key=lambda job: (sorted(job[1]), -len(job[0].ids))):
        last = batches[-1] if batches else []
        if last and last[0][1] == job[1] and (len(last) + 1) * len(last[0][0].ids) <= batch_tokens:
            last.append(job)
        else:
            batches.append([job])
    return batches


def _measure_or_halve(
    loaded: LoadedModel, queue: list[list[Job]], measurement: Measurement
) -> dict[tuple[str, str], pl.DataFrame]:
    """Measure the last batch of the queue, or put its two halves back."""
    import torch

    from hcl_cli.models.memory import run_or_halve
    from hcl_cli.stages.entropy_batch import Batch

    def run(batch: list[Job]) -> dict[tuple[str, str], pl.DataFrame]:
        return Batch(loaded, [text for text, _ in batch], batch[0][1], measurement).run()

    def described(job: Job) -> str:
        return f"text '{shown(job[0].text_id)}' of {len(job[0].ids)} tokens"

    with torch.inference_mode():
        return run_or_halve(queue.pop(), queue, run, loaded.device, described) or {}
