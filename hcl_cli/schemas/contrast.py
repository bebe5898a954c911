"""Decoding by contrasting layers: answers, and multiple-choice scores under a method."""

from hcl_cli.schemas.answers import RESPONSES
from hcl_cli.schemas.table import Table, with_intervals

DOLA = Table(
    "dola",
    key=("model", "dataset", "question_id", "method", "sample_index"),
    columns={
        **RESPONSES.columns,  # exit_layer is L, strategy "contrast"; `score` and `hcb` read it
        "tokens": "list[string]",  # generated, the end-of-sequence token included
        "premature_layers": "list[int16]",  # chosen at every token, after so many blocks; null under `vanilla`
        "divergences": "list[float32]",  # of the chosen layer from the last, nats; at most ln 2 if jsd; null likewise
        "mean_mature_logprob": "float32",  # of the tokens under the last layer alone, nats
        "divergence": "string",  # jsd | published; null under `vanilla`
        "readout": "string",  # norm | no-norm: how premature layers are read
    },
    required=("question", "response", "method"),
    not_null=("question", "response", "method"),
    extra=True,
    made_by="dola",
)

CHOICES = Table(
    "choices",
    key=("model", "dataset", "question_id", "method", "constrained", "normalised", "outside", "metric"),
    columns={
        "model": "string",
        "dataset": "string",
        "question_id": "string",
        "method": "string",
        "constrained": "bool",  # whether a token outside the plausible set has a score of its own; null for `vanilla`
        "normalised": "bool",  # whether the contrasted scores are made log-probabilities again; null likewise
        "outside": "string",  # that score: excluded (-inf) | published (-1000); null where not constrained
        "metric": "string",  # mc1 | mc2 | mc3 | mc2-published | factor-sum | factor-mean
        "value": "float64",  # in [0, 1]; null where no answer can be said (mc2), or too long
        "n_answers": "int32",  # of the question, true and false
        "n_excluded": "int32",  # of these, with a token outside the plausible set; null where not constrained
        "too_long": "bool",  # whether the text does not fit the model's positions, so that nothing was scored
    },
    required=("question_id", "method", "metric", "value"),
    not_null=("question_id", "method", "metric"),
    made_by="dola",
)

CHOICES_COMPARED = Table(
    "choices-compared",
    key=("model", "dataset", "method", "constrained", "normalised", "outside", "metric"),
    columns={
        "model": "string",
        "dataset": "string",
        "method": "string",
        "constrained": "bool",  # as in CHOICES
        "normalised": "bool",
        "outside": "string",
        "metric": "string",
        **with_intervals("value"),  # mean over questions
        "baseline": "string",  # null in its own rows and where it was not run
        **with_intervals("difference"),  # from the baseline, on the questions where both have a value
        "n_questions": "int32",  # with a value
        "n_paired": "int32",
        "n_answers": "int32",  # of all questions
        "n_excluded": "int32",
        "n_too_long": "int32",  # questions
    },
    required=("method", "metric"),
    not_null=("method", "metric"),
    made_by="dola",
)

TEXT_SCORES = Table(
    "text-scores",
    key=("model", "dataset", "question_id", "method", "sample_index", "metric", "against"),
    columns={
        "model": "string",
        "dataset": "string",
        "question_id": "string",
        "method": "string",
        "sample_index": "int32",
        "metric": "string",  # bleu | bleu-sentence | rouge-1 | rouge-2 | rouge-l | bertscore | token-f1 | exact
        "against": "string",  # best | correct | incorrect, the largest over these; max | diff | acc
        "value": "float64",  # in [0, 1]; bertscore and diff in [-1, 1]; null for bleu, which no single answer has
        "encoder": "string",  # of bertscore, with its layer
        "counts": "list[float32]",  # of bleu: tokens, shortest reference's tokens, matched 1..4-grams, 1..4-grams
    },
    required=("question_id", "method", "sample_index", "metric", "against"),
    not_null=("question_id", "method", "sample_index", "metric", "against"),
    made_by="dola",
)

COMPARED = Table(
    "compared",
    key=("model", "dataset", "method", "metric", "against"),
    columns={
        "model": "string",
        "dataset": "string",
        "method": "string",
        "metric": "string",  # as in TEXT_SCORES, or evaluate:NAME/KEY
        "against": "string",
        "encoder": "string",
        **with_intervals("value"),  # mean over questions; of bleu, the corpus's. No interval for evaluate:...
        "baseline": "string",  # null in its own rows and where it was not run
        **with_intervals("difference"),  # from the baseline, on the questions that both answered
        "n_questions": "int32",
        "n_paired": "int32",
    },
    required=("method", "metric", "against"),
    not_null=("method", "metric", "against"),
    made_by="dola",
)
