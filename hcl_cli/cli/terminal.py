"""What people see: everything here goes to stderr, so that stdout stays one line."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

_YELLOW, _RED, _DIM, _PLAIN = "33", "31", "2", ""


class Advance(Protocol):
    """Reports that `done` of `total` units are finished."""

    def __call__(self, done: int, total: int) -> None: ...


class Terminal:
    """stderr of one command: plain lines, warnings, a progress bar only where stderr is a terminal."""

    def __init__(self, command: str, *, quiet: bool = False, verbose: bool = False) -> None:
        self.command = command
        self.quiet = quiet
        self.verbose = verbose

    @property
    def console(self) -> "Console":
        """A rich console on stderr, for what is more than a line; not imported before."""
        from rich.console import Console

        return Console(file=cast(TextIO, _Stderr()), highlight=False)

    def say(self, text: str) -> None:
        """One line for people, unless --quiet."""
        if not self.quiet:
            _line(text, _PLAIN)

    def detail(self, text: str) -> None:
        """One line under -v only."""
        if self.verbose and not self.quiet:
            _line(text, _DIM)

    def warn(self, text: str) -> None:
        """One warning line, also under --quiet."""
        _line(f"hcl {self.command}: {text}", _YELLOW)

    def show(self, renderable: object) -> None:
        """A rich table or text, unless --quiet."""
        if not self.quiet:
            self.console.print(renderable)

    @contextmanager
    def progress(self, label: str, unit: str) -> Iterator[Advance]:
        """A bar on a terminal, else one closing line (`sample: 300 questions in 12.3 s`)."""
        begun = time.monotonic()
        last = (0, 0)

        if self.quiet or not _is_terminal():

            def note(done: int, total: int) -> None:
                nonlocal last
                last = (done, total)

            yield note
        else:
            from rich.markup import escape
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns, console=self.console, transient=True) as bar:
                task = bar.add_task(escape(label), total=None)

                def note(done: int, total: int) -> None:
                    nonlocal last
                    last = (done, total)
                    bar.update(task, completed=done, total=total)

                yield note
        if last[1]:
            self.say(f"{label}: {last[0]} of {last[1]} {unit} in {time.monotonic() - begun:.1f} s")


def error_line(text: str) -> None:
    """One line on stderr, whatever the message holds."""
    _line(f"hcl: {text}", _RED)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _line(text: str, colour: str) -> None:
    """One plain line on stderr; control characters from data are shown, not obeyed."""
    safe = "".join(mark if mark.isprintable() or mark == " " else _visible(mark) for mark in text)
    if colour and _is_terminal() and not os.environ.get("NO_COLOR"):
        safe = f"\x1b[{colour}m{safe}\x1b[0m"
    _write(safe + "\n")


def _write(text: str) -> None:
    """Text on stderr. Where nobody can read it (a closed pipe, a full disk), the command goes on without."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


class _Stderr:
    """stderr as rich needs it; writing to it never fails."""

    encoding = property(lambda _: getattr(sys.stderr, "encoding", None) or "utf-8")

    def write(self, text: str) -> int:
        _write(text)
        return len(text)

    def flush(self) -> None:
        pass  # written through

    def isatty(self) -> bool:
        return _is_terminal()


def drop(stream: TextIO) -> None:
    """Send what a stream still holds nowhere, so that Python does not try it once more when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _visible(mark: str) -> str:
    return " " if mark == "\n" else mark.encode("unicode_escape").decode()
