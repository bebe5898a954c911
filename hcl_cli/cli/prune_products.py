"""What `hcl prune` makes of the blocks: how criteria agree, what is kept without the blocks, each an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.loading import ModelChoice
from hcl_cli.cli.session import Session
from hcl_cli.schemas import CRITERIA_COMPARED, QUALITY, RETAINED, Table
from hcl_cli.stages.removed import GREEDY, Key, key_of, removed_by
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.stages.quality import Metric

    Floats = npt.NDArray[np.float64]

Rows = list[dict[str, Any]]
Blocks = tuple[int, ...]


@dataclass
class Products:
    """Everything made from one BLOCKS artifact.

    Attributes:
        blocks: the artifact.
        rows: its rows.
        sizes: numbers of removed blocks to measure the quality at, beside the selected ones.
        protected: blocks that stay.
        seed, bootstrap, permutations: of intervals and p-values.
        also: the artifacts made so far; none under --no-cache.
    """

    session: Session
    choice: ModelChoice
    blocks: Artifact
    rows: Rows
    sizes: Sequence[int]
    protected: frozenset[int]
    seed: int
    bootstrap: int
    permutations: int
    also: list[Artifact] = field(default_factory=list)

    def compared(self) -> Rows:
        """Rows of CRITERIA_COMPARED."""
        options = {"permutations": self.permutations, "seed": self.seed}

        def compute() -> pl.DataFrame:
            from hcl_cli.stages.criteria_compared import criteria_compared

            return criteria_compared(self.rows, n_permutations=self.permutations, seed=self.seed)

        return self._rows(
            CRITERIA_COMPARED,
            Recipe(
                table=CRITERIA_COMPARED.name, stage="prune", version=VERSIONS["prune"], options=options,
                inputs=(Input(self.blocks.sha256, self.blocks.key),),
            ),
            compute,
        )  # fmt: skip

    def variants(self) -> dict[tuple[Key, int], Blocks]:
        """(criterion, activations, seed) and number of removed blocks -> which they are; the selected ones first."""
        found = {(key, len(gone)): gone for key, gone in removed_by(self.rows).items() if gone}
        for key in list(removed_by(self.rows)):
            own = [row for row in self.rows if key_of(row) == key and row["rank"] is not None]
            # A block without a score is last in rank, but goes by no rule either.
            own = [row for row in own if row["score"] is not None and row["block"] not in self.protected]
            order = [row["block"] for row in sorted(own, key=lambda row: row["rank"])]
            for size in self.sizes:
                if size <= len(order):
                    found.setdefault((key, size), tuple(sorted(order[:size])))
            missing = [str(size) for size in self.sizes if (key, size) not in found]
            if missing:
                name = " ".join(str(part) for part in key if part is not None)
                self.session.terminal.say(
                    f"prune: {name} orders {len(order)} blocks, so --sweep has nothing of it at {', '.join(missing)}"
                    + ("; search further with --n" if key[0] == GREEDY else "")
                )
        return found

    def retained(self, metrics: Sequence[Metric]) -> Rows:
        """Rows of RETAINED: every metric of the whole model and without the blocks of each criterion.

        The values of each set of blocks are kept by themselves, so that criteria which agree are measured once, and an
        interrupted run goes on with the next set.
        """
        variants = self.variants()
        recipe = Recipe(
            table=RETAINED.name, stage="prune", version=VERSIONS["prune"],
            options={
                "metrics": [metric.identity for metric in metrics], "sizes": list(self.sizes),
                "protected": sorted(self.protected), "bootstrap": self.bootstrap, "seed": self.seed,
            },
            inputs=(Input(self.blocks.sha256, self.blocks.key),),
            identities=self.choice.identities, dtype=self.choice.dtype, attention=self.choice.attention,
        )  # fmt: skip
        return self._rows(RETAINED, recipe, lambda: self._retained(metrics, variants))

    def _retained(self, metrics: Sequence[Metric], variants: Mapping[tuple[Key, int], Blocks]) -> pl.DataFrame:
        import polars as pl

        from hcl_cli.stages.retained import retained_rows

        distinct: list[Blocks] = list(dict.fromkeys([(), *variants.values()]))
        values = self._values(metrics, distinct)
        return pl.concat(
            [
                retained_rows(
                    values[()], values[gone], model=self.choice.reference.name, variant=criterion,
                    activations=activations, seed=seed, blocks=gone, n_bootstrap=self.bootstrap,
                    seed_of_intervals=self.seed,
                )
                for ((criterion, activations, seed), _), gone in variants.items()
            ]
        )  # fmt: skip

    def _values(self, metrics: Sequence[Metric], sets: Sequence[Blocks]) -> dict[Blocks, dict[Metric, Floats]]:
        """Per set of removed blocks the values of every metric."""
        from hcl_cli.stages.quality_values import measured_variants

        timed = [metric for metric in metrics if metric.unit == "runs"]
        kept = [metric for metric in metrics if metric.unit != "runs"]
        found: dict[Blocks, dict[Metric, Floats]] = {}
        with self.session.terminal.progress("prune", "models measured") as advance:
            for done, gone in enumerate(sets, start=1):
                found[gone] = self._kept_values(kept, gone)
                advance(done, len(sets))
        if timed:  # a measurement of this machine now: all models in turn, and never kept by itself
            names = {str(gone): gone for gone in sets}
            runs = measured_variants(timed, {name: self._opening(gone) for name, gone in names.items()})
            for name, values in runs.items():
                found[names[name]] |= values
        return {gone: {metric: values[metric] for metric in metrics} for gone, values in found.items()}

    def _kept_values(self, metrics: Sequence[Metric], gone: Blocks) -> dict[Metric, Floats]:
        """The values of one model, from the store or measured."""
        from hcl_cli.stages.quality_frames import quality_frame, values_of
        from hcl_cli.stages.quality_values import measured_variants

        def compute() -> pl.DataFrame:
            values = measured_variants(metrics, {"": self._opening(gone)})[""]
            return quality_frame(values, model=self.choice.reference.name, removed=gone)

        if not metrics:
            return {}
        if self.session.no_cache:
            return values_of(compute(), metrics)
        recipe = Recipe(
            table=QUALITY.name, stage="prune", version=VERSIONS["prune"],
            options={"removed": list(gone), "metrics": [metric.identity for metric in metrics]},
            identities=self.choice.identities, dtype=self.choice.dtype, attention=self.choice.attention,
        )  # fmt: skip
        return values_of(self.session.produce(recipe, QUALITY, compute).frame().collect(), metrics)

    def _opening(self, gone: Blocks) -> Callable[[], Any]:
        from hcl_cli.models.cut import without_blocks

        loaded = self.choice.load()
        return (lambda: without_blocks(loaded, gone)) if gone else (lambda: nullcontext(loaded))

    def _rows(self, table: Table, recipe: Recipe, compute: Callable[[], pl.DataFrame]) -> Rows:
        if self.session.no_cache:
            from hcl_cli.artifacts.parquet import conform

            return conform(compute(), table).to_dicts()
        artifact = self.session.produce(recipe, table, compute)
        self.also.append(artifact)
        return artifact.rows_as_dicts()
