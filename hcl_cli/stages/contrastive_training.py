"""Contrastive fine-tuning of some blocks: factual answers together, hallucinated ones away, the likelihood kept. Ours.

    loss = mean over questions of InfoNCE (over the trained blocks, of mean-pooled answer states)
         + weight * mean over questions of the cross-entropy of factual answers

The mitigation of EAVSS (arXiv 2411.10069) could not be read; this is our working definition of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.models.adapters import Adapter, Lora
from hcl_cli.stages.contrast_pairs import AnsweredQuestion, drawn_answers, hashed

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.hidden_items import Item
    from hcl_cli.models.load import LoadedModel

BATCH_TOKENS = 1 << 12  # of one forward; a step adds several up, so that it changes nothing but memory and speed
_LARGEST_NORM = 1.0


@dataclass(frozen=True)
class Training:
    """How adapters are trained.

    Attributes:
        epochs: at most; >= 1.
        patience: epochs without a lower validation loss after which training ends.
        learning_rate: of AdamW, > 0; constant.
        temperature: tau of InfoNCE, > 0.
        contrast_weight: of InfoNCE; 0 leaves plain fine-tuning on factual answers.
        likelihood_weight: lambda, of the cross-entropy.
        batch_questions: questions of one step.
        most_answers: factual and hallucinated answers of a question that an epoch draws, each.
        lora: size of the adapters.
        seed: of their first values, the order of questions, and the answers drawn.
        batch_tokens: see BATCH_TOKENS.
    """

    epochs: int = 6
    patience: int = 2
    learning_rate: float = 2e-3
    temperature: float = 0.1
    contrast_weight: float = 1.0
    likelihood_weight: float = 1.0
    batch_questions: int = 16
    most_answers: int = 4
    lora: Lora = field(default_factory=Lora)
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True)
class Epoch:
    """The losses after some epochs; epoch 0 is the untouched model.

    Attributes:
        number: 0 and up.
        train: mean loss of the epoch's steps; null for epoch 0.
        contrast, likelihood, validation: on the validation questions: InfoNCE (null where none has a contrast),
            cross-entropy of factual answers, and the loss made of both; nats.
    """

    number: int
    train: float | None
    contrast: float | None
    likelihood: float
    validation: float


class OnEpoch(Protocol):
    """Told of every epoch as it ends."""

    def __call__(self, epoch: Epoch) -> None: ...


@dataclass(frozen=True)
class Trained:
    """Adapters with the lowest validation loss, and how they came about.

    Attributes:
        adapter: of the best epoch.
        epochs: all epochs, the untouched model first.
        best: number of the best one; 0 means that training never helped, and the adapters change nothing.
    """

    adapter: Adapter
    epochs: tuple[Epoch, ...]
    best: int


def trained_adapter(
    loaded: LoadedModel,
    train: Sequence[AnsweredQuestion],
    validation: Sequence[AnsweredQuestion],
    blocks: Sequence[int],
    training: Training,
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train adapters on some blocks, keep those of the epoch with the lowest validation loss. The model is unchanged.

    Questions without a contrast teach by the likelihood of their factual answers alone; those without a factual answer
    teach nothing. Dropout is off. The same arguments give the same weights on a CPU; on a GPU sums may be added in
    another order from run to run.

    Args:
        loaded: the model.
        train, validation: questions with answers; no question in both.
        blocks: 1..L, whose linear layers get adapters and whose outputs are contrasted.
        training: settings.
        on_epoch: told after every epoch, and before the first.
    Raises:
        BadInput: no question with a factual answer in one of the two, or a training that ran away.
        EnvironmentRefused: not enough memory.
    """
    import torch

    from hcl_cli.models.adapters import adapted

    learned = {name: [one for one in rows if one.factual] for name, rows in _named(train, validation)}
    for name, rows in learned.items():
        if not rows:
            raise BadInput(f"none of the {name} questions has a correct answer; sample more questions or answers")
    step = _Step(loaded, tuple(sorted(blocks)), training)
    epochs: list[Epoch] = []

    def note(epoch: Epoch) -> None:
        epochs.append(epoch)
        if on_epoch is not None:
            on_epoch(epoch)
        if not math.isfinite(epoch.validation):
            raise BadInput(
                f"--learning-rate {training.learning_rate:g}: after epoch {epoch.number} the loss is no longer a "
                "finite number; use a lower one, or --dtype float32"
            )

    # Outside of any inference mode the caller may be in: its tensors cannot be differentiated.
    with (
        _memory(loaded, training),
        torch.inference_mode(False),
        torch.enable_grad(),
        adapted(loaded, blocks, training.lora, training.seed) as adapting,
    ):
        optimiser = torch.optim.AdamW(adapting.parameters, lr=training.learning_rate)
        best, kept = 0, adapting.taken()
        note(step.judged(learned["validation"], 0, None))
        for number in range(1, training.epochs + 1):
            losses = []
            for batch in _batches(learned["train"], number, training):
                optimiser.zero_grad(set_to_none=True)
                losses.append(step.backward(batch, learned["train"]))
                torch.nn.utils.clip_grad_norm_(adapting.parameters, _LARGEST_NORM)
                optimiser.step()
            note(step.judged(learned["validation"], number, sum(losses) / len(losses)))
            if epochs[-1].validation < epochs[best].validation:
                best, kept = number, adapting.taken()
            elif number - best >= training.patience:
                break
    return Trained(kept, tuple(epochs), best)


@contextmanager
def _memory(loaded: LoadedModel, training: Training) -> Iterator[None]:
    """Say in one line that memory ran out."""
    from hcl_cli.models.memory import is_out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise EnvironmentRefused(
            f"not enough memory on {loaded.device} to train with --batch-tokens {training.batch_tokens} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); use fewer, a smaller "
            "--most-answers, or --dtype bfloat16"
        ) from error


def _named(
    train: Sequence[AnsweredQuestion], validation: Sequence[AnsweredQuestion]
) -> tuple[tuple[str, Sequence[AnsweredQuestion]], ...]:
    return ("train", train), ("validation", validation)


def _batches(questions: Sequence[AnsweredQuestion], epoch: int, training: Training) -> Iterator[list[AnsweredQuestion]]:
    """The questions of an epoch, each with the answers drawn for it, in an order drawn for it."""
    address = f"epoch/{training.seed}/{epoch}"
    order = sorted(questions, key=lambda one: hashed(f"{address}/{one.question_id}"))
    drawn = [drawn_answers(one, training.most_answers, address) for one in order]
    for start in range(0, len(drawn), training.batch_questions):
        yield drawn[start : start + training.batch_questions]


@dataclass(frozen=True)
class _Step:
    loaded: LoadedModel
    blocks: tuple[int, ...]
    training: Training

    def backward(self, batch: Sequence[AnsweredQuestion], of: Sequence[AnsweredQuestion]) -> float:
        """Add a batch's gradient to the parameters; returns its loss.

        Both means are over all training questions, of which the batch is a sample: a batch that happens to hold few
        contrasts weighs less, and the batches of an epoch add up to its loss.
        """
        contrast_share = sum(one.has_contrast for one in of) / len(of)
        total = 0.0
        for part in _parts(batch, self.training.batch_tokens):
            contrast, likelihood = self.losses(part)
            loss = self.training.likelihood_weight * likelihood.sum() / len(batch)
            if contrast_share:
                loss = loss + self.training.contrast_weight * contrast.sum() / (len(batch) * contrast_share)
            loss.backward()
            total += float(loss.detach())
        return total

    def judged(self, questions: Sequence[AnsweredQuestion], number: int, train: float | None) -> Epoch:
        """The losses of the validation questions, always with the same answers."""
        import torch

        drawn = [drawn_answers(one, self.training.most_answers, f"judged/{self.training.seed}") for one in questions]
        n_contrast = sum(one.has_contrast for one in drawn)
        sums = [0.0, 0.0]
        with torch.no_grad():
            for part in _parts(drawn, self.training.batch_tokens):
                for place, losses in enumerate(self.losses(part)):
                    sums[place] += float(losses.double().sum())
        contrast = sums[0] / n_contrast if n_contrast else None
        likelihood = sums[1] / len(drawn)
        whole = self.training.likelihood_weight * likelihood + self.training.contrast_weight * (contrast or 0.0)
        return Epoch(number, train, contrast, likelihood, whole)

    def losses(self, questions: Sequence[AnsweredQuestion]) -> tuple[Tensor, Tensor]:
        """InfoNCE (mean over blocks) and cross-entropy (mean over factual answers) of each question: [question]."""
        import torch

        from hcl_cli.measures.contrastive import info_nce
        from hcl_cli.models.answer_pass import answer_pass

        answers, group, factual = _flat(questions)
        read = answer_pass(self.loaded, answers, self.blocks, factual)
        groups, right = (torch.tensor(one, device=self.loaded.device) for one in (group, factual))
        contrast = info_nce(read.states, groups, right, self.training.temperature).mean(0)
        sums = read.loss.new_zeros(len(questions)).index_add(0, groups, read.loss)
        counts = torch.bincount(groups[right], minlength=len(questions))
        return contrast, sums / counts.clamp(min=1)


def _flat(questions: Sequence[AnsweredQuestion]) -> tuple[list[Item], list[int], list[bool]]:
    """All answers of some questions, whose each is, and whether it is factual. Hallucinated ones that nothing is
    contrasted with are not run."""
    answers: list[Item] = []
    group: list[int] = []
    factual: list[bool] = []
    for place, one in enumerate(questions):
        wrong = one.hallucinated if one.has_contrast else ()
        answers += [*one.factual, *wrong]
        group += [place] * (len(one.factual) + len(wrong))
        factual += [True] * len(one.factual) + [False] * len(wrong)
    return answers, group, factual


def _parts(questions: Sequence[AnsweredQuestion], batch_tokens: int) -> Iterator[list[AnsweredQuestion]]:
    """Neighbours that run together: at most `batch_tokens` with padding, or one question."""
    part: list[AnsweredQuestion] = []
    longest, rows = 0, 0
    for one in questions:
        answers = _flat([one])[0]
        width = max(longest, *(len(item.ids) for item in answers))
        if part and width * (rows + len(answers)) > batch_tokens:
            yield part
            part, rows, width = [], 0, max(len(item.ids) for item in answers)
        part.append(one)
        longest, rows = width, rows + len(answers)
    if part:
        yield part
