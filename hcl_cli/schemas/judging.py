"""What judges and clusterings say of answers, how far they agree, and what follows for the best layer."""

from hcl_cli.schemas.table import CURVE, Table, with_intervals

AGREEMENT = Table(
    "agreement",
    key=("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer", "kind", "one", "other"),
    columns={
        **CURVE,
        "exit_layer": "int16",  # null: all layers together
        "kind": "string",  # judge: cases are responses; clustering: pairs of distinct responses, together or not
        "one": "string",
        "other": "string",
        "n": "int64",  # cases that both decided
        "n_questions": "int32",
        **with_intervals("share_equal", "kappa"),  # Cohen's kappa; null where chance alone explains all
        "n_only_one": "int64",  # right, or together, by the first alone
        "n_only_other": "int64",
        "n_questions_differing": "int32",
        "where": "string",  # for `hcl cat --where` of the scored table: the rows on which they differ
    },
    required=("kind", "one", "other", "n"),
    not_null=("kind", "one", "other"),
    made_by="score",
)

JUDGED = Table(
    "judged",
    key=("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer", "judge", "metric"),
    columns={
        **CURVE,
        "exit_layer": "int16",
        "judge": "string",  # llm_truth, ...; llm_truth+llm_info for what both say
        "metric": "string",  # the names are listed in hcl_cli/stages/judged.py
        **with_intervals("value"),  # in [0, 1]; over questions
        "baseline": "string",  # the method compared with; null in its own rows and where it was not run
        **with_intervals("difference"),  # from the baseline, on the questions that both have a verdict on
        "n_questions": "int32",  # with a verdict; a response that was not attempted has one
        "n_paired": "int32",
        "n_responses": "int32",
        "n_judged": "int32",  # of them, those with a verdict
        "asked_model": "string",  # the model asked for
        "reported_model": "string",  # the model that the server says answered; several with commas
    },
    required=("judge", "metric", "value"),
    not_null=("judge", "metric"),
    made_by="score",
)

BEST_LAYERS = Table(
    "best_layers",
    key=("model", "dataset", "strategy", "method", "temperature", "top_p", "source", "judge", "clustering"),
    columns={
        **CURVE,
        "source": "string",  # as in LAYERS
        "judge": "string",
        "clustering": "string",
        "is_first": "bool",  # the judge and the clustering that decided `correct` and `cluster_id`
        "best": "string",  # the best layer, or decoding method; null if none has a score
        "exit_layer": "int16",  # the best layer; null for a curve over methods
        "exit_layer_low": "int16",  # 95 % of the resamples choose a layer between these
        "exit_layer_high": "int16",
        "p_best": "float64",  # share of resamples in which it wins
        "n_in_best_set": "int32",  # layers that cannot be told apart from it, itself counted
        **with_intervals("hallucination_rate", "creativity_raw", "hcb"),  # at the best layer
        "is_same": "bool",  # the same layer as the first judge and clustering choose
        "p_same": "float64",  # share of resamples (the same questions for both) in which both choose the same
        "n_questions": "int32",
        "sentence": "string",
    },
    required=("judge", "clustering", "best"),
    not_null=("judge", "clustering"),
    made_by="hcb",
)

JUDGE_CALIBRATION = Table(
    "judge_calibration",
    key=("dataset", "judge"),
    columns={
        "dataset": "string",
        "judge": "string",
        "n": "int32",  # answers that people called right or wrong, and the judge graded
        "n_questions": "int32",
        "n_right": "int32",  # of them, right by people
        "n_ungraded": "int32",  # without a verdict of the judge: they count in no other column
        **with_intervals("precision", "recall", "f1", "specificity", "share_equal", "kappa"),  # people are the truth
        "n_debatable": "int32",  # answers that people could not agree on
        **with_intervals("debatable_accepted"),  # of those, the share that the judge calls right
    },
    required=("judge", "kappa"),
    not_null=("judge",),
    made_by="score",
)
