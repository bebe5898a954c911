"""Options: parsed once, bounded once, and every bad value is one line with a next step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.cli.options import bounded, known_device, natural, parse_dtype, parse_exit_layers, parse_stops
from hcl_cli.errors import BadOption


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("2,4,8", (2, 4, 8)),
        ("8, 2,2", (2, 8)),
        ("2-8:2", (2, 4, 6, 8)),
        ("1-3,7", (1, 2, 3, 7)),
        ("2-7:5", (2, 7)),
    ],
)
def test_exit_layers_are_sorted_and_distinct(text: str, expected: tuple[int, ...]) -> None:
    assert parse_exit_layers(text, 8, "m") == expected


@pytest.mark.parametrize(
    "text", ["0", "9", "0-3", "1-9", "", "a", "-1", "3-1", "1-4:0", "1,,2", "1.5", "²", "1-", "all,2"]
)
def test_layers_outside_or_not_layers_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadOption) as error:
        parse_exit_layers(text, 8, "m")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("--exit-layers")
    assert "try --exit-layers all" in str(error.value)


@given(st.text(max_size=30), st.integers(1, 64))
def test_any_text_is_layers_inside_the_model_or_refused(text: str, n_layers: int) -> None:
    try:
        layers = parse_exit_layers(text, n_layers, "m")
    except BadOption:
        return
    assert layers == tuple(sorted(set(layers)))
    assert 1 <= layers[0] and layers[-1] <= n_layers


@given(st.sets(st.integers(1, 40), min_size=1))
def test_a_list_of_layers_reads_back(layers: set[int]) -> None:
    assert parse_exit_layers(",".join(map(str, layers)), 40, "m") == tuple(sorted(layers))


def test_a_huge_range_is_refused_without_building_it() -> None:
    with pytest.raises(BadOption, match="has layers 1..8"):
        parse_exit_layers("1-999999", 8, "m")


def test_bounds_are_closed_or_open_as_said() -> None:
    top_p = bounded("--top-p", 0, 1, low_open=True, hint="hint")
    assert top_p(1.0) == 1.0
    for value in (0.0, 1.0000001, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadOption, match="--top-p"):
            top_p(value)
    temperature = bounded("--temperature", 0, 100, hint="hint")
    assert temperature(0.0) == 0.0
    with pytest.raises(BadOption, match="--temperature -0.1"):
        temperature(-0.1)
    with pytest.raises(BadOption, match="-n 0"):
        natural("-n", 1, 9, "hint")(0)


def test_auto_dtype_is_the_models_own() -> None:
    assert parse_dtype("auto", "bfloat16") == "bfloat16"
    assert parse_dtype("float64", "bfloat16") == "float64"
    with pytest.raises(BadOption, match="--dtype int8"):
        parse_dtype("int8", "bfloat16")


@pytest.mark.parametrize(
    ("given_texts", "expected"),
    [(["\\n"], ("\n",)), (["Q:", "\\n"], ("\n", "Q:")), ([""], ()), (["\\\\n"], ("\\n",)), (["\\t\\r"], ("\t\r",))],
)
def test_stop_strings_read_escapes(given_texts: list[str], expected: tuple[str, ...]) -> None:
    assert parse_stops(given_texts) == expected


def test_an_empty_stop_beside_others_is_refused() -> None:
    with pytest.raises(BadOption, match="--stop"):
        parse_stops(["", "\\n"])


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:11"])
def test_devices_that_may_be_there(name: str) -> None:
    assert known_device(name) == name


@pytest.mark.parametrize("name", ["", "foo", "cuda:", "cuda:x", "CPU", "cpu ", "cuda:1\n"])
def test_a_misspelt_device_is_refused_without_torch(name: str) -> None:
    """On a cache hit any word was taken for a device, since nothing was computed on it."""
    with pytest.raises(BadOption, match="--device"):
        known_device(name)
