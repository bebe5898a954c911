"""Scored answers -> blocks that are trained contrastively, and what that changed on questions never trained on. Ours.

Which blocks: those whose activations differ most between hallucinated and factual answers (the EAVSS contrast), or
given ones. The same training of other blocks stands beside: of as many drawn at random, of all, and of the same blocks
without the contrastive term, so that a gain can be told from plain fine-tuning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.stages.contrast_pairs import AnsweredQuestion, split
from hcl_cli.stages.contrastive_training import Epoch, Trained, Training, trained_adapter

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

CHOSEN, RANDOM, ALL, PLAIN = "chosen", "random-layers", "all-layers", "cross-entropy"
VARIANTS = (CHOSEN, RANDOM, ALL, PLAIN)
FEWEST_TESTED = 2  # questions; an interval needs two


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes:
        name: `eavss` or `given` for the chosen blocks, else one of VARIANTS.
        blocks: that are trained, 1..L, rising.
        seed: of the draw of `random-layers`; null for every other.
        is_contrastive: whether the loss has its contrastive term.
    """

    name: str
    blocks: tuple[int, ...]
    seed: int | None = None
    is_contrastive: bool = True

    @property
    def label(self) -> str:
        """The name, and the seed where there is one: `random-layers 0`."""
        return self.name if self.seed is None else f"{self.name} {self.seed}"


@dataclass(frozen=True)
class Parts:
    """Questions with answers, split: no question is in two parts."""

    train: tuple[AnsweredQuestion, ...]
    validation: tuple[AnsweredQuestion, ...]
    test: tuple[AnsweredQuestion, ...]


class OnVariantEpoch(Protocol):
    """Told of every epoch of every training as it ends."""

    def __call__(self, variant: Variant, epoch: Epoch) -> None: ...


def parts_of(questions: Sequence[AnsweredQuestion], seed: int) -> Parts:
    """The questions by `contrast_pairs.split`.

    Raises:
        BadInput: a part that is too small, or no training question with a contrast.
    """
    by_id = {one.question_id: one for one in questions}
    named = split(by_id, seed)
    parts = Parts(*(tuple(by_id[name] for name in names) for names in named.values()))
    if len(parts.test) < FEWEST_TESTED:
        raise BadInput(
            f"--seed {seed}: {len(parts.test)} of {len(questions)} questions is held out, at least {FEWEST_TESTED} are "
            "needed to compare models; give more questions"
        )
    if not any(one.has_contrast for one in parts.train):
        raise BadInput(
            f"none of {len(parts.train)} training questions has two different correct answers and a hallucinated one, "
            "which is what is contrasted; sample more answers (hcl sample -n 50), or take those of more layers with "
            "--answers-of all"
        )
    return parts


def planned_variants(
    names: Sequence[str], chosen: tuple[int, ...], n_layers: int, *, chosen_by: str, random_seeds: Sequence[int]
) -> list[Variant]:
    """What is trained: the chosen blocks, then what they are compared with.

    Args:
        names: some of VARIANTS.
        chosen: 1..L.
        n_layers: L.
        chosen_by: what the chosen blocks are called: `eavss` or `given`.
        random_seeds: of `random-layers`, one training each.
    """
    found = [Variant(chosen_by, chosen)]
    if PLAIN in names:
        found.append(Variant(PLAIN, chosen, is_contrastive=False))
    if RANDOM in names:
        found += [Variant(RANDOM, random_blocks(chosen, n_layers, seed), seed) for seed in random_seeds]
    if ALL in names:
        found.append(Variant(ALL, tuple(range(1, n_layers + 1))))
    return found


def random_blocks(chosen: tuple[int, ...], n_layers: int, seed: int) -> tuple[int, ...]:
    """As many blocks as were chosen, drawn among the others; where these are too few, all of them and some chosen ones.

    Raises:
        BadOption: every block is chosen, so that there is nothing to compare with.
    """
    others = [block for block in range(1, n_layers + 1) if block not in chosen]
    if not others:
        raise BadOption(f"--blocks: all {n_layers} blocks are trained, so none can be drawn; leave random-layers out")
    digest = hashlib.blake2b(f"{RANDOM}/{seed}".encode(), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(digest, "little")], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    missing = max(0, len(chosen) - len(others))
    kept = generator.permutation(chosen)[:missing].tolist()
    drawn = generator.permutation(others)[: len(chosen)].tolist()
    return tuple(sorted([*drawn, *kept]))


def hallucination_prone(
    loaded: LoadedModel, questions: Sequence[AnsweredQuestion], fraction: float, *, batch_tokens: int
) -> tuple[int, ...]:
    """The blocks with the highest EAVSS contrast between hallucinated and factual answers of these questions.

    Args:
        loaded: the model.
        questions: those trained on; held-out ones must not choose.
        fraction: of the blocks, rounded down, one at least.
        batch_tokens: of one forward.
    """
    from hcl_cli.measures.block_selection import n_of_fraction
    from hcl_cli.stages.block_selection import chosen_blocks, selection_of
    from hcl_cli.stages.eavss import JudgedAnswers, answer_statistics, contrast_of

    items = [
        (item, wrong, number)
        for number, one in enumerate(questions)
        for wrong, kind in ((False, one.factual), (True, one.hallucinated))
        for item in kind
    ]
    answers = JudgedAnswers(
        tuple(item.ids[: item.stop] for item, _, _ in items),
        tuple(item.first for item, _, _ in items),
        np.array([wrong for _, wrong, _ in items]),
        np.array([number for _, _, number in items]),
        0,
        0,
        0,
    )
    contrast = contrast_of(
        answer_statistics(loaded, answers, batch_tokens=batch_tokens), answers, n_permutations=0, n_resamples=0
    )
    n = max(1, n_of_fraction(fraction, loaded.n_layers))
    return chosen_blocks("eavss", contrast.contrast, selection_of(loaded.n_layers, n=n))


def trainings(
    loaded: LoadedModel,
    parts: Parts,
    variants: Sequence[Variant],
    training: Training,
    on_epoch: OnVariantEpoch | None = None,
) -> dict[Variant, Trained]:
    """Every variant trained with the same budget, seed and data."""
    found = {}
    for variant in variants:
        own = training if variant.is_contrastive else replace(training, contrast_weight=0.0)

        def note(epoch: Epoch, variant: Variant = variant) -> None:
            if on_epoch is not None:
                on_epoch(variant, epoch)

        found[variant] = trained_adapter(loaded, parts.train, parts.validation, variant.blocks, own, note)
    return found
