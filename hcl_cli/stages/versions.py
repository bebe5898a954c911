"""The version of each stage: raised by hand in the commit that changes its rows. Light, so that a hit can read it."""

VERSIONS = {
    "sample": 2, "score": 3, "hcb": 5, "lens": 1, "entropy": 1, "probe": 3, "dola": 4, "prune": 1, "mitigate": 1,
}  # fmt: skip

# `sample` options that only add rows: shards are shared between their values.
SAMPLE_GROWS = ("limit", "samples", "exit_layers")
# Questions in one shard of `sample`: what a kill can cost, and the most that can share one batch.
SAMPLE_BLOCK_QUESTIONS = 32

# `entropy` options that only add texts, or say which group a text is in.
ENTROPY_GROWS = ("limit", "answers_of", "group_by")
# Questions (texts, where there are none) in one shard of `entropy`.
ENTROPY_BLOCK = 32

# `probe` options that only add hidden states.
PROBE_GROWS = ("limit", "layers", "answers_of", "labelled")
# Statements (questions, for answers) in one shard of hidden states.
PROBE_BLOCK = 128

# `dola` options that only add answers.
DOLA_GROWS = ("limit", "samples", "methods")
# Questions of one shard of multiple choice, and its options that only add rows.
CHOICES_BLOCK = 32
DOLA_CHOICES_GROWS = ("limit", "methods")
