"""Questions, sampled answers, their scores, and the balance of layers."""

from hcl_cli.schemas.table import CURVE, Table, with_intervals

QUESTIONS = Table(
    "questions",
    key=("question_id",),
    columns={
        "question_id": "string",
        "question": "string",
        "answers": "list[string]",  # accepted answers, the preferred one first
    },
    required=("question", "answers"),
    not_null=("question", "answers"),
    extra=True,
)

_RESPONSE_COLUMNS = {
    "model": "string",  # Hub name, or the last part of a folder's name
    "dataset": "string",  # built-in or Hub name, or the last part of a file's name
    "strategy": "string",  # early-exit | self-speculative; contrast from `dola`
    "method": "string",  # null unless from `dola`
    "temperature": "float64",
    "top_p": "float64",
    "question_id": "string",
    "exit_layer": "int16",  # 1..L: after this many blocks
    "sample_index": "int32",  # 0..n-1
    "question": "string",
    "answers": "list[string]",
    "response": "string",  # after cleaning
    "text": "string",  # before cleaning, special tokens left out
    "n_tokens": "int32",  # generated tokens; EOS counts
    "finish_reason": "string",  # eos | stop | length
    "mean_prob": "float32",  # mean over tokens of the chosen token's probability before temperature and top-p
    "mean_logprob": "float32",  # the same in nats; <= 0
    "mean_max_prob": "float32",  # mean over tokens of the likeliest token's probability
    "drafted": "int32",  # draft tokens made by the exit layer; null for early exit, as are the next two
    "accepted_drafts": "int32",  # of these, how many are tokens of the answer
    "verifications": "int32",  # passes of the full model
    "relative_cost": "float64",  # FLOPs per token (blocks plus head) as a share of the full model's
}

_RESPONSE_KEY = (
    "model", "dataset", "strategy", "method", "temperature", "top_p", "question_id", "exit_layer", "sample_index",
)  # fmt: skip

RESPONSES = Table(
    "responses",
    key=_RESPONSE_KEY,
    columns=_RESPONSE_COLUMNS,
    required=("question", "answers", "response"),
    not_null=("question", "response"),
    extra=True,
    read_from=("dola",),
    made_by="sample",
)

SCORED = Table(
    "scored",
    key=_RESPONSE_KEY,
    columns={
        **_RESPONSE_COLUMNS,
        "correct": "bool",  # null if ungradable (no accepted answer given); an empty response is wrong
        "judge": "string",  # the judge that decided `correct`
        "clustering": "string",  # what decided the next three, e.g. cosine, nli-strict+components+numbers
        "cluster_id": "int32",  # 0.. in order of first appearance within question and layer; null unless correct
        "meaning_id": "int32",  # the same clustering over all answers of the question and layer
        "similarity_to_cluster": "float32",  # cosine to the first member of `meaning_id`'s cluster; null unless cosine
    },
    required=("question", "response", "correct"),
    not_null=("response",),
    extra=True,
    made_by="score",
)

LAYERS = Table(
    "layers",
    key=("model", "dataset", "strategy", "method", "temperature", "top_p", "exit_layer", "source"),
    columns={
        **CURVE,
        "exit_layer": "int16",
        "source": "string",  # 8 digits of the input's digest where the other key columns collide, else null
        "n_questions": "int32",  # questions compared: those with a graded answer at every layer of the curve
        "n_samples": "int32",  # all responses of this layer
        "n_graded": "int32",  # of them, those with a verdict
        "n_creativity_questions": "int32",  # questions that creativity_raw averages over
        **with_intervals("hallucination_rate", "creativity_raw", "creativity", "hcb", "confidence"),
        # Questions that the next numbers are over: two or more samples, all with a meaning (and a likelihood, if there
        # are any), at every layer.
        "n_entropy_questions": "int32",
        **with_intervals(
            "semantic_entropy",  # nats; of the likelihoods of the samples of each meaning (Rao-Blackwellised)
            "semantic_entropy_discrete",  # nats; of the numbers of samples of each meaning
            "semantic_entropy_auroc",  # of "a question with a higher semantic entropy has wrong answers"
            "semantic_entropy_aurac",  # mean accuracy, questions rejected by it, over 20 shares kept from .1 to 1
        ),
        "relative_cost": "float64",  # blocks plus head as a share of the full model's FLOPs; null if unknown
        "acceptance_rate": "float64",  # share of drafts that the full model accepted; null unless self-speculative
        "tokens_per_verification": "float64",  # tokens of the answers per pass of the full model; null likewise
        "p_best": "float64",  # share of resamples in which the layer wins
        "is_best": "bool",
        "in_best_set": "bool",  # cannot be told apart from the best layer (simultaneous 95 % band)
    },
    required=("exit_layer", "hallucination_rate", "creativity_raw", "hcb"),
    not_null=("exit_layer",),
    made_by="hcb",
)

LAYER_CALIBRATION = Table(
    "layer_calibration",
    key=LAYERS.key,
    columns={
        **CURVE,
        "exit_layer": "int16",
        "source": "string",  # as in LAYERS
        "confidence_definition": "string",  # exp(mean_logprob), mean_prob, mean_max_prob, or the column it was
        "n_questions": "int32",  # those with a graded answer that has a confidence at every layer of the curve
        "n_questions_left_out": "int32",
        "n_answers": "int32",  # of these questions, graded and with a confidence: every number below is over them
        "n_answers_left_out": "int32",  # this layer's other responses
        **with_intervals(
            "accuracy",  # share of answers that are correct
            "accuracy_at_50",  # the same among the half that is most confident
            "coverage_at_50",  # the largest share, most confident first, of which more than half is correct
            "ece",  # expected calibration error, 10 equal-width bins
            "ece_litcab",  # LitCab's variant: min-max scaled, against the bins' midpoints
            "brier",
            "auroc",  # of confidence for correctness; null where all answers are correct or none is
            "mean_confidence",
        ),
    },
    required=("exit_layer", "accuracy", "ece"),
    not_null=("exit_layer",),
    made_by="hcb",
)

_UNCERTAINTY = {
    "model": "string",
    "dataset": "string",
    "strategy": "string",
    "method": "string",
    "temperature": "float64",
    "top_p": "float64",
    "exit_layer": "int16",
    "source": "string",  # as in LAYERS
    "measure": "string",  # semantic_entropy, semantic_entropy_discrete, predictive_entropy; of an answer answer_logprob
}

UNCERTAINTY = Table(
    "uncertainty",
    key=(*LAYERS.key, "measure"),
    columns={
        **_UNCERTAINTY,
        "n_questions": "int32",  # as n_entropy_questions of LAYERS: every number below is over them
        "n_questions_left_out": "int32",
        "n_answers": "int32",  # of these questions, graded
        **with_intervals(
            "mean",  # nats, over questions; of answer_logprob with the sign changed
            "auroc",  # of "more uncertain means wrong"; null where all answers are right or all wrong
            "aurac",  # mean accuracy over 20 shares kept, from .1 to 1
            "auroc_lead",  # auroc minus that of predictive_entropy, paired; null for that itself
        ),
        "aurac_published": "float64",  # sum of the 20 accuracies times the step: 18/19 of aurac
    },
    required=("exit_layer", "measure", "auroc"),
    not_null=("exit_layer", "measure"),
    made_by="hcb",
)

REJECTION = Table(
    "rejection",
    key=(*LAYERS.key, "measure", "share_kept"),
    columns={
        **_UNCERTAINTY,
        "share_kept": "float64",  # in [.1, 1], of the questions (for answer_logprob of the answers), before ties
        "cutoff": "float64",  # nats; the highest uncertainty kept
        "n_questions_kept": "int32",  # with an answer kept; more than the share says where uncertainties tie
        **with_intervals("accuracy"),  # share of what is kept that is right, every question counting 1
    },
    required=("exit_layer", "measure", "share_kept", "accuracy"),
    not_null=("exit_layer", "measure", "share_kept"),
    made_by="hcb",
)

FINDINGS = Table(
    "findings",
    key=("statistic", "model", "dataset", "strategy", "method", "temperature", "top_p", "source"),
    columns={
        "statistic": "string",  # what the row says; the names are listed in hcl_cli/stages/findings.py
        "model": "string",  # the curve it is about; all seven are null for a statement about all curves
        "dataset": "string",
        "strategy": "string",
        "method": "string",
        "temperature": "float64",
        "top_p": "float64",
        "source": "string",
        "exit_layer": "int16",  # the layer it is about, else null
        "estimate": "float64",
        "low": "float64",  # 95 % interval
        "high": "float64",
        "p_value": "float64",
        "n": "int32",  # what the estimate runs over: questions, layers or curves
        "sentence": "string",  # the same in plain words
        "published": "string",  # what a paper says of it, or what we read off its figures; null where nothing is known
    },
    required=("statistic",),
    not_null=("statistic",),
    made_by="hcb",
)
