"""Time and memory of the bootstrap behind the layer table.  Run: python benchmarks/bootstrap.py

1,000 questions x 32 layers x 2,000 resamples of hallucination, creativity and confidence together, with every interval,
the shares of wins, the best set, the test against the last layer, AUROC and AURAC of semantic entropy: all that
`hcl hcb` does after reading.
"""

import resource
import statistics
import sys
import time

import numpy as np

from hcl_cli.measures.hcb import PRESETS
from hcl_cli.stages.curves import Curve
from hcl_cli.stages.findings import of_curve
from hcl_cli.stages.hcb import layer_rows
from hcl_cli.stages.resampled import measure
from hcl_cli.stages.semantic_entropy import entropy_columns

QUESTIONS, LAYERS, RESAMPLES, REPEATS = 1000, 32, 2000, 5


def simulated() -> Curve:
    """A curve of random numbers in the ranges of real ones."""
    rng = np.random.default_rng(0)
    shape = QUESTIONS, LAYERS
    return Curve(
        group={},
        layers=list(range(1, LAYERS + 1)),
        methods=None,
        question_ids=[f"q{number}" for number in range(QUESTIONS)],
        n_left_out=0,
        wrong=rng.binomial(50, rng.random(shape)) / 50,
        graded=np.full(shape, 50.0),
        diversity=rng.poisson(3.0, shape).astype(np.float64),
        confidence=rng.random(shape),
        semantic_entropy=rng.random(shape),
        semantic_entropy_discrete=rng.random(shape),
        n_samples=[50 * QUESTIONS] * LAYERS,
        n_graded=[50 * QUESTIONS] * LAYERS,
        relative_cost=[None] * LAYERS,
        acceptance_rate=[None] * LAYERS,
        tokens_per_verification=[None] * LAYERS,
    )


def main() -> None:
    curve = simulated()
    before = peak_mb()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        measured = measure(curve, PRESETS["script"], RESAMPLES, seed=0)
        of_curve(measured, layer_rows(measured, "clusters"), "clusters")
        entropy_columns(curve, RESAMPLES, seed=0)
        seconds.append(time.perf_counter() - start)
    print(f"{QUESTIONS:,} questions x {LAYERS} layers x {RESAMPLES:,} resamples, n = {REPEATS}")
    print(f"median {statistics.median(seconds):.2f} s (to reach: 2 s), slowest {max(seconds):.2f} s")
    print(f"peak memory {peak_mb():.0f} MB (to reach: 1,000 MB), of it {before:.0f} MB before the bootstrap")


def peak_mb() -> float:
    """Largest resident size so far."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
