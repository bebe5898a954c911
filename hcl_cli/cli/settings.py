"""`hcl.toml` and `HCL_*`: where an option's value comes from when no flag gives it.

Order: flag > `HCL_<NAME>` variable > `hcl.toml` in the current folder > default.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hcl_cli.errors import BadInput

FILE = "hcl.toml"
# Options that speak about one call: a variable or a file that set them for all calls would be a trap.
NOT_SETTABLE = {"help", "output", "force", "no_cache", "dry_run", "columns", "install_completion", "show_completion"}


def variable(param_name: str) -> str:
    """The environment variable of one option, e.g. `HCL_MAX_NEW_TOKENS`."""
    return f"HCL_{param_name.upper()}"


def default_map(folder: Path, list_commands: Callable[[], Mapping[str, set[str]]]) -> dict[str, dict[str, Any]]:
    """Defaults per command from `hcl.toml`: top-level keys for all commands, `[command]` tables for one.

    Args:
        folder: where to look for the file.
        list_commands: gives command name -> the names of its settable options; called only if there is a file.

    Raises:
        BadInput: unreadable TOML, an unknown command or option, or a value that is a table.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    import tomllib

    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{FILE}: cannot be read as TOML ({error}); expected lines such as model = 'lab'") from error
    commands = list_commands()
    known = set().union(*commands.values())
    general: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            if key not in commands:
                raise BadInput(f"{FILE}: [{key}] is not a command; expected one of {', '.join(sorted(commands))}")
            special[key] = {_option(name, commands[key], f"[{key}] "): item for name, item in value.items()}
        else:
            general[_option(key, known, "")] = value
    return {
        command: {name: value for name, value in general.items() if name in names} | special.get(command, {})
        for command, names in commands.items()
    }


def _option(name: str, known: set[str], where: str) -> str:
    canonical = name.replace("-", "_")
    if canonical not in known:
        raise BadInput(f"{FILE}: {where}{name} is not an option that can be set there; see `hcl COMMAND --help`")
    return canonical
