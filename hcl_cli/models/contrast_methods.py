"""Methods of decoding by contrasting layers, and their names.

    vanilla             the last layer alone
    dola-low, dola-high the paper's buckets of candidate layers
    dola:LAYERS         candidates by number: dola:2-16:2 or dola:2,4,6
    static:K            one premature layer, K

Any of them with variants behind it, so that one run compares them: `dola-low@published`, `dola-high@no-norm@alpha=0`.
`vanilla@alpha=0.1@penalty=1.2` truncates and penalises as DoLa does by default and contrasts nothing: the control
that tells what the contrast does from what these two do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hcl_cli.errors import BadOption

DIVERGENCES = ("jsd", "published")
PENALTIES_ON = ("contrasted", "logits")
DEEP = 40  # blocks: above that a bucket is 20 layers, and no longer half of them

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_KINDS = "vanilla, dola-low, dola-high, dola:LAYERS or static:LAYER"
_VARIANTS = "published, jsd, reversed, norm, no-norm, averaged, per-row, alpha=, penalty=, penalty-on="


@dataclass(frozen=True)
class Method:
    """How the next token's distribution is made.

    Attributes:
        name: as given by the user; the `method` column.
        candidates: premature layers to choose from, rising, after so many blocks (0: what goes into block 1); none for
            `vanilla`.
        divergence: "jsd" or "published", see `measures.contrast`; the candidate farthest from the last layer is
            contrasted, the lowest of equals.
        norm: read premature layers through the final norm; the last layer always is.
        alpha: plausible tokens are at least so many times as likely as the likeliest one; others are never drawn. 0
            truncates nothing: `vanilla` has that unless its name says otherwise.
        penalty: on the scores of tokens that the prompt or the answer has already; 1 for none.
        penalty_on: "contrasted": on the contrasted scores, as the published code does. "logits": on the last layer's
            logits, before the plausible set and the contrast are taken from them; candidates and the choice among them
            are not penalised [a definition of ours]. `vanilla` has only its logits, so both are the same there.
        average_over_batch: the divergences are averaged over all answers of the method that are decoded together, and
            one layer is used for all, as the published code does: an answer then depends on its company.
        raw_without_alpha: at alpha 0 raw logits are subtracted, as the published code does, and not log-probabilities:
            a constant per row, which only a penalty on contrasted scores notices.
    """

    name: str
    candidates: tuple[int, ...] = ()
    divergence: str = "jsd"
    norm: bool = True
    alpha: float = 0.1
    penalty: float = 1.2
    penalty_on: str = "contrasted"
    average_over_batch: bool = False
    raw_without_alpha: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise BadOption(f"--alpha {self.alpha:g}: expected a number from 0 to 1; the paper's is 0.1")
        if not (math.isfinite(self.penalty) and self.penalty > 0.0):
            raise BadOption(f"--penalty {self.penalty:g}: expected a number above 0; 1 is none, the paper's is 1.2")
        if self.divergence not in DIVERGENCES:
            raise BadOption(f"--divergence {self.divergence}: expected one of {', '.join(DIVERGENCES)}")
        if self.penalty_on not in PENALTIES_ON:
            raise BadOption(f"--penalty-on {self.penalty_on}: expected one of {', '.join(PENALTIES_ON)}")

    @property
    def readout(self) -> str:
        """norm | no-norm."""
        return "norm" if self.norm else "no-norm"

    @property
    def averages(self) -> bool:
        """Whether an answer depends on its company: several candidates, one of them for the whole batch."""
        return self.average_over_batch and len(self.candidates) > 1


VANILLA = Method("vanilla", alpha=0.0, penalty=1.0)


def as_published(method: Method) -> Method:
    """The method as DoLa's reference code runs it.

    Premature layers without the final norm, the divergence with its arguments exchanged and averaged over the batch,
    the penalty on contrasted scores, which at alpha 0 are differences of raw logits. Candidates, alpha and the size of
    the penalty stay.
    """
    return replace(
        method, divergence="published", norm=False, penalty_on="contrasted", average_over_batch=True,
        raw_without_alpha=True,
    )  # fmt: skip


def bucket(name: str, n_layers: int, tied: bool) -> tuple[int, ...]:
    """The candidate layers of `low` or `high`: even layers below L/2, or from L/2 up to and without L.

    Above 40 blocks: even layers below 20, or the even ones of the last 20 below L. Where the unembedding is the
    embedding, layer 0 is left out of `low`: read through it, the input predicts itself. These are the layers of
    transformers 4.x, `range(start, L // 2, 2)` and so on, and of the paper's lists where L / 2 is even; where it is
    not, the library took odd layers for `high`, and here they stay even. The paper's own buckets of models with 60 and
    80 blocks are three and four of 20 layers; these are the first and the last of them.

    Source: arXiv 2309.03883, section 3.1 and README of its code; transformers 4.48, `_dola_decoding`.
    """
    if name == "low":
        edge = -(-n_layers // 2) if n_layers <= DEEP else 20
        return tuple(range(2 if tied else 0, edge, 2))
    edge = -(-n_layers // 2) if n_layers <= DEEP else n_layers - 20
    return tuple(range(edge + edge % 2, n_layers, 2))


def ties_embeddings(model: Any) -> bool:
    """Whether the unembedding is the embedding."""
    return bool(model.get_input_embeddings().weight is model.get_output_embeddings().weight)


def tied_in_config(folder: Path) -> bool:
    """The same, read from a model's config.json: its weights need not be there."""
    document = json.loads((folder / "config.json").read_text("utf-8"))
    inner = document.get("text_config")
    for part in (inner if isinstance(inner, dict) else {}, document):
        if isinstance(part.get("tie_word_embeddings"), bool):
            return bool(part["tie_word_embeddings"])
    from transformers import AutoConfig  # knows what the family does where its file does not say

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return bool(getattr(config, "tie_word_embeddings", True))


def parse_methods(text: str, n_layers: int, *, tied: bool, defaults: Method | None = None) -> tuple[Method, ...]:
    """A comma-separated list of methods; a number or a range behind a comma belongs to the `dola:` before it.

    Raises:
        BadOption: as `parse_method`; a method named twice, under whatever names, or none.
    """
    names: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if names and names[-1].startswith("dola:") and re.match(r"\d", part):
            names[-1] += f",{part}"
        else:
            names.append(part)
    for name in names:
        if names.count(name) > 1:
            raise BadOption(f"--methods {text}: {name} is there twice; name each method once")
    methods = tuple(parse_method(name, n_layers, tied=tied, defaults=defaults) for name in names)
    first: dict[Method, str] = {}
    for method in methods:
        other = first.setdefault(replace(method, name=""), method.name)
        if other != method.name:
            raise BadOption(f"--methods {text}: {other} and {method.name} are one method; name it once")
    return methods


def parse_method(text: str, n_layers: int, *, tied: bool = False, defaults: Method | None = None) -> Method:
    """One method by its name.

    Args:
        text: as in the head of this module.
        n_layers: L of the model.
        tied: whether the unembedding is the embedding, see `bucket`.
        defaults: divergence, norm, alpha, penalty and so on, before the variants in the name; name and candidates are
            not read. `vanilla` takes none of them.
    Raises:
        BadOption: unknown name or variant, one that means nothing for `vanilla`, no candidate below the last layer, a
            layer that the model does not have, or a value out of range.
    """
    defaults = defaults or Method("")
    name, *variants = text.strip().split("@")
    if name == "vanilla":
        for variant in variants:
            if variant.partition("=")[0] not in ("alpha", "penalty"):
                raise BadOption(
                    f"--methods {text}: {variant!r} means nothing for vanilla, which contrasts nothing; it takes "
                    "alpha= and penalty="
                )
        return _with_variants(replace(VANILLA, name=text), variants)
    if name in ("dola-low", "dola-high"):
        layers = bucket(name.removeprefix("dola-"), n_layers, tied)
        if not layers:
            raise BadOption(
                f"--methods {text}: a model of {n_layers} blocks has no candidate layer there below the last one; "
                f"name layers, as in dola:{min(1, n_layers - 1)}-{n_layers - 1}"
            )
        return _with_variants(replace(defaults, name=text, candidates=layers), variants)
    kind, colon, numbers = name.partition(":")
    if not colon or kind not in ("dola", "static"):
        raise BadOption(f"--methods {text!r}: expected {_KINDS}")
    layers = _layers(text, numbers, n_layers)
    if kind == "static" and len(layers) != 1:
        raise BadOption(f"--methods {text}: static has one premature layer, met {len(layers)}; use dola:{numbers}")
    return _with_variants(replace(defaults, name=text, candidates=layers), variants)


def _layers(text: str, numbers: str, n_layers: int) -> tuple[int, ...]:
    found: set[int] = set()
    for part in numbers.split(","):
        match = _RANGE.fullmatch(part.strip())
        first, last, step = (int(n) if n else None for n in match.groups()) if match else (None, None, None)
        if first is None or step == 0 or (last is not None and last < first):
            raise BadOption(f"--methods {text}: {part.strip()!r} is no layer or range; write dola:2,4,6 or dola:2-16:2")
        for end in (first, last):
            if end is not None and end >= n_layers:
                raise BadOption(
                    f"--methods {text}: layer {end} is not below the last one, {n_layers}; premature layers are "
                    f"0..{n_layers - 1}"
                )
        found.update(range(first, (first if last is None else last) + 1, step or 1))
    return tuple(sorted(found))


def _with_variants(method: Method, variants: Sequence[str]) -> Method:
    for variant in variants:
        key, equals, value = variant.partition("=")
        if variant == "published":
            method = as_published(method)
        elif variant == "jsd":
            method = replace(method, divergence="jsd")
        elif variant == "reversed":
            method = replace(method, divergence="published")
        elif variant in ("norm", "no-norm"):
            method = replace(method, norm=variant == "norm")
        elif variant in ("averaged", "per-row"):
            method = replace(method, average_over_batch=variant == "averaged")
        elif equals and key == "alpha":
            method = replace(method, alpha=_number(method.name, value))
        elif equals and key == "penalty":
            method = replace(method, penalty=_number(method.name, value))
        elif equals and key == "penalty-on":
            method = replace(method, penalty_on=value)
        else:
            raise BadOption(f"--methods {method.name}: unknown variant {variant!r}; expected one of {_VARIANTS}")
    return method


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise BadOption(f"--methods {name}: {value!r} is not a number; write it as in alpha=0.1") from error
