"""`hcl hcb` on answers with several judges or clusterings: whether the best layer depends on them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hcl_cli.cli.session import Session
from hcl_cli.schemas import BEST_LAYERS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.recipe import Recipe
    from hcl_cli.artifacts.sources import Source
    from hcl_cli.cli.hcb_diversity import Diversity
    from hcl_cli.stages.hcb import Weights


def compared(
    session: Session,
    sources: "Sequence[Source]",
    recipe: "Callable[[str], Recipe]",
    weights: "Weights",
    *,
    diversity: "Diversity",
    bootstrap: int,
    seed: int,
) -> "tuple[list[dict[str, Any]], list[Artifact]]":
    """Rows of BEST_LAYERS, none where nothing else could decide; and the artifact, if it is kept."""
    from hcl_cli.stages.scored_columns import choices_of

    if len(choices_of([source.columns for source in sources])) < 2:
        return [], []

    def compute() -> "pl.DataFrame":
        from hcl_cli.stages.best_layers import best_layers
        from hcl_cli.stages.scored_groups import ScoredInput

        inputs = [ScoredInput(source.frame().collect(), source.sha256) for source in sources]
        return best_layers(
            inputs, weights=weights, diversity=diversity.name, n_bootstrap=bootstrap, seed=seed,
            prepare=diversity.prepare(),
        )  # fmt: skip

    if session.no_cache:
        return compute().to_dicts(), []
    artifact = session.produce(recipe(BEST_LAYERS.name), BEST_LAYERS, compute)
    return artifact.rows_as_dicts(), [artifact]


def show(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """The summary, and a line for every judge or clustering that chooses another layer."""
    from rich.text import Text

    if session.quiet or not rows:
        return
    for row in rows:
        if row["is_first"] or not row["is_same"]:
            session.terminal.show(Text(row["sentence"], style="bold" if row["is_first"] else ""))
    session.terminal.show(Text(""))
