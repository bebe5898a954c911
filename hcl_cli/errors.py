"""What can go wrong, and the exit code of each kind.

A message names the option or file, the value met, what was expected, and the next step, in one line.
"""


class HclError(Exception):
    """Base of every error a user can act on: one line on stderr, no stack."""

    exit_code = 2


class BadOption(HclError):
    """An option's value cannot be used (exit 2)."""


class BadInput(HclError):
    """A file, table, model or data set cannot be used (exit 2). Names the file, the row and the column."""


class ShardsFailed(HclError):
    """Some shards failed; the finished ones are kept (exit 3)."""

    exit_code = 3


class EnvironmentRefused(HclError):
    """Disk, network or memory said no (exit 4); nothing finished is lost."""

    exit_code = 4


def shown(value: object, limit: int = 120) -> str:
    """A value from outside as part of a one-line message: control characters escaped, long values cut."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value))
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
