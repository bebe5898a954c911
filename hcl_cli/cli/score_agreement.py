"""`hcl score` with several judges or clusterings: how far they agree."""

from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.session import Session
from hcl_cli.schemas import AGREEMENT
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact

_BOOTSTRAP, _SEED = 2000, 0


def agreement(session: Session, scored: "Artifact") -> "tuple[list[dict[str, Any]], list[Artifact]]":
    """The rows of AGREEMENT, and its artifact, if it is kept."""

    def compute() -> "pl.DataFrame":
        from hcl_cli.stages.agreement import agreement_table

        return agreement_table(scored.frame().collect(), n_bootstrap=_BOOTSTRAP, seed=_SEED)

    if session.no_cache:
        from hcl_cli.artifacts.parquet import conform

        return conform(compute(), AGREEMENT).to_dicts(), []
    recipe = Recipe(
        table=AGREEMENT.name,
        stage="score",
        version=VERSIONS["score"],
        options={"bootstrap": _BOOTSTRAP, "seed": _SEED},
        inputs=(Input(scored.sha256, scored.key),),
    )
    made = session.produce(recipe, AGREEMENT, compute)
    return made.rows_as_dicts(), [made]
