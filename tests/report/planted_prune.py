"""Rows of BLOCKS, CRITERIA_COMPARED and RETAINED as plain dictionaries."""

import math
import zlib

from hcl_cli.schemas.blocks import BLOCKS, CRITERIA_COMPARED, RETAINED

CRITERIA = (
    "avss", "avss-published", "eavss", "hsav", "hss", "block-influence", "angular", "perplexity", "taylor",
    "magnitude", "random", "last", "first",
)  # fmt: skip
IMPORTANCE = tuple(name for name in CRITERIA if name not in ("eavss", "hsav", "hss"))
METRICS = (("perplexity", "wikitext2", False, 23.4), ("token-accuracy", "wikitext2", True, 0.41),
           ("answer-accuracy", "lab", True, 0.62))  # fmt: skip
READ_ACTIVATIONS = ("avss", "avss-published", "eavss", "hsav", "hss", "block-influence", "angular")


def block(at, criterion="avss", score=1.0, rank=1, removed=False, spread=0.1, damage=None, **other):
    """One row of BLOCKS: an interval of +- spread times the score, +- 0.002 of the damage."""
    row = dict.fromkeys(BLOCKS.columns) | {"model": "lab", "dataset": "texts", "criterion": criterion, "block": at}
    row |= {"activations": "residual" if criterion in READ_ACTIVATIONS else None, "rank": rank, "removed": removed}
    row |= {"score": score}
    if score is not None and spread is not None:
        row |= {"score_low": score - spread * abs(score), "score_high": score + spread * abs(score)}
    if damage is not None:
        row |= {"damage": damage, "damage_low": damage - 0.002, "damage_high": damage + 0.002}
    return row | other


def compared(criterion="avss", other="damage", value=0.9, spread=0.05, **more):
    """One row of CRITERIA_COMPARED: an interval of +- spread."""
    row = dict.fromkeys(CRITERIA_COMPARED.columns) | {"model": "lab", "dataset": "texts"}
    row |= {"criterion": criterion, "other": other, "rank_correlation": value, "n_blocks": 10, "p_value": 0.004}
    row |= {"activations": "residual" if criterion in READ_ACTIVATIONS else None}
    row |= {"other_activations": "residual" if other in READ_ACTIVATIONS else None, "n_common": 1, "n_removed": 2}
    if value is not None:
        row |= {"rank_correlation_low": value - spread, "rank_correlation_high": min(1.0, value + spread)}
    return row | more


def retained(variant="avss", metric="answer-accuracy", after=0.5, before=0.6, spread=0.05, higher=True, **more):
    """One row of RETAINED: intervals of +- spread times the value, of the share +- spread."""
    row = dict.fromkeys(RETAINED.columns) | {"model": "lab", "variant": variant, "n_blocks": 2, "metric": metric}
    row |= {"activations": "residual" if variant in READ_ACTIVATIONS else None, "dataset": "lab"}
    row |= {"higher_is_better": higher, "unit": "questions", "n_units": 200, "blocks": [1, 2]}
    values = {"before": before, "after": after, "difference": after - before}
    values["share_kept"] = after / before if higher else before / after
    for name, value in values.items():
        size = spread * {"share_kept": 1, "difference": max(before, after)}.get(name, value)
        row |= {name: value, f"{name}_low": value - size, f"{name}_high": value + size}
    return row | more


def noise(*address):
    """A number in [0, 1) that is the same on every machine."""
    return (zlib.crc32(repr(address).encode()) % 10007) / 10007


def true_damage(at, n_blocks):
    """Large at both ends, small in the middle."""
    return 0.004 + 2.0 * math.exp(-(at - 1) / 1.5) + 0.4 * math.exp(-(n_blocks - at) / 1.5)


def scores_of(criterion, n_blocks, seed=0):
    """Made-up scores that differ in size as those of real criteria do."""
    damage = [true_damage(at, n_blocks) for at in range(1, n_blocks + 1)]
    made = {
        "perplexity": lambda at: 23.4 * math.exp(damage[at - 1]), "magnitude": lambda at: 1.2e6 + 4e4 * noise("m", at),
        "first": lambda at: float(at), "last": lambda at: float(n_blocks - at),
        "random": lambda at: noise("r", seed, at), "eavss": lambda at: 0.4 * noise("e", at) - 0.1,
        "avss": lambda at: 0.02 * 1.5 ** (10 * at / n_blocks) * (0.7 + noise("a", at)),
        "angular": lambda at: 0.05 + 0.2 * damage[at - 1] ** 0.5 + 0.02 * noise("g", at),
    }  # fmt: skip
    usual = made.get(criterion, lambda at: 0.03 + 0.4 * damage[at - 1] + 0.02 * noise(criterion, at))
    return [usual(at) for at in range(1, n_blocks + 1)]


def study_blocks(n_blocks=10, criteria=CRITERIA, seeds=(0, 1, 2, 3, 4)):
    """BLOCKS of a run: a quarter of the blocks goes under each criterion."""
    rows = []
    for criterion in criteria:
        for seed in seeds if criterion == "random" else (None,):
            scores = scores_of(criterion, n_blocks, seed)
            upwards = criterion not in ("eavss", "hsav")
            order = sorted(range(n_blocks), key=lambda at: scores[at] if upwards else -scores[at])
            for at, score in enumerate(scores):
                rank = order.index(at) + 1
                exact = criterion in ("random", "last", "first", "magnitude")
                row = block(at + 1, criterion, score, rank, rank <= n_blocks // 4, None if exact else 0.08)
                row |= {"seed": seed, "damage": true_damage(at + 1, n_blocks)}
                row |= {"damage_low": row["damage"] * 0.93, "damage_high": row["damage"] * 1.08}
                row |= {"variance": 0.01 * 1.4 ** (10 * at / n_blocks), "sparsity": 0.03 / (1 + at), "epsilon": 0.01}
                row |= {"l1_norm": 20.0 + 3 * at, "l2_norm": 2.0 + 0.4 * at, "weight_norm": 31 + noise("w", at)}
                if criterion not in READ_ACTIVATIONS:
                    row |= dict.fromkeys(("variance", "sparsity", "epsilon", "l1_norm", "l2_norm"))
                if min(scores) >= 0:
                    row |= {"normalised": score / sum(scores), "cumulative": sum(scores[: at + 1]) / sum(scores)}
                if criterion == "eavss":
                    row |= {"p_value": 0.01 + noise("p", at) / 2, "p_adjusted": min(1.0, 0.04 + noise("p", at))}
                rows.append(row)
    return rows


def keys(criteria, seeds):
    return [(name, seed) for name in criteria for seed in (seeds if name == "random" else (None,))]


def study_compared(criteria=CRITERIA, seeds=(0, 1, 2, 3, 4)):
    """CRITERIA_COMPARED of a run: every pair, and every criterion with the damage."""
    rows, known = [], keys(criteria, seeds)
    for at, (name, seed) in enumerate(known):
        for other, other_seed in [*known[at + 1 :], ("damage", None)]:
            value = 2 * noise("c", name, seed, other, other_seed) - 1
            if name == "random" or other == "random":
                value /= 3
            rows.append(compared(name, other, value, 0.25, seed=seed, other_seed=other_seed))
    return rows


def study_retained(n_blocks=10, criteria=CRITERIA, seeds=(0, 1, 2, 3, 4), sizes=None):
    """RETAINED of a run: quality that falls with the number of removed blocks."""
    rows = []
    for metric, dataset, higher, before in METRICS:
        for place, (name, seed) in enumerate(keys(criteria, seeds)):
            for n in sizes or (n_blocks // 4,):
                loss = (0.5 + noise("q", name, seed) + place / 40) * n / n_blocks
                after = before * math.exp(-1.6 * loss) if higher else before * math.exp(4 * loss)
                row = retained(name, metric, after, before, 0.04, higher, seed=seed, n_blocks=n, dataset=dataset)
                rows.append(
                    row | {"blocks": list(range(2, 2 + n)), "unit": "questions" if dataset == "lab" else "texts"}
                )
    for place, (name, seed) in enumerate(keys(criteria, seeds)):
        for n in sizes or (n_blocks // 4,):
            row = retained(name, "tokens-per-second", 4000 + 300 * n + place, 4000, 0.01, seed=seed, n_blocks=n)
            rows.append(row | {"dataset": "", "unit": "runs", "n_units": 5})
    return rows


def mitigated(variant="eavss", metric="hallucination-rate", before=0.45, after=0.4, lead=None, spread=0.02, **more):
    """One row of RETAINED as `hcl mitigate` makes it: intervals of +- spread."""
    row = dict.fromkeys(RETAINED.columns) | {"model": "lab", "variant": variant, "n_blocks": 3, "metric": metric}
    row |= {"dataset": "lab", "higher_is_better": False, "unit": "questions", "n_units": 120, "blocks": [4, 5, 9]}
    values = {"before": before, "after": after, "difference": after - before}
    if lead is not None:
        values["lead"] = lead
        row["lead_over"] = "random-layers"
    for name, value in values.items():
        row |= {name: value, f"{name}_low": value - spread, f"{name}_high": value + spread}
    return row | more


def study_mitigated():
    """RETAINED of a run of `hcl mitigate`."""
    rows = []
    for metric, higher, before, size in (
        ("hallucination-rate", False, 0.45, 0.02), ("creativity", True, 1.32, 0.05), ("perplexity", False, 23.4, 0.6),
        ("ece", False, 0.12, 0.03),
    ):  # fmt: skip
        kind = {"higher_is_better": higher, "spread": size}
        gain = 2.5 * size * (1 if higher else -1)
        rows.append(mitigated("eavss", metric, before, before + 1.4 * gain, 0.7 * gain, **kind))
        for seed in range(3):
            after = before + gain * (0.4 + 0.1 * seed)
            rows.append(mitigated("random-layers", metric, before, after, seed=seed, blocks=[seed + 1], **kind))
        rows.append(mitigated("all-layers", metric, before, before + gain, 0.2 * gain, n_blocks=10, **kind))
    return [row | {"lead_over": "random-layers 0"} if row["lead_over"] else row for row in rows]
