"""What `hcl score` clusters with: sentence embeddings, entailment or equal words; and the entailment model, which is a
judge too."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hcl_cli.cli.session import Session
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.stages.scored_columns import CLUSTERINGS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.cli.score_people import Answers
    from hcl_cli.models.encoders import EncoderRef
    from hcl_cli.models.entailment import EntailmentModel, EntailmentRef
    from hcl_cli.stages.clusterings import Clustering, Progress

NLI = "nli"  # the judge; clusterings begin with it
RULES = ("greedy", "greedy-last", "components", "complete")
_PANEL = "Clusters"
_NLI_PANEL = "Entailment model (--judge nli, --cluster nli-strict, nli-loose)"

ClusterOpt = Annotated[
    str,
    typer.Option(
        "--cluster", metavar="NAMES", rich_help_panel=_PANEL,
        help="cosine of sentence embeddings, exact (same words), nli-strict or nli-loose (entailment); several with "
        "commas: the first decides.",
    ),
]  # fmt: skip
RuleOpt = Annotated[
    str,
    typer.Option(
        "--cluster-rule", metavar="RULE", rich_help_panel=_PANEL,
        help="greedy, by first members in order (published); greedy-last, as semantic entropy's code; components or "
        "complete linkage, whatever the order.",
    ),
]  # fmt: skip
NumbersOpt = Annotated[
    bool,
    typer.Option(
        "--numbers-must-agree/--numbers-may-differ", rich_help_panel=_PANEL,
        help="Answers that state different numbers never mean the same.",
    ),
]  # fmt: skip
NliModelOpt = Annotated[
    str | None,
    typer.Option("--nli-model", metavar="MODEL", show_default=False, rich_help_panel=_NLI_PANEL,
                 help="A sequence classifier for entailment: folder or Hub name."),
]  # fmt: skip
NliQuestionOpt = Annotated[
    bool,
    typer.Option("--nli-question/--no-nli-question", rich_help_panel=_NLI_PANEL,
                 help="Put the question in front of both texts."),
]  # fmt: skip


def parse_clusterings(text: str, rule: str, numbers: bool) -> tuple[str, ...]:
    """The clusterings that `--cluster` names.

    Raises:
        BadOption: an unknown name or rule, a name twice, or a rule or guard that says nothing of equal words.
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in CLUSTERINGS]
    if unknown:
        raise BadOption(
            f"--cluster {text}: {unknown[0]!r} is not a clustering; expected one or more of {', '.join(CLUSTERINGS)}"
        )
    if len(set(names)) != len(names):
        raise BadOption(f"--cluster {text}: a clustering is named twice; name each once")
    if rule not in RULES:
        raise BadOption(f"--cluster-rule {rule}: expected one of {', '.join(RULES)}")
    if set(names) == {"exact"} and (rule != "greedy" or numbers):
        option = f"--cluster-rule {rule}" if rule != "greedy" else "--numbers-must-agree"
        raise BadOption(f"{option}: equal words are clusters by themselves; add cosine or nli-strict to --cluster")
    return names


@dataclass
class Clusterers:
    """The clusterings of one call, and the entailment model; nothing is loaded before it is needed.

    Attributes:
        judged: whether the entailment model is a judge.
        names: the clusterings.
        encoder, entailment: found, not loaded; null where nothing needs them.
        asked_device: of `--device`.
    """

    session: Session
    judged: bool
    names: tuple[str, ...]
    threshold: float
    rule: str
    numbers: bool
    with_question: bool
    encoder: "EncoderRef | None"
    entailment: "EntailmentRef | None"
    asked_device: str
    _loaded: "list[EntailmentModel]" = field(default_factory=list)

    @property
    def labels(self) -> tuple[str, ...]:
        """As the column `clustering` has them."""
        more = ("" if self.rule == "greedy" else f"+{self.rule}") + ("+numbers" if self.numbers else "")
        return tuple(
            name if name == "exact" else
            name + more + ("+no-question" if name.startswith(NLI) and not self.with_question else "")
            for name in self.names
        )  # fmt: skip

    def options(self) -> dict[str, Any]:
        """What decides the clusters and the verdicts of entailment, for the recipe."""
        return {
            "clusters": list(self.labels), "threshold": self.threshold if self.encoder is not None else None,
            "nli_question": self.with_question if self.entailment is not None else None,
        }  # fmt: skip

    def identities(self) -> dict[str, str]:
        """Of the models, for the recipe."""
        found = {"embedder": self.encoder, "nli_model": self.entailment}
        return {name: ref.identity for name, ref in found.items() if ref is not None}

    def verdicts(self, rows: "pl.DataFrame", source: "Answers") -> "pl.DataFrame | None":
        """`correct_nli`, one row per response; None where it is no judge."""
        if not self.judged:
            return None
        from hcl_cli.stages.nli_judge import nli_verdicts

        with self.session.terminal.progress("score", "distinct responses judged by entailment") as advance:
            try:
                return nli_verdicts(rows, self._model(), with_question=self.with_question, progress=advance)
            except BadInput as error:
                raise BadInput(f"{source.path}: {error}") from error

    def made(self, embedded: "Progress", entailed: "Progress") -> "list[Clustering]":
        """The clusterings, their models loaded; strict and loose ask for a pair once."""
        memo: dict[Any, Any] = {}
        return [self._one(name, embedded, entailed, memo) for name in self.names]

    def _one(self, name: str, embedded: "Progress", entailed: "Progress", memo: dict[Any, Any]) -> "Clustering":
        from hcl_cli.stages.clusterings import Cosine, Exact

        if name == "exact":
            return Exact()
        if name == "cosine":
            from hcl_cli.models.encoders import load_encoder

            assert self.encoder is not None
            loaded = load_encoder(self.encoder, self._device())
            return Cosine(loaded.encode, self.threshold, self.rule, self.numbers, loaded.reading, embedded)
        from hcl_cli.stages.nli_clusters import Entailed

        return Entailed(self._model(), name, self.rule, self.numbers, self.with_question, entailed, memo)

    def _model(self) -> "EntailmentModel":
        from hcl_cli.models.entailment import Remembered, load_entailment

        if not self._loaded:
            assert self.entailment is not None
            model = load_entailment(self.entailment, self._device())
            if not self.session.no_cache:
                from hcl_cli.artifacts.vector_memo import VectorMemo

                name = self.entailment.identity.removeprefix("sha256:")[:16]
                folder = self.session.store.root / "entailment" / name
                model = Remembered(model, VectorMemo(folder, 3, self.session.terminal.warn))
            self._loaded.append(model)
        return self._loaded[0]

    def say_cut(self) -> None:
        """How many texts the entailment model could not read whole."""
        for model in self._loaded:
            if model.n_cut:
                self.session.terminal.warn(f"{model.n_cut} pairs are longer than the entailment model reads: cut")

    def _device(self) -> str:
        from hcl_cli.models.load import resolve_device

        self.session.device = resolve_device(self.asked_device)  # for the log: what `auto` came to
        return self.session.device


def clusterers(
    context: typer.Context,
    session: Session,
    judges: Sequence[str],
    names: tuple[str, ...],
    *,
    threshold: float,
    rule: str,
    numbers: bool,
    embedder: str | None,
    nli_model: str | None,
    with_question: bool,
    device: str,
    memo: Path | None,
) -> Clusterers:
    """What the options describe; models are found, not loaded.

    Raises:
        BadOption: a model cannot be found or used, or an option on the command line says nothing here.
        EnvironmentRefused: as `find_encoder`.
    """
    judged = NLI in judges
    users = (["--judge nli"] if judged else []) + [f"--cluster {name}" for name in names if name.startswith(NLI)]
    if not users:
        _refuse_nli_options(context)
    encoder = entailment = None
    if "cosine" in names or users:
        from hcl_cli.models.identity import remembered_sha256

        def sha256(file: Path) -> str:
            return remembered_sha256(file, memo)

        if "cosine" in names:
            from hcl_cli.models.encoders import find_encoder

            encoder = find_encoder(embedder, sha256=sha256)
        if users:
            from hcl_cli.models.entailment import find_entailment

            entailment = find_entailment(nli_model, sha256=sha256, needed_by=users[0])
            if "nli-loose" in names and not entailment.tells_contradiction:
                raise BadOption(
                    f"--cluster nli-loose: {entailment.name} does not tell contradiction from neutral (its classes are "
                    "entailment and not); use nli-strict, or a model with three classes"
                )
    return Clusterers(
        session, judged, names, threshold, rule, numbers, with_question, encoder, entailment, device
    )  # fmt: skip


def _refuse_nli_options(context: typer.Context) -> None:
    """From a variable or `hcl.toml`, which speak for all calls, they are no contradiction."""
    for name, option in (("nli_model", "--nli-model"), ("nli_question", "--nli-question")):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise BadOption(
                f"{option}: speaks to an entailment model, but nothing uses one; add nli to --judge, or nli-strict or "
                "nli-loose to --cluster"
            )
