"""Values of metrics become rows of QUALITY and come back as they were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from hcl_cli.schemas import QUALITY
from hcl_cli.stages.quality import Metric
from hcl_cli.stages.quality_frames import quality_frame, values_of


def metric(name: str, dataset: str, unit: str | None) -> Metric:
    work: Any = SimpleNamespace(unit=unit)
    return Metric(name, dataset, True, "mean", work, name)


def test_there_and_back() -> None:
    """A unit without a value stays where it is; metrics of one name on two sets stay apart; rows may be shuffled."""
    values = {
        metric("perplexity", "one", "texts"): np.array([[1.5, 2.0], [np.nan, np.nan], [0.1, 3.0]]),
        metric("perplexity", "two", "texts"): np.array([[7.0, 1.0]]),
        metric("ece", "one", "questions"): np.array([[0.25], [np.nan]]),
        metric("parameters", "", None): np.array([[7320.0]]),
    }
    frame = quality_frame(values, model="m", removed=(2, 3))
    assert dict(frame.schema) == QUALITY.polars_schema()
    assert frame["removed"].to_list() == [[2, 3]] * 7
    assert frame["unit"].to_list() == ["texts"] * 4 + ["questions"] * 2 + [None]
    assert frame["unit_index"].to_list() == [0, 1, 2, 0, 0, 1, 0]
    assert set(frame["model"]) == {"m"}
    back = values_of(frame.sample(fraction=1.0, shuffle=True, seed=1), list(values))
    assert list(back) == list(values)
    for one in values:
        np.testing.assert_array_equal(back[one], values[one])


def test_the_whole_model_lacks_no_block() -> None:
    frame = quality_frame({metric("parameters", "", None): np.array([[1.0]])}, model="m", removed=())
    assert frame["removed"].to_list() == [[]]
