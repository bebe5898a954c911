"""`hcl hcb --diversity`: which measure of creativity, and the sentence encoder that `spectrum` needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.sources import Source
    from hcl_cli.models.encoders import EncoderRef

DIVERSITIES = ("clusters", "rarefied", "coverage", "entropy", "spectrum")
SPECTRUM = "spectrum"

DiversityOpt = Annotated[
    str,
    typer.Option(
        "--diversity", metavar="NAME",
        help="clusters (published), rarefied (among 5 correct answers), coverage (where 70 % of them are covered), "
        "entropy of cluster sizes, or spectrum (log-determinant of the embeddings of 5).",
    ),
]  # fmt: skip
EncoderOpt = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        metavar="MODEL",
        show_default="all-MiniLM-L6-v2",
        help="Of --diversity spectrum: folder or Hub name.",
    ),
]


@dataclass(frozen=True)
class Diversity:
    """A measure of creativity, and how inputs are made ready for it.

    Attributes:
        name: one of DIVERSITIES.
        encoder: of `spectrum`, found and not loaded.
        seed: of its draws.
    """

    name: str
    encoder: "EncoderRef | None"
    seed: int

    @property
    def identities(self) -> dict[str, str]:
        """For the recipe."""
        return {} if self.encoder is None else {"embedder": self.encoder.identity}

    def prepare(self) -> "Callable[[pl.DataFrame], pl.DataFrame] | None":
        """What makes a scored table ready; None where it is as it stands. Loads the encoder."""
        if self.encoder is None:
            return None
        from hcl_cli.models.encoders import load_encoder
        from hcl_cli.stages.spectrum import with_spectrum

        encode = load_encoder(self.encoder).encode
        return lambda frame: with_spectrum(frame, encode, self.seed)

    def inputs(self, sources: "Sequence[Source]") -> list[Any]:
        """The scored tables, ready."""
        from hcl_cli.stages.scored_groups import ScoredInput

        prepare = self.prepare()
        frames = [source.frame().collect() for source in sources]
        ready = frames if prepare is None else [prepare(frame) for frame in frames]
        return [ScoredInput(frame, source.sha256) for frame, source in zip(ready, sources, strict=True)]


def parse_diversity(name: str, embedder: str | None, seed: int, memo: Path | None) -> Diversity:
    """The measure that the options name; its encoder is found, not loaded.

    Raises:
        BadOption: an unknown name, or an encoder where nothing reads one.
        EnvironmentRefused: as `find_encoder`.
    """
    if name not in DIVERSITIES:
        raise BadOption(f"--diversity {name}: expected one of {', '.join(DIVERSITIES)}")
    if name != SPECTRUM:
        if embedder is not None:
            raise BadOption(f"--embedder {embedder}: reads answers for --diversity spectrum alone; add it")
        return Diversity(name, None, seed)
    from hcl_cli.models.encoders import find_encoder
    from hcl_cli.models.identity import remembered_sha256

    found = find_encoder(
        embedder, sha256=lambda file: remembered_sha256(file, memo), needed_by="--diversity spectrum"
    )  # fmt: skip
    return Diversity(name, found, seed)
