"""Do measures of diversity rise with accuracy alone? A simulation in which the right answers never change.

    python benchmarks/diversity.py                       50 samples, 2,000 questions for each accuracy

Every question has the same right answers with the same probabilities; only the share of samples that are right differs.
A fair measure of the diversity of right answers should stay where it is. Shown: the mean over questions with its
standard error and, at the end, how far the measure moves from the lowest to the highest accuracy, in per cent of its
value at the highest. For `spectrum` the right answers are unit vectors that point apart (cosine .3 between any two).
Questions with fewer than 5 right answers count for `clusters` and `entropy` alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.diversity import (
    RAREFIED_TO,
    cluster_count,
    cluster_entropy,
    coverage_count,
    rarefied_count,
    spectrum_score,
)

Floats = npt.NDArray[np.float64]

ACCURACIES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
LAWS = {
    "5 answers, even": np.full(5, 1 / 5),
    "10 answers, Zipf": (1 / np.arange(1, 11)) / (1 / np.arange(1, 11)).sum(),
    "3 answers, .80 .15 .05": np.array([0.80, 0.15, 0.05]),
}
SIZE_MEASURES = {
    "clusters": cluster_count, "rarefied": rarefied_count, "coverage": coverage_count, "entropy": cluster_entropy,
}  # fmt: skip


def drawn_sizes(law: Floats, accuracy: float, n_samples: int, n_questions: int, seed: int) -> npt.NDArray[np.int64]:
    """[question, answer]: how often each right answer is among the samples of a question."""
    rng = np.random.default_rng(seed)
    n_right = rng.binomial(n_samples, accuracy, n_questions)
    return np.stack([rng.multinomial(n, law) for n in n_right])


def measured(sizes: npt.NDArray[np.int64], seed: int = 0) -> dict[str, Floats]:
    """[question] of each measure; NaN where it does not count."""
    question, answer = np.nonzero(sizes)
    size = sizes[question, answer]
    found = {name: measure(question, size, len(sizes)) for name, measure in SIZE_MEASURES.items()}
    rng = np.random.default_rng(seed)
    cosines = np.where(np.eye(sizes.shape[1], dtype=bool), 1.0, 0.3)
    spectrum = np.full(len(sizes), np.nan)
    for at, counts in enumerate(sizes):
        if counts.sum() >= RAREFIED_TO:
            answers = np.repeat(np.arange(len(counts)), counts)
            chosen = np.argsort(rng.random((8, len(answers))), axis=1)[:, :RAREFIED_TO]
            picked = answers[chosen]
            spectrum[at] = spectrum_score(cosines[picked[:, :, None], picked[:, None, :]]).mean()
    return found | {"spectrum": spectrum}


def expected_clusters(law: Floats, accuracy: float, n_samples: int) -> float:
    """The mean number of clusters in theory: sum over answers of 1 - (1 - p q)^n."""
    return float((1 - (1 - accuracy * law) ** n_samples).sum())


def table(law: Floats, n_samples: int, n_questions: int, seed: int = 0) -> dict[str, list[tuple[float, float]]]:
    """Of each measure, (mean over questions, standard error) at each of ACCURACIES."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number, accuracy in enumerate(ACCURACIES):
        values = measured(drawn_sizes(law, accuracy, n_samples, n_questions, seed + number), seed)
        for name, of in values.items():
            known = of[~np.isnan(of)]
            found.setdefault(name, []).append((float(known.mean()), float(known.std() / np.sqrt(len(known)))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--questions", type=int, default=2000)
    options: Any = parser.parse_args()
    print(f"# {Path(__file__).name}: {options.samples} samples, {options.questions} questions, mean (standard error)")
    for name, law in LAWS.items():
        print(f"\n{name}\naccuracy   " + "".join(f"{accuracy:>13.1f}" for accuracy in ACCURACIES) + "     moves")
        for measure, cells in table(law, options.samples, options.questions).items():
            moves = (cells[-1][0] - cells[0][0]) / abs(cells[-1][0])
            told = "".join(f"{mean:6.2f} ({error:.2f})" for mean, error in cells)
            print(f"{measure:10s} {told}  {moves:+8.0%}")


if __name__ == "__main__":
    main()
