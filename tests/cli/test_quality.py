"""The metrics of answers are those of `hcl sample -n 1 --temperature 0 | hcl score`."""

import numpy as np
import polars as pl
from conftest import Hcl
from pytest import approx

from hcl_cli.models.load import load_model
from hcl_cli.resources import data_file
from hcl_cli.stages.quality import Settings, open_metrics
from hcl_cli.stages.quality_values import measured


def test_accuracy_and_confidence_are_those_of_sample_and_score(hcl: Hcl) -> None:
    sampled = hcl("sample", "--limit", 24, "-n", 1, "--temperature", 0, "--exit-layers", 10).path
    scored = pl.read_parquet(hcl("score", sampled, "--cluster", "exact").path)
    loaded = load_model(data_file("models", "lab"), dtype="float32", device="cpu")
    accuracy, brier = measured(open_metrics(["answer-accuracy", "brier"], Settings(n_questions=24)), loaded).values()
    assert scored["correct"].n_unique() == 2
    assert accuracy[:, 0].tolist() == scored["correct"].cast(pl.Float64).to_list()
    assert brier[:, 1].tolist() == accuracy[:, 0].tolist()
    assert brier[:, 0] == approx(np.exp(scored["mean_logprob"].to_numpy()), abs=1e-6)
