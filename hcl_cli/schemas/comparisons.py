"""Which layers and models differ, and how much data tells them apart."""

from hcl_cli.schemas.table import CURVE, Table

_CURVE = {
    **CURVE,
    "source": "string",  # as in LAYERS
}

COMPARISONS = Table(
    "comparisons",
    key=(
        "kind", *_CURVE, "exit_layer", "other_model", "other_method", "other_source", "other_exit_layer", "metric",
    ),
    columns={
        # reference: against the last layer (of methods: against vanilla); best: the layer with the highest HCB against
        # every other; pair: any two layers; models_at_best, models_at_last: two models on the same questions
        "kind": "string",
        **_CURVE,
        "exit_layer": "int16",
        "other_model": "string",  # null within a curve
        "other_method": "string",  # of a curve over methods, or of the other model's curve
        "other_source": "string",
        "other_exit_layer": "int16",
        # hallucination_rate, creativity_raw, hcb; between models hcb_common: scaled over the layers of both
        "metric": "string",
        "value": "float64",
        "other_value": "float64",
        "difference": "float64",  # value - other_value
        "difference_low": "float64",  # 95 %, of this difference alone; of models at their best with the choice inside
        "difference_high": "float64",
        "band_low": "float64",  # 95 %, of all differences of the family together
        "band_high": "float64",
        "p_permutation": "float64",  # two-sided; null where the data chose a layer of the pair
        "p_adjusted": "float64",  # the same corrected for the family
        # two-sided; between layers corrected for the family, of models at their best with the choice inside
        "p_bootstrap": "float64",
        "correction": "string",  # max-T or Holm, over how many
        "n_questions": "int32",
        "note": "string",  # why nothing was compared
    },
    required=("kind", "metric", "difference"),
    not_null=("kind",),
    made_by="hcb",
)  # fmt: skip

POWER = Table(
    "power",
    key=("kind", *_CURVE, "exit_layer", "other_method", "other_exit_layer", "metric", "n_samples"),
    columns={
        "kind": "string",  # best_reference, best_second, neighbours
        **_CURVE,
        "exit_layer": "int16",
        "other_method": "string",  # of a curve over methods
        "other_exit_layer": "int16",
        "metric": "string",
        "n_samples": "int32",  # of every question and layer
        "is_present": "bool",  # whether this is the number of samples there is
        "difference": "float64",  # as observed with n_samples, value of exit_layer - value of other_exit_layer
        "variance_between": "float64",  # of a question's true difference; null unless hallucination_rate
        "variance_within": "float64",  # of one sample of both layers; likewise
        "variance": "float64",  # of a question's difference with n_samples
        "n_questions": "int32",  # there are
        "n_comparisons": "int32",  # that the corrected numbers count
        "questions_80": "int64",  # needed to find the difference with 80 % power at 5 %, two-sided
        "questions_90": "int64",
        "questions_80_corrected": "int64",  # at 5 % / n_comparisons
        "questions_90_corrected": "int64",
        "detectable_80": "float64",  # the least difference found with 80 % power by the questions there are
        "detectable_80_corrected": "float64",
    },
    required=("kind", "metric", "n_samples"),
    not_null=("kind",),
    made_by="hcb",
)
