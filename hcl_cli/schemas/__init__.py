"""Every table: columns, types, units, keys. The only place where a column is defined.

Light: reading it imports neither Polars nor Arrow.
"""

from hcl_cli.schemas.answers import (
    FINDINGS,
    LAYER_CALIBRATION,
    LAYERS,
    QUESTIONS,
    REJECTION,
    RESPONSES,
    SCORED,
    UNCERTAINTY,
)
from hcl_cli.schemas.blocks import BLOCKS, CRITERIA_COMPARED, QUALITY, RETAINED
from hcl_cli.schemas.comparisons import COMPARISONS, POWER
from hcl_cli.schemas.contrast import CHOICES, CHOICES_COMPARED, COMPARED, DOLA, TEXT_SCORES
from hcl_cli.schemas.judging import AGREEMENT, BEST_LAYERS, JUDGE_CALIBRATION, JUDGED
from hcl_cli.schemas.probes import HIDDEN, PROBE_BASELINES, PROBE_SCORES, PROBE_SUMMARY, PROBES, RELIABILITY
from hcl_cli.schemas.table import Table
from hcl_cli.schemas.uncertainty import CONFIDENCE, CURVES, ENTROPY, GROUPS, LENS, RISKS, SPANS

__all__ = [
    "QUESTIONS",
    "RESPONSES",
    "SCORED",
    "JUDGED",
    "AGREEMENT",
    "JUDGE_CALIBRATION",
    "BEST_LAYERS",
    "LAYERS",
    "LAYER_CALIBRATION",
    "UNCERTAINTY",
    "REJECTION",
    "FINDINGS",
    "COMPARISONS",
    "POWER",
    "ENTROPY",
    "GROUPS",
    "CURVES",
    "SPANS",
    "CONFIDENCE",
    "RISKS",
    "LENS",
    "DOLA",
    "CHOICES",
    "CHOICES_COMPARED",
    "TEXT_SCORES",
    "COMPARED",
    "HIDDEN",
    "PROBES",
    "PROBE_SUMMARY",
    "PROBE_SCORES",
    "RELIABILITY",
    "PROBE_BASELINES",
    "BLOCKS",
    "CRITERIA_COMPARED",
    "RETAINED",
    "QUALITY",
    "TABLES",
    "Table",
]

TABLES = {
    table.name: table
    for table in (
        QUESTIONS,
        RESPONSES,
        SCORED,
        JUDGED,
        AGREEMENT,
        JUDGE_CALIBRATION,
        BEST_LAYERS,
        LAYERS,
        LAYER_CALIBRATION,
        UNCERTAINTY,
        REJECTION,
        FINDINGS,
        COMPARISONS,
        POWER,
        ENTROPY,
        GROUPS,
        CURVES,
        SPANS,
        CONFIDENCE,
        RISKS,
        LENS,
        DOLA,
        CHOICES,
        CHOICES_COMPARED,
        TEXT_SCORES,
        COMPARED,
        HIDDEN,
        PROBES,
        PROBE_SUMMARY,
        PROBE_SCORES,
        RELIABILITY,
        PROBE_BASELINES,
        BLOCKS,
        CRITERIA_COMPARED,
        RETAINED,
        QUALITY,
    )
}
