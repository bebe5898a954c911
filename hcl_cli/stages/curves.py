"""Scored responses -> one curve per model, data set and protocol: a matrix of questions by exit layers.

Where a protocol holds several decoding methods, each read at one layer (answers of `hcl dola`), the curve runs over
the methods instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import shown
from hcl_cli.measures.diversity import cluster_count, cluster_entropy, coverage_count, rarefied_count
from hcl_cli.measures.semantic_entropy import discrete_semantic_entropy, predictive_entropy, semantic_entropy
from hcl_cli.stages.scored_groups import BASELINE, SPECTRUM, Part, ScoredInput, read_groups, stream_of

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]

ENTROPY_COLUMNS = ("meaning_id", "mean_logprob")
_DRAFTING = ("n_tokens", "drafted", "accepted_drafts", "verifications")
_FROM_SIZES = {
    "clusters": cluster_count, "rarefied": rarefied_count, "coverage": coverage_count, "entropy": cluster_entropy,
}  # fmt: skip
DIVERSITIES = (*_FROM_SIZES, SPECTRUM)


@dataclass(frozen=True)
class Curve:
    """One model, data set and protocol; questions are sorted by id, layers rise.

    A curve over methods has one position per decoding method, `vanilla` first, then by name; what is said of layers
    below then holds for them.

    Attributes:
        group: the values of `GROUP` and of `source`; `method` is null for a curve over methods.
        layers: exit layers.
        methods: of each position; None for a curve over layers.
        question_ids: the questions compared, those with a graded answer at every layer.
        n_left_out: questions left out because some layer has no graded answer to them.
        wrong: [question, layer], share of graded answers that are wrong.
        graded: [question, layer], number of graded answers, >= 1.
        diversity: [question, layer]; NaN in a whole row for a question that does not count for creativity, NaN
            everywhere if the answers were not clustered.
        confidence: [question, layer], mean of `mean_prob`; NaN in a whole row where some layer has none.
        semantic_entropy, semantic_entropy_discrete: [question, layer], in nats, of the same questions
            (`counted_entropies`); NaN in the rows of the others.
        n_samples, n_graded: [layer], over all questions.
        relative_cost: one per layer, the mean over answers; None if unknown.
        acceptance_rate, tokens_per_verification: one per layer, over all answers; None where nothing was drafted.
    """

    group: dict[str, Any]
    layers: list[int]
    methods: list[str] | None
    question_ids: list[str]
    n_left_out: int
    wrong: Floats
    graded: Floats
    diversity: Floats
    confidence: Floats
    semantic_entropy: Floats
    semantic_entropy_discrete: Floats
    n_samples: list[int]
    n_graded: list[int]
    relative_cost: list[float | None]
    acceptance_rate: list[float | None]
    tokens_per_verification: list[float | None]

    @property
    def noun(self) -> str:
        """What a position is: layer or method."""
        return "layer" if self.methods is None else "method"

    @property
    def names(self) -> list[str]:
        """Of the positions: the numbers of the layers, or the methods."""
        return [str(layer) for layer in self.layers] if self.methods is None else [shown(m, 60) for m in self.methods]

    @property
    def reference(self) -> int | None:
        """The position that the best one is measured against: the last layer, or `vanilla` if it was run."""
        if self.methods is None:
            return len(self.layers) - 1
        return self.methods.index(BASELINE) if BASELINE in self.methods else None

    @property
    def stream(self) -> int:
        """The random stream of the resamples: curves over the same questions share it and so are paired."""
        return stream_of(self.question_ids)


def read_curves(inputs: Sequence[ScoredInput], diversity: str) -> list[Curve]:
    """Every curve in the inputs, ordered by group and then by input.

    `source` is the first 8 digits of the input's digest where two inputs hold the same group, else None.

    Raises:
        BadInput: no input, no row, the same content twice, a column whose values cannot be used, or no question
            that was graded at every layer.
    """
    return [_curve(group, part, diversity) for group, part in read_groups(inputs)]


def _curve(group: dict[str, Any], part: Part, diversity: str) -> Curve:
    import polars as pl

    table, axis = part.frame, part.axis
    ids = table["question_id"].unique().sort()
    layers = part.positions()
    shape = len(ids), len(layers)
    n_cells = shape[0] * shape[1]
    position = pl.DataFrame({"question_id": ids}).with_row_index("q")
    depth = layers.select(axis).with_row_index("k")
    # Sorted down to the value that is summed: the order of the rows in the file must not reach the last bit.
    table = (
        table.join(position, on="question_id")
        .join(depth, on=axis)
        .with_columns(cell=pl.col("q").cast(pl.Int64) * len(layers) + pl.col("k").cast(pl.Int64))
        .select(
            "cell", "k", "correct", "cluster_id", "mean_prob", "relative_cost", SPECTRUM, *ENTROPY_COLUMNS, *_DRAFTING
        )
        .sort("cell", "mean_prob", "correct", "cluster_id", "relative_cost", *ENTROPY_COLUMNS)
    )
    cell = table["cell"].to_numpy()

    def per_cell(rows: pl.Series, weights: pl.Series | None = None) -> Floats:
        keep = rows.fill_null(False).to_numpy()
        held = None if weights is None else weights.to_numpy()[keep]
        return np.bincount(cell[keep], weights=held, minlength=n_cells).astype(np.float64).reshape(shape)

    graded = per_cell(table["correct"].is_not_null())
    right = per_cell(table["correct"])
    compared = np.asarray((graded > 0).all(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        wrong = (graded - right) / graded
        said = table["mean_prob"].is_not_null() & table["mean_prob"].is_not_nan().fill_null(False)
        confidence = per_cell(said, table["mean_prob"]) / per_cell(said)
    found = _diversity(table, diversity, n_cells).reshape(shape)
    entropies = counted_entropies(table, cell, shape, compared)
    drafted, verified = pl.col("drafted").sum(), pl.col("verifications").sum()
    cost = pl.col("relative_cost")
    of_layers = table.group_by("k").agg(
        # A mean of equal numbers may differ from them in the last bit.
        cost=pl.when(cost.min() == cost.max()).then(cost.max()).otherwise(cost.mean()),
        accepted=pl.when(drafted > 0).then(pl.col("accepted_drafts").sum() / drafted),
        per_pass=pl.when(verified > 0).then(pl.col("n_tokens").sum() / verified),
    )
    of_layers = of_layers.sort("k")
    return Curve(
        group=group,
        layers=layers["layer"].to_list(),
        methods=layers["method"].to_list() if part.over_methods else None,
        question_ids=ids.filter(pl.Series(compared)).to_list(),
        n_left_out=int((~compared).sum()),
        wrong=wrong[compared],
        graded=graded[compared],
        diversity=_whole_rows(found[compared]),
        confidence=_whole_rows(confidence[compared]),
        semantic_entropy=entropies["semantic_entropy"][compared],
        semantic_entropy_discrete=entropies["semantic_entropy_discrete"][compared],
        n_samples=np.bincount(table["k"].to_numpy(), minlength=shape[1]).tolist(),
        n_graded=graded.sum(axis=0).astype(int).tolist(),
        relative_cost=of_layers["cost"].to_list(),
        acceptance_rate=of_layers["accepted"].to_list(),
        tokens_per_verification=of_layers["per_pass"].to_list(),
    )


def _whole_rows(values: Floats) -> Floats:
    """A question counts at every layer or at none."""
    return np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)


def counted_entropies(
    table: pl.DataFrame, cell: npt.NDArray[np.int64], shape: tuple[int, int], compared: npt.NDArray[np.bool_]
) -> dict[str, Floats]:
    """Entropies of the samples of each question and layer, over the questions that have all of them at every layer.

    An entropy of one sample says nothing: a question needs two or more at every layer. Where no question has them all,
    as in a file without likelihoods, the questions with a discrete semantic entropy count.

    Args:
        table: ENTROPY_COLUMNS of every sample, in an order that does not depend on the file's.
        cell: [sample], question * layers + layer.
        shape: questions, layers.
        compared: [question], those that may count.
    Returns:
        semantic_entropy, semantic_entropy_discrete, predictive_entropy, each [question, layer] in nats; NaN in a whole
        row for a question that does not count, and throughout for an entropy that needs what the file lacks.
    """
    import polars as pl

    n_cells = shape[0] * shape[1]
    meaning, logprob = (table[name].cast(pl.Float64).to_numpy() for name in ENTROPY_COLUMNS)
    several = np.bincount(cell, minlength=n_cells) > 1
    found = {
        "semantic_entropy": semantic_entropy(cell, meaning, logprob, n_cells),
        "semantic_entropy_discrete": discrete_semantic_entropy(cell, meaning, n_cells),
        "predictive_entropy": predictive_entropy(cell, logprob, n_cells),
    }
    found = {name: np.where(several, values, np.nan).reshape(shape) for name, values in found.items()}
    counted = compared
    for needed in ("semantic_entropy", "semantic_entropy_discrete"):
        counted = compared & ~np.isnan(found[needed]).any(axis=1)
        if counted.any():
            break
    return {
        name: np.where(counted[:, None] & ~np.isnan(values[counted]).any(), values, np.nan)
        for name, values in found.items()
    }


def _diversity(table: pl.DataFrame, diversity: str, n_cells: int) -> Floats:
    import polars as pl

    correct = table.filter("correct")
    if diversity == SPECTRUM:
        found = np.full(n_cells, np.nan)
        of_cells = correct.drop_nulls(SPECTRUM).group_by("cell").agg(pl.col(SPECTRUM).first())
        found[of_cells["cell"].to_numpy()] = of_cells[SPECTRUM].to_numpy()
        return found
    if correct.height and correct["cluster_id"].null_count() == correct.height:
        return np.full(n_cells, np.nan)  # never clustered: unknown, not 0
    clusters = correct.group_by("cell", "cluster_id").agg(size=pl.len()).sort("cell", "cluster_id")
    cell, size = clusters["cell"].to_numpy(), clusters["size"].cast(pl.Int64).to_numpy()
    return _FROM_SIZES[diversity](cell, size, n_cells)
