"""The published count rises with accuracy alone; what is compared at five correct answers does not."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from hcl_cli.measures.diversity import RAREFIED_TO

_SPEC = importlib.util.spec_from_file_location(
    "diversity_benchmark", Path(__file__).parents[2] / "benchmarks" / "diversity.py"
)
assert _SPEC is not None and _SPEC.loader is not None
simulation = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(simulation)


@pytest.mark.parametrize("law", simulation.LAWS)
def test_the_count_rises_with_accuracy_alone_and_the_rarefied_one_does_not(law: str) -> None:
    """Right answers have one and the same law throughout; only the share of right samples grows from .1 to .9."""
    shares = simulation.LAWS[law]
    found = simulation.table(shares, 50, 1500)
    counts = found["clusters"]
    for (mean, error), accuracy in zip(counts, simulation.ACCURACIES, strict=True):
        assert abs(mean - simulation.expected_clusters(shares, accuracy, 50)) < 5 * error + 1e-9
    # It rises by a quarter of its value and more, far beyond chance.
    assert counts[-1][0] - counts[0][0] > max(0.25 * counts[-1][0], 20 * counts[0][1])
    # Five answers drawn from the law itself: sum over answers of 1 - (1 - q)^5, whatever the accuracy.
    expected = (1 - (1 - shares) ** RAREFIED_TO).sum()
    for mean, error in found["rarefied"]:
        assert abs(mean - expected) < 5 * error
    # The entropy of the sizes is biased downwards where they are few: it rises as well.
    assert found["entropy"][-1][0] - found["entropy"][0][0] > 0.2 * found["entropy"][-1][0]
    spectrum = np.array(found["spectrum"])
    assert (np.abs(spectrum[:, 0] - spectrum[-1, 0]) < 5 * np.hypot(spectrum[:, 1], spectrum[-1, 1])).all()
    # Coverage moves less than half as far as the count.
    moves = [abs(cells[-1][0] - cells[0][0]) / abs(cells[-1][0]) for cells in (found["coverage"], counts)]
    assert moves[0] < moves[1] / 2
