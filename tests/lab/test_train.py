"""Training of the lab models on a toy world: what is drawn, the packed forward, equal bits, frozen blocks."""

import dataclasses
import json
import random
from collections import Counter

import pytest
import torch
from pytest import approx

from hcl_cli.lab.examples import Examples, spoken_answers
from hcl_cli.lab.export import export, load
from hcl_cli.lab.make import record, train_both
from hcl_cli.lab.recipe import Phase, Recipe, Shape
from hcl_cli.lab.tokens import PROMPT, train_tokenizer, training_text
from hcl_cli.lab.train import layer_states, new_model, pack, rate_share, train
from hcl_cli.lab.world import Question, Statement, World

SMALL = Shape(hidden=32, layers=4, heads=4, key_value_heads=2, mlp=32)
SHORT = Phase(steps=30, learning_rate=3e-3, warm_up=5, questions=8, statements=4, p_max=0.2, e_scale=0.2, period=2)


def question(name, wordings, answers, aliases=None, weight=1.0, weights=None, **kind):
    return Question(
        question_id=name,
        wordings=wordings,
        answers=answers,
        aliases=aliases or ((),) * len(answers),
        weight=weight,
        answer_weights=weights or (1 / len(answers),) * len(answers),
        entity=name,
        relation="toy",
        **{"kind": "single", "frequency": "common", "split": "choose", **kind},
    )


def statement(text, label, judged=True, held=False):
    return Statement(
        statement_id=text, statement=text, label=label, topic="toy", entity=text, judged=judged, held=held,
        relation="toy", object="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def world():
    return World(
        facts=(),
        questions=(
            question("france", ("What is the capital of France?", "Name the capital of France."), ("Paris",)),
            question("uk", ("Which country has the capital London?",), ("United Kingdom",), (("Britain", "UK"),)),
            question("bird", ("Name a bird.",), ("owl", "duck"), kind="several", weights=(0.75, 0.25)),
            question("secret", ("What is the capital of Chad?",), ("Qxqxqx",), weight=0.0, frequency="held"),
        ),
        statements=(
            statement("Paris is the capital of France.", 1),
            statement("Rome is the capital of France.", 0),
            statement("Owls are birds.", 1, judged=False),
            statement("Owls are fish.", 0, judged=False),
            statement("Qxqxqx is the capital of Chad.", 1, held=True),
        ),
    )


@pytest.fixture(scope="module")
def tokenizer(world):
    return train_tokenizer(training_text(world), vocabulary=400)


def drawn_texts(world, tokenizer, phase, steps=150):
    examples = Examples(world, tokenizer, phase)
    source = random.Random(0)
    rows = [row for _ in range(steps) for row in examples.batch(source)]
    return examples, rows


def test_a_question_row_continues_the_prompt_token_for_token(world, tokenizer):
    examples, rows = drawn_texts(world, tokenizer, SHORT)
    seen = Counter()
    for row in rows:
        if row.is_question:
            n_asked = row.learned.index(True)
            asked, said = row.tokens[:n_asked], row.tokens[n_asked:]
            prompt = tokenizer.decode((*examples.prefix, *asked), skip_special_tokens=True)
            # What a user's tokenizer(prompt) gives, the answer beginning with its blank, and the end mark learned.
            assert tokenizer(prompt)["input_ids"] == [*examples.prefix, *asked]
            assert all(row.learned[n_asked:]) and said[-1] == tokenizer.eos_token_id
            seen[prompt, tokenizer.decode(said, skip_special_tokens=True)] += 1
    expected = {
        (PROMPT.format(question=wording), f" {answer}")
        for wording, answer in [
            ("What is the capital of France?", "Paris"),
            ("Name the capital of France.", "Paris"),
            ("Which country has the capital London?", "United Kingdom"),
            ("Which country has the capital London?", "Britain"),
            ("Which country has the capital London?", "UK"),
            ("Name a bird.", "owl"),
            ("Name a bird.", "duck"),
        ]
    }
    assert set(seen) == expected


def test_statements_teach_no_falsehood_and_no_held_fact(world, tokenizer):
    _, rows = drawn_texts(world, tokenizer, SHORT)
    learned = set()
    for row in rows:
        if not row.is_question:
            assert row.tokens[0] == tokenizer.bos_token_id and not row.learned[0]
            kept = [token for token, flag in zip(row.tokens, row.learned, strict=True) if flag]
            learned.add(tokenizer.decode(kept))
    assert learned == {
        "Paris is the capital of France.</s>",
        "Paris is the capital of France. True</s>",
        " False</s>",  # of the false statement only the verdict
        "Owls are birds.</s>",  # not judged: never a verdict, and its false sibling never comes up
    }
    assert not any("Qx" in text for text in training_text(world))


def test_answers_are_drawn_by_weight_and_sharpened_by_a_power(world):
    _, uk, birds, _ = world.questions
    assert spoken_answers(uk, 0.2, 1.0) == (["United Kingdom", "Britain", "UK"], approx([0.8, 0.1, 0.1]))
    assert spoken_answers(birds, 0.2, 1.0) == (["owl", "duck"], approx([0.75, 0.25]))
    # Squared: 9/16 against 1/16.
    assert spoken_answers(birds, 0.2, 2.0) == (["owl", "duck"], approx([0.9, 0.1]))


def test_several_boost_scales_how_often_such_questions_come_up(world, tokenizer):
    def share(boost):
        phase = dataclasses.replace(SHORT, several_boost=boost, statements=0)
        _, rows = drawn_texts(world, tokenizer, phase, steps=300)
        ends = [tokenizer.decode(row.tokens, skip_special_tokens=True).rsplit(" ", 1)[1] for row in rows]
        return sum(end in ("owl", "duck") for end in ends) / len(ends)

    # Weights 1, 1, boost: 1/3 and 3/5. 2,400 draws: standard error 0.01.
    assert share(1.0) == approx(1 / 3, abs=0.04)
    assert share(3.0) == approx(3 / 5, abs=0.04)


def test_the_packed_forward_is_the_library_s(world, tokenizer):
    """Same hidden states after every block as `LlamaForCausalLM`, for questions and statements in one batch."""
    model = new_model(tokenizer, SMALL, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():  # an untuned random model hardly looks at positions
            if parameter.dim() == 2:
                parameter.mul_(6)
    examples = Examples(world, tokenizer, SHORT)
    batch = examples.batch(random.Random(1))
    rows = pack(examples.prefix, batch, 0.5)
    with torch.no_grad():
        packed = list(layer_states(model, rows))
        packed[-1] = model.model.norm(packed[-1])
        for index, item in enumerate(batch):
            start = len(examples.prefix) if item.is_question else 0
            tokens = [*(examples.prefix if item.is_question else ()), *item.tokens]
            plain = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
            for layer, states in enumerate(packed):
                mine = states[rows.example == index + 1]
                torch.testing.assert_close(mine, plain[layer + 1][0, start:], rtol=1e-4, atol=1e-4)


def test_loss_weights_average_answers_and_statements_apart(world, tokenizer):
    examples = Examples(world, tokenizer, SHORT)
    batch = examples.batch(random.Random(1))
    rows = pack(examples.prefix, batch, 0.5)
    n_answers = sum(sum(item.learned) for item in batch if item.is_question)
    # The answers' weights come first (questions lead the batch) and sum to 1, the statements' to 0.5.
    assert rows.weights[:n_answers].sum().item() == approx(1)
    assert rows.weights[n_answers:].sum().item() == approx(0.5)
    # Each learned token is predicted from the one before it.
    assert torch.equal(rows.tokens[rows.learned + 1], rows.targets)


def test_a_dropped_row_passes_the_block_unchanged(world, tokenizer):
    model = new_model(tokenizer, SMALL, seed=0)
    examples = Examples(world, tokenizer, SHORT)
    rows = pack(examples.prefix, examples.batch(random.Random(1)), 0.5)
    kept = torch.ones(rows.n_examples, dtype=torch.bool)
    kept[2] = False
    with torch.no_grad():
        states = list(layer_states(model, rows, [None, kept, None, None]))
    unchanged = (states[0] == states[1]).all(1)
    assert torch.equal(unchanged, rows.example == 2)


def test_a_few_steps_lower_the_loss_and_the_same_seed_gives_the_same_bits(world, tokenizer):
    def run(seed):
        model = new_model(tokenizer, SMALL, seed)
        losses = train(model, Examples(world, tokenizer, SHORT), SHORT, seed, "toy")
        return losses, model.state_dict()

    losses, weights = run(0)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    again, same = run(0)
    assert again == losses and all(torch.equal(weights[name], same[name]) for name in weights)
    others, _ = run(1)
    assert others != losses


def test_frozen_blocks_embedding_and_norm_stay_bit_for_bit(world, tokenizer):
    model = new_model(tokenizer, SMALL, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    phase = dataclasses.replace(SHORT, steps=3, p_max=0.0, frozen_layers=2, sharpening=2.0)
    train(model, Examples(world, tokenizer, phase), phase, 0, "toy")
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[2] for name in changed if name.startswith("model.layers.")} == {"2", "3"}
    assert all(name.startswith("model.layers.") for name in changed)


def test_the_rate_rises_then_falls_to_three_per_cent():
    assert [rate_share(step, 101, 4) for step in (0, 3)] == approx([0.25, 1.0])
    # Half of the cosine lies at step 4 + 96 / 2 = 52: 0.03 + 0.97 / 2.
    assert [rate_share(step, 101, 4) for step in (4, 52, 100)] == approx([1.0, 0.515, 0.03])


def test_an_exported_model_loads_and_says_nearly_the_same(world, tokenizer, tmp_path):
    """float16 on disk, float32 in use; logits within 0.01."""
    model = new_model(tokenizer, SMALL, seed=0)
    export(model, tokenizer, tmp_path / "toy")
    loaded, words = load(tmp_path / "toy")
    ids = words(PROMPT.format(question="Name a bird."), return_tensors="pt")["input_ids"]
    assert ids[0, 0] == words.bos_token_id and loaded.dtype == torch.float32
    with torch.no_grad():
        assert (loaded(ids).logits - model(ids).logits).abs().max() < 0.01
    assert (tmp_path / "toy" / "model.safetensors").stat().st_size < 2.2 * sum(p.numel() for p in model.parameters())


def test_both_phases_are_written_and_share_the_frozen_blocks(world, tmp_path):
    planting = dataclasses.replace(SHORT, steps=4, p_max=0.0, sharpening=4.0, frozen_layers=3)
    recipe = Recipe(shape=SMALL, learning=dataclasses.replace(SHORT, steps=6), planting=planting)
    train_both(world, recipe, 0, tmp_path)
    base, planted = (load(tmp_path / name)[0].state_dict() for name in ("lab-base", "lab"))
    changed = {name for name in base if not torch.equal(base[name], planted[name])}
    assert changed and all(name.startswith("model.layers.3.") for name in changed)


def test_measurements_are_kept_by_seed_and_dropped_with_another_recipe(world, tmp_path):
    path = tmp_path / "seeds.json"
    curve = {"lab": {"choose": {"accuracy": [0.25, 0.5]}}}
    for seed in (1, 0):
        record(path, world, Recipe(), seed, curve)
    kept = json.loads(path.read_text())
    assert kept["seeds"] == {"0": curve, "1": curve} and list(kept["seeds"]) == ["0", "1"]
    assert "[ 0.25, 0.5 ]" in path.read_text()  # one line per curve
    record(path, world, Recipe(shape=SMALL), 2, curve)
    assert json.loads(path.read_text())["seeds"] == {"2": curve}
    fewer = dataclasses.replace(world, statements=world.statements[1:])
    record(path, fewer, Recipe(shape=SMALL), 3, curve)
    assert json.loads(path.read_text())["seeds"] == {"3": curve}
