"""Scored responses -> the spread of the embeddings of correct answers, question by question and layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.diversity import RAREFIED_TO, spectrum_score
from hcl_cli.stages.scored_groups import SPECTRUM

if TYPE_CHECKING:
    import polars as pl

Encode = Callable[[list[str]], npt.NDArray[np.float32]]
Floats = npt.NDArray[np.float64]

N_SUBSETS = 32  # of 5 correct answers each, where there are more
_KEY = ("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer")


def with_spectrum(scored: pl.DataFrame, encode: Encode, seed: int = 0, m: int = RAREFIED_TO) -> pl.DataFrame:
    """The rows with a column `spectrum`: the log-determinant score of 5 correct answers of the row's question and
    layer (`measures.diversity.spectrum_score`), null where there are fewer.

    Of more than 5 correct answers, the mean over 32 subsets of 5, drawn without replacement. The draw is addressed by
    seed, question and layer, and made from the answers in alphabetical order, so that neither the order of the rows nor
    other questions change it.

    Args:
        scored: SCORED columns; `question` or `question_id`, `response` and `correct` at least.
        encode: distinct texts to unit vectors, [n, d].
        seed: of the draws.
        m: how many.
    """
    import polars as pl

    named = [name for name in ("question_id", "question") if name in scored.columns]
    question = pl.coalesce(pl.col(name).cast(pl.String) for name in named)
    keys = [pl.col(name) if name in scored.columns else pl.lit(None).alias(name) for name in _KEY]
    rows = scored.select(*keys, "correct", "response", at=question).with_row_index("row")
    right = rows.filter(pl.col("correct") & pl.col("response").str.strip_chars().str.len_chars().gt(0))
    texts = right["response"].unique().sort()
    vectors = _centred(encode(texts.to_list())) if len(texts) else np.zeros((0, 1))
    numbered = right.with_columns(
        text=right["response"].replace_strict(texts, np.arange(len(texts)), return_dtype=pl.Int64)
    )  # fmt: skip
    grouped = numbered.group_by(*_KEY, "at", maintain_order=True).agg("row", pl.col("text").sort())
    found = np.full(scored.height, np.nan)
    for key, members, numbers in grouped.select(pl.struct(*_KEY, "at"), "row", "text").iter_rows():
        if len(numbers) >= m:
            found[members] = _score(np.array(numbers), vectors, m, _stream(key), seed)
    return scored.with_columns(pl.Series(SPECTRUM, found).fill_nan(None))


def _centred(vectors: npt.NDArray[np.float32]) -> Floats:
    """Each vector less the mean of its own numbers, as in EigenScore."""
    values = vectors.astype(np.float64)
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _score(numbers: npt.NDArray[np.int64], vectors: Floats, m: int, stream: int, seed: int) -> float:
    distinct, item = np.unique(numbers, return_inverse=True)
    gram = vectors[distinct] @ vectors[distinct].T
    if len(numbers) == m or len(distinct) == 1:
        chosen = item[None, :m]
    else:
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
        chosen = item[np.argsort(generator.random((N_SUBSETS, len(numbers))), axis=1)[:, :m]]
    return float(np.round(spectrum_score(gram[chosen[:, :, None], chosen[:, None, :]]).mean(), 9))


def _stream(key: dict[str, object]) -> int:
    """Of the draws of one question and layer."""
    words = "\n".join(f"{value}" for value in key.values())
    return int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:8], "little")
