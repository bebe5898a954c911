"""Scored answers -> which blocks are active otherwise in hallucinated answers than in factual ones.

Every distinct answer of a question counts once, however often it was sampled, as in `hcl entropy`: copies have the
same activations, and counting them would let the few answers that a model repeats speak for all. This is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures.activations import DEFAULT_EPSILON, Epsilon
from hcl_cli.measures.block_scores import OF_ANSWERS, cumulative, normalised
from hcl_cli.measures.eavss import EavssContrast, eavss_of_answers
from hcl_cli.models.block_statistics import DEFAULT_BATCH_TOKENS, BlockStatistics, block_statistics
from hcl_cli.stages.activation_scores import BlockScores

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.load import LoadedModel

HALLUCINATED, FACTUAL = "hallucinated", "factual"


@dataclass(frozen=True)
class JudgedAnswers:
    """Distinct answers with a verdict, as tokens; one entry per answer.

    Attributes:
        sequences: prompt and answer.
        measured_from: where the answer begins.
        hallucinated: whether it was judged wrong.
        question: 0..Q-1.
        n_ungraded: distinct answers without a verdict, left out.
        n_empty: responses without text, left out.
        n_cut: answers cut at their right end.
    """

    sequences: tuple[tuple[int, ...], ...]
    measured_from: tuple[int, ...]
    hallucinated: npt.NDArray[np.bool_]
    question: npt.NDArray[np.int64]
    n_ungraded: int
    n_empty: int
    n_cut: int

    @property
    def groups(self) -> tuple[str, ...]:
        """[answer], the name of its group."""
        return tuple(HALLUCINATED if wrong else FACTUAL for wrong in self.hallucinated)


def judged_answers(
    scored: pl.DataFrame,
    loaded: LoadedModel,
    render: Callable[[str], str],
    *,
    special_tokens: bool,
    answers_of: Literal["last", "all"] | tuple[int, ...] = "last",
    cut: bool = False,
) -> JudgedAnswers:
    """The distinct judged answers of SCORED rows behind their prompts.

    Args:
        scored: rows of SCORED, ours or anybody's with the column `correct`.
        loaded: whose tokenizer and number of positions count.
        render: question -> prompt, as the answers were sampled.
        special_tokens: whether the tokenizer adds its own (not for a chat prompt).
        answers_of: of which exit layers, see `answer_texts`.
        cut: whether an answer that is too long for the model is cut; otherwise it is refused.
    Raises:
        BadInput: no column `correct`, no verdict, answers of one kind only, unusable rows; one line.
        BadOption: `answers_of` names a layer that the rows lack.
    """
    from hcl_cli.stages.texts import answer_texts, tokenised, truncated

    if "correct" not in scored.columns:
        have = shown(", ".join(scored.columns), 200)
        raise BadInput(
            f"no column correct, which tells hallucinated answers from factual ones (there are {have}); judge the "
            "responses with hcl score first"
        )
    found = answer_texts(scored, answers_of=answers_of)
    rows = found.frame.filter(found.frame["correct"].is_not_null())
    if rows.is_empty():
        raise BadInput(
            f"column correct: null in all {found.frame.height} distinct answers, so none is known to be hallucinated "
            "or factual; judge the responses with hcl score first"
        )
    wrong = ~rows["correct"].to_numpy().astype(bool)
    if wrong.all() or not wrong.any():
        kind, other = (HALLUCINATED, FACTUAL) if wrong.all() else (FACTUAL, HALLUCINATED)
        raise BadInput(
            f"column correct: all {rows.height} judged answers are {kind}, so there is no {other} one to compare with; "
            "sample more questions or answers, or use --criterion avss"
        )
    sequences, firsts, n_cut = [], [], 0
    for row in rows.iter_rows(named=True):
        label = f"answer {shown(row['text_id'], 60)!r}"
        ids, first, _ = tokenised(
            loaded.tokenizer, render(row["question"]), row["answer"], special_tokens=special_tokens, label=label
        )
        kept, _ = truncated(ids, first, None, max_tokens=loaded.max_positions, cut=cut, label=label)
        n_cut += len(kept) < len(ids)
        sequences.append(kept)
        firsts.append(first)
    numbers = {name: number for number, name in enumerate(rows["question_id"].unique(maintain_order=True))}
    return JudgedAnswers(
        tuple(sequences), tuple(firsts), wrong, np.array([numbers[name] for name in rows["question_id"]]),
        found.frame.height - rows.height, found.n_empty, n_cut,
    )  # fmt: skip


def answer_statistics(
    loaded: LoadedModel,
    answers: JudgedAnswers,
    *,
    activations: tuple[str, ...] = ("residual",),
    epsilon: Epsilon = DEFAULT_EPSILON,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> BlockStatistics:
    """Statistics of every block over the answers' own tokens; see `block_statistics`."""
    return block_statistics(
        loaded, answers.sequences, measured_from=answers.measured_from, activations=activations, epsilon=epsilon,
        groups=answers.groups, batch_tokens=batch_tokens, progress=progress,
    )  # fmt: skip


def contrast_of(
    statistics: BlockStatistics,
    answers: JudgedAnswers,
    *,
    activations: str = "residual",
    n_permutations: int = 2000,
    n_resamples: int = 2000,
    seed: int = 0,
) -> EavssContrast:
    """The EAVSS contrast at every block, with its interval over questions and its permutation p-values."""
    of_kind = statistics.activations[activations]
    return eavss_of_answers(
        of_kind.variance, of_kind.sparsity, statistics.n_tokens, answers.hallucinated, answers.question,
        n_permutations=n_permutations, n_resamples=n_resamples, seed=seed,
    )  # fmt: skip


def answer_scores(
    statistics: BlockStatistics, contrast: EavssContrast, criterion: str, *, activations: str = "residual"
) -> BlockScores:
    """Scores of a criterion of hallucination; variance, sparsity and norms beside them.

    `eavss` is the contrast; `hsav` and `hss` are variance and sparsity of the hallucinated answers. The variance and
    the sparsity beside the score are those of the hallucinated answers, the norms those of all.
    """
    if criterion not in OF_ANSWERS:
        raise ValueError(f"criterion {criterion!r} is none of {OF_ANSWERS}")
    of_kind = statistics.activations[activations]
    unknown = np.full_like(contrast.contrast, np.nan)
    score = {"eavss": contrast.contrast, "hsav": contrast.hsav, "hss": contrast.hss}[criterion]
    is_contrast = criterion == "eavss"
    shares = unknown if is_contrast else normalised(score)
    return BlockScores(
        score, contrast.low if is_contrast else unknown, contrast.high if is_contrast else unknown, shares,
        cumulative(shares), contrast.hsav, contrast.hss, of_kind.epsilon, of_kind.l1_norm, of_kind.l2_norm,
    )  # fmt: skip
