"""What is kept of a model: rows by hand, equal models, leads, and what is unknown."""

import math

import numpy as np
import pytest
from pytest import approx

from hcl_cli.artifacts.parquet import conform
from hcl_cli.schemas import RETAINED
from hcl_cli.stages.quality import KINDS, Metric
from hcl_cli.stages.retained import STATISTICS, are_equal, retained_rows

NAMES = {"model": "m", "variant": "avss", "n_bootstrap": 200}


class Nothing:
    """A set that was already read."""

    def __init__(self, unit):
        self.unit = unit


def metric(name, dataset="lab", unit="questions"):
    kind = KINDS[name]
    return Metric(name, dataset, kind.higher_is_better, kind.statistic, Nothing(unit), kind.key or name)


ACCURACY, LOSS, BRIER = metric("answer-accuracy"), metric("perplexity", unit="texts"), metric("brier")
SPEED, SIZE = metric("tokens-per-second", unit="runs"), metric("parameters", "", None)


def table(*sides, **options):
    return conform(retained_rows(*sides, **{**NAMES, **options}), RETAINED)


def losses(shift=0.0, n=12):
    return np.stack([np.random.default_rng(0).gamma(4.0, size=n) * 8 + shift * 8, np.full(n, 8.0)], axis=1)


def test_rows_by_hand():
    """3 of 4 right before, 2 of 4 after; 0.1 nats a token more; 100 parameters, then 60."""
    before = {ACCURACY: np.array([[1.0], [1], [1], [0]]), LOSS: losses(), SIZE: np.array([[100.0]])}
    after = {SIZE: np.array([[60.0]]), ACCURACY: np.array([[1.0], [0], [1], [0]]), LOSS: losses(0.1)}
    rows = table(before, after, blocks=[9, 10], seed=3, activations="mlp").to_dicts()
    assert [row["metric"] for row in rows] == ["answer-accuracy", "perplexity", "parameters"]
    accuracy, loss, size = rows
    assert (accuracy["before"], accuracy["after"], accuracy["difference"]) == (0.75, 0.5, -0.25)
    assert accuracy["share_kept"] == approx(2 / 3) and accuracy["n_units"] == 4 and accuracy["unit"] == "questions"
    assert accuracy["before_low"] < 0.75 < accuracy["before_high"]
    assert (accuracy["blocks"], accuracy["n_blocks"], accuracy["seed"]) == ([9, 10], 2, 3)
    assert loss["share_kept"] == loss["share_kept_low"] == approx(math.exp(-0.1)) and loss["higher_is_better"] is False
    assert loss["difference"] == approx(loss["after"] - loss["before"])
    assert (size["before"], size["after"], size["share_kept"], size["difference"]) == (100, 60, 0.6, -40)
    assert size["unit"] is size["n_units"] is size["higher_is_better"] is None
    ends = [value for name, value in size.items() if name.endswith(("_low", "_high"))]
    assert ends == [None] * 10 and accuracy["lead"] is accuracy["lead_over"] is None


def test_the_same_model_keeps_all_of_it_exactly():
    """A loss that agrees to the last bit on every text says that the models are the same; so does an empty cut."""
    values = {ACCURACY: np.array([[1.0], [1], [0], [1]]), LOSS: losses(), SIZE: np.array([[100.0]])}
    smaller = values | {SIZE: np.array([[90.0]])}  # a block that does nothing was removed
    for rows in (table(values, smaller, blocks=[2]), table({ACCURACY: values[ACCURACY]}, values)):
        for row in rows.filter(rows["metric"] != "parameters").to_dicts():
            assert [row[f"difference{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
            assert [row[f"share_kept{end}"] for end in ("", "_low", "_high")] == [1, 1, 1]
    assert are_equal(values, smaller) and not are_equal({ACCURACY: values[ACCURACY]}, values)
    for one in (values[ACCURACY], values[ACCURACY] / 3):  # answers or shares of them: no proof
        (row,) = table({ACCURACY: one}, {ACCURACY: one}, blocks=[2]).to_dicts()
        assert row["difference"] == 0 and row["difference_low"] < 0 < row["difference_high"]


def test_runs_are_never_the_same():
    values = {SPEED: np.array([[10.0], [12], [11]]), LOSS: losses()}
    (row, _) = table(values, values | {SPEED: np.array([[20.0], [21], [26]])}).to_dicts()
    assert (row["before"], row["after"], row["unit"]) == (11.0, 21.0, "runs")
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_the_lead_over_another_variant_is_paired():
    before, other, after = ({ACCURACY: np.array(values, float)[:, None]} for values in (
        [1] * 40, [1, 0] * 20, [1, 1, 1, 0] * 10))  # fmt: skip
    (row,) = table(before, after, blocks=[1], lead_over=("random", other)).to_dicts()
    assert (row["lead_over"], row["lead"], row["difference"]) == ("random", 0.25, -0.25)
    assert 0 < row["lead_low"] < 0.25 < row["lead_high"]
    # Right on the same questions and 10 more: nearer than two independent shares of 40 would be.
    assert row["lead_high"] - row["lead_low"] < 0.35
    with pytest.raises(ValueError, match="no values of answer-accuracy on lab"):
        table(before, {}, blocks=[1])
    with pytest.raises(ValueError, match="no values of answer-accuracy on lab"):
        table(before, after, lead_over=("random", {}))


def test_what_is_unknown_is_null():
    values = {BRIER: np.array([[0.5, 1.0], [0.25, 0.0]]), ACCURACY: np.array([[0.0], [0.0]])}
    unknown = {BRIER: np.full((2, 2), np.nan), ACCURACY: np.array([[1.0], [0.0]])}
    brier, accuracy = table(values, unknown, blocks=[1]).to_dicts()
    assert brier["after"] is brier["share_kept"] is brier["difference_low"] is None and brier["n_units"] == 0
    assert accuracy["share_kept"] is None and accuracy["difference"] == 0.5


def test_every_kind_of_metric_has_a_statistic():
    """`signed` is that of mitigate's cosine margin, which has no name in KINDS."""
    assert {kind.statistic for kind in KINDS.values()} | {"signed"} == set(STATISTICS)
