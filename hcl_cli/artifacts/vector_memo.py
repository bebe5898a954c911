"""Short vectors by key, kept as they are computed: small files that are written once and never changed.

For what a model says of single items (pairs of texts) while a stage is under way: an interruption loses one chunk, and
another stage that asks for the same items finds them. Each file is written aside and renamed, and named by its own
SHA-256, so that processes need no lock and a damaged file is noticed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.artifacts.files import ensure_writable, refusing, write_small

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY_BYTES = 16
_NAME = 16  # hexadecimal digits


class VectorMemo:
    """Vectors of `width` float32 numbers by 16-byte key, in one folder."""

    def __init__(self, folder: Path, width: int, warn: Callable[[str], None]) -> None:
        """Args:
        folder: need not exist; it belongs to one model.
        width: numbers of a vector.
        warn: is told of damaged files.
        """
        self._folder = folder
        self._width = width
        self._warn = warn
        self._known: dict[bytes, NDArray[np.float32]] | None = None

    def find(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors at hand; keys without one are left out."""
        known = self._read()
        return {key: known[key] for key in keys if key in known}

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep vectors, [n, width]; they are on disk when this returns.

        Raises:
            EnvironmentRefused: if they cannot be written.
        """
        import numpy as np

        rows = np.zeros(len(keys), dtype=self._row())
        rows["key"] = np.frombuffer(b"".join(keys), dtype=f"V{_KEY_BYTES}")
        rows["vector"] = vectors
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        data = buffer.getvalue()
        ensure_writable(self._folder)
        path = self._folder / f"{hashlib.sha256(data).hexdigest()[:_NAME]}.npy"
        with refusing(path):
            write_small(path, data)
        self._read().update(zip(keys, np.asarray(vectors, dtype=np.float32), strict=True))

    def _row(self) -> list[tuple[str, str] | tuple[str, str, tuple[int]]]:
        return [("key", f"V{_KEY_BYTES}"), ("vector", "<f4", (self._width,))]

    def _read(self) -> dict[bytes, NDArray[np.float32]]:
        import numpy as np

        if self._known is not None:
            return self._known
        self._known = {}
        for path in sorted(self._folder.glob("*.npy")):
            with refusing(path):
                data = path.read_bytes()
            if hashlib.sha256(data).hexdigest()[:_NAME] != path.stem:
                self._warn(f"{path}: does not match its name and is not read; what it held is computed again")
                continue
            rows = np.load(io.BytesIO(data), allow_pickle=False)
            if rows.dtype == np.dtype(self._row()):
                self._known.update(zip((bytes(key) for key in rows["key"]), rows["vector"], strict=True))
        return self._known
