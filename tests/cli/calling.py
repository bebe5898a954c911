"""How tests call the program, and what a call gives. Apart from conftest.py, of which every folder has its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Result:
    """What a call printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def path(self) -> Path:
        """The one line that stdout carries."""
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return Path(self.out.removesuffix("\n"))


class Hcl(Protocol):
    """Calls hcl with arguments, in a folder of its own."""

    def __call__(self, *arguments: object, stdin: str | bytes = b"") -> Result: ...
