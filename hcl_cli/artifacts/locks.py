"""One maker per artifact: a lock that dies with its process, and a word on who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hcl_cli.artifacts.files import refusing

_POLL_S = 0.1


@contextmanager
def making(name: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an artifact or of a family of shards.

    Waits for another process that holds it, after one line that says for whom. The lock is the operating system's
    and ends with its process, so a lock file left by a killed one blocks nobody; lock files are never removed, since
    that would split those who wait for them.

    Raises:
        EnvironmentRefused: if the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_path(name))
    holder = name.with_name(f".{name.name}.holder")
    with refusing(name.parent):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warn(f"waiting for {_describe(holder)}, which is making the same rows")
            lock.acquire(poll_interval=_POLL_S)
    try:
        with suppress(OSError):  # only a courtesy to those who wait
            holder.write_text(
                json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": time.time()}),
                encoding="utf-8",
            )
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


@contextmanager
def if_free(name: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does; gives whether it is held."""
    from filelock import FileLock, Timeout

    lock = FileLock(_lock_path(name))
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock_path(name: Path) -> Path:
    return name.with_name(f".{name.name}.lock")


def _describe(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(found["since"]))
        return f"process {int(found['process'])} on {found['host']} (since {since})"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"
