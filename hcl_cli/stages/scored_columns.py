"""What the columns of a scored table tell: which judges, which clusterings. Light: a hit reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

JUDGES = ("alias", "exact", "contains", "published")  # that look for an accepted answer in the text
CLUSTERINGS = ("cosine", "exact", "nli-strict", "nli-loose")
_LLM = re.compile(r"correct_(llm_\w+)")


def judges_of(columns: Sequence[str]) -> list[str]:
    """The judges of a scored table that has several, in the order of the columns."""
    known = {f"correct_{name}": name for name in (*JUDGES, "nli")}
    found = [known.get(name) or (match.group(1) if (match := _LLM.fullmatch(name)) else "") for name in columns]
    return [name for name in found if name]


def clusterings_of(columns: Sequence[str]) -> list[str]:
    """The clusterings of a scored table that has several, in the order of the columns."""
    known = {meaning_column(name): name for name in CLUSTERINGS}
    return [known[name] for name in columns if name in known]


def meaning_column(clustering: str) -> str:
    """The column of a clustering over all answers."""
    return f"meaning_id_{clustering.replace('-', '_')}"


def choices_of(columns: Sequence[Sequence[str]]) -> list[tuple[str, str, str]]:
    """What could decide, where every input can tell: (kind, name, column of the clusters of correct answers).

    Args:
        columns: of each input.
    """
    found: list[tuple[str, str, str]] = []
    for kind, names in (("judge", judges_of), ("clustering", clusterings_of)):
        several = [names(one) for one in columns]
        for name in several[0] if several else []:
            if all(name in of for of in several):
                found.append((kind, name, _cluster_column(kind, name)))
    return [one for one in found if all(one[2] in of for of in columns)]


def _cluster_column(kind: str, name: str) -> str:
    return f"cluster_id_of_{name}" if kind == "judge" else f"cluster_id_{name.replace('-', '_')}"
