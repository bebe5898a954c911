"""What `hcl dola` makes of its answers and of given ones: each table an artifact of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.dola_choices import ChoicePlan
from hcl_cli.cli.loading import ModelChoice
from hcl_cli.cli.session import Session
from hcl_cli.schemas import CHOICES_COMPARED, COMPARED, TEXT_SCORES, Table
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.data.questions import QuestionSet
    from hcl_cli.models.contrast_methods import Method
    from hcl_cli.models.encoders import EncoderRef
    from hcl_cli.stages.text_scores import MetricChoice

Rows = list[dict[str, Any]]


@dataclass
class Products:
    """Everything made in one call beside the answers themselves.

    Attributes:
        answers: the DOLA artifact; None where no answer is wanted.
        source: the questions, with their references.
        references: their columns in the file, as far as `--columns` names them.
        encoder: of BERTScore, if it is asked for.
        seed, bootstrap: of all intervals.
        baseline: the method that differences are from.
        also: the artifacts made so far; none under --no-cache, where rows are shown and not kept.
        main: what stands in the place of answers where none is wanted.
    """

    session: Session
    source: QuestionSet
    references: Mapping[str, str]
    choice: ModelChoice
    methods: Sequence[Method]
    encoder: EncoderRef | None
    seed: int
    bootstrap: int
    baseline: str
    answers: Artifact | None = None
    also: list[Artifact] = field(default_factory=list)
    main: Artifact | None = None

    @cached_property
    def ordered(self) -> pl.DataFrame:
        """The answers, methods in the user's order."""
        import polars as pl

        assert self.answers is not None
        place = {method.name: at for at, method in enumerate(self.methods)}
        return self.answers.frame().collect().sort(pl.col("method").replace_strict(place), maintain_order=True)

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The same, with the references that the file has beside its own."""
        found = self.source.references(self.references)
        return self.ordered.join(found, on="question_id", how="left", maintain_order="left")

    def check(self, metrics: MetricChoice, n_questions: int) -> None:
        """Refuse what would stop the text metrics, before anything is decoded."""
        from hcl_cli.stages.evaluate_metrics import check_metric
        from hcl_cli.stages.text_scores import check_references

        questions = self.source.load().join(self.source.references(self.references), on="question_id", how="left")
        check_references(questions.head(n_questions))
        for name in metrics.foreign:
            check_metric(name)

    def rows(self, recipe: Recipe, table: Table, compute: Callable[[], pl.DataFrame]) -> Rows:
        """The rows of one product, found or made."""
        if self.session.no_cache:
            from hcl_cli.artifacts.parquet import conform

            return conform(compute(), table).to_dicts()
        artifact = self.session.produce(recipe, table, compute)
        self.also.append(artifact)
        return artifact.rows_as_dicts()

    def text(self, metrics: MetricChoice) -> Rows:
        """Rows of COMPARED: every method under every text metric, and its difference from the baseline.

        What a metric from the Hub says is shown and not kept: nothing tells whether its script is still the same.
        """
        from hcl_cli.stages.evaluate_metrics import evaluate_compared, metric_identity

        scored: list[pl.DataFrame] = []
        identities = {name: metric_identity(name) for name in metrics.foreign}
        kept = [name for name, identity in identities.items() if identity is not None]

        def scores() -> pl.DataFrame:
            if not scored:
                scored.append(self._scores(metrics))
            return scored[0]

        def compared() -> pl.DataFrame:
            import polars as pl

            from hcl_cli.stages.text_comparison import compared

            parts = [evaluate_compared(self.frame, name, baseline=self.baseline) for name in kept]
            if metrics.own:
                parts.insert(0, compared(scores(), baseline=self.baseline, n_bootstrap=self.bootstrap, seed=self.seed))
            return pl.concat(parts)

        rows: Rows = []
        if metrics.own:
            self.rows(self._recipe(TEXT_SCORES, metrics), TEXT_SCORES, scores)
        if metrics.own or kept:
            more = {
                "evaluate": [[name, identities[name]] for name in kept], "bootstrap": self.bootstrap, "seed": self.seed,
                "baseline": self.baseline,
            }  # fmt: skip
            rows += self.rows(self._recipe(COMPARED, metrics, **more), COMPARED, compared)
        for name in identities:
            if name not in kept:
                rows += evaluate_compared(self.frame, name, baseline=self.baseline).to_dicts()
        return rows

    def _recipe(self, table: Table, metrics: MetricChoice, **more: Any) -> Recipe:
        assert self.answers is not None
        encoder = {} if self.encoder is None else {"encoder": self.encoder.identity, "encoder_name": self.encoder.name}
        return Recipe(
            table=table.name,
            stage="dola",
            version=VERSIONS["dola"],
            options={"metrics": list(metrics.own), "references": dict(self.references), **more},
            inputs=(Input(self.answers.sha256, self.answers.key),),
            identities={**self.choice.identities, "data": self.source.identity, **encoder},
        )

    def _scores(self, metrics: MetricChoice) -> pl.DataFrame:
        from hcl_cli.stages.text_scores import text_scores

        bertscore, name = None, None
        if self.encoder is not None:
            from hcl_cli.models.bertscore import load_bert_scorer
            from hcl_cli.models.load import resolve_device

            scorer = load_bert_scorer(self.encoder, device=resolve_device(self.choice.device))
            bertscore, name = scorer.score, scorer.name
        with self.session.terminal.progress("dola", "answers scored") as advance:
            return text_scores(self.frame, metrics.own, bertscore=bertscore, encoder=name, progress=advance)

    def compared(self, plan: ChoicePlan) -> Rows:
        """Rows of CHOICES_COMPARED of one set with given answers; the first is the main artifact without answers."""
        scored, recipe, compute = plan.compared(self.bootstrap, self.seed, self.baseline)
        if scored is not None:
            self.also.append(scored)
        if self.answers is not None or self.main is not None:
            return self.rows(recipe, CHOICES_COMPARED, compute)
        self.main = self.session.produce(recipe, CHOICES_COMPARED, compute)
        return self.main.rows_as_dicts()

    def histogram(self) -> Rows:
        """How often each premature layer was chosen, by kind of token; nothing where no answer is wanted."""
        from hcl_cli.stages.dola_views import chosen_layers

        return [] if self.answers is None else chosen_layers(self.ordered).to_dicts()
