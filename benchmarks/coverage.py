"""How often the 95 % intervals hold the truth, in seeded simulations.  Run: python benchmarks/coverage.py

Prints Markdown: hallucination rate and raw creativity over true values, numbers of questions and kinds of questions;
scaled creativity, HCB and the correlation of creativity with hallucination over curves; the size and the power of the
test of the best layer against the last; how often the truly best layer is in the best set.
"""

import argparse

import numpy as np

from hcl_cli.measures.association import pearson
from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.hcb import PRESETS, hcb, linear_part, minmax
from hcl_cli.measures.intervals import mean_interval, percentile_interval
from hcl_cli.measures.selection import best_set, better_than

RATES = (0.003, 0.01, 0.02, 0.05, 0.2, 0.5, 0.9)
KINDS = {  # how a question's own rate is spread: all-or-nothing, or Beta with this many pseudo-observations
    "all or nothing": None,
    "very uneven (0.5)": 0.5,
    "uneven (2)": 2.0,
    "even (10)": 10.0,
}


def wrong_shares(rate, kind, n_questions, n_samples, n_simulations, rng):
    """[question, simulation], the share of a question's samples that are wrong."""
    if kind is None:
        return (rng.random((n_questions, n_simulations)) < rate).astype(float)
    own = rng.beta(rate * kind, (1 - rate) * kind, (n_questions, n_simulations))
    return rng.binomial(n_samples, own) / n_samples


def covered(values, truth, support, n_resamples, step=1.0):
    """Share of the columns whose interval holds the truth."""
    low, high = mean_interval(values, resampled_means(values, n_resamples, seed=1), support, step)
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())


def hallucination(n_simulations, n_resamples, sizes, n_samples):
    print(f"\nHallucination rate, {n_samples} samples a question, {n_simulations} simulations\n")
    print("| questions | spread over questions | " + " | ".join(f"{rate:g}" for rate in RATES) + " |")
    print("| ---: | --- |" + " ---: |" * len(RATES))
    for n_questions in sizes:
        for name, kind in KINDS.items():
            rng = np.random.default_rng(0)
            cells = []
            for rate in RATES:
                shares = wrong_shares(rate, kind, n_questions, n_samples, n_simulations, rng)
                cells.append(f"{covered(shares, rate, (0.0, 1.0), n_resamples):.3f}")
            print(f"| {n_questions} | {name} | " + " | ".join(cells) + " |", flush=True)


def cluster_counts(rate, spread, n_questions, n_simulations, rng):
    """[question, simulation], clusters of correct answers: Poisson around a question's own Gamma-spread mean."""
    return rng.poisson(rng.gamma(1 / spread, rate * spread, (n_questions, n_simulations))).astype(float)


def creativity(n_simulations, n_resamples, sizes):
    means = (0.02, 0.1, 0.5, 1.6, 3.2, 7.0)
    print(f"\nRaw creativity (clusters), {n_simulations} simulations\n")
    print("| questions | spread (variance of the questions' means over their squared mean) | ", end="")
    print(" | ".join(f"{mean:g}" for mean in means) + " |\n| ---: | --- |" + " ---: |" * len(means))
    for n_questions in sizes:
        for spread in (0.1, 0.5, 2.0):
            rng = np.random.default_rng(0)
            cells = []
            for mean in means:
                counts = cluster_counts(mean, spread, n_questions, n_simulations, rng)
                cells.append(f"{covered(counts, mean, (0.0, np.inf), n_resamples):.3f}")
            print(f"| {n_questions} | {spread:g} | " + " | ".join(cells) + " |", flush=True)


def single_answers(n_simulations, n_resamples, sizes):
    """Questions with one right meaning: one cluster at most questions, none where all answers are wrong, else two."""
    chances = ((0.003, 0.003), (0.003, 0.02), (0.02, 0.003), (0.02, 0.02), (0.1, 0.02), (0.1, 0.1), (0.3, 0.05))
    print(f"\nRaw creativity where most questions have one cluster, {n_simulations} simulations\n")
    print("| questions, by shares with none / with two | " + " | ".join(f"{a:g} / {b:g}" for a, b in chances) + " |")
    print("| ---: |" + " ---: |" * len(chances))
    for n_questions in sizes:
        rng = np.random.default_rng(0)
        cells = []
        for none, two in chances:
            drawn = rng.random((n_questions, n_simulations))
            counts = 1.0 - (drawn < none) + (drawn > 1 - two)
            cells.append(f"{covered(counts, 1 - none + two, (0.0, np.inf), n_resamples):.3f}")
        print(f"| {n_questions} | " + " | ".join(cells) + " |", flush=True)


def curve(ability, clusters, n_questions, n_samples, rng):
    """One simulated curve: (diversity, wrong) of [question, layer]; layers share a question's difficulty.

    Each right answer of a question belongs to one of its meanings, `clusters` + 1 on average at that layer.
    """
    difficulty = rng.normal(0, 1.5, (n_questions, 1))
    right = rng.binomial(n_samples, 1 / (1 + np.exp(difficulty - ability)))
    meanings = 1 + rng.poisson(clusters, right.shape)
    found = meanings * (1 - (1 - 1 / meanings) ** right)
    return rng.binomial(meanings, np.clip(found / meanings, 0, 1)).astype(float), 1 - right / n_samples


SHAPES = {
    "clear optimum": (np.linspace(-3, 2, 8), np.array([1.0, 1.5, 2.0, 2.5, 3.0, 2.0, 1.0, 0.5])),
    "plateau": (np.linspace(-3, 2, 8), np.array([1.0, 1.5, 2.0, 2.4, 2.4, 2.2, 1.8, 1.5])),
    "nearly flat": (np.linspace(-0.2, 0.2, 8), np.full(8, 2.0)),
}


def scaled(n_curves, n_resamples, n_questions, n_samples):
    print(f"\nScaled creativity and HCB, {n_questions} questions x {n_samples} samples, 8 layers, {n_curves} curves\n")
    print("| curve | weights | creativity | HCB | HCB of the best layer | truly best in best set | correlation |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for shape, (ability, clusters) in SHAPES.items():
        many = [curve(ability, clusters, 20_000, n_samples, np.random.default_rng(9_000 + r)) for r in range(10)]
        true_c = np.mean([diversity.mean(0) for diversity, _ in many], axis=0)
        true_h = np.mean([wrong.mean(0) for _, wrong in many], axis=0)
        for name in ("script", "figure"):
            weights = PRESETS[name]
            truth = {"c": minmax(true_c), "h": hcb(true_c, true_h, weights), "r": pearson(true_c, true_h)[None]}
            hits = {"c": [], "r": [], "h": [], "best": [], "set": []}
            for number in range(n_curves):
                diversity, wrong = curve(ability, clusters, n_questions, n_samples, np.random.default_rng(number))
                drawn = resampled_means(np.hstack([diversity, wrong]), n_resamples, 0)
                drawn_c, drawn_h = np.split(drawn, 2, axis=1)
                c, h = diversity.mean(0), wrong.mean(0)
                score = hcb(c, h, weights)
                for key, estimate, resampled in (
                    ("c", minmax(c), minmax(drawn_c)),
                    ("r", pearson(c, h)[None], pearson(drawn_c, drawn_h)[:, None]),
                    ("h", score, hcb(drawn_c, drawn_h, weights)),
                ):
                    low, high = percentile_interval(estimate, resampled)
                    inside = (low <= truth[key] + 1e-9) & (truth[key] - 1e-9 <= high)
                    hits[key].append(inside.mean())
                hits["best"].append(inside[np.argmax(score)])
                linear = linear_part(c, h, weights, (c, h))
                kept = best_set(linear, linear_part(drawn_c, drawn_h, weights, (c, h)), n_questions)
                hits["set"].append(kept[np.argmax(truth["h"])])
            cells = " | ".join(f"{np.mean(hits[key]):.3f}" for key in ("c", "h", "best", "set", "r"))
            print(f"| {shape} | {name} | {cells} |", flush=True)


def selection(n_curves, n_resamples, n_questions, n_samples):
    """Rejections at 5 % with identical layers (size) and with one layer better than the last (power)."""
    print(f"\nBest against last at 5 %, {n_questions} questions x {n_samples} samples, 8 layers, {n_curves} curves\n")
    print("| weights | identical layers | layer 5 better by 0.5 clusters |\n| --- | ---: | ---: |")
    better = np.full(8, 2.0)
    better[4] = 2.5
    for name in PRESETS:
        cells = []
        for clusters in (np.full(8, 2.0), better):
            rejected = 0
            for number in range(n_curves):
                rng = np.random.default_rng(number)
                diversity, wrong = curve(np.zeros(8), clusters, n_questions, n_samples, rng)
                drawn_c, drawn_h = np.split(resampled_means(np.hstack([diversity, wrong]), n_resamples, 0), 2, axis=1)
                scale_of = (diversity.mean(0), wrong.mean(0))
                linear = linear_part(*scale_of, PRESETS[name], scale_of)
                drawn = linear_part(drawn_c, drawn_h, PRESETS[name], scale_of)
                rejected += better_than(linear, drawn, n_questions)[3] <= 0.05
            cells.append(f"{rejected / n_curves:.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--curves", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    hallucination(arguments.simulations, arguments.resamples, (50, 100, 300, 1000), 20)
    creativity(arguments.simulations, arguments.resamples, (50, 100, 300))
    single_answers(arguments.simulations, arguments.resamples, (50, 100, 300))
    scaled(arguments.curves, arguments.resamples, 100, 20)
    selection(arguments.curves, arguments.resamples, 100, 20)
