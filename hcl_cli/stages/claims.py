"""What Shakespearean Sparks (arXiv 2503.02851) says of each of our findings, in our words.

| mark | how it is known |
| --- | --- |
| paper | read in its abstract or on its project page; the body could not be read |
| figure | our arithmetic on numbers that are printed in its figures, or those numbers |

No interval, no test and no definition of confidence is published. What nothing is published on has no entry.
"""

from __future__ import annotations

# Pearson's r of scaled creativity and hallucination over layers, from the printed values, at T 0.6 and 1.0.
CORRELATIONS = {"1B": (-0.99, -1.00), "7B": (0.72, 0.19), "8B": (0.21, 0.44), "13B": (-0.48, -0.65)}
# Best exit of the printed scores, at T 0.6 and 1.0, and the number of blocks.
BEST_LAYERS = {"1B": (4, 2, 16), "7B": (14, 8, 32), "8B": (22, 10, 32), "13B": (34, 12, 40)}

_R = ", ".join(f"{model} {cold:+.2f}/{warm:+.2f}" for model, (cold, warm) in CORRELATIONS.items())
_BEST = ", ".join(f"{model} {cold}/{warm} of {n}" for model, (cold, warm, n) in BEST_LAYERS.items())
_DEPTH = ", ".join(f"{model} {cold / n:.2f}/{warm / n:.2f}" for model, (cold, warm, n) in BEST_LAYERS.items())

_MORE = f"More creative layers hallucinate more [paper]; r from its figures, T 0.6/1.0: {_R} [figure]"
_ONE_BEST = (
    "One best layer per model size, stable across tasks; early in larger models [paper]; relative depth at T 0.6/1.0: "
    f"{_DEPTH} [figure]"
)
_CONFIDENT = "Confidence is markedly higher at the best layer [paper]; neither its definition nor a number is published"

PUBLISHED = {
    "best_layer": f"The final layer is not the best [paper]; best exit at T 0.6/1.0: {_BEST} [figure]",
    "best_minus_last": "The final layer is not the best [paper]; no interval or test is published",
    "creativity_hallucination_correlation": _MORE,
    "correlation_over_layers": _MORE,
    "correlation_over_models": "Stronger models are more creative and hallucinate more [paper]; no number is published",
    "correlation_over_curves": "Stronger models are more creative and hallucinate more [paper]; no number is published",
    "best_depth_agreement": _ONE_BEST,
    "best_depth": _ONE_BEST,
    "best_depth_of_dataset": _ONE_BEST,
    "best_depth_of_model": _ONE_BEST,
    "best_confidence_lead": _CONFIDENT,
    "best_confidence_lead_over_curves": _CONFIDENT,
}
