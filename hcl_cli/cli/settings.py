"""`hcl.toml` and `HCL_*`: where an option's value comes from when no flag gives it.

Order: flag > `HCL_<NAME>` variable > `hcl.toml` in the current folder > default.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hcl_cli.errors import BadInput

FILE = "hcl.toml"
# Options that speak about one call: a variable or a file that set them for all calls would be a trap.
NOT_SETTABLE = {
    "help", "output", "force", "no_cache", "dry_run", "columns", "older_than", "max_size", "install_completion",
    "show_completion", "options", "questions", "train_tuned",
}  # fmt: skip
# `limit` counts questions; set for `sample`, it must not cut what `cat` prints. `confidence` is a switch of `entropy`;
# in `hcb` it names a column.
_ONE_CALL = {("cat", "limit"), ("hcb", "confidence")}


def settable(command: str, params: Sequence[Any]) -> dict[str, Any]:
    """The options of a command that may be set from outside: name as on the command line, with `_` -> parameter."""
    found = {}
    for param in params:
        if param.param_type_name == "option" and param.name not in NOT_SETTABLE:
            name = next(flag for flag in param.opts if flag.startswith("--"))[2:].replace("-", "_")
            if (command, name) not in _ONE_CALL:
                found[name] = param
    return found


def variable(name: str) -> str:
    """The environment variable of one option, e.g. `HCL_MAX_NEW_TOKENS`."""
    return f"HCL_{name.upper()}"


def default_map(folder: Path, list_commands: Callable[[], Mapping[str, Mapping[str, str]]]) -> dict[str, Any]:
    """Defaults per command from `hcl.toml`: top-level keys for all commands, `[command]` tables for one.

    Args:
        folder: where to look for the file.
        list_commands: gives command ("sample", "store ls") -> its settable options, each with the name of the
            parameter behind it; called only if there is a file.
    Returns:
        command -> parameter -> value, one level deeper for the commands of a group.

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
    known = {name for params in commands.values() for name in params}
    general: dict[str, Any] = {}
    special: dict[str, dict[str, Any]] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            if key not in commands:
                raise BadInput(f"{FILE}: [{key}] is not a command; expected one of {', '.join(sorted(commands))}")
            special[key] = {_option(name, commands[key], f"[{key}] "): item for name, item in value.items()}
        else:
            general[_option(key, known, "")] = value
    defaults: dict[str, Any] = {}
    for command, params in commands.items():
        values = {name: value for name, value in general.items() if name in params} | special.get(command, {})
        group, _, name = command.partition(" ")
        place = defaults.setdefault(group, {}) if name else defaults
        place[name or group] = {params[key]: value for key, value in values.items()}
    return defaults


def _option(name: str, known: Collection[str], where: str) -> str:
    canonical = name.replace("-", "_")
    if canonical not in known:
        raise BadInput(f"{FILE}: {where}{name} is not an option that can be set there; see `hcl COMMAND --help`")
    return canonical
