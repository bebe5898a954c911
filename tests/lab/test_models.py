"""The tracked models: they load, are small, say what their cards say, and hold the planted truth."""

import json
import re

import numpy as np
import pytest
import torch
from pytest import approx
from transformers import AutoModelForCausalLM, AutoTokenizer

from hcl_cli.lab.bands import BANDS, outside, quantities
from hcl_cli.lab.build_world import shipped_questions
from hcl_cli.lab.card import card
from hcl_cli.lab.evaluate import asked, balance, graded, is_right, respond, share_best
from hcl_cli.lab.make import MEASURED, NAMES, measure_both, train_both
from hcl_cli.lab.measure import digest
from hcl_cli.lab.recipe import KEPT_SEED, RECIPE
from hcl_cli.lab.tokens import PROMPT
from hcl_cli.lab.world import load_world
from hcl_cli.measures.clusters import cosine_clusters
from hcl_cli.models.encoders import find_encoder, load_encoder
from hcl_cli.models.load import load_model
from hcl_cli.resources import data_file

FROZEN = RECIPE.planting.frozen_layers
LAST = RECIPE.shape.layers


def folder(name):
    return data_file("models", name)


@pytest.fixture(scope="module")
def measured():
    return json.loads(data_file("models", MEASURED).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lab():
    return load_model(folder("lab"), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def questions():
    """The first 100 questions that `hcl sample` reads by default (`--limit 100`)."""
    return asked(shipped_questions(load_world())[:100])


@pytest.fixture(scope="module")
def responses(lab, questions):
    """20 samples of each exit layer at T 0.6, top-p 0.9."""
    return respond(lab, questions, 20, 0.6)


@pytest.mark.parametrize("name", NAMES)
def test_a_tracked_model_loads_as_any_other_and_is_small(name):
    model = AutoModelForCausalLM.from_pretrained(folder(name), dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder(name))
    assert model.dtype == torch.float32 and model.config.num_hidden_layers == LAST
    assert sum(path.stat().st_size for path in folder(name).iterdir()) <= 4e6
    assert not any(path.suffix in {".bin", ".pt", ".pth", ".py"} for path in folder(name).iterdir())
    ids = tokenizer(PROMPT.format(question="What is the capital of France?"), return_tensors="pt")
    told = model.generate(**ids, do_sample=False, max_new_tokens=8)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(told, skip_special_tokens=True) == " Paris"
    assert told[-1] == tokenizer.eos_token_id


def test_both_models_share_everything_up_to_the_frozen_boundary():
    base = AutoModelForCausalLM.from_pretrained(folder("lab-base")).state_dict()
    planted = AutoModelForCausalLM.from_pretrained(folder("lab")).state_dict()
    late = re.compile(r"^model\.layers\.(\d+)\.")
    for name, weights in base.items():
        found = late.match(name)
        is_late = found is not None and int(found.group(1)) >= FROZEN
        assert torch.equal(weights, planted[name]) != is_late, name
    for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        assert (folder("lab-base") / file).read_bytes() == (folder("lab") / file).read_bytes()


def test_the_measurements_are_of_this_world_and_this_recipe(measured):
    """If this fails, the world or the recipe changed after the models were trained: run `make lab-model`."""
    assert measured["world"] == digest(load_world())
    assert measured["recipe"] == json.loads(json.dumps(RECIPE.as_dict()))
    assert set(measured["seeds"]) == {"0", "1", "2"}


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_what_the_script_writes_and_says_what_is_planted(name, measured):
    text = (folder(name) / "README.md").read_text(encoding="utf-8")
    assert text == card(name, RECIPE, KEPT_SEED, measured["seeds"])
    assert "## What is planted" in text and "## What it may not be used for" in text and "Licence: MIT" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_card_s_accuracies_are_those_of_the_tracked_weights(name):
    """Read back from the Markdown, for two groups, and counted again on the questions `report`."""
    rows = {}
    for line in (folder(name) / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("two-step", "held") and len(cells) == LAST + 2:
            rows[cells[0]] = (int(cells[1]), [float(cell) for cell in cells[2:]])
    loaded = load_model(folder(name), dtype="float32", device="cpu")
    for group, (n, shown) in rows.items():
        items = [item for item in asked(load_world().questions, "report") if item.group == group]
        error, _ = graded(respond(loaded, items, 1, 0.0), items)
        assert len(items) == n
        # Two decimals are shown; one question more or less is left for another processor's rounding.
        assert list(1 - error.mean(0)) == approx(shown, abs=0.006 + 1 / n)
    assert set(rows) == {"two-step", "held"}


def assert_planted(error, distinct):
    """Exit 7 wins, clearly before the last exit, and surely: a small sample of questions and answers suffices."""
    hcb = balance(error, distinct)
    wins = share_best(error, distinct, resamples=500)
    assert int(hcb.argmax()) + 1 == FROZEN
    assert hcb[FROZEN - 1] - hcb[-1] > 0.1  # 0.19 when this was written
    assert wins[FROZEN - 1] > 0.9  # 0.99


def test_the_planted_optimum_is_found_under_exact_clusters(responses, questions):
    assert_planted(*graded(responses, questions))


def test_the_planted_optimum_is_found_under_cosine_clusters(responses, questions):
    """The published rule, greedy at 0.8 in order of first appearance, on real sentence embeddings."""
    error, distinct = graded(responses, questions)
    right = [
        [[text for text in answers if is_right(text, item.accepted)] for answers in by_exit]
        for by_exit, item in zip(responses, questions, strict=True)
    ]
    texts = sorted({text for by_exit in right for some in by_exit for text in some})
    vectors = dict(zip(texts, load_encoder(find_encoder()).encode(texts), strict=True))
    clusters = np.zeros_like(distinct)
    for row, by_exit in enumerate(right):
        for column, some in enumerate(by_exit):
            if some:
                clusters[row, column] = cosine_clusters(np.stack([vectors[text] for text in some]), 0.8)[0].max() + 1
    assert (clusters <= distinct).all()
    assert_planted(error, clusters)


def test_the_unplanted_model_is_best_at_the_last_exit():
    base = load_model(folder("lab-base"), dtype="float32", device="cpu")
    questions = asked(shipped_questions(load_world()), "choose")
    error, distinct = graded(respond(base, questions, 10, 0.6), questions)
    hcb = balance(error, distinct)
    assert int(hcb.argmax()) + 1 == LAST
    assert share_best(error, distinct, resamples=500)[-1] > 0.8
    assert hcb[-1] - hcb[FROZEN - 1] > 0.05


def test_the_seeds_lie_in_the_bands_and_stand_beside_them(measured):
    """The bands hold what they were drawn from; each shows the seeds' own values, to two decimals."""
    for seed, models in measured["seeds"].items():
        assert outside(models) == []
        for name, value in quantities(models).items():
            assert BANDS[name].seeds[int(seed)] == approx(value, abs=0.006)


def test_a_miss_is_told_in_a_sentence(measured):
    wrong = json.loads(json.dumps(measured["seeds"]["0"]))
    wrong["lab-base"]["choose"]["balance"]["0.6"]["all"]["best"] = 3
    (sentence,) = outside(wrong)
    assert sentence.startswith("lab-base best exit, T 0.6: 3.000 is not in 10 to 10")


@pytest.mark.long
def test_retraining_lands_in_the_bands(tmp_path):
    """Both phases from a seed that the bands have not seen, with the real recipe: five CPU minutes and more."""
    world = load_world()
    train_both(world, RECIPE, 3, tmp_path)
    assert outside(measure_both(world, tmp_path)) == []
