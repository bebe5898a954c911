"""Blocks of a model: what they do to the residual stream, which of them matter, and what is kept without them."""

from hcl_cli.schemas.table import Table, with_intervals

BLOCKS = Table(
    "blocks",
    key=("model", "dataset", "criterion", "activations", "seed", "block"),
    columns={
        "model": "string",
        "dataset": "string",  # of the texts or answers that the statistics were taken over
        "criterion": "string",  # avss | eavss | block-influence | ...; see hcl_cli/stages/prune.py
        "activations": "string",  # residual | attention | mlp; null for criteria that read no activation
        "seed": "int64",  # of `random`; null for every other criterion
        "block": "int16",  # 1..L
        "variance": "float64",  # of the activations over the hidden axis, mean over tokens
        "sparsity": "float64",  # share of activations with |a| < epsilon, in [0, 1]
        "epsilon": "float64",  # the bound that was used, absolute
        "l1_norm": "float64",  # of a token's activation vector, mean over tokens
        "l2_norm": "float64",  # likewise
        "weight_norm": "float64",  # Frobenius norm of the block's weights together
        "score": "float64",  # of the criterion; null where it is undefined (a sparsity of 0)
        "score_low": "float64",  # 95 % interval over texts, where there is one
        "score_high": "float64",
        "normalised": "float64",  # score / sum over blocks; null where scores may be negative
        "cumulative": "float64",  # sum of `normalised` over blocks 1..block
        "p_value": "float64",  # eavss: of the contrast, by permuting labels within questions
        "p_adjusted": "float64",  # the same, corrected for the number of blocks
        "rank": "int16",  # 1 goes first: the least important block, or the likeliest to hallucinate under eavss
        "removed": "bool",  # by the rule, or at this size by the search
        "damage": "float64",  # rise of the mean negative log-likelihood, nats per token, without this block alone
        "damage_low": "float64",
        "damage_high": "float64",
    },
    required=("criterion", "block", "score"),
    not_null=("criterion", "block"),
    made_by="prune",
)

CRITERIA_COMPARED = Table(
    "criteria-compared",
    key=("model", "dataset", "criterion", "activations", "seed", "other", "other_activations", "other_seed"),
    columns={
        "model": "string",
        "dataset": "string",
        "criterion": "string",
        "activations": "string",
        "seed": "int64",
        "other": "string",  # another criterion, or `damage`: the true damage of removing each block alone
        "other_activations": "string",
        "other_seed": "int64",
        **with_intervals("rank_correlation"),  # Spearman's over blocks, of the order of removal; 1: the same order
        "p_value": "float64",  # two-sided, permutation of blocks
        "n_blocks": "int32",
        "n_common": "int32",  # blocks that both remove
        "n_removed": "int32",
    },
    required=("criterion", "other", "rank_correlation"),
    not_null=("criterion", "other"),
    made_by="prune",
)

RETAINED = Table(
    "retained",
    key=("model", "variant", "activations", "seed", "n_blocks", "metric", "dataset"),
    columns={
        "model": "string",
        "variant": "string",  # the criterion whose blocks went (`prune`), or which were trained (`mitigate`)
        "activations": "string",  # as in BLOCKS
        "seed": "int64",  # as in BLOCKS; of `random-layers` in mitigate
        "n_blocks": "int16",  # removed, or trained
        "blocks": "list[int16]",  # which, 1..L
        "metric": "string",  # names: hcl_cli/stages/quality.py; in mitigate also contrastive-loss and cosine-margin
        "dataset": "string",  # that the metric was taken on; "" for those of the model alone (parameters)
        "higher_is_better": "bool",
        **with_intervals("before"),
        **with_intervals("after"),
        **with_intervals("difference"),  # after - before, paired over units
        **with_intervals("share_kept"),  # after / before, or before / after where lower is better; null if undefined
        "lead_over": "string",  # mitigate: the variant that `lead` compares with
        **with_intervals("lead"),  # after - after of that variant, paired; null in prune
        "unit": "string",  # what is resampled: texts | questions | runs; null without an interval
        "n_units": "int32",
    },
    required=("variant", "metric", "before", "after"),
    not_null=("variant", "metric"),
    made_by="prune",
)

QUALITY = Table(
    "quality",
    key=("model", "metric", "dataset", "unit_index"),
    columns={
        "model": "string",
        "removed": "list[int16]",  # blocks that the model lacks, 1..L
        "metric": "string",  # as in RETAINED
        "dataset": "string",
        "unit": "string",  # texts | questions; null for a number of the model alone
        "unit_index": "int32",  # the same unit in every model
        "values": "list[float64]",  # what the metric's number is made of; NaN where the unit has none
    },
    required=("metric", "unit_index", "values"),
    not_null=("metric", "unit_index"),
    made_by="prune",
)
