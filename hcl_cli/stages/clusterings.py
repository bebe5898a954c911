"""Which responses mean the same: the clusterings of `hcl score`, over all groups of a table at once.

A clustering is given jobs: the distinct responses of one question (by their numbers in a list of texts, in order of
first appearance) that are to be told apart. Blank responses have no meaning to compare: they form one cluster, alike to
nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hcl_cli.measures.clusters import Clusters, cosine_clusters, equal_clusters
from hcl_cli.measures.numbers import numbers_in
from hcl_cli.stages.string_judges import form_of

if TYPE_CHECKING:
    from hcl_cli.models.encoders import Reading

log = logging.getLogger(__name__)

_BLOCK = 4096  # distinct strings that are embedded between two reports of progress

Encode = Callable[[list[str]], NDArray[np.float32]]
Progress = Callable[[int, int], None]


class Job(NamedTuple):
    """Distinct responses of one question.

    Attributes:
        question: its text.
        items: [n], numbers of the responses in the list of texts, in order of first appearance.
    """

    question: str
    items: NDArray[np.int64]


class Placed(NamedTuple):
    """The cluster of each item of a job, 0.. in order of first appearance; and its similarity to the first member of
    its cluster, null where the clustering has none."""

    clusters: Clusters
    similarity: NDArray[np.float32] | None = None


class Clustering(Protocol):
    """A way to tell which responses mean the same.

    Attributes:
        name: one of CLUSTERINGS.
        label: the name with what differs from the defaults: cosine+components+numbers.
    """

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def run(self, texts: Sequence[str], jobs: Sequence[Job]) -> list[Placed]:
        """The clusters of every job. `texts` are distinct and sorted: a number is also a place in their order."""


def labelled(name: str, rule: str = "greedy", numbers: bool = False) -> str:
    """A clustering's label, see `Clustering`."""
    return name + ("" if rule == "greedy" else f"+{rule}") + ("+numbers" if numbers else "")


@dataclass(frozen=True)
class Exact:
    """Equal `answer_form`; where that is empty, equal case-folded text."""

    name: str = "exact"
    label: str = "exact"

    def run(self, texts: Sequence[str], jobs: Sequence[Job]) -> list[Placed]:
        """See `Clustering`."""
        forms = [(form, "") if (form := form_of(text)) else ("", text.casefold().strip()) for text in texts]
        meaning = equal_clusters(forms)
        return [Placed(equal_clusters(meaning[job.items].tolist())) for job in jobs]


@dataclass(frozen=True)
class Cosine:
    """Unit vectors of an encoder, alike from a cosine of `threshold` on.

    Attributes:
        encode: texts to unit vectors [n, d]. It sees each distinct string once, 1.5 KB each.
        threshold: the published one is 0.8.
        rule: how clusters are made of what is alike (`measures.clusters`).
        numbers: texts that state different numbers are never alike.
        reading: what the encoder makes of texts. Those of which it knows no token get all the same vector, and would be
            alike whatever they say: they are alike where their `answer_form` is equal.
        progress: called with (strings embedded, strings to embed).
    """

    encode: Encode
    threshold: float = 0.8
    rule: str = "greedy"
    numbers: bool = False
    reading: Callable[[list[str]], Reading] | None = None
    progress: Progress | None = None
    name: str = "cosine"

    @property
    def label(self) -> str:
        """See `Clustering`."""
        return labelled(self.name, self.rule, self.numbers)

    def run(self, texts: Sequence[str], jobs: Sequence[Job]) -> list[Placed]:
        """See `Clustering`."""
        apart = self._apart(texts)
        stated = [numbers_in(text) for text in texts] if self.numbers else None
        row, vectors = self._embedded(texts, apart)

        def placed(job: Job) -> Placed:
            def compared(items: NDArray[np.int64]) -> tuple[Clusters, NDArray[np.float32]]:
                keys = None if stated is None else [stated[item] for item in items]
                order = np.argsort(items).tolist() if self.rule == "complete" else None
                return cosine_clusters(vectors[row[items]], self.threshold, self.rule, apart=keys, order=order)

            return with_apart(job.items, apart, compared)

        return [placed(job) for job in jobs]

    def _apart(self, texts: Sequence[str]) -> list[object]:
        """A key of each text that cannot be compared; None of the others."""
        apart = blanks(texts)
        if self.reading is None:
            return apart
        wanted = [at for at, key in enumerate(apart) if key is None]
        known, cut = self.reading([texts[at] for at in wanted])
        unknown = [at for at, is_known in zip(wanted, known, strict=True) if not is_known]
        for at in unknown:
            apart[at] = (form_of(texts[at]), texts[at].casefold().strip() if not form_of(texts[at]) else "")
        if unknown:
            log.warning(
                "%d distinct responses hold no word that the sentence encoder knows (another script?): they are alike "
                "only where their words are equal; --embedder names another encoder", len(unknown),
            )  # fmt: skip
        if cut.any():
            log.warning("%d distinct responses are longer than the sentence encoder reads: they were cut", cut.sum())
        return apart

    def _embedded(self, texts: Sequence[str], apart: Sequence[object]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of each text the row in the vectors, -1 without one; and the vectors."""
        row = np.full(len(texts), -1, dtype=np.int64)
        wanted = [at for at, key in enumerate(apart) if key is None]
        # By length, so that a block holds little padding; then by text, so that the order is always the same.
        by_length = sorted(wanted, key=lambda at: (len(texts[at]), texts[at]))
        row[by_length] = np.arange(len(by_length))
        blocks = []
        for start in range(0, len(by_length), _BLOCK):
            blocks.append(self.encode([texts[at] for at in by_length[start : start + _BLOCK]]))
            if self.progress is not None:
                self.progress(min(start + _BLOCK, len(by_length)), len(by_length))
        return row, np.concatenate(blocks) if blocks else np.zeros((0, 1), dtype=np.float32)


def blanks(texts: Sequence[str]) -> list[object]:
    """A key for each blank text, None for the others."""
    return [None if text.strip() else "" for text in texts]


def with_apart(
    items: NDArray[np.int64],
    apart: Sequence[object],
    compared: Callable[[NDArray[np.int64]], tuple[Clusters, NDArray[np.float32] | None]],
) -> Placed:
    """Clusters of items of which some have a key: equal keys are a cluster, and the others are `compared`."""
    keys = [apart[item] for item in items.tolist()]
    if all(key is None for key in keys):
        return Placed(*compared(items))
    open_ones = np.array([key is None for key in keys], dtype=np.bool_)
    clusters, similarity = compared(items[open_ones])
    # Numbered by where the first member of each stands.
    found: list[object] = [("apart", key) for key in keys]
    for at, cluster in zip(np.flatnonzero(open_ones), clusters.tolist(), strict=True):
        found[at] = cluster
    similarities = None
    if similarity is not None:
        similarities = np.ones(len(items), dtype=np.float32)
        similarities[open_ones] = similarity
    return Placed(equal_clusters(found), similarities)
