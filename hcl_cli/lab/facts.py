"""The facts of the lab world, read from `data/lab/world/*.tsv`, and which of them are common, rare or held out.

Every choice in the world (frequency, split, order, the object of a false statement) is made by the SHA-256 of a
label, so that it is the same on every machine and Python version.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from hcl_cli.errors import BadInput
from hcl_cli.lab import relations as rel
from hcl_cli.resources import data_file

SEED = 7
RARE_SHARE = 0.15
HELD_SHARE = 0.06

T = TypeVar("T")

Frequency = Literal["common", "rare", "held"]


@dataclass(frozen=True)
class Fact:
    """One row of a relation's file; `rank` counts from 0, the commonest first."""

    relation: str
    entity: str
    object: str
    rank: int
    frequency: Frequency


def unit(label: str) -> float:
    """A number in [0, 1) that depends on the label and on SEED only."""
    digest = hashlib.sha256(f"{SEED}:{label}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def shuffled(items: Iterable[T], label: str, name: str = "") -> list[T]:
    """The items in an order drawn by hash; equal items would tie, so they must differ in `str`."""
    return sorted(items, key=lambda item: unit(f"{label}:{getattr(item, name) if name else item}"))


def slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def read_rows(name: str) -> list[tuple[str, str]]:
    """The rows of `data/lab/world/<name>.tsv`, header left out."""
    path = data_file("lab", "world", f"{name}.tsv")
    rows: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        cells = line.split("\t")
        if len(cells) != 2 or not all(cell.strip() == cell and cell for cell in cells):
            raise BadInput(f"{path.name}, line {number}: expected two cells parted by one tab, met {line!r}")
        rows.append((cells[0], cells[1]))
    return rows


def spread(groups: dict[str, list[T]], label: str) -> list[T]:
    """All items, interleaved so that every prefix holds the groups nearly in proportion to their sizes."""
    placed = [
        ((place + unit(f"spread:{label}:{name}")) / len(group), name, item)
        for name, group in sorted(groups.items())
        for place, item in enumerate(group)
    ]
    return [item for _, _, item in sorted(placed, key=lambda entry: (entry[0], entry[1]))]


def frequencies(relation: rel.Relation, rows: Sequence[tuple[str, str]]) -> dict[str, Frequency]:
    """Entity -> frequency: of an eligible relation a fixed share is rare and a smaller one held out."""
    if not relation.eligible:
        return {entity: "common" for entity, _ in rows}
    order = shuffled([entity for entity, _ in rows], f"frequency:{relation.name}")
    held, rare = round(len(rows) * HELD_SHARE), round(len(rows) * RARE_SHARE)
    return {
        entity: "held" if place < held else "rare" if place < held + rare else "common"
        for place, entity in enumerate(order)
    }


def relation_facts(relation: rel.Relation) -> list[Fact]:
    rows = read_rows(relation.name)
    kind = frequencies(relation, rows)
    return [Fact(relation.name, entity, obj, rank, kind[entity]) for rank, (entity, obj) in enumerate(rows)]
