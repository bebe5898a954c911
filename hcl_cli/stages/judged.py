"""Scored responses -> how each layer or decoding method fares with a language model as judge, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.llm.judges import NOT_ATTEMPTED, JudgePrompt
from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.grades import (
    Estimate,
    Ratio,
    correct_given_attempted,
    grades_f1,
    ratio_difference,
    ratio_estimate,
)
from hcl_cli.measures.intervals import mean_interval
from hcl_cli.schemas import JUDGED

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]

BASELINE = "vanilla"
CORPUS = ("model", "dataset")
CURVE = ("strategy", "method", "temperature", "top_p", "exit_layer")
_NONE: Estimate = (None, None, None)
_FIRST = ("true", "informative", "true-and-informative")


@dataclass(frozen=True)
class Metric:
    """A share of the judged responses of a question, or a ratio of two such shares.

    Attributes:
        judge, name: as in JUDGED.
        parts: names of indicator columns; a share has one, a ratio has (correct, attempted).
        ratio: means of the parts -> the metric; null for a share.
    """

    judge: str
    name: str
    parts: tuple[str, ...]
    ratio: Ratio | None = None


def judged_table(
    scored: pl.DataFrame, prompts: Sequence[JudgePrompt], *, asked_model: str, n_bootstrap: int = 2000, seed: int = 0
) -> pl.DataFrame:
    """What the judges say of each layer or method.

    A share is the mean over questions of its share among a question's judged responses; a response without a verdict
    (unparsed, cut, refused, no reference) counts nowhere. Metrics by prompt:

    - `published`, `published-10`, a file: `correct`;
    - `truth`: `true` (%Truth); `info`: `informative` (%Info); with both, `true-and-informative` (%Truth*Info), over
      the responses that both judged;
    - `simpleqa`, and a file that names NOT_ATTEMPTED: `correct`, `incorrect`, `not-attempted`,
      `correct-given-attempted` = correct / (correct + incorrect), and `f1`, the harmonic mean of that and `correct`; 0
      where a ratio is undefined, as in the published code. That code also counts a reply without a grade as not
      attempted; here it counts nowhere.

    Args:
        scored: SCORED with the columns of `Judging.verdicts`.
        prompts: the judges.
        asked_model: the model asked for.
        n_bootstrap, seed: of the resamples of questions, the same ones for all rows of a model and dataset.
    Returns:
        JUDGED, in the order of the responses. 95 % intervals: of shares
        and their differences as in `measures.intervals`, of ratios as in `measures.grades` (null with one question).
    Source: methods and metrics of Wei et al. 2024 (SimpleQA) and Lin et al. 2022 (TruthfulQA); intervals ours.
    """
    import polars as pl

    metrics = _metrics(prompts)
    parts = list(dict.fromkeys(part for metric in metrics for part in metric.parts))
    frame = scored.with_columns(_indicators(prompts))
    rows: list[dict[str, Any]] = []
    for _, corpus in frame.group_by(CORPUS, maintain_order=True):
        curves = corpus.select(CURVE).unique(maintain_order=True).with_row_index("curve")
        numbered = corpus.join(curves, on=CURVE, how="left", nulls_equal=True, maintain_order="left").with_columns(
            question=pl.col("question_id").rank("dense").cast(pl.Int64) - 1
        )
        shares = _shares(numbered, parts, curves.height)
        table = _Corpus(shares, {part: at for at, part in enumerate(parts)}, n_bootstrap, seed)
        named = curves.drop("curve").to_dicts()
        for curve, name in enumerate(named):
            base = _baseline(named, curve)
            mine = numbered.filter(pl.col("curve") == curve)
            for metric in metrics:
                value, n_questions = table.value(metric, curve)
                difference, n_paired = _NONE, None
                if base is not None:
                    difference, n_paired = table.difference(metric, curve, base)
                rows.append(
                    {
                        **{column: corpus[column][0] for column in CORPUS},
                        **name,
                        "judge": metric.judge,
                        "metric": metric.name,
                        **dict(zip(("value", "value_low", "value_high"), value, strict=True)),
                        "baseline": None if base is None else BASELINE,
                        **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
                        "n_questions": n_questions,
                        "n_paired": n_paired,
                        "n_responses": mine.height,
                        "n_judged": mine.height - mine[metric.parts[0]].null_count(),
                        "asked_model": asked_model,
                        "reported_model": _reported(mine, metric.judge),
                    }
                )
    return pl.DataFrame(rows, schema=JUDGED.polars_schema(), orient="row")


def _metrics(prompts: Sequence[JudgePrompt]) -> list[Metric]:
    found = []
    for prompt in prompts:
        judge = prompt.judge
        if prompt.has_not_attempted:
            found += [Metric(judge, name, (f"{name} {judge}",)) for name in ("correct", "incorrect", NOT_ATTEMPTED)]
            both = (f"correct {judge}", f"attempted {judge}")
            found += [
                Metric(judge, "correct-given-attempted", both, correct_given_attempted),
                Metric(judge, "f1", both, grades_f1),
            ]
        else:
            name = {"truth": "true", "info": "informative"}.get("" if prompt.is_file else prompt.name, "correct")
            found.append(Metric(judge, name, (f"correct {judge}",)))
    if both_asked(prompts):
        found.append(Metric("llm_truth+llm_info", "true-and-informative", ("both",)))
    return sorted(found, key=lambda metric: metric.name not in _FIRST)  # what belongs together stands together


def both_asked(prompts: Sequence[JudgePrompt]) -> bool:
    """Whether `truth` and `info` are both among the judges."""
    return {"llm_truth", "llm_info"} <= {prompt.judge for prompt in prompts}


def _indicators(prompts: Sequence[JudgePrompt]) -> list[pl.Expr]:
    """A column of 0 and 1 for every part, null where there is no verdict."""
    import polars as pl

    found = []
    for prompt in prompts:
        skipped = pl.col(f"status_{prompt.judge}") == NOT_ATTEMPTED
        holds = pl.when(skipped).then(False).otherwise(pl.col(prompt.column))
        found.append(holds.cast(pl.Float64).alias(f"correct {prompt.judge}"))
        if prompt.has_not_attempted:
            graded = pl.when(holds.is_not_null())
            found += [
                graded.then(skipped).cast(pl.Float64).alias(f"{NOT_ATTEMPTED} {prompt.judge}"),
                graded.then(~skipped).cast(pl.Float64).alias(f"attempted {prompt.judge}"),
                graded.then(~skipped & ~holds).cast(pl.Float64).alias(f"incorrect {prompt.judge}"),
            ]
    if both_asked(prompts):
        truth, info = (next(one for one in prompts if one.judge == judge) for judge in ("llm_truth", "llm_info"))
        known = pl.col(truth.column).is_not_null() & pl.col(info.column).is_not_null()
        found.append(pl.when(known).then(pl.col(truth.column) & pl.col(info.column)).cast(pl.Float64).alias("both"))
    return found


def _shares(numbered: pl.DataFrame, parts: Sequence[str], n_curves: int) -> Floats:
    """Each part's mean over the judged responses of a question: [question, curve, part]; NaN without any."""
    import polars as pl

    shares = np.full((int(numbered["question"].n_unique()), n_curves, len(parts)), np.nan)
    means = numbered.group_by("question", "curve", maintain_order=True).agg(pl.col(part).mean() for part in parts)
    at = tuple(means[name].to_numpy() for name in ("question", "curve"))
    shares[at] = means.select(pl.col(part).fill_null(math.nan) for part in parts).to_numpy()
    return shares


def _baseline(curves: Sequence[dict[str, Any]], curve: int) -> int | None:
    """The curve that differs in nothing but that its method is `vanilla`; null for itself and where there is none."""
    wanted = curves[curve] | {"method": BASELINE}
    found = curves.index(wanted) if wanted in curves else None
    return None if found == curve or curves[curve]["method"] is None else found


def _reported(frame: pl.DataFrame, judge: str) -> str | None:
    names = sorted({name for one in judge.split("+") for name in frame[f"reported_{one}"].drop_nulls().unique()})
    return ", ".join(names) or None


@dataclass
class _Corpus:
    """Shares [question, curve, part] of one model and dataset, and their estimates."""

    shares: Floats
    parts: dict[str, int]
    n_bootstrap: int
    seed: int

    def __post_init__(self) -> None:
        n_questions, n_curves, n_parts = self.shares.shape
        flat = self.shares.reshape(n_questions, -1)
        self.drawn = resampled_means(flat, self.n_bootstrap, self.seed).reshape(-1, n_curves, n_parts)

    def _of(self, metric: Metric, curve: int) -> tuple[Floats, Floats]:
        """The metric's parts by question and by resample: [question, part], [resample, part]."""
        at = [self.parts[part] for part in metric.parts]
        return self.shares[:, curve, at], self.drawn[:, curve, at]

    def value(self, metric: Metric, curve: int) -> tuple[Estimate, int]:
        """The estimate and how many questions it runs over."""
        shares, drawn = self._of(metric, curve)
        known = shares[~np.isnan(shares[:, 0])]
        if not len(known):
            return _NONE, 0
        if metric.ratio is None:
            return _mean(known[:, 0], drawn[:, 0], (0.0, 1.0)), len(known)
        return ratio_estimate(metric.ratio, known, drawn), len(known)

    def difference(self, metric: Metric, curve: int, base: int) -> tuple[Estimate, int]:
        """This curve's less the baseline's, on the questions that both have."""
        (mine, _), (theirs, _) = self._of(metric, curve), self._of(metric, base)
        shared = ~np.isnan(mine[:, 0]) & ~np.isnan(theirs[:, 0])
        if not shared.any():
            return _NONE, 0
        both = np.where(shared[:, None], np.concatenate([mine, theirs], axis=1), np.nan)
        if shared.all():
            drawn = np.concatenate([self._of(metric, curve)[1], self._of(metric, base)[1]], axis=1)
        else:  # a question that only one of them has a verdict on says nothing about their difference
            drawn = resampled_means(both, self.n_bootstrap, self.seed)
        kept = both[shared]
        if metric.ratio is None:
            return _mean(kept[:, 0] - kept[:, 1], drawn[:, 0] - drawn[:, 1], (-1.0, 1.0)), len(kept)
        return ratio_difference(metric.ratio, kept, drawn), len(kept)


def _mean(values: Floats, drawn: Floats, support: tuple[float, float]) -> Estimate:
    low, high = mean_interval(values[:, None], drawn[:, None], support)
    return float(values.mean()), _known(low[0]), _known(high[0])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
