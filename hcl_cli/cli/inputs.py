"""Where a stage's input comes from: an argument, else one line of stdin. Never more than that is read."""

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.records import check_file

# Room for a few paths or `--json` objects; whatever is longer is not a path but somebody's data.
_MOST_BYTES = 16 * 1024


def input_paths(arguments: list[str], command: str, *, most: int | None = 1) -> list[Path]:
    """The files a command was asked to read: its arguments, else the lines of stdin.

    A line is a path or an `hcl ... --json` object. `-` stands for stdin. A terminal is never read.

    Args:
        arguments: positional arguments as given.
        command: for the messages, e.g. "hcl score".
        most: how many inputs the command takes; None for any number.

    Raises:
        BadInput: nothing to read, an empty pipe, something that is not a path, a file that does not exist.
        EnvironmentRefused: a file that may not be read.
    """
    paths: list[Path] = []
    if not arguments:
        if sys.stdin is None or sys.stdin.isatty():
            raise BadInput(f"{command}: nothing to read; name a file, or pipe one in: {_example(command)}")
        paths = _from_stdin(command)
    for argument in arguments:
        paths += _from_stdin(command) if argument == "-" else [Path(argument)]
    if most is not None and len(paths) > most:
        raise BadInput(f"{command}: reads one file and got {len(paths)} ({paths[0]}, {paths[1]}, ...); run it per file")
    for path in paths:
        check_file(path, f"{command}: {shown(path, 1000)}")
    return paths


def optional_input(argument: str | None, dataset: str | None, command: str) -> Path | None:
    """The file of a command that can do without: its argument, else a line of stdin, else None.

    stdin is read only if it is a pipe or a regular file, and not if a data set is named: a terminal, the null device
    and a closed stdin mean the command's own default.

    Args:
        argument: as given; `-` stands for stdin.
        dataset: what `--dataset` names, or None.
        command: for the messages, e.g. "hcl entropy".

    Raises:
        BadOption: both an argument and a data set.
        BadInput: an empty pipe, something that is not a path, a file that does not exist.
        EnvironmentRefused: a file that may not be read.
    """
    if argument is not None and dataset is not None:
        raise BadOption(f"{shown(argument)} and --dataset {shown(dataset)}: name the input once")
    if argument is None and (dataset is not None or not _is_fed()):
        return None
    return input_paths([] if argument is None else [argument], command)[0]


def _is_fed() -> bool:
    """Whether stdin is a pipe or a regular file."""
    if sys.stdin is None:
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def file_columns(path: Path) -> tuple[tuple[str, ...], bool]:
    """The names of a file's columns, and whether an hcl command made it."""
    from hcl_cli.artifacts.parquet import Damaged, read_footer
    from hcl_cli.records import PARQUET_START, file_format, read_bytes, read_records

    label = shown(path, 1000)
    data = read_bytes(path, label)
    if not data.startswith(PARQUET_START):
        return tuple(read_records(data, file_format(path, data, label), label).names), False
    try:
        document, schema, _ = read_footer(path)
    except Damaged as damage:
        raise BadInput(f"{label}: {damage}; make or fetch it again") from damage
    return tuple(schema.names), document is not None


def refuse_overwriting(option: str, target: Path | None, inputs: Sequence[Path]) -> None:
    """Raise BadOption if what is to be written is one of the files that are read."""
    for path in inputs:
        if target is not None and target.exists() and path.exists() and target.samefile(path):
            raise BadOption(f"{option} {target}: is the file that is read; name another, so that nothing is lost")


def refuse_losing(targets: Mapping[str, Path | None], *names: str | Path | None) -> None:
    """Raise BadOption if a file that is to be written is one that is read, or is written twice.

    Args:
        targets: option -> what it writes, if anything.
        names: whatever may be a file that is read: a path, a data set's name, a prompt's.
    """
    inputs = [Path(name).expanduser() for name in names if name is not None and "\0" not in str(name)]
    written: dict[Path, str] = {}
    for option, target in targets.items():
        refuse_overwriting(option, target, inputs)
        if target is not None and (other := written.setdefault(target.absolute(), option)) != option:
            raise BadOption(f"{option} {target}: {other} writes the same file; name another, so that nothing is lost")


def _example(command: str) -> str:
    if command.endswith("score"):
        return "hcl sample | hcl score"
    return f"hcl sample | hcl score | {command if command == 'hcl mitigate' else 'hcl hcb'}"


def _from_stdin(command: str) -> list[Path]:
    if sys.stdin is None:
        raise BadInput(f"{command}: stdin is closed; name a file")
    data = b""
    while len(data) <= _MOST_BYTES and (chunk := os.read(sys.stdin.fileno(), _MOST_BYTES + 1 - len(data))):
        data += chunk
        if data.startswith(b"PAR1"):
            raise BadInput(f"{command}: stdin holds a Parquet file itself; pass its path, e.g. {command} FILE")
    if len(data) > _MOST_BYTES:
        raise BadInput(f"{command}: stdin holds more than {_MOST_BYTES} bytes; expected one path a line")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{command}: stdin is not UTF-8 text (byte {error.start}); expected one path a line") from error
    if "\0" in text:
        raise BadInput(f"{command}: stdin holds a zero byte; expected one path a line")
    lines = [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise BadInput(f"{command}: stdin is empty: the command before it in the pipe printed no path; see its message")
    return [_path(line, command) for line in lines]


def _path(line: str, command: str) -> Path:
    if not line.lstrip().startswith("{"):
        return Path(line)
    import json

    try:
        path = json.loads(line)["path"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{command}: stdin: {line[:60]!r} is neither a path nor a --json object with a path") from error
    if not isinstance(path, str):
        raise BadInput(f"{command}: stdin: the path in {line[:60]!r} is not text; expected what `--json` prints")
    return Path(path)
