"""Scored responses by hand: question -> layer -> the cluster of each answer."""

import numpy as np
import polars as pl

from hcl_cli.schemas import SCORED
from hcl_cli.stages.hcb import ScoredInput, layer_tables

# question -> layer -> the cluster of each answer; None is a wrong answer, "?" an ungraded one
PLANTED = {
    "q1": {1: [None, None, None, None], 2: [0, 0, 1, 2], 3: [0, 0, 0, 0]},
    "q2": {1: [None, 0, None, None], 2: [0, 1, None, None], 3: [0, 0, 0, 0]},
}


def frame(answers, model="m", mean_prob=lambda question, layer, index: 0.1 * layer, **columns):
    """SCORED rows from question -> layer -> clusters."""
    rows = [
        {
            "model": model, "dataset": "d", "strategy": "early-exit", "temperature": 0.6, "top_p": 0.9,
            "question_id": question, "question": f"What is {question}?", "answers": ["a"], "response": "a",
            "exit_layer": layer, "sample_index": index, "relative_cost": layer / 4,
            "mean_prob": mean_prob(question, layer, index),
            "correct": None if cluster == "?" else cluster is not None,
            "cluster_id": cluster if isinstance(cluster, int) else None,
        } | columns
        for question, layers in answers.items()
        for layer, clusters in layers.items()
        for index, cluster in enumerate(clusters)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCORED.polars_schema())


def tables(*frames, n_bootstrap=200, **options):
    inputs = [ScoredInput(given_frame, f"{number:x}" * 64) for number, given_frame in enumerate(frames, start=1)]
    return layer_tables(inputs, n_bootstrap=n_bootstrap, **options)


def said(findings, statistic, **key):
    (row,) = findings.filter(pl.col("statistic") == statistic, **key).to_dicts()
    return row


def answers(n_questions, shares, n_samples=8, seed=0, n_layers=3):
    """Layer k is right with probability shares[k]; every right answer is one of three meanings."""
    rng = np.random.default_rng(seed)
    return {
        f"q{number:03}": {
            layer: [int(rng.integers(3)) if rng.random() < shares[layer - 1] else None for _ in range(n_samples)]
            for layer in range(1, n_layers + 1)
        }
        for number in range(n_questions)
    }
