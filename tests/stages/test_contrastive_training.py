"""Training on a planted case raises the margin, stays in its blocks, and is the same twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.measures.contrastive import cosine_margin
from hcl_cli.models.adapters import Lora, linear_names, merged
from hcl_cli.models.answer_pass import answer_pass
from hcl_cli.models.hidden_items import Item
from hcl_cli.stages.contrast_pairs import AnsweredQuestion
from hcl_cli.stages.contrastive_training import Training, trained_adapter

TRAINING = Training(epochs=4, learning_rate=5e-3, batch_questions=4, lora=Lora(rank=4), seed=1)
FACTUAL, WRONG = (40, 50, 60), (45, 55, 65)  # tokens that answers end with


def question(number: int) -> AnsweredQuestion:
    """Whatever is asked, answers that end with one of FACTUAL are right and those with one of WRONG are not."""
    generator = torch.Generator().manual_seed(number)
    prompt = tuple(torch.randint(3, 39, (6,), generator=generator).tolist())

    def items(kind: str, tokens: tuple[int, ...]) -> tuple[Item, ...]:
        return tuple(Item(f"{number}{kind}{token}", (*prompt, token, token + 1, 1), 6, 8) for token in tokens)

    return AnsweredQuestion(f"q{number}", items("f", FACTUAL), items("h", WRONG))


TRAIN, VALIDATION = [question(number) for number in range(12)], [question(number) for number in range(12, 16)]


def margin(loaded: Any, questions: list[AnsweredQuestion], block: int) -> float:
    answers = [item for one in questions for item in (*one.factual, *one.hallucinated)]
    group = torch.arange(len(questions)).repeat_interleave(6)
    factual = torch.tensor([True] * 3 + [False] * 3).repeat(len(questions))
    with torch.inference_mode():
        states = answer_pass(loaded, answers, (block,), [False] * len(answers)).states
    return float(cosine_margin(states[0], group, factual).mean())


def test_the_margin_grows_on_questions_never_seen_and_other_blocks_keep_every_bit(
    tiny_model: Callable[..., Any],
) -> None:
    """Planted: right and wrong answers can be told apart by their tokens. After training blocks 2 and 3 both losses are
    lower on other questions, the cosine margin there is larger than before and than after training without the
    contrastive term, and only the linear layers of blocks 2 and 3 differ."""
    loaded = tiny_model("llama")
    before = {name: weight.clone() for name, weight in loaded.model.state_dict().items()}
    training = replace(TRAINING, epochs=10, likelihood_weight=0.03)
    trained = trained_adapter(loaded, TRAIN, VALIDATION, (2, 3), training)
    assert trained.best == 10 and [epoch.number for epoch in trained.epochs] == list(range(11))
    first, last = trained.epochs[0], trained.epochs[-1]
    assert first.contrast is not None and last.contrast is not None
    assert last.contrast < 0.8 * first.contrast and last.likelihood < 0.9 * first.likelihood
    assert last.validation == pytest.approx(last.contrast + 0.03 * last.likelihood)
    old = margin(loaded, VALIDATION, 3)
    plain = trained_adapter(loaded, TRAIN, VALIDATION, (2, 3), replace(training, contrast_weight=0.0))
    with merged(loaded, plain.adapter):
        fine_tuned = margin(loaded, VALIDATION, 3)
    with merged(loaded, trained.adapter):
        new = margin(loaded, VALIDATION, 3)
        now = loaded.model.state_dict()
        different = {name for name, weight in now.items() if not torch.equal(weight, before[name])}
    assert new > max(old, fine_tuned) + 0.1
    assert different == {f"{name}.weight" for name in linear_names(loaded, (2, 3))}
    assert all(torch.equal(weight, before[name]) for name, weight in loaded.model.state_dict().items())


def test_the_same_seed_gives_the_same_weights_and_memory_does_not_matter(tiny_model: Callable[..., Any]) -> None:
    """Twice the same bits; the same up to rounding when each question runs alone; other weights from another seed."""
    loaded = tiny_model("gpt2")
    short = replace(TRAINING, epochs=1)

    def weights(training: Training, train: list[AnsweredQuestion] = TRAIN) -> dict[str, Any]:
        return dict(trained_adapter(loaded, train, VALIDATION, (4,), training).adapter.weights)

    one, two, other = weights(short), weights(short), weights(replace(short, seed=2))
    alone, turned = weights(replace(short, batch_tokens=1)), weights(short, TRAIN[::-1])
    assert all(torch.equal(weight, two[name]) for name, weight in one.items())
    assert all(torch.equal(weight, turned[name]) for name, weight in one.items())
    assert not any(torch.equal(weight, other[name]) for name, weight in one.items())
    for name, weight in one.items():
        torch.testing.assert_close(alone[name], weight, rtol=1e-3, atol=1e-4)


def test_training_that_never_helps_leaves_the_model_alone(tiny_model: Callable[..., Any]) -> None:
    """Validation answers judged the other way round: every epoch makes them worse, training stops after `patience` of
    them, and the adapters kept are those of epoch 0, which change nothing."""
    loaded = tiny_model("llama")
    turned = [replace(one, factual=one.hallucinated, hallucinated=one.factual) for one in VALIDATION]
    trained = trained_adapter(loaded, TRAIN, turned, (2, 3), replace(TRAINING, likelihood_weight=0.0))
    assert trained.best == 0 and len(trained.epochs) == 3
    assert not any(weight.any() for name, weight in trained.adapter.weights.items() if "lora_B" in name)


def test_questions_without_a_contrast_teach_by_likelihood_alone(tiny_model: Callable[..., Any]) -> None:
    """One right answer has nothing to be near to. The contrast is null, not 0, where no question has one; and with the
    contrastive term off, wrong answers do not change a weight."""
    loaded = tiny_model("llama")
    lone = [replace(one, factual=one.factual[:1]) for one in TRAIN]
    short = replace(TRAINING, epochs=1)
    trained = trained_adapter(loaded, lone, [replace(one, hallucinated=()) for one in VALIDATION], (2,), short)
    assert [epoch.contrast for epoch in trained.epochs] == [None, None]
    assert trained.epochs[1].likelihood < trained.epochs[0].likelihood
    plain = replace(short, contrast_weight=0.0)
    without = [replace(one, hallucinated=()) for one in TRAIN]
    one, two = (trained_adapter(loaded, rows, VALIDATION, (2,), plain).adapter.weights for rows in (TRAIN, without))
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_other_dtypes_train_too(tiny_model: Callable[..., Any], dtype: str) -> None:
    """The adapters of a bfloat16 model are float32, so that small steps are not lost; the loss falls."""
    loaded = tiny_model("llama", dtype)
    trained = trained_adapter(loaded, TRAIN, VALIDATION, (2, 3), TRAINING)
    assert trained.epochs[trained.best].validation < trained.epochs[0].validation - 1
    assert {weight.dtype for weight in trained.adapter.weights.values()} == {
        torch.float32 if dtype == "bfloat16" else torch.float64
    }


def test_too_little_memory_is_one_line(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the model is given back."""
    from hcl_cli.models import answer_pass as module

    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    loaded = tiny_model("llama")
    monkeypatch.setattr(module, "answer_pass", full)
    with pytest.raises(EnvironmentRefused, match="to train with --batch-tokens 4096 .*--most-answers") as refused:
        trained_adapter(loaded, TRAIN, VALIDATION, (2,), TRAINING)
    assert "\n" not in str(refused.value)
    assert not any("lora" in name for name, _ in loaded.model.named_modules())


def test_what_cannot_be_trained_is_refused(tiny_model: Callable[..., Any]) -> None:
    """Without a right answer on either side; with a learning rate that leaves the numbers."""
    loaded = tiny_model("llama")
    wrong = [replace(one, factual=()) for one in TRAIN]
    with pytest.raises(BadInput, match="none of the train questions has a correct answer"):
        trained_adapter(loaded, wrong, VALIDATION, (2,), TRAINING)
    with pytest.raises(BadInput, match="none of the validation questions"):
        trained_adapter(loaded, TRAIN, wrong, (2,), TRAINING)
    with pytest.raises(BadInput, match=r"--learning-rate 1e\+30: after epoch 1 .* use a lower one"):
        trained_adapter(loaded, TRAIN, VALIDATION, (2,), replace(TRAINING, learning_rate=1e30))
