"""A small JSON file that remembers what was costly to find out. Losing it costs time, never correctness."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def recall(memo: Path | None, section: str) -> dict[str, Any]:
    """One section of the memo: key -> value. Empty if the file is missing, unreadable or not ours."""
    if memo is None:
        return {}
    try:
        found = json.loads(memo.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    inner = found.get(section) if isinstance(found, dict) else None
    return inner if isinstance(inner, dict) else {}


def remember(memo: Path | None, section: str, entries: dict[str, Any]) -> None:
    """Add entries to a section. Best effort: on a read-only or full disk nothing is written and nothing is said.

    Two processes that write at once leave a whole file, which may lack the entries of one of them.
    """
    if memo is None or not entries:
        return
    try:
        found = json.loads(memo.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = {}
    kept = found if isinstance(found, dict) else {}
    inner = kept.get(section)
    kept[section] = (inner if isinstance(inner, dict) else {}) | entries
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=memo.parent, prefix=f".{memo.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file, indent=0, sort_keys=True)
            os.replace(temporary, memo)
        except OSError:
            os.unlink(temporary)
            raise
