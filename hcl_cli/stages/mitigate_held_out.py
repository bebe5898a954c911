"""Questions never trained on -> what each trained model is worth beside the untouched one: rows of RETAINED."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput
from hcl_cli.stages.contrast_pairs import AnsweredQuestion
from hcl_cli.stages.contrastive_training import Trained, Training
from hcl_cli.stages.mitigate import RANDOM, Parts, Variant

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.quality import Metric
    from hcl_cli.stages.quality_answers import Asking

Floats = npt.NDArray[np.float64]

METRICS = ("hallucination-rate", "creativity", "perplexity", "ece", "brier", "auroc")


@dataclass(frozen=True)
class HeldOut:
    """The held-out questions as a set of questions, for the metrics.

    Attributes:
        frame: QUESTIONS.
        name: of the data.
    """

    frame: pl.DataFrame
    name: str
    identity: str = "held out"

    def load(self) -> pl.DataFrame:
        """The rows."""
        return self.frame


def held_out_questions(scored: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """QUESTIONS rows of some questions of a scored file, in the order of `names`.

    Raises:
        BadInput: none of them has an accepted answer, so that new answers could not be judged.
    """
    import polars as pl

    from hcl_cli.stages.responses import completed_responses

    first = completed_responses(scored).group_by("question_id", maintain_order=True).agg(
        pl.col("question").first(), pl.col("answers").drop_nulls().first()
    )  # fmt: skip
    wanted = pl.DataFrame({"question_id": list(names)}, schema={"question_id": pl.String})
    frame = wanted.join(first, on="question_id", how="left", maintain_order="left").with_columns(
        pl.col("answers").fill_null([])
    )
    if not frame["answers"].list.len().sum():
        raise BadInput(
            f"column answers: none of {frame.height} held-out questions has an accepted answer, so what the trained "
            "model answers could not be judged; add the column answers and score again"
        )
    return frame


@dataclass(eq=False)
class FactualReading:
    """`perplexity` of the factual answers to held-out questions: [question, 2], loss in nats and tokens of all of a
    question's answers together; NaN for a question without one."""

    questions: Sequence[AnsweredQuestion]
    unit: str = "questions"

    @property
    def identity(self) -> dict[str, Any]:
        """Nothing beside what the artifact's inputs say."""
        return {}

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [question, 2]."""
        from hcl_cli.models.text_losses import token_losses

        items = [item for one in self.questions for item in one.factual]
        losses = token_losses(loaded, [item.ids for item in items], [item.first for item in items])
        place = np.repeat(np.arange(len(self.questions)), [len(one.factual) for one in self.questions])
        rows = np.zeros((len(self.questions), 2))
        np.add.at(rows[:, 0], place, [-float(one.logprob.sum()) for one in losses])
        np.add.at(rows[:, 1], place, [len(one.logprob) for one in losses])
        return {"perplexity": np.where(rows[:, 1:] > 0, rows, np.nan)}


@dataclass(eq=False)
class ContrastReading:
    """`contrastive-loss` (InfoNCE) and `cosine-margin` of held-out questions, means over some blocks: [question, 1].

    NaN for a question without a contrast. The answers are as many as an epoch draws, always the same.

    Attributes:
        blocks: whose outputs are compared, 1..L.
        training: its temperature, seed and number of answers.
    """

    questions: Sequence[AnsweredQuestion]
    blocks: tuple[int, ...]
    training: Training
    unit: str = "questions"

    @property
    def identity(self) -> dict[str, Any]:
        """Nothing beside what the artifact's inputs say."""
        return {}

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [question, 1]."""
        import torch

        from hcl_cli.measures.contrastive import cosine_margin, info_nce
        from hcl_cli.models.answer_pass import answer_pass
        from hcl_cli.stages.contrast_pairs import drawn_answers

        losses, margins = (np.full((len(self.questions), 1), np.nan) for _ in range(2))
        for place, one in enumerate(self.questions):
            if not one.has_contrast:
                continue
            drawn = drawn_answers(one, self.training.most_answers, f"judged/{self.training.seed}")
            items = [*drawn.factual, *drawn.hallucinated]
            with torch.inference_mode():
                states = answer_pass(loaded, items, self.blocks, [False] * len(items)).states
                group = torch.zeros(len(items), dtype=torch.int64, device=states.device)
                factual = torch.arange(len(items), device=states.device) < len(drawn.factual)
                losses[place] = float(info_nce(states, group, factual, self.training.temperature).mean())
                margins[place] = float(cosine_margin(states, group, factual).mean())
        return {"contrastive-loss": losses, "cosine-margin": margins}


def held_out_metrics(questions: pl.DataFrame, parts: Parts, asking: Asking, *, dataset: str) -> list[Metric]:
    """What every model is measured by on the held-out questions.

    Sampled answers give `hallucination-rate` and `creativity`, one greedy answer per question `ece`, `brier` and
    `auroc` of its confidence, and the factual answers of the input `perplexity`.

    Args:
        questions: of `held_out_questions`.
        parts: whose `test` questions these are.
        asking: how answers are sampled and judged.
        dataset: the data's name; the rows say that a part of it was held out.
    """
    from hcl_cli.stages.quality import KINDS, Metric
    from hcl_cli.stages.quality_answers import Answering, SampledAnswering

    dataset = f"{dataset}:held-out"
    source: Any = HeldOut(questions, dataset)
    works: dict[str, Any] = {
        "sampled": SampledAnswering(source, None, asking),
        "questions": Answering(source, None, replace(asking, n_samples=1, temperature=0.0)),
        "texts": FactualReading(parts.test),
    }
    return [
        Metric(name, dataset, KINDS[name].higher_is_better, KINDS[name].statistic, works[str(KINDS[name].data)], name)
        for name in METRICS
    ]


def compared(
    loaded: LoadedModel,
    trained: Mapping[Variant, Trained],
    metrics: Sequence[Metric],
    parts: Parts,
    training: Training,
    *,
    model: str,
    n_bootstrap: int,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """RETAINED rows: every metric of every variant before and after, and its lead over random layers.

    The lead is over the first draw of random layers. `contrastive-loss` and `cosine-margin` are those of the blocks
    that the variant trained, which are other quantities for other blocks: they have no lead.

    Args:
        loaded: the untouched model.
        trained: of `trainings`.
        metrics: of `held_out_metrics`.
        parts: whose test questions are measured.
        training: settings that all variants share.
        model: name for the rows.
        n_bootstrap: resamples behind the intervals.
        progress: told (passes done, passes).
    """
    import polars as pl

    from hcl_cli.models.adapters import merged
    from hcl_cli.stages.quality import Metric
    from hcl_cli.stages.quality_values import measured, measured_variants
    from hcl_cli.stages.retained import retained_rows

    before = ""
    openings: dict[str, Any] = {before: lambda: nullcontext(loaded)}
    openings |= {one.label: (lambda own=found.adapter: merged(loaded, own)) for one, found in trained.items()}
    values = measured_variants(metrics, openings, progress=progress)
    drawn = [one for one in trained if one.name == RANDOM]
    name = drawn[0].label if len(drawn) > 1 else RANDOM
    frames = []
    for variant, found in trained.items():
        options: dict[str, Any] = {
            "model": model, "variant": variant.name, "seed": variant.seed, "blocks": variant.blocks,
            "n_bootstrap": n_bootstrap, "seed_of_intervals": training.seed,
        }  # fmt: skip
        over = (name, values[drawn[0].label]) if drawn and variant.name != RANDOM else None
        frames.append(retained_rows(values[before], values[variant.label], lead_over=over, **options))
        reading, dataset = ContrastReading(parts.test, variant.blocks, training), metrics[0].dataset
        own = [
            Metric("contrastive-loss", dataset, False, "count", reading, "contrastive-loss"),
            Metric("cosine-margin", dataset, True, "signed", reading, "cosine-margin"),
        ]
        with merged(loaded, found.adapter):
            after = measured(own, loaded)
        frames.append(retained_rows(measured(own, loaded), after, **options))
    return pl.concat(frames)
