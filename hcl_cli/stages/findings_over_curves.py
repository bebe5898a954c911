"""What several curves say together: statements of FINDINGS. Our own summaries, no paper's.

`correlation_over_layers` (of creativity and hallucination within each curve, averaged by Fisher's z, weights L - 3),
`correlation_over_models` (within each data set and protocol with three or more models, at the last layers, averaged
the same way with weight 1 each), `correlation_over_curves` (over all curves at once), `best_depth` (mean relative
depth of the best layers), the same `best_depth_of_dataset` and `best_depth_of_model`, `best_depth_agreement` (1 minus
the mean distance of these depths), `best_confidence_lead_over_curves`. Every resample of the questions is the same for
curves over the same questions, and chooses the best layers anew. The intervals know the questions, not other models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import shown
from hcl_cli.measures.association import agreement, mean_correlation, pearson
from hcl_cli.measures.hcb import best_layer
from hcl_cli.measures.intervals import percentile_interval
from hcl_cli.stages.finding_words import fixed, known
from hcl_cli.stages.resampled import Measured

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

_PROTOCOL = ("dataset", "strategy", "method", "temperature", "top_p")


def across_curves(curves: Sequence[Measured]) -> list[Row]:
    """The statements about several curves; none for one curve."""
    scored = [measured for measured in curves if measured.best is not None]
    layered = [measured for measured in scored if measured.curve.methods is None and len(measured.curve.layers) > 1]
    return [
        row
        for row in (
            _over_layers(layered), _over_models(layered), _over_curves(scored), *_depths(layered), _leads(layered)
        )
        if row
    ]  # fmt: skip


def _row(statistic: str, n: int, estimate: float, drawn: Floats, sentence: str, decimals: int = 2, **more: Any) -> Row:
    """A finding; `{}` in its sentence becomes the estimate with its interval."""
    low, high = percentile_interval(np.array([estimate]), drawn[:, None])
    sign = "+" if "correl" in statistic or "lead" in statistic else ""
    told = fixed(estimate, decimals, sign)
    if not np.isnan(low[0]):
        told += f" [{fixed(low[0], decimals, sign)}, {fixed(high[0], decimals, sign)}]"
    return {
        "statistic": statistic, "n": n, "estimate": known(estimate), "low": known(low[0]), "high": known(high[0]),
        "sentence": sentence.format(told), **more,
    }  # fmt: skip


def _over_layers(curves: Sequence[Measured]) -> Row:
    told = [(m, pearson(m.creativity, m.hallucination)) for m in curves if len(m.curve.layers) > 3]
    kept = [(m, float(r)) for m, r in told if not np.isnan(r)]
    if len(kept) < 2:
        return {}
    weight = [len(m.curve.layers) - 3.0 for m, _ in kept]
    drawn = np.stack([pearson(m.drawn_creativity, m.drawn_hallucination) for m, _ in kept], axis=1)
    return _row(
        "correlation_over_layers", len(kept), float(mean_correlation([r for _, r in kept], weight)),
        mean_correlation(drawn, weight),
        f"Within {len(kept)} curves, creativity and hallucination correlate over layers at r = {{}} on average (noise "
        "between layers draws it towards 0).",
    )  # fmt: skip


def _over_models(curves: Sequence[Measured]) -> Row:
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for measured in curves:
        groups.setdefault(tuple(measured.curve.group[name] for name in _PROTOCOL), []).append(measured)
    observed, drawn, n_models = [], [], 0
    for members in groups.values():
        if len(members) < 3 or len({m.curve.group["model"] for m in members}) < len(members):
            continue
        r = pearson([m.creativity[-1] for m in members], [m.hallucination[-1] for m in members])
        if np.isnan(r):
            continue
        observed.append(float(r))
        n_models = max(n_models, len(members))
        drawn.append(
            pearson(
                np.stack([m.drawn_creativity[:, -1] for m in members], axis=1),
                np.stack([m.drawn_hallucination[:, -1] for m in members], axis=1),
            )
        )
    if not observed:
        return {}
    weight = [1.0] * len(observed)
    where = "one data set and protocol" if len(observed) == 1 else f"each of {len(observed)} data sets and protocols"
    return _row(
        "correlation_over_models", len(observed), float(mean_correlation(observed, weight)),
        mean_correlation(np.stack(drawn, axis=1), weight),
        f"Over up to {n_models} models within {where}, creativity and hallucination of the last layer correlate at "
        "r = {} (the interval knows the questions, not other models).",
    )  # fmt: skip


def _over_curves(curves: Sequence[Measured]) -> Row:
    ends = [(m, m.curve.reference) for m in curves if m.curve.reference is not None]
    if len(ends) < 3:
        return {}
    r = pearson([m.creativity[end] for m, end in ends], [m.hallucination[end] for m, end in ends])
    if np.isnan(r):
        return {}
    drawn = pearson(
        np.stack([m.drawn_creativity[:, end] for m, end in ends], axis=1),
        np.stack([m.drawn_hallucination[:, end] for m, end in ends], axis=1),
    )
    return _row(
        "correlation_over_curves", len(ends), float(r), drawn,
        f"Over {len(ends)} curves, creativity and hallucination of the last layer correlate at r = {{}} (the interval "
        "knows the questions, not other models).",
    )  # fmt: skip


def _depths(curves: Sequence[Measured]) -> list[Row]:
    if len(curves) < 2:
        return []
    depth = np.array([m.depth[m.best] for m in curves])
    drawn = np.stack([_drawn_depth(m) for m in curves], axis=1)
    rows = [
        _row("best_depth_agreement", len(curves), float(agreement(depth)), agreement(drawn),
             f"The best layers of {len(curves)} curves agree in relative depth to {{}} (1: the same depth)."),
        _row("best_depth", len(curves), float(depth.mean()), drawn.mean(axis=1),
             f"The best layers of {len(curves)} curves lie at a relative depth of {{}} on average."),
    ]  # fmt: skip
    for axis in ("dataset", "model"):
        names = [m.curve.group[axis] for m in curves]
        distinct = dict.fromkeys(name for name in names if name is not None)
        for name in distinct if len(distinct) > 1 else ():
            at = [k for k, given in enumerate(names) if given == name]
            of = "data set" if axis == "dataset" else "model"
            rows.append(
                _row(f"best_depth_of_{axis}", len(at), float(depth[at].mean()), drawn[:, at].mean(axis=1),
                     f"Of {of} {_plain(shown(name, 60))}, the best layer lies at a relative depth of {{}}"
                     + (f" (mean of {len(at)} curves)." if len(at) > 1 else "."), **{axis: name})
            )  # fmt: skip
    return rows


def _plain(name: str) -> str:
    return name.replace("{", "{{").replace("}", "}}")


def _leads(curves: Sequence[Measured]) -> Row:
    known_curves = [m for m in curves if not np.isnan(m.confidence).any()]
    if len(known_curves) < 2:
        return {}
    estimate = np.mean([confidence_lead(m.confidence[None], m.best)[0] for m in known_curves])
    drawn = np.mean([_drawn_lead(m) for m in known_curves], axis=0)
    return _row(
        "best_confidence_lead_over_curves", len(known_curves), float(estimate), drawn,
        f"On average over {len(known_curves)} curves, mean token probability at the best layer differs by {{}} from "
        "the mean of the other layers.", decimals=3,
    )  # fmt: skip


def confidence_lead(values: Floats, best: int | None) -> Floats:
    """[row], the best layer's value less the mean of the other layers' (values [row, layer])."""
    others = [k for k in range(values.shape[-1]) if k != best]
    return np.asarray(values[..., best] - values[..., others].mean(axis=-1))


def _drawn_lead(measured: Measured) -> Floats:
    """[resample], with the best layer chosen in it; NaN where no layer has a score."""
    winner, unknown = _winner(measured)
    values = measured.drawn_confidence
    chosen = np.take_along_axis(values, winner[:, None], axis=1)[:, 0]
    rest = (values.sum(axis=1) - chosen) / (values.shape[1] - 1)
    return np.where(unknown, np.nan, chosen - rest)


def _drawn_depth(measured: Measured) -> Floats:
    """[resample], the relative depth of the layer that wins; NaN where no layer has a score."""
    winner, unknown = _winner(measured)
    return np.where(unknown, np.nan, measured.depth[winner])


def _winner(measured: Measured) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    unknown = np.asarray(np.isnan(measured.drawn_score).any(axis=1))
    return best_layer(np.where(unknown[:, None], 0.0, measured.drawn_score)), unknown
