"""Every probe's and baseline's held-out numbers with intervals: which layer knows best, and does it beat the baselines.

* Every number is that of a single probe, the mean over seeds; only `p_true` (PROBE_SCORES, RELIABILITY) is the mean of
  the seeds' probabilities. Rows of all folds are pooled; what ranks rows compares within folds (`probe_intervals`).
* Intervals are from resamples of whole groups. They say nothing of seeds, whose spread has columns of its own.
* Where several folds are tested, each on fits that share their training rows with the others', errors agree across
  folds and resampling the rows does not see it: intervals of accuracies and of AUROC are widened by sqrt(2), as in
  `calibration_intervals`. Measured on accuracy with 5 folds, 100 and 200 rows, from pure noise to 87 % right: the
  spread over data sets is 1.13 to 1.34 times the standard error of independent rows.
* `beats_baselines`: the layer's lead in accuracy over each baseline, on the same rows and resamples, has a lower end
  above 0 in one simultaneous one-sided 95 % band over all classifiers, layers and baselines of the table (max-T,
  errors widened as above). Majorities of the probes' own layers are shown as baselines but are no bar here: they
  have learnt what the probes have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.bootstrap import resample_counts
from hcl_cli.measures.calibration import N_BINS, bin_of, reliability_bins
from hcl_cli.measures.calibration_intervals import (
    CROSS_FITTED,
    Estimate,
    ResampledAuroc,
    auroc_interval,
    question_index,
)
from hcl_cli.measures.probe_intervals import (
    HeldOutRows,
    all_leads_bound,
    auroc_per_seed,
    calibration_error,
    resampled_auroc,
    resampled_share,
    share_interval,
    widened,
    wilson_interval,
)
from hcl_cli.measures.ranked_intervals import ranked_half_intervals
from hcl_cli.measures.selection import best_set
from hcl_cli.models.hidden import Layer
from hcl_cli.schemas.probes import PROBE_SUMMARY, PROBES, RELIABILITY
from hcl_cli.stages.baselines import PUBLISHED_LAYERS, Prediction, majority_name, majority_of_layers
from hcl_cli.stages.probe import Probed
from hcl_cli.stages.probe_scores import metrics, score_rows, table_of

if TYPE_CHECKING:
    import polars as pl

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

VOTER = "mlp"  # the classifier whose layers vote, as published


@dataclass(frozen=True)
class Summary:
    """All that `hcl probe` says of its probes.

    Attributes:
        summary: PROBE_SUMMARY, baselines first.
        probes: PROBES, baselines first.
        scores: PROBE_SCORES, baselines with a probability first.
        reliability: RELIABILITY.
    """

    summary: pl.DataFrame
    probes: pl.DataFrame
    scores: pl.DataFrame
    reliability: pl.DataFrame


@dataclass(frozen=True)
class _Judge:
    """A probe's layer or a baseline, on the tested rows.

    Attributes:
        layer: None for a baseline.
        seeds: (None,) where nothing is drawn.
        right: [seed, row] at 0.5.
        prob: [seed, row], or None for bare votes.
        at_threshold: [row], share of seeds right at the threshold chosen in training, or None.
        control: [row], share of controls that are right, or None.
        is_fitted: whether it learnt from the other folds.
        is_bar: whether it is something to beat.
        train_loss, train_acc: [fold], of a baseline.
    """

    classifier: str
    layer: Layer | None
    seeds: tuple[int | None, ...]
    right: Floats
    prob: Floats | None
    at_threshold: Floats | None = None
    control: Floats | None = None
    is_fitted: bool = True
    is_bar: bool = False
    train_loss: Floats | None = None
    train_acc: Floats | None = None


def summarised(
    probed: Probed, baselines: Mapping[str, Prediction] | None = None, *, n_bootstrap: int = 2000, seed: int = 0
) -> Summary:
    """Summary, reliability, and the baselines' own rows beside the probes'.

    Args:
        probed: the probes.
        baselines: by name, of the frame and folds that `probed` was given; None for no baseline but majorities.
        n_bootstrap: resamples of the groups; 0 for no intervals and nothing that needs them.
        seed: of the resamples.
    Returns:
        the same whatever the order of the statements.
    """
    rows = np.sort(np.concatenate([fold.test for fold in probed.folds]))
    fold_of = np.full(len(probed.place), -1)
    for number, fold in enumerate(probed.folds):
        fold_of[fold.test] = number
    group, names = question_index(probed.statements["group_id"][rows])
    drawn = list(resample_counts(len(names), n_bootstrap, seed))
    counts = np.concatenate(drawn) if drawn else np.empty((0, len(names)))
    tested = HeldOutRows(probed.statements["label"].to_numpy()[rows], group, fold_of[rows], counts)
    bars = [
        *(_baseline(name, one, probed, rows) for name, one in (baselines or {}).items()),
        *_majorities(probed, rows, tested.outcome),
    ]
    judges = [*bars, *_layers(probed, rows, tested.outcome)]
    known = {"model": probed.model, "dataset": probed.dataset}

    import polars as pl

    probes = pl.concat([table_of(PROBES, [known | row for one in bars for row in _fold_rows(one, probed, tested)]),
                        probed.probes])  # fmt: skip
    table = _summary_rows(judges, probed, tested, probes)
    scores = [probed.scores[:0]]
    for one in bars:
        if one.prob is not None:
            everywhere = np.full(len(probed.place), np.nan)
            everywhere[rows] = one.prob.mean(0)
            scores.append(score_rows(probed.statements, one.classifier, None, everywhere, known))
    shown = [one for one, row in zip(judges, table, strict=True) if one.layer is None or row["is_best"]]
    return Summary(
        summary=table_of(PROBE_SUMMARY, [known | row for row in table]),
        probes=probes,
        scores=pl.concat([*scores, probed.scores]),
        reliability=table_of(RELIABILITY, [known | row for one in shown for row in _reliability(one, tested)]),
    )


# ----------------------------------------------------------------------------------------------- who is judged


def _layers(probed: Probed, rows: Ints, outcome: Bools) -> list[_Judge]:
    judges = []
    for classifier, held_out in probed.held_out.items():
        for at, layer in enumerate(probed.layers):
            prob = held_out.prob[at][:, rows]
            control = None if held_out.control_right is None else held_out.control_right[at][rows]
            judges.append(
                _Judge(
                    classifier, layer, held_out.seeds, ((prob > 0.5) == outcome).astype(np.float64), prob,
                    held_out.right_at_threshold[at][rows], control,
                )
            )  # fmt: skip
    return judges


def _baseline(name: str, found: Prediction, probed: Probed, rows: Ints) -> _Judge:
    at = np.searchsorted(rows, probed.place[found.row])
    if len(at) != len(rows) or (rows[np.sort(at)] != rows).any():
        raise ValueError(f"{name}: predicts {len(at)} rows, expected each of the {len(rows)} tested rows once")
    label = probed.statements["label"].to_numpy()
    right = np.empty((1, len(rows)))
    right[0, at] = found.answered & (found.vote == label[rows[at]])
    prob = None
    if found.p_true is not None:
        prob = np.empty((1, len(rows)))
        prob[0, at] = found.p_true
    seeds = (probed.settings.seed,) if found.is_drawn else (None,)
    is_fitted = found.train_loss is not None
    return _Judge(
        name, None, seeds, right, prob, is_fitted=is_fitted, is_bar=True,
        train_loss=found.train_loss, train_acc=found.train_acc,
    )  # fmt: skip


def _majorities(probed: Probed, rows: Ints, outcome: Bools) -> list[_Judge]:
    """Votes of the perceptrons of all layers before the final norm, and of the published ones if all are there."""
    if VOTER not in probed.held_out:
        return []
    raw = [at for at, layer in enumerate(probed.layers) if not layer.normed]
    numbers = [probed.layers[at].exit_layer for at in raw]
    held_out = probed.held_out[VOTER]
    choices: list[tuple[int, ...] | None] = [None] if len(numbers) > 1 else []
    if set(PUBLISHED_LAYERS) < set(numbers):
        choices.append(PUBLISHED_LAYERS)
    judges = []
    for among in choices:
        _, vote = majority_of_layers(held_out.prob[raw][:, :, rows], numbers, among)
        right = (vote == outcome).astype(np.float64)
        judges.append(_Judge(majority_name(among), None, held_out.seeds, right, None))
    return judges


def _fold_rows(one: _Judge, probed: Probed, tested: HeldOutRows) -> list[dict[str, Any]]:
    """PROBES of a baseline."""
    found = []
    for number, fold in enumerate(probed.folds):
        here = tested.fold == number
        for at, seed in enumerate(one.seeds):
            row = {} if one.prob is None else metrics(one.prob[at, here], tested.outcome[here])
            row |= {
                "classifier": one.classifier,
                "fold": fold.name,
                "seed": seed,
                "control": False,
                "n_train": len(fold.train),
                "n_test": len(fold.test),
                "train_loss": None if one.train_loss is None else float(one.train_loss[number]),
                "train_acc": None if one.train_acc is None else float(one.train_acc[number]),
                "test_acc": float(one.right[at, here].mean()),
            }
            found.append(row)
    return found


# ----------------------------------------------------------------------------------------------------- the rows


def _summary_rows(
    judges: Sequence[_Judge], probed: Probed, tested: HeldOutRows, probes: pl.DataFrame
) -> list[dict[str, Any]]:
    trained = _trained(probes)
    found, areas = [], []
    for one in judges:
        area = None if one.prob is None else resampled_auroc(one.prob, tested)
        areas.append(area)
        layer = {} if one.layer is None else {"exit_layer": one.layer.exit_layer, "normed": one.layer.normed}
        loss, acc = trained[one.classifier, layer.get("exit_layer"), layer.get("normed")]
        found.append(
            {
                "classifier": one.classifier,
                **layer,
                "n_statements": len(tested.outcome),
                "n_groups": tested.counts.shape[1],
                "n_folds": len(probed.folds),
                "n_seeds": len(one.seeds),
                "train_loss": loss,
                "train_acc": acc,
                **_numbers(one, area, tested, _widening(one.is_fitted, probed)),
            }
        )
    for classifier in probed.held_out:
        own = [at for at, one in enumerate(judges) if one.layer is not None and one.classifier == classifier]
        _mark_best([found[at] for at in own], [areas[at] for at in own], tested, _widening(True, probed))
    _mark_beaten(judges, found, tested, _widening(True, probed))
    return found


def _widening(is_fitted: bool, probed: Probed) -> float:
    return CROSS_FITTED if is_fitted and len(probed.folds) > 1 else 1.0


def _trained(probes: pl.DataFrame) -> dict[tuple[Any, ...], tuple[float | None, float | None]]:
    """Mean training loss and accuracy over folds and seeds."""
    import polars as pl

    keys = ["classifier", "exit_layer", "normed"]
    means = probes.filter(~pl.col("control")).group_by(keys).agg(pl.col("train_loss", "train_acc").sort().mean())
    return {row[:3]: row[3:] for row in means.select(*keys, "train_loss", "train_acc").iter_rows()}


def _numbers(one: _Judge, area: ResampledAuroc | None, tested: HeldOutRows, widen: float) -> dict[str, float | None]:
    columns = _columns("test_acc", widened(share_interval(one.right.mean(0), tested), widen))
    columns["test_acc_seed_sd"] = _spread(one.right.mean(1))
    if one.at_threshold is not None:
        columns |= _columns("test_acc_best_threshold", widened(share_interval(one.at_threshold, tested), widen))
    if one.control is not None:
        columns["control_acc"] = float(one.control.mean())
        lead = share_interval(one.right.mean(0) - one.control, tested, -1.0)
        columns |= _columns("selectivity", widened(lead, widen, -1.0))
    if one.prob is None or area is None:
        return columns
    half, coverage = ranked_half_intervals(one.prob, tested)
    columns |= _columns("auroc", widened(auroc_interval(area), widen))
    columns["auroc_seed_sd"] = _spread(auroc_per_seed(one.prob, tested))
    columns |= _columns("ece", calibration_error(one.prob, tested))
    columns |= _columns("ece_litcab", calibration_error(one.prob, tested, "litcab"))
    columns |= _columns("brier", share_interval(((one.prob - tested.outcome) ** 2).mean(0), tested))
    columns |= _columns("acc_at_50", widened(half, widen))
    return columns | _columns("coverage_at_50", widened(coverage, widen))


def _columns(name: str, found: Estimate) -> dict[str, float | None]:
    ends = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return {column: None if math.isnan(value) else float(value) for column, value in ends.items()}


def _spread(values: Floats) -> float | None:
    """Standard deviation over seeds; unknown with one."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _mark_best(
    rows: Sequence[dict[str, Any]], areas: Sequence[ResampledAuroc | None], tested: HeldOutRows, widen: float
) -> None:
    """Name the best layer of a classifier, by AUROC, and those that cannot be told apart from it."""
    known = [area for area in areas if area is not None]
    score = np.array([area.value for area in known])
    best = int(np.argmax(np.round(score, 12)))
    for at, row in enumerate(rows):
        row["is_best"] = at == best
    draws = np.stack([area.draws for area in known], axis=1)
    draws = draws[~np.isnan(draws).any(1)]
    if not len(draws):
        return
    first = draws == draws.max(1, keepdims=True)
    wins = (first / first.sum(1, keepdims=True)).mean(0)
    near = best_set(score, score + widen * (draws - score), tested.counts.shape[1])
    for row, share, inside in zip(rows, wins, near, strict=True):
        row["p_best"], row["in_best_set"] = float(share), bool(inside)


def _mark_beaten(judges: Sequence[_Judge], rows: Sequence[dict[str, Any]], tested: HeldOutRows, widen: float) -> None:
    """Say of every layer whether it is above every baseline, beyond the band of all of them."""
    bars = [one.right.mean(0) for one in judges if one.is_bar]
    own = [(one.right.mean(0), row) for one, row in zip(judges, rows, strict=True) if one.layer is not None]
    if not bars or not len(tested.counts):
        return
    accuracy = np.array([right.mean() for right, _ in own])
    drawn = np.stack([resampled_share(right, tested) for right, _ in own], axis=1)
    bar, bar_drawn = np.array([one.mean() for one in bars]), np.stack([resampled_share(one, tested) for one in bars], 1)
    lead = accuracy[:, None] - bar
    noise = (drawn[:, :, None] - bar_drawn[:, None]) - lead
    low = all_leads_bound(lead.ravel(), (lead + widen * noise).reshape(len(noise), -1), tested.counts.shape[1])
    for (_, row), is_above in zip(own, np.all(low.reshape(lead.shape) > 0, axis=1).tolist(), strict=True):
        row["beats_baselines"] = bool(is_above)


# --------------------------------------------------------------------------------------------------- reliability


def _reliability(one: _Judge, tested: HeldOutRows) -> list[dict[str, Any]]:
    """What was predicted and what is true, by bins of P(true), the mean over seeds."""
    if one.prob is None:
        return []
    prob = one.prob.mean(0)
    bins, of = reliability_bins(prob, tested.outcome), bin_of(prob, N_BINS)
    layer = {} if one.layer is None else {"exit_layer": one.layer.exit_layer, "normed": one.layer.normed}
    found: list[dict[str, Any]] = []
    for number in range(N_BINS):
        row = {"classifier": one.classifier, **layer, "bin": number, "n": int(bins.n[number])}
        if bins.n[number]:
            inside = of == number
            low, high = wilson_interval(tested.outcome[inside], tested.group[inside])
            row |= {
                "mean_prob": float(bins.mean_prob[number]),
                "share_true": float(bins.rate[number]),
                "share_true_low": low,
                "share_true_high": high,
            }
        found.append(row)
    return found
