"""Bytes on disk: written whole or not at all, with their SHA-256 beside them, and checked when read."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hcl_cli.errors import BadOption, EnvironmentRefused

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_CHUNK = 1 << 20
_ABANDONED_AFTER_S = 24 * 3600  # a temporary file of another host; one of this host is judged by its process


STORE_ADVICE = "name another store with --store or $HCL_STORE"
OUTPUT_ADVICE = "name another file with -o"


def refused(error: OSError, where: Path, advice: str = STORE_ADVICE) -> EnvironmentRefused:
    """The one line for a write that the system refused: full, not writable, or anything else."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return EnvironmentRefused(
            f"{where}: disk full ({reason}); what was finished is kept: free some space or {advice}, "
            "and run the same command again"
        )
    if error.errno in _REFUSED:
        return EnvironmentRefused(
            f"{where}: cannot be written ({reason}); finished artifacts can still be read: {advice}"
        )
    return EnvironmentRefused(f"{where}: {reason}; check the disk, or {advice}")


@contextmanager
def refusing(where: Path, advice: str = STORE_ADVICE) -> Iterator[None]:
    """Turn an OSError of the block into EnvironmentRefused."""
    try:
        yield
    except BrokenPipeError:  # nothing of the store's: who reads our messages is gone
        raise
    except OSError as error:
        raise refused(error, where, advice) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_path(path: Path) -> Path:
    """`x.sha256` beside `x.parquet`; `sha256sum -c` reads it."""
    return path.with_suffix(".sha256")


def recorded_digest(path: Path) -> str | None:
    """The SHA-256 recorded beside a file, or null if there is none or it cannot be read as one."""
    try:
        text = digest_path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    digest = text.split(maxsplit=1)[0] if text.strip() else ""
    return digest if len(digest) == 64 and set(digest) <= set("0123456789abcdef") else None


class HashedFile:
    """A new file that is hashed as it is written; what pyarrow needs of a file object, and no more."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._hash = hashlib.sha256()
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        if self.closed:  # a Parquet writer that is given up still writes its footer when it is freed: to nowhere
            self._written += len(view)
            return len(view)
        self._hash.update(view)
        done = 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:])
        self._written += done
        return done

    def flush(self) -> None:
        pass  # nothing is buffered

    def tell(self) -> int:
        return self._written

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def sync(self) -> str:
        """Put the bytes on disk and return their SHA-256.

        Raises:
            OSError: also if the file was closed before.
        """
        os.fsync(self._descriptor)
        return self._hash.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def temporary_path(target: Path) -> Path:
    """A new hidden name beside `target` that says which process of which host is writing it."""
    return target.with_name(f".{target.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a file's name is one of `temporary_path`."""
    parts = path.name.split(".")
    return path.name.startswith(".") and len(parts) >= 6 and parts[-1] == "tmp" and parts[-3].isdigit()


def is_abandoned(path: Path) -> bool:
    """Whether the process that was writing a temporary file is gone."""
    host, process = path.name.split(".")[-4:-2]
    if host == _host() and not _is_alive(int(process)):
        return True
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; whatever is left there afterwards is removed, also on an interrupt."""
    path = temporary_path(target)
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power loss."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open a folder
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no fsync of a folder
            raise
    finally:
        os.close(descriptor)


def write_small(target: Path, data: bytes) -> None:
    """Write a small file atomically."""
    with temporary(target) as path, HashedFile(path) as file:
        file.write(data)
        file.sync()
        os.replace(path, target)


def publish(path: Path, target: Path, sha256: str) -> None:
    """Give a written and synced file its name, its digest first: a named artifact is never without one."""
    write_small(digest_path(target), f"{sha256}  {target.name}\n".encode())
    os.replace(path, target)
    sync_folder(target.parent)


def ensure_writable(folder: Path, advice: str = STORE_ADVICE) -> None:
    """Find out before hours of work whether a folder can be made and written.

    Raises:
        EnvironmentRefused: if not; says what else to name.
    """
    with refusing(folder, advice):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary(folder / "probe") as path, HashedFile(path) as file:
            file.write(b"hcl")


def output_path(out: Path) -> Path:
    """Where `-o FILE` really points, links followed.

    Raises:
        BadOption: if it is a folder or a device, or lies in no folder.
    """
    target = out.resolve()
    if target.exists() and not target.is_file():
        raise BadOption(f"-o {out}: is not a regular file; name a file such as {target.name or 'out'}.parquet")
    if not target.parent.is_dir():
        raise BadOption(f"-o {out}: there is no folder {target.parent}; make it first")
    return target


def write_output(out: Path, parts: Iterable[bytes]) -> None:
    """Write a file that a user named, whole or not at all.

    Raises:
        BadOption: if `out` is a folder or a device, or lies in no folder.
        EnvironmentRefused: if it cannot be written.
    """
    target = output_path(out)
    with refusing(target, "name another file"), temporary(target) as path, HashedFile(path) as file:
        for part in parts:
            file.write(part)
        file.sync()
        os.replace(path, target)
        sync_folder(target.parent)


def copy_file(source: Path, out: Path, sha256: str) -> None:
    """Copy a file atomically and check that the bytes are the ones expected.

    Raises:
        EnvironmentRefused: if `out` cannot be written, or `source` no longer has that SHA-256.
    """
    target = output_path(out)
    if target.exists() and target.samefile(source):
        return
    with refusing(target, OUTPUT_ADVICE), temporary(target) as path:
        with source.open("rb") as reader, HashedFile(path) as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
            copied = writer.sync()
        if copied != sha256:
            raise EnvironmentRefused(f"{source}: changed while it was copied; run the same command again")
        os.replace(path, target)
        sync_folder(target.parent)
