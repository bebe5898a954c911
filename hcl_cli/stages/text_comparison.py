"""Text scores -> methods compared: corpus values, and differences from one method, with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts, resampled_means
from hcl_cli.measures.intervals import bca_interval, mean_interval
from hcl_cli.measures.text_metrics import N_COUNTS, corpus_bleu
from hcl_cli.schemas.contrast import COMPARED
from hcl_cli.stages.text_scores import counts_of

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]
Estimate = tuple[float | None, float | None, float | None]  # value, low, high
_NONE: Estimate = (None, None, None)


def compared(
    scores: pl.DataFrame, *, baseline: str = "vanilla", n_bootstrap: int = 2000, seed: int = 0
) -> pl.DataFrame:
    """Each method's value under each metric, and its difference from the baseline on the questions both answered.

    A value is the mean over questions of a question's mean over samples; `bleu` is the corpus BLEU of all answers,
    taken anew from the summed counts of every resample. Questions are resampled, the same ones for all methods and
    metrics, so that differences are paired.

    Args:
        scores: TEXT_SCORES.
        baseline: a method; if it is not there, differences are null, as they are in its own rows.
        n_bootstrap: resamples; with 0 only means in which few questions differ have intervals.
        seed: of the resamples.
    Returns:
        COMPARED; metrics, kinds of reference and methods in the order of their first rows. 95 % intervals: see
        `measures.intervals`; of `bleu`, bias-corrected and accelerated with the jackknife's acceleration. null where
        fewer than two questions decide, and for `bleu` where all resamples are equal: they say nothing of its spread.
    """
    import polars as pl

    rows: list[dict[str, Any]] = []
    for _, corpus in scores.group_by("model", "dataset", maintain_order=True):
        cells = corpus.select("metric", "against").unique(maintain_order=True).with_row_index("cell")
        methods: list[str] = corpus["method"].unique(maintain_order=True).to_list()
        numbered = corpus.join(cells, on=("metric", "against"), how="left", maintain_order="left").with_columns(
            question=pl.col("question_id").rank("dense").cast(pl.Int64) - 1,
            place=pl.col("method").replace_strict({name: index for index, name in enumerate(methods)}),
        )
        base = methods.index(baseline) if baseline in methods else None
        shape = (int(numbered["question"].n_unique()), cells.height, len(methods))
        answered = np.zeros(shape, dtype=np.bool_)
        answered[tuple(numbered[name].to_numpy() for name in ("question", "cell", "place"))] = True
        made = _means(numbered, shape, base, n_bootstrap, seed)
        for cell in cells.filter(pl.col("metric") == "bleu")["cell"].to_list():
            counts = numbered.filter(pl.col("cell") == cell)
            made.update(_bleu(counts, cell, answered[:, cell], base, n_bootstrap, seed))
        encoders = dict(corpus.select("metric", "encoder").unique(maintain_order=True).iter_rows())
        for cell, metric, against in cells.iter_rows():
            for place, method in enumerate(methods):
                value, difference = made[cell, place]
                here = answered[:, cell, place]
                paired = None if base in (None, place) else int((here & answered[:, cell, base]).sum())
                rows.append(
                    {
                        **{name: corpus[name][0] for name in ("model", "dataset")},
                        **{"method": method, "metric": metric, "against": against, "encoder": encoders[metric]},
                        **dict(zip(("value", "value_low", "value_high"), value, strict=True)),
                        "baseline": None if paired is None else baseline,
                        **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
                        **{"n_questions": int(here.sum()), "n_paired": paired},
                    }
                )
    return pl.DataFrame(rows, schema=COMPARED.polars_schema(), orient="row")


def _means(
    numbered: pl.DataFrame, shape: tuple[int, int, int], base: int | None, n_bootstrap: int, seed: int
) -> dict[tuple[int, int], tuple[Estimate, Estimate]]:
    """Value and difference of each (cell, method), as means over questions."""
    import polars as pl

    values = np.full(shape, np.nan)
    keys = ("question", "cell", "place")
    grouped = numbered.group_by(keys, maintain_order=True).agg(pl.col("value").mean()).drop_nulls("value")
    values[tuple(grouped[name].to_numpy() for name in keys)] = grouped["value"].to_numpy()
    differences = values - values[:, :, [base]] if base is not None else np.full(shape, np.nan)
    both = np.concatenate([values.reshape(shape[0], -1), differences.reshape(shape[0], -1)], axis=1)
    draws = resampled_means(both, n_bootstrap, seed)
    signed = set(numbered.filter(_is_signed())["cell"].to_list())
    made: dict[tuple[int, int], tuple[Estimate, Estimate]] = {}
    for cell in range(shape[1]):
        low = -1.0 if cell in signed else 0.0
        for place in range(shape[2]):
            at = cell * shape[2] + place
            value = _mean(both[:, at], draws[:, at], (low, 1.0))
            at += shape[1] * shape[2]
            difference = _NONE if place == base else _mean(both[:, at], draws[:, at], (low - 1, 1 - low))
            made[cell, place] = (value, difference)
    return made


def _is_signed() -> pl.Expr:
    """Rows whose value may be below 0."""
    import polars as pl

    return (pl.col("against") == "diff") | ((pl.col("metric") == "bertscore") & (pl.col("against") != "acc"))


def _mean(values: Floats, draws: Floats, support: tuple[float, float]) -> Estimate:
    """The mean of those that are not NaN, with its interval."""
    known = values[~np.isnan(values)]
    if not len(known):
        return _NONE
    if len(known) < 2:
        return float(known.mean()), None, None
    low, high = mean_interval(known[:, None], draws[:, None], support)
    return float(known.mean()), _known(low[0]), _known(high[0])


def _bleu(
    numbered: pl.DataFrame, cell: int, answered: npt.NDArray[np.bool_], base: int | None, n_bootstrap: int, seed: int
) -> dict[tuple[int, int], tuple[Estimate, Estimate]]:
    """Value and difference of each (cell, method) for one cell of corpus BLEU."""
    sums = np.zeros((*answered.shape, N_COUNTS))  # [question, method, count]
    np.add.at(sums, (numbered["question"].to_numpy(), numbered["place"].to_numpy()), counts_of(numbered))
    made: dict[tuple[int, int], tuple[Estimate, Estimate]] = {}
    for place in range(answered.shape[1]):
        value = _corpus(sums[:, [place]], answered[:, place], n_bootstrap, seed)
        difference = _NONE
        if base is not None and place != base:
            # A question that only one of them answered says nothing about their difference.
            shared = answered[:, place] & answered[:, base]
            difference = _corpus(sums[:, [place, base]], shared, n_bootstrap, seed)
        made[cell, place] = (value, difference)
    return made


def _corpus(sums: Floats, use: npt.NDArray[np.bool_], n_bootstrap: int, seed: int) -> Estimate:
    """Corpus BLEU of one method, or the first's less the second's, from [question, 1 or 2, count]."""
    if not use.any():
        return _NONE
    kept = np.where(use[:, None, None], sums, 0.0)

    def statistic(counts: Floats) -> Floats:
        bleu = corpus_bleu(counts)  # [..., 1 or 2]
        return bleu[..., 0] - bleu[..., 1] if bleu.shape[-1] == 2 else bleu[..., 0]

    total = kept.sum(axis=0)
    estimate = statistic(total)
    flat = kept.reshape(len(kept), -1)
    draws = [
        statistic((block @ flat).reshape(-1, *total.shape)) for block in resample_counts(len(kept), n_bootstrap, seed)
    ]
    without = statistic(total - kept[use])
    influence = (without.mean() - without)[:, None]
    resampled = np.asarray(np.round(np.concatenate([np.empty(0), *draws]), 12), dtype=np.float64)
    seen = resampled[~np.isnan(resampled)]
    if int(use.sum()) < 2 or not len(seen) or seen.min() == seen.max():
        return float(estimate), None, None
    low, high = bca_interval(estimate[None], resampled[:, None], influence)
    bottom = -1.0 if sums.shape[1] == 2 else 0.0
    return float(estimate), _known(np.maximum(bottom, low[0])), _known(np.minimum(1.0, high[0]))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
