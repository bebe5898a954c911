"""What is in a key, and what is not."""

import enum
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.artifacts.recipe import (
    Input,
    Recipe,
    canonical,
    document_base_key,
    document_key,
    is_document,
    leaves,
)
from hcl_cli.errors import BadOption

RECIPE = Recipe(
    table="responses",
    stage="sample",
    version=1,
    options={"limit": 10, "samples": 5, "temperature": 0.6, "stop": ["\n"], "prompt": "é"},
    inputs=(Input("0" * 64, "1" * 64),),
    identities={"model": "c0ffee"},
    dtype="float32",
    attention="sdpa",
    grows=("samples", "limit"),
)


def changed(**fields):
    return Recipe(**{**{name: getattr(RECIPE, name) for name in RECIPE.__dataclass_fields__}, **fields})


def test_key_is_the_sha256_of_the_canonical_json():
    written = (
        '{"attention":"sdpa","dtype":"float32","grows":["limit","samples"],"hcl":1,"identities":{"model":"c0ffee"},'
        '"inputs":[{"key":"' + "1" * 64 + '","sha256":"' + "0" * 64 + '"}],'
        '"options":{"limit":10,"prompt":"\\u00e9","samples":5,"stop":["\\n"],"temperature":0.6},'
        '"stage":"sample","table":"responses","version":1}'
    )
    assert canonical(RECIPE.document()).decode() == written
    assert RECIPE.key == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        changed(table="scored"),
        changed(stage="score"),
        changed(version=2),
        *(changed(options={**RECIPE.options, name: 3}) for name in RECIPE.options),
        changed(options={**RECIPE.options, "top_p": None}),
        changed(options={**RECIPE.options, "stop": []}),
        changed(inputs=()),
        changed(inputs=(Input("2" * 64, "1" * 64),)),
        changed(inputs=(Input("0" * 64),)),
        changed(identities={"model": "decaf"}),
        changed(dtype="bfloat16"),
        changed(attention="eager"),
    ],
)
def test_each_ingredient_changes_the_key(other):
    assert other.key != RECIPE.key


def test_growing_options_leave_the_base_and_nothing_else_does():
    assert changed(options={**RECIPE.options, "limit": 99, "samples": 1}).base_key == RECIPE.base_key
    assert changed(options={**RECIPE.options, "temperature": 0.7}).base_key != RECIPE.base_key
    assert changed(version=2).base_key != RECIPE.base_key
    assert changed(grows=()).base_key is None
    assert RECIPE.base_key != RECIPE.key


def test_equal_values_are_written_equally():
    def key(value):
        return changed(options={"temperature": value}, grows=()).key

    assert key(1) == key(1.0)
    assert key(0.0) == key(-0.0) == key(0)
    assert key(0.1 + 0.2) != key(0.3)
    assert key([1, 2]) == key((1, 2))
    assert len({key(1), key(True), key("1"), key([1]), key(None)}) == 5
    assert key(float(2**60)) == key(float(2**60))


def test_order_of_options_does_not_matter_and_order_of_a_list_does():
    assert changed(options=dict(reversed(RECIPE.options.items()))).key == RECIPE.key
    first = changed(options={"layers": [1, 2]}, grows=())
    assert first.key != changed(options={"layers": [2, 1]}, grows=()).key


class Colour(enum.Enum):
    RED = "red"


class Word(str):
    pass


@pytest.mark.parametrize(
    "value", [np.float64(0.5), np.int64(1), Colour.RED, Word("x"), {1, 2}, b"x", Path("x"), {1: 2}, [object()], len]
)
def test_what_has_no_fixed_written_form_is_refused(value):
    with pytest.raises(TypeError):
        _ = changed(options={"x": value}, grows=()).key


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_nan_and_infinities_are_refused(value):
    with pytest.raises(ValueError, match="no canonical form"):
        _ = changed(options={"x": value}, grows=()).key


def test_text_that_is_not_unicode_is_the_users_and_says_so():
    with pytest.raises(BadOption, match=r"stop\[0\].*not valid Unicode"):
        _ = changed(options={"stop": ["\udcff"]}, grows=()).key


@pytest.mark.parametrize("stage", ["models", "", "../x", "Sample", "a/b", ".hidden"])
def test_a_stage_is_a_folder_name(stage):
    with pytest.raises(ValueError, match="cannot be a folder"):
        changed(stage=stage)


def test_growing_options_must_be_options():
    with pytest.raises(ValueError, match="exit_layers"):
        changed(grows=("exit_layers",))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_recipe_read_from_its_footer_has_the_same_key(options):
    recipe = changed(options=options, grows=())
    again = json.loads(canonical(recipe.document()))
    assert is_document(again)
    assert document_key(again) == recipe.key
    assert again == recipe.document()


def test_base_key_can_be_read_from_the_footer():
    assert document_base_key(json.loads(canonical(RECIPE.document()))) == RECIPE.base_key


def test_ingredients_have_the_names_that_users_know():
    assert leaves(RECIPE.document()) == {
        "recipe format": 1, "table": "responses", "stage": "sample", "stage version": 1,
        "--limit": 10, "--samples": 5, "--temperature": 0.6, "--stop": ["\n"], "--prompt": "é",
        "input 1": "0" * 64, "model identity": "c0ffee", "dtype": "float32", "attention": "sdpa",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", [None, [], {}, {"hcl": 1}, {**RECIPE.document(), "hcl": 2}, {**RECIPE.document(), "inputs": [1]}]
)
def test_other_json_is_no_recipe(value):
    assert not is_document(value)
