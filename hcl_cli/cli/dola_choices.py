"""Multiple choice in `hcl dola`: one set with given answers, scored block by block and compared with a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.loading import ModelChoice
from hcl_cli.cli.options import spelled
from hcl_cli.cli.session import Session
from hcl_cli.schemas import CHOICES, CHOICES_COMPARED
from hcl_cli.stages.versions import CHOICES_BLOCK, DOLA_CHOICES_GROWS, VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.artifacts.store import Block
    from hcl_cli.data.completions import ChoiceSet
    from hcl_cli.data.prompts import Prompt
    from hcl_cli.models.contrast_methods import Method
    from hcl_cli.stages.choices import Choice, Kind


@dataclass(frozen=True)
class ChoicePlan:
    """One set, and how its answers are scored.

    Attributes:
        given: questions with answers (mc), or prefixes with continuations (factor).
        defaults: what the methods take where their names say nothing; only what scoring reads.
        template: of questions; None for prefixes.
        tidy: drop the blank before a continuation's closing mark, which gives the factual one away.
    """

    session: Session
    choice: ModelChoice
    given: ChoiceSet
    kind: Kind
    methods: Sequence[Method]
    defaults: Method
    limit: int | None
    published: bool
    columns: Mapping[str, str]
    template: Prompt | None = None
    tidy: bool = False

    @property
    def name(self) -> str:
        """Of the data set, as rows carry it."""
        return f"{self.given.name}, tidied" if self.tidy else self.given.name

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows that are asked for, checked."""
        return self.given.load() if self.limit is None else self.given.load().head(self.limit)

    def asked(self, frame: pl.DataFrame) -> list[Choice]:
        """These rows as the stage takes them."""
        from hcl_cli.stages.choices import completion_choices, question_choices

        template = self.template
        if template is None:
            return completion_choices(frame, tidy=self.tidy)
        tokenizer = self.choice.load().tokenizer
        return question_choices(frame, lambda question: template.render(question, tokenizer))

    def check(self) -> None:
        """Refuse what cannot be scored, before anything is. Raises BadInput."""
        from hcl_cli.stages.choices import check_choices

        check_choices(
            self.choice.load(), self.asked(self.frame), kind=self.kind, dataset=self.name,
            special_tokens=self._special_tokens,
        )  # fmt: skip

    @property
    def _special_tokens(self) -> bool:
        return self.template is None or not self.template.is_chat

    def recipe(self) -> Recipe:
        """Of CHOICES: nothing of how answers are decoded is in it."""
        given = self.defaults
        return Recipe(
            table=CHOICES.name,
            stage="dola",
            version=VERSIONS["dola"],
            options={
                "kind": self.kind, "methods": [method.name for method in self.methods], "limit": self.limit,
                "divergence": given.divergence, "norm": given.norm, "alpha": given.alpha,
                "prompt": None if self.template is None else self.template.identity, "tidy": self.tidy,
                "published_choices": self.published, "columns": spelled(dict(self.columns)),
                "block_questions": CHOICES_BLOCK, "trust_remote_code": self.choice.trust_remote_code,
            },
            identities={**self.choice.identities, "data": self.given.identity, "data_name": self.given.name},
            dtype=self.choice.dtype,
            attention=self.choice.attention,
            grows=DOLA_CHOICES_GROWS,
        )  # fmt: skip

    def blocks(self) -> list[Block]:
        """A run of questions under all methods each."""
        from hcl_cli.artifacts.store import Block

        ids, names = self.frame["question_id"].to_list(), [method.name for method in self.methods]
        return [
            Block(at // CHOICES_BLOCK, {(one, name): 1 for one in ids[at : at + CHOICES_BLOCK] for name in names})
            for at in range(0, len(ids), CHOICES_BLOCK)
        ]

    def compute(self, _block: Block, missing: Mapping[Any, tuple[int, int]]) -> pl.DataFrame:
        """The missing rows of a block: questions that lack the same methods are scored together."""
        import polars as pl

        from hcl_cli.stages.choices import choice_rows

        lacking: dict[str, tuple[str, ...]] = {}
        for question, name in missing:
            lacking[question] = (*lacking.get(question, ()), name)
        parts = []
        for names in dict.fromkeys(lacking.values()):
            wanted = [question for question, of in lacking.items() if of == names]
            parts.append(
                choice_rows(
                    self.choice.load(), self.asked(self.frame.filter(pl.col("question_id").is_in(wanted))),
                    [method for method in self.methods if method.name in names], kind=self.kind,
                    model=self.choice.reference.name, dataset=self.name, published=self.published,
                    special_tokens=self._special_tokens,
                )
            )  # fmt: skip
        return pl.concat(parts)

    def scored(self) -> Artifact | None:
        """CHOICES, found or made; None under --no-cache. Under --dry-run a miss ends the command."""
        session, recipe = self.session, self.recipe()
        if session.no_cache:
            return None
        if session.dry_run and (found := session.store.find(recipe, CHOICES)) is not None:
            return found

        def blocks() -> list[Block]:
            self.check()  # a miss
            return self.blocks()

        return session.produce_cells(
            recipe, CHOICES, blocks, self.compute, cell_columns=("question_id", "method"), index_column=None
        )

    def compared(
        self, bootstrap: int, seed: int, baseline: str
    ) -> tuple[Artifact | None, Recipe, Callable[[], pl.DataFrame]]:
        """CHOICES; the recipe of CHOICES_COMPARED; and what computes it, methods in the user's order."""
        scored = self.scored()
        recipe = Recipe(
            table=CHOICES_COMPARED.name,
            stage="dola",
            version=VERSIONS["dola"],
            options={
                "methods": [method.name for method in self.methods],
                "bootstrap": bootstrap,
                "seed": seed,
                "baseline": baseline,
            },
            inputs=() if scored is None else (Input(scored.sha256, scored.key),),
        )

        def compute() -> pl.DataFrame:
            import polars as pl

            from hcl_cli.stages.choices import choice_summary

            if scored is None:
                blocks = self.blocks()
                rows = pl.concat([self.compute(block, {cell: (0, 1) for cell in block.wanted}) for block in blocks])
            else:
                rows = scored.frame().collect()
            place = {method.name: at for at, method in enumerate(self.methods)}
            rows = rows.sort(pl.col("method").replace_strict(place), maintain_order=True)
            return choice_summary(rows, baseline=baseline, n_bootstrap=bootstrap, seed=seed)

        return scored, recipe, compute
