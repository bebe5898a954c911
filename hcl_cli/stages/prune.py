"""Texts or judged answers -> how much each block matters by every criterion, and which blocks go.

Criteria:

- `avss`: activation variance over sparsity (arXiv 2411.02117); `avss-published`: as the authors' script measures it;
- `eavss`: the contrast of AVSS between hallucinated and factual answers; `hsav`, `hss`: variance and sparsity of the
  hallucinated ones. Named by arXiv 2411.10069, whose formulas could not be read: the definitions are ours;
- `block-influence` (ShortGPT, arXiv 2403.03853), `angular` (Gromov et al., arXiv 2403.17887);
- `perplexity`, `taylor`, `magnitude` (Shortened LLaMA, arXiv 2402.02834);
- `random` (several orders), `last`, `first`: what any criterion has to beat;
- `greedy`: not a score but a search, one block after the other (`--search greedy`);
- `given`: blocks that the user names.

Of the scores of importance the lowest goes first; of `eavss` and `hsav` the highest, of `hss` the lowest: those blocks
are the likeliest to hallucinate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.activations import Epsilon
from hcl_cli.measures.block_scores import (
    HIGHEST_FIRST,
    OF_ANSWERS,
    OF_TEXTS,
    cumulative,
    depth_scores,
    normalised,
    random_scores,
)
from hcl_cli.measures.block_selection import Selection, n_of_fraction, removal_ranks
from hcl_cli.schemas import BLOCKS
from hcl_cli.stages.block_selection import chosen_blocks
from hcl_cli.stages.removed import GIVEN, GREEDY

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.block_losses import BlockLosses
    from hcl_cli.models.block_statistics import BlockStatistics
    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.activation_scores import BlockScores
    from hcl_cli.stages.damage import BlockDamage
    from hcl_cli.stages.eavss import JudgedAnswers

Floats = npt.NDArray[np.float64]
Ids = tuple[int, ...]
Say = Callable[[str], None]
Row = dict[str, Any]

# Criteria that read one kind of activations each; the others are of the residual stream or of none.
OF_KINDS = ("avss", *OF_ANSWERS)


@dataclass(frozen=True)
class Scoring:
    """What is measured, and which blocks go.

    Attributes:
        criteria: names, in the order of the rows.
        activations: kinds that `avss` and the criteria of hallucination read, one set of rows each.
        epsilon: bound of the sparsity.
        selection: how many blocks go by each criterion, and by which rule.
        greedy: also search, one block after the other.
        given: blocks that the user removes.
        damage: measure the rise of the loss without each block alone.
        random_seeds: of the orders of `random`.
        n_resamples, n_permutations, seed: of intervals and p-values.
        batch_tokens: budget of one forward pass.
    """

    criteria: tuple[str, ...]
    selection: Selection
    epsilon: Epsilon
    activations: tuple[str, ...] = ("residual",)
    greedy: bool = False
    given: tuple[int, ...] | None = None
    damage: bool = True
    random_seeds: tuple[int, ...] = (0,)
    n_resamples: int = 2000
    n_permutations: int = 2000
    seed: int = 0
    batch_tokens: int = 1 << 11


@dataclass(frozen=True)
class Read:
    """What the model reads.

    Attributes:
        texts: token ids of texts whose likelihood counts: plain texts, questions with their answers, or the factual
            ones among judged answers.
        firsts: of each of them the position of the first token that counts: where an answer begins.
        answers: judged answers, whose own tokens the activations are measured at; None for texts.
    """

    texts: tuple[Ids, ...]
    firsts: tuple[int, ...]
    answers: JudgedAnswers | None = None


def block_table(
    loaded: LoadedModel, read: Read, scoring: Scoring, *, model: str, dataset: str, say: Say = lambda _text: None
) -> pl.DataFrame:
    """BLOCKS: one row per criterion (kind of activations, seed) and block.

    Args:
        loaded: the model.
        read: texts or answers.
        scoring: what is measured.
        model, dataset: names for the rows.
        say: told what people should know: blocks without a score, texts without a direction.
    Raises:
        BadOption: a selection that would remove nothing or leave nothing.
        BadInput, EnvironmentRefused: texts or a model that cannot be measured.
    """
    import polars as pl

    return pl.DataFrame(
        [{"model": model, "dataset": dataset, **row} for row in _Table(loaded, read, scoring, say).rows()],
        schema=BLOCKS.polars_schema(),
    )


@dataclass
class _Table:
    """Everything that is measured, at most once each."""

    loaded: LoadedModel
    read: Read
    scoring: Scoring
    say: Say

    def rows(self) -> list[Row]:
        from hcl_cli.models.weight_scores import frobenius_norm

        self.norms = frobenius_norm(self.loaded)
        rows = []
        for criterion in self.scoring.criteria:
            if criterion in OF_KINDS:
                for kind in self.scoring.activations:
                    rows += self._scored(criterion, self._activations(criterion, kind), activations=kind)
            elif criterion in OF_TEXTS:
                rows += self._scored(criterion, self._activations(criterion, "residual"), activations="residual")
            elif criterion == "random":
                for seed in self.scoring.random_seeds:
                    rows += self._scored(criterion, _plain(random_scores(self.n_blocks, seed), shares=False), seed=seed)
            else:
                rows += self._scored(criterion, self._of_weights(criterion))
        if self.scoring.greedy:
            rows += self._searched()
        if self.scoring.given is not None:
            rows += self._rows(GIVEN, removed=self.scoring.given)
        return rows

    @property
    def n_blocks(self) -> int:
        return self.loaded.n_layers

    # ------------------------------------------------------------------------------------------------- measured once

    @cached_property
    def statistics(self) -> BlockStatistics:
        from hcl_cli.models.block_statistics import block_statistics

        scoring, answers = self.scoring, self.read.answers
        return block_statistics(
            self.loaded, self.read.texts if answers is None else answers.sequences,
            measured_from=self.measured_from if answers is None else answers.measured_from,
            groups=None if answers is None else answers.groups, activations=scoring.activations,
            epsilon=scoring.epsilon, published="avss-published" in scoring.criteria,
            batch_tokens=scoring.batch_tokens,
        )  # fmt: skip

    @property
    def measured_from(self) -> tuple[int, ...]:
        """Where activations of texts count from: the first token too, of an answer from where it begins."""
        return tuple(0 if first == 1 else first for first in self.read.firsts)

    @cached_property
    def losses(self) -> BlockLosses:
        from hcl_cli.models.block_losses import block_losses

        return block_losses(self.loaded, self.read.texts, self.read.firsts, batch_tokens=self.scoring.batch_tokens)

    @cached_property
    def damages(self) -> list[BlockDamage] | None:
        """What the loss of the texts rises by without each block; None where it was not asked for."""
        from hcl_cli.stages.damage import block_damage

        if not self.scoring.damage and "perplexity" not in self.scoring.criteria:
            return None
        return block_damage(self.losses, n_resamples=self.scoring.n_resamples, seed=self.scoring.seed)

    def _activations(self, criterion: str, kind: str) -> BlockScores:
        from hcl_cli.stages.activation_scores import activation_scores
        from hcl_cli.stages.eavss import answer_scores, contrast_of

        scoring = self.scoring
        if criterion not in OF_ANSWERS:
            return activation_scores(
                self.statistics, criterion, activations=kind, n_resamples=scoring.n_resamples, seed=scoring.seed
            )
        assert self.read.answers is not None
        if kind not in self._contrasts:
            self._contrasts[kind] = contrast_of(
                self.statistics, self.read.answers, activations=kind, n_permutations=scoring.n_permutations,
                n_resamples=scoring.n_resamples, seed=scoring.seed,
            )  # fmt: skip
        return answer_scores(self.statistics, self._contrasts[kind], criterion, activations=kind)

    @cached_property
    def _contrasts(self) -> dict[str, Any]:
        return {}

    def _of_weights(self, criterion: str) -> BlockScores:
        """Scores of a criterion that reads no activation."""
        from hcl_cli.models.weight_scores import magnitude, taylor

        if criterion == "perplexity":
            assert self.damages is not None
            found = [one.perplexity for one in self.damages]
            ends = (
                [math.nan if end is None else end for end in side] for side in zip(*(o[1:] for o in found), strict=True)
            )
            low, high = (np.array(side) for side in ends)
            return replace(_plain(np.array([one.value for one in found])), score_low=low, score_high=high)
        if criterion == "taylor":
            return _plain(
                taylor(self.loaded, self.read.texts, self.read.firsts, batch_tokens=self.scoring.batch_tokens)
            )
        if criterion == "magnitude":
            return _plain(magnitude(self.loaded))
        return _plain(depth_scores(self.n_blocks, criterion), shares=False)

    # ---------------------------------------------------------------------------------------------------------- rows

    def _scored(
        self, criterion: str, scores: BlockScores, *, activations: str | None = None, seed: int | None = None
    ) -> list[Row]:
        """The rows of one criterion, with what its selection removes."""
        removed = chosen_blocks(criterion, scores.score, self.scoring.selection, spans=scores.spans)
        if scores.n_undefined:
            self.say(
                f"{criterion}: {scores.n_undefined} of {self.n_blocks} blocks have no score (a sparsity, a variance or "
                "a state of 0); they go last"
            )
        tests = self._contrasts.get(activations) if criterion == "eavss" and activations is not None else None
        ranks = removal_ranks(scores.score, highest_first=criterion in HIGHEST_FIRST)
        return self._rows(
            criterion, removed=removed, activations=activations, seed=seed, scores=scores, ranks=ranks, tests=tests
        )

    def _searched(self) -> list[Row]:
        """The rows of the greedy search: `rank` is the step at which a block went, `score` the loss then."""
        from hcl_cli.stages.greedy import greedy_removal

        selection = self.scoring.selection
        n = selection.n
        if n is None:
            assert selection.fraction is not None
            n = n_of_fraction(selection.fraction, self.n_blocks)
        path = greedy_removal(
            self.loaded, self.read.texts, n, firsts=self.read.firsts, protected=selection.protected,
            batch_tokens=self.scoring.batch_tokens,
        )  # fmt: skip
        rows = self._rows(GREEDY, removed=tuple(sorted(path.removed)))
        for step, (block, loss) in enumerate(zip(path.removed, path.losses[1:], strict=True), start=1):
            rows[block - 1] |= {"rank": step, "score": loss}
        return rows

    def _rows(
        self,
        criterion: str,
        *,
        removed: tuple[int, ...],
        activations: str | None = None,
        seed: int | None = None,
        scores: BlockScores | None = None,
        ranks: npt.NDArray[np.int64] | None = None,
        tests: Any = None,
    ) -> list[Row]:
        rows = []
        for index in range(self.n_blocks):
            row: Row = {
                "criterion": criterion, "activations": activations, "seed": seed, "block": index + 1,
                "weight_norm": float(self.norms[index]), "removed": index + 1 in removed,
                "rank": None if ranks is None else int(ranks[index]),
            }  # fmt: skip
            if scores is not None:
                row |= {name: _known(getattr(scores, name)[index]) for name in _OF_SCORES}
            if tests is not None:
                row |= {name: _known(getattr(tests, name)[index]) for name in ("p_value", "p_adjusted")}
            if self.damages is not None:
                harm = self.damages[index].damage
                row |= {"damage": harm.value, "damage_low": harm.low, "damage_high": harm.high}
            rows.append(row)
        return rows


_OF_SCORES = (
    "score", "score_low", "score_high", "normalised", "cumulative", "variance", "sparsity", "epsilon", "l1_norm",
    "l2_norm",
)  # fmt: skip


def _plain(score: Floats, shares: bool = True) -> BlockScores:
    """Scores that come with nothing else; an order (random, last, first) has no shares either."""
    from hcl_cli.stages.activation_scores import BlockScores

    unknown = np.full_like(score, np.nan)
    parts = normalised(score) if shares else unknown
    return BlockScores(
        score, unknown, unknown, parts, cumulative(parts), unknown, unknown, unknown, unknown, unknown
    )  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
