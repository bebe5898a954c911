"""The EAVSS contrast of hallucinated and factual answers at every block, and how sure it is; ours.

The paper (arXiv 2411.10069) names the quantities; its formulas could not be read. A group's activation variance (HSAV)
and sparsity (HSS) are means over all answer tokens of its answers, every answer once. Both are normalised over blocks,
so where one block's share rises on hallucinated answers, those of the others fall a little: their contrasts may be
significantly negative. Prone to hallucinate are the blocks with the highest contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hcl_cli.measures.block_scores import eavss, eavss_contrast, score_interval
from hcl_cli.measures.permutation import CHUNK, EPSILON

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EavssContrast:
    """Both groups at every block; [block] each, NaN for unknown (a sparsity of 0).

    Attributes:
        hsav, hss: variance and sparsity of the hallucinated answers.
        factual_variance, factual_sparsity: of the factual ones.
        eavss, factual_eavss: the normalised ratio of each.
        contrast: log eavss - log factual_eavss; the highest is the likeliest to hallucinate.
        low, high: 95 % percentile interval of the contrast over questions.
        p_value, p_adjusted: two-sided, labels permuted among the answers of each question; the second corrected for
            the number of blocks (single step, largest statistic). NaN without a question that has both.
        n_questions: questions with both kinds of answers, which the test runs over.
        n_one_kind: the other questions; their answers count in the contrast, and keep their labels in the test.
    """

    hsav: Floats
    hss: Floats
    factual_variance: Floats
    factual_sparsity: Floats
    eavss: Floats
    factual_eavss: Floats
    contrast: Floats
    low: Floats
    high: Floats
    p_value: Floats
    p_adjusted: Floats
    n_questions: int
    n_one_kind: int


def eavss_of_answers(
    variance: Floats,
    sparsity: Floats,
    n_tokens: npt.ArrayLike,
    hallucinated: Bools,
    question: Ints,
    *,
    n_permutations: int,
    n_resamples: int,
    seed: int,
) -> EavssContrast:
    """The contrast of the answers.

    Args:
        variance, sparsity: [answer, block], means over the tokens of an answer.
        n_tokens: [answer].
        hallucinated: [answer], at least one True and one False.
        question: [answer], 0..Q-1.
        n_permutations, n_resamples: >= 0.
        seed: of permutations and resamples.
    Raises:
        ValueError: only one kind of answers.
    """
    if hallucinated.all() or not hallucinated.any():
        raise ValueError("expected hallucinated and factual answers")
    weight = np.asarray(n_tokens, dtype=np.float64)
    sums = weight[:, None] * np.concatenate([variance, sparsity], axis=1)
    n_blocks = variance.shape[1]
    means = [weight[group] @ values[group] / weight[group].sum() for group in (hallucinated, ~hallucinated)
             for values in (variance, sparsity)]  # fmt: skip
    n_all = int(question.max()) + 1
    of_question = []
    for group in (hallucinated, ~hallucinated):
        total = np.zeros((n_all, 2 * n_blocks))
        np.add.at(total, question[group], sums[group])
        of_question += [total[:, :n_blocks], total[:, n_blocks:]]
    asked = np.bincount(question, minlength=n_all) > 0
    low, high = score_interval(
        eavss_contrast, tuple(values[asked] for values in of_question), n_resamples=n_resamples, seed=seed
    )
    n_wrong = np.bincount(question, weights=hallucinated, minlength=n_all)
    mixed = (n_wrong > 0) & (n_wrong < np.bincount(question, minlength=n_all))
    p_value, p_adjusted = permuted_p_values(sums, hallucinated, question, n_permutations, seed)
    return EavssContrast(
        hsav=means[0], hss=means[1], factual_variance=means[2], factual_sparsity=means[3],
        eavss=eavss(means[0], means[1]), factual_eavss=eavss(means[2], means[3]),
        contrast=eavss_contrast(*means), low=low, high=high, p_value=p_value, p_adjusted=p_adjusted,
        n_questions=int(mixed.sum()), n_one_kind=int((asked & ~mixed).sum()),
    )  # fmt: skip


def permuted_p_values(
    sums: Floats, hallucinated: Bools, question: Ints, n_permutations: int, seed: int
) -> tuple[Floats, Floats]:
    """Two-sided p-values of the contrast at every block, alone and corrected for all blocks.

    The statistic is the contrast itself, less its mean and over its spread among all labellings that were drawn and
    the observed one: the same for each of them, so that the test stays exact, and blocks of unlike spread can be
    compared. What differs by rounding alone is a tie, and a tie counts.

    Args:
        sums: [answer, 2 x block], sums over tokens: variance, then sparsity.
        hallucinated: [answer].
        question: [answer]; labels change places only within one, and so only where it has both.
        n_permutations: p = (1 + as large) / (1 + n_permutations).
        seed: the key of the counter-based generator (Philox).
    Returns:
        (p_value [block], p_adjusted [block]); NaN without permutations, without a question with both labels, and at
        blocks whose contrast is undefined in the observed or a drawn labelling.
    """
    n_blocks = sums.shape[1] // 2
    nothing = np.full(n_blocks, np.nan)
    order = np.argsort(question, kind="stable")
    sums, labels, unit = sums[order], hallucinated[order].astype(np.float64), question[order]
    _, unit = np.unique(unit, return_inverse=True)
    n_wrong = np.bincount(unit, weights=labels)
    mixed = ((n_wrong > 0) & (n_wrong < np.bincount(unit)))[unit]
    if not n_permutations or not mixed.any():
        return nothing, nothing.copy()
    fixed = labels[~mixed] @ sums[~mixed]
    everything, labels, unit, sums = sums.sum(axis=0), labels[mixed], unit[mixed], sums[mixed]
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)))
    found = [_contrasts(labels[None], sums, fixed, everything)]
    block = max(1, CHUNK // len(labels))
    for start in range(0, n_permutations, block):
        keys = generator.random((min(block, n_permutations - start), len(labels))) + unit
        found.append(_contrasts(labels[np.argsort(keys, axis=1)], sums, fixed, everything))
    contrasts = np.concatenate(found)
    known = np.isfinite(contrasts).all(axis=0)
    if not known.any():
        return nothing, nothing.copy()
    size = np.abs(_standardised(contrasts[:, known]))
    reached = size[0] * (1 - EPSILON) - EPSILON
    alone, together = nothing.copy(), nothing.copy()
    alone[known] = (size >= reached).mean(axis=0)
    together[known] = (size.max(axis=1, keepdims=True) >= reached).mean(axis=0)
    return alone, together


def _contrasts(labels: Floats, sums: Floats, fixed: Floats, everything: Floats) -> Floats:
    """[labelling, block]."""
    wrong = labels @ sums + fixed
    right = everything - wrong
    # Of nothing left, a difference of equal sums may be left over.
    right[right < EPSILON * everything] = 0.0
    n_blocks = sums.shape[1] // 2
    return eavss_contrast(wrong[:, :n_blocks], wrong[:, n_blocks:], right[:, :n_blocks], right[:, n_blocks:])


def _standardised(values: Floats) -> Floats:
    """Columns less their mean and over their spread; 0 where all are equal up to rounding."""
    centred = values - values.mean(axis=0)
    spread = np.sqrt((centred**2).mean(axis=0))
    constant = spread <= EPSILON * np.maximum(np.abs(values).max(axis=0), 1.0)
    return np.asarray(np.where(constant, 0.0, centred / np.where(constant, 1.0, spread)))
