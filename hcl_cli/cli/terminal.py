"""What people see: everything here goes to stderr, so that stdout stays one line."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape


class Advance(Protocol):
    """Reports that `done` of `total` units are finished."""

    def __call__(self, done: int, total: int) -> None: ...


class Terminal:
    """stderr of one command: plain lines, warnings, a progress bar only where stderr is a terminal."""

    def __init__(self, command: str, *, quiet: bool = False, verbose: bool = False) -> None:
        self.command = command
        self.quiet = quiet
        self.verbose = verbose
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line for people, unless --quiet."""
        if not self.quiet:
            self.console.print(escape(text))

    def detail(self, text: str) -> None:
        """One line under -v only."""
        if self.verbose and not self.quiet:
            self.console.print(escape(text), style="dim")

    def warn(self, text: str) -> None:
        """One warning line, also under --quiet."""
        self.console.print(f"[yellow]hcl {self.command}: {escape(text)}[/yellow]")

    def show(self, renderable: object) -> None:
        """A rich table or text, unless --quiet."""
        if not self.quiet:
            self.console.print(renderable, soft_wrap=False)

    @contextmanager
    def progress(self, label: str, unit: str) -> Iterator[Advance]:
        """A bar on a terminal, else one closing line (`sample: 300 questions in 12.3 s`)."""
        begun = time.monotonic()
        last = (0, 0)

        if self.quiet or not self.console.is_terminal:

            def note(done: int, total: int) -> None:
                nonlocal last
                last = (done, total)

            yield note
        else:
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
    line = " ".join(str(text).split("\n"))
    if sys.stderr is not None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print(f"[red]hcl: {escape(line)}[/red]")
