"""Statistics of a small model -> scores of each criterion, and blocks to remove by option."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadOption
from hcl_cli.measures.activations import Epsilon
from hcl_cli.models.block_statistics import BlockStatistics, block_statistics
from hcl_cli.models.load import loaded_from
from hcl_cli.stages.activation_scores import activation_scores
from hcl_cli.stages.block_selection import chosen_blocks, selection_of

TEXTS = [tuple(range(3 + n, 3 + 4 * n)) for n in range(2, 20)]


@pytest.fixture
def statistics(tiny_model: Callable[..., Any]) -> BlockStatistics:
    return block_statistics(tiny_model("llama"), TEXTS, activations=("mlp",), epsilon=Epsilon(0.1), published=True)


def test_scores_are_those_of_all_tokens(statistics: BlockStatistics) -> None:
    """AVSS is a ratio of means over all tokens and not a mean of ratios; its interval holds it."""
    weight = statistics.n_tokens / statistics.n_tokens.sum()
    for kind, of_kind in statistics.activations.items():
        found = activation_scores(statistics, "avss", activations=kind, n_resamples=400)
        np.testing.assert_allclose(found.score, (weight @ of_kind.variance) / (weight @ of_kind.sparsity))
        np.testing.assert_allclose(found.cumulative[-1], 1.0)
        assert (found.score_low < found.score).all() and (found.score < found.score_high).all()
        assert found.epsilon.tolist() == [0.1] * 4
    influence = activation_scores(statistics, "block-influence", n_resamples=400)
    np.testing.assert_allclose(influence.score, weight @ statistics.influence)
    angular = activation_scores(statistics, "angular", n_resamples=400)
    np.testing.assert_allclose(angular.score, statistics.angular.mean(axis=0))
    np.testing.assert_allclose(angular.score, statistics.spans[:, 0])
    for each in (influence, angular):
        assert (each.score_low < each.score).all() and (each.score < each.score_high).all()


def test_the_published_score_divides_means_of_batches(statistics: BlockStatistics) -> None:
    """Eighteen texts are batches of 8, 8 and 2. No activation is below 1e-5: no score, and that is counted."""
    found = activation_scores(statistics, "avss-published")
    variance = statistics.published_variance
    assert variance is not None
    expected = (variance[:8].mean(0) + variance[8:16].mean(0) + variance[16:].mean(0)) / 3
    np.testing.assert_allclose(found.variance, expected)
    assert found.epsilon.tolist() == [1e-5] * 4
    assert found.n_undefined == int((found.sparsity == 0).sum())
    assert all(math.isnan(score) == (sparse == 0) for score, sparse in zip(found.score, found.sparsity, strict=True))


def test_a_bound_that_nothing_is_below_gives_no_score(tiny_model: Callable[..., Any]) -> None:
    statistics = block_statistics(tiny_model("llama"), TEXTS, epsilon=Epsilon(1e-30))
    found = activation_scores(statistics, "avss", n_resamples=10)
    assert found.n_undefined == 4 and np.isnan(found.normalised).all() and found.sparsity.tolist() == [0.0] * 4
    with pytest.raises(BadOption, match="--criterion avss: 1 blocks to remove, but only 0 of 4 that may go"):
        chosen_blocks("avss", found.score, selection_of(4))


def test_a_block_that_does_nothing_goes_first(tiny_model: Callable[..., Any]) -> None:
    """Block 3 of a Llama that adds nothing, in every way to choose one block. The variance of the stream does not
    change there, which says nothing: AVSS need not find it."""
    loaded = tiny_model("llama")
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    statistics = block_statistics(loaded_from(model, loaded.tokenizer, "planted"), TEXTS)
    for criterion in ("block-influence", "angular"):
        found = activation_scores(statistics, criterion, n_resamples=200)
        for selection in (selection_of(4, n=1), selection_of(4, rule="contiguous"), selection_of(4, rule="cumulative")):
            assert 3 in chosen_blocks(criterion, found.score, selection, spans=found.spans)
        assert found.score[2] == pytest.approx(0.0, abs=1e-6) and found.score_high[2] < 1e-6
    avss = activation_scores(statistics, "avss")
    assert avss.score[2] == pytest.approx(avss.score[1], rel=1e-6)


def test_criteria_choose_in_their_own_direction() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert chosen_blocks("avss", scores, selection_of(4)) == (4,)
    assert chosen_blocks("eavss", scores, selection_of(4, n=2)) == (1, 2)
    assert chosen_blocks("hsav", scores, selection_of(4, fraction=0.5, protect="first:1")) == (2, 3)
    assert chosen_blocks("hss", scores, selection_of(4)) == (4,)
    spans = np.full((4, 4), 0.5)
    spans[1, 1] = 0.1
    assert chosen_blocks("angular", scores, selection_of(4, rule="contiguous", n=2), spans=spans) == (2, 3)


def test_options_that_cannot_be_met_are_refused() -> None:
    for options, words in (
        ({"fraction": 1.0}, "--fraction 1: expected more than 0"),
        ({"protect": "middle:1"}, "--protect middle:1: expected first:N"),
        ({"n": 0}, "--n 0: expected at least 1"),
    ):
        with pytest.raises(BadOption, match=words):
            selection_of(4, **options)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match="--criterion random: --n 4: the model has 4 blocks, so none would be left"):
        chosen_blocks("random", np.arange(4.0), selection_of(4, n=4))
