"""hcl.toml: defaults per command, and a clear line for what it does not know."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.cli.settings import default_map
from hcl_cli.errors import BadInput

COMMANDS = {
    "sample": {"model": "model", "max_new_tokens": "max_new_tokens", "json": "as_json"},
    "hcb": {"weights": "weights"},
    "store ls": {"json": "as_json"},
}


def read(folder: Path, text: str) -> dict[str, dict[str, object]]:
    (folder / "hcl.toml").write_text(text)
    return default_map(folder, lambda: COMMANDS)


def test_top_level_keys_reach_every_command_that_has_them(tmp_path: Path) -> None:
    found = read(tmp_path, "model = 'gpt2'\nweights = 'figure'\n[sample]\nmax-new-tokens = 9\n")
    assert found == {
        "sample": {"model": "gpt2", "max_new_tokens": 9},
        "hcb": {"weights": "figure"},
        "store": {"ls": {}},
    }


def test_a_table_wins_over_the_top_level(tmp_path: Path) -> None:
    assert read(tmp_path, "model = 'a'\n[sample]\nmodel = 'b'\n")["sample"] == {"model": "b"}


def test_options_have_the_names_of_the_command_line_and_reach_groups(tmp_path: Path) -> None:
    """`json = true` was refused, because the parameter behind --json has another name."""
    found = read(tmp_path, "json = true\n")
    assert found == {"sample": {"as_json": True}, "hcb": {}, "store": {"ls": {"as_json": True}}}


def test_no_file_means_no_defaults(tmp_path: Path) -> None:
    assert default_map(tmp_path, lambda: COMMANDS) == {}


@pytest.mark.parametrize("text", ["modle = 'x'", "[smaple]\nmodel = 'x'", "[hcb]\nmodel = 'x'", "model = ", "model"])
def test_what_it_does_not_know_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match=r"hcl\.toml") as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60))
def test_any_bytes_are_settings_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "hcl.toml").write_bytes(data)
    try:
        assert set(default_map(tmp_path, lambda: COMMANDS)) <= {"sample", "hcb", "store"}
    except BadInput as error:
        assert "\n" not in str(error)
