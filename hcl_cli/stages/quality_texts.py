"""Given texts -> what a model makes of them: losses of running text, and labels by their likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures.choices import mc1

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.quality import LabelledSource, Source

Floats = npt.NDArray[np.float64]
Ids = tuple[int, ...]

CONTENT_FREE = "N/A"  # what stands for a text that says nothing (Zhao et al. 2021)
SCORES = ("sum", "mean", "calibrated")


@dataclass(eq=False)
class TextReading:
    """One pass over running text: `perplexity` (loss in nats, tokens) and `token-accuracy` (hits, tokens) per text.

    Attributes:
        source: the texts; of a set of statements the true ones.
        limit: the first so many texts, or None for all.
        max_tokens: each text is cut to its first so many tokens (or to the model's positions, if fewer).
        special_tokens: whether the tokenizer adds its own (BOS).
        columns: our column -> column of the file, as the set was opened with.
    """

    source: Source
    limit: int | None
    max_tokens: int
    special_tokens: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "texts"
    _sequences: dict[tuple[int, int], list[tuple[Ids, int]]] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the values beside the model."""
        return {
            "data": self.source.identity, "data_name": self.source.name, "columns": self.columns, "limit": self.limit,
            "max_tokens": self.max_tokens, "special_tokens": self.special_tokens,
        }  # fmt: skip

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [text, 2]."""
        from hcl_cli.models.text_losses import token_losses

        ids, firsts = zip(*self._tokenised(loaded), strict=True)
        losses = token_losses(loaded, ids, firsts)
        n_tokens = [len(one.logprob) for one in losses]
        lost, hits = [-one.logprob.sum() for one in losses], [one.is_top.sum() for one in losses]
        return {
            name: np.stack([np.array(values, dtype=np.float64), np.array(n_tokens, dtype=np.float64)], axis=1)
            for name, values in (("perplexity", lost), ("token-accuracy", hits))
        }

    def _tokenised(self, loaded: LoadedModel) -> list[tuple[Ids, int]]:
        """Each text as tokens, with the position of the first that is predicted; made once per tokenizer."""
        from hcl_cli.stages.texts import tokenised, truncated

        most = min(self.max_tokens, loaded.max_positions or self.max_tokens)
        key = id(loaded.tokenizer), most
        if key not in self._sequences:
            found = []
            for name, content in self._rows():
                label = f"{self.source.name}, text {shown(name, 40)!r}"
                ids, first, _ = tokenised(
                    loaded.tokenizer, "", content, special_tokens=self.special_tokens, label=label
                )
                kept, _ = truncated(ids, first, None, max_tokens=most, cut=True, label=label)
                found.append((tuple(kept), first))
            self._sequences[key] = found
        return self._sequences[key]

    def _rows(self) -> list[tuple[str, str]]:
        frame = self.source.load()
        if "statement" in frame.columns:
            frame = frame.filter("label").select("statement_id", "statement")
        return _first(frame, self.limit).select(frame.columns[0], frame.columns[1]).rows()


@dataclass(eq=False)
class Labelling:
    """Zero-shot classification: right or wrong per text, by which label's word is the likeliest continuation.

    `sum` compares the labels' log-probabilities; `mean` those per token, so that a word of many tokens has no
    disadvantage; `calibrated` takes from each sum that of the same word after a text that says nothing ("N/A"), so
    that a word's frequency does not decide. A tie is wrong.

    Attributes:
        source: the labelled texts.
        limit: the first so many texts, or None for all.
        template: what the model reads, `{text}` in it; a label's word follows behind a blank.
        special_tokens: whether the tokenizer adds its own (BOS).
        columns, labels: as the set was opened with.
    Source: `sum`, `mean`: the usual zero-shot readings (GPT-3, arXiv 2005.14165, section 2.4); `calibrated`: Zhao et
        al. 2021, "Calibrate before use", with one content-free text, as a ratio of probabilities.
    """

    source: LabelledSource
    limit: int | None
    template: str
    special_tokens: bool = True
    columns: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    unit: str = "texts"

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the values beside the model."""
        return {
            "data": self.source.identity, "data_name": self.source.name, "limit": self.limit,
            "template": self.template, "special_tokens": self.special_tokens,
            "columns": self.columns, "labels": self.labels,
        }  # fmt: skip

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Score -> [text, 1]: 1 where the right label wins, else 0."""
        rows = _first(self.source.load(), self.limit).select("text_id", "text", "label").rows()
        words = self.source.words
        texts = [(name, content.strip()) for name, content, _ in rows]
        sums, means = self._scores(loaded, [*texts, ("content-free", CONTENT_FREE)], words)
        right = [words.index(label) for _, _, label in rows]
        scores = {"sum": sums[:-1], "mean": means[:-1], "calibrated": sums[:-1] - sums[-1]}
        return {name: _wins(scores[name], right) for name in SCORES}

    def _scores(
        self, loaded: LoadedModel, texts: Sequence[tuple[str, str]], words: Sequence[str]
    ) -> tuple[Floats, Floats]:
        """Sum and mean over a word's tokens of their log-probabilities: [text, word] each."""
        from hcl_cli.models.text_losses import token_losses
        from hcl_cli.models.vocabulary import continuation_ids

        sequences, firsts = [], []
        for name, content in texts:
            prompt = self.template.replace("{text}", content)
            ids = list(loaded.tokenizer(prompt, add_special_tokens=self.special_tokens)["input_ids"])
            for word in words:
                label = f"{self.source.name}, text {shown(name, 40)!r}, label {shown(word, 40)!r}"
                tokens, _ = continuation_ids(loaded.tokenizer, prompt, word, ids, special_tokens=self.special_tokens)
                if not ids or not tokens:
                    raise BadInput(f"{label}: the tokenizer makes no token of it; use another word or template")
                if loaded.max_positions is not None and len(ids) + len(tokens) > loaded.max_positions:
                    raise BadInput(
                        f"{label}: {len(ids) + len(tokens)} tokens, but the model has {loaded.max_positions} "
                        "positions; shorten the text or leave it out"
                    )
                sequences.append((*ids, *tokens))
                firsts.append(len(ids))
        losses = token_losses(loaded, sequences, firsts)
        shape = len(texts), len(words)
        return (
            np.array([one.logprob.sum() for one in losses]).reshape(shape),
            np.array([one.logprob.mean() for one in losses]).reshape(shape),
        )


def _wins(scores: Floats, right: Sequence[int]) -> Floats:
    found = [
        mc1(row[label], [score for index, score in enumerate(row) if index != label])
        for row, label in zip(scores.tolist(), right, strict=True)
    ]
    return np.array(found, dtype=np.float64)[:, None]


def _first(frame: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    return frame if limit is None else frame.head(limit)
